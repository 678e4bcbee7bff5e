"""How many extra sends a stream of calls may cause, so that an outage is not amplified. Pure.

Each layer that tries three times triples the load on an upstream that is down, and keeps it down. So
extra sends are held to a share of the calls of the last two minutes, plus a small floor that lets a
quiet process try again too (Google, "Site Reliability Engineering", chapter 21: 10 % of a client's
requests; gRPC proposal A6). Calls count when they begin: generations last longer than the windows of
seconds that are common elsewhere, and would not have ended in time to be counted (go-zero report 5011).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SPAN", "BudgetRules", "RetryBudget"]

SPAN = 120.0
"""Seconds that are remembered, to one part of them."""

PARTS = 12
"""Counts are kept in so many parts of the span. So between 110 and 120 seconds are covered."""

_EPSILON = 1e-9  # share × calls is a float: 0.1 × 30 must allow 3


@dataclass(frozen=True, slots=True)
class BudgetRules:
    """How much is allowed.

    Attributes:
        share: extra sends per call. At the number of extra tries of a call it holds nothing back.
        floor: extra sends that are allowed whatever the number of calls.
    """

    share: float = 0.2
    floor: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.share < float("inf") or self.floor < 0:
            raise ValueError(f"a retry budget needs share >= 0 and floor >= 0; got {self}")


class RetryBudget:
    """The budget of one upstream. Not locked.

    At any instant: extra sends of the span <= share × calls of the span + floor.
    """

    def __init__(self, rules: BudgetRules = BudgetRules()) -> None:
        self._rules = rules
        self._calls = [0] * PARTS
        self._extras = [0] * PARTS
        self._part = 0  # number of the newest part, counted from the origin of time
        self._all_calls = 0
        self._all_extras = 0

    def called(self, now: float) -> None:
        """A call begins."""
        self._move(now)
        self._calls[self._part % PARTS] += 1
        self._all_calls += 1

    def spend(self, now: float) -> bool:
        """Whether an extra send is allowed; if so, it is counted."""
        self._move(now)
        if self._all_extras + 1 > self._rules.share * self._all_calls + self._rules.floor + _EPSILON:
            return False
        self._extras[self._part % PARTS] += 1
        self._all_extras += 1
        return True

    def _move(self, now: float) -> None:
        """Forget what has left the span."""
        part = int(now // (SPAN / PARTS))
        if part <= self._part:  # a clock that lagged behind another thread's costs no count
            return
        for number in range(max(self._part + 1, part - PARTS + 1), part + 1):
            place = number % PARTS
            self._all_calls -= self._calls[place]
            self._all_extras -= self._extras[place]
            self._calls[place] = self._extras[place] = 0
        self._part = part
