"""When to stop asking an upstream that fails, and how to find out that it is back. Pure.

    closed ──failures in a row──▶ open ──open_seconds──▶ half-open ──successes──▶ closed
                                   ▲────────── one failure ──────────┘

What an attempt did counts only for the spell it was let through in: an answer that was under way when
the breaker opened neither closes it nor keeps it open.

A probe whose fate nobody tells must not shut the breaker for ever: resilience4j had that in its reports
544, 903, 935, 1389 and 1568, after calls that hung, were cancelled or failed in a way it ignored. Here
a probe that has been out for `probe_seconds` no longer counts as out, so another may go. It is not
taken for a failure, because long answers are common; when it comes back after all, it counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

__all__ = ["Breaker", "BreakerRules", "BreakerState", "Pass"]

_A_PROBE_TAKES = 1.0
"""Seconds to suggest where every probe is out and nobody knows when one will be back."""


class BreakerState(StrEnum):
    """What a breaker does with a call."""

    CLOSED = "closed"  # lets it through
    OPEN = "open"  # refuses it
    HALF_OPEN = "half_open"  # lets a few through, to see


# A member of an enum costs as much as a call to look up, and each call asks several times.
_CLOSED, _OPEN, _HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When it changes. The defaults are those accepted as S3-04e and S5-04e.

    Attributes:
        failures: in a row, after which it opens.
        open_seconds: until it lets probes through.
        successes: of probes, after which it closes.
        probes: how many may be out at once.
        probe_seconds: after which a probe that did not come back makes room for another.
    """

    failures: int = 5
    open_seconds: float = 60.0
    successes: int = 2
    probes: int = 3
    probe_seconds: float = 60.0

    def __post_init__(self) -> None:
        whole = min(self.failures, self.successes, self.probes)
        if whole < 1 or self.open_seconds <= 0 or self.probe_seconds <= 0:
            raise ValueError(f"a breaker needs numbers above 0; got {self}")


class Pass(NamedTuple):
    """The right to try once. Hand it back once: with `succeeded`, `failed` or `untouched`."""

    spell: int
    number: int


class Breaker:
    """One breaker. Not locked: whoever shares it between threads locks around it."""

    def __init__(self, rules: BreakerRules = BreakerRules()) -> None:
        self._rules = rules
        self._state = _CLOSED
        self._spell = 0  # counts changes of state
        self._failures = 0
        self._successes = 0
        self._numbers = 0
        self._out: dict[int, float] = {}  # probes that are out: since when, the oldest first
        self._opened_at = 0.0
        self._free = Pass(0, 0)  # of a closed spell: one for all, because nothing tells them apart
        self.opened = 0

    def state(self, now: float) -> BreakerState:
        """What it does now."""
        if self._state is _OPEN and self._rest(now) <= 0:
            return _HALF_OPEN
        return self._state

    @property
    def closed(self) -> bool:
        """Whether it lets every call through. Cheap: to be asked before each of them."""
        return self._state is _CLOSED

    @property
    def spotless(self) -> bool:
        """Whether it is closed and has no failure to remember: a new one would be the same."""
        return self._state is _CLOSED and not self._failures

    def wait(self, now: float) -> float:
        """Seconds until a call may be let through; 0 if it would be now."""
        if self._state is _CLOSED:
            return 0.0
        if self._state is _OPEN:
            return max(0.0, self._rest(now))
        if len(self._out) < self._rules.probes:
            return 0.0
        oldest = next(iter(self._out.values()))
        return min(_A_PROBE_TAKES, max(0.0, oldest + self._rules.probe_seconds - now))

    def ask(self, now: float) -> Pass | None:
        """Let a call through, or None: `wait` says for how long not."""
        if self._state is _CLOSED:
            return self._free
        if self.wait(now) > 0:
            return None
        return self._probe(now)

    def succeeded(self, admitted: Pass) -> None:
        """It answered."""
        if not self._back(admitted):
            return
        self._failures = 0
        if self._state is _HALF_OPEN:
            self._successes += 1
            if self._successes >= self._rules.successes:
                self._turn(_CLOSED)

    def failed(self, admitted: Pass, now: float) -> None:
        """It did not, or said that it cannot."""
        if not self._back(admitted):
            return
        self._failures += 1
        if self._state is _HALF_OPEN or self._failures >= self._rules.failures:
            self._opened_at = now
            self.opened += 1
            self._turn(_OPEN)

    def untouched(self, admitted: Pass) -> None:
        """Nothing was learned: the caller went away, or the answer speaks for neither."""
        self._back(admitted)

    def _probe(self, now: float) -> Pass:
        """The pass of a probe, which is booked."""
        if self._state is _OPEN:
            self._turn(_HALF_OPEN)
        elif len(self._out) >= self._rules.probes:
            del self._out[next(iter(self._out))]  # overdue; it may still come back, and counts then
        self._numbers += 1
        self._out[self._numbers] = now
        return Pass(self._spell, self._numbers)

    def _rest(self, now: float) -> float:
        return self._opened_at + self._rules.open_seconds - now

    def _back(self, admitted: Pass) -> bool:
        """Whether what became of it counts."""
        if admitted.spell != self._spell:
            return False
        self._out.pop(admitted.number, None)
        return True

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._spell += 1
        self._failures = self._successes = 0
        self._out.clear()
        self._free = Pass(self._spell, 0)
