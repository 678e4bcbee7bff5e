"""Answers in memory: bounded by number and by bytes, the one used longest ago goes first. Pure.

Entries are encoded answers, not objects: their size is known exactly, a million of them are no work for
the garbage collector, and what one caller does to its copy changes no other's.

Nothing here walks over all entries but `invalidate` of the nameless namespace. Those whose time is up
are found by the minute in which it was up, a few at a time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappop, heappush

from msgspec import Struct

__all__ = ["LARGEST_SHARE", "LONGEST", "OVERHEAD", "Invalidations", "ReplyShelf", "Shelved", "matches"]

OVERHEAD = 640
"""Bytes of memory an entry takes beyond its value: its key (64 characters), the objects, its places in
the tables. With CPython 3.11 between 394 and 591 were measured, more with a namespace, and more just
after a table has grown; `tests/unit/test_reply_cache.py` measures again in the small, `python -m
bench.micro --only cache` with 10⁶ entries."""

LARGEST_SHARE = 4
"""An answer may take this part of all the room: one quarter. Larger ones are not kept."""

LONGEST = 315_360_000.0
"""Seconds, ten years: nothing is kept longer."""

_SLOT = 60.0
"""Seconds of one slot of the index by expiry."""

_AT_ONCE = 8
"""Entries whose time is up that leave with one write or one look in vain."""

_REMEMBERED = 256
"""Invalidations that are remembered. What was asked for before the oldest of them is not kept."""


class Shelved(Struct, gc=False):
    """An entry. Times are seconds of the clock of whoever keeps the shelf.

    Attributes:
        value: the encoded answer.
        made: when the answer came.
        until: when it is to leave.
        stamp: what the shelf's keeper knows it by.
    """

    value: bytes
    made: float
    until: float
    namespace: str
    stamp: int


class ReplyShelf:
    """The entries. Not locked: whoever shares it between threads locks around it.

    Args:
        most_entries, most_bytes: its bounds; 0 of either keeps nothing.

    Attributes:
        bytes: what the entries take.
        expired, evicted: entries that left, since it was made.
    """

    def __init__(self, most_entries: int, most_bytes: int) -> None:
        self.most_entries = most_entries
        self.most_bytes = most_bytes
        self.bytes = self.expired = self.evicted = 0
        self._entries: OrderedDict[str, Shelved] = OrderedDict()
        self._named: dict[str, set[str]] = {}  # keys by namespace; those without one are not listed
        self._slots: list[int] = []  # a heap
        self._ending: dict[int, set[str]] = {}  # keys by the slot in which their time is up

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> Shelved | None:
        """The entry, if its time is not up; it counts as used."""
        entry = self._entries.get(key)
        if entry is not None and now < entry.until:
            self._entries.move_to_end(key)
            return entry
        if entry is not None:
            self._expire(key)
        self._reclaim(now)
        return None

    def put(
        self,
        key: str,
        value: bytes,
        *,
        made: float,
        until: float,
        now: float,
        namespace: str = "",
        stamp: int = 0,
    ) -> bool:
        """Keep a value in the place of the one before it. Whether there is room for it at all."""
        self.drop(key)
        self._reclaim(now)
        size = _size(key, value)
        if until <= now or not self.most_entries or size * LARGEST_SHARE > self.most_bytes:
            return False
        until = min(until, made + LONGEST)
        self._entries[key] = Shelved(value, made, until, namespace, stamp)
        self.bytes += size
        slot = int(until // _SLOT)
        keys = self._ending.get(slot)
        if keys is None:
            keys = self._ending[slot] = set()
            heappush(self._slots, slot)
        keys.add(key)
        if namespace:
            self._named.setdefault(namespace, set()).add(key)
        self._evict()
        return True

    def drop(self, key: str) -> bool:
        """Forget an entry. Whether there was one."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self.bytes -= _size(key, entry.value)
        self._ending[int(entry.until // _SLOT)].discard(key)
        if entry.namespace:
            keys = self._named[entry.namespace]
            keys.discard(key)
            if not keys:
                del self._named[entry.namespace]
        return True

    def invalidate(self, pattern: str) -> int:
        """Forget the entries of namespaces that match. How many there were."""
        found = [key for name, keys in self._named.items() if matches(pattern, name) for key in keys]
        if matches(pattern, ""):
            found += [key for key, entry in self._entries.items() if not entry.namespace]
        return sum(self.drop(key) for key in found)

    def under(self, pattern: str) -> list[str]:
        """The keys in namespaces that match; those without one are not listed."""
        return [key for name, keys in self._named.items() if matches(pattern, name) for key in keys]

    def clear(self) -> int:
        """Forget everything. How many there were."""
        gone = len(self._entries)
        for table in (self._entries, self._named, self._ending, self._slots):
            table.clear()
        self.bytes = 0
        return gone

    def resize(self, most_entries: int, most_bytes: int) -> None:
        """Change the bounds; what fits stays, those used last first."""
        self.most_entries, self.most_bytes = most_entries, most_bytes
        if not most_entries or not most_bytes:
            self.clear()
        self._evict()

    def _evict(self) -> None:
        entries = self._entries
        while entries and (len(entries) > self.most_entries or self.bytes > self.most_bytes):
            self.drop(next(iter(entries)))
            self.evicted += 1

    def _expire(self, key: str) -> None:
        self.drop(key)
        self.expired += 1

    def _reclaim(self, now: float) -> None:
        """Let some leave whose time is up: at most so many, so that no call pays for all."""
        past, left = int(now // _SLOT), _AT_ONCE
        while left and self._slots and self._slots[0] < past:
            keys = self._ending[self._slots[0]]
            while keys and left:
                key = keys.pop()
                self._expire(key)
                left -= 1
            if not keys:
                del self._ending[heappop(self._slots)]


class Invalidations:
    """What was invalidated lately, so that an answer that was asked for before is not kept after.

    Attributes:
        turn: counts them; the mark of a moment.
    """

    def __init__(self) -> None:
        self.turn = 1
        self._past: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED)

    def note(self, pattern: str) -> None:
        """The namespaces that match are invalidated now."""
        self.turn += 1
        self._past.append((self.turn, pattern))

    def since(self, mark: int, namespace: str) -> bool:
        """Whether a namespace was invalidated after a mark, as far as is remembered; else: yes."""
        if mark >= self.turn:
            return False
        if len(self._past) == _REMEMBERED and mark < self._past[0][0] - 1:
            return True
        return any(turn > mark and matches(pattern, namespace) for turn, pattern in self._past)


def _size(key: str, value: bytes) -> int:
    size = len(value) + OVERHEAD
    return size if len(key) <= 64 else size + len(key.encode()) - 64  # a digest needs no second look


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern, in which `*` stands for anything. No pattern takes long."""
    first, *others = pattern.split("*")
    if not others:
        return name == first
    *middle, last = others
    at, end = len(first), len(name) - len(last)
    if end < at or not name.startswith(first) or not name.endswith(last):
        return False
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
