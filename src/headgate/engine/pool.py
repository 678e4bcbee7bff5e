"""The keys as the running engine holds them: a ring, a lock, a clock.

Every method is one short section under a plain lock, without awaiting, so threads and any number of
event loops may share a pool.
"""

from __future__ import annotations

from collections.abc import Collection
from threading import Lock

from headgate.core.outcome import Outcome
from headgate.core.ports import Clock
from headgate.policy.keyring import EVERY_MODEL, KeyRing
from headgate.policy.leases import KeyState, Lease, Unready

__all__ = ["KeyPool"]


class KeyPool:
    """Leases on keys, booked one by one on the key they were taken for."""

    def __init__(self, ring: KeyRing, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock
        self._lock = Lock()
        self._last_index = 0

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def last_index(self) -> int:
        """Number of the key leased last; 0 before the first lease."""
        return self._last_index

    def lease(
        self, model: str, *, exclude: Collection[int] = (), prefer: Lease | None = None
    ) -> Lease | Unready:
        """A lease on a ready key for a model, or why there is none."""
        with self._lock:
            got = self._ring.choose(model, self._clock.monotonic(), exclude=exclude, prefer=prefer)
            if isinstance(got, Lease):
                self._last_index = got.index
            return got

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        """Book what became of a lease."""
        with self._lock:
            self._ring.book(lease, outcome, self._clock.monotonic(), self._clock.wall())

    def record(self, index: int, outcome: Outcome) -> None:
        """Count an outcome on a key, without consequences."""
        with self._lock:
            self._ring.record(index, outcome, self._clock.monotonic())

    def park(self, index: int, seconds: float, model: str = EVERY_MODEL) -> None:
        """Let a key's domain cool down."""
        with self._lock:
            self._ring.park(index, seconds, self._clock.monotonic(), model)

    def disable(self, index: int, reason: str) -> None:
        """Take a key out."""
        with self._lock:
            self._ring.disable(index, reason)

    def enable(self, index: int) -> None:
        """Give a key another chance."""
        with self._lock:
            self._ring.enable(index)

    def states(self) -> list[KeyState]:
        """Every key as it stands now."""
        with self._lock:
            return self._ring.states(self._clock.monotonic())
