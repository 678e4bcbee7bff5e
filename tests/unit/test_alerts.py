"""Each rule raises where it says and is over where it says; subjects do not grow without bound."""

from __future__ import annotations

import pytest
from msgspec import structs

from headgate.core.alerts import Alert, AlertCleared, AlertRaised, AlertRule, AlertSeverity
from headgate.core.errors import ConfigurationError
from headgate.policy.alarm import Trigger
from headgate.policy.alert_rules import AlertRules
from headgate.policy.alerts import NANODOLLARS, AlertWatch
from headgate.policy.repeats import Repeats

WALL = 1_795_262_400.0


def fed(watch: AlertWatch, good: int, bad: int, now: float, subject: str = "m") -> list[Alert]:
    alerts: list[Alert] = []
    for number in range(good + bad):
        rule = AlertRule.ERROR_RATE
        alerts += watch.attempt(rule, subject, now, WALL + now, good=number < good)
    return alerts


def test_an_error_rate_is_told_once_it_was_high_for_long_enough() -> None:
    watch = AlertWatch(AlertRules(error_rate_percent=10.0, least_attempts=20, for_seconds=60.0))
    assert fed(watch, 90, 10, now=0.0) == []
    assert watch.due == 60.0
    assert watch.tick(59.0, WALL) == []
    (alert,) = watch.tick(60.0, WALL + 60.0)
    assert alert == AlertRaised(
        rule=AlertRule.ERROR_RATE,
        subject="m",
        severity=AlertSeverity.WARNING,
        value=10.0,
        threshold=10.0,
        at=WALL + 60.0,
        summary="10 % of the attempts with model m fail.",
    )
    assert watch.standing() == (alert,)


def test_an_error_rate_is_over_below_its_share_of_the_threshold_not_before() -> None:
    rules = AlertRules(error_rate_percent=10.0, for_seconds=0.0, clear_share=0.5)
    watch = AlertWatch(rules)
    (raised,) = fed(watch, 90, 10, now=0.0)
    assert fed(watch, 100, 0, now=1.0) == [], "5 % is not below 5 %"
    (over,) = fed(watch, 1, 0, now=2.0)
    assert isinstance(over, AlertCleared)
    assert (over.rule, over.raised_at, over.seconds) == (raised.rule, WALL, 2.0)
    assert over.summary == "Over: 10 % of the attempts with model m fail."
    assert watch.standing() == ()


def test_an_alert_is_not_raised_again_before_it_is_armed() -> None:
    watch = AlertWatch(AlertRules(for_seconds=0.0, rearm_seconds=100.0, window_seconds=10.0))
    assert len(fed(watch, 0, 20, now=0.0)) == 1
    (over,) = watch.tick(50.0, WALL)
    assert isinstance(over, AlertCleared), "the window is empty"
    assert fed(watch, 0, 100, now=55.0) == []
    assert watch.due == 150.0
    assert watch.tick(150.0, WALL) == [], "by then it is long over"
    assert len(fed(watch, 0, 20, now=151.0)) == 1


def test_few_attempts_say_nothing() -> None:
    watch = AlertWatch(AlertRules(for_seconds=0.0, least_attempts=20))
    assert fed(watch, 0, 19, now=0.0) == []
    (alert,) = fed(watch, 1, 0, now=0.0)
    assert alert.value == 95.0


