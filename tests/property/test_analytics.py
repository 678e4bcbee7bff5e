"""S3-05h, k: sums and quantiles of any history are those of its rows, in memory that stays bounded."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.usage import UsageRow
from headgate.policy.analytics import DAY, HOUR, MINUTE, Analytics, Bucket, LastMinute, Series
from headgate.policy.sketch import ACCURACY

CALLS = st.sampled_from(["", "success", "success", "success", "cancelled", "QuotaExceeded", "Unknown"])
ROWS = st.builds(
    UsageRow,
    request_id=st.just("r"),
    attempt=st.integers(0, 2),
    at=st.floats(0, 40 * DAY),
    duration=st.just(1.0),
    provider=st.just("gemini"),
    model=st.sampled_from(["a", "b"]),
    operation=st.just("generate"),
    result=st.just("success"),
    caller=st.sampled_from(["", "x"]),
    input_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    cost=st.none() | st.integers(0, 10**12),
    call=CALLS,
    call_seconds=st.floats(0.001, 1000),
    retries=st.integers(0, 3),
    looked_up=st.booleans(),
    from_cache=st.booleans(),
    saved=st.integers(0, 10**9),
)
HISTORIES = st.lists(ROWS, max_size=40)
MARKS = [st.floats(0, 40 * DAY), st.floats(0, 40 * DAY)]


def of(rows: list[UsageRow]) -> Bucket:
    bucket = Bucket()
    for row in rows:
        bucket.add(row)
    return bucket


def facts(bucket: Bucket) -> dict[str, object]:
    """All that two buckets of the same rows agree about; sums of floats differ in their last bits."""
    told = {
        name: getattr(bucket, name)
        for name in Bucket.__slots__
        if name not in ("latency", "seconds", "touched", "peak_requests", "peak_tokens")
    }
    sketch = bucket.latency.dump()
    return {**told, "counts": sketch["counts"], "count": sketch["count"]}


@given(HISTORIES, st.data())
def test_parts_merge_into_the_whole(rows: list[UsageRow], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(rows)))
    merged = of(rows[:cut])
    merged.merge(of(rows[cut:]))
    assert facts(merged) == facts(of(rows))
    assert merged.seconds == pytest.approx(of(rows).seconds)


@given(HISTORIES)
def test_sums_are_those_of_the_rows(rows: list[UsageRow]) -> None:
    bucket = of(rows)
    ended = [row for row in rows if row.call not in ("", "cancelled")]
    sent = [row for row in rows if row.attempt]
    assert bucket.requests == len(ended)
    assert bucket.successes == sum(row.call == "success" for row in ended)
    assert bucket.failures == Counter(row.call for row in ended if row.call != "success")
    assert bucket.cost == sum(row.cost or 0 for row in sent)
    assert bucket.unpriced == sum(row.cost is None for row in sent)
    assert bucket.tokens == sum(row.input_tokens + row.output_tokens for row in sent)
    told = bucket.sums("m", 60.0)
    assert (told.name, told.start, told.failures) == ("m", 60.0, bucket.failed)


@given(st.lists(ROWS, min_size=1, max_size=40), st.integers(0, 100))
def test_s3_05h_a_quantile_of_a_series_is_within_one_per_cent(
    rows: list[UsageRow], hundredths: int
) -> None:
    series = Series(minutes=3, hours=3)
    for row in rows:
        series.add(row, 0.0)
    true = sorted(
        1000 * row.call_seconds for row in rows if row.call == "success" and not row.from_cache
    )
    found = series.between(0, 100 * DAY).latency.quantile(hundredths / 100)
    if not true:
        assert found is None
        return
    exact = true[max(0, -(-hundredths * len(true) // 100) - 1)]
    assert found is not None
    assert abs(found - exact) <= ACCURACY * exact * 1.0001


@given(HISTORIES, *MARKS)
def test_a_range_holds_what_began_in_it_and_at_its_border_no_more_than_a_bucket(
    rows: list[UsageRow], one: float, two: float
) -> None:
    start, end = min(one, two), max(one, two)
    series = Series()
    for row in rows:
        series.add(row, 0.0)
    found = series.between(start, end)
    # Minutes as long as there are few of them; hours and days reach no further than a day.
    surely = sum(
        start + DAY <= row.at < end - DAY and row.call not in ("", "cancelled") for row in rows
    )
    perhaps = sum(
        start - DAY <= row.at < end + DAY and row.call not in ("", "cancelled") for row in rows
    )
    assert surely <= found.requests <= perhaps
    if len({row.at // MINUTE for row in rows}) <= 120:
        exact = sum(
            start // 60 * 60 <= row.at < _up(end) and row.call not in ("", "cancelled") for row in rows
        )
        assert found.requests == exact


def _up(end: float) -> float:
    """The end of the last minute that begins before an instant."""
    return math.ceil(end / MINUTE) * MINUTE


@given(HISTORIES)
def test_nothing_is_lost_by_rolling_up_or_by_forgetting(rows: list[UsageRow]) -> None:
    series = Series(2, minutes=3, hours=2)
    for number, row in enumerate(rows):
        series.add(row, float(number))
    series.forget(len(rows) / 2)
    assert facts(series.whole()) == facts(of(rows))


@given(st.lists(st.floats(-(10**9), 10**10), min_size=1, max_size=400))
def test_memory_is_bounded_whatever_the_wall_clock_does(jumps: list[float]) -> None:
    series = Series(days=5)
    for number, at in enumerate(jumps):
        series.add(_row(at), float(number))
    assert sum(1 for _ in series.buckets(-(10.0**10), 10.0**11)) <= 120 + 48 + 5 + 1
    assert series.whole().requests == len(jumps)


def _row(at: float, **changes: object) -> UsageRow:
    values: dict[str, object] = {
        "request_id": "r", "attempt": 1, "at": at, "duration": 1.0, "provider": "gemini", "model": "m",
        "operation": "generate", "result": "success", "call": "success", "call_seconds": 1.0,
        "input_tokens": 7,
    }  # fmt: skip
    return UsageRow(**{**values, **changes})  # type: ignore[arg-type]


def test_peaks_are_those_of_the_busiest_minute_however_old() -> None:
    series = Series()
    for minute in range(1000):
        for _ in range(3 if minute == 17 else 1):
            series.add(_row(60.0 * minute), 0.0)
    whole = series.between(0, DAY)
    assert (whole.requests, whole.peak_requests, whole.peak_tokens) == (1002, 3, 21)
    assert series.between(DAY / 2, DAY).peak_requests == 1


def test_periods_are_hours_and_days() -> None:
    series = Series()
    for hour in (0, 0, 5, 30):
        series.add(_row(hour * HOUR + 61.0), 0.0)
    assert {start: one.requests for start, one in series.periods(HOUR, 0, 10 * DAY).items()} == {
        0.0: 2, 5.0 * HOUR: 1, 30.0 * HOUR: 1,
    }  # fmt: skip
    days = series.periods(DAY, 0, 10 * DAY)
    assert {start: one.requests for start, one in days.items()} == {0.0: 3, float(DAY): 1}


def test_names_are_bounded_and_the_rest_is_counted_together() -> None:
    analytics = Analytics()
    for number in range(300):
        analytics.add(_row(0.0, model=f"m{number}", caller=f"c{number}"), 0.0)
    assert len(analytics.models) == len(analytics.callers) == 201
    assert analytics.models["other"].whole().requests == 100


def test_types_of_failures_are_bounded() -> None:
    bucket = of([_row(0.0, call=f"E{number}") for number in range(100)])
    other = of([_row(0.0, call=f"F{number}") for number in range(100)])
    bucket.merge(other)
    assert len(bucket.failures) == 65
    assert sum(bucket.failures.values()) == bucket.requests == 200


@given(st.lists(st.tuples(st.floats(0, 200), st.booleans(), st.integers(0, 100)), max_size=60))
def test_s3_05d_the_last_minute_is_that_of_the_calls_that_ended_in_it(
    ends: list[tuple[float, bool, int]],
) -> None:
    minute, told = LastMinute(), sorted(ends)
    for at, failed, tokens in told:
        minute.add(at, failed=failed, tokens=tokens, seconds=2.0)
    now = told[-1][0] if told else 0.0
    last = [one for one in told if int(one[0]) > int(now) - 60]
    assert minute.read(now) == (
        len(last), sum(one[1] for one in last), sum(one[2] for one in last), 2.0 * len(last),
    )  # fmt: skip
    assert minute.read(now + 61) == (0, 0, 0, 0)
