"""What calls used and how they went, in memory that does not grow with their number. Pure.

Rows are folded into buckets: minutes first, then hours, then days. A bucket holds sums, failures by
type and a sketch of latencies; two buckets merge into the bucket of both, so a range of any length
is read by merging a bounded number of them. Which bucket is the oldest is told by the order in which
they were begun: a wall clock that jumps neither empties the memory nor lets it grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

from headgate.core.usage import CANCELLED, SUCCESS, UsageRow, UsageSum
from headgate.policy.sketch import Sketch

__all__ = ["DAY", "HOUR", "MINUTE", "OTHER", "Analytics", "Bucket", "LastMinute", "Series"]

MINUTE, HOUR, DAY = 60, 3600, 86_400
"""Spans of buckets, in seconds."""

_SPANS = (MINUTE, HOUR, DAY)
_MINUTES = 120
_HOURS = 48
_MOST_DAYS = 400

_MOST_NAMES = 200
"""Models or callers that are told apart; callers may name any model."""

_MOST_ERRORS = 64
"""Types of failures that are told apart."""

OTHER = "other"
"""Under which everything beyond these bounds is counted."""


@dataclass(slots=True, repr=False, eq=False)
class Bucket:
    """Sums over rows. Seconds, tokens and dollars × 10⁹ as in `UsageSum`.

    Attributes:
        failures: requests that failed, by the word for it.
        latency: milliseconds of requests that an upstream answered; those from a cache, and those that
            failed, say nothing about it.
        peak_requests, peak_tokens: of the busiest minute in it.
        least, most: seconds of the shortest and the longest request; `least` is infinite without one.
        lookups: in the reply cache.
        touched: the monotonic second of the last row.
    """

    attempts: int = 0
    requests: int = 0
    successes: int = 0
    cancelled: int = 0
    cached: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    cached_cost: int = 0
    output_cost: int = 0
    reasoning_cost: int = 0
    saved: int = 0
    unpriced: int = 0
    estimated: int = 0
    lookups: int = 0
    seconds: float = 0.0
    least: float = math.inf
    most: float = 0.0
    touched: float = -math.inf
    peak_requests: int = 0
    peak_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    latency: Sketch = field(default_factory=Sketch)

    def __repr__(self) -> str:
        return f"Bucket({self.requests} requests, {len(self.failures)} types of failures)"

    @property
    def tokens(self) -> int:
        """Of prompts and replies."""
        return self.input_tokens + self.output_tokens

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return self.requests - self.successes

    def add(self, row: UsageRow) -> None:
        """Count a row."""
        if row.attempt:
            self.attempts += 1
            self.input_tokens += row.input_tokens
            self.cached_tokens += row.cached_tokens
            self.output_tokens += row.output_tokens
            self.reasoning_tokens += row.reasoning_tokens
            self.estimated += row.estimated
            if row.cost is None:
                self.unpriced += 1
            else:
                self.cost += row.cost
                self.cached_cost += row.cached_cost
                self.output_cost += row.output_cost
                self.reasoning_cost += row.reasoning_cost
        if row.call:
            self._end(row)

    def _end(self, row: UsageRow) -> None:
        if row.call == CANCELLED:
            self.cancelled += 1
            return
        self.requests += 1
        self.seconds += row.call_seconds
        self.least = min(self.least, row.call_seconds)
        self.most = max(self.most, row.call_seconds)
        self.lookups += row.looked_up
        if row.from_cache:
            self.cached += 1
            self.saved += row.saved
        if row.call == SUCCESS:
            self.successes += 1
            if not row.from_cache:
                self.latency.add(max(0.0, row.call_seconds) * 1000)
            return
        known = row.call in self.failures or len(self.failures) < _MOST_ERRORS
        word = row.call if known else OTHER
        self.failures[word] = self.failures.get(word, 0) + 1

    def merge(self, other: Bucket) -> None:
        """Add all that another has counted; it may be of a shorter span."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self.touched = max(self.touched, other.touched)
        self.peak_requests = max(self.peak_requests, other.peak_requests)
        self.peak_tokens = max(self.peak_tokens, other.peak_tokens)
        for word, count in other.failures.items():
            known = word in self.failures or len(self.failures) < _MOST_ERRORS
            self.failures[word if known else OTHER] = (
                self.failures.get(word if known else OTHER, 0) + count
            )
        self.latency.merge(other.latency)

    def take_away(self, part: Bucket) -> None:
        """Leave what is not of a part; only sums can be told of what is left."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) - getattr(part, name))
        self.seconds = max(0.0, self.seconds - part.seconds)

    def crest(self) -> None:
        """The bucket is that of one minute: it is its own busiest."""
        self.peak_requests = max(self.peak_requests, self.requests)
        self.peak_tokens = max(self.peak_tokens, self.tokens)

    def sums(self, name: str = "", start: float = 0.0) -> UsageSum:
        """In the ledger's words."""
        found = {what: getattr(self, what) for what in _SUMMED if what in _IN_A_SUM}
        return UsageSum(name, start, seconds=self.seconds, **found)


_SUMMED = tuple(one.name for one in fields(Bucket) if one.type == "int" and "peak" not in one.name)
_IN_A_SUM = frozenset(UsageSum.__struct_fields__)


