"""The virtual clock: the tool every other test trusts."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headgate.testing import VirtualClock


async def test_an_hour_passes_at_once(clock: VirtualClock) -> None:
    await clock.sleep(3600)
    assert clock.monotonic() == pytest.approx(3600)


async def test_timers_fire_in_order_and_at_their_time(clock: VirtualClock) -> None:
    seen: list[tuple[str, float]] = []

    async def note(name: str, delay: float) -> None:
        await clock.sleep(delay)
        seen.append((name, clock.monotonic()))

    await asyncio.gather(note("late", 20), note("early", 5))
    assert seen == [("early", pytest.approx(5)), ("late", pytest.approx(20))]


async def test_asyncio_timeouts_follow_the_same_clock(clock: VirtualClock) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await clock.sleep(1000)
    assert clock.monotonic() == pytest.approx(30)


async def test_a_thread_is_waited_for_without_a_jump(clock: VirtualClock) -> None:
    async def late() -> None:
        await clock.sleep(10_000)

    other = asyncio.ensure_future(late())
    assert await asyncio.to_thread(threading.Event().wait, 0.05) is False
    assert clock.monotonic() < 10_000
    other.cancel()


def test_wall_and_monotonic_step_apart() -> None:
    clock = VirtualClock(wall=1000.0)
    clock.advance(5)
    clock.step_wall(-3600)
    assert clock.monotonic() == 5
    assert clock.wall() == 1005 - 3600
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
