"""Wards: what counts against a model, and what is remembered of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from headgate.core.call import Operation
from headgate.core.outcome import RULES, Kind, Next, Outcome
from headgate.engine import protection as rooms
from headgate.engine.passage import AttemptFailed
from headgate.engine.protection import Protection, ProtectionRules, Ward
from headgate.policy.breaker import BreakerRules, BreakerState
from headgate.policy.concurrency import ConcurrencyRules
from headgate.policy.retry_budget import BudgetRules
from headgate.testing import VirtualClock

ONE_FAILURE = ProtectionRules(
    breaker=BreakerRules(failures=1, successes=1), concurrency=ConcurrencyRules()
)

TRIPS = {Kind.SERVER, Kind.OVERLOAD, Kind.NETWORK, Kind.TIMEOUT, Kind.PROTOCOL, Kind.TLS}
SLOWS = {Kind.OVERLOAD, Kind.CAPACITY, Kind.TIMEOUT}


def end(ward: Ward, outcome: Outcome, deadline: float | None = None) -> None:
    ward.send(deadline).ended(outcome)


@pytest.mark.parametrize("kind", Kind)
def test_s3_04d_only_what_speaks_for_the_upstream_trips_it(kind: Kind) -> None:
    """Quota, keys, callers' mistakes, blocked prompts and cancellations never do."""
    ward = Ward("m", ONE_FAILURE, VirtualClock())
    end(ward, Outcome(kind))
    assert (ward.state is BreakerState.OPEN) == (kind in TRIPS)
    assert (ward.limit is not None) == (kind in SLOWS)
    assert ward.in_flight == 0


@pytest.mark.parametrize("kind", Kind)
def test_s3_04d_only_an_answer_closes_it(kind: Kind) -> None:
    clock = VirtualClock()
    ward = Ward("m", ONE_FAILURE, clock)
    end(ward, Outcome(Kind.SERVER))
    clock.advance(60)
    end(ward, Outcome(kind))
    expected = BreakerState.OPEN if kind in TRIPS else BreakerState.HALF_OPEN
    assert ward.state is (BreakerState.CLOSED if kind is Kind.SUCCESS else expected)


def test_every_quota_and_key_refusal_is_among_what_says_nothing() -> None:
    """A kind that is added later cannot slip in by being forgotten here."""
    for kind, rule in RULES.items():
        if rule.is_quota or rule.next is Next.ROTATE:
            assert kind not in rooms._FAULTS


@pytest.mark.parametrize(
    ("status", "slows"), [(500, False), (502, False), (503, True), (504, True), (529, True)]
)
def test_a_fault_of_the_server_lowers_the_limit_where_its_status_speaks_of_load(
    status: int, slows: bool
) -> None:
    ward = Ward("m", ONE_FAILURE, VirtualClock())
    end(ward, Outcome(Kind.SERVER, status=status))
    assert (ward.limit is not None) == slows


def test_running_into_the_callers_own_deadline_says_nothing() -> None:
    clock = VirtualClock()
    ward = Ward("m", ONE_FAILURE, clock)
    sending = ward.send(5.0)
    clock.advance(5)
    sending.ended(Outcome(Kind.TIMEOUT))
    assert (ward.state, ward.limit) == (BreakerState.CLOSED, None)
    sending = ward.send(50.0)
    clock.advance(20)  # the upstream was silent for too long, well before the caller gave up
    sending.ended(Outcome(Kind.TIMEOUT))
    assert ward.state is BreakerState.OPEN


def test_an_open_breaker_refuses_with_the_exact_wait() -> None:
    clock = VirtualClock()
    ward = Ward("gemini-x", ONE_FAILURE, clock)
    end(ward, Outcome(Kind.SERVER))
    clock.advance(12.5)
    for ask in (ward.refuse_while_open, lambda: ward.send(None)):
        with pytest.raises(AttemptFailed) as caught:
            ask()
        outcome = caught.value.outcome
        assert (outcome.kind, outcome.retry_after) == (Kind.BREAKER_OPEN, 47.5)
        assert not caught.value.sent
        assert "gemini-x failed several times in a row" in outcome.message
        assert "48 s" in outcome.message
    assert ward.in_flight == 0


def test_half_open_it_lets_so_many_through_and_says_why_no_more() -> None:
    clock = VirtualClock()
    ward = Ward("m", ProtectionRules(breaker=BreakerRules(failures=1, probes=2)), clock)
    end(ward, Outcome(Kind.SERVER))
    clock.advance(60)
    for _ in range(2):
        ward.refuse_while_open()
        ward.send(None)
    with pytest.raises(AttemptFailed, match=Kind.BREAKER_OPEN) as caught:
        ward.refuse_while_open()
    assert "finding out" in caught.value.outcome.message
    assert caught.value.outcome.retry_after == 1


def test_without_rules_nothing_is_refused_counted_or_hedged() -> None:
    ward = Ward("m", ProtectionRules(), VirtualClock())
    for _ in range(100):
        ward.refuse_while_open()
        end(ward, Outcome(Kind.OVERLOAD))
        ward.called()
        assert ward.may_retry()
    assert not ward.may_hedge()
    assert (ward.state, ward.limit, ward.waiting, ward.places) == (BreakerState.CLOSED, None, 0, None)
    assert not ProtectionRules().guards
    assert not ProtectionRules().budgets


