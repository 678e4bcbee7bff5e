"""The client against an independent upstream: real sockets, real quotas, scripted faults.

Both keep books. They must agree, whatever went wrong in between.
"""

# ruff: noqa: PERF401 - these tests look at what came before a stream broke

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from tests.support import MODEL, Ear, key, keys

from headgate.emulator import Emulator, EmulatorConfig, Fault, Latency, Limits, Project
from headgate.gemini import GeminiAPICallError, GeminiKeyRotationError, ResilientGeminiClient
from headgate.testing import VirtualClock

pytestmark = pytest.mark.timeout(120)


def projects(count: int, **arguments: Any) -> list[Project]:
    return [Project(f"p{n}", {f"k{n}": key(n)}, **arguments) for n in range(count)]


@asynccontextmanager
async def upstream(
    clock: VirtualClock, config: EmulatorConfig, count: int, **arguments: Any
) -> AsyncIterator[tuple[Emulator, ResilientGeminiClient, Ear]]:
    ear = Ear()
    async with Emulator(config, clock=clock) as emulator:
        client = ResilientGeminiClient(
            keys=keys(count), base_url=emulator.base_url, clock=clock, observers=[ear], **arguments
        )
        async with client:
            yield emulator, client, ear


async def all_at_once(
    client: ResilientGeminiClient, clock: VirtualClock, count: int
) -> list[str | BaseException]:
    """`count` calls in flight together. They start fifty at a time: a listening socket takes only so
    many new connections at one moment, and virtual time would pass while the rest wait for it."""

    async def call(number: int) -> str:
        await clock.sleep(number // 50 * 0.01)
        return await client.generate_content(f"Say {number}.", MODEL)

    return await asyncio.gather(*(call(number) for number in range(count)), return_exceptions=True)


def agree(client: ResilientGeminiClient, emulator: Emulator) -> None:
    """The client's books of each key are the emulator's."""
    report = emulator.report()
    theirs = {name: found for p in report.projects.values() for name, found in p.keys.items()}
    for entry in client.get_key_metrics()["keys"]:
        ours, counts = entry["metrics"], theirs[entry["name"]].totals
        quotas = sum(
            number for reason, number in counts.refused.items() if reason[:3] in ("rpm", "tpm", "rpd")
        )
        seen = (entry["name"], ours, counts)
        assert ours["total_requests"] == counts.requests - counts.aborted, seen
        assert ours["successful_requests"] == counts.answered, seen
        assert ours["quota_errors"] == quotas, seen
        assert counts.open == 0, seen
    assert report.unknown.requests == 0


async def test_two_hundred_calls_over_twenty_keys_with_faults_and_the_books_agree(
    clock: VirtualClock,
) -> None:
    config = EmulatorConfig(
        projects=projects(20, limits={"*": Limits(rpm=8)}),
        latency=Latency(first_byte=0.5, distribution="uniform", spread=0.5),
        faults=[
            Fault("overload", 0.05),
            Fault("internal", 0.05),
            Fault("close", 0.03),
            Fault("reset", 0.03),
            Fault("reset_mid", 0.03),
            Fault("broken_json", 0.02),
            Fault("html", 0.02),
        ],
        seed=7,
    )
    async with upstream(clock, config, 20, max_wait_seconds=120, max_retries=8) as (
        emulator,
        client,
        ear,
    ):
        results = await all_at_once(client, clock, 200)
        assert len(results) == 200
        for result in results:
            assert isinstance(result, str | GeminiKeyRotationError), repr(result)
        answered = [result for result in results if isinstance(result, str)]
        assert len(answered) > 180
        report = emulator.report()
        assert sum(report.totals.faults.values()) > 10, "the faults did happen"
        assert sum(report.totals.refused.values()) > 10, "the quotas did refuse"
        assert report.totals.requests == len(ear.attempts)
        assert report.totals.answered == len(answered)
        agree(client, emulator)


async def test_every_place_of_every_quota_is_used_before_a_call_is_refused(clock: VirtualClock) -> None:
    config = EmulatorConfig(
        projects=projects(10, limits={"*": Limits(rpm=10)}), latency=Latency(first_byte=5.0)
    )
    async with upstream(clock, config, 10, max_wait_seconds=0, max_retries=0) as (emulator, client, _):
        results = await all_at_once(client, clock, 130)
        assert sum(isinstance(result, str) for result in results) == 100
        assert emulator.report().totals.answered == 100
        agree(client, emulator)


async def test_a_daily_quota_comes_back_at_midnight_pacific(clock: VirtualClock) -> None:
    config = EmulatorConfig(projects=projects(2, limits={"*": Limits(rpd=3)}))
    async with upstream(clock, config, 2, max_wait_seconds=0) as (emulator, client, _):
        for _ in range(6):
            await client.generate_content("hi", MODEL)
        with pytest.raises(GeminiKeyRotationError) as caught:
            await client.generate_content("hi", MODEL)
        assert caught.value.retry_after == pytest.approx(3600, abs=5)  # one probe an hour may be sooner
        refused = emulator.report().totals.requests
        with pytest.raises(GeminiKeyRotationError):
            await client.generate_content("hi", MODEL)
        assert emulator.report().totals.requests == refused, "parked keys are not sent with"
        reset = datetime.fromisoformat(client.get_key_metrics()["keys"][0]["retry_after"])
        clock.advance(reset.timestamp() - clock.wall() + 61)
        assert await client.generate_content("hi", MODEL)
        agree(client, emulator)


async def test_dead_keys_are_left_alone_after_their_first_refusal(clock: VirtualClock) -> None:
    dead = projects(6)
    for number, state in enumerate(["invalid", "expired", "leaked", "suspended", "rejected"]):
        dead[number] = Project(
            f"p{number}", {f"k{number}": key(number)}, key_states={f"k{number}": state}
        )
    async with upstream(clock, EmulatorConfig(projects=dead), 6) as (_, client, _):
        for _ in range(20):
            await client.generate_content("hi", MODEL)
        assert clock.monotonic() < 1, "rotation does not sleep"
        shown = client.get_key_metrics()
        assert [entry["status"] for entry in shown["keys"]] == ["DISABLED"] * 5 + ["ACTIVE"]
        assert [entry["metrics"]["total_requests"] for entry in shown["keys"]] == [1] * 5 + [20]
        assert "CANARY" not in str(shown)


# ── each fault of the emulator ──────────────────────────────────────────────────────────────────

# kind: what a call that meets nothing else ends with, None for an answer all the same
WHOLE: dict[str, str | None] = {
    "reset": "network",
    "close": "network",
    "stall": "timeout",
    "html": "server",
    "slow": None,
    "reset_mid": "network",
    "stall_mid": "timeout",
    "wrong_length": "network",
    "broken_json": "protocol",
    "blocked": "blocked",
    "safety": "blocked",
    "safety_no_content": "blocked",
    "safety_no_parts": "blocked",
    "overload": "unavailable",
    "high_demand": "unavailable",
    "internal": "server",
    "deadline": "server",
    "capacity": "unavailable",
    "prepaid_empty": "quota",
    "invalid_key": "auth",
    "expired_key": "auth",
    "leaked_key": "auth",
    "suspended_key": "auth",
    "permission": "no_access",
    "closed_model": "no_access",
    "location": "egress",
    "429-help-only": "quota",
    "429-day-requests-free": "quota",
    "429-limit-zero": "quota",
    "429-cache-storage": "storage_quota",
    "403-file": "resource",
    "404-unknown-model": "invalid",
    "400-too-many-tokens": "invalid",
}
STREAM: dict[str, str | None] = {
    **{
        kind: expected
        for kind, expected in WHOLE.items()
        if kind in ("reset", "close", "stall", "html", "slow", "overload", "invalid_key", "location")
    },
    "slow_chunks": None,
    "raw_error": "unavailable",
    "prefixed_error": "unavailable",
    "late_error_key": "unavailable",
    "silent_eof": "protocol",
    "empty_stream": "protocol",
    "half_event": "protocol",
    "malformed_sse": "protocol",
    "reset_mid": "network",
    "stall_mid": "timeout",
    "blocked": "blocked",
    "safety": "blocked",
    "sse_no_space": None,
    "sse_comment": None,
    "sse_event_line": None,
}


@pytest.mark.parametrize("kind", WHOLE)
async def test_each_fault_of_an_answer_becomes_its_typed_error(kind: str, clock: VirtualClock) -> None:
    config = EmulatorConfig(projects=projects(1), faults=[Fault(kind)])
    arguments = {"max_wait_seconds": 0, "max_retries": 2}
    async with upstream(clock, config, 1, **arguments) as (emulator, client, ear):
        expected = WHOLE[kind]
        if expected is None:
            assert await client.generate_content("hi", MODEL, timeout=60)
        else:
            with pytest.raises(GeminiKeyRotationError) as caught:
                await client.generate_content("hi", MODEL, timeout=60)
            assert caught.value.kind == expected
            assert "CANARY" not in str(caught.value)
        assert clock.monotonic() <= 61
        assert len(ear.attempts) == emulator.report().totals.requests
        assert len(ear.calls) == 1


@pytest.mark.parametrize("kind", STREAM)
async def test_each_fault_of_a_stream_becomes_its_typed_error(kind: str, clock: VirtualClock) -> None:
    config = EmulatorConfig(projects=projects(1), faults=[Fault(kind)])
    arguments = {"max_wait_seconds": 0, "max_retries": 0}
    async with upstream(clock, config, 1, **arguments) as (_, client, ear):
        expected = STREAM[kind]
        seen = []

        async def read() -> None:
            async for piece in client.generate_content_stream("Write a long story.", MODEL, timeout=60):
                seen.append(piece)

        if expected is None:
            await read()
            assert seen
        else:
            with pytest.raises(GeminiAPICallError) as caught:
                await read()
            assert caught.value.kind == expected
        assert clock.monotonic() <= 61
        assert len(ear.attempts) == len(ear.calls) == 1


async def test_one_fault_in_a_stream_of_calls_harms_one_call_only(clock: VirtualClock) -> None:
    async with upstream(clock, EmulatorConfig(projects=projects(3)), 3) as (emulator, client, _):
        for kind in ("reset", "html", "overload", "broken_json", "close", "reset_mid"):
            emulator.script(kind)
            assert await client.generate_content("hi", MODEL)
        assert emulator.report().totals.failed == 6
        agree(client, emulator)


async def test_cancelled_calls_are_seen_by_the_upstream_at_once(clock: VirtualClock) -> None:
    config = EmulatorConfig(projects=projects(4), latency=Latency(first_byte=50.0))
    async with upstream(clock, config, 4) as (emulator, client, ear):
        tasks = [asyncio.ensure_future(client.generate_content("hi", MODEL)) for _ in range(40)]
        await clock.sleep(5)
        assert emulator.report().totals.open == 40
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await clock.sleep(0.5)
        totals = emulator.report().totals
        assert (totals.open, totals.aborted) == (0, 40)
        assert {call.error for call in ear.calls} == {"cancelled"}
        agree(client, emulator)


async def test_embeddings_and_streams_pass_through_it_too(clock: VirtualClock) -> None:
    async with upstream(clock, EmulatorConfig(projects=projects(2)), 2) as (emulator, client, _):
        assert len(await client.embed_content("Some text")) == 3072
        assert len(await client.embed_content("Some text", output_dimensionality=768)) == 768
        pieces = [piece async for piece in client.generate_content_stream("Tell me a story.", MODEL)]
        assert "".join(pieces)
        agree(client, emulator)
