"""The turns of the key ring that random histories seldom reach."""

from __future__ import annotations

import itertools

import pytest

from headgate.core.call import Key
from headgate.core.outcome import Kind, Outcome
from headgate.policy.cooldown import HOUR
from headgate.policy.entries import MOST_DENIED
from headgate.policy.keyring import EVERY_MODEL, KeyRing
from headgate.policy.leases import Lease, Unready

WALL = 1_795_262_400.0
DAY = Outcome(Kind.QUOTA_DAY, retry_after=22.0)
UNKNOWN = Outcome(Kind.QUOTA_UNKNOWN)
GOOD = Outcome(Kind.SUCCESS)


def ring_of(count: int, *, per_domain: int = 1) -> KeyRing:
    return KeyRing([Key(f"k{n}", f"CANARY{n}", f"d{n // per_domain}") for n in range(count)])


def take(ring: KeyRing, now: float, model: str = "m", **arguments: object) -> Lease:
    got = ring.choose(model, now, **arguments)  # type: ignore[arg-type]
    assert isinstance(got, Lease), got
    return got


def refuse(ring: KeyRing, lease: Lease, now: float, outcome: Outcome = DAY) -> None:
    ring.book(lease, outcome, now, WALL + now)


def recovery(ring: KeyRing, now: float, model: str = "m") -> float | None:
    got = ring.choose(model, now)
    assert isinstance(got, Unready), got
    return got.recovers


def test_a_call_that_is_too_large_costs_its_domain_nothing() -> None:
    ring = ring_of(1)
    refuse(ring, take(ring, 0), 0, Outcome(Kind.TOO_LARGE))
    assert take(ring, 0).index == 0
    assert ring.states(0)[0].parks == {}
    refuse(ring, take(ring, 1), 1)
    probe = take(ring, HOUR + 2)
    refuse(ring, probe, HOUR + 2, Outcome(Kind.TOO_LARGE))
    later = recovery(ring, HOUR + 3)
    assert later is not None
    assert later < 2 * HOUR  # it told nothing of the quota: another try may come soon


def test_a_probe_that_succeeds_ends_the_parks_of_its_model_and_of_its_domain() -> None:
    ring = ring_of(1)
    refuse(ring, take(ring, 0), 0)
    ring.park(0, 2 * HOUR, 0.0, EVERY_MODEL)
    probe = take(ring, HOUR + 1)
    assert probe.probe
    ring.book(probe, GOOD, HOUR + 2, WALL)
    assert not take(ring, HOUR + 3).probe
    assert not take(ring, HOUR + 3, "another model").probe
    assert ring.states(HOUR + 3)[0].parks == {}


@pytest.mark.parametrize("kind", [Kind.SERVER, Kind.OVERLOAD, Kind.CANCELLED])
def test_a_probe_that_told_nothing_is_repeated_after_a_minute(kind: Kind) -> None:
    ring = ring_of(1)
    refuse(ring, take(ring, 0), 0)
    probe = take(ring, HOUR + 1)
    ring.book(probe, Outcome(kind), HOUR + 2, WALL)
    assert not isinstance(ring.choose("m", HOUR + 30), Lease)
    assert take(ring, HOUR + 63).probe


def test_there_is_one_probe_an_hour_however_often_one_asks() -> None:
    ring = ring_of(1)
    refuse(ring, take(ring, 0), 0)
    probes = []
    for minute in range(0, 60 * 5, 7):
        got = ring.choose("m", minute * 60.0)
        if isinstance(got, Lease):
            assert got.probe
            probes.append(got.taken)
            refuse(ring, got, got.taken)
    assert len(probes) == 4
    assert all(later - sooner >= HOUR for sooner, later in itertools.pairwise(probes))


def test_a_probe_refused_again_parks_anew() -> None:
    ring = ring_of(1)
    refuse(ring, take(ring, 0), 0)
    refuse(ring, take(ring, HOUR), HOUR, Outcome(Kind.QUOTA_MINUTE, retry_after=30.0))
    assert recovery(ring, HOUR) == HOUR + 30
    assert not take(ring, HOUR + 30).probe


def test_a_cancelled_probe_leaves_the_park_as_it_was() -> None:
    ring = ring_of(1)
    refuse(ring, take(ring, 0), 0)
    (park,) = ring.state(0, 1).parks.values()
    assert recovery(ring, 1) == HOUR  # the probe comes sooner than the reset
    ring.book(take(ring, HOUR), Outcome(Kind.CANCELLED), HOUR, WALL)
    (held,) = ring.state(0, HOUR + 1).parks.values()
    assert held.until == park.until
    assert recovery(ring, HOUR + 1) == HOUR + 60  # it told nothing: another may soon


def test_no_probe_is_spent_while_another_domain_is_ready() -> None:
    ring = ring_of(2)
    refuse(ring, take(ring, 0), 0)
    assert [take(ring, HOUR * n).index for n in range(1, 5)] == [1, 1, 1, 1]


def test_the_probe_survives_a_second_refusal_of_the_same_burst() -> None:
    ring = ring_of(1)
    first, second = take(ring, 0), take(ring, 0)
    refuse(ring, first, 1)
    assert recovery(ring, 1) is not None
    refuse(ring, second, 5)
    assert take(ring, HOUR + 6).probe


