"""What has been said need not be said again and again. Pure: time is an argument, in seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["Repeats"]


class Repeats:
    """Lets the first few of a kind through, then as many again in so many seconds. Not locked.

    Args:
        seconds: how long the like of something is left out after `burst` of it were let through.
        most: how many kinds are remembered; the one heard longest ago makes room.
    """

    def __init__(self, seconds: float = 60.0, most: int = 10_000, burst: int = 1) -> None:
        self._seconds = seconds
        self._most = most
        self._burst = burst
        self._heard: OrderedDict[Hashable, tuple[float, int, int]] = OrderedDict()

    def hear(self, kind: Hashable, now: float) -> int | None:
        """How many like it were left out since one was let through; None: leave this out too."""
        until, through, left_out = self._heard.pop(kind, (float("-inf"), 0, 0))
        if now >= until:
            until, through = now + self._seconds, 0
        told = left_out if through < self._burst else None
        self._heard[kind] = (
            (until, through + 1, 0) if told is not None else (until, through, left_out + 1)
        )
        if len(self._heard) > self._most:
            self._heard.popitem(last=False)
        return told
