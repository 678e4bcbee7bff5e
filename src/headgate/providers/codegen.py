"""The Codegen agent-run API: its operations and its wire format. No sockets.

Operations follow the vendor's OpenAPI file, "Developer API" 1.0.0 (codegen-sh/codegen,
docs/api-reference/openapi3.json, state of 2025-10-07); a test compares the table with it. There is no
idempotency key, so what starts an agent may be sent once only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import msgspec

from headgate.core.call import Key
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Outcome
from headgate.core.ports import Request
from headgate.core.resource import Endpoint, ResourceCall
from headgate.providers.codegen_errors import read_answer

__all__ = ["CODEGEN_ENDPOINTS", "CodegenProvider"]

_ORG = "/organizations/{org_id}"
_RUNS = ("runs",)

_ALL = (
    Endpoint("get_current_user", "GET", "/users/me", shelf="users"),
    Endpoint("get_organizations", "GET", "/organizations", shelf="organizations"),
    Endpoint("get_users", "GET", f"{_ORG}/users", shelf="users"),
    Endpoint("get_user", "GET", f"{_ORG}/users/{{user_id}}", shelf="users"),
    Endpoint(
        "create_agent_run", "POST", f"{_ORG}/agent/run", "create", repeatable=False, spoils=_RUNS
    ),
    Endpoint("get_agent_run", "GET", f"{_ORG}/agent/run/{{agent_run_id}}", shelf="runs"),
    Endpoint("list_agent_runs", "GET", f"{_ORG}/agent/runs", shelf="runs"),
    Endpoint(
        "resume_agent_run", "POST", f"{_ORG}/agent/run/resume", repeatable=False, spoils=_RUNS
    ),
    Endpoint("ban_agent_run_checks", "POST", f"{_ORG}/agent/run/ban", spoils=_RUNS),
    Endpoint("unban_agent_run_checks", "POST", f"{_ORG}/agent/run/unban", spoils=_RUNS),
    Endpoint("remove_codegen_from_pr", "POST", f"{_ORG}/agent/run/remove-from-pr", spoils=_RUNS),
    Endpoint(
        "get_agent_run_logs", "GET", f"/alpha{_ORG}/agent/run/{{agent_run_id}}/logs", "logs",
        shelf="runs",
    ),
    Endpoint("get_repositories", "GET", f"{_ORG}/repos", shelf="repositories"),
    Endpoint("get_check_suite_settings", "GET", f"{_ORG}/repos/check-suite-settings", shelf="settings"),
    Endpoint(
        "update_check_suite_settings", "PUT", f"{_ORG}/repos/check-suite-settings",
        spoils=("settings",),
    ),
    Endpoint("edit_pull_request", "PATCH", f"{_ORG}/prs/{{pr_id}}", "pull_requests", spoils=_RUNS),
    Endpoint(
        "edit_repository_pull_request", "PATCH", f"{_ORG}/repos/{{repo_id}}/prs/{{pr_id}}",
        "pull_requests", spoils=_RUNS,
    ),
    Endpoint("get_integrations", "GET", f"{_ORG}/integrations", shelf="integrations"),
    Endpoint(
        "generate_setup_commands", "POST", f"{_ORG}/setup-commands/generate", "setup",
        repeatable=False, spoils=("runs", "repositories"),
    ),
    Endpoint(
        "analyze_sandbox_logs", "POST", f"{_ORG}/sandbox/{{sandbox_id}}/analyze-logs", "analysis",
        repeatable=False, spoils=_RUNS,
    ),
    Endpoint("get_cli_rules", "GET", f"{_ORG}/cli/rules", "rules", shelf="rules"),
    Endpoint("get_mcp_providers", "GET", "/mcp-providers", shelf="providers"),
    Endpoint("get_oauth_token_status", "GET", "/oauth/tokens/status", shelf="integrations"),
    Endpoint("revoke_oauth_token", "POST", "/oauth/tokens/revoke", spoils=("integrations",)),
    Endpoint("generate_slack_connect_token", "POST", "/slack-connect/generate-token"),
)  # fmt: skip

CODEGEN_ENDPOINTS: Mapping[str, Endpoint] = {endpoint.name: endpoint for endpoint in _ALL}
"""Every operation of the API, by the name of the method that calls it."""


class CodegenProvider:
    """Writes requests and reads answers.

    Args:
        base_url: with the version, such as `https://api.codegen.com/v1`.
        headers: sent along; never the credential, which nothing here may replace.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str] | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._known: tuple[Key, str] | None = None  # the fingerprint of the key asked for last
        refused = {"authorization", "content-type", "content-length", "host"}
        self._headers = {
            "accept": "application/json",
            "user-agent": "headgate-codegen",
            **{name: value for name, value in (headers or {}).items() if name.lower() not in refused},
        }

    def write(self, call: ResourceCall) -> Request:
        """The wire form. Raises `InvalidCallError` for a body that is no JSON."""
        headers = dict(self._headers)
        if call.request_id:
            headers["x-request-id"] = call.request_id
        body = b""
        if call.body is not None:
            headers["content-type"] = "application/json"
            try:
                body = msgspec.json.encode(call.body)
            except (TypeError, ValueError, msgspec.MsgspecError) as error:
                raise InvalidCallError(
                    f"{call.endpoint.name}: the request cannot be written as JSON ({error})."
                ) from None
        return Request(call.endpoint.method, self._url(call), headers, body)

    def credential(self, key: Key) -> Mapping[str, str]:
        """The bearer token; in a header, never in a URL."""
        return {"authorization": f"Bearer {key.value}"}

    def identity(self, call: ResourceCall, key: Key) -> str:
        """Base URL, path, query, and a fingerprint of the token."""
        if self._known is None or self._known[0] is not key:
            self._known = (key, hashlib.sha256(key.value.encode()).hexdigest()[:16])
        return f"{self._known[1]} {call.endpoint.method} {self._url(call)}"

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> tuple[Outcome, object]:
        """What an answer means; with an error, its JSON."""
        return read_answer(status, headers, body)

    def _url(self, call: ResourceCall) -> str:
        values = {name: quote(str(value), safe="") for name, value in call.values.items()}
        url = self._base_url + call.endpoint.path.format(**values)
        return f"{url}?{urlencode(sorted(call.query.items()))}" if call.query else url
