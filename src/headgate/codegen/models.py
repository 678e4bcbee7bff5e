"""The API's answers as typed models. A field the models do not know is kept, an unknown word of an
enumeration is passed as it is, and `raw` is the JSON as it came.

Fields and which of them are required follow the vendor's OpenAPI file; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)

from headgate.codegen.status import AgentRunStatus, status_of

__all__ = [
    "AgentRunLogResponse",
    "AgentRunResponse",
    "AgentRunWithLogsResponse",
    "AnalyzeLogsResponse",
    "ApiAgentRunSourceType",
    "ApiModel",
    "CLIRulesResponse",
    "CheckSuiteSettingsResponse",
    "EditPRResponse",
    "GenerateTokenResponse",
    "GithubPullRequestResponse",
    "IntegrationStatus",
    "MessageType",
    "OAuthProviderResponse",
    "OrganizationIntegrationsResponse",
    "OrganizationResponse",
    "OrganizationSettings",
    "Page",
    "RepoResponse",
    "SetupCommandsResponse",
    "UserResponse",
    "UserRole",
]

Item = TypeVar("Item")


class ApiModel(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, protected_namespaces=())

    _raw: Any = PrivateAttr(default=None)

    @property
    def raw(self) -> Any:
        """The JSON this was read from, or None for one made by hand."""
        return self._raw

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw(cls, data: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        made = read(data)
        if isinstance(data, dict):
            made._raw = data
        return made


class UserRole(StrEnum):
    """A user's role in the organisation."""

    ADMIN = "ADMIN"
    MANAGER = "MANAGER"
    MEMBER = "MEMBER"


class ApiAgentRunSourceType(StrEnum):
    """Where a run was started from."""

    LOCAL = "LOCAL"
    SLACK = "SLACK"
    GITHUB = "GITHUB"
    GITHUB_CHECK_SUITE = "GITHUB_CHECK_SUITE"
    GITHUB_PR_REVIEW = "GITHUB_PR_REVIEW"
    LINEAR = "LINEAR"
    API = "API"
    CHAT = "CHAT"
    JIRA = "JIRA"
    CLICKUP = "CLICKUP"
    MONDAY = "MONDAY"
    SETUP_COMMANDS = "SETUP_COMMANDS"


class MessageType(StrEnum):
    """Kinds of log entries that are known; the API may send others."""

    ACTION = "ACTION"
    PLAN_EVALUATION = "PLAN_EVALUATION"
    FINAL_ANSWER = "FINAL_ANSWER"
    ERROR = "ERROR"
    USER_MESSAGE = "USER_MESSAGE"
    USER_GITHUB_ISSUE_COMMENT = "USER_GITHUB_ISSUE_COMMENT"
    INITIAL_PR_GENERATION = "INITIAL_PR_GENERATION"
    DETECT_PR_ERRORS = "DETECT_PR_ERRORS"
    FIX_PR_ERRORS = "FIX_PR_ERRORS"
    PR_CREATION_FAILED = "PR_CREATION_FAILED"
    PR_EVALUATION = "PR_EVALUATION"
    COMMIT_EVALUATION = "COMMIT_EVALUATION"
    AGENT_RUN_LINK = "AGENT_RUN_LINK"


def _tolerant(known: type[StrEnum]) -> Any:
    """A known word as its enumeration's member, another as the text it is."""
    return Annotated[known | str, Field(union_mode="left_to_right")]


class UserResponse(ApiModel):
    """A user."""

    id: int
    github_user_id: str
    github_username: str
    email: str | None = None
    avatar_url: str | None = None
    full_name: str | None = None
    role: _tolerant(UserRole) | None = None  # type: ignore[valid-type] # made above
    is_admin: bool | None = None


class OrganizationSettings(ApiModel):
    """What an organisation allows its agents."""

    enable_pr_creation: bool = True
    enable_rules_detection: bool = True


class OrganizationResponse(ApiModel):
    """An organisation."""

    id: int
    name: str
    settings: OrganizationSettings


