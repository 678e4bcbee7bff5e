"""The parts a key ring is made of."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heapify

from headgate.core.call import Key
from headgate.policy.leases import KeyStats, Park

__all__ = ["MOST_DENIED", "Domain", "Entry", "Queue"]

MOST_DENIED = 1000
"""Models of which it is remembered that a key may not serve them; a further one costs one refusal again
where it comes back."""


@dataclass(slots=True, eq=False)
class Entry:
    """A key and what it went through."""

    key: Key
    index: int
    domain: int
    stats: KeyStats = field(default_factory=KeyStats)
    disabled: str | None = None
    denied: dict[str, None] = field(default_factory=dict)  # in the order in which they were refused

    def deny(self, model: str) -> list[str]:
        """It may not serve a model from now on. What is forgotten for it: callers name models."""
        self.denied[model] = None
        forgotten = list(self.denied)[:-MOST_DENIED]
        for old in forgotten:
            del self.denied[old]
        return forgotten

    def serves(self, model: str) -> bool:
        """Whether it may serve a model."""
        return self.disabled is None and model not in self.denied


@dataclass(slots=True)
class Domain:
    """A domain: its keys and its cool-downs."""

    keys: deque[Entry] = field(default_factory=deque)  # enabled ones, used longest ago first
    parks: dict[str, Park] = field(default_factory=dict)


@dataclass(slots=True)
class Queue:
    """The domains as one model sees them; each stands in one place of it."""

    seen: int = 0  # domains below this number have left the list of those not yet seen
    ready: deque[int] = field(default_factory=deque)
    cooling: list[tuple[float, int]] = field(default_factory=list)
    probes: list[tuple[float, int]] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)

    def bring_back(self, number: int) -> None:
        """Make a dead or cooling domain ready. O(n), for the rare cases where time does not do it."""
        cooling = [item for item in self.cooling if item[1] != number]
        if len(cooling) < len(self.cooling) or number in self.dead:
            heapify(cooling)
            self.cooling = cooling
            self.dead.discard(number)
            self.ready.appendleft(number)
