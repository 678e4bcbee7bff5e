"""S3-05b: days as weeks and months, and sums in the backend's words."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from headgate.backend.accounts import UsageBy
from headgate.backend.usage_sums import line_of, regrouped
from headgate.core.usage import UsageSum

DAYS = st.lists(st.dates(date(2024, 1, 1), date(2028, 12, 31)), unique=True, max_size=40).map(sorted)


def of_day(day: date, **changes: int) -> UsageSum:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    return UsageSum("", start, attempts=1, requests=1, cost=day.day, seconds=0.5, **changes)


@given(DAYS)
def test_weeks_begin_on_monday_and_lose_nothing(days: list[date]) -> None:
    weeks = regrouped([of_day(day) for day in days], UsageBy.WEEK)
    mondays = sorted({day - timedelta(days=day.weekday()) for day in days})
    assert [datetime.fromtimestamp(one.start, UTC).date() for one in weeks] == mondays
    assert sum(one.requests for one in weeks) == len(days)
    assert sum(one.cost for one in weeks) == sum(day.day for day in days)


@given(DAYS)
def test_months_are_those_of_the_calendar(days: list[date]) -> None:
    months = regrouped([of_day(day) for day in days], UsageBy.MONTH)
    assert [line_of(one, UsageBy.MONTH).name for one in months] == sorted(
        {f"{day:%Y-%m}" for day in days}
    )
    assert all(datetime.fromtimestamp(one.start, UTC).day == 1 for one in months)


def test_a_line_has_dollars_and_milliseconds() -> None:
    one = UsageSum(
        "", 1_795_262_400.0, attempts=3, requests=2, successes=1, cost=1_500_000_000, saved=10**9,
        unpriced=1, seconds=3.0,
    )  # fmt: skip
    hour, day = line_of(one, UsageBy.HOUR), line_of(one, UsageBy.DAY)
    assert (hour.name, day.name) == ("2026-11-21 12:00", "2026-11-21")
    assert hour.start == datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert (day.total_cost, day.cached_savings, day.avg_latency_ms) == (1.5, 1.0, 1500)
    assert (day.failed_requests, day.unpriced_attempts) == (1, 1)
    named = line_of(UsageSum("billing"), UsageBy.CALLER)
    assert (named.name, named.start, named.avg_latency_ms) == ("billing", None, None)
