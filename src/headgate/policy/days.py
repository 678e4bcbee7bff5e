"""Where a provider's day ends.

Gemini resets daily quotas at midnight in California, so a day has 23 or 25 hours twice a year
(ai.google.dev, rate limits, read 2026-09-02). Never a fixed offset from UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

__all__ = ["PACIFIC", "day_start", "next_reset", "utc_day"]

PACIFIC = "America/Los_Angeles"


def day_start(wall: float, zone: str = PACIFIC) -> float:
    """Unix time of the midnight that began the day `wall` (Unix seconds) lies in."""
    tz = ZoneInfo(zone)
    return _midnight(datetime.fromtimestamp(wall, tz).date(), tz)


def utc_day(wall: float) -> date:
    """The day of UTC that `wall` (Unix seconds) lies in. On the path of every call, several times."""
    return _utc_day(int(wall // 86_400))


@lru_cache(maxsize=8)
def _utc_day(number: int) -> date:
    return datetime.fromtimestamp(number * 86_400, UTC).date()


def next_reset(wall: float, zone: str = PACIFIC) -> float:
    """Unix time of the first midnight after `wall` (Unix seconds). Always later than `wall`."""
    tz = ZoneInfo(zone)
    # The date is advanced on the calendar, then the zone says which instant that is:
    # adding 86 400 s would be an hour off on the two odd days.
    return _midnight(datetime.fromtimestamp(wall, tz).date() + timedelta(days=1), tz)


def _midnight(day: date, tz: ZoneInfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=tz).timestamp()
