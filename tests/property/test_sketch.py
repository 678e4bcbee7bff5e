"""S3-05h: quantiles are within one per cent of the truth, and parts add up to the whole."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.sketch import ACCURACY, Sketch

VALUES = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=200)
HUNDREDTHS = st.integers(0, 100)
SHARES = HUNDREDTHS.map(lambda hundredths: hundredths / 100)


@given(VALUES, HUNDREDTHS)
def test_a_quantile_is_within_one_per_cent(values: list[float], hundredths: int) -> None:
    """The smallest value that so many hundredths of all values do not exceed, counted in integers."""
    true = next(
        value
        for number, value in enumerate(sorted(values), start=1)
        if number * 100 >= hundredths * len(values)
    )
    found = Sketch.of(values).quantile(hundredths / 100)
    assert found is not None
    assert abs(found - true) <= ACCURACY * true * 1.0001


@pytest.mark.parametrize(
    ("share", "rank"), [(0, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.95, 4), (0.99, 4), (1, 4)]
)
def test_a_high_quantile_of_few_values_is_the_largest(share: float, rank: int) -> None:
    """Interpolated ranks said 3 s of one slow call in four: the slow one was in no percentile."""
    values = [0.1, 0.2, 3.0, 40.0]
    assert Sketch.of(values).quantile(share) == pytest.approx(values[rank - 1], rel=ACCURACY)


@given(VALUES, VALUES, SHARES)
def test_two_parts_are_the_whole(one: list[float], two: list[float], share: float) -> None:
    merged = Sketch.of(one)
    merged.merge(Sketch.of(two))
    whole = Sketch.of([*one, *two])
    assert merged.quantile(share) == whole.quantile(share)
    assert merged.count == whole.count
    assert merged.total == pytest.approx(whole.total)


@given(VALUES)
def test_what_was_dumped_reads_back(values: list[float]) -> None:
    sketch = Sketch.of(values)
    again = Sketch.load(json.loads(json.dumps(sketch.dump())))
    assert [again.quantile(share / 10) for share in range(11)] == [
        sketch.quantile(share / 10) for share in range(11)
    ]
    assert again.dump() == sketch.dump()


def test_zeros_and_nothing() -> None:
    sketch = Sketch()
    assert (sketch.quantile(0.5), sketch.mean) == (None, None)
    sketch.add(0, times=3)
    sketch.add(8)
    assert (sketch.quantile(0.5), sketch.quantile(1), sketch.mean) == (0, 8, 2)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_is_no_measure_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Sketch().add(value)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Sketch().quantile(2)


def test_memory_is_bounded_over_every_magnitude() -> None:
    sketch = Sketch.of(1.05**step for step in range(-400, 12_000))
    assert len(sketch.dump()["counts"]) <= 2048  # type: ignore[arg-type]
    assert sketch.quantile(0.99) == pytest.approx(
        1.05 ** (-400 + math.ceil(0.99 * 12_400) - 1), rel=0.011
    )
