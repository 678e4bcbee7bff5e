"""The learned limit of calls at once: additive increase, multiplicative decrease, and forgetting."""

from __future__ import annotations

import heapq
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.concurrency import Concurrency, ConcurrencyRules, Flight

RULES = ConcurrencyRules(decrease=0.5, least=1, forget_seconds=100)


def in_flight(learned: Concurrency, count: int, now: float = 0.0) -> list[Flight]:
    return [learned.begin(now) for _ in range(count)]


def test_there_is_no_limit_until_the_upstream_has_too_much() -> None:
    learned = Concurrency(RULES)
    for number, flight in enumerate(in_flight(learned, 1000)):
        learned.succeeded(flight, 1.0 + number)
    assert learned.limit is None
    assert learned.in_flight == 0


def test_an_overload_leaves_a_share_of_what_was_under_way() -> None:
    learned = Concurrency(RULES)
    first, *_ = in_flight(learned, 40)
    learned.overloaded(first, 1.0)
    assert (learned.limit, learned.in_flight) == (20, 39)


def test_thirty_refusals_of_one_burst_lower_it_once() -> None:
    learned = Concurrency(RULES)
    for flight in in_flight(learned, 40):
        learned.overloaded(flight, 1.0)
    assert learned.limit == 20


def test_a_refusal_of_what_left_afterwards_lowers_it_again() -> None:
    learned = Concurrency(RULES)
    for flight in in_flight(learned, 40):
        learned.overloaded(flight, 1.0)
    for expected in (10, 5, 2, 1, 1):
        flights = in_flight(learned, learned.limit or 0, 2.0)
        learned.overloaded(flights[0], 2.0)
        assert learned.limit == expected
        for flight in flights[1:]:
            learned.ended(flight)


def test_what_is_under_way_counts_where_it_is_less_than_the_limit() -> None:
    learned = Concurrency(RULES)
    learned.overloaded(in_flight(learned, 40)[0], 1.0)
    learned.in_flight = 0
    flights = in_flight(learned, 8, 2.0)
    learned.overloaded(flights[0], 2.0)
    assert learned.limit == 4


def held_to(limit: int) -> Concurrency:
    learned = Concurrency(RULES)
    flights = in_flight(learned, limit * 2)
    learned.overloaded(flights[0], 0.0)
    for flight in flights[1:]:
        learned.ended(flight)
    assert (learned.limit, learned.in_flight) == (limit, 0)
    return learned


def test_it_grows_by_one_for_each_round_of_answers() -> None:
    learned = held_to(10)
    running = in_flight(learned, 10, 1.0)
    for _ in range(200):
        learned.succeeded(running.pop(0), 1.0)
        while learned.in_flight < (learned.limit or 0):
            running.append(learned.begin(1.0))
    assert learned.limit == 22, "10 + 11 + … + 21 answers lead from 10 to 22"


def test_a_round_that_ends_in_one_moment_counts_as_a_whole() -> None:
    learned = held_to(10)
    for expected in range(11, 16):
        for flight in in_flight(learned, learned.limit or 0, 1.0):
            learned.succeeded(flight, 2.0)
        learned.succeeded(learned.begin(2.0), 2.0)  # ten tenths are a little less than one
        assert learned.limit in (expected - 1, expected)
    assert learned.limit in (14, 15)


def test_one_full_round_adds_one_and_no_more() -> None:
    learned = held_to(10)
    running = in_flight(learned, 10, 1.0)
    for _ in range(11):  # 1/10 + 1/10.1 + … passes 1 with the eleventh answer
        learned.succeeded(running.pop(0), 1.0)
        running.append(learned.begin(1.0))
    assert learned.limit == 11


def test_it_does_not_grow_while_it_is_not_used_up() -> None:
    learned = held_to(10)
    for _ in range(1000):
        learned.succeeded(learned.begin(1.0), 1.0)
    assert learned.limit == 10


