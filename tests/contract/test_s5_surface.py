"""What the Codegen door offers, and that its models and operations are those of the API's own file."""

from __future__ import annotations

import builtins
import inspect
import json
import pickle
import re
import subprocess
import sys
from typing import Any

import pydantic
import pytest
from tests.codegen import ORG, RUN, TOKEN, USER, page, said, scripted
from tests.codegen_spec import OPERATIONS, SCHEMAS, request_fits

from headgate import codegen
from headgate.codegen import (
    AgentRunResponse,
    AgentRunStatus,
    AsyncCodegenClient,
    CreateAgentRunRequest,
    OrganizationResponse,
    Page,
    UserResponse,
    ValidationError,
)
from headgate.codegen.errors import translated
from headgate.core.errors import HeadgateError
from headgate.core.outcome import Kind, Outcome
from headgate.core.resource import ResourceCall, ResourceFailed
from headgate.providers.codegen import CODEGEN_ENDPOINTS
from headgate.testing import Answer, ScriptedTransport, VirtualClock

NAMES = (
    "AsyncCodegenClient", "CodegenClient", "create_production_client", "create_development_client",
    "create_client_from_env", "create_high_performance_client", "ClientConfig", "ConfigPresets",
    "WebhookEvent", "CodegenAPIError", "ValidationError", "RateLimitError", "AuthenticationError",
    "NotFoundError", "ServerError", "TimeoutError", "ConflictError", "NetworkError", "WebhookError",
    "BulkOperationError", "UserResponse", "AgentRunResponse", "OrganizationResponse",
    "CreateAgentRunRequest", "BulkOperationResult", "BulkOperationConfig", "RetryConfig",
    "PerformanceStats",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_s5_05_one_import_root(name: str) -> None:
    assert name in codegen.__all__
    assert getattr(codegen, name).__module__.startswith("headgate.codegen")


def test_s5_05_no_other_door_needs_pydantic() -> None:
    doors = "headgate.gemini, headgate.limits, headgate.claude"
    code = f"import sys, {doors}; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"


def test_s5_05_without_pydantic_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['pydantic'] = None; import headgate.codegen"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert "pip install 'headgate[codegen]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("make", [codegen.create_production_client, codegen.create_development_client])
async def test_s5_06_factories_take_any_texts_and_are_entered_or_not(
    make: Any, clock: VirtualClock
) -> None:
    transport = ScriptedTransport([said(USER)], clock)
    client = make(TOKEN, "1", transport=transport, clock=clock)
    async with client as entered:
        assert (await entered.get_current_user()).github_username == "ada"
    assert (await client.get_current_user(fresh=True)).id == 7
    make("any text", "no number")


def test_s5_06_a_client_is_built_without_an_event_loop_and_used_from_two(clock: VirtualClock) -> None:
    client, transport = scripted([said(USER)], clock, enable_caching=False)

    async def ask() -> int:
        return (await client.get_current_user()).id

    assert [VirtualClock().run(ask()), VirtualClock().run(ask())] == [7, 7]
    assert len(transport.sent) == 2


# ── models ──────────────────────────────────────────────────────────────────────────────────────

RENAMED = {"CreateAgentRunInput": "CreateAgentRunRequest"}
NOT_MODELS = {
    "APIRateLimitErrorResponse", "AgentRunLimitReachedErrorResponse", "AgentRunNotFoundErrorResponse",
    "HTTPValidationError", "NoReposFoundInOrgErrorResponse", "PermissionsErrorResponse",
    "UserNotFoundErrorResponse", "ValidationError", "ApiAgentRunSourceType",
}  # fmt: skip


def model_of(name: str) -> type[pydantic.BaseModel]:
    if name.startswith("Page_"):
        item = getattr(codegen, name.removeprefix("Page_").removesuffix("_"))
        return Page[item]
    return getattr(codegen, RENAMED.get(name, name))


@pytest.mark.parametrize("name", sorted(set(SCHEMAS) - NOT_MODELS))
def test_s5_17_a_model_has_the_fields_of_its_schema(name: str) -> None:
    """Names, and which of them are required; nothing of our own."""
    fields, schema = model_of(name).model_fields, SCHEMAS[name]
    assert set(fields) == set(schema["properties"])
    required = {field for field, info in fields.items() if info.is_required()}
    assert required == set(schema.get("required", ()))


@pytest.mark.parametrize("name", sorted(set(SCHEMAS) - NOT_MODELS))
def test_s5_17_a_model_takes_what_its_schema_takes(name: str) -> None:
    """Made from the schema: every nullable field null once and set once."""
    for full in (True, False):
        value = example(SCHEMAS[name], full=full)
        made = model_of(name).model_validate(value)
        if name != "GenerateTokenResponse":  # hides its token
            assert json.loads(made.model_dump_json(exclude_unset=True)) == value


def example(schema: dict[str, Any], *, full: bool) -> Any:
    if "$ref" in schema:
        return example(SCHEMAS[schema["$ref"].rpartition("/")[2]], full=full)
    if "anyOf" in schema:
        return example(schema["anyOf"][0 if full else -1], full=full)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            names = schema.get("properties", {})
            wanted = names if full else schema.get("required", ())
            return {name: example(names[name], full=full) for name in wanted}
        case "array":
            return [example(schema["items"], full=full)]
        case "integer":
            return 3
        case "boolean":
            return True
        case "string":
            return "data:image/png;base64,aGk="
    return None


def test_s5_01c_unknown_fields_and_words_are_kept_and_raw_is_there() -> None:
    data = {**RUN, "source_type": "CARRIER_PIGEON", "mood": {"good": True}}
    run = AgentRunResponse.model_validate(data)
    assert run.source_type == "CARRIER_PIGEON"
    assert run.mood == {"good": True}  # type: ignore[attr-defined]
    assert run.raw == data
    assert UserResponse.model_validate({**USER, "role": "ADMIN"}).role is codegen.UserRole.ADMIN
    assert UserResponse.model_validate({**USER, "role": "OWNER"}).role == "OWNER"
    assert (
        OrganizationResponse.model_validate({"id": 1, "name": "a", "settings": {}}).settings.raw == {}
    )


@pytest.mark.parametrize(
    ("raw", "meaning", "ended"),
    [
        ("COMPLETE", AgentRunStatus.COMPLETE, True), ("completed", AgentRunStatus.COMPLETE, True),
        ("Completed", AgentRunStatus.COMPLETE, True), ("ERROR", AgentRunStatus.ERROR, True),
        ("failed", AgentRunStatus.FAILED, True), ("CANCELLED", AgentRunStatus.CANCELLED, True),
        ("canceled", AgentRunStatus.CANCELLED, True), ("stopped", AgentRunStatus.STOPPED, True),
        ("TIMEOUT", AgentRunStatus.TIMEOUT, True),
        ("max_iterations_reached", AgentRunStatus.MAX_ITERATIONS_REACHED, True),
        ("OUT_OF_TOKENS", AgentRunStatus.OUT_OF_TOKENS, True),
        ("PENDING", AgentRunStatus.PENDING, False), ("active", AgentRunStatus.ACTIVE, False),
        ("RUNNING", AgentRunStatus.RUNNING, False), ("paused", AgentRunStatus.PAUSED, False),
        ("EVALUATION", AgentRunStatus.EVALUATION, False), (None, AgentRunStatus.UNKNOWN, False),
        ("never seen", AgentRunStatus.UNKNOWN, False), ("", AgentRunStatus.UNKNOWN, False),
    ],
)  # fmt: skip
def test_s5_09_statuses_in_any_case(raw: str | None, meaning: AgentRunStatus, ended: bool) -> None:
    run = AgentRunResponse.model_validate({**RUN, "status": raw})
    assert (run.state, run.is_terminal, run.status) == (meaning, ended, raw)


# ── operations ──────────────────────────────────────────────────────────────────────────────────


def test_every_operation_of_the_file_is_one_of_ours_and_no_other() -> None:
    ours = {(endpoint.method.lower(), f"/v1{endpoint.path}") for endpoint in CODEGEN_ENDPOINTS.values()}
    assert ours == {(method, path) for path, method, _ in OPERATIONS}
    for name in CODEGEN_ENDPOINTS:
        method = "edit_pull_request" if name == "edit_repository_pull_request" else name
        assert inspect.iscoroutinefunction(getattr(AsyncCodegenClient, method))


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "get_current_user": ((), {}),
    "get_organizations": ((10, 5), {}),
    "get_users": (("123", 200, 100), {}),
    "get_user": (("123", "7"), {}),
    "create_agent_run": (
        (ORG, "Do it", {"pr": 1}),
        {"images": ["data:image/png;base64,aGk="], "repo_id": 3, "model": "m", "agent_type": "codegen"},
    ),
    "get_agent_run": ((ORG, 5), {}),
    "list_agent_runs": ((ORG, 7, "API", 0, 100), {}),
    "resume_agent_run": ((ORG, 5, "go on", ["data:image/png;base64,aGk="]), {}),
    "ban_agent_run_checks": ((ORG, 5, "a", "b"), {}),
    "unban_agent_run_checks": ((ORG, 5), {}),
    "remove_codegen_from_pr": ((ORG, 5), {}),
    "get_agent_run_logs": ((ORG, 5, 10, 20, True), {}),
    "get_repositories": ((ORG,), {}),
    "get_check_suite_settings": ((ORG, 3), {}),
    "update_check_suite_settings": ((ORG, 3), {"check_retry_count": 10, "ignored_checks": ["lint"]}),
    "edit_pull_request": ((ORG, 9, "ready_for_review"), {}),
    "edit_repository_pull_request": ((ORG, 9, "closed"), {"repo_id": 3}),
    "get_integrations": ((ORG,), {}),
    "generate_setup_commands": ((ORG, 3, "please"), {}),
    "analyze_sandbox_logs": ((ORG, 4), {}),
    "get_cli_rules": ((ORG,), {}),
    "get_mcp_providers": ((), {}),
    "get_oauth_token_status": ((ORG,), {}),
    "revoke_oauth_token": (("slack", ORG), {}),
    "generate_slack_connect_token": ((ORG,), {}),
}


