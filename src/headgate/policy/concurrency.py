"""How many calls a model bears at once, learned from overload alone. Pure.

There is no limit until the upstream says that it has too much. Then it is a share of what was under way
(multiplicative decrease), grows by one for each round of answers while it is used up (additive
increase), and is forgotten once it has not been needed for long.

Latency is no signal here. Gradient methods (Netflix concurrency-limits, Envoy's adaptive concurrency)
take a longer round trip for a queue; the round trip of a generation follows the length of its answer,
so they would throttle long answers and take fast errors for health (Netflix reports 137 and 176).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Concurrency", "ConcurrencyRules", "Flight"]


@dataclass(frozen=True, slots=True)
class ConcurrencyRules:
    """How a limit moves.

    Attributes:
        decrease: share of what was under way that is left after an overload; 0.7 as in CUBIC
            (RFC 9438, section 4.6).
        least: no limit is below it.
        forget_seconds: after which a limit that was not reached is forgotten.
    """

    decrease: float = 0.7
    least: int = 1
    forget_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.decrease < 1 or self.least < 1 or self.forget_seconds <= 0:
            raise ValueError(
                f"concurrency needs 0 < decrease < 1, least >= 1 and forget_seconds > 0; got {self}"
            )


Flight = int
"""The number of a call under way. Hand it back with `succeeded`, `overloaded` or `ended`, once."""


class Concurrency:
    """The limit of one upstream. It counts; who enforces it has places. Not locked."""

    def __init__(self, rules: ConcurrencyRules = ConcurrencyRules()) -> None:
        self._rules = rules
        self._exact: float | None = None
        self._numbers = 0
        self._decreased_at = 0  # number of the last flight that left before the last decrease
        self._full_at = 0  # number of the last flight with which the limit was reached
        self._needed_at = 0.0
        self.in_flight = 0

    @property
    def limit(self) -> int | None:
        """Calls at once; None: no limit."""
        return None if self._exact is None else int(self._exact)

    def begin(self, now: float) -> Flight:
        """A call is about to be sent."""
        self._numbers += 1
        self.in_flight += 1
        if self._exact is not None:
            if self.in_flight >= int(self._exact):
                self._full_at, self._needed_at = self._numbers, now
            self._forget_if_unused(now)
        return self._numbers

    def succeeded(self, flight: Flight, now: float) -> None:
        """It was answered."""
        self.in_flight -= 1
        if self._exact is None:
            return
        if self._decreased_at < flight <= self._full_at:  # it was used up meanwhile
            self._exact += 1 / self._exact
        self._forget_if_unused(now)

    def overloaded(self, flight: Flight, now: float) -> None:
        """The upstream had too much. Refusals of calls that left before the last decrease are still
        the same event: thirty answers to one burst lower the limit once."""
        under_way = self.in_flight
        self.in_flight -= 1
        if flight <= self._decreased_at:
            return
        base = float(under_way) if self._exact is None else min(self._exact, under_way)
        self._exact = max(float(self._rules.least), base * self._rules.decrease)
        self._decreased_at = self._numbers
        self._needed_at = now

    def ended(self, flight: Flight) -> None:  # noqa: ARG002 - every flight is handed back alike
        """It ended in a way that says nothing about load."""
        self.in_flight -= 1

    def _forget_if_unused(self, now: float) -> None:
        if now - self._needed_at >= self._rules.forget_seconds:
            self._exact = None
