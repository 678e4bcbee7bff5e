"""Back-off, cool-downs, days, models."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from headgate.core.outcome import Kind
from headgate.policy.backoff import Backoff
from headgate.policy.cooldown import (
    DAY,
    HOUR,
    LATE_RESET,
    LATE_RESET_RETRY,
    SHORTEST,
    Cooldown,
    cooldown,
)
from headgate.policy.days import day_start, next_reset
from headgate.policy.models import Model, ModelPolicy, Registry
from headgate.wiring.presets import gemini_registry

PACIFIC = ZoneInfo("America/Los_Angeles")
NOON = datetime(2026, 11, 21, 12, tzinfo=PACIFIC).timestamp()

# ── back-off ────────────────────────────────────────────────────────────────────────────────────


def test_the_ceiling_doubles_from_one_second_to_sixty() -> None:
    assert [Backoff().ceiling(n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert Backoff().ceiling(5000) == 60


def test_jitter_is_full() -> None:
    backoff = Backoff()
    assert backoff.delay(3, 0.0) == 0
    assert backoff.delay(3, 0.5) == 4
    assert backoff.delay(3, math.nextafter(1, 0)) < 8


@pytest.mark.parametrize("wrong", [{"base": 0}, {"base": -1}, {"factor": 0.5}, {"base": 5, "cap": 4}])
def test_a_back_off_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="back-off needs"):
        Backoff(**wrong)


# ── cool-downs ──────────────────────────────────────────────────────────────────────────────────


def cool(
    kind: Kind,
    hint: float | None = None,
    *,
    streak: int = 0,
    wall: float = NOON,
    fallback: float = 60.0,
) -> Cooldown:
    return cooldown(kind, hint, fallback=fallback, streak=streak, wall=wall)


NONSENSE = [None, math.nan, math.inf, -math.inf, -1.0, 1e9, 2 * DAY + 1]


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [(26.0, 26.0), (0.0, SHORTEST), (0.2, SHORTEST), (3600.0, HOUR), (5000.0, HOUR)]
    + [(nonsense, 60.0) for nonsense in NONSENSE],
)
def test_a_minute_takes_the_hint_within_reason(hint: float | None, seconds: float) -> None:
    assert cool(Kind.QUOTA_MINUTE, hint) == Cooldown(seconds)


def test_a_minute_without_a_hint_takes_the_fallback_up_to_an_hour() -> None:
    assert cool(Kind.QUOTA_MINUTE, fallback=7) == Cooldown(7)
    assert cool(Kind.QUOTA_MINUTE, fallback=9999) == Cooldown(HOUR)


@pytest.mark.parametrize("hint", [*NONSENSE, 0.0, 22.0, 3600.0])
def test_a_day_lasts_until_midnight_whatever_a_short_hint_says(hint: float | None) -> None:
    assert cool(Kind.QUOTA_DAY, hint) == Cooldown(12 * HOUR, HOUR)


def test_a_hint_above_an_hour_replaces_the_reset() -> None:
    assert cool(Kind.QUOTA_DAY, HOUR + 1) == Cooldown(HOUR + 1, HOUR)
    assert cool(Kind.QUOTA_DAY, 2 * DAY) == Cooldown(2 * DAY, HOUR)


@pytest.mark.parametrize("late", [0.0, 1.0, LATE_RESET - 1])
def test_a_refusal_right_after_midnight_means_the_old_day(late: float) -> None:
    midnight = day_start(NOON)
    assert cool(Kind.QUOTA_DAY, 22.0, wall=midnight + late) == Cooldown(LATE_RESET_RETRY)
    assert cool(Kind.QUOTA_DAY, 7200.0, wall=midnight + late) == Cooldown(7200.0, HOUR)


def test_ten_minutes_after_midnight_the_new_day_is_spent() -> None:
    wall = day_start(NOON) + LATE_RESET
    assert cool(Kind.QUOTA_DAY, wall=wall) == Cooldown(DAY - LATE_RESET, HOUR)


def test_a_late_reset_is_asked_for_twice_at_most() -> None:
    wall, asked = day_start(NOON) + 1, 0
    while (cost := cool(Kind.QUOTA_DAY, wall=wall)).seconds == LATE_RESET_RETRY:
        wall += cost.seconds
        asked += 1
    assert asked == 2


def test_no_quota_at_all_waits_a_day_and_empty_credits_an_hour() -> None:
    for hint in (None, 47.0, math.nan):
        assert cool(Kind.QUOTA_ZERO, hint) == Cooldown(DAY, HOUR)
        assert cool(Kind.BILLING, hint) == Cooldown(HOUR)


def test_an_unknown_refusal_doubles_with_each_in_a_row_up_to_an_hour() -> None:
    seconds = [cool(Kind.QUOTA_UNKNOWN, streak=streak).seconds for streak in range(9)]
    assert seconds == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert cool(Kind.QUOTA_UNKNOWN, streak=10**6).seconds == HOUR
    assert cool(Kind.QUOTA_UNKNOWN, 33.0, streak=5) == Cooldown(33.0)
    assert cool(Kind.QUOTA_UNKNOWN, math.nan, streak=1) == Cooldown(120)


# ── days ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("moment", "hours"),
    [
        (datetime(2026, 3, 8, 0, 30, tzinfo=PACIFIC), 22.5),  # clocks go forward: 23 hours
        (datetime(2026, 3, 8, 12, tzinfo=PACIFIC), 12.0),
        (datetime(2026, 11, 1, 0, 30, tzinfo=PACIFIC), 24.5),  # and back: 25 hours
        (datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=PACIFIC), 22.5),
        (datetime(2026, 7, 1, 0, 0, tzinfo=PACIFIC), 24.0),
        (datetime(2026, 7, 1, 23, 59, 59, tzinfo=PACIFIC), 1 / 3600),
    ],
)
def test_the_next_reset_is_on_the_calendar_not_86400_seconds_away(
    moment: datetime, hours: float
) -> None:
    wall = moment.timestamp()
    assert next_reset(wall) - wall == pytest.approx(hours * 3600)


def test_days_have_23_24_and_25_hours() -> None:
    lengths = {
        day: next_reset(start) - day_start(start)
        for day in (date(2026, 3, 8), date(2026, 7, 1), date(2026, 11, 1))
        for start in (datetime(day.year, day.month, day.day, 13, tzinfo=PACIFIC).timestamp(),)
    }
    assert [seconds / 3600 for seconds in lengths.values()] == [23, 24, 25]


def test_another_zone_has_another_midnight() -> None:
    wall = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()
    assert datetime.fromtimestamp(next_reset(wall, "UTC"), UTC).hour == 0
    assert next_reset(wall, "UTC") != next_reset(wall)


# ── models ──────────────────────────────────────────────────────────────────────────────────────

TODAY = date(2026, 11, 21)
ROWS = [
    Model("old", shutdown=date(2026, 6, 1), successor="middle"),
    Model("middle", shutdown=date(2026, 9, 1), successor="new"),
    Model("new"),
    Model("leaving", retiring=date(2026, 11, 12), shutdown=date(2026, 12, 1), successor="new"),
    Model("later", shutdown=date(2026, 11, 22), successor="new"),
    Model("vectors", shutdown=date(2026, 1, 1), note="Embed anew."),
    Model("loop-a", shutdown=date(2026, 1, 1), successor="loop-b"),
    Model("loop-b", shutdown=date(2026, 1, 1), successor="loop-a"),
    Model("plain", sampling=False),
]
REGISTRY = Registry(ROWS, {"latest": "new", "nickname": "old"})


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("new", "new"),
        ("models/new", "new"),
        ("latest", "new"),
        ("models/latest", "new"),
        ("old", "new"),  # through two successors
        ("nickname", "new"),
        ("leaving", "new"),
        ("later", "later"),
        ("vectors", "vectors"),
        ("loop-a", "loop-a"),
        ("never-heard-of", "never-heard-of"),
        ("models/never-heard-of", "never-heard-of"),
    ],
)
def test_a_name_resolves_to_what_can_answer_today(asked: str, model: str) -> None:
    resolution = REGISTRY.resolve(asked, TODAY, ModelPolicy.SUCCESSOR)
    assert resolution.model.id == model
    assert resolution.allowed


def test_a_retired_model_has_one_sentence_that_says_what_happens() -> None:
    moved = REGISTRY.resolve("old", TODAY, ModelPolicy.SUCCESSOR).warning
    assert moved is not None
    for part in ("old", "2026-06-01", "calls go to new"):
        assert part in moved
    leaving = REGISTRY.resolve("leaving", TODAY, ModelPolicy.SUCCESSOR).warning
    assert leaving is not None
    assert "withdrawn since 2026-11-12" in leaving
    kept = REGISTRY.resolve("vectors", TODAY, ModelPolicy.SUCCESSOR).warning
    assert kept is not None
    assert "Embed anew." in kept
    assert REGISTRY.resolve("new", TODAY, ModelPolicy.SUCCESSOR).warning is None


def test_the_strict_policy_refuses_and_as_asked_asks() -> None:
    strict = REGISTRY.resolve("old", TODAY, ModelPolicy.STRICT)
    assert (strict.allowed, strict.model.id) == (False, "old")
    asked = REGISTRY.resolve("old", TODAY, ModelPolicy.AS_ASKED)
    assert (asked.allowed, asked.model.id) == (True, "old")
    assert asked.warning is not None
    assert REGISTRY.resolve("new", TODAY, ModelPolicy.STRICT).allowed


def test_a_day_earlier_the_model_is_still_itself() -> None:
    for name, last in (("old", date(2026, 5, 31)), ("leaving", date(2026, 11, 11))):
        assert REGISTRY.resolve(name, last, ModelPolicy.SUCCESSOR).model.id == name


def test_the_shipped_registry_leads_every_retired_name_somewhere_alive() -> None:
    registry = gemini_registry()
    assert registry.resolve("gemini-2.5-flash", TODAY, ModelPolicy.SUCCESSOR).model.id == (
        "gemini-3.5-flash-lite"
    )
    for name in ("gemini-2.0-flash-exp", "gemini-exp-1206", "gemini-1.5-pro", "gemini-3-pro-preview"):
        resolution = registry.resolve(name, TODAY, ModelPolicy.SUCCESSOR)
        assert not resolution.model.retired(TODAY)
        assert resolution.model.id != name
    for name in ("text-embedding-004", "embedding-001"):
        assert registry.resolve(name, TODAY, ModelPolicy.SUCCESSOR).model.id == name