class GithubPullRequestResponse(ApiModel):
    """A pull request that a run made or worked on."""

    id: int
    created_at: str
    title: str | None = None
    url: str | None = None
    head_branch_name: str | None = None


class _Run(ApiModel):
    """What the two shapes of a run share."""

    id: int
    organization_id: int
    status: str | None = None
    created_at: str | None = None
    web_url: str | None = None
    result: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def state(self) -> AgentRunStatus:
        """What the status means; `status` is the text as it came."""
        return status_of(self.status)

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return self.state.is_terminal

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state.is_success

    @property
    def created(self) -> datetime | None:
        """`created_at` as an aware moment in UTC, or None where it is absent or no date."""
        try:
            moment = datetime.fromisoformat(self.created_at or "")
        except ValueError:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class AgentRunResponse(_Run):
    """An agent run."""

    summary: str | None = None
    source_type: _tolerant(ApiAgentRunSourceType) | None = None  # type: ignore[valid-type] # see above
    github_pull_requests: list[GithubPullRequestResponse] | None = None


class AgentRunLogResponse(ApiModel):
    """One entry of a run's log."""

    agent_run_id: int
    created_at: str | None = None
    tool_name: str | None = None
    message_type: _tolerant(MessageType) | None = None  # type: ignore[valid-type] # see above
    thought: str | None = None
    observation: dict[str, Any] | str | None = None
    tool_input: dict[str, Any] | None = None
    tool_output: dict[str, Any] | None = None


class AgentRunWithLogsResponse(_Run):
    """An agent run with a page of its log."""

    logs: list[AgentRunLogResponse]
    total_logs: int | None = None
    page: int | None = None
    size: int | None = None
    pages: int | None = None


class RepoResponse(ApiModel):
    """A repository."""

    id: int
    name: str
    full_name: str
    description: str | None
    github_id: str
    organization_id: int
    visibility: str | None
    archived: bool | None
    setup_status: str
    language: str | None


class CheckSuiteSettingsResponse(ApiModel):
    """How failed checks of a repository are treated."""

    check_retry_count: int
    ignored_checks: list[str]
    check_retry_counts: dict[str, int]
    custom_prompts: dict[str, str]
    high_priority_apps: list[str]
    available_check_suite_names: list[str]


class EditPRResponse(ApiModel):
    """What became of an edit of a pull request."""

    success: bool
    url: str | None = None
    number: int | None = None
    title: str | None = None
    state: str | None = None
    error: str | None = None


class IntegrationStatus(ApiModel):
    """One integration."""

    integration_type: str
    active: bool
    token_id: int | None = None
    installation_id: int | None = None
    metadata: dict[str, Any] | None = None


class OrganizationIntegrationsResponse(ApiModel):
    """The integrations of an organisation."""

    organization_id: int
    organization_name: str
    integrations: list[IntegrationStatus]
    total_active_integrations: int


class SetupCommandsResponse(ApiModel):
    """The run that works out set-up commands."""

    agent_run_id: int
    status: str
    url: str


class AnalyzeLogsResponse(ApiModel):
    """The run that analyses set-up logs."""

    agent_run_id: int
    status: str
    message: str


class CLIRulesResponse(ApiModel):
    """Rules for agents at a command line."""

    organization_rules: str | None
    user_custom_prompt: str | None


class OAuthProviderResponse(ApiModel):
    """A provider one can connect to."""

    id: int
    name: str
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    default_scopes: list[str] | None
    is_mcp: bool
    meta: dict[str, Any] | None = None


class GenerateTokenResponse(ApiModel):
    """A token that connects a Slack account: for ten minutes, once."""

    token: str = Field(repr=False)
    message: str = Field(repr=False)
    expires_in_minutes: int


class Page(ApiModel, Generic[Item]):
    """A page of a list. The vendor's own command line reads `page_size`; the API sends `size`."""

    items: list[Item]
    total: int
    page: int
    size: int
    pages: int
