"""The Codegen surface against the API's own file: every answer fits it, and runs live as documented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.codegen import ORG, TOKEN, team
from tests.codegen_spec import OPERATIONS, SPEC, reply_fits

from headgate.core.errors import ConfigurationError
from headgate.emulator import CodegenTeam, Emulator, EmulatorConfig, InThread
from headgate.emulator.codegen_api import codegen_operations
from headgate.emulator.codegen_desk import Asked, CodegenDesk
from headgate.emulator.codegen_world import Answer
from headgate.emulator.vocabulary import CODEGEN_FAULTS, CODEGEN_METHODS
from headgate.testing import VirtualClock

HEADERS = {"authorization": f"Bearer {TOKEN}"}


# ── schemathesis ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    config = EmulatorConfig(codegen=[team(limited=False, runs=3, run_seconds=0.01)])
    with Emulator(config).in_thread() as emulator:
        yield emulator


SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(SPEC)))
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method, _ in OPERATIONS])
def test_whatever_is_asked_is_answered_as_the_file_says(
    path: str, method: str, upstream: InThread
) -> None:
    """Good and bad requests that schemathesis makes from the file; no status and no body it lacks."""
    operation = SCHEMA[path][method.upper()]
    before = upstream.report().totals.requests

    @settings(max_examples=25)
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        for place in (case.path_parameters, case.query, case.body):
            if isinstance(place, dict) and isinstance(place.get("org_id"), int):
                place["org_id"] = ORG  # another organisation is 403, which not every operation lists
        case.call_and_validate(base_url=upstream.base_url, headers=HEADERS, checks=CHECKS)

    check()
    assert upstream.report().totals.requests > before


# ── the desk, without sockets ───────────────────────────────────────────────────────────────────


def ask(
    desk: CodegenDesk, method: str, path: str, now: float = 0.0, body: Any = None, token: str = TOKEN,
    **query: str,
) -> tuple[int, Any]:  # fmt: skip
    raw = b"" if body is None else json.dumps(body).encode()
    asked = Asked(method, path, query, f"Bearer {token}" if token else "", raw)
    found = desk.operation(asked)
    if isinstance(found, Answer):
        return found.status, json.loads(found.body)
    seat = desk.seat(asked)
    answer = desk.refused(seat, found[0], now)
    if answer is None:
        assert seat is not None
        answer = desk.serve(seat, found, asked, now)
    if answer.status != 401:  # in prose only
        reply_fits(found[0].path, method, answer.status, answer.body)
    return answer.status, json.loads(answer.body)


def desk_of(**fields: Any) -> CodegenDesk:
    return CodegenDesk([team(**fields)], 0.0)


BASE = f"/v1/organizations/{ORG}"


def test_every_operation_of_the_file_is_served() -> None:
    assert {operation.name for operation in codegen_operations()} == set(CODEGEN_METHODS)
    assert len(codegen_operations()) == len(OPERATIONS) == 25
    from headgate.emulator.codegen_world import CodegenWorld

    assert all(hasattr(CodegenWorld, f"_{operation.name}") for operation in codegen_operations())


def test_a_run_lives() -> None:
    desk = desk_of(run_seconds=20)
    _, made = ask(desk, "POST", f"{BASE}/agent/run", body={"prompt": "x", "repo_id": 1})
    statuses = []
    for moment in (0, 1, 10, 18, 19.9, 20, 500):
        _, run = ask(desk, "GET", f"{BASE}/agent/run/{made['id']}", moment)
        statuses.append(run["status"])
        assert bool(run["result"]) == (moment >= 20)
        assert bool(run["github_pull_requests"]) == (moment >= 20)
    assert statuses == [
        "PENDING",
        "ACTIVE",
        "ACTIVE",
        "EVALUATION",
        "EVALUATION",
        "COMPLETE",
        "COMPLETE",
    ]


@pytest.mark.parametrize("verb", ["ban", "remove-from-pr"])
def test_a_run_is_stopped_and_resumed(verb: str) -> None:
    desk = desk_of(run_seconds=20)
    _, made = ask(desk, "POST", f"{BASE}/agent/run", body={"prompt": "x"})
    assert ask(desk, "POST", f"{BASE}/agent/run/{verb}", 5, {"agent_run_id": made["id"]})[0] == 200
    path = f"{BASE}/agent/run/{made['id']}"
    assert ask(desk, "GET", path, 6)[1]["status"] == "CANCELLED"
    assert ask(desk, "POST", f"{BASE}/agent/run/unban", 7, {"agent_run_id": made["id"]})[0] == 200
    body = {"agent_run_id": made["id"], "prompt": "go on"}
    assert ask(desk, "POST", f"{BASE}/agent/run/resume", 8, body)[1]["status"] == "PENDING"
    assert ask(desk, "GET", path, 28)[1]["status"] == "COMPLETE"
    logs = ask(desk, "GET", f"/v1/alpha{path.removeprefix('/v1')}/logs", 100)[1]["logs"]
    assert [entry["message_type"] for entry in logs].count("USER_MESSAGE") == 2


def test_logs_come_in_order_in_pages_and_reversed() -> None:
    desk = desk_of(run_seconds=100)
    wish = {"emulate": {"entries": 30}}
    _, made = ask(desk, "POST", f"{BASE}/agent/run", body={"prompt": "x", "metadata": wish})
    path = f"/v1/alpha/organizations/{ORG}/agent/run/{made['id']}/logs"
    half = ask(desk, "GET", path, 50)[1]["total_logs"]
    _, whole = ask(desk, "GET", path, 100)
    assert 1 < half < whole["total_logs"] == 32
    moments = [entry["created_at"] for entry in whole["logs"]]
    assert moments == sorted(moments)
    _, back = ask(desk, "GET", path, 100, reverse="true", limit="5", skip="1")
    assert back["logs"] == whole["logs"][::-1][1:6]
    assert (back["page"], back["size"], back["pages"]) == (1, 5, 7)


def test_pages() -> None:
    desk = desk_of(users=25)
    _, page = ask(desk, "GET", f"{BASE}/users", skip="20", limit="10")
    assert [user["id"] for user in page["items"]] == [21, 22, 23, 24, 25]
    assert (page["total"], page["page"], page["size"], page["pages"]) == (25, 3, 10, 3)


def test_runs_come_newest_first_and_filtered() -> None:
    desk = desk_of(runs=3)
    desk.worlds["acme"].add_run("y", 5.0, source="SLACK")
    _, page = ask(desk, "GET", f"{BASE}/agent/runs")
    assert [run["id"] for run in page["items"]] == [1004, 1003, 1002, 1001]
    assert ask(desk, "GET", f"{BASE}/agent/runs", source_type="SLACK")[1]["total"] == 1
    assert ask(desk, "GET", f"{BASE}/agent/runs", user_id="99")[1]["total"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "loc"),
    [
        ("POST", f"{BASE}/agent/run", {}, {}, ["body", "prompt"]),
        ("POST", f"{BASE}/agent/run", {"prompt": 5}, {}, ["body", "prompt"]),
        ("POST", f"{BASE}/agent/run", None, {}, ["body"]),
        ("POST", f"{BASE}/agent/run", {"prompt": "x", "agent_type": "y"}, {}, ["body", "agent_type"]),
        ("POST", f"{BASE}/agent/run", {"prompt": "x", "images": [1]}, {}, ["body", "images", 0]),
        ("GET", f"{BASE}/users", None, {"limit": "101"}, ["query", "limit"]),
        ("GET", f"{BASE}/users", None, {"skip": "-1"}, ["query", "skip"]),
        ("GET", f"{BASE}/users/abc", None, {}, ["path", "user_id"]),
        ("GET", f"{BASE}/repos/check-suite-settings", None, {}, ["query", "repo_id"]),
        ("GET", f"{BASE}/agent/runs", None, {"source_type": "MAIL"}, ["query", "source_type"]),
        ("PATCH", f"{BASE}/prs/5", {"state": "gone"}, {}, ["body", "state"]),
        ("PUT", f"{BASE}/repos/check-suite-settings", {"check_retry_count": 11}, {"repo_id": "1"},
         ["body", "check_retry_count"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_422_and_says_where(
    method: str, path: str, body: Any, query: dict[str, str], loc: list[Any]
) -> None:
    status, said = ask(desk_of(), method, path, body=body, **query)
    assert status == 422
    assert said["detail"][0]["loc"] == loc


@pytest.mark.parametrize(
    ("fields", "method", "path", "body", "status"),
    [
        ({}, "GET", "/v1/organizations/5/users", None, 403),
        ({"key_states": {"main": "forbidden"}}, "GET", f"{BASE}/users", None, 403),
        ({"key_states": {"main": "invalid"}}, "GET", f"{BASE}/users", None, 401),
        ({}, "GET", f"{BASE}/users/99", None, 404),
        ({}, "GET", f"{BASE}/agent/run/5", None, 404),
        ({"repos": 0}, "POST", f"{BASE}/agent/run", {"prompt": "x"}, 404),
        ({"plan_runs": 0}, "POST", f"{BASE}/agent/run", {"prompt": "x"}, 402),
        ({}, "POST", f"{BASE}/setup-commands/generate", {"repo_id": 9}, 404),
        ({}, "POST", f"{BASE}/sandbox/0/analyze-logs", None, 404),
        ({}, "GET", f"/v1/organizations/{ORG}", None, 404),
        ({}, "DELETE", f"{BASE}/users", None, 405),
    ],
)  # fmt: skip
def test_refusals(fields: Any, method: str, path: str, body: Any, status: int) -> None:
    assert ask(desk_of(**fields), method, path, body=body)[0] == status


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_a_good_token_nothing_is_said(token: str) -> None:
    assert ask(desk_of(), "GET", "/v1/users/me", token=token)[0] == 401


def test_limits_are_per_token_and_class() -> None:
    desk = CodegenDesk([CodegenTeam("acme", {"a": TOKEN, "b": "CANARY-b"}, org_id=ORG)], 0.0)
    statuses = [ask(desk, "GET", "/v1/users/me", token=TOKEN)[0] for _ in range(61)]
    assert statuses == [200] * 60 + [429]
    assert ask(desk, "GET", "/v1/users/me", token="CANARY-b")[0] == 200
    creates = [ask(desk, "POST", f"{BASE}/agent/run", body={"prompt": "x"})[0] for _ in range(11)]
    assert creates == [200] * 10 + [429]
    assert ask(desk, "GET", "/v1/users/me", 30.0)[0] == 200


# ── over HTTP ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", CODEGEN_FAULTS)
async def test_scripted_errors(kind: str, clock: VirtualClock) -> None:
    async with (
        Emulator(EmulatorConfig(codegen=[team()]), clock=clock) as emulator,
        aiohttp.ClientSession(emulator.base_url, headers=HEADERS) as session,
    ):
        emulator.script(kind, method="get_current_user_info")
        async with session.get("/v1/users/me") as first, session.get("/v1/users/me") as second:
            assert (first.status, second.status) == (CODEGEN_FAULTS[kind], 200)
            assert (await first.json())["status_code"] == CODEGEN_FAULTS[kind]
        seen = emulator.report().codegen["acme"].keys["main"].totals
        assert (seen.requests, seen.failed, seen.faults) == (2, 1, {kind: 1})


async def test_a_429_may_say_when_to_come_back(clock: VirtualClock) -> None:
    config = EmulatorConfig(codegen=[team(retry_after=True, limits={"standard": (1, 10)})])
    async with (
        Emulator(config, clock=clock) as emulator,
        aiohttp.ClientSession(emulator.base_url, headers=HEADERS) as session,
    ):
        await session.get("/v1/users/me")
        async with session.get("/v1/users/me") as refused:
            assert refused.headers["retry-after"] == "10"
        await clock.sleep(10)
        async with session.get("/v1/users/me") as again:
            assert again.status == 200
        emulator.reset()
        assert emulator.report().totals.requests == 0


def test_the_three_surfaces_do_not_meet() -> None:
    """A Codegen fault never happens to another surface, and none of theirs to this."""
    with pytest.raises(ConfigurationError):
        Emulator(EmulatorConfig(codegen=[team()])).script("no_such_fault")

    async def main() -> None:
        async with (
            Emulator(EmulatorConfig(codegen=[team()])) as emulator,
            aiohttp.ClientSession(emulator.base_url, headers=HEADERS) as session,
        ):
            emulator.script("429-bare")
            emulator.script("silent_eof")
            async with session.get("/v1/users/me") as answer:
                assert answer.status == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    "fields",
    [{"key_states": {"other": "invalid"}}, {"endings": []}, {"endings": ["DONE"]}, {"users": -1}],
)
def test_a_team_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        team(**fields)


def test_a_team_never_shows_its_tokens() -> None:
    shown = repr(EmulatorConfig(codegen=[team()]))
    assert "CANARY" not in shown


def test_a_team_can_be_written_in_toml(tmp_path: Any) -> None:
    path = tmp_path / "quotas.toml"
    path.write_text(
        '[[codegen]]\nname = "acme"\nkeys = { main = "x" }\nlimits = { create = [2, 60.0] }\n'
    )
    (found,) = EmulatorConfig.from_toml(path).codegen
    assert found.limits == {"create": (2, 60.0)}
    path.write_text('[[codegen]]\nname = "acme"\nkeys = { main = "x" }\nruns = "many"\n')
    with pytest.raises(ConfigurationError):
        EmulatorConfig.from_toml(path)
