"""What stands between callers and a store that may fail: a deadline for each command, one breaker.

Both kinds of shared store use it: limits over a caller's client (`line.py`), and quota ledgers over
connections of our own (`valkey.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from headgate.core.errors import StoreError
from headgate.core.ports import Clock

__all__ = ["PARTS", "Breaker", "Guard", "deadline"]

T = TypeVar("T")

_log = logging.getLogger("headgate.stores")

PARTS = 10
"""A deadline passes in so many parts. A loop that was away for long has missed one of them, no more."""

_FAILURES = 3  # in a row, until the breaker opens
_PROBE_SECONDS = 1.0
_SILENT = "The store does not answer; it is asked again every second."


class Breaker:
    """Opens after failures in a row; then lets one command a second through to see.

    Args:
        chance: uniform in [0, 1): spreads the probes of many processes over half to one and a half
            of their second.
        first_failure: level of the line about the first failure of a row. Before the breaker opens
            nothing but this one answer may be missing.
    """

    def __init__(
        self, clock: Clock, chance: Callable[[], float], first_failure: int = logging.ERROR
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._probe_at = 0.0
        self._quiet_until = 0.0
        self.openings = 0
        self._first_failure = first_failure

    @property
    def open(self) -> bool:
        """Whether commands are refused."""
        return self._failures >= _FAILURES

    @property
    def probe_due(self) -> bool:
        """Whether the next command would be let through to see."""
        return self._clock.monotonic() >= self._probe_at

    def admit(self) -> bool:
        """Whether a command may be sent. While open, true once per probe interval."""
        if not self.open:
            return True
        now = self._clock.monotonic()
        if now < self._probe_at:
            return False
        self._probe_at = now + self._interval()
        return True

    def good(self) -> None:
        """A command was answered."""
        if self._failures == 0:
            return
        was_open, self._failures = self.open, 0
        if was_open:
            _log.info("store=answers breaker=closed openings=%d", self.openings)

    def bad(self, error: BaseException) -> None:
        """A command failed, or was not answered in time."""
        self._failures += 1
        now = self._clock.monotonic()
        if self._failures == 1 and now >= self._quiet_until:
            # One line per row of failures, and per second at most: a store that fails every other
            # command must not fill a disk.
            self._quiet_until = now + _PROBE_SECONDS
            _log.log(
                self._first_failure, "store=failed error=%s deciding=locally", type(error).__name__
            )
        if self._failures == _FAILURES:
            self.openings += 1
            self._probe_at = now + self._interval()
            _log.warning(
                "store=failed breaker=open openings=%d error=%s probing_every_seconds=%g",
                self.openings,
                type(error).__name__,
                _PROBE_SECONDS,
            )

    def _interval(self) -> float:
        return _PROBE_SECONDS * (0.5 + self._chance())


class Guard:
    """Runs commands of one store. Every failure, of whatever class, leaves as a `StoreError`.

    Args:
        seconds: a command may take.
        explain: what callers are told of a failure.
        first_failure: see `Breaker`.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        chance: Callable[[], float],
        seconds: float,
        explain: Callable[[Exception], StoreError],
        first_failure: int = logging.ERROR,
    ) -> None:
        self.breaker = Breaker(clock, chance, first_failure)
        self._seconds = seconds
        self._explain = explain

    def refuse_while_open(self) -> None:
        """Raise `StoreError` at once where `run` would, before anything is made to wait for it."""
        if self.breaker.open and not self.breaker.probe_due:
            raise StoreError(_SILENT)

    async def run(self, command: Callable[[], Awaitable[T]]) -> T:
        """The command's result, in this task."""
        if not self.breaker.admit():
            raise StoreError(_SILENT)
        try:
            async with deadline(self._seconds):
                result = await command()
        except Exception as error:  # noqa: BLE001 - a time-out, a DNS failure, a broken client: all are failures
            self.breaker.bad(error)
            told = self._explain(error)
        else:
            self.breaker.good()
            return result
        try:
            # Out here, so that what callers keep of it leads to no frame of the library: such frames
            # hold connections, and keep sockets of dead event loops open.
            raise told
        finally:
            del told  # it would hold this frame, and the frame it


@asynccontextmanager
async def deadline(seconds: float) -> AsyncGenerator[None]:
    """A time-out during which the event loop is there to see the reply. Raises `TimeoutError`.

    Time passes in parts, each counted when the loop comes round to it, so that of a stretch in which
    the loop was busy with something else only one part counts. On a loop that is punctual it ends on
    time; on one that was held up the store still has the other parts, each at least one look at the
    socket, before it is blamed.
    """
    loop = asyncio.get_running_loop()
    part = seconds / PARTS
    due, left = loop.time() + part, PARTS - 1
    timer: asyncio.TimerHandle
    async with asyncio.timeout(None) as limit:

        def pass_part() -> None:
            nonlocal due, left, timer
            late = loop.time() - due
            due += part + (late if late > part else 0.0)
            left -= 1
            if left:
                timer = loop.call_at(due, pass_part)
            else:
                limit.reschedule(due)

        timer = loop.call_at(due, pass_part)
        try:
            yield
        finally:
            timer.cancel()
