"""Those who want to hear alerts: callbacks in threads of their own, and iterators.

Nobody who listens can harm a call: telling puts an alert into a bounded box and returns. A box that is
full loses its oldest alert, which is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from threading import Condition, Lock, Thread
from typing import Self

from headgate.core.alerts import Alert

__all__ = ["MOST_WAITING", "AlertFeed", "Listener"]

MOST_WAITING = 1_000
"""Alerts that wait for one subscriber."""

_log = logging.getLogger("headgate.alerts")


class Listener:
    """A callback, called in a thread of its own, one alert after the other.

    A callback that raises is logged and called again with the next alert; one that hangs keeps only
    itself waiting.

    Attributes:
        dropped: alerts that were lost because the callback was too slow.
    """

    def __init__(self, callback: Callable[[Alert], object], most: int = MOST_WAITING) -> None:
        self._callback = callback
        self._box: deque[Alert] = deque(maxlen=most)
        self._changed = Condition()
        self._closed = False
        self._thread: Thread | None = None
        self.dropped = 0

    def tell(self, alert: Alert) -> None:
        """Take an alert. Never blocks for longer than it takes to put it down."""
        with self._changed:
            if self._closed:
                return
            self.dropped += len(self._box) == self._box.maxlen
            self._box.append(alert)
            if self._thread is None:
                # A daemon: a callback that hangs must not keep the process from ending.
                self._thread = Thread(target=self._serve, name="headgate-alerts", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Let the thread end once it has told what waits. Does not wait for it."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._box or self._closed)
                if not self._box:
                    return
                alert = self._box.popleft()
            try:
                self._callback(alert)
            except Exception:  # noqa: BLE001 - a stranger's code: the next alert is told all the same
                name = getattr(self._callback, "__qualname__", type(self._callback).__name__)
                _log.exception("alert subscriber %s raised", name)


class AlertFeed:
    """An iterator over alerts, from when it was made on. It ends when it or its source is closed.

    One reader at a time; it may be another event loop's than the calls'.

    Attributes:
        dropped: alerts that were lost because nobody read them.
    """

    def __init__(self, leave: Callable[[AlertFeed], None], most: int = MOST_WAITING) -> None:
        self._leave = leave
        self._box: deque[Alert] = deque(maxlen=most)
        self._lock = Lock()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.dropped = 0

    def tell(self, alert: Alert) -> None:
        """Take an alert, and wake who waits for one."""
        with self._lock:
            if self._closed:
                return
            self.dropped += len(self._box) == self._box.maxlen
            self._box.append(alert)
            self._wake()

    def close(self) -> None:
        """Give out what waits, then end."""
        with self._lock:
            self._closed = True
            self._wake()

    async def aclose(self) -> None:
        """Stop listening."""
        self._leave(self)
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Alert:
        while True:
            with self._lock:
                if self._box:
                    return self._box.popleft()
                if self._closed:
                    raise StopAsyncIteration
                waiter = self._waiter = asyncio.get_running_loop().create_future()
            await waiter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        loop = waiter.get_loop()
        if not loop.is_closed():  # else whoever waited has gone with it
            loop.call_soon_threadsafe(_answer, waiter)


def _answer(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
