"""What stands before a shared store: a deadline that counts a busy loop once, the breaker, lanes."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from headgate.core.errors import StoreError
from headgate.core.quota import Ask, Batch, BatchReply, Counts, Grant, Penalty, Restore, Settlement
from headgate.stores.guard import PARTS, Guard, deadline
from headgate.stores.valkey_lanes import MOST_ASKS, MOST_OTHERS, Entry, Lane, Owed, pieces_of
from headgate.testing import VirtualClock


async def test_a_punctual_loop_ends_a_command_on_time(clock: VirtualClock) -> None:
    began = clock.monotonic()
    with pytest.raises(TimeoutError):
        async with deadline(0.1):
            await clock.sleep(60)
    assert clock.monotonic() - began == pytest.approx(0.1)


@pytest.mark.parametrize("stall", [0.05, 0.1, 3.0])
async def test_a_loop_that_was_busy_does_not_blame_the_store(stall: float, clock: VirtualClock) -> None:
    """However long it was away: the reply it finds when it is back is in time."""
    async with deadline(0.1):
        clock.advance(stall)  # the loop is held up; no timer gets its turn
        await clock.sleep(0.04)


async def test_a_loop_that_is_busy_all_the_time_looks_at_the_socket_before_it_gives_up(
    clock: VirtualClock,
) -> None:
    looks = 0

    async def hold_up() -> None:
        nonlocal looks
        while True:
            looks += 1
            clock.advance(1.0)
            await asyncio.sleep(0)  # noqa: TID251 - one round of the loop

    busy = asyncio.ensure_future(hold_up())
    with pytest.raises(TimeoutError):
        async with deadline(0.1):
            await asyncio.Event().wait()
    busy.cancel()
    assert looks >= PARTS


async def test_what_ends_in_time_leaves_no_timer(clock: VirtualClock) -> None:
    async with deadline(0.1):
        await clock.sleep(0.05)
    await clock.sleep(5)  # a timer that was left would cancel this


def guard(clock: VirtualClock) -> Guard:
    return Guard(
        clock=clock,
        chance=lambda: 0.5,
        seconds=0.1,
        explain=lambda error: StoreError(f"failed: {type(error).__name__}"),
    )


class Frame:
    """Stands for a connection in a frame of a library."""


async def test_a_failure_keeps_nothing_of_the_library_alive(clock: VirtualClock) -> None:
    """An error a log keeps must not hold a connection, whose loop may be gone when it is collected."""
    held: list[weakref.ref[Frame]] = []

    async def fail() -> None:
        frame = Frame()
        held.append(weakref.ref(frame))
        raise OSError("CANARY")

    with pytest.raises(StoreError) as kept:
        await guard(clock).run(fail)
    assert (kept.value.__cause__, kept.value.__context__) == (None, None)
    gc.collect()
    assert held[0]() is None


async def test_refusals_come_at_once_until_a_probe_is_due(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    guarded, calls = guard(clock), 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise OSError

    async def answer() -> str:
        return "said"

    with caplog.at_level(logging.INFO, "headgate.stores"):
        for _ in range(10):
            with pytest.raises(StoreError):
                await guarded.run(fail)
        assert calls == 3
        with pytest.raises(StoreError):
            guarded.refuse_while_open()
        await clock.sleep(1.0)
        guarded.refuse_while_open()
        assert await guarded.run(answer) == "said"
        assert await guarded.run(answer) == "said"
    said = [record.getMessage() for record in caplog.records if record.name == "headgate.stores"]
    assert [line.partition("breaker=")[2][:4] for line in said] == ["", "open", "clos"]


# ── lanes ───────────────────────────────────────────────────────────────────────────────────────


async def test_more_than_one_call_carries_is_given_back_without_waiting_for_a_caller() -> None:
    """Grants of callers who left: as many calls follow as it takes, and not one more."""
    owed = Owed()
    lane, loop = Lane(owed), asyncio.get_running_loop()
    many = MOST_OTHERS // 4 * 2 + 5
    for number in range(many):
        entry = Entry(Batch(asks=(Ask(f"{number:x}", {Counts.SLOTS: 1}),)), loop.create_future())
        entry.future.set_result(BatchReply((Grant(f"{number:x}", 0),), 0))
        lane.abandon(entry)
    told: list[str] = []
    calls = 0
    while lane.has_work:
        assert lane.next() == []
        batch = owed.take()
        if batch is not None:
            calls += 1
            told += batch.cancels
    assert sorted(told) == sorted(f"{number:x}" for number in range(many))
    assert calls == 3


def test_a_batch_too_large_for_a_call_goes_in_pieces_that_lose_nothing() -> None:
    many = range(MOST_OTHERS * 3 + 7)
    batch = Batch(
        settles=tuple(Settlement(f"s{number}", {}) for number in many),
        cancels=tuple(f"c{number}" for number in many),
        renews=tuple(f"r{number}" for number in many[:100]),
        penalties=tuple(Penalty(number) for number in many[:300]),
        asks=tuple(Ask(f"a{number}", {}) for number in range(MOST_ASKS * 2 + 1)),
        restores=tuple(Restore("me", number, "rpm", 1, 1) for number in many),
    )
    pieces = [*pieces_of(batch)]
    for name in ("settles", "cancels", "renews", "penalties", "asks", "restores"):
        assert sum((getattr(piece, name) for piece in pieces), ()) == getattr(batch, name)
    for piece in pieces:
        assert len(piece.asks) <= MOST_ASKS
        kinds = (piece.settles, piece.cancels, piece.renews, piece.penalties, piece.restores)
        assert sum(map(len, kinds)) <= MOST_OTHERS
