"""S3-05k: a forecast finds the line and the shape that are there, and its interval holds what comes."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.forecast import LEAST_HOURS, forecast

SHAPES = st.lists(st.floats(0, 100), min_size=24, max_size=24)


@given(st.integers(LEAST_HOURS, 200), st.floats(0, 1e6))
def test_what_was_always_the_same_stays_so(hours: int, value: float) -> None:
    made = forecast([value] * hours, 48)
    assert made is not None
    for point in made.points:
        assert point.expected == pytest.approx(value)
        assert point.high - point.low <= 1e-6 * max(1.0, value)
    assert made.change_per_day == pytest.approx(0, abs=1e-6 * max(1.0, value))
    assert made.total.expected == pytest.approx(48 * value)


@given(st.integers(LEAST_HOURS, 200), st.floats(100, 1000), st.floats(0, 10))
def test_a_line_goes_on(hours: int, level: float, slope: float) -> None:
    made = forecast([level + slope * hour for hour in range(hours)], 30, first_hour=7)
    assert made is not None
    assert made.change_per_day == pytest.approx(24 * slope, abs=1e-6)
    used = hours if hours < 48 else hours // 24 * 24
    assert made.hours == used
    assert [point.hour for point in made.points] == list(range(7, 37))
    for step, point in enumerate(made.points):
        assert point.expected == pytest.approx(level + slope * (hours + step), rel=1e-6)


@given(SHAPES, st.integers(2, 9), st.floats(0, 3), st.integers(0, 23))
def test_the_shape_of_a_day_comes_again_upon_its_line(
    shape: list[float], days: int, slope: float, more: int
) -> None:
    def value(hour: int) -> float:
        return 10 + slope * hour + shape[hour % 24]

    hours = 24 * days + more
    made = forecast([value(hour) for hour in range(hours)], 48)
    assert made is not None
    assert made.seasonal
    for step, point in enumerate(made.points):
        assert point.expected == pytest.approx(value(hours + step), abs=1e-5)


@given(st.lists(st.floats(0, 1e9), min_size=LEAST_HOURS, max_size=120), st.integers(1, 60))
def test_nothing_below_zero_and_every_interval_holds_its_expectation(
    values: list[float], ahead: int
) -> None:
    made = forecast(values, ahead)
    assert made is not None
    assert len(made.points) == ahead
    for point in (*made.points, made.total):
        assert 0 <= point.low <= point.expected <= point.high < math.inf


def test_of_too_little_nothing_is_said() -> None:
    assert forecast([1.0] * (LEAST_HOURS - 1), 3) is None
    with pytest.raises(ValueError, match="one hour"):
        forecast([1.0] * 9, 0)


@pytest.mark.parametrize("hours", [12, 40, 60, 24 * 14])
def test_the_interval_holds_what_comes_as_often_as_it_says(hours: int) -> None:
    chance = random.Random(hours)  # noqa: TID251 - the same histories in every run
    inside = together = trials = sums = 0
    for _ in range(400):
        values = [
            max(0.0, 500 + 2 * hour + 80 * math.sin(hour / 24 * math.tau) * (hours >= 48)
                + chance.gauss(0, 30))
            for hour in range(hours + 12)
        ]  # fmt: skip
        made = forecast(values[:hours], 12)
        assert made is not None
        for point, came in zip(made.points, values[hours:], strict=True):
            inside += point.low <= came <= point.high
            trials += 1
        together += made.total.low <= sum(values[hours:]) <= made.total.high
        sums += 1
    assert 0.93 <= inside / trials <= 0.97
    assert 0.90 <= together / sums <= 0.99


def test_a_change_that_is_none_lies_within_its_error() -> None:
    chance = random.Random(5)  # noqa: TID251 - the same histories in every run
    wrong = 0
    for _ in range(400):
        made = forecast([chance.gauss(100, 20) for _ in range(24 * 7)], 1)
        assert made is not None
        wrong += abs(made.change_per_day) > made.change_error
    assert wrong / 400 <= 0.08
