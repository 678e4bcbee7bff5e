"""Alarms and counts over a window, over any history of values and times."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.alerts import Alert, AlertCleared, AlertRaised, AlertRule
from headgate.policy.alarm import Alarm, Rolling, Trigger, Turn
from headgate.policy.alert_rules import AlertRules
from headgate.policy.alerts import NANODOLLARS, AlertWatch

fixed = settings(max_examples=300, deadline=None, derandomize=True, database=None)

STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0, 7.0, 60.0]), st.integers(0, 20)), max_size=80
)
TRIGGERS = st.builds(
    Trigger,
    raise_at=st.just(10.0),
    clear_below=st.sampled_from([10.0, 8.0, 1.0]),
    hold=st.sampled_from([0.0, 1.0, 10.0]),
    calm=st.sampled_from([0.0, 2.0, 30.0]),
    rearm=st.sampled_from([0.0, 5.0, 100.0]),
)


@fixed
@given(TRIGGERS, STEPS)
def test_an_alarm_changes_exactly_when_its_trigger_says(trigger: Trigger, steps) -> None:  # type: ignore[no-untyped-def]
    """Against a naive reading of the whole history: the runs of high and of low values up to now."""
    alarm, now, standing, armed_from = Alarm(trigger), 0.0, False, float("-inf")
    run_from: float | None = None  # since when every value seen would change the state
    for passed, value in steps:
        now += passed
        turning = value < trigger.clear_below if standing else value >= trigger.raise_at
        run_from = None if not turning else now if run_from is None else run_from
        ripe = None
        if run_from is not None:
            ripe = run_from + trigger.calm if standing else max(run_from + trigger.hold, armed_from)
        expected = None
        if ripe is not None and now >= ripe:
            expected = Turn.CLEARED if standing else Turn.RAISED
            standing, run_from, ripe = not standing, None, None
            if expected is Turn.CLEARED:
                armed_from = now + trigger.rearm
        assert alarm.see(value, now) is expected
        assert (alarm.raised_at is not None) is standing
        assert alarm.due() == ripe


@fixed
@given(st.floats(11, 30), st.lists(st.floats(8.01, 9.99), min_size=1, max_size=40))
def test_a_value_that_trembles_between_the_thresholds_changes_nothing(high: float, values) -> None:  # type: ignore[no-untyped-def]
    alarm = Alarm(Trigger(10.0, 8.0))
    assert alarm.see(high, 0.0) is Turn.RAISED
    assert {alarm.see(value, float(at)) for at, value in enumerate(values)} == {None}


@fixed
@given(
    st.sampled_from([1, 4, 10]),
    st.lists(st.tuples(st.floats(0, 40), st.integers(0, 5), st.integers(0, 5)), max_size=60),
)
def test_a_window_holds_what_is_in_its_slots(slots: int, steps) -> None:  # type: ignore[no-untyped-def]
    """Nothing younger than the window less a slot is missing, nothing older than it is in."""
    rolling, now, seen = Rolling(20.0, slots), 0.0, []
    for passed, part, whole in steps:
        now += passed
        rolling.add(part, whole, now)
        seen.append((now, part, whole))
        kept = [one for one in seen if int(one[0] // rolling.width) > int(now // rolling.width) - slots]
        got = rolling.read(now)
        assert got == (sum(one[1] for one in kept), sum(one[2] for one in kept))
        assert {one for one in seen if one[0] > now - 20.0 + rolling.width} <= set(kept)
        assert all(one[0] > now - 20.0 for one in kept)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 20.0, 400.0]),
        st.sampled_from(["good", "bad", "refused", "served", "broken", "mended", "spent", "tick"]),
        st.sampled_from(["m1", "m2"]),
    ),
    max_size=120,
)


@fixed
@given(EVENTS)
def test_what_is_raised_is_cleared_once_before_it_is_raised_again(events) -> None:  # type: ignore[no-untyped-def]
    """Over any history; and in the end, with nothing happening any more, nothing stands."""
    rules = AlertRules(least_attempts=2, for_seconds=5.0, rearm_seconds=30.0, spend_per_hour=2.0)
    watch, now = AlertWatch(rules), 0.0
    standing: dict[tuple[str, str], float] = {}
    cleared: dict[tuple[str, str], float] = {}
    broken: set[str] = set()

    def check(alerts: list[Alert]) -> None:
        for alert in alerts:
            name = (alert.rule, alert.subject)
            if isinstance(alert, AlertRaised):
                assert name not in standing
                assert alert.value >= alert.threshold
                assert now >= cleared.get(name, float("-inf")) + 30.0
                standing[name] = now
            else:
                assert isinstance(alert, AlertCleared)
                assert alert.seconds == now - standing.pop(name)
                cleared[name] = now
        assert {(one.rule, one.subject) for one in watch.standing()} == set(standing)

    for passed, what, model in events:
        now += passed
        if what in ("good", "bad"):
            check(watch.attempt(AlertRule.ERROR_RATE, model, now, now, good=what == "good"))
        elif what in ("refused", "served"):
            check(getattr(watch, what)(model, now, now))
        elif what in ("broken", "mended"):
            broken = broken | {model} if what == "broken" else broken - {model}
            check(watch.breakers(broken, now, now))
        elif what == "spent":
            check(watch.spent(NANODOLLARS // 2, now, now))
        else:
            check(watch.tick(now, now))
    check(watch.breakers((), now, now))
    check(watch.tick(now, now))
    for _ in range(2_000):
        if watch.due == float("inf"):
            break
        assert watch.due >= now, "a time that has passed is due for ever"
        now = watch.due
        check(watch.tick(now, now))
    assert not standing
    assert watch.due == float("inf")
