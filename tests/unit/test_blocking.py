"""The bridge from synchronous callers to the loop: results, interrupts, endings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from headgate.wiring.blocking import Bridge


@pytest.fixture
def bridge():  # type: ignore[no-untyped-def]
    made = Bridge()
    yield made
    made.stop()


async def value() -> int:
    await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes
    return 7


def test_a_result_comes_back_and_so_does_an_error(bridge: Bridge) -> None:
    async def fail() -> None:
        raise LookupError("no")

    assert bridge.run(value()) == 7
    with pytest.raises(LookupError, match="no"):
        bridge.run(fail())
    assert bridge.run(value()) == 7


async def test_it_works_inside_a_running_loop(bridge: Bridge) -> None:
    assert bridge.run(value()) == 7
    assert list(bridge.iterate(counting([]))) == [0, 1, 2]


def test_all_calls_run_on_one_thread_that_is_not_the_callers(bridge: Bridge) -> None:
    async def where() -> int:
        return threading.get_ident()

    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(bridge.run(where()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert threading.get_ident() not in seen


async def counting(closed: list[bool], last: int = 3) -> AsyncGenerator[int]:
    try:
        for number in range(last):
            yield number
    finally:
        closed.append(True)


def test_a_generator_is_read_item_by_item(bridge: Bridge) -> None:
    closed: list[bool] = []
    assert list(bridge.iterate(counting(closed))) == [0, 1, 2]
    assert closed == [True]


def test_leaving_a_generator_early_closes_it(bridge: Bridge) -> None:
    closed: list[bool] = []
    items = bridge.iterate(counting(closed, 1000))
    assert next(items) == 0
    assert closed == []
    items.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_a_dropped_generator_is_closed_and_nobody_waits_for_that(bridge: Bridge) -> None:
    """It may be dropped by a garbage collection in a thread that holds what closing it needs."""
    released, closed, in_time = threading.Event(), threading.Event(), []

    async def held_up() -> AsyncGenerator[int]:
        try:
            yield 0
            yield 1
        finally:
            in_time.append(released.wait(10))
            closed.set()

    items = bridge.iterate(held_up())
    assert next(items) == 0
    del items
    released.set()
    assert closed.wait(10)
    assert in_time == [True]


def test_an_error_in_the_loop_body_closes_it_too(bridge: Bridge) -> None:
    closed: list[bool] = []
    items = bridge.iterate(counting(closed, 1000))

    def read() -> None:
        for _ in items:
            raise LookupError

    with pytest.raises(LookupError):
        read()
    items.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_an_interrupted_caller_cancels_its_call(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Ctrl-C does in the main thread, while it waits for the result."""
    begun, cancelled = threading.Event(), threading.Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    real = asyncio.run_coroutine_threadsafe

    def interrupting(coroutine, loop):  # type: ignore[no-untyped-def]
        future = real(coroutine, loop)

        def result(timeout: float | None = None) -> None:
            begun.wait(10)
            raise KeyboardInterrupt

        future.result = result  # type: ignore[method-assign]
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupting)
    with pytest.raises(KeyboardInterrupt):
        bridge.run(long())
    assert cancelled.wait(10)
    monkeypatch.undo()
    assert bridge.run(value()) == 7


def test_stopping_ends_the_thread_and_a_later_call_starts_anew() -> None:
    def threads() -> int:
        return sum(thread.name == "headgate-blocking" for thread in threading.enumerate())

    before = threads()
    bridge = Bridge()
    assert threads() == before, "nothing starts before the first call"
    bridge.stop()
    assert bridge.run(value()) == 7
    assert threads() == before + 1
    bridge.stop()
    bridge.stop()
    assert threads() == before
    assert bridge.run(value()) == 7
    bridge.stop()
    assert threads() == before


def test_a_generator_left_after_the_end_of_the_bridge_starts_no_thread() -> None:
    bridge, closed = Bridge(), []
    items = bridge.iterate(counting(closed, 1000))
    assert next(items) == 0
    bridge.stop()
    assert closed == [True]
    items.close()  # type: ignore[attr-defined]
    assert not bridge.running


def test_a_generator_cut_off_by_the_end_of_the_bridge_says_so() -> None:
    """Ending silently, a cut answer would look like a whole one."""
    bridge, closed = Bridge(), []
    items = bridge.iterate(counting(closed, 1000))
    assert next(items) == 0
    bridge.stop()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed while this stream was being read"):
            next(items)
    assert bridge.run(value()) == 7  # a later life of the bridge is not its own
    with pytest.raises(RuntimeError, match="incomplete"):
        list(items)
    bridge.stop()


def test_a_generator_that_ended_before_stays_at_its_end() -> None:
    bridge = Bridge()
    items = bridge.iterate(counting([]))
    assert list(items) == [0, 1, 2]
    bridge.stop()
    assert list(items) == []
    unread = bridge.iterate(counting([]))
    bridge.stop()
    assert list(unread) == [0, 1, 2]  # nothing of it was cut off
    bridge.stop()


def test_a_generator_that_was_closed_is_at_its_end() -> None:
    bridge = Bridge()
    items = bridge.iterate(counting([], 1000))
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    bridge.stop()
    assert list(items) == []


def test_stopping_cancels_what_still_runs() -> None:
    bridge = Bridge()
    begun, ended = threading.Event(), []

    async def long() -> None:
        begun.set()
        await asyncio.Event().wait()

    def caller() -> None:
        try:
            bridge.run(long())
        except BaseException as error:
            ended.append(type(error).__name__)

    thread = threading.Thread(target=caller)
    thread.start()
    assert begun.wait(10)
    bridge.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert ended == ["CancelledError"]
