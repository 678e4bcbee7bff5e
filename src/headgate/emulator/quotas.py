"""How an upstream counts: four mechanisms and the Pacific day, each exactly as it is defined.

Pure: the time is an argument, in seconds on any clock that never steps back. Amounts are whole
numbers (requests or tokens). `admit` is `room` and `charge` in one step.

| class | admits an amount when |
|---|---|
| FixedWindow | the sum of its window `[phase + k·W, phase + (k+1)·W)` stays within the limit |
| SlidingLog | the sum of the last W seconds `(now - W, now]` stays within the limit |
| TokenBucket | the bucket, which starts full and gains limit / W a second, holds that much |
| SlidingCounter | this window's sum + the last one's, weighted by its share of `(now - W, now]`, does |
| PacificDay | the sum since midnight in California stays within the limit |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import Protocol

from headgate.policy.days import day_start, next_reset

__all__ = ["FixedWindow", "PacificDay", "Quota", "SlidingCounter", "SlidingLog", "TokenBucket", "build"]

_DUST = 1e-9  # what float sums may be off by, relative to the limit


class Quota(Protocol):
    """One counter of one quota."""

    limit: int
    mechanism: str

    def used(self, now: float) -> float:
        """How much of the limit is taken at this moment."""

    def room(self, now: float, amount: int) -> bool:
        """Whether the amount would be admitted now. Changes nothing that counts."""

    def charge(self, now: float, amount: int) -> None:
        """Take the amount, whether there is room or not."""

    def wait(self, now: float, amount: int) -> float:
        """Seconds until there is room if nobody else comes; 0 if there is, `inf` if never."""


class _Windowed(ABC):
    """Counts per window; the subclass says where windows begin and end."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._start = -math.inf
        self._sum = 0

    @abstractmethod
    def bounds(self, now: float) -> tuple[float, float]:
        """When the window that `now` lies in begins and ends."""

    def used(self, now: float) -> float:
        start, _ = self.bounds(now)
        return self._sum if start == self._start else 0

    def room(self, now: float, amount: int) -> bool:
        return self.used(now) + amount <= self.limit

    def charge(self, now: float, amount: int) -> None:
        start, _ = self.bounds(now)
        if start != self._start:
            self._start, self._sum = start, 0
        self._sum += amount

    def wait(self, now: float, amount: int) -> float:
        if self.room(now, amount):
            return 0.0
        return self.bounds(now)[1] - now if amount <= self.limit else math.inf


class FixedWindow(_Windowed):
    """So much per window; windows begin at `phase`, one directly after the other."""

    mechanism = "fixed"

    def __init__(self, limit: int, seconds: float, phase: float = 0.0) -> None:
        super().__init__(limit)
        self._seconds = seconds
        self._phase = phase

    def bounds(self, now: float) -> tuple[float, float]:
        """Begin and end of the window `now` lies in."""
        return window(now, self._seconds, self._phase)


class PacificDay(_Windowed):
    """So much per day, where a day ends at midnight in California.

    `origin` is the Unix time at which `now` is 0.
    """

    mechanism = "midnight"

    def __init__(self, limit: int, origin: float = 0.0) -> None:
        super().__init__(limit)
        self._origin = origin

    def bounds(self, now: float) -> tuple[float, float]:
        """The midnights around `now`."""
        wall = self._origin + now
        return day_start(wall) - self._origin, next_reset(wall) - self._origin


class SlidingLog:
    """So much in the W seconds before any moment: keeps every admission with its time."""

    mechanism = "sliding_log"

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self._seconds = seconds
        self._log: deque[tuple[float, int]] = deque()  # (time it stops counting, amount)
        self._sum = 0

    def used(self, now: float) -> float:
        """The sum of the last W seconds."""
        while self._log and self._log[0][0] <= now:
            self._sum -= self._log.popleft()[1]
        return self._sum

    def room(self, now: float, amount: int) -> bool:
        """Whether the last W seconds and this stay within the limit."""
        return self.used(now) + amount <= self.limit

    def charge(self, now: float, amount: int) -> None:
        """Write the amount down."""
        self._log.append((now + self._seconds, amount))
        self._sum += amount

    def wait(self, now: float, amount: int) -> float:
        """Until enough old entries have left."""
        if self.room(now, amount):
            return 0.0
        excess = self._sum + amount - self.limit
        for leaves, weight in self._log:
            excess -= weight
            if excess <= 0:
                return leaves - now
        return math.inf