@pytest.mark.parametrize("name", CODEGEN_ENDPOINTS)
async def test_every_request_is_one_that_the_file_describes(name: str, clock: VirtualClock) -> None:
    """And the answer, made from the file's own schema, comes back as what the method promises."""
    endpoint = CODEGEN_ENDPOINTS[name]
    ((_, _, entry),) = [
        found for found in OPERATIONS if (f"/v1{endpoint.path}", endpoint.method.lower()) == found[:2]
    ]
    schema = entry["responses"]["200"]["content"]["application/json"]["schema"]
    client, transport = scripted([said(example(schema, full=True))], clock)
    method = "edit_pull_request" if name == "edit_repository_pull_request" else name
    args, named = CALLS[name]
    await getattr(client, method)(*args, **named)
    (sent,) = transport.sent
    assert request_fits(sent) == (f"/v1{endpoint.path}", endpoint.method)
    assert sent.credential == {"authorization": f"Bearer {TOKEN}"}
    assert TOKEN not in sent.request.url
    assert not any(TOKEN in text for text in sent.request.headers.values())


async def test_s5_07_current_user(clock: VirtualClock) -> None:
    client, _ = scripted([said(USER)], clock)
    assert (await client.get_current_user()).github_username == "ada"


async def test_an_answer_without_a_body(clock: VirtualClock) -> None:
    client, _ = scripted([Answer(204)], clock)
    assert await client.revoke_oauth_token("slack", ORG) is None
    with pytest.raises(codegen.ServerError):
        await client.get_cli_rules(ORG)


