"""The Codegen door: agent runs of the Codegen API, one by one, in bulk, streamed and waited for.

    async with create_production_client("token", "1") as client:
        run = await client.create_agent_run(org_id=1, prompt="Fix the flaky test")
        done = await client.wait_for_agent_run_completion(1, run.id)

The tutorial is docs/tutorial/first-agent-run.md, the reference docs/reference/codegen.md.
"""

try:
    import pydantic  # noqa: F401 - asked for here, so that its absence is explained
except ImportError as error:  # pragma: no cover - the tests install it
    raise ImportError(
        "headgate.codegen needs pydantic, which comes with it as an extra: "
        "pip install 'headgate[codegen]'"
    ) from error

from headgate.codegen.blocking import SyncCodegenClient
from headgate.codegen.bulk import BulkOperationConfig, BulkOperationResult
from headgate.codegen.client import AsyncCodegenClient
from headgate.codegen.config import ClientConfig, ConfigPresets, RetryConfig
from headgate.codegen.errors import (
    AuthenticationError,
    BulkOperationError,
    CodegenAPIError,
    ConflictError,
    FeatureDisabledError,
    NetworkError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TimeoutError,
    ValidationError,
    WebhookError,
)
from headgate.codegen.factories import (
    create_client_from_env,
    create_development_client,
    create_high_performance_client,
    create_production_client,
)
from headgate.codegen.inputs import (
    AgentType,
    CheckSuiteSettingsRequest,
    CreateAgentRunRequest,
    EditPRInput,
    GenerateSetupCommandsInput,
    GenerateTokenRequest,
    PRState,
    ResumeAgentRunInput,
    StopAgentRunInput,
)
from headgate.codegen.legacy import CodegenClient
from headgate.codegen.measures import PerformanceStats
from headgate.codegen.models import (
    AgentRunLogResponse,
    AgentRunResponse,
    AgentRunWithLogsResponse,
    AnalyzeLogsResponse,
    ApiAgentRunSourceType,
    CheckSuiteSettingsResponse,
    CLIRulesResponse,
    EditPRResponse,
    GenerateTokenResponse,
    GithubPullRequestResponse,
    IntegrationStatus,
    MessageType,
    OAuthProviderResponse,
    OrganizationIntegrationsResponse,
    OrganizationResponse,
    OrganizationSettings,
    Page,
    RepoResponse,
    SetupCommandsResponse,
    UserResponse,
    UserRole,
)
from headgate.codegen.status import AgentRunStatus
from headgate.codegen.webhook_app import webhook_app
from headgate.codegen.webhooks import WebhookEvent, WebhookHandler

__all__ = [
    "AgentRunLogResponse",
    "AgentRunResponse",
    "AgentRunStatus",
    "AgentRunWithLogsResponse",
    "AgentType",
    "AnalyzeLogsResponse",
    "ApiAgentRunSourceType",
    "AsyncCodegenClient",
    "AuthenticationError",
    "BulkOperationConfig",
    "BulkOperationError",
    "BulkOperationResult",
    "CLIRulesResponse",
    "CheckSuiteSettingsRequest",
    "CheckSuiteSettingsResponse",
    "ClientConfig",
    "CodegenAPIError",
    "CodegenClient",
    "ConfigPresets",
    "ConflictError",
    "CreateAgentRunRequest",
    "EditPRInput",
    "EditPRResponse",
    "FeatureDisabledError",
    "GenerateSetupCommandsInput",
    "GenerateTokenRequest",
    "GenerateTokenResponse",
    "GithubPullRequestResponse",
    "IntegrationStatus",
    "MessageType",
    "NetworkError",
    "NotFoundError",
    "OAuthProviderResponse",
    "OrganizationIntegrationsResponse",
    "OrganizationResponse",
    "OrganizationSettings",
    "PRState",
    "Page",
    "PaymentRequiredError",
    "PerformanceStats",
    "PermissionDeniedError",
    "RateLimitError",
    "RepoResponse",
    "ResumeAgentRunInput",
    "RetryConfig",
    "ServerError",
    "SetupCommandsResponse",
    "StopAgentRunInput",
    "SyncCodegenClient",
    "TimeoutError",
    "UserResponse",
    "UserRole",
    "ValidationError",
    "WebhookError",
    "WebhookEvent",
    "WebhookHandler",
    "create_client_from_env",
    "create_development_client",
    "create_high_performance_client",
    "create_production_client",
    "webhook_app",
]
