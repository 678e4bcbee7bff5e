"""What the coming hours will probably bring: a line through the past, and a day's shape. Pure.

    value(hour) = level + slope × time + shape(hour of the day) + noise

The classical decomposition: the slope is that of the days' means (least squares), the shape is what the
hours of a day have left on average once the line is taken away, and the interval is the prediction
interval of that regression (Montgomery, Peck, Vining: Introduction to Linear Regression Analysis, 2.4).
With less than two whole days there is no shape, and the line goes through the hours themselves. Noise
is taken as independent from hour to hour: where bursts last for hours, the interval is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

__all__ = ["LEAST_HOURS", "Forecast", "Point", "forecast"]

LEAST_HOURS = 6
"""Below this nothing is said: a line through a few points says nothing about its own error."""

_DAY = 24
_Z = 1.959964
"""Of the normal distribution: 95 % lie within so many standard deviations."""


class Point(Struct, frozen=True):
    """One coming hour: what is expected, and between what it lies with a probability of 95 %."""

    hour: int
    expected: float
    low: float
    high: float


class Forecast(Struct, frozen=True):
    """What is to be expected.

    Attributes:
        change_per_day: the line's slope.
        change_error: half the width of its own 95 % interval: a change within it may be chance.
        seasonal: whether the shape of a day is in it.
        hours: how many hours it was made from.
        points: hour by hour.
        total: of all coming hours together, as a point.
    """

    change_per_day: float
    change_error: float
    seasonal: bool
    hours: int
    points: tuple[Point, ...]
    total: Point


class _Fit(Struct, frozen=True):
    level: float  # of the line at `middle`
    middle: float
    slope: float  # per hour
    shape: tuple[float, ...]  # by hours since the first one
    deviation: float  # of the noise
    freedom: int
    level_weight: float  # variance of the level and of the slope, in units of the noise's
    slope_weight: float


def forecast(values: Sequence[float], ahead: int, first_hour: int = 0) -> Forecast | None:
    """The coming hours; None where there are fewer than `LEAST_HOURS`.

    Args:
        values: one for each hour, without gaps, the oldest first; none below zero.
        ahead: how many hours to look ahead.
        first_hour: number of the first coming hour.

    Raises:
        ValueError: `ahead` is below 1.
    """
    if ahead < 1:
        raise ValueError(f"a forecast looks ahead for one hour at least, not {ahead}")
    if len(values) < LEAST_HOURS:
        return None
    days = len(values) // _DAY
    used = values[len(values) - days * _DAY :] if days >= 2 else values
    fit = _daily(used) if days >= 2 else _plain(used)
    student = _student(fit.freedom)
    points = []
    for step in range(ahead):
        time = len(used) + step
        distance = time - fit.middle
        expected = fit.level + fit.slope * distance + fit.shape[time % len(fit.shape)]
        of_line = fit.level_weight + fit.slope_weight * distance * distance
        reach = student * fit.deviation * math.sqrt(1 + of_line)
        points.append(_point(first_hour + step, expected, reach))
    expected = sum(point.expected for point in points)
    reach = student * fit.deviation * math.sqrt(_of_sum(fit, len(used), ahead))
    return Forecast(
        change_per_day=fit.slope * _DAY,
        change_error=student * fit.deviation * math.sqrt(fit.slope_weight) * _DAY,
        seasonal=len(fit.shape) > 1,
        hours=len(used),
        points=tuple(points),
        total=_point(first_hour, expected, reach),
    )


def _of_sum(fit: _Fit, first: int, ahead: int) -> float:
    """Variance of the sum of the coming hours, in units of the noise's.

    The noise of every hour is its own. An hour of the day errs alike on all days, the slope always.
    """
    size = len(fit.shape)
    often = [len(range((place - first) % size, ahead, size)) for place in range(size)]
    level = fit.level_weight * sum(times * times for times in often)
    distances = sum(first + step - fit.middle for step in range(ahead))
    return ahead + level + fit.slope_weight * distances * distances


def _plain(values: Sequence[float]) -> _Fit:
    """A line through hours."""
    count = len(values)
    middle, mean = (count - 1) / 2, math.fsum(values) / count
    spread = math.fsum((time - middle) ** 2 for time in range(count))
    slope = math.fsum((time - middle) * value for time, value in enumerate(values)) / spread
    rest = math.fsum((value - mean - slope * (time - middle)) ** 2 for time, value in enumerate(values))
    freedom = count - 2
    return _Fit(mean, middle, slope, (0.0,), math.sqrt(rest / freedom), freedom, 1 / count, 1 / spread)


def _daily(values: Sequence[float]) -> _Fit:
    """A line through whole days, and what the hours of a day have left."""
    days = len(values) // _DAY
    means = [math.fsum(values[day * _DAY : (day + 1) * _DAY]) / _DAY for day in range(days)]
    middle_day, mean = (days - 1) / 2, math.fsum(means) / days
    spread = math.fsum((day - middle_day) ** 2 for day in range(days)) * _DAY * _DAY
    slope = math.fsum((day - middle_day) * _DAY * value for day, value in enumerate(means)) / spread
    middle = (len(values) - 1) / 2
    left = [value - mean - slope * (time - middle) for time, value in enumerate(values)]
    shape = tuple(math.fsum(left[hour::_DAY]) / days for hour in range(_DAY))
    rest = math.fsum((value - shape[time % _DAY]) ** 2 for time, value in enumerate(left))
    freedom = len(values) - _DAY - 1
    # The level of an hour of the day is the mean of one value a day; the slope uses all of them.
    return _Fit(
        mean, middle, slope, shape, math.sqrt(rest / freedom), freedom, 1 / days, 1 / (spread * _DAY)
    )


def _student(freedom: int) -> float:
    """What holds 95 % of Student's distribution (Abramowitz, Stegun: 26.7.5, two terms)."""
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    return _Z + first / freedom + second / (freedom * freedom)


def _point(hour: int, expected: float, reach: float) -> Point:
    """What is counted is never below zero."""
    return Point(hour, max(0.0, expected), max(0.0, expected - reach), max(0.0, expected + reach))