class Series:
    """The buckets of one name: minutes, hours and days, each level as many as it may keep."""

    __slots__ = ("_gone", "_levels", "_most")

    def __init__(self, days: int = _MOST_DAYS, *, minutes: int = _MINUTES, hours: int = _HOURS) -> None:
        self._levels: tuple[dict[int, Bucket], ...] = ({}, {}, {})
        self._most = (minutes, hours, days)
        self._gone = Bucket()

    def add(self, row: UsageRow, now: float) -> None:
        """Count a row; `now` is in monotonic seconds."""
        minutes = self._levels[0]
        minute = int(row.at // MINUTE)
        bucket = minutes.get(minute)
        if bucket is None:
            bucket = minutes[minute] = Bucket()
            if len(minutes) > self._most[0]:
                self._roll()
        bucket.add(row)
        bucket.touched = now

    def _roll(self) -> None:
        """Move the oldest bucket of a level that is full into the next, which is wider."""
        for level, wider in ((0, 1), (1, 2)):
            buckets, target = self._levels[level], self._levels[wider]
            while len(buckets) > self._most[level]:
                number = next(iter(buckets))
                oldest = buckets.pop(number)
                if level == 0:
                    oldest.crest()
                place = number * _SPANS[level] // _SPANS[wider]
                target.setdefault(place, Bucket()).merge(oldest)
        days = self._levels[2]
        while len(days) > self._most[2]:
            self._gone.merge(days.pop(next(iter(days))))

    def forget(self, untouched_since: float) -> None:
        """Drop buckets whose last row came before a monotonic second."""
        for buckets in self._levels:
            for number in [key for key, one in buckets.items() if one.touched < untouched_since]:
                self._gone.merge(buckets.pop(number))

    def buckets(self, start: float, end: float) -> Iterator[tuple[float, int, Bucket]]:
        """Where a bucket begins, its span and itself, for each that begins in [start, end).

        `start` is taken back to the border of a bucket: a range is told to the minute as far back as
        there are minutes, and to the hour or day before.
        """
        for span, buckets in zip(_SPANS, self._levels, strict=True):
            first = start // span * span
            for number, bucket in buckets.items():
                if first <= number * span < end:
                    if span == MINUTE:
                        bucket.crest()
                    yield float(number * span), span, bucket

    def whole(self) -> Bucket:
        """All since the beginning, with what was dropped since."""
        found = Bucket()
        found.merge(self._gone)
        for span, buckets in zip(_SPANS, self._levels, strict=True):
            for bucket in buckets.values():
                if span == MINUTE:
                    bucket.crest()
                found.merge(bucket)
        return found

    def between(self, start: float, end: float) -> Bucket:
        """All of a range in one bucket."""
        found = Bucket()
        for _, _, bucket in self.buckets(start, end):
            found.merge(bucket)
        return found

    def periods(self, span: int, start: float, end: float) -> dict[float, Bucket]:
        """By hours or days, in their order; what stands as a whole day is told with its first hour."""
        found: dict[float, Bucket] = {}
        for begin, _, bucket in sorted(self.buckets(start, end), key=lambda one: one[0]):
            found.setdefault(begin // span * span, Bucket()).merge(bucket)
        return found


class Analytics:
    """Everything that is remembered of calls: by model, and by caller where one is named.

    Args:
        days: how many days of buckets are kept at the most.
    """

    def __init__(self, days: int = _MOST_DAYS) -> None:
        self._days = days
        self.models: dict[str, Series] = {}
        self.callers: dict[str, Series] = {}

    def add(self, row: UsageRow, now: float) -> None:
        """Count a row; `now` is in monotonic seconds."""
        self._named(self.models, row.model).add(row, now)
        if row.caller:
            self._named(self.callers, row.caller).add(row, now)

    def _named(self, found: dict[str, Series], name: str) -> Series:
        series = found.get(name)
        if series is None:
            if len(found) >= _MOST_NAMES:
                name = OTHER
            series = found.setdefault(name, Series(self._days))
        return series

    def forget(self, untouched_since: float) -> None:
        """Drop what was not touched since a monotonic second; totals since the beginning stay."""
        for series in self._everything():
            series.forget(untouched_since)

    def _everything(self) -> Iterable[Series]:
        return [*self.models.values(), *self.callers.values()]


class LastMinute:
    """The last sixty seconds, a slot for each. Times are monotonic seconds."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots = [(-1, 0, 0, 0, 0.0)] * MINUTE

    def add(self, at: float, *, failed: bool, tokens: int, seconds: float) -> None:
        """A request that ended."""
        second = int(at)
        found, requests, failures, used, took = self._slots[second % MINUTE]
        if found > second:
            return  # told a minute late
        if found != second:
            requests, failures, used, took = 0, 0, 0, 0.0
        self._slots[second % MINUTE] = (
            second, requests + 1, failures + failed, used + tokens, took + seconds,
        )  # fmt: skip

    def read(self, now: float) -> tuple[int, int, int, float]:
        """Requests, failures, tokens, and the seconds that the requests took together."""
        last = int(now)
        alive = [slot for slot in self._slots if last - MINUTE < slot[0] <= last]
        return (
            sum(slot[1] for slot in alive),
            sum(slot[2] for slot in alive),
            sum(slot[3] for slot in alive),
            sum(slot[4] for slot in alive),
        )
