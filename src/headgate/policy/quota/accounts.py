"""The books of one domain: what is held of each limit, and whether it may serve.

Everything held is either in a bucket, which is released at its instant, or in flight. The sum of both
is `used`, and `used` never exceeds a limit but by what a call used beyond its estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from headgate.core.quota import Costs, Limit
from headgate.policy.quota.price import price

__all__ = ["CLOSED", "OPEN", "Account", "room_class"]

CLOSED = -1
"""Class of a domain that can serve nothing."""

OPEN = 4096
"""Class of a domain without token limits: above that of any number of tokens."""


def room_class(tokens: int) -> int:
    """Headroom in quarter octaves: a number of class c is at least as large as any of class c − 1.

    Coarse on purpose: a domain changes its place in the index only when its headroom changes class.
    """
    mantissa, exponent = math.frexp(tokens)
    return exponent * 4 + int((mantissa - 0.5) * 8)


class Account:
    """One domain. Times are integer milliseconds."""

    __slots__ = (
        "buckets", "canary", "last", "limits", "place", "resting", "shut", "testing", "used",
    )  # fmt: skip

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = tuple(limits)
        self.used = [0] * len(self.limits)
        self.buckets: list[dict[int, int]] = [{} for _ in self.limits]
        self.resting = 0  # no call before this instant
        self.shut = False  # no key that may serve
        self.canary = False  # the next call is a test
        self.testing: str | None = None  # reservation of the test under way
        self.last = 0  # order of its last grant
        self.place = CLOSED  # class under which the index holds it

    def closed(self, now: int) -> bool:
        """Whether it may serve nothing at all."""
        return self.shut or self.resting > now or self.testing is not None

    def fits(self, costs: Costs, now: int) -> bool:
        """Whether every limit has room for a call."""
        if self.closed(now):
            return False
        for limit, used in zip(self.limits, self.used, strict=True):
            if used + costs.get(limit.counts, 0) > limit.amount:
                return False
        return True

    def price(self, costs: Costs) -> int:
        """What a call costs here: dearer the fuller the limits are."""
        return price(
            (costs.get(limit.counts, 0), used, limit.amount)
            for limit, used in zip(self.limits, self.used, strict=True)
        )

    def room(self, now: int) -> int:
        """Class of the headroom of its tightest token limit; CLOSED if anything holds it back."""
        if self.closed(now):
            return CLOSED
        tightest = None
        for limit, used in zip(self.limits, self.used, strict=True):
            left = limit.amount - used
            if left < 1:
                return CLOSED
            if limit.counts.is_tokens and (tightest is None or left < tightest):
                tightest = left
        return OPEN if tightest is None else room_class(tightest)

    def put(self, number: int, expires: int, amount: int) -> bool:
        """Add to a bucket of a limit; whether the bucket is new. `used` is the caller's to change."""
        buckets = self.buckets[number]
        held = buckets.get(expires)
        buckets[expires] = amount if held is None else held + amount
        return held is None

    def take(self, number: int, expires: int, amount: int) -> bool:
        """Take out of a bucket and out of `used`, if the bucket still stands; whether it did."""
        buckets = self.buckets[number]
        if expires not in buckets:
            return False
        buckets[expires] -= amount
        self.used[number] -= amount
        return True

    def release(self, number: int, expires: int) -> None:
        """The bucket's instant has come."""
        self.used[number] -= self.buckets[number].pop(expires, 0)

    def room_at(self, costs: Costs, now: int, lapse: int) -> tuple[int, str | None] | None:
        """When a call fits if nobody else comes, and the limit that says so; None: never.

        Args:
            lapse: when what is in flight has lapsed, at the latest.
        """
        at, name = now, None
        if self.resting > now:
            at, name = self.resting, "rest"
        if self.testing is not None:
            at, name = max(at, lapse), "rest"
        for number, limit in enumerate(self.limits):
            need = costs.get(limit.counts, 0)
            if need > limit.amount:
                return None
            free = self._free_at(number, self.used[number] + need - limit.amount, now, lapse)
            if free > at:
                at, name = free, limit.name
        return at, name

    def _free_at(self, number: int, missing: int, now: int, lapse: int) -> int:
        if missing <= 0:
            return now
        buckets = self.buckets[number]
        for expires in sorted(buckets):
            missing -= buckets[expires]
            if missing <= 0:
                return expires
        return lapse  # what is missing is in flight
