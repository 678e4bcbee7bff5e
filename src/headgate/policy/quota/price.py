"""Which of the sampled domains is cheapest: an exponential price in integers.

price = Σ over limits of need / L × exp(4 × used / L): what a call takes of each limit, dearer the
fuller the limit is. It is the price of online packing with exponential weights, with the choice of four
samples instead of all; docs/explanation/ledger.md compares it with simpler rules.

Integers only, one table for the exponential, one generator for the samples: the Lua script does the
same, so the two stores choose alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from headgate.core.quota import Costs, Limit

__all__ = ["EXPONENTIAL", "SAMPLES", "next_random", "next_seed", "price"]

SAMPLES = 4
STEPS = 64

EXPONENTIAL: tuple[int, ...] = tuple(
    round(1000 * math.exp(4 * step / STEPS)) for step in range(STEPS + 1)
)
"""1000 × exp(4 × step / 64): u/L in 64 steps. Costs no throughput against the exact function."""


def price(costs: Costs, limits: Sequence[Limit], held: Sequence[int]) -> int:
    """The price of a call where so much of each limit is held. All products stay below 2⁵³."""
    total = 0
    for number, limit in enumerate(limits):  # cheaper than a strict `zip`
        need, used, amount = costs[limit.counts], held[number], limit.amount
        # Without min() and max(): sixteen of these a decision, and calling those is most of one.
        step = used * STEPS // amount if 0 < used < amount else STEPS if used > 0 else 0
        taken = need if need < amount else amount  # noqa: FURB136
        total += taken * EXPONENTIAL[step] * 1000 // amount
    return total


def next_random(state: int) -> int:
    """The minimal-standard generator (Park and Miller, 1988): state in [1, 2³¹ − 2]."""
    return state * 16807 % 2147483647


def next_seed(seed: int) -> int:
    """The seed of the ask after the one that had this.

    Another multiplier (Park, Miller and Stockmeyer, 1993) than that of the draws: neither do the next
    ask's draws repeat this one's, nor do they stand at a fixed distance from them.
    """
    return seed * 48271 % 2147483647
