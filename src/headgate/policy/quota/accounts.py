"""The books of one domain: what is held of each limit, and whether it may serve.

Everything held is either in a bucket, which is released at its instant, or in flight. The sum of both
is `used`, and `used` never exceeds a limit but by what a call used beyond its estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from headgate.core.quota import Costs, Kind, Limit, Mode
from headgate.policy.quota.pacing import Pace
from headgate.policy.quota.price import price
from headgate.policy.quota.windows import SKEW, expiry

__all__ = ["CLOSED", "OPEN", "Account", "Flights", "room_class"]

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
        "_days", "_tokens", "buckets", "canary", "early", "last", "limits", "paced", "paces", "place",
        "resting", "shut", "testing", "used",
    )  # fmt: skip

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits: tuple[Limit, ...] = ()
        self.used: list[int] = []
        self.buckets: list[dict[int, int]] = []
        self.paces: dict[int, Pace] = {}  # of the limits that are paced
        self.paced = 0  # none of the paced limits lets a call go before this instant; 0: none is paced
        self._days: tuple[int, ...] = ()  # which limits are of calendar days
        self._tokens: tuple[bool, ...] = ()  # of each limit, whether it counts tokens
        self.early: tuple[bool, ...] = ()  # of each limit, whether a charge goes into a bucket at once
        for limit in limits:
            self.add(limit)
        self.resting = 0  # no call before this instant
        self.shut = False  # no key that may serve
        self.canary = False  # the next call is a test
        self.testing: str | None = None  # reservation of the test under way
        self.last = 0  # order of its last grant
        self.place = CLOSED  # class under which the index holds it

    def add(self, limit: Limit) -> None:
        """One limit more, of which nothing is used."""
        if limit.kind is Kind.CALENDAR:
            self._days += (len(self.limits),)
        self._tokens += (limit.counts.is_tokens,)
        self.early += (limit.kind is not Kind.CONCURRENT and limit.mode is Mode.EARLY,)
        self.limits += (limit,)
        self.used.append(0)
        self.buckets.append({})

    def keep(self, size: int) -> None:
        """Forget all limits but the first so many, and what is held of them."""
        self.limits = self.limits[:size]
        self._days = tuple(number for number in self._days if number < size)
        self._tokens, self.early = self._tokens[:size], self.early[:size]
        self.paces = {number: pace for number, pace in self.paces.items() if number < size}
        del self.used[size:]
        del self.buckets[size:]

    def left(self) -> tuple[int, ...]:
        """What is left of each calendar limit."""
        if not self._days:
            return ()
        return tuple([max(0, self.limits[n].amount - self.used[n]) for n in self._days])

    def closed(self, now: int) -> bool:
        """Whether it may serve nothing at all."""
        held_back = self.resting > now or self.paced > now
        return self.shut or held_back or self.testing is not None

    def fits(self, costs: Costs, now: int) -> bool:
        """Whether every limit has room for a call."""
        if self.closed(now):
            return False
        held = self.used
        for number, limit in enumerate(self.limits):  # cheaper than a strict `zip`, here and below
            if held[number] + costs[limit.counts] > limit.amount:
                return False
        return not self.paces or self.pace_at(costs) <= now

    def pace_at(self, costs: Costs) -> int:
        """When the paced limits let a call go as they are; 0: none is paced."""
        at, limits = 0, self.limits
        for number, pace in self.paces.items():
            at = max(at, pace.opens(limits[number], costs[limits[number].counts]))
        return at

    def pace_chance(self, costs: Costs, at: int, name: str | None) -> tuple[int, str | None]:
        """No later than when the paced limits let a call go, the last of them, or `at` and its name."""
        for number, pace in self.paces.items():
            limit = self.limits[number]
            chance = min(pace.opens(limit, costs[limit.counts]), pace.due)  # until it is eased
            if chance > at:
                at, name = chance, limit.name
        return at, name

    def pace_out(self) -> bool:
        """Calls were let go, or the paces changed. Whether that changed when the next may go."""
        before, self.paced = self.paced, 0
        for number, pace in self.paces.items():
            self.paced = max(1, self.paced, pace.opens(self.limits[number], 1))
        return self.paced != before

    def price(self, costs: Costs) -> int:
        """What a call costs here: dearer the fuller the limits are."""
        return price(costs, self.limits, self.used)

    def room(self, now: int) -> int:
        """Class of the headroom of its tightest token limit; CLOSED if anything holds it back."""
        if self.closed(now):
            return CLOSED
        held, tokens, tightest = self.used, self._tokens, None
        for number, limit in enumerate(self.limits):
            left = limit.amount - held[number]
            if left < 1:
                return CLOSED
            if tokens[number] and (tightest is None or left < tightest):
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

    def room_at(self, costs: Costs, flights: Flights) -> tuple[int, str | None] | None:
        """When a call fits if nobody does anything, and the limit that says so; None: never."""
        at, name = flights.now, None
        if self.resting > at:
            at, name = self.resting, "rest"
        if self.testing is not None:
            at, name = max(at, flights.tested(self.testing)), "rest"
        for number, limit in enumerate(self.limits):
            need = costs[limit.counts]
            if need > limit.amount:
                return None
            missing = self.used[number] + need - limit.amount
            free = self._free_at(number, missing, flights) if missing > 0 else 0
            if free > at:
                at, name = free, limit.name
        return self.pace_chance(costs, at, name) if self.paces else (at, name)

    def _free_at(self, number: int, missing: int, flights: Flights) -> int:
        """When so much is released; where calls in flight hold it, no later than that."""
        limit, buckets = self.limits[number], self.buckets[number]
        flight = flights.free_at(limit)
        for expires in sorted(buckets):
            missing -= buckets[expires]
            if missing <= 0:
                return expires if flight is None else min(expires, flight)
        return flights.now if flight is None else flight


class Flights(NamedTuple):
    """When what is in flight gets loose by itself.

    Which domain the reservation that lapses first is with is not asked: an earlier instant than the
    right one costs an ask too many, a later one costs capacity.

    Attributes:
        now: the ledger's.
        lapse: when the first reservation of the group lapses; None: there is none.
        resets: where days end.
        tested: when the reservation of a test lapses, by its id.
    """

    now: int
    lapse: int | None
    resets: Sequence[int]
    tested: Callable[[str], int]

    def free_at(self, limit: Limit) -> int | None:
        """When a limit gets anything back that is in flight; None: nothing of it can be."""
        if self.lapse is None:
            return None
        if limit.kind is Kind.CONCURRENT:
            return self.lapse
        if limit.mode is Mode.EARLY:
            return None
        return expiry(limit, self.lapse, self.resets, counted_by=SKEW)
