"""Budgets that hold: money is set aside before a call is sent, and the truth is booked when it ended.

What is spent and what is held never exceed the amount together, whatever is under way at the same time.
A hold of a process that died stays: nobody knows what its call used, so it counts at its worst. As a
call under way it stands in the way for `HOLD_SECONDS` only.

Pure: money is whole nano-dollars, time is an argument in Unix seconds, windows are those of UTC.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from headgate.core.callers import BudgetWindow, Denied, Held, Hold

__all__ = ["HOLD_SECONDS", "NANO", "decide", "dollars", "nano", "period_end", "period_of"]

HOLD_SECONDS = 60.0
"""How long a hold counts as a call under way without word of its process; the process renews it long
before."""

NANO = 10**9
"""Nano-dollars in a dollar."""

_MOST_DOLLARS = 9_000_000_000  # in nano-dollars it fits into 64 bits, which databases count with


def nano(amount: float) -> int:
    """Dollars as nano-dollars. Raises `ValueError` for what is no amount above 0, up to nine thousand
    million."""
    if isinstance(amount, bool) or not math.isfinite(amount) or not 0 < amount <= _MOST_DOLLARS:
        raise ValueError(f"an amount in dollars above 0, up to {_MOST_DOLLARS:,}")
    return max(1, round(amount * NANO))


def dollars(amount: int) -> float:
    """Nano-dollars as dollars."""
    return amount / NANO


def period_of(window: BudgetWindow, now: float) -> str:
    """The name of the window that an instant lies in: `2026-11-21`, `2026-11` or `total`."""
    if window is BudgetWindow.TOTAL:
        return "total"
    day = datetime.fromtimestamp(now, UTC).date()
    return day.isoformat() if window is BudgetWindow.DAY else f"{day:%Y-%m}"


def period_end(window: BudgetWindow, now: float) -> float | None:
    """When the window ends that an instant lies in; None: never."""
    if window is BudgetWindow.TOTAL:
        return None
    start = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if window is BudgetWindow.DAY:
        return (start + timedelta(days=1)).timestamp()
    return (start.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp()


def decide(ask: Hold, *, spent: int, held: int, under_way: int) -> Held | Denied:
    """Whether a call may be sent, and what is held for it.

    Args:
        spent, held: nano-dollars of the window of the ask's budget.
        under_way: calls of the caller.
    """
    if ask.concurrent is not None and under_way >= ask.concurrent:
        return Denied(True, spent, held)
    if ask.budget is None:
        return Held()
    room = ask.budget.amount - spent - held
    for wish in ask.wishes:
        if room > 0 and wish <= room:
            return Held(wish)
    return Denied(False, spent, held)
