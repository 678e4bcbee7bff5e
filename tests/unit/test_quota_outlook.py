"""The least a line of waiting calls lasts."""

from __future__ import annotations

import pytest

from headgate.core.quota import Counts, Kind, Limit
from headgate.policy.quota.outlook import capacity, least_wait, roomiest, share

RPM = Limit("rpm", Counts.REQUESTS, 10)


def test_the_limits_of_a_pool_add_up() -> None:
    pool = capacity([[RPM], [RPM, Limit("tpm", Counts.INPUT, 5)]])
    assert pool == {Counts.REQUESTS: (20, 60_000)}  # the first domain limits no tokens


def test_days_and_slots_are_no_rate() -> None:
    day = Limit("rpd", Counts.REQUESTS, 5, Kind.CALENDAR, 86_400_000)
    assert capacity([[day, Limit("c", Counts.SLOTS, 3, Kind.CONCURRENT)]]) == {}
    assert capacity([]) == {}


@pytest.mark.parametrize(
    ("backlog", "seconds"), [(0, 0), (1, 0), (20, 0), (21, 60), (40, 60), (41, 120)]
)
def test_each_full_pool_ahead_costs_a_window(backlog: int, seconds: float) -> None:
    assert least_wait({Counts.REQUESTS: (20, 60_000)}, {Counts.REQUESTS: backlog}) == seconds


def test_the_scarcest_count_decides() -> None:
    pool = {Counts.REQUESTS: (20, 60_000), Counts.INPUT: (100, 60_000)}
    assert least_wait(pool, {Counts.REQUESTS: 5, Counts.INPUT: 350, Counts.OUTPUT: 9}) == 180


def test_a_share_is_that_of_what_a_call_takes_most_of() -> None:
    pool = {Counts.REQUESTS: (20, 60_000), Counts.INPUT: (1000, 60_000)}
    assert share(pool, {Counts.REQUESTS: 1, Counts.INPUT: 10, Counts.OUTPUT: 10**9}) == 0.05
    assert share(pool, {Counts.REQUESTS: 1, Counts.INPUT: 500}) == 0.5
    assert share({}, {Counts.REQUESTS: 1, Counts.INPUT: 500}) == 1


def test_the_roomiest_domain_is_where_a_call_is_smallest() -> None:
    small, large = Limit("tpm", Counts.INPUT, 100), Limit("tpm", Counts.INPUT, 300)
    domains = [[small], [large, RPM], [large]]
    costs = {Counts.INPUT: 90, Counts.REQUESTS: 9}
    assert roomiest(domains, costs, ()) == 2  # of the second it takes nine in ten requests
    assert roomiest(domains, costs, {2}) == 0
    assert roomiest(domains, {Counts.INPUT: 200}, {1, 2}) is None
    assert roomiest([], costs, ()) is None
    assert roomiest([[small], []], costs, ()) == 1  # whoever limits nothing