def test_money_has_a_warning_and_a_cap_and_leaves_the_hour() -> None:
    watch = AlertWatch(AlertRules(spend_per_hour=10.0, spend_per_day=100.0))
    assert watch.counts_money
    assert watch.spent(79 * NANODOLLARS // 10, 0.0, WALL) == []
    (near,) = watch.spent(NANODOLLARS // 10, 1.0, WALL)
    assert (near.rule, near.subject, near.severity) == ("spend_hour", "near", "warning")
    (cap,) = watch.spent(2 * NANODOLLARS, 2.0, WALL)
    assert (cap.rule, cap.subject, cap.severity) == ("spend_hour", "cap", "critical")
    assert cap.summary == "$10.00 were spent within an hour; the alert begins at $10.00."
    over = watch.tick(3_660.0, WALL)
    assert {(one.rule, one.subject) for one in over} == {("spend_hour", "near"), ("spend_hour", "cap")}
    assert all(isinstance(one, AlertCleared) for one in over)
    day = watch.spent(90 * NANODOLLARS, 7_200.0, WALL)
    assert ("spend_day", "cap") in {(one.rule, one.subject) for one in day}, "the day remembers"


def test_a_model_without_a_key_is_told_once_until_one_serves_it_or_nobody_asks() -> None:
    watch = AlertWatch(AlertRules(window_seconds=300.0, rearm_seconds=0.0))
    (first,) = watch.refused("m", 0.0, WALL)
    assert (first.severity, first.value) == (AlertSeverity.CRITICAL, 1.0)
    assert watch.refused("m", 1.0, WALL) == []
    assert watch.served("other", 2.0, WALL) == []
    (over,) = watch.served("m", 3.0, WALL)
    assert isinstance(over, AlertCleared)
    assert len(watch.refused("m", 4.0, WALL)) == 1
    assert watch.tick(300.0, WALL) == [], "asked for at 4 s"
    assert watch.due == 304.0
    (over,) = watch.tick(304.0, WALL)
    assert isinstance(over, AlertCleared)


def test_a_breaker_stands_until_it_is_closed_again() -> None:
    watch = AlertWatch(AlertRules())
    (alert,) = watch.breakers(["m"], 0.0, WALL)
    assert alert.rule is AlertRule.BREAKER_OPEN
    assert watch.breaker_stands
    assert watch.due == 5.0
    assert watch.breakers(["m"], 5.0, WALL) == []
    (over,) = watch.breakers([], 61.0, WALL)
    assert isinstance(over, AlertCleared)
    assert over.seconds == 61.0
    assert not watch.breaker_stands


def test_rules_that_are_off_count_nothing() -> None:
    off = AlertRules(error_rate_percent=None, keys_exhausted=False, breaker_open=False)
    watch = AlertWatch(off)
    assert not watch.counts_money
    assert fed(watch, 0, 100, now=0.0) == []
    assert watch.refused("m", 0.0, WALL) == watch.breakers(["m"], 0.0, WALL) == []
    assert AlertWatch(AlertRules(enabled=False)).refused("m", 0.0, WALL) == []


def test_other_rules_end_what_they_turn_off_and_keep_what_was_counted() -> None:
    rules = AlertRules(for_seconds=0.0, spend_per_hour=10.0)
    watch = AlertWatch(rules)
    assert len(fed(watch, 0, 20, now=0.0)) == 1
    assert watch.spent(5 * NANODOLLARS, 0.0, WALL) == []
    alerts = watch.change(structs.replace(rules, error_rate_percent=None), 1.0, WALL)
    assert [(type(one), one.rule) for one in alerts] == [(AlertCleared, "error_rate")]
    assert watch.standing() == ()
    watch.change(structs.replace(rules, spend_per_hour=5.5), 2.0, WALL)
    told = watch.spent(NANODOLLARS // 2, 3.0, WALL)
    assert {one.subject for one in told} == {"near", "cap"}, "what was spent before counts"


def test_another_window_begins_anew() -> None:
    rules = AlertRules(for_seconds=0.0)
    watch = AlertWatch(rules)
    fed(watch, 100, 9, now=0.0)
    watch.change(structs.replace(rules, window_seconds=60.0), 1.0, WALL)
    assert fed(watch, 0, 19, now=1.0) == [], "nineteen attempts are all there are"
    assert len(fed(watch, 0, 1, now=1.0)) == 1


def test_subjects_do_not_grow_without_bound() -> None:
    watch = AlertWatch(AlertRules(window_seconds=10.0))
    for number in range(5_000):
        fed(watch, 0, 1, now=0.0, subject=f"m{number}")
    assert len(watch._lines) == 2_000
    fed(watch, 0, 1, now=100.0, subject="late")
    assert len(watch._lines) == 1, "what has seen nothing for a window makes room"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("error_rate_percent", 0),
        ("error_rate_percent", 101),
        ("error_rate_percent", "10"),
        ("key_error_rate_percent", True),
        ("window_seconds", 0.5),
        ("window_seconds", None),
        ("least_attempts", 1.5),
        ("clear_share", 1.1),
        ("for_seconds", -1),
        ("spend_per_hour", 0),
        ("spend_per_day", float("nan")),
        ("spend_near_percent", 0),
        ("keys_exhausted", 1),
        ("enabled", None),
    ],
)
def test_a_wrong_threshold_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"alerts.{field}"):
        AlertRules(**{field: value})  # type: ignore[arg-type]


def test_a_trigger_never_clears_above_where_it_raises() -> None:
    with pytest.raises(ValueError, match="clears"):
        Trigger(1.0, 2.0)


def test_of_what_repeats_itself_one_in_a_while_is_told() -> None:
    repeats = Repeats(seconds=60.0, most=2)
    assert repeats.hear("a", 0.0) == 0
    assert [repeats.hear("a", at) for at in (1.0, 59.9)] == [None, None]
    assert repeats.hear("b", 10.0) == 0
    assert repeats.hear("a", 60.0) == 2
    repeats.hear("c", 61.0)
    assert repeats.hear("b", 62.0) == 0, "the one heard longest ago was forgotten"