async def test_get_organization_pages_through_the_list(clock: VirtualClock) -> None:
    def organization(number: int) -> dict[str, Any]:
        return {"id": number, "name": f"org {number}", "settings": {}}

    pages = [page([organization(n) for n in range(100)], 150), page([organization(ORG)], 150)]
    client, transport = scripted([said(pages[0]), said(pages[1]), said(page([], 0))], clock)
    assert (await client.get_organization()).name == f"org {ORG}"
    assert len(transport.sent) == 2
    client.clear_cache()
    with pytest.raises(codegen.NotFoundError) as caught:
        await client.get_organization(5)
    assert caught.value.resource_type == "org"


@pytest.mark.parametrize("org_id", [ORG, str(ORG), f" {ORG} "])
async def test_s5_23_org_id_is_a_number_or_numeric_text(org_id: Any, clock: VirtualClock) -> None:
    client, transport = scripted([said(RUN), said(USER)], clock)
    await client.create_agent_run(org_id, "Do it")
    await client.get_user(org_id, "7")
    assert [re.search(r"organizations/(\d+)/", sent.request.url)[1] for sent in transport.sent] == [  # type: ignore[index]
        str(ORG), str(ORG),
    ]  # fmt: skip


@pytest.mark.parametrize("org_id", ["", "acme", "1.5", 1.5, True, None, -1, "1/../2", "１２"])
async def test_s5_23_anything_else_is_refused_before_a_request(
    org_id: Any, clock: VirtualClock
) -> None:
    client, transport = scripted([said(RUN)], clock)
    for call in (
        client.create_agent_run(org_id, "Do it"),
        client.get_user(org_id, "7"),
        client.get_users(org_id),
        client.wait_for_agent_run_completion(org_id, 5),
        client.bulk_get_users(org_id, ["1"]),
    ):
        with pytest.raises(ValidationError) as caught:
            await call
        assert "org_id" in caught.value.field_errors
    assert not transport.sent


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n\t"}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x", "images": ["http://x/y.png"]}, "images"),
        ({"prompt": "x", "images": ["data:image/png;base64,???"]}, "images"),
        ({"prompt": "x", "agent_type": "human"}, "agent_type"),
        ({"prompt": "x", "repo_id": "seven"}, "repo_id"),
        ({"prompt": "x", "metadata": ["no object"]}, "metadata"),
    ],
)
async def test_s5_08_a_bad_request_is_refused_before_it_is_sent(
    arguments: dict[str, Any], field: str, clock: VirtualClock
) -> None:
    client, transport = scripted([said(RUN)], clock)
    with pytest.raises(ValidationError) as caught:
        await client.create_agent_run(ORG, **arguments)
    assert list(caught.value.field_errors) == [field]
    assert all(isinstance(text, str) for text in caught.value.field_errors[field])
    assert not transport.sent


