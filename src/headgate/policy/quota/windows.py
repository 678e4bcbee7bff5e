"""The instants at which charges end, in integer milliseconds.

A limit holds a charge at least as long as the provider may count it, whichever mechanism counts:

    rolling    until the end of its bucket plus the whole window, so no window ever sees more than the
               limit: fixed windows of any phase, a sliding log, a token bucket are all satisfied
    calendar   until the first reset after the charge can have been counted
    concurrent while the call runs

The Lua script of the Valkey store computes with the same integers, so both stores decide alike.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from headgate.core.quota import Kind, Limit

__all__ = ["DAY", "RESET_EARLY", "RESET_LATE", "SKEW", "bucket_width", "expiry"]

_CALENDAR = Kind.CALENDAR  # a member of an enum costs as much as a call to look up

DAY = 86_400_000

# A bucket of a six-hundredth of the window wastes 0.08 % of it and bounds the buckets of a limit.
BUCKETS = 600
DAY_BUCKET = 300_000
"""Five minutes: a rolling day needs no finer grain."""

SKEW = 100
"""Milliseconds another server's clock may be ahead after a failover."""

RESET_EARLY = 5_000
"""A provider's clock may be this far ahead: its day then ends before ours."""

RESET_LATE = 60_000
"""A provider may apply a reset this late."""


def bucket_width(limit: Limit) -> int:
    """Width of a bucket in milliseconds."""
    return DAY_BUCKET if limit.window >= DAY else limit.window // BUCKETS or 1


def expiry(limit: Limit, moment: int, resets: Sequence[int], *, counted_by: int | None = None) -> int:
    """When a charge made at `moment` is released.

    Args:
        resets: ascending instants at which calendar days end. Where none of them is far enough ahead
            the charge is held for two days, later than any reset can be.
        counted_by: how long after `moment` the provider may still count; default: the limit's guard.
    """
    latest = moment + (limit.guard if counted_by is None else counted_by)
    if limit.kind is _CALENDAR:
        # What may be counted on either side of a reset is charged to the later day.
        following = bisect_right(resets, latest + RESET_EARLY)
        return latest + 2 * DAY if following == len(resets) else resets[following] + RESET_LATE
    width = bucket_width(limit)
    return -(-latest // width) * width + limit.window
