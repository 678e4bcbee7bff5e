"""Fair queueing: what callers are given while they wait, and the order of classes.

The scenarios follow those of Kubernetes' API priority and fairness (`queueset_test.go`): uniform flows,
unequal flows, wide calls, no wind-up while idle, cancelled calls; in calls instead of seat-seconds.
"""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.quota import Counts
from headgate.policy.fairness import MOST_FLOWS, PASSED_OVER, ClassQueue, FairQueue

NORMAL = 2


class Pool:
    """A queue whose callers never run out of calls, and what each was given."""

    def __init__(self, **flows: tuple[float, float]) -> None:
        self.queue: FairQueue[int] = FairQueue()
        self.flows = flows
        self.given: Counter[str] = Counter()
        self.owner: dict[int, str] = {}
        self.numbers = count()
        for flow in flows:
            for _ in range(3):
                self.ask(flow)

    def ask(self, flow: str) -> int:
        cost, weight = self.flows[flow]
        number = next(self.numbers)
        self.owner[number] = flow
        self.queue.push(number, flow, cost, {Counts.REQUESTS: 1}, weight)
        return number

    def turn(self) -> str:
        (number,) = self.queue.first(1)
        flow = self.owner[number]
        self.queue.serve(number)
        self.given[flow] += self.flows[flow][0]
        self.ask(flow)
        return flow


def test_uniform_flows_take_turns() -> None:
    pool = Pool(a=(1, 1), b=(1, 1), c=(1, 1))
    assert [pool.turn() for _ in range(9)] == ["a", "b", "c"] * 3


def test_a_flow_with_many_waiting_calls_gets_no_more_than_one_with_few() -> None:
    pool = Pool(many=(1, 1), few=(1, 1))
    for _ in range(500):
        pool.ask("many")
    for _ in range(100):
        pool.turn()
    assert pool.given == {"many": 50, "few": 50}


def test_wide_calls_get_fewer_turns() -> None:
    pool = Pool(wide=(10, 1), narrow=(1, 1))
    turns = Counter(pool.turn() for _ in range(1100))
    assert turns["narrow"] == pytest.approx(1000, abs=10)
    assert turns["wide"] == pytest.approx(100, abs=1)


def test_twice_the_weight_is_given_twice_as_much() -> None:
    pool = Pool(double=(3, 2), single=(3, 1))
    for _ in range(300):
        pool.turn()
    assert pool.given["double"] == pytest.approx(2 * pool.given["single"], abs=6)


def test_nothing_is_saved_up_while_idle() -> None:
    pool = Pool(busy=(1, 1))
    for _ in range(1000):
        pool.turn()
    pool.flows["late"] = (1, 1)
    for _ in range(5):
        pool.ask("late")
    turns = Counter(pool.turn() for _ in range(10))
    assert abs(turns["busy"] - turns["late"]) <= 2


def test_a_call_that_leaves_is_not_charged() -> None:
    pool = Pool(a=(1, 1), b=(1, 1))
    for _ in range(50):
        pool.queue.remove(pool.ask("a"))
        number = pool.queue.first(1)[0]
        flow = pool.owner[number]
        pool.queue.remove(number)  # also a first one
        pool.ask(flow)
    assert Counter(pool.turn() for _ in range(20)) == {"a": 10, "b": 10}


def test_whoever_costs_more_than_was_estimated_pays_later() -> None:
    pool = Pool(honest=(1, 1), liar=(1, 1))
    truly: Counter[str] = Counter()
    for _ in range(400):
        flow = pool.turn()
        truly[flow] += 4 if flow == "liar" else 1
        if flow == "liar":
            pool.queue.correct("liar", 3.0)
    assert truly["liar"] == pytest.approx(truly["honest"], abs=8)


def test_whoever_costs_less_than_was_estimated_is_given_the_rest() -> None:
    pool = Pool(honest=(1, 1), modest=(10, 1))
    truly: Counter[str] = Counter()
    for _ in range(400):
        flow = pool.turn()
        truly[flow] += 1
        if flow == "modest":
            pool.queue.correct("modest", -9.0)
    assert truly["modest"] == pytest.approx(truly["honest"], abs=12)


def test_a_flow_that_is_overtaken_by_its_own_calls_is_charged_for_them() -> None:
    queue: FairQueue[str] = FairQueue()
    for name in ("a0", "a1", "a2"):
        queue.push(name, "a", 5.0 if name == "a0" else 1.0, {})
    queue.push("b0", "b", 1.0, {})
    assert queue.first(9) == ["a0", "b0", "a1", "a2"]
    queue.serve("a1")  # it fitted where a0 did not
    assert queue.first(9) == ["b0", "a0", "a2"]


def test_the_first_calls_come_in_order_and_stay() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(4):
        queue.push(f"a{number}", "a", 2.0, {})
        queue.push(f"b{number}", "b", 3.0, {})
    #            a starts at 0 2 4 6, b at 0 3 6 9
    order = ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]
    assert [queue.first(most) for most in range(10)] == [order[:most] for most in range(10)]


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, tuple[float, list[float]]], int]:
    flows = {
        name: (
            float(draw(st.integers(1, 5))),
            [float(c) for c in draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))],
        )
        for name in draw(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=5, unique=True))
    }
    return flows, draw(st.integers(1, 120))


