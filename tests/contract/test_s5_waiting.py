"""Waiting for a run to end: past the cache, in any spelling, through troubles, and in time (S5-09)."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from tests.codegen import ORG, RUN, counts, emulated, failed, said, scripted

from headgate.codegen import (
    AgentRunLogResponse,
    AgentRunResponse,
    AuthenticationError,
    NotFoundError,
    TimeoutError,
    ValidationError,
)
from headgate.core.outcome import Kind
from headgate.testing import Answer, Broken, VirtualClock


def run(status: str | None) -> Answer:
    return said({**RUN, "status": status})


@pytest.mark.parametrize("spelling", ["upper", "lower", "completed"])
@pytest.mark.parametrize(
    "ending",
    ["COMPLETE", "ERROR", "FAILED", "CANCELLED", "STOPPED", "TIMEOUT", "MAX_ITERATIONS_REACHED",
     "OUT_OF_TOKENS"],
)  # fmt: skip
async def test_s5_09_every_ending_in_every_spelling(
    ending: str, spelling: str, clock: VirtualClock
) -> None:
    async with emulated(clock, endings=[ending], spelling=spelling, run_seconds=40) as (client, _):
        started = await client.create_agent_run(ORG, "Do it")
        done = await client.wait_for_agent_run_completion(ORG, started.id)
        assert done.is_terminal
        assert done.succeeded == (ending == "COMPLETE")
        assert 40 <= clock.monotonic() < 40 + 30 * 1.25


async def test_s5_09_polls_go_past_the_cache_and_refresh_it(clock: VirtualClock) -> None:
    """Pitfall: polling a cache of 60 s."""
    client, transport = scripted([run("ACTIVE"), run("ACTIVE"), run("ACTIVE"), run("COMPLETE")], clock)
    await client.get_agent_run(ORG, 1001)
    done = await client.wait_for_agent_run_completion(ORG, 1001)
    assert done.status == "COMPLETE"
    assert len(transport.sent) == 4
    assert (await client.get_agent_run(ORG, 1001)).status == "COMPLETE"
    assert len(transport.sent) == 4, "what the last poll saw is kept"


async def test_s5_09_polls_grow_rarer_until_something_happens(clock: VirtualClock) -> None:
    """Half of all chance is no jitter: 5, 7.5, 11.25 … up to 30 s, and 5 again after a change."""
    client, transport = scripted([run("PENDING")] * 8 + [run("ACTIVE")] * 2 + [run("COMPLETE")], clock)
    await client.wait_for_agent_run_completion(ORG, 1001)
    at = [sent.at for sent in transport.sent]
    gaps = [round(b - a, 3) for a, b in pairwise(at)]
    assert gaps == [5, 7.5, 11.25, 16.875, 25.312, 30, 30, 30, 5, 7.5]


async def test_s5_09_polls_are_spread(clock: VirtualClock) -> None:
    client, transport = scripted([run("ACTIVE"), run("ACTIVE"), run("COMPLETE")], clock)
    chances = iter((0.0, 0.999))
    client._caller.chance = lambda: next(chances)
    await client.wait_for_agent_run_completion(ORG, 1001, poll_interval=4)
    at = [sent.at for sent in transport.sent]
    assert at[1] == pytest.approx(3)
    assert at[2] - at[1] == pytest.approx(4 * 1.5 * (0.75 + 0.5 * 0.999))


@pytest.mark.parametrize("status", [None, "", "PAUSED", "running", "something new", "ACTIVE"])
async def test_s5_09_time_is_up(status: str | None, clock: VirtualClock) -> None:
    """What is unknown is no end; the error carries the run, and is the builtin one too."""
    client, _ = scripted([run(status)], clock)
    with pytest.raises(TimeoutError) as caught:
        await client.wait_for_agent_run_completion(ORG, 1001, timeout=100)
    assert clock.monotonic() == 100
    assert isinstance(caught.value, asyncio.TimeoutError)
    assert caught.value.last_run == AgentRunResponse.model_validate({**RUN, "status": status})


async def test_s5_09_a_poll_that_hangs_does_not_outlast_the_timeout(clock: VirtualClock) -> None:
    client, transport = scripted([Answer(delay=1e6)], clock, timeout=1e5)
    with pytest.raises(TimeoutError, match="never told"):
        await client.wait_for_agent_run_completion(ORG, 1001, timeout=7)
    assert clock.monotonic() == 7
    assert transport.open_exchanges == 0


async def test_s5_09_by_default_half_an_hour(clock: VirtualClock) -> None:
    client, _ = scripted([run("ACTIVE")], clock)
    with pytest.raises(TimeoutError):
        await client.wait_for_agent_run_completion(ORG, 1001)
    assert clock.monotonic() == 1800


@pytest.mark.parametrize(
    "trouble",
    [failed(500), failed(502), failed(503), failed(504), failed(429, retry_after="20"),
     Answer(200, b"<"),
     Broken(Kind.NETWORK), Broken(Kind.TIMEOUT), Broken(Kind.NETWORK, sent=False)],
    ids=lambda trouble: str(getattr(trouble, "status", trouble)),
)  # fmt: skip
async def test_s5_09_passing_troubles_do_not_end_the_wait(trouble: Any, clock: VirtualClock) -> None:
    client, transport = scripted([run("ACTIVE"), trouble, trouble, run("COMPLETE")], clock)
    assert (await client.wait_for_agent_run_completion(ORG, 1001)).succeeded
    assert len(transport.sent) == 4, "one attempt for each poll"


async def test_s5_09_an_outage_longer_than_the_breaker_bears_ends_well(clock: VirtualClock) -> None:
    client, _ = scripted([run("ACTIVE")] + [failed(503)] * 12 + [run("COMPLETE")], clock)
    assert (await client.wait_for_agent_run_completion(ORG, 1001)).succeeded


@pytest.mark.parametrize(
    ("status", "cls"), [(401, AuthenticationError), (403, AuthenticationError), (404, NotFoundError)]
)
async def test_s5_09_what_cannot_pass_ends_the_wait(
    status: int, cls: type[Exception], clock: VirtualClock
) -> None:
    client, transport = scripted([run("ACTIVE"), failed(status)], clock)
    with pytest.raises(cls):
        await client.wait_for_agent_run_completion(ORG, 1001)
    assert len(transport.sent) == 2


@pytest.mark.parametrize("limits", [{"timeout": 0}, {"timeout": -1}, {"poll_interval": 0}])
async def test_limits_that_cannot_be(limits: dict[str, float], clock: VirtualClock) -> None:
    client, transport = scripted([run("ACTIVE")], clock)
    with pytest.raises(ValidationError):
        await client.wait_for_agent_run_completion(ORG, 1001, **limits)
    assert not transport.sent


@pytest.mark.parametrize("entries", [0, 7, 250])
async def test_new_log_lines_are_told_once_and_in_order(entries: int, clock: VirtualClock) -> None:
    async with emulated(clock, run_seconds=90) as (client, _):
        wish = {"emulate": {"entries": entries}}
        started = await client.create_agent_run(ORG, "Do it", wish)
        told: list[AgentRunLogResponse] = []
        moments: list[float] = []

        async def listen(entry: AgentRunLogResponse) -> None:
            told.append(entry)
            moments.append(clock.monotonic())

        done = await client.wait_for_agent_run_completion(ORG, started.id, on_log=listen)
        kinds = [entry.message_type for entry in told]
        assert kinds == ["USER_MESSAGE", *["ACTION"] * entries, "FINAL_ANSWER"]
        steps = [entry.tool_input["step"] for entry in told if entry.tool_input]
        assert steps == list(range(1, entries + 1))
        assert done.succeeded
        if entries == 7:
            assert moments[2] < 60, "while it runs, not at the end"


async def test_trouble_with_logs_never_ends_a_wait(clock: VirtualClock) -> None:
    def script(sent: Any) -> Answer:
        if sent.request.url.endswith("reverse=false"):
            return failed(404)
        return run("COMPLETE" if sent.at > 20 else "ACTIVE")

    client, _ = scripted(script, clock)
    heard: list[Any] = []
    done = await client.wait_for_agent_run_completion(ORG, 1001, on_log=heard.append)
    assert (done.succeeded, heard) == (True, [])


async def test_changes_of_status_are_told(clock: VirtualClock) -> None:
    client, _ = scripted(
        [run("PENDING"), run("ACTIVE"), run("ACTIVE"), run("EVALUATION"), run("COMPLETE")], clock
    )
    seen: list[str | None] = []
    await client.wait_for_agent_run_completion(ORG, 1001, on_update=lambda run: seen.append(run.status))
    assert seen == ["PENDING", "ACTIVE", "EVALUATION", "COMPLETE"]


async def test_a_wait_that_is_cancelled_leaves_nothing_behind(clock: VirtualClock) -> None:
    client, transport = scripted([run("ACTIVE")], clock)
    task = asyncio.ensure_future(client.wait_for_agent_run_completion(ORG, 1001))
    await clock.sleep(8)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.open_exchanges == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_soak_500_waits_at_once(clock: VirtualClock) -> None:
    """Under the API's own limit and in bounded memory: every one ends, none is refused."""
    async with emulated(
        clock, runs=0, mechanism="token_bucket", settings={"rate_limit_requests_per_period": 120}
    ) as (client, emulator):
        world = emulator.codegen.desk.worlds["acme"]
        ids = [
            world.add_run(f"Task {number}", clock.wall(), seconds=10 + number).id
            for number in range(500)
        ]
        done = await asyncio.gather(
            *(client.wait_for_agent_run_completion(ORG, number, timeout=36_000) for number in ids)
        )
        assert [run.id for run in done] == ids
        assert all(run.succeeded for run in done)
        assert "rate_limit" not in emulator.report().totals.refused
        assert counts(emulator)["get_agent_run"] < 500 * 12
        assert len(client._caller.measures._seen) <= 10_000


