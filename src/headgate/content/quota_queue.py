"""Work that waits for quota: the most urgent first, each for a bounded time, and all of it is run.

Who waits asks for itself when it has come to the front; nobody polls for others. An entry without work
of its own waits until somebody takes it with `take`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from threading import Lock

from headgate.content.quota_book import QuotaBook
from headgate.content.quota_config import (
    PRIORITY_NAMES,
    Held,
    NoRoom,
    QuotaExceededError,
    limit_sentence,
)
from headgate.core.call import Priority
from headgate.core.ports import Clock
from headgate.engine.loops import call_on

__all__ = ["QueueEntry", "QuotaQueue"]

LOOK_AGAIN = 1.0
"""Seconds between looks for room: calls may end sooner than the ledger can know."""


@dataclass(slots=True, eq=False)
class QueueEntry:
    """A place in line.

    Attributes:
        endpoint: what is to be done, by name.
        tokens: it will need.
        user_id: for whom.
        queued: monotonic seconds.
        until: monotonic seconds at which it gives up.
    """

    priority: Priority
    endpoint: str
    tokens: int
    user_id: str | None
    queued: float
    until: float
    number: int
    _front: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    def __lt__(self, other: QueueEntry) -> bool:
        return (self.priority.rank, self.number) < (other.priority.rank, other.number)

    @property
    def waits_by_itself(self) -> bool:
        """Whether somebody waits in it, who goes on when its turn comes."""
        return self._front is not None

    def waits_here(self) -> asyncio.Event:
        """Somebody waits in it, on the running loop, for this."""
        self._front, self._loop = asyncio.Event(), asyncio.get_running_loop()
        return self._front

    def called(self) -> None:
        """It has come to the front."""
        if self._front is not None and self._loop is not None:
            call_on(self._loop, self._front.set)

    def shown(self) -> dict[str, object]:
        """As `get_next_request` gives it."""
        return {
            "priority": PRIORITY_NAMES[self.priority],
            "endpoint": self.endpoint,
            "estimated_tokens": self.tokens,
            "user_id": self.user_id,
        }


@dataclass(slots=True)
class _Line:
    entries: list[QueueEntry] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)


class QuotaQueue:
    """A bounded line in order of priority. Threads and event loops may share it.

    Args:
        most: entries.
        seconds: that one may wait.
    """

    def __init__(self, clock: Clock, *, most: int, seconds: float) -> None:
        self._clock = clock
        self._most = most
        self._seconds = seconds
        self._lock = Lock()
        self._line = _Line()
        self.total = 0

    def __len__(self) -> int:
        with self._lock:
            self._drop_late()
            return len(self._line.entries)

    def lengths(self) -> Mapping[str, int]:
        """How many wait, by the accepted names of priorities."""
        with self._lock:
            self._drop_late()
            waiting = [entry.priority for entry in self._line.entries]
        return {name: waiting.count(priority) for priority, name in PRIORITY_NAMES.items()}

    def put(
        self,
        priority: Priority,
        endpoint: str,
        tokens: int,
        user_id: str | None = None,
        seconds: float | None = None,
    ) -> QueueEntry | None:
        """Take a place; None where there is none left."""
        now = self._clock.monotonic()
        patience = self._seconds if seconds is None else min(seconds, self._seconds)
        with self._lock:
            self._drop_late()
            if len(self._line.entries) >= self._most:
                return None
            number = next(self._line.numbers)
            entry = QueueEntry(priority, endpoint, tokens, user_id, now, now + patience, number)
            heapq.heappush(self._line.entries, entry)
            self.total += 1
        return entry

    def take(self) -> QueueEntry | None:
        """The most urgent entry in which nobody waits; it leaves the line."""
        with self._lock:
            self._drop_late()
            mine = [entry for entry in self._line.entries if not entry.waits_by_itself]
            if not mine:
                return None
            entry = min(mine)
        self.leave(entry)
        return entry

    def leave(self, entry: QueueEntry) -> None:
        """Give a place up; the next in line is told."""
        with self._lock:
            if entry in self._line.entries:
                self._line.entries.remove(entry)
                heapq.heapify(self._line.entries)
            first = self._first()
        if first is not None:
            first.called()

    async def turn(self, entry: QueueEntry, book: QuotaBook) -> Held:
        """Wait in a place for quota.

        Raises:
            QuotaExceededError: its time is up, or there will be no room within it.
        """
        front: asyncio.Event = entry.waits_here()
        refused: NoRoom | None = None
        try:
            while (left := entry.until - self._clock.monotonic()) > 0:
                if not self._is_first(entry):
                    front.clear()
                    if not self._is_first(entry):  # it may have come to the front just now
                        await self._within(left, front)
                        continue
                got = await book.reserve((entry.tokens,))
                if not isinstance(got, NoRoom):
                    return got[0]
                refused = got
                if got.seconds is None or got.seconds > left:
                    break
                await self._clock.sleep(min(max(got.seconds, 0.001), LOOK_AGAIN, left))
            if refused is None:  # its time was up before it had come to the front
                last = await book.reserve((entry.tokens,))
                if not isinstance(last, NoRoom):
                    return last[0]
                refused = last
            raise QuotaExceededError(
                limit_sentence(refused.limit, None), limit=refused.limit, retry_after=refused.seconds
            )
        finally:
            self.leave(entry)

    @staticmethod
    async def _within(seconds: float, front: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(seconds):
                await front.wait()
        except TimeoutError:
            return

    def _is_first(self, entry: QueueEntry) -> bool:
        with self._lock:
            return self._first() is entry

    def _first(self) -> QueueEntry | None:
        """The most urgent entry in which somebody waits. Called under the lock."""
        waiting = [entry for entry in self._line.entries if entry.waits_by_itself]
        return min(waiting, default=None)

    def _drop_late(self) -> None:
        """Entries in which nobody waits give up by themselves. Called under the lock."""
        now = self._clock.monotonic()
        kept = [one for one in self._line.entries if one.waits_by_itself or one.until > now]
        if len(kept) != len(self._line.entries):
            heapq.heapify(kept)
            self._line.entries = kept
