"""Resets of calendar days for the script, which knows no time zones."""

from __future__ import annotations

from functools import lru_cache

from headgate.policy.days import day_start, next_reset

__all__ = ["resets_around"]

AHEAD = 3
"""Resets to come: a charge just before a reset already counts to the day after it."""

_HOUR = 3_600_000


def resets_around(now: int) -> tuple[int, ...]:
    """Midnights Pacific in milliseconds: the last one and three to come, as of an instant in ms."""
    return _resets(now // _HOUR)


@lru_cache(maxsize=4)
def _resets(hour: int) -> tuple[int, ...]:
    resets = [day_start(hour * _HOUR / 1000)]
    while len(resets) <= AHEAD:
        resets.append(next_reset(resets[-1]))
    return tuple(int(reset * 1000) for reset in resets)
