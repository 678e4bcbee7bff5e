"""Kept answers of one process.

How old an answer is, is counted by the monotonic clock: a wall clock that is set makes nothing fresh
again, and nothing stale.
"""

from __future__ import annotations

from itertools import count
from threading import Lock

from headgate.core.ports import Clock
from headgate.core.replies import CacheFigures, Found, KeptReply
from headgate.policy.reply_cache import Invalidations, ReplyShelf
from headgate.stores.replies_wire import Lasting, pack, unpack

__all__ = ["Counts", "MemoryReplies"]

_MANY_CLAIMS = 4096
"""Rights to ask from which those that lapsed are looked for, and again at each doubling."""


class Counts:
    """What a cache did. Whoever shares it between threads locks around it."""

    def __init__(self) -> None:
        self.hits = self.misses = self.corrupt = self.failed = 0

    def looked(self, lasting: Lasting | None, age: float) -> None:
        """A look found this, of that age in seconds."""
        if lasting is not None and age < lasting.fresh + lasting.revalidate:
            self.hits += 1
        else:
            self.misses += 1

    def figures(self, shelf: ReplyShelf) -> CacheFigures:
        """Together with what the shelf knows."""
        return CacheFigures(
            entries=len(shelf),
            bytes=shelf.bytes,
            most_bytes=shelf.most_bytes,
            hits=self.hits,
            misses=self.misses,
            expired=shelf.expired,
            evicted=shelf.evicted,
            corrupt=self.corrupt,
            failed=self.failed,
        )


class MemoryReplies:
    """A `ReplyCache` in memory. Threads and event loops may share it.

    Args:
        most_entries, most_bytes: its bounds; 0 of either keeps nothing.
    """

    remote = False

    def __init__(self, clock: Clock, *, most_entries: int, most_bytes: int) -> None:
        self._clock = clock
        self._lock = Lock()
        self._shelf = ReplyShelf(most_entries, most_bytes)
        self._counts = Counts()
        self._invalidations = Invalidations()
        self._claims: dict[str, tuple[str, float]] = {}  # token and monotonic second by key
        self._many = _MANY_CLAIMS
        self._numbers = count(1)

    async def look(
        self, key: str, namespace: str = "", *, claim: float = 0.0, counted: bool = True
    ) -> Found:
        """See `ReplyCache.look`."""
        del namespace  # part of the key, and of the entry
        now = self._clock.monotonic()
        with self._lock:
            shelved = self._shelf.get(key, now)
            lasting, age = None, 0.0
            if shelved is not None:
                lasting, age = unpack(shelved.value), now - shelved.made
            if counted:
                self._counts.looked(lasting, age)
            token, claimed = None, False
            if claim > 0 and (lasting is None or age >= lasting.fresh):
                token = self._claim(key, now, claim)
                claimed = token is None
            mark = self._invalidations.turn
        kept = None if lasting is None else lasting.aged(age, self._clock.wall())
        return Found(kept, mark, token, claimed)

    async def put(
        self, key: str, kept: KeptReply, *, namespace: str = "", mark: int = 0, token: str = ""
    ) -> bool:
        """See `ReplyCache.put`."""
        value, now = pack(kept), self._clock.monotonic()
        with self._lock:
            self._give_back(key, token)
            if value is None or self._invalidations.since(mark, namespace):
                return False
            until = now + kept.rescue_until - kept.at
            return self._shelf.put(key, value, made=now, until=until, now=now, namespace=namespace)

    async def renew(self, key: str, token: str, seconds: float) -> bool:
        """See `ReplyCache.renew`."""
        now = self._clock.monotonic()
        with self._lock:
            held = self._claims.get(key)
            if held is None or held[0] != token:
                return False
            self._claims[key] = (token, now + seconds)
            return True

    async def release(self, key: str, token: str) -> None:
        """See `ReplyCache.release`."""
        with self._lock:
            self._give_back(key, token)

    async def invalidate(self, pattern: str) -> int:
        """See `ReplyCache.invalidate`."""
        with self._lock:
            self._invalidations.note(pattern)
            return self._shelf.invalidate(pattern)

    async def clear(self) -> int:
        """See `ReplyCache.clear`."""
        with self._lock:
            self._invalidations.note("*")
            return self._shelf.clear()

    def resize(self, most_entries: int, most_bytes: int) -> None:
        """Change the bounds; what fits stays."""
        with self._lock:
            self._shelf.resize(most_entries, most_bytes)

    def figures(self) -> CacheFigures:
        """See `ReplyCache.figures`."""
        with self._lock:
            return self._counts.figures(self._shelf)

    async def aclose(self) -> None:
        """See `ReplyCache.aclose`."""
        self.resize(0, 0)

    def _claim(self, key: str, now: float, seconds: float) -> str | None:
        held = self._claims.get(key)
        if held is not None and now < held[1]:
            return None
        if len(self._claims) >= self._many:
            self._claims = {name: one for name, one in self._claims.items() if now < one[1]}
            self._many = max(_MANY_CLAIMS, 2 * len(self._claims))
        token = f"{next(self._numbers)}"
        self._claims[key] = (token, now + seconds)
        return token

    def _give_back(self, key: str, token: str) -> None:
        held = self._claims.get(key)
        if held is not None and held[0] == token:
            del self._claims[key]