async def test_s5_08_a_prompt_of_any_length_passes(clock: VirtualClock) -> None:
    client, transport = scripted([said(RUN)], clock)
    assert (await client.create_agent_run(org_id=ORG, prompt="x" * 300_000)).id == 1001
    assert len(transport.sent[0].request.body) > 300_000


async def test_what_cannot_be_json_is_our_error_too(clock: VirtualClock) -> None:
    client, transport = scripted([said(RUN)], clock)
    with pytest.raises(ValidationError):
        await client.create_agent_run(ORG, "x", {"file": object()})
    assert not transport.sent


@pytest.mark.parametrize("limits", [{"skip": -1}, {"limit": 0}, {"limit": 101}, {"limit": "all"}])
async def test_pages_out_of_bounds_are_refused_before_a_request(
    limits: dict[str, Any], clock: VirtualClock
) -> None:
    client, transport = scripted([said(page([]))], clock)
    with pytest.raises(ValidationError):
        await client.get_users(ORG, **limits)
    assert not transport.sent


def test_the_create_request_can_be_made_by_hand() -> None:
    made = CreateAgentRunRequest(prompt="x", metadata={"a": 1})
    assert made.body() == {"prompt": "x", "metadata": {"a": 1}}


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


def raised(kind: Kind, status: int | None, data: object = None) -> codegen.CodegenAPIError:
    call = ResourceCall(CODEGEN_ENDPOINTS["get_agent_run"], values={"org_id": 1, "agent_run_id": 5})
    failed = ResourceFailed(Outcome(kind, "No.", status), call, data=data, attempts=1, sent=True)
    return translated(failed, 0.0)


