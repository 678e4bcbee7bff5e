"""Invariants of token buckets over random histories, and memory and script decide alike."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import redis.asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests import valkey
from tests.limits import with_test_time

from headgate.core.buckets import Ask, Rule
from headgate.policy.bucket import State, rule_of, shape_of, take
from headgate.stores import buckets
from headgate.stores.buckets import MemoryBuckets, RedisBuckets
from headgate.stores.line import StoreLine
from headgate.testing import VirtualClock

valkey_server = valkey.valkey_server

RULES = st.builds(
    Rule,
    st.one_of(st.integers(1, 20), st.integers(1, 10**12)),
    st.one_of(st.integers(1, 5000), st.integers(1, 366 * 86_400_000)),
)
GAPS = st.one_of(st.integers(0, 2_000_000), st.integers(0, 10**11))


@settings(deadline=None, max_examples=150)
@given(RULES, st.lists(st.tuples(GAPS, st.integers(1, 3)), min_size=1, max_size=40))
def test_no_interval_admits_more_than_its_share(rule: Rule, steps: list[tuple[int, int]]) -> None:
    """In each interval of t at most max + rate·t, exactly; and what is refused had no room."""
    shape, state, now = shape_of(rule), None, 0
    rate = Fraction(rule.requests, rule.window_ms * 1000)
    passed: list[tuple[int, int]] = []
    for gap, cost in steps:
        now += gap
        cost = min(cost, rule.requests)  # noqa: PLW2901
        allowed, (state,), _ = take([shape], [state], now, cost)
        if allowed:
            passed.append((now, cost))
    for first in range(len(passed)):
        total = 0
        for moment, cost in passed[first:]:
            total += cost
            assert total <= rule.requests + rate * (moment - passed[first][0])


@settings(deadline=None, max_examples=150)
@given(RULES, st.lists(GAPS, min_size=1, max_size=20), st.integers(1, 5))
def test_retry_after_suffices_and_is_at_most_a_second_too_long(
    rule: Rule, gaps: list[int], cost: int
) -> None:
    shape, now = shape_of(rule), 10**15
    cost = min(cost, rule.requests)
    state: State | None = State(0, now)
    for gap in gaps:
        now += gap
        allowed, (state,), (level,) = take([shape], [state], now, cost)
        if allowed:
            continue
        exact = level.wait_us
        assert not take([shape], [state], now + exact - 1, cost)[0]
        retry_after = max(1, -(-exact // 1_000_000))
        assert take([shape], [state], now + retry_after * 1_000_000, cost)[0]
        assert retry_after * 1_000_000 - exact <= 1_000_000
        assert not take([shape], [state], now + exact, cost)[2][0].wait_us


@settings(deadline=None, max_examples=100)
@given(RULES, st.lists(GAPS, min_size=1, max_size=20), st.integers(-(10**9), 10**9))
def test_looking_often_refills_nothing_twice(rule: Rule, gaps: list[int], step: int) -> None:
    """The same bucket, looked at or left alone, holds the same; a level is never out of bounds."""
    shape = shape_of(rule)
    start = State(0, 10**15)
    now, seen = 10**15, start
    for gap in gaps:
        now += gap
        _, (seen,), (level,) = take([shape], [seen], now, 0)
        assert 0 <= level.units <= shape.full
    _, _, (often,) = take([shape], [seen], now, 0)
    _, _, (once,) = take([shape], [start], now, 0)
    assert (often.units, often.full_in_us) == (once.units, once.full_in_us)
    _, _, (stepped,) = take([shape], [seen], now + step, 0)
    if step < 0:
        assert stepped.units == often.units


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 10**6), st.floats(1e-6, 1e6, allow_nan=False))
def test_any_window_becomes_a_rule_that_is_no_looser(requests: int, seconds: float) -> None:
    rule = rule_of(requests, seconds)
    assert rule.window_ms >= 1
    assert rule.window_ms / 1000 >= seconds * (1 - 1e-9) - 1e-6


ASKS = st.builds(
    Ask,
    st.sampled_from(["user:1", "user:2", "ä}{%"]),
    st.lists(
        st.sampled_from(
            [
                Rule(3, 60_000),
                Rule(7, 59_989),
                Rule(2, 61_000),
                Rule(10**12, 86_400_000),
                Rule(999_983, 86_400_000),
            ]
        ),
        min_size=1,
        max_size=3,
        unique=True,
    ).map(tuple),
    st.integers(0, 2),
)
STEPS = st.one_of(
    st.tuples(st.just("take"), ASKS),
    st.tuples(st.just("later"), st.integers(-180_000_000, 120_000_000)),
    st.tuples(st.just("later"), st.integers(-(10**10), 10**10)),
    st.tuples(st.just("reset"), st.sampled_from(["user:1", "user:2", "ä}{%"])),
)


COARSE = ("take", Ask("user:1", (Rule(999_983, 86_400_000),)))
"""A bucket whose ticks are ten microseconds long."""

MINUTE = ("take", Ask("user:1", (Rule(3, 60_000),)))


class _SteppingClock:
    """Monotonic for nobody: memory is shown the same steps back that the server sees."""

    def __init__(self) -> None:
        self.us = 1_795_262_400_000_000

    def monotonic(self) -> float:
        return _Exact(self.us)

    def wall(self) -> float:
        return _Exact(self.us)

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class _Exact(float):
    """Seconds that turn back into their microseconds without loss."""

    def __new__(cls, us: int) -> _Exact:
        made = super().__new__(cls, us / 1_000_000)
        made.us = us
        return made

    def __mul__(self, other: object) -> Any:
        return self.us if other == 1_000_000 else NotImplemented


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(STEPS, min_size=1, max_size=40))
@example(history=[COARSE, ("later", 15), COARSE, ("later", 15), COARSE, ("later", 5), COARSE])
@example(history=[MINUTE, ("later", -60_000_000), MINUTE, ("later", 61_000_000), MINUTE])
@example(history=[MINUTE, ("later", -60_000_001), MINUTE, ("later", 30_000_000), MINUTE])
def test_memory_and_script_agree(
    history: list[tuple[str, Any]], valkey_server: Any, monkeypatch: Any
) -> None:
    """Same history, same verdicts: allowed, exact units, exact waits."""
    source = with_test_time(_shipped)
    monkeypatch.setattr(buckets, "_source", lambda: source)
    # A full bucket that was forgotten is no loss, unless time steps back: memory's never does.
    monkeypatch.setattr(MemoryBuckets, "_evict", lambda self, now: None)

    async def main() -> None:
        clock = _SteppingClock()
        memory = MemoryBuckets(clock)
        async with redis.asyncio.Redis(unix_socket_path=valkey_server.path) as client:
            await client.flushall()
            line = StoreLine(client, clock=VirtualClock(), chance=lambda: 0.5, timeout=10)
            shared = RedisBuckets(line)
            await client.set("test:time", clock.us)
            for what, value in history:
                if what == "later":
                    clock.us += value
                    await client.set("test:time", clock.us)
                elif what == "reset":
                    await memory.reset(value)
                    await shared.reset(value)
                else:
                    assert await memory.take(value) == await shared.take(value)
            await shared.aclose()

    asyncio.run(main())


_shipped = buckets._source()