# ── many ────────────────────────────────────────────────────────────────────────────────────────


async def test_many_runs_are_watched_by_lists(clock: VirtualClock) -> None:
    """500 runs, each told once, in order at the end; five requests a round instead of 500."""
    async with emulated(clock, runs=300, mechanism="token_bucket") as (client, emulator):
        world = emulator.codegen.desk.worlds["acme"]
        ids = [
            world.add_run(f"Task {number}", clock.wall(), seconds=number % 90).id
            for number in range(500)
        ]
        told: list[int] = []
        done = await client.wait_for_agent_runs(
            ORG, [*ids, *ids[:3], 1001], timeout=3600, on_done=lambda run: told.append(run.id)
        )
        assert [run.id for run in done] == [*ids, 1001]
        assert sorted(told) == sorted([*ids, 1001])
        assert all(run.is_terminal for run in done)
        seen = counts(emulator)
        # The last run ends after 89 s, a pause is 3.75 s at the least, and a last look comes after it.
        rounds = 90 / (5 * 0.75) + 1
        assert seen["list_agent_runs"] <= 5 * rounds
        assert "get_agent_run" not in seen
        assert clock.monotonic() < 200


async def test_runs_far_back_in_the_list_are_asked_for_singly(clock: VirtualClock) -> None:
    async with emulated(clock, runs=900) as (client, emulator):
        done = await client.wait_for_agent_runs(ORG, [1001, "1002"])
        assert [run.id for run in done] == [1001, 1002]
        assert counts(emulator) == {"list_agent_runs": 1, "get_agent_run": 2}
        assert await client.wait_for_agent_runs(ORG, []) == []


async def test_many_runs_time_out_and_troubles_pass(clock: VirtualClock) -> None:
    async with emulated(clock, run_seconds=50) as (client, emulator):
        first, second = [(await client.create_agent_run(ORG, "x")).id for _ in range(2)]
        emulator.codegen.desk.worlds["acme"].runs[first].stopped_at = clock.wall()
        emulator.script("overload", times=3)
        with pytest.raises(TimeoutError) as caught:
            await client.wait_for_agent_runs(ORG, [first, second], timeout=40)
        assert list(caught.value.last_run) == [second]
        assert caught.value.last_run[second].status == "ACTIVE"
        assert len(await client.wait_for_agent_runs(ORG, [first, second])) == 2
        with pytest.raises(NotFoundError):
            await client.wait_for_agent_runs(ORG, [5])
