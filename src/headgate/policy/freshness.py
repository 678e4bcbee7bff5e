"""What may be answered from memory: bounded, for a time, and never across a write. Pure.

An entry leaves when its time is up, when room is needed (the one used longest ago goes), or when one
of its tags is spoiled by a write. An answer that was asked for before a write and came after it is not
kept: it may show what was before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Freshness"]

V = TypeVar("V")

_MOST_SPOILED = 4096  # tags remembered; beyond, everything begun before is distrusted


class _Kept(NamedTuple, Generic[V]):
    value: V
    until: float
    tags: tuple[str, ...]


class Freshness(Generic[V]):
    """Kept answers. Not locked: whoever shares it between threads locks around it.

    Args:
        most: entries at the most.

    Attributes:
        hits, misses, evicted, spoiled: counts since it was made.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"a cache needs room for one entry at least; got {most}")
        self._most = most
        self._kept: OrderedDict[str, _Kept[V]] = OrderedDict()
        self._by_tag: dict[str, set[str]] = {}
        self._turn = 0  # counts writes
        self._spoiled_at: dict[str, int] = {}
        self._distrusted = 0
        self.hits = self.misses = self.evicted = self.spoiled = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str, now: float) -> V | None:
        """The answer, if it is there and still fresh."""
        kept = self._kept.get(key)
        if kept is not None and now >= kept.until:
            self._drop(key)
            kept = None
        if kept is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return kept.value

    def begin(self) -> int:
        """To be called before an answer is asked for; `put` wants what it returns."""
        return self._turn

    def put(
        self, key: str, value: V, tags: Iterable[str], *, ttl: float, now: float, begun: int
    ) -> bool:
        """Keep an answer for `ttl` seconds. Whether it was: not if a write came in between."""
        marks = tuple(tags)
        stale = begun < self._distrusted or any(begun < self._spoiled_at.get(tag, 0) for tag in marks)
        if stale or ttl <= 0:
            return False
        if key in self._kept:
            self._drop(key)
        while len(self._kept) >= self._most:
            self._drop(next(iter(self._kept)))
            self.evicted += 1
        self._kept[key] = _Kept(value, now + ttl, marks)
        for tag in marks:
            self._by_tag.setdefault(tag, set()).add(key)
        return True

    def spoil(self, tags: Iterable[str]) -> int:
        """A write changed what these tags stand for. How many entries went."""
        self._turn += 1
        gone = 0
        for tag in tags:
            if len(self._spoiled_at) >= _MOST_SPOILED:
                self._spoiled_at.clear()
                self._distrusted = self._turn
            self._spoiled_at[tag] = self._turn
            for key in list(self._by_tag.get(tag, ())):
                self._drop(key)
                gone += 1
        self.spoiled += gone
        return gone

    def clear(self) -> None:
        """Forget everything, and distrust what is under way."""
        self._turn += 1
        self._distrusted = self._turn
        self._kept.clear()
        self._by_tag.clear()

    def _drop(self, key: str) -> None:
        for tag in self._kept.pop(key).tags:
            keys = self._by_tag[tag]
            keys.discard(key)
            if not keys:
                del self._by_tag[tag]
