"""Waiting one's turn: the paces of an upstream's classes, shared by tasks, threads and event loops.

Within an event loop calls of a class leave in the order they came. A class that is paused or empty
makes its own calls wait and nobody else's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

from headgate.core.ports import Clock
from headgate.policy.pace import Pace, PaceView

__all__ = ["ClassLimits", "ClassPaused"]


class ClassPaused(Exception):  # noqa: N818 - a signal, not an error
    """The upstream asked to be left alone for `seconds` more."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.0f} s")
        self.seconds = seconds


class ClassLimits:
    """The classes of one token."""

    def __init__(self, paces: Mapping[str, Pace], clock: Clock) -> None:
        self._paces = dict(paces)
        self._clock = clock
        self._lock = threading.Lock()
        self._queues: dict[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = {}

    async def turn(self, group: str, patience: float) -> float:
        """Wait until a request of the class may leave. The seconds it took.

        Raises `ClassPaused` where the upstream asked to be left alone for longer than `patience`
        seconds, before or while it waits.
        """
        pace, begun = self._paces[group], self._clock.monotonic()
        async with self._queue(group):
            while True:
                with self._lock:
                    now = self._clock.monotonic()
                    if (pause := pace.paused(now)) > patience:
                        raise ClassPaused(pause)
                    wait = pace.take(now)
                if wait <= 0:
                    return self._clock.monotonic() - begun
                await self._clock.sleep(wait)

    def adopt(self, before: ClassLimits) -> None:
        """Take over what was sent under other limits: a change must not grant a second burst."""
        with before._lock:
            for group, pace in before._paces.items():
                if group in self._paces:
                    self._paces[group].adopt(pace)

    def succeeded(self, group: str) -> None:
        """A request was let in."""
        with self._lock:
            self._paces[group].succeeded()

    def refused(self, group: str, sent_at: float, hint: float | None) -> float:
        """A request was refused for the limit. Seconds until one may leave again."""
        with self._lock:
            return self._paces[group].refused(self._clock.monotonic(), sent_at, hint)

    def views(self) -> dict[str, PaceView]:
        """How each class stands."""
        now = self._clock.monotonic()
        with self._lock:
            return {group: pace.view(now) for group, pace in self._paces.items()}

    def _queue(self, group: str) -> asyncio.Lock:
        with self._lock:
            loop = asyncio.get_running_loop()
            if loop not in self._queues:
                for old in [old for old in self._queues if old.is_closed()]:
                    del self._queues[old]  # a lock knows its loop, so weak references would not do
                self._queues[loop] = {}
            return self._queues[loop].setdefault(group, asyncio.Lock())
