"""The least a line of waiting calls lasts."""

from __future__ import annotations

import pytest

from headgate.core.quota import Counts, Kind, Limit
from headgate.policy.quota.outlook import capacity, least_wait

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
