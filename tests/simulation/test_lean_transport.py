"""The client over the lean transport, against the emulator: many answers fail, and both keep books."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulation.test_against_emulator import agree, all_at_once, projects, upstream
from tests.support import MODEL

from headgate.emulator import EmulatorConfig, Fault, Latency
from headgate.gemini import GeminiAPICallError, GeminiKeyRotationError, ResilientGeminiClient
from headgate.testing import VirtualClock
from headgate.transport.lean import LeanTransport

pytestmark = pytest.mark.timeout(120)

FAULTS = [
    Fault(kind, 0.02)
    for kind in ("overload", "internal", "close", "reset", "reset_mid", "broken_json", "html")
]


@pytest.mark.parametrize("connections", [0, 12])
async def test_two_hundred_calls_with_faults_and_the_books_agree(
    connections: int, clock: VirtualClock
) -> None:
    config = EmulatorConfig(
        projects=projects(10),
        latency=Latency(first_byte=0.5, distribution="uniform", spread=0.5),
        faults=FAULTS,
        seed=7,
    )
    transport = LeanTransport(clock, connections=connections)
    async with upstream(clock, config, 10, max_retries=8, transport=transport) as (
        emulator,
        client,
        ear,
    ):
        results = await all_at_once(client, clock, 200)
        for result in results:
            assert isinstance(result, str | GeminiKeyRotationError), repr(result)
        answered = [result for result in results if isinstance(result, str)]
        assert len(answered) > 195
        report = emulator.report()
        assert sum(report.totals.faults.values()) > 10, "the faults did happen"
        assert report.totals.requests == len(ear.attempts)
        assert report.totals.answered == len(answered)
        agree(client, emulator)
        pool = transport._keepers[asyncio.get_running_loop()].pool
        assert pool.slots <= (connections or 200)
    assert pool.slots == 0


async def test_streams_that_break_stall_or_are_left_give_everything_back(clock: VirtualClock) -> None:
    config = EmulatorConfig(
        projects=projects(5),
        latency=Latency(first_byte=0.2, per_chunk=0.1),
        faults=[Fault("reset_mid", 0.2)],
        seed=7,
    )
    transport = LeanTransport(clock)

    async def stream(client: ResilientGeminiClient, number: int) -> str:
        text = ""
        pieces = client.generate_content_stream(f"Say {number}.", MODEL)
        try:
            async for piece in pieces:
                text += piece
                if number % 7 == 0:
                    return "left"
        except GeminiAPICallError:
            return "broken"
        finally:
            await pieces.aclose()
        return "whole"

    async with upstream(clock, config, 5, transport=transport) as (emulator, client, _):
        ends = await asyncio.gather(*(stream(client, number) for number in range(60)))
        assert {"left", "whole", "broken"} <= set(ends)
        await clock.sleep(1)
        projects_seen = emulator.report().projects.values()
        assert sum(project.keys[f"k{n}"].totals.open for n, project in enumerate(projects_seen)) == 0
        pool = transport._keepers[asyncio.get_running_loop()].pool
        assert pool.slots == sum(len(idle) for idle in pool._idle.values())
        here = asyncio.current_task()
        others = {task for task in asyncio.all_tasks() if "RequestHandler" not in repr(task)}
        assert others == {here}, "what is left is the emulator's"
    assert pool.slots == 0