@given(histories())
def test_two_flows_that_wait_differ_by_one_call_of_each_at_the_most(
    history: tuple[dict[str, tuple[float, list[float]]], int],
) -> None:
    flows, turns = history
    queue: FairQueue[tuple[str, int]] = FairQueue()
    given_to = dict.fromkeys(flows, 0.0)
    for flow, (weight, costs) in flows.items():
        for number in range(turns + 1):
            queue.push((flow, number), flow, costs[number % len(costs)], {}, weight)
    for _ in range(turns):
        flow, number = queue.first(1)[0]
        queue.serve((flow, number))
        weight, costs = flows[flow]
        given_to[flow] += costs[number % len(costs)] / weight
        most = {name: max(row) / w for name, (w, row) in flows.items()}
        for one in flows:
            for other in flows:
                assert abs(given_to[one] - given_to[other]) <= most[one] + most[other] + 1e-9


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(1, 9)), max_size=60))
def test_first_agrees_with_taking_one_after_the_other(calls: list[tuple[int, str, int]]) -> None:
    def fill() -> ClassQueue[int]:
        queue: ClassQueue[int] = ClassQueue(4)
        for number, (rank, flow, cost) in enumerate(calls):
            queue.push(number, rank, flow, float(cost), {Counts.REQUESTS: 1})
        return queue

    queue = fill()
    taken = []
    while queue:
        (item,) = queue.first(1)
        taken.append(item)
        queue.serve(item)
    assert sorted(taken) == list(range(len(calls)))
    # As long as no class becomes due on the way, both orders are the same.
    assert fill().first(PASSED_OVER) == taken[:PASSED_OVER]


# ── classes ─────────────────────────────────────────────────────────────────────────────────────


def test_the_higher_class_goes_first() -> None:
    queue: ClassQueue[str] = ClassQueue(4)
    for rank, name in ((3, "low"), (2, "normal"), (0, "critical"), (1, "high")):
        queue.push(name, rank, "", 1.0, {})
    assert queue.first(4) == ["critical", "high", "normal", "low"]


def test_no_class_starves_and_the_top_keeps_four_fifths() -> None:
    queue: ClassQueue[tuple[int, int]] = ClassQueue(4)
    numbers = count()
    for rank in range(4):
        for _ in range(2):
            queue.push((rank, next(numbers)), rank, "", 1.0, {})
    turns: Counter[int] = Counter()
    for _ in range(1500):
        item = queue.first(1)[0]
        queue.serve(item)
        turns[item[0]] += 1
        queue.push((item[0], next(numbers)), item[0], "", 1.0, {})
    assert turns[0] >= 0.8 * 1500
    assert all(turns[rank] >= 1500 / (PASSED_OVER + 5) - 1 for rank in (1, 2, 3))


def test_a_class_that_did_not_wait_has_no_turn_due() -> None:
    queue: ClassQueue[str] = ClassQueue(4)
    for number in range(100):
        queue.push(f"c{number}", 0, "", 1.0, {})
        queue.serve(f"c{number}")
    queue.push("c", 0, "", 1.0, {})
    queue.push("low", 3, "", 1.0, {})
    assert queue.first(1) == ["c"]


# ── what goes before ────────────────────────────────────────────────────────────────────────────


def test_what_goes_before_a_newcomer() -> None:
    queue: ClassQueue[str] = ClassQueue(4)
    for number in range(10):
        queue.push(f"a{number}", NORMAL, "a", 1.0, {Counts.REQUESTS: 1, Counts.INPUT: 7})
    assert queue.ahead(NORMAL, "a") == {Counts.REQUESTS: 10, Counts.INPUT: 70}
    assert not +queue.ahead(NORMAL, "b")  # a caller of its own need not wait behind them
    assert not +queue.ahead(0, "a")
    assert queue.ahead(3, "a")[Counts.REQUESTS] == 10


def test_a_low_class_waits_for_its_turn_only() -> None:
    queue: ClassQueue[str] = ClassQueue(4)
    for number in range(100):
        queue.push(f"c{number}", 0, "", 1.0, {Counts.REQUESTS: 1})
    assert queue.ahead(3, "")[Counts.REQUESTS] == PASSED_OVER
    queue.push("l0", 3, "", 1.0, {Counts.REQUESTS: 1})
    assert queue.ahead(3, "")[Counts.REQUESTS] == 2 * PASSED_OVER + 1


def test_callers_who_come_and_go_are_forgotten() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(5 * MOST_FLOWS):
        queue.push(number, f"caller {number}", 1.0, {})
        queue.serve(number)
    assert len(queue._flows) <= MOST_FLOWS + 1
    assert len(queue._heads) <= 2 * MOST_FLOWS + 65
