"""The retry budget is never exceeded, over any history."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.retry_budget import PARTS, SPAN, BudgetRules, RetryBudget

PART = SPAN / PARTS

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 30)),
        st.tuples(st.just("extra"), st.integers(1, 30)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 9.0, 10.0, 55.0, 111.0, 120.0, 1000.0])),
    ),
    max_size=60,
)
SHARES = st.sampled_from([0.0, 0.05, 0.1, 0.2, 1 / 3, 1.0, 2.0])


@given(STEPS, SHARES, st.integers(0, 12), st.floats(0, 10**7))
def test_it_agrees_with_one_that_remembers_everything(
    steps: list[tuple[str, Any]], share: float, floor: int, start: float
) -> None:
    budget = RetryBudget(BudgetRules(share, floor))
    calls: list[float] = []
    extras: list[float] = []
    now = start

    def covered(times: list[float]) -> int:
        oldest = now // PART - PARTS + 1
        return sum(each // PART >= oldest for each in times)

    for what, amount in steps:
        if what == "wait":
            now += amount
            continue
        for _ in range(amount):
            if what == "call":
                budget.called(now)
                calls.append(now)
                continue
            fits = covered(extras) + 1 <= share * covered(calls) + floor + 1e-9
            assert budget.spend(now) == fits
            if fits:
                extras.append(now)


@given(STEPS, SHARES, st.integers(0, 12))
def test_in_no_stretch_there_are_more_extra_sends_than_allowed(
    steps: list[tuple[str, Any]], share: float, floor: int
) -> None:
    """Take any 110 seconds: what was sent beyond the calls is at most the floor and the share of the
    calls of those seconds and the ten before."""
    budget = RetryBudget(BudgetRules(share, floor))
    calls: list[float] = []
    extras: list[float] = []
    now = 0.0
    for what, amount in steps:
        if what == "wait":
            now += amount
        for _ in range(0 if what == "wait" else amount):
            if what == "call":
                budget.called(now)
                calls.append(now)
            elif budget.spend(now):
                extras.append(now)
    for last in set(extras):
        sent = sum(last - (SPAN - PART) <= each <= last for each in extras)
        asked = sum(last - SPAN <= each <= last for each in calls)
        assert sent <= share * asked + floor + 1e-9


def test_the_share_is_exact_where_floats_are_not() -> None:
    budget = RetryBudget(BudgetRules(share=0.1, floor=0))
    for _ in range(30):
        budget.called(0.0)
    assert [budget.spend(0.0) for _ in range(4)] == [True, True, True, False]


def test_a_quiet_process_may_still_try_again() -> None:
    budget = RetryBudget(BudgetRules(share=0.0, floor=10))
    assert [budget.spend(5.0) for _ in range(11)] == [True] * 10 + [False]
    assert not budget.spend(119.9)
    assert budget.spend(120.0), "what was spent in the first ten seconds is forgotten"


def test_a_clock_that_steps_back_for_another_thread_costs_no_count() -> None:
    budget = RetryBudget(BudgetRules(share=1.0, floor=0))
    budget.called(100.0)
    budget.called(89.0)
    assert [budget.spend(95.0) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("wrong", [{"share": -0.1}, {"share": float("inf")}, {"floor": -1}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="retry budget needs"):
        BudgetRules(**wrong)
