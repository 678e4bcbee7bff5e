"""How long a line of waiting calls lasts at the least.

A pool whose limits add up to L per window W admits at most L × (⌊t / W⌋ + 1) within any time t: so a
call with a backlog of B before it, itself included, cannot go before (⌈B / L⌉ − 1) × W has passed. A
call whose bound is shorter is refused at once instead of waiting for nothing. It is a lower bound: what
is surely impossible is refused, nothing else. What stands before a call is for the queue to say
(`policy/fairness.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from headgate.core.quota import Costs, Counts, Kind, Limit

__all__ = ["Capacity", "capacity", "least_wait", "roomiest", "share"]

Capacity = Mapping[Counts, tuple[int, int]]
"""What a pool admits, by what is counted: amount and window in milliseconds."""


def capacity(domains: Sequence[Sequence[Limit]]) -> Capacity:
    """The summed rolling limits of a pool. What some domain does not limit is not limited."""
    found: dict[Counts, tuple[int, int]] = {}
    for counts in (Counts.REQUESTS, Counts.INPUT, Counts.OUTPUT, Counts.TOTAL):
        rows = [
            [limit for limit in limits if limit.counts is counts and limit.kind is Kind.ROLLING]
            for limits in domains
        ]
        if rows and all(rows):
            # Of several windows in one domain the one that admits least in the long run decides.
            tightest = [min(row, key=lambda limit: limit.amount / limit.window) for row in rows]
            window = min(limit.window for limit in tightest)
            found[counts] = (sum(limit.amount for limit in tightest), window)
    return found


def least_wait(pool: Capacity, backlog: Mapping[Counts, int]) -> float:
    """Seconds that must pass before the last call of a backlog can go."""
    waits = [
        (max(1, -(-amount // pool[counts][0])) - 1) * pool[counts][1] / 1000
        for counts, amount in backlog.items()
        if counts in pool
    ]
    return max(waits, default=0.0)


def share(pool: Capacity, costs: Costs) -> float:
    """The part of a pool's window that a call takes of whatever it takes most of.

    Callers are compared by it: one with few long prompts and one with many short ones get as much of
    what each needs most (dominant resource fairness; Ghodsi et al., 2011). Where no rate is limited,
    calls are counted.
    """
    parts = [amount / pool[counts][0] for counts, amount in costs.items() if counts in pool]
    return max(parts, default=1.0)


def roomiest(domains: Sequence[Collection[Limit]], costs: Costs, closed: Collection[int]) -> int | None:
    """The domain of whose limits a call takes the smallest part: there it will find room first, if
    nobody smaller is let in before it. None where it fits nowhere."""
    parts = [
        (max((costs.get(limit.counts, 0) / limit.amount for limit in limits), default=0.0), handle)
        for handle, limits in enumerate(domains)
        if handle not in closed
    ]
    part, handle = min(parts, default=(2.0, 0))
    return handle if part <= 1 else None
