"""The emulator's counters admit exactly what their definitions say, nothing more, nothing less."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.emulator.quotas import (
    FixedWindow,
    PacificDay,
    Quota,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
    build,
)

# Times are quarters of a second and lengths whole seconds: exact in binary, so that an oracle may
# be exact too.
quarters = st.integers(0, 400).map(lambda n: n / 4)
gaps = st.lists(st.tuples(quarters, st.integers(1, 12)), min_size=1, max_size=60)
limits = st.integers(0, 20)
lengths = st.sampled_from([1, 4, 10, 60])
phases = st.integers(-200, 200).map(lambda n: n / 4)
Events = list[tuple[float, int]]


def arrivals(steps: list[tuple[float, int]]) -> Events:
    now, events = 0.0, []
    for gap, amount in steps:
        now += gap
        events.append((now, amount))
    return events


def admitted(quota: Quota, events: Events) -> tuple[Events, list[bool]]:
    taken, decisions = [], []
    for now, amount in events:
        decisions.append(quota.room(now, amount))
        if decisions[-1]:
            quota.charge(now, amount)
            taken.append((now, amount))
    return taken, decisions


@settings(deadline=None)
@given(gaps, limits, lengths, phases)
def test_a_fixed_window_admits_what_fits_the_sum_of_its_window(steps, limit, length, phase) -> None:
    events = arrivals(steps)
    _, decisions = admitted(FixedWindow(limit, length, phase), events)
    sums: dict[int, int] = {}
    for (now, amount), decision in zip(events, decisions, strict=True):
        window = math.floor(Fraction(now - phase) / length)
        assert decision == (sums.get(window, 0) + amount <= limit)
        if decision:
            sums[window] = sums.get(window, 0) + amount


@settings(deadline=None)
@given(gaps, limits, lengths)
def test_a_sliding_log_admits_what_fits_the_last_window(steps, limit, length) -> None:
    events = arrivals(steps)
    _, decisions = admitted(SlidingLog(limit, length), events)
    taken: Events = []
    for (now, amount), decision in zip(events, decisions, strict=True):
        recent = sum(a for t, a in taken if now - length < t <= now)
        assert decision == (recent + amount <= limit)
        if decision:
            taken.append((now, amount))


@settings(deadline=None)
@given(gaps, limits, lengths)
def test_a_sliding_log_never_admits_more_than_its_limit_in_any_window(steps, limit, length) -> None:
    taken, _ = admitted(SlidingLog(limit, length), arrivals(steps))
    for start, _ in taken:
        assert sum(a for t, a in taken if start <= t < start + length) <= limit


@settings(deadline=None)
@given(gaps, limits, lengths)
def test_a_token_bucket_admits_at_most_its_limit_and_what_flowed_in(steps, limit, length) -> None:
    taken, _ = admitted(TokenBucket(limit, length), arrivals(steps))
    for index, (start, _) in enumerate(taken):
        total = 0
        for now, amount in taken[index:]:
            total += amount
            assert total <= limit + (now - start) * limit / length + 1e-6


@settings(deadline=None)
@given(gaps, limits, lengths)
def test_a_token_bucket_refuses_only_what_it_does_not_hold(steps, limit, length) -> None:
    events = arrivals(steps)
    _, decisions = admitted(TokenBucket(limit, length), events)
    level, last = Fraction(limit), Fraction(0)
    for (now, amount), decision in zip(events, decisions, strict=True):
        level = min(Fraction(limit), level + (Fraction(now) - last) * limit / length)
        last = Fraction(now)
        assert decision == (level >= amount)
        if decision:
            level -= amount


@settings(deadline=None)
@given(gaps, limits, lengths, phases)
def test_a_sliding_counter_admits_what_fits_its_weighted_windows(steps, limit, length, phase) -> None:
    events = arrivals(steps)
    _, decisions = admitted(SlidingCounter(limit, length, phase), events)
    taken: Events = []
    for (now, amount), decision in zip(events, decisions, strict=True):
        age = Fraction(now) - Fraction(phase)
        window = math.floor(age / length)
        share = 1 - (age - window * length) / length
        sums = dict.fromkeys((window, window - 1), 0)
        for t, a in taken:
            past = math.floor((Fraction(t) - Fraction(phase)) / length)
            if past in sums:
                sums[past] += a
        assert decision == (sums[window] + sums[window - 1] * share + amount <= limit)
        if decision:
            taken.append((now, amount))


hours = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=60)
starts = st.sampled_from(
    [
        datetime(2026, 3, 7, 20, tzinfo=UTC).timestamp(),  # the 23-hour day begins
        datetime(2026, 10, 31, 20, tzinfo=UTC).timestamp(),  # the 25-hour day begins
        datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp(),
    ]
)


@settings(deadline=None)
@given(hours, st.integers(0, 10), starts)
def test_a_pacific_day_admits_its_limit_per_calendar_day_in_california(steps, limit, start) -> None:
    quota, zone = PacificDay(limit, origin=start), ZoneInfo("America/Los_Angeles")
    events = [(t * 3600.0 / 4, a) for t, a in arrivals(steps)]
    _, decisions = admitted(quota, events)
    sums: dict[object, int] = {}
    for (now, amount), decision in zip(events, decisions, strict=True):
        day = datetime.fromtimestamp(start + now, zone).date()
        assert decision == (sums.get(day, 0) + amount <= limit)
        if decision:
            sums[day] = sums.get(day, 0) + amount


mechanisms = st.sampled_from(["fixed", "sliding_log", "token_bucket", "sliding_counter", "midnight"])


@settings(deadline=None)
@given(gaps, limits, lengths, mechanisms, st.integers(1, 25))
def test_the_wait_ends_when_there_is_room_and_not_before(
    steps, limit, length, mechanism, amount
) -> None:
    quota = build(mechanism, limit, length, phase=7.25, origin=1_795_262_400.0)
    events = arrivals(steps)
    admitted(quota, events)
    now = events[-1][0]
    wait = quota.wait(now, amount)
    assert (wait == 0) == quota.room(now, amount)
    if math.isinf(wait):
        assert amount > limit
        return
    if wait > 1e-3:
        assert not quota.room(now + wait - 1e-4, amount)
    assert quota.room(now + wait + 1e-6, amount)


@settings(deadline=None)
@given(gaps, limits, lengths, mechanisms)
def test_asking_changes_nothing(steps, limit, length, mechanism) -> None:
    quiet = build(mechanism, limit, length)
    asked = build(mechanism, limit, length)
    _, expected = admitted(quiet, arrivals(steps))
    decisions = []
    for now, amount in arrivals(steps):
        asked.used(now)
        asked.wait(now, amount + 3)
        asked.room(now, amount)
        decisions.append(asked.room(now, amount))
        if decisions[-1]:
            asked.charge(now, amount)
    assert decisions == expected


@settings(deadline=None)
@given(gaps, limits, lengths, mechanisms)
def test_used_is_never_above_the_limit_when_only_admitted_amounts_are_charged(
    steps, limit, length, mechanism
) -> None:
    quota = build(mechanism, limit, length, phase=0.5)
    for now, amount in arrivals(steps):
        if quota.room(now, amount):
            quota.charge(now, amount)
        assert quota.used(now) <= limit * (1 + 1e-9)


def test_windows_begin_at_their_phase_after_the_full_minute() -> None:
    origin = 1_795_262_400.0 + 10  # ten seconds past a full minute
    quota = build("fixed", 1, 60, phase=15.0, origin=origin)
    quota.charge(4.0, 1)
    assert not quota.room(4.5, 1)
    assert quota.wait(4.5, 1) == pytest.approx(0.5)
    assert quota.room(5.0, 1)


def test_an_unknown_mechanism_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'leaky'"):
        build("leaky", 1, 60)
