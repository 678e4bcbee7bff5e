"""What happened before: ids claimed once, for as long as they can come again. Pure.

A claim is made before its effect and confirmed after it, or given back if there was none: so a message
that is delivered twice, at once or later, has its effect once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

__all__ = ["Seen"]


class Seen:
    """Claimed ids. Not locked.

    Args:
        kept: seconds an id is remembered.
        most: ids at the most. Beyond, those go that are older than `replayable` seconds: what is signed
            with its time cannot come again after that. If there are none, new ones are refused.
        replayable: see `most`.
    """

    def __init__(self, kept: float, *, most: int, replayable: float) -> None:
        self._kept = kept
        self._most = most
        self._replayable = replayable
        self._at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._at)

    def claim(self, ids: Iterable[str], now: float) -> bool:
        """Take all of these, or none where one is taken. Raises `OverflowError` when it is full."""
        wanted = tuple(dict.fromkeys(ids))
        self._forget(now, self._kept)
        if any(name in self._at for name in wanted):
            return False
        if len(self._at) + len(wanted) > self._most:
            self._forget(now, self._replayable)
            if len(self._at) + len(wanted) > self._most:
                raise OverflowError("too many messages at once to tell new ones from old")
        for name in wanted:
            self._at[name] = now
        return True

    def give_back(self, ids: Iterable[str]) -> None:
        """There was no effect: they may come again."""
        for name in ids:
            self._at.pop(name, None)

    def _forget(self, now: float, age: float) -> None:
        while self._at:
            oldest = next(iter(self._at))
            if self._at[oldest] > now - age:
                return
            del self._at[oldest]
