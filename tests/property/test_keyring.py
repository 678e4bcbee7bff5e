"""The key ring against a model that is too simple to be wrong, over random histories."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.core.call import Key
from headgate.core.outcome import Booking, Kind, Outcome
from headgate.policy.cooldown import HOUR, cooldown
from headgate.policy.keyring import EVERY_MODEL, KeyRing
from headgate.policy.leases import Lease, Unready

WALL = 1_795_262_400.0
MODELS = ("a", "b")
FALLBACK = 60.0


@dataclass
class Held:
    since: float
    until: float
    kind: Kind
    probe_at: float | None
    streak: int


@dataclass
class Simple:
    """Keys in flat lists, searched from end to end at every question."""

    domains: list[int]
    usable_keys: int
    disabled: set[int] = field(default_factory=set)
    denied: set[tuple[int, str]] = field(default_factory=set)
    parks: dict[tuple[int, str], Held] = field(default_factory=dict)
    stats: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stats = [[0, 0, 0] for _ in self.domains]

    def keys_of(self, domain: int, model: str) -> list[int]:
        return [
            key
            for key in range(self.usable_keys)
            if self.domains[key] == domain
            and key not in self.disabled
            and (key, model) not in self.denied
        ]

    def held(self, domain: int, model: str, now: float) -> Held | None:
        running = [
            park
            for name in (model, EVERY_MODEL)
            if (park := self.parks.get((domain, name))) is not None and park.until > now
        ]
        return max(running, key=lambda park: park.until, default=None)

    def serving(self, model: str) -> list[int]:
        return sorted({d for d in self.domains if self.keys_of(d, model)})

    def ready(self, model: str, now: float, exclude: set[int]) -> list[int]:
        return [
            domain
            for domain in self.serving(model)
            if domain not in exclude and self.held(domain, model, now) is None
        ]

    def probing(self, model: str, now: float, exclude: set[int]) -> list[int]:
        found = []
        for domain in self.serving(model):
            park = self.held(domain, model, now)
            if domain in exclude or park is None or park.probe_at is None:
                continue
            if park.probe_at <= now:
                found.append(domain)
        return found

    def recovers(self, model: str, now: float) -> float | None:
        times = []
        for domain in self.serving(model):
            park = self.held(domain, model, now)
            times.append(
                now if park is None else min(park.until, max(now, park.probe_at or park.until))
            )
        return min(times, default=None)

    def taken(self, lease: Lease, now: float) -> None:
        if lease.probe:
            park = self.held(lease.domain, lease.model, now)
            assert park is not None
            park.probe_at = now + HOUR

    def hold(self, domain: int, model: str, park: Held) -> None:
        old = self.parks.get((domain, model))
        if old is not None and old.until > park.since:
            longer = park if park.until >= old.until else old
            park = Held(old.since, longer.until, longer.kind, longer.probe_at, longer.streak)
        self.parks[domain, model] = park

    def book(self, lease: Lease, outcome: Outcome, now: float) -> None:
        self.count(lease.index, outcome)
        domain, model = lease.domain, lease.model
        if outcome.kind is Kind.BAD_KEY:
            self.disabled.add(lease.index)
        elif outcome.kind is Kind.KEY_MODEL:
            self.denied.add((lease.index, model))
        elif outcome.kind is Kind.PROJECT_MODEL:
            for key in range(self.usable_keys):
                if self.domains[key] == domain and key not in self.disabled:
                    self.denied.add((key, model))
        elif outcome.rule.is_quota:
            self.refused(lease, outcome, now)
        elif outcome.kind is Kind.SUCCESS:
            if lease.probe:
                self.parks.pop((domain, model), None)
                self.parks.pop((domain, EVERY_MODEL), None)
            elif (park := self.parks.get((domain, model))) is not None and park.until <= now:
                del self.parks[domain, model]
        elif outcome.rule.booking is Booking.NOTHING and lease.probe:  # it told nothing
            held = self.held(domain, model, now)
            if held is not None and held.probe_at is not None:
                held.probe_at = now + 60

    def refused(self, lease: Lease, outcome: Outcome, now: float) -> None:
        domain = lease.domain
        model = EVERY_MODEL if outcome.kind is Kind.BILLING else lease.model
        old = self.parks.get((domain, model))
        burst = old is not None and old.until > now and lease.taken <= old.since and not lease.probe
        if burst and outcome.kind is Kind.QUOTA_UNKNOWN:
            return
        streak = 0
        if outcome.kind is Kind.QUOTA_UNKNOWN and old is not None and old.kind is outcome.kind:
            streak = old.streak + 1
        if lease.probe:
            self.parks.pop((domain, lease.model), None)
            self.parks.pop((domain, EVERY_MODEL), None)
        cost = cooldown(
            outcome.kind, outcome.retry_after, fallback=FALLBACK, streak=streak, wall=WALL + now
        )
        probe_at = None if cost.probe_after is None else now + cost.probe_after
        self.hold(domain, model, Held(now, now + cost.seconds, outcome.kind, probe_at, streak))

    def count(self, key: int, outcome: Outcome) -> None:
        if outcome.kind is Kind.SUCCESS:
            self.stats[key][0] += 1
        elif outcome.kind is not Kind.CANCELLED:
            self.stats[key][1] += 1
            self.stats[key][2] += outcome.rule.is_quota

    def enable(self, key: int) -> None:
        self.disabled.discard(key)
        self.denied = {(k, m) for k, m in self.denied if k != key}
        for name in [park for park in self.parks if park[0] == self.domains[key]]:
            del self.parks[name]


OUTCOMES = st.one_of(
    st.sampled_from(
        [
            Outcome(Kind.SUCCESS),
            Outcome(Kind.SERVER),
            Outcome(Kind.CANCELLED),
            Outcome(Kind.BAD_KEY),
            Outcome(Kind.KEY_MODEL),
            Outcome(Kind.PROJECT_MODEL),
        ]
    ),
    st.builds(
        Outcome,
        st.sampled_from(
            [
                Kind.QUOTA_MINUTE,
                Kind.QUOTA_MINUTE,
                Kind.QUOTA_DAY,
                Kind.QUOTA_UNKNOWN,
                Kind.QUOTA_ZERO,
                Kind.BILLING,
            ]
        ),
        retry_after=st.sampled_from([None, 0.0, 5.0, 61.0, 7200.0, float("nan")]),
    ),
)
STEPS = st.one_of(
    st.tuples(
        st.just("choose"),
        st.sampled_from(MODELS),
        st.sets(st.integers(0, 4), max_size=2),
        st.booleans(),
    ),
    st.tuples(st.just("shot"), st.sampled_from(MODELS), OUTCOMES),
    st.tuples(st.just("shot"), st.just("a"), OUTCOMES),
    st.tuples(st.just("book"), st.integers(0, 20), OUTCOMES),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 1.0, 5.0, 60.0, 61.0, 1000.0, 3600.0, 50_000.0])),
    st.tuples(
        st.just("park"),
        st.integers(0, 7),
        st.sampled_from([1.0, 30.0, 5000.0]),
        st.sampled_from([*MODELS, EVERY_MODEL]),
    ),
    st.tuples(st.just("disable"), st.integers(0, 7)),
    st.tuples(st.just("enable"), st.integers(0, 7)),
)


class Play:
    """The ring and the model side by side."""

    def __init__(self, grouping: list[int], rotation: bool) -> None:
        keys = [Key(f"k{n}", f"CANARY{n}", f"d{group}") for n, group in enumerate(grouping)]
        numbers = {group: number for number, group in enumerate(dict.fromkeys(grouping))}
        self.ring = KeyRing(keys, rotation=rotation, fallback=FALLBACK)
        usable = len(keys) if rotation else 1
        self.simple = Simple([numbers[group] for group in grouping], usable)
        self.choosable = set(self.simple.domains[:usable])
        self.now = 0.0
        self.open: list[Lease] = []
        self.last: Lease | None = None

    def choose(self, model: str, exclude: set[int], again: bool) -> None:
        simple, now = self.simple, self.now
        prefer = self.last if again and self.last is not None and self.last.model == model else None
        got = self.ring.choose(model, now, exclude=exclude, prefer=prefer)
        ready = simple.ready(model, now, exclude)
        probing = simple.probing(model, now, exclude)
        if isinstance(got, Unready):
            assert not ready, "a ready domain was overlooked"
            assert not probing, "a probe was due and not taken"
            assert got.recovers == simple.recovers(model, now)
            keys = range(simple.usable_keys)
            disabled = sum(key in simple.disabled for key in keys)
            denied = sum((k, model) in simple.denied and k not in simple.disabled for k in keys)
            assert (got.disabled, got.denied) == (disabled, denied)
            assert got.cooling == simple.usable_keys - disabled - denied
            return
        assert got.model == model
        assert got.index in simple.keys_of(got.domain, model), "disabled or denied"
        if prefer is not None and got.index == prefer.index and got.probe == prefer.probe:
            assert got.probe or simple.held(got.domain, model, now) is None
        elif got.probe:
            assert not ready, "a probe although something was ready"
            assert got.domain in probing
            simple.taken(got, now)
        else:
            assert got.domain in ready, "parked or excluded"
        self.open.append(got)
        self.last = got

    def book(self, which: int, outcome: Outcome) -> None:
        if self.open:
            lease = self.open.pop(which % len(self.open))
            self.ring.book(lease, outcome, self.now, WALL + self.now)
            self.simple.book(lease, outcome, self.now)

    def step(self, step: tuple) -> None:  # type: ignore[type-arg]
        match step:
            case ("choose", model, exclude, again):
                self.choose(model, exclude, again)
            case ("book", which, outcome):
                self.book(which, outcome)
            case ("shot", model, outcome):
                before = len(self.open)
                self.choose(model, set(), False)
                if len(self.open) > before:
                    self.book(before, outcome)
            case ("pass", seconds):
                self.now += seconds
            case ("park", key, seconds, model):
                key %= len(self.simple.domains)
                self.ring.park(key, seconds, self.now, model)
                domain = self.simple.domains[key]
                park = Held(self.now, self.now + seconds, Kind.QUOTA_MINUTE, None, 0)
                self.simple.hold(domain, model, park)
            case ("disable", key):
                key %= len(self.simple.domains)
                self.ring.disable(key, "by hand")
                self.simple.disabled.add(key)
            case ("enable", key):
                key %= len(self.simple.domains)
                self.ring.enable(key)
                self.simple.enable(key)
        self.check()

    def check(self) -> None:
        for model, queue in self.ring._queues.items():
            places = [*queue.ready, *(number for _, number in queue.cooling), *queue.dead]
            unseen = self.ring._choosable_domains - queue.seen
            assert len(places) == len(set(places)), f"a domain stands twice in the queue of {model}"
            assert len(places) + unseen == self.ring._choosable_domains, "a domain is lost"
            assert set(places) <= self.choosable
        for state, (successes, failures, quotas) in zip(
            self.ring.states(self.now), self.simple.stats, strict=True
        ):
            stats = state.stats
            assert (stats.successes, stats.failures, stats.quota_errors) == (
                successes,
                failures,
                quotas,
            )
            assert stats.quota_errors <= stats.failures
            assert (state.disabled is not None) == (state.index in self.simple.disabled)
            domain = self.simple.domains[state.index]
            running = {
                model: park.until
                for (number, model), park in self.simple.parks.items()
                if number == domain and park.until > self.now
            }
            assert {model: park.until for model, park in state.parks.items()} == running


GROUPINGS = [[0], [0, 1, 2], [0, 0, 0], [0, 1, 0, 2, 1], [0, 1, 2, 3, 4, 0]]


@pytest.mark.parametrize("rotation", [True, False], ids=["rotating", "first key only"])
@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=60))
def test_the_ring_does_what_the_model_says(
    grouping: list[int],
    rotation: bool,
    steps: list[tuple],  # type: ignore[type-arg]
) -> None:
    play = Play(grouping, rotation)
    for step in steps:
        play.step(step)
    for model in MODELS:  # whatever happened, the last word is right too
        play.choose(model, set(), False)


def test_a_domain_is_used_again_only_when_every_other_one_was() -> None:
    ring = KeyRing([Key(f"k{n}", f"CANARY{n}", f"d{n}") for n in range(7)])
    order = []
    for second in range(21):
        lease = ring.choose("a", float(second))
        assert isinstance(lease, Lease)
        order.append(lease.index)
    assert order == [*range(7)] * 3