def test_answers_to_what_left_before_the_decrease_do_not_raise_it() -> None:
    learned = Concurrency(RULES)
    flights = in_flight(learned, 40)
    learned.overloaded(flights[0], 0.0)
    learned.begin(1.0)  # the limit is used up, and by far
    for flight in flights[1:]:
        learned.succeeded(flight, 1.0)
    assert learned.limit == 20


def test_a_limit_that_is_not_reached_for_long_is_forgotten() -> None:
    learned = held_to(10)
    learned.succeeded(learned.begin(99.0), 99.0)
    assert learned.limit == 10
    learned.succeeded(learned.begin(101.0), 101.0)
    assert learned.limit is None


def test_a_limit_that_is_reached_is_kept() -> None:
    learned = held_to(3)
    for now in range(0, 2000, 50):
        for flight in in_flight(learned, learned.limit or 0, float(now)):
            learned.ended(flight)
    assert learned.limit == 3


def test_a_failure_that_says_nothing_about_load_moves_nothing() -> None:
    learned = held_to(4)
    for flight in in_flight(learned, 4, 1.0):
        learned.ended(flight)
    assert (learned.limit, learned.in_flight) == (4, 0)


@pytest.mark.parametrize(
    "wrong", [{"decrease": 0}, {"decrease": 1}, {"least": 0}, {"forget_seconds": 0}]
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="concurrency needs"):
        ConcurrencyRules(**wrong)


FATES = st.sampled_from(["succeeded", "overloaded", "ended"])


@given(
    st.lists(st.one_of(st.just("begin"), st.tuples(FATES, st.integers(0, 50)), st.floats(0, 200))),
    st.integers(1, 4),
)
def test_over_any_history_it_counts_right_and_stays_in_bounds(steps: list[Any], least: int) -> None:
    """In flight is what began and has not ended; a limit is never below the least, never rises by more
    than one with an answer, and falls only with an overload or by being forgotten."""
    learned = Concurrency(ConcurrencyRules(decrease=0.7, least=least, forget_seconds=50))
    out: list[Flight] = []
    now = 0.0
    for step in steps:
        before = learned.limit
        if isinstance(step, float):
            now += step
        elif step == "begin":
            out.append(learned.begin(now))
        elif out:
            fate, place = step
            flight = out.pop(place % len(out))
            if fate == "ended":
                learned.ended(flight)
            else:
                getattr(learned, fate)(flight, now)
            if fate != "overloaded" and before is not None and learned.limit is not None:
                assert before <= learned.limit <= before + 1
            if fate == "overloaded" and before is not None:
                assert learned.limit is not None
                assert learned.limit <= max(before, least)
        assert learned.in_flight == len(out)
        assert learned.limit is None or learned.limit >= least
        if before is None and learned.limit is not None:
            assert step[0] == "overloaded"


@pytest.mark.parametrize(("capacity", "most_refused"), [(4, 0.2), (30, 0.01)])
def test_before_an_upstream_with_a_known_knee_it_stays_near_it(
    capacity: int, most_refused: float
) -> None:
    """An upstream that serves so many at once and refuses the rest at once; ever more callers than
    that. Once the limit is found, refusals are rare and the upstream is kept busy."""
    learned, now, number = Concurrency(ConcurrencyRules()), 0.0, 0
    running: list[tuple[float, int, Flight]] = []
    refused = served = busy = looks = 0
    for flight in in_flight(learned, 3 * capacity):  # a burst without any limit
        number += 1
        if len(running) < capacity:
            heapq.heappush(running, (1.0 + number / 100, number, flight))
        else:
            learned.overloaded(flight, now)
    while served < 4000:
        while learned.limit is None or learned.in_flight < learned.limit:
            number += 1
            flight = learned.begin(now)
            if len(running) < capacity:
                heapq.heappush(running, (now + 1 + (number % 7) / 10, number, flight))
            else:
                learned.overloaded(flight, now)
                refused += served > 1000
        now, _, flight = heapq.heappop(running)
        learned.succeeded(flight, now)
        served += 1
        busy += len(running) + 1
        looks += 1
    assert refused / (served - 1000) <= most_refused
    assert busy / looks >= 0.7 * capacity