@pytest.mark.parametrize(
    ("kind", "status", "cls"),
    [
        (Kind.REQUEST, 400, codegen.ValidationError), (Kind.BAD_KEY, 401, codegen.AuthenticationError),
        (Kind.BILLING, 402, codegen.PaymentRequiredError),
        (Kind.RESOURCE, 403, codegen.PermissionDeniedError),
        (Kind.REQUEST, 404, codegen.NotFoundError), (Kind.REQUEST, 409, codegen.ConflictError),
        (Kind.REQUEST, 422, codegen.ValidationError), (Kind.QUOTA_MINUTE, 429, codegen.RateLimitError),
        (Kind.SERVER, 500, codegen.ServerError), (Kind.OVERLOAD, 502, codegen.ServerError),
        (Kind.OVERLOAD, 503, codegen.ServerError), (Kind.SERVER, 504, codegen.ServerError),
        (Kind.NETWORK, None, codegen.NetworkError), (Kind.TLS, None, codegen.NetworkError),
        (Kind.TIMEOUT, None, codegen.TimeoutError), (Kind.PROTOCOL, 200, codegen.ServerError),
    ],
)  # fmt: skip
def test_s5_18_every_outcome_has_its_class(
    kind: Kind, status: int | None, cls: type[codegen.CodegenAPIError]
) -> None:
    error = raised(kind, status)
    assert type(error) is cls
    assert isinstance(error, codegen.CodegenAPIError)
    assert isinstance(error, HeadgateError)
    assert error.message == str(error)
    assert error.to_dict()["endpoint"] == "get_agent_run"
    assert error.timestamp.endswith("+00:00")


def test_s5_18_details_of_errors() -> None:
    assert isinstance(raised(Kind.RESOURCE, 403), codegen.AuthenticationError)
    assert isinstance(raised(Kind.TIMEOUT, None), builtins.TimeoutError)
    assert codegen.RateLimitError("No.").retry_after == 60
    missing = raised(Kind.REQUEST, 404)
    assert isinstance(missing, codegen.NotFoundError)
    assert (missing.resource_type, missing.resource_id) == ("agent_run", "5")
    detail = {"detail": [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]}
    refused = raised(Kind.REQUEST, 422, detail)
    assert isinstance(refused, codegen.ValidationError)
    assert refused.field_errors == {"prompt": ["Field required"]}
    assert refused.response_data == detail


def test_s5_18_one_class_per_name_in_the_door() -> None:
    found = [
        value for name, value in vars(codegen).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    ]  # fmt: skip
    assert len({cls.__name__ for cls in found}) == len(found)


@pytest.mark.parametrize(
    "error",
    [
        codegen.TimeoutError("late", last_run=None, endpoint="x"),
        codegen.ValidationError("no", {"a": ["b"]}),
        codegen.RateLimitError("slow", 3.2),
        codegen.BulkOperationError("some", [{"index": 1}], True),
        codegen.WebhookError("no", "agent_run.completed", status_code=401),
    ],
    ids=lambda error: type(error).__name__,
)
def test_s5_01d_errors_survive_pickling(error: codegen.CodegenAPIError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert type(again) is type(error)
    assert again.to_dict() == error.to_dict()
    assert str(again) == error.message


# ── personal data ───────────────────────────────────────────────────────────────────────────────


async def test_personal_data_leaves_only_where_it_is_not_taken_out(clock: VirtualClock) -> None:
    """Off by default, on per request, in bulk too."""
    client, transport = scripted([said(RUN)], clock)
    prompt = "Answer ada@example.org about 4111 1111 1111 1111"
    await client.create_agent_run(ORG, prompt)
    await client.create_agent_run(ORG, prompt, redact=True)
    await client.resume_agent_run(ORG, 5, prompt, redact=True)
    await client.bulk_create_agent_runs(ORG, [{"prompt": prompt, "redact": True}])
    first, *others = [json.loads(sent.request.body)["prompt"] for sent in transport.sent]
    assert first == prompt
    assert others == ["Answer [EMAIL] about [CREDIT_CARD]"] * 3