def test_a_later_longer_refusal_moves_the_recovery() -> None:
    ring = ring_of(1)
    first, second = take(ring, 0), take(ring, 0)
    refuse(ring, first, 1, Outcome(Kind.QUOTA_MINUTE, retry_after=30.0))
    assert recovery(ring, 1) == 31
    refuse(ring, second, 2, Outcome(Kind.QUOTA_MINUTE, retry_after=50.0))
    assert recovery(ring, 2) == 52
    refuse(ring, Lease(first.key, 0, 0, "m", 2), 3, Outcome(Kind.QUOTA_MINUTE, retry_after=1.0))
    assert recovery(ring, 3) == 52, "a shorter one does not shorten it"


def test_a_burst_of_unknown_refusals_is_one_event() -> None:
    ring = ring_of(1)
    leases = [take(ring, 0) for _ in range(30)]
    for lease in leases:
        refuse(ring, lease, 1, UNKNOWN)
    assert recovery(ring, 1) == 61
    refuse(ring, take(ring, 61), 61, UNKNOWN)
    assert recovery(ring, 61) == 61 + 120


def test_unknown_refusals_in_a_row_double_until_a_success() -> None:
    ring = ring_of(1)
    now, waits = 0.0, []
    for _ in range(8):
        refuse(ring, take(ring, now), now, UNKNOWN)
        until = recovery(ring, now)
        assert until is not None
        waits.append(until - now)
        now = until
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    ring.book(take(ring, now), GOOD, now, WALL)
    refuse(ring, take(ring, now), now, UNKNOWN)
    assert recovery(ring, now) == now + 60


def test_a_preferred_lease_is_kept_while_it_may_be() -> None:
    ring = ring_of(3)
    first = take(ring, 0)
    assert take(ring, 1, prefer=first).index == first.index
    ring.disable(first.index, "gone")
    assert take(ring, 2, prefer=first).index != first.index


def test_a_preferred_lease_whose_domain_cools_is_not() -> None:
    ring = ring_of(2)
    first = take(ring, 0)
    ring.park(0, 30, 0.0, "m")
    assert take(ring, 1, prefer=first).index == 1


def test_excluded_but_ready_domains_are_ready_now_and_keep_their_turn() -> None:
    ring = ring_of(3)
    got = ring.choose("m", 5.0, exclude={0, 1, 2})
    assert isinstance(got, Unready)
    assert got.recovers == 5.0
    assert [take(ring, 5).index for _ in range(3)] == [0, 1, 2]


def test_denied_and_disabled_keys_are_told_apart() -> None:
    ring = ring_of(4, per_domain=2)
    ring.book(take(ring, 0), Outcome(Kind.BAD_KEY, "dead"), 0, WALL)
    ring.book(take(ring, 0), Outcome(Kind.PROJECT_MODEL), 0, WALL)
    ring.book(take(ring, 0), Outcome(Kind.KEY_MODEL), 0, WALL)
    got = ring.choose("m", 0.0)
    assert isinstance(got, Unready)
    assert (got.disabled, got.denied, got.cooling, got.recovers) == (1, 3, 0, None)
    assert take(ring, 0, "another").index in (1, 2, 3)
    assert [state.disabled for state in ring.states(0)] == ["dead", None, None, None]


def test_models_that_callers_make_up_fill_no_memory() -> None:
    """Callers of the gateway name models; each unknown name is denied by every key once."""
    ring = ring_of(2)
    for number in range(3 * MOST_DENIED):
        for _ in range(2):
            ring.book(take(ring, 0, f"made-up-{number}"), Outcome(Kind.PROJECT_MODEL), 0, WALL)
    kept = [len(entry.denied) for entry in ring._entries]
    assert kept == [MOST_DENIED, MOST_DENIED]
    assert len(ring._denied) == MOST_DENIED
    last = ring.choose(f"made-up-{3 * MOST_DENIED - 1}", 0)
    assert isinstance(last, Unready)
    assert (last.denied, last.cooling) == (2, 0)
    assert take(ring, 0, "made-up-0").index in (0, 1), "what was forgotten is asked again"
    ring.enable(0)
    ring.disable(1, "by hand")
    assert not +ring._denied


@pytest.mark.parametrize("trouble", ["disable", "deny", "park"])
def test_enabling_brings_a_key_back_at_once(trouble: str) -> None:
    ring = ring_of(1)
    lease = take(ring, 0)
    if trouble == "disable":
        ring.disable(0, "by hand")
    elif trouble == "deny":
        ring.book(lease, Outcome(Kind.KEY_MODEL), 0, WALL)
    else:
        ring.park(0, 1e6, 0.0)
    assert isinstance(ring.choose("m", 1.0), Unready)
    ring.enable(0)
    assert take(ring, 1).index == 0
    assert isinstance(ring.choose("m", 1.0, exclude={0}), Unready)


def test_states_are_copies() -> None:
    ring = ring_of(1)
    before = ring.states(0)[0].stats
    ring.book(take(ring, 0), GOOD, 0, WALL)
    assert before.successes == 0
    assert ring.states(0)[0].stats.successes == 1


def test_a_probe_that_is_due_but_not_for_this_call_is_nothing_to_wait_for() -> None:
    """Else whoever waits for it would ask again and again at the same instant."""
    ring = ring_of(1)
    refuse(ring, take(ring, 0), 0)
    (park,) = ring.state(0, 1).parks.values()
    assert ring.closed("m", HOUR - 1)[1].recovers == HOUR
    assert ring.closed("m", HOUR + 1)[1].recovers == park.until
    assert ring.lease_probe("m", HOUR + 1, {0}) is None
