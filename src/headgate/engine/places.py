"""Places: how many calls are under way at once, and who is next when all are taken.

Urgent calls go first, calls of one class in the order they came. The line is bounded: beyond it a call
is refused at once and told when to come back. The number of places may change while calls are under
way: what is above a smaller number runs to its end, and nobody is let in until there is room again.

Threads and event loops may share the places of one engine.
"""

from __future__ import annotations

import asyncio
import math
from heapq import heappop, heappush
from itertools import count
from threading import Lock

from headgate.core.call import Priority
from headgate.core.errors import DeadlineExceededError, QueueFullError
from headgate.core.ports import Clock
from headgate.engine.loops import call_on

__all__ = ["Place", "Places"]

_WEIGHT = 0.2
"""Of the last call in the running mean of how long one takes."""

_FIRST_GUESS = 1.0
"""Seconds a call is taken to last before one has ended."""


class _Waiter:
    __slots__ = ("future", "gone", "granted", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.granted = False
        self.gone = False

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Place:
    """One place, taken and given back. A class: `@asynccontextmanager` costs as much as the rest."""

    __slots__ = ("_begun", "_deadline", "_places", "_priority")

    def __init__(self, places: Places, priority: Priority, deadline: float | None) -> None:
        self._places = places
        self._priority = priority
        self._deadline = deadline
        self._begun = 0.0

    async def __aenter__(self) -> None:
        self._begun = await self._places.take(self._priority, self._deadline)

    async def __aexit__(self, *exc: object) -> None:
        self._places.give_back(self._begun)


class Places:
    """A number of places and the line before them.

    Args:
        limit: calls at once.
        most_waiting: calls in line at once.
    """

    def __init__(self, limit: int, most_waiting: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._limit = limit
        self._most = most_waiting
        self._used = 0
        self._line: list[tuple[int, int, _Waiter]] = []
        self._numbers = count()
        self._waiting = 0
        self._seconds = _FIRST_GUESS

    @property
    def used(self) -> int:
        """Calls under way."""
        return self._used

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return self._waiting

    def resize(self, limit: int, most_waiting: int) -> None:
        """Change how many there are."""
        with self._lock:
            self._limit, self._most = limit, most_waiting
            self._let_in()

    def place(self, priority: Priority, deadline: float | None) -> Place:
        """A place, for `async with`: entered once it is this call's turn, given back at the end.

        Args:
            deadline: monotonic seconds at which the caller stops waiting, or None.

        Entering raises:
            QueueFullError: too many wait already.
            DeadlineExceededError: its turn did not come in time; of kind `busy`: nothing was sent.
        """
        return Place(self, priority, deadline)

    def give_back(self, begun: float) -> None:
        """A call that was let in at that monotonic second has ended."""
        took = self._clock.monotonic() - begun
        with self._lock:
            self._seconds += _WEIGHT * (took - self._seconds)
            self._used -= 1
            self._let_in()

    def take_at_once(self) -> float | None:
        """A place, if one is free and nobody waits: the monotonic second at which it was had."""
        with self._lock:
            if self._used >= self._limit or self._waiting:
                return None
            self._used += 1
        return self._clock.monotonic()

    async def take(self, priority: Priority, deadline: float | None) -> float:
        """Wait for a place; see `place`. The monotonic second at which it was had."""
        await self._take(priority, deadline)
        return self._clock.monotonic()

    async def _take(self, priority: Priority, deadline: float | None) -> None:
        with self._lock:
            if self._used < self._limit and not self._waiting:
                self._used += 1
                return
            if self._waiting >= self._most:
                raise self._full()
            waiter = _Waiter(asyncio.get_running_loop())
            heappush(self._line, (priority.rank, next(self._numbers), waiter))
            self._waiting += 1
        left = None if deadline is None else max(0.0, deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(left):
                await waiter.future
        except BaseException as error:
            self._leave(waiter)
            if isinstance(error, TimeoutError):
                raise DeadlineExceededError(
                    f"The call's deadline passed while it waited for one of {self._limit} places. "
                    "Nothing was sent. Give it more time, or allow more calls at once.",
                    kind="busy",
                    retry_after=self._come_back(),
                ) from None
            raise

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.granted:
                self._used -= 1
                self._let_in()
            else:
                waiter.gone = True
                self._waiting -= 1

    def _let_in(self) -> None:
        while self._used < self._limit and self._line:
            waiter = heappop(self._line)[2]
            if waiter.gone:
                continue
            self._waiting -= 1
            if call_on(waiter.loop, waiter.wake):  # a loop that closed took its caller along
                waiter.granted = True
                self._used += 1

    def _come_back(self) -> float:
        """Seconds until one more call would have its turn, as long as calls take now."""
        return max(1.0, math.ceil(self._seconds * (self._waiting + 1) / max(1, self._limit)))

    def _full(self) -> QueueFullError:
        wait = self._come_back()
        return QueueFullError(
            f"{self._waiting} calls wait for one of {self._limit} places; no more may. Come back in "
            f"{wait:.0f} s, or allow more calls at once.",
            retry_after=wait,
        )
