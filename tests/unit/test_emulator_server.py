"""The emulator as a server: its life, its quotas over the wire, its faults, its books."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from headgate.core.errors import ConfigurationError
from headgate.emulator import Emulator, EmulatorConfig, Fault, Latency, Limits, Model, Project
from headgate.testing import VirtualClock

A1, A2, B1 = "AIzaCANARY-alpha-1", "AIzaCANARY-alpha-2", "AQ.CANARY.beta-1"
MODEL = "gemini-3.5-flash"
PROMPT = {"contents": [{"parts": [{"text": "How does a headgate share irrigation water?"}]}]}


@dataclass
class Reply:
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def message(self) -> str:
        body = self.json[0] if isinstance(self.json, list) else self.json
        return str(body["error"]["message"])


class Client:
    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self.session, self.base_url = session, base_url

    async def call(
        self,
        method: str = "generateContent",
        *,
        key: str = A1,
        model: str = MODEL,
        body: Any = None,
        query: str = "",
    ) -> Reply:
        url = f"{self.base_url}/v1beta/models/{model}:{method}{query}"
        headers = {"x-goog-api-key": key}
        sent = PROMPT if body is None else body
        async with self.session.post(url, json=sent, headers=headers) as reply:
            return Reply(reply.status, await reply.text())

    async def stream(self, **rest: Any) -> Reply:
        return await self.call("streamGenerateContent", query="?alt=sse", **rest)


def projects(**limits: Any) -> list[Project]:
    quotas = {"*": Limits(**limits)} if limits else {}
    return [
        Project("alpha", keys={"alpha-1": A1, "alpha-2": A2}, limits=quotas),
        Project("beta", keys={"beta-1": B1}, limits=quotas, tier="paid"),
    ]


@asynccontextmanager
async def upstream(clock: VirtualClock, **config: Any) -> AsyncIterator[tuple[Emulator, Client]]:
    config.setdefault("projects", projects())
    emulator = Emulator(EmulatorConfig(**config), clock=clock)
    # aiohttp's own clean-up timer would tick every 15 virtual seconds, days on end.
    connector = aiohttp.TCPConnector(keepalive_timeout=1e7)
    async with emulator, aiohttp.ClientSession(connector=connector) as session:
        yield emulator, Client(session, emulator.base_url)


# ── quotas ───────────────────────────────────────────────────────────────────


async def test_keys_of_a_project_share_its_quota_and_other_projects_have_their_own(
    clock: VirtualClock,
) -> None:
    async with upstream(clock, projects=projects(rpm=2)) as (emulator, client):
        assert (await client.call(key=A1)).status == 200
        assert (await client.call(key=A2)).status == 200
        assert (await client.call(key=A1)).status == 429
        assert (await client.call(key=A2)).status == 429
        assert (await client.call(key=B1)).status == 200
        report = emulator.report()
    assert report.projects["alpha"].totals.refused == {"rpm": 2}
    assert report.projects["beta"].totals.refused == {}


@pytest.mark.parametrize("mechanism", ["fixed", "sliding_log", "token_bucket", "sliding_counter"])
async def test_waiting_as_long_as_the_429_says_is_enough(clock: VirtualClock, mechanism: str) -> None:
    async with upstream(clock, projects=projects(rpm=3, mechanism=mechanism, phase=17.0)) as (
        _,
        client,
    ):
        for _ in range(3):
            assert (await client.call()).status == 200
            await clock.sleep(1.3)
        refused = await client.call()
        assert refused.status == 429
        exact = re.search(r"Please retry in ([\d.]+)s", refused.message)
        assert exact is not None
        delay = refused.json["error"]["details"][-1]["retryDelay"]
        assert delay == f"{math.floor(float(exact[1]))}s"
        await clock.sleep(float(exact[1]) - 0.01)
        assert (await client.call()).status == 429
        await clock.sleep(0.02)
        assert (await client.call()).status == 200


async def test_a_fixed_window_begins_with_its_phase_after_the_full_minute(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(rpm=1, phase=20.0)) as (_, client):
        assert (await client.call()).status == 200
        await clock.sleep(19.9)
        assert (await client.call()).status == 429
        await clock.sleep(0.1)
        assert (await client.call()).status == 200


async def test_a_minute_can_be_shorter(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(rpm=1), minute_seconds=2.0) as (emulator, client):
        await client.call()
        assert (await client.call()).json["error"]["details"][-1]["retryDelay"] == "2s"
        await clock.sleep(2.0)
        assert (await client.call()).status == 200
        assert emulator.report().minute_seconds == 2.0


async def test_the_day_ends_at_midnight_in_california_and_its_429_has_a_short_delay(
    clock: VirtualClock,
) -> None:
    async with upstream(clock, projects=projects(rpd=1)) as (emulator, client):
        assert (await client.call()).status == 200
        refused = await client.call()
        details = refused.json["error"]["details"]
        assert "PerDay" in details[1]["violations"][0]["quotaId"]
        assert int(details[2]["retryDelay"].rstrip("s")) <= 47
        await clock.sleep(20 * 3600 - 1)  # 12:00 UTC is 04:00 there
        assert (await client.call()).status == 429
        await clock.sleep(1)
        assert (await client.call()).status == 200
        assert emulator.report().projects["alpha"].models[MODEL].quotas["rpd"].refused == 2


async def test_tpm_counts_input_tokens_only_and_agrees_with_count_tokens(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(tpm=30)) as (emulator, client):
        counted = (await client.call("countTokens")).json["totalTokens"]
        answer = (await client.call()).json["usageMetadata"]
        assert answer["promptTokenCount"] == counted
        assert answer["totalTokenCount"] > 30
        fits = 30 // counted
        statuses = [(await client.call()).status for _ in range(fits)]
        assert statuses == [200] * (fits - 1) + [429]
        quota = emulator.report().projects["alpha"].models[MODEL].quotas["tpm"]
    assert (quota.max_used, quota.refused) == (counted * fits, 1)


async def test_every_text_of_an_embedding_batch_is_one_request(clock: VirtualClock) -> None:
    name = "gemini-embedding-2"
    item = {
        "model": f"models/{name}",
        "content": {"parts": [{"text": "water"}]},
        "outputDimensionality": 4,
    }
    async with upstream(clock, projects=projects(rpm=5)) as (emulator, client):
        batch = {"requests": [item] * 4}
        first = await client.call("batchEmbedContents", model=name, body=batch)
        assert len(first.json["embeddings"]) == 4
        second = await client.call("batchEmbedContents", model=name, body={"requests": [item] * 2})
        assert "EmbedContentRequestsPerMinute" in second.text
        assert (
            await client.call("embedContent", model=name, body={"content": item["content"]})
        ).status == 200
        assert emulator.report().projects["alpha"].models[name].quotas["rpm"].used == 5


async def test_an_alias_is_charged_to_its_target_under_the_quota_familys_name(
    clock: VirtualClock,
) -> None:
    limits = {"gemini-3.1-pro": Limits(rpm=1)}
    async with upstream(clock, projects=[Project("p", {"p-1": A1}, limits)]) as (_, client):
        reply = await client.call(model="gemini-pro-latest")
        assert reply.json["modelVersion"] == "gemini-3.1-pro-preview"
        refused = await client.call(model="gemini-3.1-pro-preview-customtools")
        assert "model: gemini-3.1-pro\n" in refused.message
        assert (await client.call(model=MODEL)).status == 200


async def test_a_limit_of_zero_refuses_without_a_quota_value(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(rpm=0, tpm=0, rpd=0)) as (emulator, client):
        refused = await client.call()
        assert refused.status == 429
        assert refused.message.count("limit: 0") == 3
        assert "quotaValue" not in refused.text
        assert emulator.report().totals.refused == {"rpd_zero": 1}


async def test_a_refused_request_costs_nothing_unless_configured(clock: VirtualClock) -> None:
    for charge, expected in ((False, 200), (True, 429)):
        async with upstream(
            clock, projects=projects(rpm=1, mechanism="sliding_log"), charge_refused=charge
        ) as (_, client):
            await client.call()
            await clock.sleep(30)
            assert (await client.call()).status == 429
            await clock.sleep(31)
            assert (await client.call()).status == expected


@pytest.mark.parametrize(
    ("form", "kinds"),
    [
        ("2026", ["Help", "QuotaFailure", "RetryInfo"]),
        ("classic", ["QuotaFailure", "Help", "RetryInfo"]),
        ("no_value", ["Help", "QuotaFailure", "RetryInfo"]),
        ("help_only", ["Help"]),
        ("bare", []),
    ],
)
async def test_a_429_takes_the_configured_form(
    clock: VirtualClock, form: str, kinds: list[str]
) -> None:
    async with upstream(clock, projects=projects(rpm=1), quota_errors=form) as (_, client):
        await client.call()
        details = (await client.call()).json["error"].get("details", [])
    assert [d["@type"].rsplit(".", 1)[1] for d in details] == kinds
    assert ("quotaValue" in json.dumps(details)) == (form in ("2026", "classic"))


async def test_stepping_the_wall_clock_does_not_move_the_upstreams_windows(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(rpm=1)) as (_, client):
        await client.call()
        clock.step_wall(3600)
        assert (await client.call()).status == 429
        await clock.sleep(60)
        assert (await client.call()).status == 200


# ── who may ──────────────────────────────────────────────────────────────────


async def test_models_can_be_closed_to_a_project_or_denied_to_a_key(clock: VirtualClock) -> None:
    alpha = Project(
        "alpha",
        {"alpha-1": A1, "alpha-2": A2},
        closed_models=["gemini-2.0-flash"],
        denied={"alpha-1": [MODEL]},
    )
    async with upstream(clock, projects=[alpha, Project("beta", {"beta-1": B1})]) as (emulator, client):
        closed = await client.call(model="gemini-2.0-flash")
        assert (closed.status, "no longer available to new users" in closed.message) == (404, True)
        assert "is not found" in (await client.call(model="gemini-2.0-flash", key=B1)).message
        denied = await client.call()
        assert (denied.status, denied.message) == (403, "The caller does not have permission")
        assert (await client.call(key=A2)).status == 200
        assert (await client.call(model="gemini-3.8-flash")).status == 200
        refused = emulator.report().totals.refused
    assert refused == {"closed_model": 1, "unknown_model": 1, "permission": 1}


@pytest.mark.parametrize(
    ("state", "status", "part"),
    [
        ("invalid", 400, "API_KEY_INVALID"),
        ("expired", 400, "API key expired"),
        ("not_found", 400, "API Key not found"),
        ("rejected", 401, "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
        ("leaked", 403, "reported as leaked"),
        ("suspended", 403, f"api_key:{A1}"),
        ("service_blocked", 403, "API_KEY_SERVICE_BLOCKED"),
        ("referer", 403, "referer"),
    ],
)
async def test_a_key_in_a_bad_state_gets_its_own_refusal(
    clock: VirtualClock, state: str, status: int, part: str
) -> None:
    alpha = Project("alpha", {"alpha-1": A1, "alpha-2": A2}, key_states={"alpha-1": state})  # type: ignore[dict-item]
    async with upstream(clock, projects=[alpha]) as (_, client):
        reply = await client.call()
        assert (reply.status, part in reply.text) == (status, True)
        assert (await client.call(key=A2)).status == 200


async def test_location_and_empty_prepayment_refuse_every_key(clock: VirtualClock) -> None:
    async with upstream(clock, location_blocked=True) as (_, client):
        assert (await client.call()).json["error"]["status"] == "FAILED_PRECONDITION"
        assert (await client.call(key=B1)).status == 400
    broke = [Project("alpha", {"alpha-1": A1}, prepaid_empty=True)]
    async with upstream(clock, projects=broke) as (_, client):
        assert "prepayment credits are depleted" in (await client.call()).message


async def test_a_model_past_its_shutdown_is_answered_by_its_successor_or_gone() -> None:
    clock = VirtualClock(wall=1_796_112_000.0)  # 2026-12-01 08:00 UTC, midnight in California
    old = [Model(id="old-model", shutdown="2026-11-01")]
    async with upstream(clock, models=old) as (_, client):
        assert (await client.call(model="gemini-2.5-flash")).json[
            "modelVersion"
        ] == "gemini-3.5-flash-lite"
        assert (await client.call(model="old-model")).status == 404
    async with upstream(clock, models=old, retire_models=False) as (_, client):
        assert (await client.call(model="old-model")).status == 200


# ── faults ───────────────────────────────────────────────────────────────────


async def test_scripted_faults_come_in_order_to_what_they_are_aimed_at(
    clock: VirtualClock,
) -> None:
    async with upstream(clock) as (emulator, client):
        emulator.script("overload", times=2, key="alpha-1")
        emulator.script("internal", key="alpha-1")
        emulator.script("high_demand", model="gemini-3.8-*", skip=1)
        assert (await client.call(key=B1)).status == 200
        assert [(await client.call()).status for _ in range(4)] == [503, 503, 500, 200]
        assert [(await client.call(model="gemini-3.8-flash")).status for _ in range(3)] == [
            200,
            503,
            200,
        ]
        report = emulator.report()
    assert report.totals.faults == {"overload": 2, "internal": 1, "high_demand": 1}
    assert report.projects["alpha"].keys["alpha-1"].totals.failed == 4


async def test_a_fault_of_the_answer_waits_for_a_request_that_gets_one(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(rpm=1)) as (emulator, client):
        await client.call()
        emulator.script("blocked")
        assert (await client.call()).status == 429
        await clock.sleep(60)
        assert "promptFeedback" in (await client.call()).json


async def test_chance_is_seeded(clock: VirtualClock) -> None:
    async def statuses(seed: int) -> list[int]:
        faults = [Fault(kind="overload", probability=0.5)]
        async with upstream(clock, faults=faults, seed=seed) as (_, client):
            return [(await client.call()).status for _ in range(24)]

    first = await statuses(1)
    assert first == await statuses(1)
    assert first != await statuses(2)
    assert set(first) == {200, 503}


async def test_an_outage_lasts_from_its_start_to_its_end(clock: VirtualClock) -> None:
    async with upstream(clock, faults=[Fault(kind="overload", start=10, end=20)]) as (_, client):
        seen = []
        for _ in range(3):
            seen.append((await client.call()).status)
            await clock.sleep(10)
    assert seen == [200, 503, 200]


@pytest.mark.parametrize("kind", ["reset", "close"])
async def test_a_connection_can_break_before_any_answer(clock: VirtualClock, kind: str) -> None:
    async with upstream(clock, projects=projects(rpm=1)) as (emulator, client):
        emulator.script(kind)
        error = aiohttp.ClientOSError if kind == "reset" else aiohttp.ServerDisconnectedError
        with pytest.raises(error):
            await client.call()
        assert (await client.call()).status == 200, "a fault before the answer costs no quota"
        assert emulator.report().totals.failed == 1


async def test_a_fault_can_be_told_to_cost_quota_or_not(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(rpm=1)) as (emulator, client):
        emulator.script("blocked", charge=False)
        emulator.script("overload", charge=True)
        assert [(await client.call()).status for _ in range(3)] == [200, 503, 429]


@pytest.mark.parametrize(
    ("kind", "streamed"),
    [
        ("reset_mid", True),
        ("reset_mid", False),
        ("wrong_length", False),
        ("stall_mid", True),
        ("stall_mid", False),
        ("stall", True),
        ("stall", False),
    ],
)
async def test_an_answer_can_break_off(clock: VirtualClock, kind: str, streamed: bool) -> None:
    async with upstream(clock) as (emulator, client):
        emulator.script(kind)
        stalled = kind.startswith("stall")
        error = TimeoutError if stalled else aiohttp.ClientError
        with pytest.raises(error):
            await asyncio.wait_for(client.stream() if streamed else client.call(), 100)
        assert clock.monotonic() >= (100 if stalled else 0)
        await clock.sleep(0.1)
        assert emulator.report().totals.failed == 1
        assert emulator.report().totals.aborted == 0


async def test_latency_is_as_configured_and_refusals_have_their_own(
    clock: VirtualClock,
) -> None:
    latency = Latency(first_byte=2.0, per_chunk=0.5, refusal=0.25)
    async with upstream(clock, latency=latency, projects=projects(rpm=2)) as (_, client):
        took, chunks = [], 0
        for call in (client.stream, client.call, client.call):
            before = clock.monotonic()
            reply = await call()
            took.append(clock.monotonic() - before)
            chunks = reply.text.count("data: ") or chunks
    assert took[0] == pytest.approx(2.0 + 0.5 * (chunks - 1))
    assert took[1] == pytest.approx(took[0]), "a whole answer takes as long as its chunks"
    assert took[2] == pytest.approx(0.25)


async def test_slow_and_slow_chunks_take_the_seconds_they_are_given(clock: VirtualClock) -> None:
    async with upstream(clock) as (emulator, client):
        emulator.script("slow", seconds=30)
        await client.call()
        assert clock.monotonic() == pytest.approx(30)
        emulator.script("slow_chunks", seconds=2)
        reply = await client.stream()
        assert clock.monotonic() == pytest.approx(30 + 2 * reply.text.count("data: "))
        assert emulator.report().totals.answered == 2


# ── books ────────────────────────────────────────────────────────────────────


async def test_the_books_add_up_and_hold_no_key(clock: VirtualClock) -> None:
    faults = [Fault(kind="overload", probability=0.2), Fault(kind="reset_mid", probability=0.2)]
    async with upstream(clock, projects=projects(rpm=6), faults=faults, seed=3) as (emulator, client):
        for index in range(40):
            with suppress(aiohttp.ClientError):
                await client.call(key=(A1, A2, B1, "AIzaCANARY-none")[index % 4])
            await clock.sleep(3)
        report = emulator.report()
    totals = report.totals
    ended = totals.answered + sum(totals.refused.values()) + totals.failed + totals.aborted
    assert (totals.requests, totals.open) == (40, 0)
    assert ended == 40
    parts = [*report.projects.values()]
    assert sum(p.totals.requests for p in parts) + report.unknown.requests == 40
    for project in parts:
        assert sum(k.totals.answered for k in project.keys.values()) == project.totals.answered
        quotas = [model.quotas["rpm"] for model in project.models.values()]
        assert all(quota.max_used <= 6 for quota in quotas)
        assert sum(quota.admitted for quota in quotas) == project.totals.charged_requests
    assert "CANARY" not in json.dumps(report.to_dict())


@pytest.mark.parametrize("mechanism", ["fixed", "sliding_log", "token_bucket", "sliding_counter"])
async def test_of_many_requests_at_once_exactly_the_limit_is_answered(
    clock: VirtualClock, mechanism: str
) -> None:
    async with upstream(clock, projects=projects(rpm=7, mechanism=mechanism)) as (emulator, client):
        replies = await asyncio.gather(*(client.call(key=(A1, A2)[i % 2]) for i in range(40)))
        assert sorted(reply.status for reply in replies) == [200] * 7 + [429] * 33
        quota = emulator.report().projects["alpha"].models[MODEL].quotas["rpm"]
    assert (quota.admitted, quota.max_used, quota.refused) == (7, 7, 33)


async def test_a_burst_of_new_connections_is_served_without_losing_one(clock: VirtualClock) -> None:
    async with Emulator(EmulatorConfig(projects=projects()), clock=clock) as emulator:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=1e7)
        timeout = aiohttp.ClientTimeout(sock_connect=5)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            client = Client(session, emulator.base_url)
            replies = await asyncio.gather(*(client.call() for _ in range(300)))
    assert {reply.status for reply in replies} == {200}


async def test_a_charged_refusal_counts_in_the_books_as_charged(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(rpm=1), charge_refused=True) as (emulator, client):
        for _ in range(3):
            await client.call()
        report = emulator.report()
    quota = report.projects["alpha"].models[MODEL].quotas["rpm"]
    assert quota.admitted == quota.max_used == report.totals.charged_requests == 3


async def test_report_reset_and_script_are_served_over_http(
    clock: VirtualClock,
) -> None:
    async with upstream(clock, projects=projects(rpm=1)) as (emulator, client):
        base = f"{client.base_url}/emulator"
        await client.call()
        async with client.session.get(f"{base}/report") as reply:
            assert await reply.json() == emulator.report().to_dict()
        async with client.session.post(
            f"{base}/script", json={"kind": "overload", "times": 2}
        ) as reply:
            assert reply.status == 200
        assert [(await client.call()).status for _ in range(3)] == [503, 503, 429]
        async with client.session.post(f"{base}/script", json={"kind": "meteor"}) as reply:
            assert (reply.status, "overload" in await reply.text()) == (400, True)
        async with client.session.post(f"{base}/reset") as reply:
            assert reply.status == 200
        assert emulator.report().totals.requests == 0
        assert (await client.call()).status == 200
        async with client.session.get(f"{base}/nothing") as reply:
            assert reply.status == 404


async def test_a_bug_of_the_emulator_is_a_500_that_its_books_name(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("headgate.emulator.replies.compose", broken)
    async with upstream(clock) as (emulator, client):
        assert (await client.call()).status == 500
        assert emulator.report().totals.refused == {"emulator_error": 1}


async def test_mixed_429s_come_in_several_forms_that_name_the_quota(clock: VirtualClock) -> None:
    async with upstream(clock, projects=projects(rpm=1), quota_errors="mixed") as (_, client):
        await client.call()
        seen = {(await client.call()).text for _ in range(20)}
        assert len(seen) > 3
        assert all("PerMinute" in text for text in seen)


async def test_a_client_that_walks_away_is_in_the_books_and_stops_the_work(clock: VirtualClock) -> None:
    async with upstream(clock, latency=Latency(first_byte=500.0)) as (emulator, client):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await client.call()
        await clock.sleep(0.1)
        totals = emulator.report().totals
        assert (totals.aborted, totals.open, totals.answered) == (1, 0, 0)


# ── life ─────────────────────────────────────────────────────────────────────


async def test_stopping_ends_stalls_and_slow_answers_at_once_and_leaks_nothing(
    clock: VirtualClock,
) -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as session:
        async with Emulator(EmulatorConfig(projects=projects()), clock=clock) as emulator:
            client = Client(session, emulator.base_url)
            emulator.script("stall")
            emulator.script("stall_mid")
            emulator.script("slow", seconds=1e6)
            calls = [asyncio.ensure_future(client.stream()) for _ in range(3)]
            await clock.sleep(1)
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, aiohttp.ClientError) for error in ended)
    assert clock.monotonic() < 60
    assert asyncio.all_tasks() == before
    assert emulator.report().totals.open == 0


async def test_a_stopped_emulator_starts_again_on_its_port_with_its_books(clock: VirtualClock) -> None:
    emulator = Emulator(EmulatorConfig(projects=projects()), clock=clock)
    async with emulator, aiohttp.ClientSession() as session:
        first = emulator.base_url
        assert (await Client(session, first).call()).status == 200
        with pytest.raises(ConfigurationError, match="runs already"):
            await emulator.start()
    async with emulator, aiohttp.ClientSession() as session:
        assert emulator.base_url == first
        assert (await Client(session, first).call()).status == 200
    assert emulator.report().totals.answered == 2


def test_an_emulator_moves_to_another_event_loop() -> None:
    emulator = Emulator(EmulatorConfig(projects=projects()), clock=VirtualClock())

    async def stalled() -> None:
        async with emulator, aiohttp.ClientSession() as session:
            emulator.script("stall")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(Client(session, emulator.base_url).call(), 5)

    for _ in range(2):
        VirtualClock().run(stalled())
    assert emulator.report().totals.failed == 2


async def test_a_taken_port_is_a_configuration_error(clock: VirtualClock) -> None:
    async with upstream(clock) as (emulator, _):
        port = int(emulator.base_url.rsplit(":", 1)[1])
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            await Emulator(EmulatorConfig(projects=[]), clock=clock, port=port).start()


async def test_a_connection_idle_for_days_of_virtual_time_still_serves(clock: VirtualClock) -> None:
    async with upstream(clock) as (_, client):
        assert (await client.call()).status == 200
        await clock.sleep(10)
        assert (await client.call()).status == 200
        await clock.sleep(3 * 86_400)
        assert (await client.call()).status == 200


def test_in_a_thread_it_serves_and_is_controlled_from_synchronous_code() -> None:
    emulator = Emulator(EmulatorConfig(projects=projects()))
    threaded = emulator.in_thread()
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        threaded.report()
    with threaded as running:
        running.script("overload")

        async def calls() -> list[int]:
            async with aiohttp.ClientSession() as session:
                client = Client(session, running.base_url)
                return [(await client.call()).status for _ in range(2)]

        assert asyncio.run(calls()) == [503, 200]
        assert running.report().totals.answered == 1
        running.reset()
        assert running.report().totals.requests == 0


def test_a_thread_that_cannot_start_says_why() -> None:
    with Emulator(EmulatorConfig(projects=[])).in_thread() as running:
        port = int(running.base_url.rsplit(":", 1)[1])
        with pytest.raises(ConfigurationError, match="cannot listen"):
            Emulator(EmulatorConfig(projects=[]), port=port).in_thread().__enter__()


async def test_faults_also_meet_methods_that_cost_no_quota(clock: VirtualClock) -> None:
    async with upstream(clock) as (emulator, client):
        emulator.script("slow", method="models.list", seconds=7)
        emulator.script("overload", method="models.get", charge=True)
        emulator.script("broken_json", method="countTokens")
        headers = {"x-goog-api-key": A1}
        async with client.session.get(f"{client.base_url}/v1beta/models", headers=headers) as reply:
            assert reply.status == 200
        assert clock.monotonic() == pytest.approx(7)
        url = f"{client.base_url}/v1beta/models/{MODEL}"
        async with client.session.get(url, headers=headers) as reply:
            assert reply.status == 503
        with pytest.raises(json.JSONDecodeError):
            assert (await client.call("countTokens")).json
        assert emulator.report().totals.faults == {"slow": 1, "overload": 1, "broken_json": 1}


async def test_a_scripted_fault_that_makes_no_sense_says_what_is_allowed(clock: VirtualClock) -> None:
    async with upstream(clock) as (emulator, _):
        for wrong, allowed in (
            ({"kind": "meteor"}, "reset, close, stall"),
            ({"kind": "slow", "second": 3}, "kind, probability, project"),
            ({"kind": "slow", "seconds": "three"}, "a number"),
            ({"kind": "slow", "method": "dance"}, "generateContent, streamGenerateContent"),
            ({"kind": "slow", "times": 0}, "1 or more"),
        ):
            with pytest.raises(ConfigurationError, match=allowed):
                emulator.script(**wrong)
