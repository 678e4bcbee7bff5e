"""A limit that nobody tells is found by use: few refusals, little of it left unused.

The provider counts by a mechanism of the emulator's and refuses without a word. The tally, the search
and the ledger in front of it are those of the engine; demand never ends, and calls take their time.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.call import Key, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.quota import Ask, Counts, Grant, Limit, Penalty, Refusal
from headgate.emulator.quotas import FixedWindow, Quota, SlidingCounter, SlidingLog, TokenBucket
from headgate.engine.learner import QuotaLearner
from headgate.policy.learning import PATIENCE, Interval
from headgate.policy.leases import Lease
from headgate.policy.quota import table
from headgate.policy.quota.ledger import QuotaLedger
from headgate.policy.tally import WINDOW, Charge, Tally
from headgate.testing import VirtualClock

WALL = 1_772_000_000.0
REST = 60.0  # what a domain rests after a refusal without a hint
DEMAND = 0.25  # seconds between the calls while nothing is known


@dataclass
class Told:
    """What came of a run."""

    refused: int
    events: int
    served: list[float]


class Run:
    """One domain, asked for as long as it has room."""

    def __init__(self, provider: Quota, latency: float, demand: float = DEMAND) -> None:
        self.provider = provider
        self.latency = latency
        self.demand = demand
        self.tally, self.interval = Tally(), Interval()
        self.ledger: QuotaLedger | None = None
        self.flying: list[tuple[float, float, bool]] = []
        self.told = Told(0, 0, [])
        self.rests = self.now = 0.0

    def until(self, end: float) -> Told:
        """Go on from where the last run ended."""
        now, number = self.now, int(self.now * 1000)
        self.now = end
        while now < end:
            self.land(now)
            upcoming = self.flying[0][0] if self.flying else end
            if now < self.rests:
                now = min(self.rests, upcoming)
                continue
            number += 1
            wait = self.ask(number, now)
            if wait is not None:
                now = min(max(now + 0.001, wait), max(upcoming, now + 0.001))
                continue
            self.tally.sent(0, "m", now, WALL)
            accepted = self.provider.room(now, 1)
            if accepted:
                self.provider.charge(now, 1)
                self.told.served.append(now)
            # A refusal comes at once, an answer takes its time.
            heapq.heappush(self.flying, (now + (self.latency if accepted else 0.05), now, accepted))
            now += self.demand if self.ledger is None else 0.001
        self.told.events = self.interval.refusals
        return self.told

    def ask(self, number: int, now: float) -> float | None:
        """None if a call may go, else when to ask again."""
        if self.ledger is None:
            return None
        answer = self.ledger.acquire(Ask(str(number), {Counts.REQUESTS: 1}), round(now * 1000), number)
        if isinstance(answer, Grant):
            self.ledger.settle(answer.rid, {}, round(now * 1000))
            return None
        assert isinstance(answer, Refusal)
        assert answer.at is not None
        return answer.at / 1000

    def land(self, now: float) -> None:
        while self.flying and self.flying[0][0] <= now:
            _, taken, accepted = heapq.heappop(self.flying)
            if accepted:
                self.tally.served(0, "m", taken, 0)
                use = self.tally.used(0, "m", now, WALL).served
                self.enforce(self.interval.served(use, now), now)
            else:
                self.tally.taken_back(0, "m", taken)
                use = self.tally.used(0, "m", now, WALL).requests
                self.told.refused += 1
                self.rests = now + REST
                self.enforce(self.interval.refused(use, taken, now), now)

    def enforce(self, level: int | None, now: float) -> None:
        if level is None:
            return
        limit = Limit("rpm", Counts.REQUESTS, level)
        if self.ledger is None:
            self.ledger = QuotaLedger([[limit]])
        self.ledger.learn(0, limit, round(now * 1000))


HOURS = 3
MINUTES = HOURS * 60


def most_events(minutes: int) -> int:
    """Refusals that teach, if each doubles the quiet time; and one more for the first."""
    return 2 + int(log2(minutes * WINDOW / PATIENCE))


@settings(max_examples=25)
@given(
    limit=st.integers(1, 40),
    phase=st.floats(0, 60),
    latency=st.sampled_from([0.3, 4.0, 20.0]),
    name=st.sampled_from(["fixed", "sliding", "bucket"]),
)
def test_a_hidden_limit_is_found_with_a_logarithmic_number_of_refusals(
    limit: int, phase: float, latency: float, name: str
) -> None:
    providers: dict[str, Quota] = {
        "fixed": FixedWindow(limit, WINDOW, phase),
        "sliding": SlidingLog(limit, WINDOW),
        "bucket": TokenBucket(limit, WINDOW),
    }
    told = Run(providers[name], latency).until(MINUTES * WINDOW)
    figures = f"{told.events} events, {told.refused} refused of {len(told.served)} served"
    assert told.events <= most_events(MINUTES), figures
    assert told.refused <= 3 * told.events + 5, figures
    later = [moment for moment in told.served if moment >= 60 * WINDOW]
    assert len(later) >= 0.9 * limit * (MINUTES - 60), f"{len(later)} of {limit * (MINUTES - 60)}"


@pytest.mark.parametrize("limit", [3, 10, 30])
def test_a_counter_that_punishes_bursts_still_draws_few_refusals(limit: int) -> None:
    told = Run(SlidingCounter(limit, WINDOW, 20.0), 0.5).until(MINUTES * WINDOW)
    assert told.events <= most_events(MINUTES) + log2(limit) + 1
    assert len(told.served) >= 0.45 * limit * MINUTES


def test_a_burst_with_everything_in_flight_is_one_event() -> None:
    told = Run(SlidingLog(10, WINDOW), 5.0, demand=0.001).until(30 * WINDOW)
    assert told.refused >= 30, "before anything was heard there was no telling"
    assert told.events <= 2 + int(log2(30 * WINDOW / PATIENCE))
    later = [moment for moment in told.served if moment >= 5 * WINDOW]
    assert len(later) >= 0.9 * 10 * 25


def test_a_limit_that_grows_is_followed() -> None:
    provider = SlidingLog(4, WINDOW)
    run = Run(provider, 0.5)
    run.until(45 * WINDOW)
    assert run.interval.level == 4
    provider.limit = 40
    told = run.until(135 * WINDOW)
    last = [moment for moment in told.served if moment >= 120 * WINDOW]
    assert len(last) >= 0.9 * 40 * 15, f"{len(last)} of {40 * 15}, level {run.interval.level}"


# ── whatever an upstream says ───────────────────────────────────────────────────────────────────

KINDS = [kind for kind in Kind if kind is not Kind.LATE]
NAMES = ("rpm", "tpm", "rpd", "itpm", "otpm")
KEY = Key("k", "AIzaCANARY", "p")


class Gate:
    """Keeps what it is told and looks at it."""

    def __init__(self, declared: int | None) -> None:
        self.declared = declared
        self.limits: dict[tuple[int, str], int] = {}

    def cover(self, model: str, limits_by_domain: dict[int, tuple[Limit, ...]]) -> None:
        for domain, limits in limits_by_domain.items():
            assert limits, model
            for limit in limits:
                assert limit.amount >= 1
                if limit.name == "rpm" and self.declared is not None:
                    assert limit.amount <= self.declared, "the user's number is an upper bound"
                assert self.limits.get((domain, limit.name)) != limit.amount, "told twice"
                self.limits[domain, limit.name] = limit.amount

    def recall(self, model: str, charges: list[Charge]) -> None:
        for charge in charges:
            assert charge.amount > 0, model
            assert (charge.domain, charge.limit) in self.limits, "of limits that were told just now"

    def tell(self, model: str, penalties: list[Penalty]) -> None:
        for penalty in penalties:
            known = {name for _, name in self.limits} | ({"rpm"} if self.declared else set())
            assert penalty.pace == "" or penalty.pace in known, model


outcomes = st.builds(
    Outcome,
    st.sampled_from(KINDS),
    usage=st.none() | st.builds(Usage, prompt=st.integers(0, 10_000)),
    quota_model=st.none() | st.sampled_from(["m", "f"]),
    quota_names=st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple),
    limits=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 50), max_size=3).map(
        lambda numbers: table.Quota(**numbers).limits()
    ),
)
attempts = st.tuples(
    outcomes, st.integers(0, 2), st.booleans(), st.booleans(), st.floats(0, 400), st.floats(0, 90)
)


@settings(max_examples=60)
@given(st.none() | st.integers(1, 30), st.sampled_from([1.0, 0.3]), st.lists(attempts, max_size=60))
def test_whatever_is_heard_what_is_told_makes_sense(
    declared: int | None, margin: float, history: list[tuple[Outcome, int, bool, bool, float, float]]
) -> None:
    """No exception, no amount below 1 or above the declared one, nothing told twice."""
    clock, gate = VirtualClock(), Gate(declared)
    quotas = table.QuotaTable(default=table.Quota(rpm=declared))
    learner = QuotaLearner(gate, quotas, ["p"] * 3, clock, margin=margin)  # type: ignore[arg-type]
    for outcome, domain, reserved, sent, pause, latency in history:
        clock.advance(pause)
        lease = Lease(KEY, 0, domain, "m", clock.monotonic())
        learner.leased(lease)
        clock.advance(latency)
        learner.heard(lease, outcome, reserved=reserved, sent=sent)
