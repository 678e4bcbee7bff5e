"""A clock that jumps: when every task waits, time moves to the next thing that is due.

`VirtualClock.run(main())` runs a coroutine on an event loop whose own time is virtual, so
`asyncio.timeout`, aiohttp's timers and `Clock.sleep` all agree, and an hour of waiting takes
milliseconds. Sockets stay real: a client and a server on the same loop talk over loopback, and time
moves only while neither has anything to read.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple

__all__ = ["VirtualClock"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Loopback bytes are readable as soon as they are written, or very nearly: this much real time is
# given for them before virtual time may jump.
_SETTLE_SECONDS = 0.002


class VirtualClock:
    """A `Clock` whose seconds pass only when nothing else can happen, or when you say so.

    Args:
        wall: Unix time at the start; the default is 2026-11-21 12:00:00 UTC.
    """

    def __init__(self, wall: float = 1_795_262_400.0) -> None:
        self._start = wall
        self._elapsed = 0.0

    def monotonic(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._elapsed

    def wall(self) -> float:
        """Virtual Unix time."""
        return self._start + self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time."""
        await asyncio.sleep(max(0.0, seconds))  # noqa: TID251 - the loop's time is this clock's

    def advance(self, seconds: float) -> None:
        """Let time pass from outside a loop; inside one, sleep, so that timers get their turn."""
        if seconds < 0:
            raise ValueError(f"time does not go back: advance({seconds})")
        self._elapsed += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP would; monotonic time stays."""
        self._start += seconds

    def run(self, main: Coroutine[object, object, T]) -> T:
        """Run a coroutine to its end on a fresh loop in virtual time, as `asyncio.run` would."""
        with asyncio.Runner(loop_factory=lambda: _VirtualLoop(self)) as runner:
            return runner.run(main)


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that reads its time from a `VirtualClock` and jumps instead of sleeping."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._threads_at_work = 0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        return self._clock.monotonic()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run in a thread as usual; time stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[T]) -> None:
        self._threads_at_work -= 1

    def _jump(self, seconds: float) -> None:
        if not self._threads_at_work:
            self._clock.advance(seconds)


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that answers an idle wait by moving the clock to its end."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, _SETTLE_SECONDS))
        if not ready:
            self._jump(timeout)
        return ready
