"""Callers and their usage as JSON, for the management API and the command line. No hash of a key is in
it, and no key."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import structs

from headgate.core.callers import Caller, CallerState
from headgate.gateway.caller_book import CallerUsage
from headgate.policy.budget import dollars

__all__ = ["shown", "shown_usage"]


def shown(caller: Caller, now: float) -> dict[str, object]:
    """A caller. `state` is `active`, `revoked` or `expired`; `dollars` repeat nano-dollars for people.

    Args:
        now: Unix seconds.
    """
    state: str = caller.state.value
    if caller.state is CallerState.ACTIVE and not caller.is_open(now):
        state = "expired"
    budget = caller.budget
    return {
        "id": caller.id,
        "name": caller.name,
        "state": state,
        "keys": [
            {"ending": key.ending, "created": _instant(key.created), "until": _instant(key.until)}
            for key in caller.keys
            if key.until is None or key.until > now
        ],
        "created": _instant(caller.created),
        "rotated": _instant(caller.rotated),
        "expires": _instant(caller.expires),
        "priority": None if caller.priority is None else caller.priority.value,
        "limits": {name: getattr(caller.limits, name) for name in caller.limits.__struct_fields__},
        "budget": None
        if budget is None
        else {
            "amount": budget.amount,
            "dollars": dollars(budget.amount),
            "window": budget.window.value,
        },
        "models": list(caller.models),
        "surfaces": list(caller.surfaces),
        "tags": dict(caller.tags),
        "version": caller.version,
    }


def shown_usage(usage: CallerUsage) -> dict[str, object]:
    """What a caller used: money in nano-dollars, and `ledger` with the sums of the usage ledger."""
    left = usage.left
    sums = None
    if usage.sums is not None:
        sums = structs.asdict(usage.sums)
        for name in ("name", "start"):
            del sums[name]
    return {
        "window": usage.window.value,
        "until": _instant(usage.until),
        "budget": usage.amount,
        "spent": usage.spending.spent,
        "held": usage.spending.held,
        "left": left,
        "under_way": usage.spending.under_way,
        "unpriced": usage.spending.unpriced,
        "ledger": sums,
    }


def _instant(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
