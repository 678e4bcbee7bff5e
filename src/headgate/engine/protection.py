"""What stands between calls and a model that fails: a breaker, a limit of calls at once, budgets.

Each model of an engine has a `Ward` of its own: one that is down neither closes nor slows the others.
Decisions are pure and live in `policy/`; here they meet locks, the clock and the line of calls that
wait.

Only what speaks for the upstream counts. A quota refusal, a bad key, a mistake of the caller, a blocked
prompt, a call that was cancelled or ran into its own deadline: none of them opens a breaker or closes
it, or moves the limit.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from threading import Lock

from headgate.core.call import Operation
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock
from headgate.engine.passage import AttemptFailed
from headgate.engine.places import Places
from headgate.policy.breaker import Breaker, BreakerRules, BreakerState, Pass
from headgate.policy.concurrency import Concurrency, ConcurrencyRules, Flight
from headgate.policy.retry_budget import BudgetRules, RetryBudget

__all__ = ["MOST_WARDS", "Protection", "ProtectionRules", "Sending", "Ward"]

MOST_WARDS = 1000
"""Callers may name any model: a bound for what is remembered of them."""

_NO_LIMIT = sys.maxsize

_GENERATE = Operation.GENERATE  # looking a member up costs more than comparing with it

_FAULTS = frozenset({
    Kind.SERVER, Kind.OVERLOAD, Kind.NETWORK, Kind.TIMEOUT, Kind.PROTOCOL, Kind.TLS,
})  # fmt: skip
"""What a breaker counts. A capacity refusal is none of it: it may be a quota that does not say so."""

_OVERLOADS = frozenset({Kind.OVERLOAD, Kind.CAPACITY, Kind.TIMEOUT})
_OVERLOAD_STATUSES = frozenset({503, 504, 529})
"""What lowers the limit of calls at once: with a fault of the server, where its status says so."""

_SUCCESS, _TIMEOUT = Kind.SUCCESS, Kind.TIMEOUT  # as `_GENERATE`

_TICK = 0.05
"""Seconds by which a timer may fire before its time."""


@dataclass(frozen=True, slots=True)
class ProtectionRules:
    """What an engine has of it; None of a part: the engine does without.

    Attributes:
        breaker: when calls to a model stop for a while.
        concurrency: how the limit of calls at once moves, once there is one.
        retries: how many retries a model's calls may cause.
        hedge_after: seconds after which a second attempt is made beside the first.
        hedges: how many second attempts; 5 % of the calls, as Dean and Barroso have it ("The Tail at
            Scale", 2013), and one in two minutes in any case.
        most_waiting: calls that may wait for a place at a model; more are refused at once.
    """

    breaker: BreakerRules | None = None
    concurrency: ConcurrencyRules | None = None
    retries: BudgetRules | None = None
    hedge_after: float | None = None
    hedges: BudgetRules = field(default_factory=lambda: BudgetRules(share=0.05, floor=1))
    most_waiting: int = 1000

    def __post_init__(self) -> None:
        if self.hedge_after is not None and not 0 < self.hedge_after < math.inf:
            raise ValueError(f"hedge_after takes seconds above 0; got {self.hedge_after}")

    @property
    def guards(self) -> bool:
        """Whether attempts are watched at all."""
        parts = (self.breaker, self.concurrency, self.hedge_after)
        return any(part is not None for part in parts)

    @property
    def budgets(self) -> bool:
        """Whether extra sends are counted."""
        return self.retries is not None or self.hedge_after is not None


class Sending:
    """One attempt on the wire. Tell how it ended, once."""

    __slots__ = ("_admitted", "_deadline", "_flight", "_ward")

    def __init__(
        self, ward: Ward, admitted: Pass | None, flight: Flight | None, deadline: float | None
    ) -> None:
        self._ward = ward
        self._admitted = admitted
        self._flight = flight
        self._deadline = deadline

    def ended(self, outcome: Outcome) -> None:
        """What became of it; of a stream, when it is over."""
        self._ward.book(outcome, self._admitted, self._flight, self._deadline)


class Ward:
    """One model under protection. Threads and event loops may share it.

    Attributes:
        model: its name.
        places: the places of the limit of calls at once; None without one.
        in_flight: attempts on the wire.
    """

    def __init__(self, model: str, rules: ProtectionRules, clock: Clock) -> None:
        self.model = model
        self.in_flight = 0
        self._rules = rules
        self._clock = clock
        self._lock = Lock()
        self._breaker = None if rules.breaker is None else Breaker(rules.breaker)
        self._concurrency = None if rules.concurrency is None else Concurrency(rules.concurrency)
        self._retries = None if rules.retries is None else RetryBudget(rules.retries)
        self._hedges = None if rules.hedge_after is None else RetryBudget(rules.hedges)
        self._limit = _NO_LIMIT  # as the places have it
        self.places: Places | None = None
        if rules.concurrency is not None:
            self.places = Places(_NO_LIMIT, rules.most_waiting, clock)

    @property
    def state(self) -> BreakerState:
        """What its breaker does now; closed where there is none."""
        with self._lock:
            return self._state()

    @property
    def limit(self) -> int | None:
        """Calls at once that it is held to; None: no limit."""
        return None if self._concurrency is None else self._concurrency.limit

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return 0 if self.places is None else self.places.waiting

    @property
    def idle(self) -> bool:
        """Whether a new one would be the same, budgets aside."""
        spotless = self._breaker is None or self._breaker.spotless
        return spotless and self.limit is None and not self.in_flight and not self.waiting

    # ── one attempt ─────────────────────────────────────────────────────────────────────────────

    def refuse_while_open(self) -> None:
        """Raise `AttemptFailed` where the breaker lets nothing through: nothing is sent or reserved."""
        if self._breaker is None or self._breaker.closed:  # read without the lock: it is one word
            return
        with self._lock:
            now = self._clock.monotonic()
            if (wait := self._breaker.wait(now)) <= 0:
                return
            state = self._state()
        raise self._refusal(wait, state)

    def send(self, deadline: float | None) -> Sending:
        """An attempt is about to leave. Raises as `refuse_while_open`: it may have opened meanwhile.

        Args:
            deadline: of the call, in monotonic seconds: to run into it says nothing of the upstream.
        """
        now = self._clock.monotonic()
        admitted: Pass | None = None
        flight: Flight | None = None
        with self._lock:
            if self._breaker is not None:
                admitted = self._breaker.ask(now)
                if admitted is None:
                    raise self._refusal(self._breaker.wait(now), self._state())
            self.in_flight += 1
            if self._concurrency is not None:
                flight = self._concurrency.begin(now)
                self._fit_places()
        return Sending(self, admitted, flight, deadline)

    def book(
        self,
        outcome: Outcome,
        admitted: Pass | None,
        flight: Flight | None,
        deadline: float | None,
    ) -> None:
        """An attempt ended; see `Sending.ended`."""
        now, kind = self._clock.monotonic(), outcome.kind
        own = kind is _TIMEOUT and deadline is not None and now >= deadline - _TICK
        with self._lock:
            self.in_flight -= 1
            lone = self._breaker is not None and not self._breaker.closed
            if self._breaker is not None and admitted is not None:
                if kind is _SUCCESS:
                    self._breaker.succeeded(admitted)
                elif kind in _FAULTS and not own:
                    self._breaker.failed(admitted, now)
                else:
                    self._breaker.untouched(admitted)
            if self._concurrency is not None and flight is not None:
                if kind is _SUCCESS:
                    self._concurrency.succeeded(flight, now)
                elif _is_overload(outcome) and not own and not lone:
                    self._concurrency.overloaded(flight, now)  # of a probe it says nothing of how many
                else:
                    self._concurrency.ended(flight)
                self._fit_places()

    # ── budgets ─────────────────────────────────────────────────────────────────────────────────

    def called(self) -> None:
        """A call begins: what it may cause beyond itself is measured by it."""
        if self._retries is None and self._hedges is None:
            return
        now = self._clock.monotonic()
        with self._lock:
            if self._retries is not None:
                self._retries.called(now)
            if self._hedges is not None:
                self._hedges.called(now)

    def may_retry(self) -> bool:
        """Whether a retry fits the budget; if so, it is counted."""
        if self._retries is None:
            return True
        with self._lock:
            return self._retries.spend(self._clock.monotonic())

    def may_hedge(self) -> bool:
        """Whether a second attempt may be made now; if so, it is counted. A model that is in trouble
        gets none: it would be more of what it has too much of."""
        if self._hedges is None:
            return False
        with self._lock:
            if self._state() is not BreakerState.CLOSED or self.limit is not None:
                return False
            return self._hedges.spend(self._clock.monotonic())

    # ── under the lock ──────────────────────────────────────────────────────────────────────────

    def _state(self) -> BreakerState:
        if self._breaker is None or self._breaker.closed:
            return BreakerState.CLOSED
        return self._breaker.state(self._clock.monotonic())

    def _fit_places(self) -> None:
        """Let the places follow the limit. While the breaker is open there is none: whoever waits for a
        place is let in to hear that, instead of waiting for calls that hang."""
        assert self._concurrency is not None  # noqa: S101 - asked by the callers
        assert self.places is not None  # noqa: S101 - made with it
        limit = self._concurrency.limit
        if limit is None or self._state() is BreakerState.OPEN:
            limit = _NO_LIMIT
        if limit != self._limit:
            self._limit = limit
            self.places.resize(limit, self._rules.most_waiting)

    def _refusal(self, wait: float, state: BreakerState) -> AttemptFailed:
        follows = f"and is left alone for {math.ceil(wait)} s more."
        if state is not BreakerState.OPEN:
            follows = "and a few calls are finding out whether it is back."
        sentence = f"{self.model} failed several times in a row {follows}"
        return AttemptFailed(Outcome(Kind.BREAKER_OPEN, sentence, retry_after=wait), sent=False)


class Protection:
    """The wards of one engine.

    Attributes:
        rules: what each of them has.
        clock: of all of them.
    """

    def __init__(self, rules: ProtectionRules, clock: Clock) -> None:
        self.rules = rules
        self.clock = clock
        self._lock = Lock()
        self._wards: dict[str, Ward] = {}

    def ward(self, model: str, operation: Operation = Operation.GENERATE) -> Ward:
        """The ward of a model. Counting tokens and the like are other services of
        the upstream, and have one of their own."""
        free = operation is not _GENERATE and operation.is_free
        name = f"{model}#free" if free else model
        found = self._wards.get(name)
        if found is None:
            with self._lock:
                found = self._wards.get(name)
                if found is None:
                    self._make_room()
                    found = self._wards[name] = Ward(model or "The upstream", self.rules, self.clock)
        return found

    def _make_room(self) -> None:
        if len(self._wards) < MOST_WARDS:
            return
        wards = self._wards.items()
        forgotten = next((name for name, ward in wards if ward.idle), next(iter(self._wards)))
        del self._wards[forgotten]  # attempts under way have it in hand, and end on it

    def states(self) -> dict[str, BreakerState]:
        """What the breaker of each model does that was called; without breakers nothing."""
        if self.rules.breaker is None:
            return {}
        return {name: ward.state for name, ward in list(self._wards.items()) if "#" not in name}

    def state(self, model: str) -> BreakerState:
        """What the breaker of a model does; closed for one that was never called."""
        found = self._wards.get(model)
        return BreakerState.CLOSED if found is None else found.state

    def reset(self, model: str) -> None:
        """Forget what is known of a model, budgets too. Attempts under way end on what they began with,
        and calls that wait for a place there go on waiting for it."""
        with self._lock:
            self._wards.pop(model, None)

    def limit(self, model: str) -> int | None:
        """Calls at once that a model is held to; None: no limit."""
        found = self._wards.get(model)
        return None if found is None else found.limit

    @property
    def in_flight(self) -> int:
        """Attempts on the wire, over all models."""
        return sum(ward.in_flight for ward in list(self._wards.values()))

    @property
    def waiting(self) -> int:
        """Calls that wait for a place at a model, over all models."""
        return sum(ward.waiting for ward in list(self._wards.values()))


def _is_overload(outcome: Outcome) -> bool:
    if outcome.kind in _OVERLOADS:
        return True
    return outcome.kind is Kind.SERVER and outcome.status in _OVERLOAD_STATUSES