class TokenBucket:
    """A bucket of `limit` that starts full and gains `limit / W` a second."""

    mechanism = "token_bucket"

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self._rate = limit / seconds
        self._level = float(limit)
        self._at = -math.inf

    def used(self, now: float) -> float:
        """What is missing from a full bucket."""
        return self.limit - self._fill(now)

    def room(self, now: float, amount: int) -> bool:
        """Whether the bucket holds the amount."""
        return self._fill(now) + _DUST * self.limit >= amount

    def charge(self, now: float, amount: int) -> None:
        """Take the amount out; an empty bucket stays empty."""
        self._level = max(0.0, self._fill(now) - amount)

    def wait(self, now: float, amount: int) -> float:
        """Until the bucket has gained what is missing."""
        if self.room(now, amount):
            return 0.0
        if amount > self.limit or self._rate == 0:
            return math.inf
        return (amount - self._fill(now)) / self._rate

    def _fill(self, now: float) -> float:
        if now > self._at:
            gained = (now - self._at) * self._rate if self._rate else 0.0
            self._level = min(float(self.limit), self._level + gained)
            self._at = now
        return self._level


class SlidingCounter:
    """Two fixed windows that estimate a sliding one: the older fades as the newer passes."""

    mechanism = "sliding_counter"

    def __init__(self, limit: int, seconds: float, phase: float = 0.0) -> None:
        self.limit = limit
        self._seconds = seconds
        self._phase = phase
        self._start = -math.inf
        self._current = 0
        self._previous = 0

    def used(self, now: float) -> float:
        """This window's sum and the fading part of the last one's."""
        self._turn(now)
        return self._current + self._previous * self._fading(now)

    def room(self, now: float, amount: int) -> bool:
        """Whether the estimate and this stay within the limit."""
        return self.used(now) + amount <= self.limit * (1 + _DUST)

    def charge(self, now: float, amount: int) -> None:
        """Count the amount in this window."""
        self._turn(now)
        self._current += amount

    def wait(self, now: float, amount: int) -> float:
        """Until the last window, or this one after its end, has faded enough."""
        if self.room(now, amount):
            return 0.0
        if amount > self.limit:
            return math.inf
        end = self._start + self._seconds
        free = self.limit - amount
        if self._current <= free:  # some of the last window may still count
            return end - self._seconds * (free - self._current) / self._previous - now
        return end + self._seconds * (1 - free / self._current) - now

    def _fading(self, now: float) -> float:
        return 1.0 - (now - self._start) / self._seconds

    def _turn(self, now: float) -> None:
        start, _ = window(now, self._seconds, self._phase)
        if start == self._start:
            return
        adjacent = abs(self._start + self._seconds - start) < self._seconds / 2
        self._previous = self._current if adjacent else 0
        self._start, self._current = start, 0


def window(now: float, seconds: float, phase: float) -> tuple[float, float]:
    """Begin and end of the window of `seconds`, counted from `phase`, that `now` lies in."""
    index = math.floor((now - phase) / seconds)
    # The quotient may round across the edge; the edges themselves decide.
    if phase + (index + 1) * seconds <= now:
        index += 1
    elif phase + index * seconds > now:
        index -= 1
    return phase + index * seconds, phase + (index + 1) * seconds


def build(mechanism: str, limit: int, seconds: float, phase: float = 0.0, origin: float = 0.0) -> Quota:
    """The counter for a mechanism's name.

    `phase` counts from the full minute of Unix time, `origin` is the Unix time at which `now` is 0.
    """
    offset = (phase - origin) % seconds
    match mechanism:
        case "fixed":
            return FixedWindow(limit, seconds, offset)
        case "sliding_log":
            return SlidingLog(limit, seconds)
        case "token_bucket":
            return TokenBucket(limit, seconds)
        case "sliding_counter":
            return SlidingCounter(limit, seconds, offset)
        case "midnight":
            return PacificDay(limit, origin)
        case _:
            raise ValueError(f"no mechanism is called {mechanism!r}")
