"""The words of faults and methods. docs/reference/emulator.md explains each."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = [
    "ALIASES",
    "ANSWER_BEHAVIOURS",
    "BEHAVIOURS",
    "CLAUDE_ALIASES",
    "CLAUDE_ERRORS",
    "CLAUDE_ERROR_IDS",
    "CLAUDE_METHODS",
    "CODEGEN_FAULTS",
    "CODEGEN_METHODS",
    "ERRORS",
    "ERROR_IDS",
    "GEMINI_BEHAVIOURS",
    "METHODS",
    "OPENAI_ALIASES",
    "OPENAI_ERRORS",
    "OPENAI_ERROR_IDS",
    "OPENAI_METHODS",
    "STREAM_BEHAVIOURS",
    "TRANSPORT_BEHAVIOURS",
]

METHODS = (
    "generateContent",
    "streamGenerateContent",
    "countTokens",
    "embedContent",
    "batchEmbedContents",
    "models.list",
    "models.get",
    "files.upload",
    "files.list",
    "files.get",
    "files.delete",
)

CLAUDE_METHODS = ("messages", "messages_stream", "count_tokens", "claude_models")
"""The same for the Anthropic surface."""

OPENAI_METHODS = ("chat.completions", "chat.completions_stream", "embeddings", "openai_models")
"""The same for the OpenAI surface."""

TRANSPORT_BEHAVIOURS = ("reset", "close", "stall", "html")
"""Happen instead of an answer, before anything is checked or charged."""

ANSWER_BEHAVIOURS = (
    "slow",
    "reset_mid",
    "stall_mid",
    "wrong_length",
    "broken_json",
    "blocked",
    "safety",
    "safety_no_content",
    "safety_no_parts",
    "finish",
)
"""Happen to an answer the quotas had room for."""

STREAM_BEHAVIOURS = (
    "slow_chunks",
    "raw_error",
    "prefixed_error",
    "late_error_key",
    "silent_eof",
    "empty_stream",
    "half_event",
    "malformed_sse",
    "sse_no_space",
    "sse_comment",
    "sse_event_line",
    "sse_done",
)
"""Happen to a streamed answer the quotas had room for."""

GEMINI_BEHAVIOURS = (
    "safety_no_content",
    "safety_no_parts",
    "late_error_key",
    "sse_no_space",
    "sse_comment",
    "sse_event_line",
    "sse_done",
)
"""Have no counterpart on the Anthropic and OpenAI surfaces, and never happen there."""

BEHAVIOURS = (*TRANSPORT_BEHAVIOURS, *ANSWER_BEHAVIOURS, *STREAM_BEHAVIOURS)

ALIASES = {
    "overload": "503-overloaded",
    "high_demand": "503-high-demand",
    "internal": "500-internal",
    "deadline": "504-deadline",
    "capacity": "429-bare",
    "prepaid_empty": "429-prepaid-empty",
    "invalid_key": "400-key-invalid",
    "expired_key": "400-key-expired",
    "leaked_key": "403-leaked",
    "suspended_key": "403-suspended",
    "permission": "403-model-denied",
    "closed_model": "404-closed-to-new-projects",
    "location": "400-location",
}
"""Short names of recorded errors."""

CLAUDE_ALIASES = {
    "overload": "claude-529-overloaded",
    "high_demand": "claude-529-overloaded",
    "internal": "claude-500-api-error",
    "deadline": "claude-504-timeout",
    "rate_limit": "claude-429-rate-limit",
    "spend_cap": "claude-429-spend-cap",
    "spend_limit": "claude-400-spend-limit",
    "no_credit": "claude-400-credit",
    "unpaid": "claude-402-billing",
    "invalid_key": "claude-401-key",
    "permission": "claude-403-permission",
    "location": "claude-403-forbidden",
}
"""Short names of errors on the Anthropic surface."""

OPENAI_ALIASES = {
    "overload": "openai-503-overloaded",
    "high_demand": "openai-503-slow-down",
    "internal": "openai-500-server-error",
    "deadline": "openai-504-timeout",
    "rate_limit": "openai-429-rate-limit",
    "no_credit": "openai-429-quota",
    "spend_limit": "openai-400-hard-limit",
    "capacity": "openai-429-engine-overloaded",
    "invalid_key": "openai-401-key",
    "permission": "openai-403-model",
    "location": "openai-403-region",
}
"""Short names of errors on the OpenAI surface."""


CODEGEN_METHODS = tuple(
    sorted(
        {
            "get_current_user_info", "get_users", "get_user", "get_organizations", "create_agent_run",
            "get_agent_run", "list_agent_runs", "resume_agent_run", "ban_all_checks_for_agent_run",
            "unban_all_checks_for_agent_run", "remove_codegen_from_pr", "get_agent_run_logs",
            "get_repositories", "get_check_suite_settings", "update_check_suite_settings",
            "edit_pull_request_simple", "edit_pull_request", "get_organization_integrations_endpoint",
            "generate_setup_commands", "analyze_sandbox_logs", "get_cli_rules", "get_mcp_providers",
            "get_oauth_token_status", "revoke_oauth_token", "generate_slack_connect_token_endpoint",
        }
    )
)  # fmt: skip
"""Operations of the Codegen surface, as its OpenAPI file calls them."""

CODEGEN_FAULTS = {
    "overload": 503,
    "internal": 500,
    "bad_gateway": 502,
    "deadline": 504,
    "rate_limit": 429,
    "unpaid": 402,
    "permission": 403,
    "invalid_key": 401,
    "conflict": 409,
}
"""Errors of the Codegen surface by name, with their statuses."""


def _errors(name: str) -> dict[str, dict[str, Any]]:
    text = resources.files("headgate.emulator").joinpath("data", name).read_text("utf-8")
    loaded: dict[str, dict[str, Any]] = json.loads(text)["errors"]
    return loaded


ERRORS = _errors("errors.json")
"""Error id to {"http": status, "body": template}; `{key}`, `{model}` … stand for the request's own."""

ERROR_IDS = tuple(ERRORS)

CLAUDE_ERRORS = _errors("anthropic-errors.json")
"""Error id to {"http": status, "type": …, "message": template, …} of the Anthropic surface."""

CLAUDE_ERROR_IDS = tuple(CLAUDE_ERRORS)

OPENAI_ERRORS = _errors("openai-errors.json")
"""Error id to {"http": status, "type": …, "code": …, "message": template, …} of the OpenAI surface."""

OPENAI_ERROR_IDS = tuple(OPENAI_ERRORS)
