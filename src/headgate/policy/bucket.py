"""Token buckets in whole numbers: `requests` tokens refill evenly over a window, and start full.

A token is split into `unit` units so that each tick of the clock adds a whole number of them
(`per_tick`): no fraction is ever rounded, whatever the limit and however often it is asked. A tick is
a microsecond, or a power of ten of them where the units would outgrow 2**53, the whole numbers that a
Lua script counts exactly. Where even that does not fit (a thousand million in an odd window), the
window is taken to be a tick longer: fewer pass, never more.

`stores/lua/bucket.lua` is this module's twin; a property test holds the two together.

The promise: in any interval of t seconds at most requests + t × requests / window are admitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import ceil, gcd, isfinite
from typing import NamedTuple

from headgate.core.buckets import Ask, Level, Rule

__all__ = ["Shape", "State", "ask_of", "rule_of", "shape_of", "take"]

_EXACT = 2**53
_MOST_REQUESTS = 10**12
_LONGEST_WINDOW = 10 * 366 * 86_400  # seconds


class Shape(NamedTuple):
    """The numbers a rule turns into.

    Attributes:
        unit: units in a token.
        per_tick: units that a tick adds.
        tick_us: microseconds in a tick.
        full: units in a full bucket.
    """

    unit: int
    per_tick: int
    tick_us: int
    full: int
    window_us: int


class State(NamedTuple):
    """A bucket at an instant: its units, and when they were right, in microseconds."""

    units: int
    last_us: int


@lru_cache(maxsize=4096, typed=True)
def rule_of(max_requests: int, window_seconds: float) -> Rule:
    """A rule out of what a user wrote. Raises `ValueError` that names the argument."""
    if type(max_requests) is not int:
        raise ValueError(f"max_requests takes a whole number; got {max_requests!r}")
    if not 1 <= max_requests <= _MOST_REQUESTS:
        raise ValueError(f"max_requests takes 1 to {_MOST_REQUESTS:,}; got {max_requests!r}")
    if type(window_seconds) not in (int, float):
        raise ValueError(f"window_seconds takes a number; got {window_seconds!r}")
    if not isfinite(window_seconds) or not 0 < window_seconds <= _LONGEST_WINDOW:
        raise ValueError(f"window_seconds takes more than 0, up to ten years; got {window_seconds!r}")
    # Up to a whole millisecond: a window may be longer than asked for, so fewer pass, never shorter.
    # Rounded to microseconds before, or 0.1 + 0.2 would be 301 ms.
    return Rule(max_requests, max(1, ceil(round(window_seconds * 1000, 3))))


def ask_of(identifier: str, rules: Iterable[Rule], cost: int = 1) -> Ask:
    """An ask that can be met, or `ValueError`: everything is checked before anything is taken."""
    wanted = tuple(dict.fromkeys(rules))
    if type(identifier) is not str or not identifier:
        raise ValueError("identifier takes a text that is not empty")
    try:
        identifier.encode()
    except UnicodeEncodeError:
        raise ValueError("identifier takes valid Unicode; it holds half a character") from None
    if not wanted:
        raise ValueError("at least one limit is needed")
    if type(cost) is not int or cost < 1:
        raise ValueError(f"cost takes a whole number, 1 or more; got {cost!r}")
    least = min(rule.requests for rule in wanted)
    if cost > least:
        raise ValueError(f"cost {cost} never fits into a limit of {least}")
    return Ask(identifier, wanted, cost)


@lru_cache(maxsize=4096)
def shape_of(rule: Rule) -> Shape:
    """The division of a rule's tokens. Cached: a service has few rules."""
    window_us, tick_us = rule.window_ms * 1000, 1
    while True:
        divisor = gcd(rule.requests * tick_us, window_us)
        unit = window_us // divisor
        if rule.requests * unit <= _EXACT:
            per_tick = rule.requests * tick_us // divisor
            return Shape(unit, per_tick, tick_us, rule.requests * unit, window_us)
        ticks = -(-window_us // tick_us)
        if rule.requests * ticks <= _EXACT:
            divisor = gcd(rule.requests, ticks)
            full = rule.requests * (ticks // divisor)
            return Shape(ticks // divisor, rule.requests // divisor, tick_us, full, window_us)
        tick_us *= 10


def take(
    shapes: Sequence[Shape], states: Sequence[State | None], now_us: int, cost: int
) -> tuple[bool, list[State], list[Level]]:
    """Take `cost` tokens from every bucket, or from none.

    Args:
        states: the buckets as they were stored; None for one that does not exist and so is full.
        cost: 0 only looks.

    Returns: whether they were taken, the new states, and the levels after it.
    """
    fresh, waits, allowed = [], [], True
    for shape, state in zip(shapes, states, strict=True):
        now = _refilled(shape, state, now_us)
        wait = _wait(shape, now, cost * shape.unit, now_us)
        allowed = allowed and wait == 0
        fresh.append(now)
        waits.append(wait)
    levels = []
    for place, shape in enumerate(shapes):
        units, last_us = fresh[place]
        if allowed and cost:
            units -= cost * shape.unit
            fresh[place] = State(units, last_us)
        full_in = _wait(shape, fresh[place], shape.full, now_us)
        levels.append(Level(units, shape.unit, full_in, waits[place]))
    return allowed, fresh, levels


def _refilled(shape: Shape, state: State | None, now_us: int) -> State:
    if state is None:
        return State(shape.full, now_us)
    behind = state.last_us - now_us
    if behind > 0:
        # The clock stepped back. Nothing refills until it has caught up, so that no second is
        # credited twice; a step longer than the window is a new clock, and counting starts over.
        return state if behind <= shape.window_us else State(state.units, now_us)
    ticks = -behind // shape.tick_us
    units = state.units + ticks * shape.per_tick
    if units >= shape.full:
        return State(shape.full, now_us)
    return State(units, state.last_us + ticks * shape.tick_us)


def _wait(shape: Shape, state: State, units: int, now_us: int) -> int:
    """Microseconds until the bucket holds `units`."""
    missing = units - state.units
    if missing <= 0:
        return 0
    ticks = -(-missing // shape.per_tick)
    return state.last_us + ticks * shape.tick_us - now_us
