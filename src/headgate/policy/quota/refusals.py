"""What a refused ask is told: when it may be granted, and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.core.quota import Costs, Refusal
from headgate.policy.quota.accounts import Account, Flights
from headgate.policy.quota.choice import Wish

__all__ = ["exact_refusal", "fits_nowhere"]


def exact_refusal(accounts: Sequence[Account], wish: Wish, flights: Flights) -> Refusal:
    """The refusal by a group that is small enough to look at every domain."""
    times = [
        found
        for handle, account in enumerate(accounts)
        if not account.shut and handle not in wish.exclude
        if (found := account.room_at(wish.costs, flights)) is not None
    ]
    if not times:
        return Refusal(None, never=fits_nowhere(accounts, wish.costs))
    at, name = min(times, key=lambda found: found[0])
    return Refusal(max(flights.now + 1, at), name)


def fits_nowhere(accounts: Sequence[Account], costs: Costs) -> bool:
    """Whether the costs exceed a limit of every domain: no waiting helps."""
    return bool(accounts) and all(
        any(costs[limit.counts] > limit.amount for limit in account.limits) for account in accounts
    )
