"""The breaker against a naive one that keeps everything that happened and looks it all through."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.policy.breaker import Breaker, BreakerRules, BreakerState, Pass


@dataclass
class Try:
    """One call that was let through. `fate` is None while it is out."""

    at: float
    fate: str | None = None


@dataclass
class Naive:
    """Spells, each a list of tries and of what ended when; nothing is ever counted up."""

    rules: BreakerRules
    state: BreakerState = BreakerState.CLOSED
    opened_at: float = 0.0
    tries: list[Try] = field(default_factory=list)  # of this spell
    ends: list[str] = field(default_factory=list)  # of this spell, in order

    def turn(self, state: BreakerState) -> None:
        self.state, self.tries, self.ends = state, [], []

    def shown(self, now: float) -> BreakerState:
        over = now >= self.opened_at + self.rules.open_seconds
        return BreakerState.HALF_OPEN if self.state is BreakerState.OPEN and over else self.state

    def young(self, now: float) -> int:
        out = [each for each in self.tries if each.fate is None]
        return sum(now - each.at < self.rules.probe_seconds for each in out)

    def lets_through(self, now: float) -> bool:
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            return self.shown(now) is BreakerState.HALF_OPEN
        return self.young(now) < self.rules.probes

    def ask(self, now: float) -> Try:
        if self.state is BreakerState.OPEN:
            self.turn(BreakerState.HALF_OPEN)
        self.tries.append(Try(now))
        return self.tries[-1]

    def end(self, which: Try, fate: str, now: float) -> None:
        if not any(each is which for each in self.tries):
            return  # of another spell
        which.fate = fate
        if fate != "untouched":
            self.ends.append(fate)
        if self.state is BreakerState.HALF_OPEN:
            if fate == "failed":
                self.opened_at = now
                self.turn(BreakerState.OPEN)
            elif self.ends.count("succeeded") >= self.rules.successes:
                self.turn(BreakerState.CLOSED)
        elif self.ends[-self.rules.failures :] == ["failed"] * self.rules.failures:
            self.opened_at = now
            self.turn(BreakerState.OPEN)


class BreakerMachine(RuleBasedStateMachine):
    """Calls of any order and age, some of which never come back."""

    @initialize(
        failures=st.integers(1, 5),
        successes=st.integers(1, 3),
        probes=st.integers(1, 3),
        probe_seconds=st.sampled_from([5.0, 20.0, 1000.0]),
    )
    def begin(self, failures: int, successes: int, probes: int, probe_seconds: float) -> None:
        self.rules = BreakerRules(failures, 10.0, successes, probes, probe_seconds)
        self.breaker, self.naive = Breaker(self.rules), Naive(self.rules)
        self.now = 0.0
        self.out: list[tuple[Pass, Try]] = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 4.5, 5.0, 9.5, 10.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        lets, wait = self.naive.lets_through(self.now), self.breaker.wait(self.now)
        admitted = self.breaker.ask(self.now)
        assert (admitted is not None) == lets == (wait == 0)
        if admitted is not None:
            self.out.append((admitted, self.naive.ask(self.now)))

    @precondition(lambda self: self.out)
    @rule(place=st.integers(0, 100), fate=st.sampled_from(["succeeded", "failed", "untouched"]))
    def end(self, place: int, fate: str) -> None:
        admitted, which = self.out.pop(place % len(self.out))
        if fate == "failed":
            self.breaker.failed(admitted, self.now)
        elif fate == "succeeded":
            self.breaker.succeeded(admitted)
        else:
            self.breaker.untouched(admitted)
        self.naive.end(which, fate, self.now)

    @invariant()
    def they_agree(self) -> None:
        assert self.breaker.state(self.now) is self.naive.shown(self.now)
        assert (self.breaker.wait(self.now) == 0) == self.naive.lets_through(self.now)

    @invariant()
    def it_never_stays_shut_for_ever(self) -> None:
        """Whatever is out and never comes back: after the longer of both times somebody may try."""
        later = self.now + max(self.rules.open_seconds, self.rules.probe_seconds)
        assert self.breaker.wait(later) == 0

    @invariant()
    def waits_are_sane(self) -> None:
        assert 0 <= self.breaker.wait(self.now) <= self.rules.open_seconds


TestBreaker = BreakerMachine.TestCase
