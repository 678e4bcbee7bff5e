"""When to stop asking an upstream that fails, and how to find out that it is back. Pure.

    closed ──failures in a row──▶ open ──open_seconds──▶ half-open ──successes──▶ closed
                                   ▲────────── one failure ──────────┘

What an attempt did counts only for the spell it was let through in: an answer that was under way when
the breaker opened neither closes it nor keeps it open.
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


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When it changes. The defaults are those accepted as S5-04e.

    Attributes:
        failures: in a row, after which it opens.
        open_seconds: until it lets probes through.
        successes: of probes, after which it closes.
        probes: how many may be out at once.
    """

    failures: int = 5
    open_seconds: float = 60.0
    successes: int = 2
    probes: int = 3

    def __post_init__(self) -> None:
        if min(self.failures, self.successes, self.probes) < 1 or self.open_seconds <= 0:
            raise ValueError(f"a breaker needs numbers above 0; got {self}")


class Pass(NamedTuple):
    """The right to try once. Hand it back with `succeeded`, `failed` or `untouched`."""

    spell: int


class Breaker:
    """One breaker. Not locked: whoever shares it between threads locks around it."""

    def __init__(self, rules: BreakerRules = BreakerRules()) -> None:
        self._rules = rules
        self._state = BreakerState.CLOSED
        self._spell = 0  # counts changes of state
        self._failures = 0
        self._successes = 0
        self._out = 0
        self._opened_at = 0.0
        self.opened = 0

    def state(self, now: float) -> BreakerState:
        """What it does now."""
        if self._state is BreakerState.OPEN and self._rest(now) <= 0:
            return BreakerState.HALF_OPEN
        return self._state

    def wait(self, now: float) -> float:
        """Seconds until a call may be let through; 0 if it would be now."""
        match self.state(now):
            case BreakerState.OPEN:
                return self._rest(now)
            case BreakerState.HALF_OPEN if self._out >= self._rules.probes:
                return _A_PROBE_TAKES
        return 0.0

    def ask(self, now: float) -> Pass | None:
        """Let a call through, or None: `wait` says for how long not."""
        if self.wait(now) > 0:
            return None
        if self._state is BreakerState.OPEN:
            self._turn(BreakerState.HALF_OPEN)
        if self._state is BreakerState.HALF_OPEN:
            self._out += 1
        return Pass(self._spell)

    def succeeded(self, admitted: Pass) -> None:
        """It answered."""
        if not self._back(admitted):
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._successes += 1
            if self._successes >= self._rules.successes:
                self._turn(BreakerState.CLOSED)

    def failed(self, admitted: Pass, now: float) -> None:
        """It did not, or said that it cannot."""
        if not self._back(admitted):
            return
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN or self._failures >= self._rules.failures:
            self._opened_at = now
            self.opened += 1
            self._turn(BreakerState.OPEN)

    def untouched(self, admitted: Pass) -> None:
        """Nothing was learned: the caller went away, or the answer speaks for neither."""
        self._back(admitted)

    def _rest(self, now: float) -> float:
        return self._opened_at + self._rules.open_seconds - now

    def _back(self, admitted: Pass) -> bool:
        """Whether what became of it counts."""
        if admitted.spell != self._spell:
            return False
        if self._state is BreakerState.HALF_OPEN:
            self._out -= 1
        return True

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._spell += 1
        self._failures = self._successes = self._out = 0