def test_hedges_are_held_to_a_share_of_the_calls_and_to_quiet_times() -> None:
    rules = ProtectionRules(
        breaker=BreakerRules(failures=2), concurrency=ConcurrencyRules(), hedge_after=1.0
    )
    ward = Ward("m", rules, VirtualClock())
    for _ in range(100):
        ward.called()
    assert [ward.may_hedge() for _ in range(7)] == [True] * 6 + [False], "5 % and one"
    busy = Ward("m", rules, VirtualClock())
    end(busy, Outcome(Kind.CAPACITY))
    assert not busy.may_hedge(), "it has too much already"
    sick = Ward("m", rules, VirtualClock())
    end(sick, Outcome(Kind.SERVER))
    end(sick, Outcome(Kind.SERVER))
    assert not sick.may_hedge()


def test_models_do_not_share_a_fate() -> None:
    guarded = Protection(ONE_FAILURE, VirtualClock())
    end(guarded.ward("down"), Outcome(Kind.SERVER))
    guarded.ward("up").refuse_while_open()
    assert guarded.states() == {"down": BreakerState.OPEN, "up": BreakerState.CLOSED}
    assert guarded.state("down") is BreakerState.OPEN
    assert guarded.state("never called") is BreakerState.CLOSED
    assert guarded.limit("never called") is None


def test_counting_tokens_has_a_ward_of_its_own_and_is_not_shown() -> None:
    guarded = Protection(ONE_FAILURE, VirtualClock())
    end(guarded.ward("m", Operation.COUNT), Outcome(Kind.SERVER))
    guarded.ward("m").refuse_while_open()
    assert guarded.states() == {"m": BreakerState.CLOSED}
    with pytest.raises(AttemptFailed):
        guarded.ward("m", Operation.COUNT).refuse_while_open()


def test_without_a_breaker_there_are_no_states() -> None:
    guarded = Protection(ProtectionRules(concurrency=ConcurrencyRules()), VirtualClock())
    end(guarded.ward("m"), Outcome(Kind.OVERLOAD))
    assert guarded.states() == {}
    assert guarded.limit("m") == 1


def test_in_flight_is_over_all_models() -> None:
    guarded = Protection(ONE_FAILURE, VirtualClock())
    first, _ = guarded.ward("a").send(None), guarded.ward("b").send(None)
    assert guarded.in_flight == 2
    first.ended(Outcome(Kind.SUCCESS))
    assert (guarded.in_flight, guarded.waiting) == (1, 0)


def test_however_many_models_are_named_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forgotten is what a new one would be the same as: an open breaker is not."""
    monkeypatch.setattr(rooms, "MOST_WARDS", 5)
    guarded = Protection(ONE_FAILURE, VirtualClock())
    end(guarded.ward("down"), Outcome(Kind.SERVER))
    busy = guarded.ward("busy").send(None)
    for number in range(1000):
        end(guarded.ward(f"model-{number}"), Outcome(Kind.REQUEST))
    assert len(guarded.states()) <= 5
    assert guarded.state("down") is BreakerState.OPEN
    assert guarded.ward("busy").in_flight == 1
    busy.ended(Outcome(Kind.SUCCESS))
    for number in range(10):  # nothing is idle any more: the oldest goes
        end(guarded.ward(f"broken-{number}"), Outcome(Kind.SERVER))
    assert len(guarded.states()) <= 5


def test_an_attempt_ends_well_on_a_ward_that_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MOST_WARDS", 1)
    guarded = Protection(ONE_FAILURE, VirtualClock())
    sending = guarded.ward("a").send(None)
    guarded.ward("b")
    sending.ended(Outcome(Kind.SERVER))
    assert guarded.states() == {"b": BreakerState.CLOSED}


@pytest.mark.parametrize("wrong", [{"hedge_after": 0.0}, {"hedge_after": float("inf")}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hedge_after"):
        ProtectionRules(**wrong)


def test_the_floor_and_share_of_retries_reach_the_ward() -> None:
    ward = Ward("m", ProtectionRules(retries=BudgetRules(share=0.5, floor=1)), VirtualClock())
    ward.called()
    ward.called()
    assert [ward.may_retry() for _ in range(3)] == [True, True, False]


def test_a_probe_that_is_refused_says_nothing_of_how_many_at_once() -> None:
    """Else an outage would leave a limit of one, and calls would crawl long after its end."""
    clock = VirtualClock()
    rules = ProtectionRules(
        breaker=BreakerRules(failures=5), concurrency=ConcurrencyRules(decrease=0.5)
    )
    ward = Ward("m", rules, clock)
    for sending in [ward.send(None) for _ in range(20)]:
        sending.ended(Outcome(Kind.OVERLOAD))
    assert (ward.state, ward.limit) == (BreakerState.OPEN, 10)
    for _ in range(3):
        clock.advance(60)
        end(ward, Outcome(Kind.OVERLOAD))
    assert (ward.state, ward.limit) == (BreakerState.OPEN, 10)


def test_threads_share_a_ward_without_losing_count() -> None:
    ward = Ward("m", ONE_FAILURE, VirtualClock())
    fates = [Kind.SUCCESS, Kind.CANCELLED, Kind.CAPACITY, Kind.REQUEST]

    def work(number: int) -> None:
        for turn in range(500):
            sending = ward.send(None)
            ward.called()
            sending.ended(Outcome(fates[(number + turn) % len(fates)]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ward.in_flight, ward.state) == (0, BreakerState.CLOSED)
    assert ward._concurrency is not None
    assert ward._concurrency.in_flight == 0
