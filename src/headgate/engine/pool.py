"""The keys as the running engine holds them: a ring, a lock, a clock.

Every method is one short section under a plain lock, without awaiting, so threads and any number of
event loops may share a pool.
"""

from __future__ import annotations

from collections.abc import Collection
from threading import Lock

from msgspec import structs

from headgate.core.outcome import Outcome
from headgate.core.ports import Clock
from headgate.policy.inheritance import alike, inherit
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

    def lease_of(self, domain: str, model: str, prefer: Lease | None = None) -> Lease | Unready:
        """A lease on a key of one domain alone, or why there is none. O(keys) where there is none."""
        with self._lock:
            now = self._clock.monotonic()
            closed, unready = self._ring.closed(model, now)
            number = self._number(domain)
            if number is not None and number not in closed:
                lease = self._ring.lease_in(number, model, now, "", prefer)
                if lease is not None:
                    self._last_index = lease.index
                    return lease
            return structs.replace(unready, recovers=self._recovers(domain, model, now))

    def others(self, domain: str) -> frozenset[int]:
        """Every domain but one, by number."""
        names = self.domain_names
        return frozenset(number for number, name in enumerate(names) if name != domain)

    def _number(self, domain: str) -> int | None:
        names = self._ring.domain_names
        return names.index(domain) if domain in names else None

    def _recovers(self, domain: str, model: str, now: float) -> float | None:
        """When the cool-down of a domain for a model is over; None if no key of it may ever serve."""
        states = [state for state in self._ring.states(now) if state.key.domain == domain]
        if all(state.disabled is not None for state in states):
            return None
        parks = (states[0].parks.get(name) for name in (model, EVERY_MODEL))
        return max((park.until for park in parks if park is not None), default=None)

    @property
    def domain_names(self) -> list[str]:
        """Names of the domains that may be chosen, by number."""
        with self._lock:
            return self._ring.domain_names

    def closed(self, model: str) -> tuple[set[int], Unready]:
        """The domains that may not serve a model now, and when the first recovers."""
        with self._lock:
            return self._ring.closed(model, self._clock.monotonic())

    def lease_in(self, domain: int, model: str, rid: str, prefer: Lease | None = None) -> Lease | None:
        """A lease on a key of a domain that the quota ledger has granted."""
        with self._lock:
            now = self._clock.monotonic()
            return self._leased(self._ring.lease_in(domain, model, now, rid, prefer))

    def lease_probe(self, model: str, exclude: Collection[int]) -> Lease | None:
        """The hourly try of a domain that rests, if one is due."""
        with self._lock:
            return self._leased(self._ring.lease_probe(model, self._clock.monotonic(), exclude))

    def _leased(self, lease: Lease | None) -> Lease | None:
        if lease is not None:
            self._last_index = lease.index
        return lease

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

    def succeeding(self, before: KeyPool) -> KeyPool:
        """The pool before this one, where both have the same keys under the same rules; else this one,
        of which nobody has a lease yet, with what that one knows of keys and domains that both have."""
        with before._lock, self._lock:
            if alike(before._ring, self._ring):
                return before
            inherit(before._ring, self._ring)
        return self

    def state(self, index: int) -> KeyState:
        """One key as it stands now."""
        with self._lock:
            return self._ring.state(index, self._clock.monotonic())

    def states(self) -> list[KeyState]:
        """Every key as it stands now."""
        with self._lock:
            return self._ring.states(self._clock.monotonic())
