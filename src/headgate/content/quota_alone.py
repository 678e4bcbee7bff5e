"""What a tracker has that no service gave anything: a clock, a ledger and a shelf of its own."""

from __future__ import annotations

from hashlib import sha256
from itertools import count

from headgate.content.ports import Json, Kept, NoLayers
from headgate.content.quota_book import QuotaBook
from headgate.content.quota_config import QuotaConfig
from headgate.core.ports import Clock, QuotaStore
from headgate.stores.memory import MemoryStore
from headgate.wiring.build import CHANCE
from headgate.wiring.clock import SystemClock

__all__ = ["MemoryShelf", "lone_book", "lone_shelf", "machine_clock"]

MOST_RESPONSES = 1000
"""That a tracker without a service keeps to stand in."""

_numbers = count(1)


def machine_clock() -> Clock:
    """The clock of this machine."""
    return SystemClock()


def lone_book(config: QuotaConfig, clock: Clock, store: QuotaStore | None = None) -> QuotaBook:
    """A ledger of one project with the limits of a configuration.

    Args:
        store: that processes share: those with the same limits then share a ledger. None: each tracker
            has its own.
    """
    limits = config.limits()
    home = store or MemoryStore(clock)
    shape = ",".join(f"{limit.name}={limit.amount}" for limit in limits)
    name = sha256(shape.encode()).hexdigest()[:12] if store is not None else str(next(_numbers))
    group = f"content:{name}"

    async def declared() -> str:
        await home.declare(group, [limits])
        return group

    return QuotaBook("", home, declared, clock, CHANCE)


def lone_shelf(clock: Clock) -> MemoryShelf:
    """Responses of one process, the latest thousand."""
    return MemoryShelf(clock)


class MemoryShelf(NoLayers):
    """Values of one process until their time is up, no more than a thousand; the oldest leave first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: dict[tuple[str, str], tuple[float, Json]] = {}

    async def get(self, namespace: str, key: str) -> Kept | None:
        """See `Layers.get`."""
        found = self._values.get((namespace, key))
        if found is None or found[0] <= self._clock.monotonic():
            return None
        return Kept(found[1], "memory")

    async def put(self, namespace: str, key: str, value: Json, ttl: float) -> None:
        """See `Layers.put`."""
        self._values.pop((namespace, key), None)
        self._values[namespace, key] = (self._clock.monotonic() + ttl, value)
        while len(self._values) > MOST_RESPONSES:
            del self._values[next(iter(self._values))]
