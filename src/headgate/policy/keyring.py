"""Which key sends the next attempt, and what each outcome does to it.

Quota belongs to a *domain* (a Google project) and a model, so that is what cools down; a *key* is only
a credential of its domain, and is only ever disabled for its own faults. The ring takes the domain
that was used longest ago among those that are ready: demand spreads evenly, so no domain runs into its
limit while another has room.

Cost: choosing is O(1) for any number of keys, plus O(log n) for every cool-down that began or ended
since. Each model has a queue of its own, in which a domain is in exactly one place: not yet seen,
ready, cooling, or dead (no key left that may serve the model). Queues learn of a park when they next
take the domain, so parking costs nothing.

Pure: times are arguments, in monotonic seconds; the caller holds a lock around every method.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from heapq import heappop, heappush, heapreplace

from msgspec import structs

from headgate.core.call import Key
from headgate.core.outcome import Booking, Kind, Outcome
from headgate.policy.cooldown import HOUR, cooldown
from headgate.policy.entries import Domain, Entry, Queue
from headgate.policy.leases import KeyState, Lease, Park, Unready

__all__ = ["EVERY_MODEL", "KeyRing"]

EVERY_MODEL = "*"
"""Stands for all models where a park holds a whole domain."""

_MOST_QUEUES = 1000
"""Callers may name any model: a bound for what is remembered of them."""


class KeyRing:
    """The keys of one provider, their cool-downs and their records.

    Args:
        keys: in the order in which they are numbered.
        rotation: False sends with the first key only; the others are shown, never used.
        fallback: seconds a domain cools down when the upstream gives no hint.
    """

    def __init__(self, keys: Sequence[Key], *, rotation: bool = True, fallback: float = 60.0) -> None:
        self._fallback = fallback
        self._entries: list[Entry] = []
        self._domains: list[Domain] = []
        self._queues: dict[str, Queue] = {}
        self._denied: Counter[str] = Counter()
        self._troubled: set[int] = set()  # domains that may be closed for some model
        self._disabled = 0
        numbers: dict[str, int] = {}
        for index, key in enumerate(keys):
            number = numbers.setdefault(key.domain, len(self._domains))
            if number == len(self._domains):
                self._domains.append(Domain())
            entry = Entry(key, index, number)
            self._entries.append(entry)
            if rotation or index == 0:
                self._domains[number].keys.append(entry)
        self._choosable_domains = len(self._domains) if rotation else min(1, len(keys))
        self._names = list(numbers)[: self._choosable_domains]
        self._choosable_keys = len(keys) if rotation else min(1, len(keys))

    def __len__(self) -> int:
        return len(self._entries)

    # ── choosing ────────────────────────────────────────────────────────────────────────────────

    def choose(
        self, model: str, now: float, *, exclude: Collection[int] = (), prefer: Lease | None = None
    ) -> Lease | Unready:
        """A lease on the ready domain used longest ago, or why there is none.

        Args:
            model: the model on the wire.
            exclude: domains (`Lease.domain`) that refused this call and must not be asked again.
            prefer: the lease of the last attempt; its key is used again if it is still ready.
        """
        if prefer is not None and self._still_ready(prefer, now):
            return self._lease(self._entries[prefer.index], model, now, probe=prefer.probe)
        queue = self._queue(model)
        while queue.cooling and queue.cooling[0][0] <= now:
            queue.ready.appendleft(heappop(queue.cooling)[1])  # its quota is fresh: it comes first
        skipped: list[int] = []
        lease = self._next_ready(queue, model, now, exclude, skipped)
        queue.ready.extendleft(reversed(skipped))
        if lease is None:
            lease = self._next_probe(queue, model, now, exclude)
        return lease or self._unready(queue, model, now, skipped=bool(skipped))

    def _queue(self, model: str) -> Queue:
        queue = self._queues.get(model)
        if queue is None:
            if len(self._queues) >= _MOST_QUEUES:  # forgetting one loses no park: domains hold those
                del self._queues[next(iter(self._queues))]
            queue = self._queues[model] = Queue()
        return queue

    def _still_ready(self, last: Lease, now: float) -> bool:
        entry = self._entries[last.index]
        parked = self._park(last.domain, last.model, now) is not None
        return entry.serves(last.model) and (last.probe or not parked)

    def _next_ready(
        self, queue: Queue, model: str, now: float, exclude: Collection[int], skipped: list[int]
    ) -> Lease | None:
        while (number := self._take(queue)) is not None:
            entry = self._first_usable(number, model)
            if entry is None:
                queue.dead.add(number)
            elif (park := self._park(number, model, now)) is not None:
                heappush(queue.cooling, (park.until, number))
                if park.probe_at is not None:
                    heappush(queue.probes, (park.probe_at, number))
            elif number in exclude:
                skipped.append(number)
            else:
                queue.ready.append(number)
                return self._lease(entry, model, now)
        return None

    def _take(self, queue: Queue) -> int | None:
        if queue.seen < self._choosable_domains:
            queue.seen += 1
            return queue.seen - 1
        return queue.ready.popleft() if queue.ready else None

    def _next_probe(
        self, queue: Queue, model: str, now: float, exclude: Collection[int]
    ) -> Lease | None:
        """One try of a parked domain, at most once an hour, when nothing else is ready."""
        excluded: list[tuple[float, int]] = []
        lease = None
        while lease is None and queue.probes and queue.probes[0][0] <= now:
            due, number = heappop(queue.probes)
            park = self._park(number, model, now)
            if park is None or park.probe_at is None:
                continue  # that park has passed
            if park.probe_at != due:  # its probe was taken, or a later refusal moved it
                if (park.probe_at, number) not in queue.probes:
                    heappush(queue.probes, (park.probe_at, number))
            elif number in exclude:
                excluded.append((due, number))
            elif (entry := self._first_usable(number, model)) is not None:
                self._postpone_probe(queue, number, park, now + HOUR)
                lease = self._lease(entry, model, now, probe=True)
        for probe in excluded:
            heappush(queue.probes, probe)
        return lease

    def _postpone_probe(self, queue: Queue, number: int, park: Park, when: float) -> None:
        parks = self._domains[number].parks
        for model in [model for model, held in parks.items() if held is park]:
            parks[model] = structs.replace(park, probe_at=when)
        heappush(queue.probes, (when, number))

    def _probe_again(self, lease: Lease, now: float) -> None:
        park = self._park(lease.domain, lease.model, now)
        if park is not None and park.probe_at is not None:
            self._postpone_probe(self._queue(lease.model), lease.domain, park, now + HOUR / 60)

    def _unready(self, queue: Queue, model: str, now: float, *, skipped: bool) -> Unready:
        while queue.cooling:
            until, number = queue.cooling[0]
            park = self._park(number, model, now)
            if self._first_usable(number, model) is None:
                queue.dead.add(heappop(queue.cooling)[1])
            elif park is not None and park.until > until:  # a later refusal was longer
                heapreplace(queue.cooling, (park.until, number))
            else:
                break
        recovers = now if skipped else None
        if recovers is None and queue.cooling:
            recovers = min(queue.cooling[0][0], max(now, self._first_probe(queue, model, now)))
        denied = self._denied[model]
        cooling = self._choosable_keys - self._disabled - denied
        return Unready(recovers, cooling, self._disabled, denied)

    def _first_probe(self, queue: Queue, model: str, now: float) -> float:
        """When the first parked domain may be tried before its time; never: infinity."""
        while queue.probes:
            due, number = queue.probes[0]
            park = self._park(number, model, now)
            if park is not None and park.probe_at == due and self._first_usable(number, model):
                return due
            heappop(queue.probes)  # its park has passed, or its probe was put off
            if park is not None and park.probe_at is not None and park.probe_at != due:
                heappush(queue.probes, (park.probe_at, number))
        return math.inf

    def _first_usable(self, number: int, model: str) -> Entry | None:
        for entry in self._domains[number].keys:  # nearly always the first: a generator costs more
            if model not in entry.denied:
                return entry
        return None

    def _lease(
        self, entry: Entry, model: str, now: float, *, probe: bool = False, rid: str = ""
    ) -> Lease:
        keys = self._domains[entry.domain].keys
        keys.remove(entry)  # found at once: it is the first that is usable
        keys.append(entry)
        entry.stats.last_used = now
        return Lease(entry.key, entry.index, entry.domain, model, now, probe, rid)

    # ── for a chooser that knows quotas ─────────────────────────────────────────────────────────

    @property
    def domain_names(self) -> list[str]:
        """Names of the domains that may be chosen, by number."""
        return list(self._names)

    def closed(self, model: str, now: float) -> tuple[set[int], Unready]:
        """The domains that may not serve a model, and when the first of them recovers."""
        closed: set[int] = set()
        recovers: float | None = None
        for number in list(self._troubled):
            domain = self._domains[number]
            park = self._park(number, model, now)
            if self._first_usable(number, model) is None:
                closed.add(number)
            elif park is not None:
                closed.add(number)
                recovers = min(recovers or math.inf, park.opens(now))
            elif self._park(number, EVERY_MODEL, now) is None and not any(
                e.denied for e in domain.keys
            ):
                self._troubled.discard(number)
        denied = self._denied[model]
        waiting = self._choosable_keys - self._disabled - denied
        return closed, Unready(recovers, waiting, self._disabled, denied)

    def lease_in(
        self, number: int, model: str, now: float, rid: str, prefer: Lease | None = None
    ) -> Lease | None:
        """A lease on the key of a domain that was used longest ago, or on the preferred one if it is
        in this domain and may serve; None if no key may."""
        entry = self._first_usable(number, model)
        if prefer is not None and prefer.domain == number:
            last = self._entries[prefer.index]
            entry = last if last.serves(model) else entry
        return None if entry is None else self._lease(entry, model, now, rid=rid)

    def lease_probe(self, model: str, now: float, exclude: Collection[int]) -> Lease | None:
        """The hourly try of a parked domain, if one is due."""
        for number in self._troubled.difference(exclude):
            park = self._park(number, model, now)
            entry = self._first_usable(number, model)
            if park is None or park.probe_at is None or park.probe_at > now or entry is None:
                continue
            self._postpone_probe(self._queue(model), number, park, now + HOUR)
            return self._lease(entry, model, now, probe=True)
        return None

    # ── booking ─────────────────────────────────────────────────────────────────────────────────

    def book(self, lease: Lease, outcome: Outcome, now: float, wall: float) -> None:
        """Settle a lease: record the outcome on its key and let key or domain suffer what follows."""
        self.record(lease.index, outcome, now)
        match outcome.rule.booking:
            case _ if outcome.kind is Kind.SUCCESS:  # first: nearly every call ends here
                self._served(lease, now)
            case Booking.PARK_MODEL:
                self._refused(lease, lease.model, outcome, now, wall)
            case Booking.PARK_DOMAIN:
                self._refused(lease, EVERY_MODEL, outcome, now, wall)
            case Booking.DISABLE_KEY:
                self.disable(lease.index, outcome.message)
            case Booking.DENY_KEY_MODEL:
                self._deny(self._entries[lease.index], lease.model)
            case Booking.DENY_DOMAIN_MODEL:
                for entry in self._domains[lease.domain].keys:
                    self._deny(entry, lease.model)
            case Booking.NOTHING | Booking.SKIP_DOMAIN if lease.probe:  # another may come soon
                self._probe_again(lease, now)

    def record(self, index: int, outcome: Outcome, now: float) -> None:
        """Count an outcome on a key, without any consequence. A cancelled attempt counts nowhere."""
        stats = self._entries[index].stats
        if outcome.kind is Kind.SUCCESS:
            stats.successes += 1
        elif outcome.kind is not Kind.CANCELLED:
            stats.failures += 1
            stats.quota_errors += outcome.rule.is_quota
            stats.last_error = now
            stats.last_error_message = outcome.message

    def park(self, index: int, seconds: float, now: float, model: str = EVERY_MODEL) -> None:
        """Let a key's domain cool down for one model or for all of them."""
        self._hold(self._entries[index].domain, model, Park(now, now + seconds, Kind.QUOTA_MINUTE))

    def disable(self, index: int, reason: str) -> None:
        """Take a key out until `enable`; its domain goes on with its other keys."""
        entry = self._entries[index]
        if entry.disabled is not None:
            return
        entry.disabled = reason
        self._troubled.add(entry.domain)
        keys = self._domains[entry.domain].keys
        if entry in keys:
            keys.remove(entry)
            self._disabled += 1
            self._denied.subtract(list(entry.denied))

    def enable(self, index: int) -> None:
        """Give a disabled, denied or cooling key another chance."""
        entry = self._entries[index]
        domain = self._domains[entry.domain]
        if entry.disabled is not None and index < self._choosable_keys:
            domain.keys.append(entry)
            self._disabled -= 1
        elif index < self._choosable_keys:
            self._denied.subtract(list(entry.denied))
        entry.disabled = None
        entry.denied.clear()
        domain.parks.clear()
        for queue in self._queues.values():
            queue.bring_back(entry.domain)

    def _refused(self, lease: Lease, model: str, outcome: Outcome, now: float, wall: float) -> None:
        held = self._domains[lease.domain].parks.get(model)
        running = held is not None and held.until > now
        if lease.probe:
            running = False  # the probe's answer is the newest truth
            self._release(lease)
        same_burst = running and held is not None and lease.taken <= held.since
        if same_burst and outcome.kind is Kind.QUOTA_UNKNOWN:
            return  # thirty refusals of one burst are one event
        streak = 0
        if outcome.kind is Kind.QUOTA_UNKNOWN and held is not None and held.kind is outcome.kind:
            streak = held.streak + 1
        cost = cooldown(
            outcome.kind, outcome.retry_after, fallback=self._fallback, streak=streak, wall=wall
        )
        probe_at = None if cost.probe_after is None else now + cost.probe_after
        park = Park(now, now + cost.seconds, outcome.kind, probe_at, streak)
        self._hold(lease.domain, model, park)

    def _hold(self, number: int, model: str, park: Park) -> None:
        parks = self._domains[number].parks
        held = parks.get(model)
        if held is not None and held.until > park.since:  # still running: the longer one counts
            longer = park if park.until >= held.until else held
            park = structs.replace(longer, since=held.since)
        for name in [name for name, other in parks.items() if other.until <= park.since - HOUR]:
            del parks[name]  # long over, and no streak of refusals hangs on it any more
        parks[model] = park
        self._troubled.add(number)

    def _served(self, lease: Lease, now: float) -> None:
        parks = self._domains[lease.domain].parks
        if lease.probe:
            self._release(lease)
        elif parks and (park := parks.get(lease.model)) is not None and park.until <= now:
            del parks[lease.model]  # ends a streak of unknown refusals

    def _release(self, lease: Lease) -> None:
        """A probe has answered: what held its domain back is over."""
        parks = self._domains[lease.domain].parks
        parks.pop(lease.model, None)
        parks.pop(EVERY_MODEL, None)
        for queue in self._queues.values():
            queue.bring_back(lease.domain)

    def _deny(self, entry: Entry, model: str) -> None:
        if model not in entry.denied:
            forgotten = entry.deny(model)
            self._troubled.add(entry.domain)
            if entry.disabled is None and entry.index < self._choosable_keys:
                self._denied[model] += 1
                self._denied -= Counter(forgotten)

    def _park(self, number: int, model: str, now: float) -> Park | None:
        """The longest cool-down that holds a domain back for a model, or for any of them."""
        parks = self._domains[number].parks
        if not parks:
            return None
        asked = parks.values() if model == EVERY_MODEL else (parks.get(model), parks.get(EVERY_MODEL))
        held = [park for park in asked if park is not None and park.until > now]
        return max(held, key=lambda park: park.until, default=None)

    # ── looking ─────────────────────────────────────────────────────────────────────────────────

    def states(self, now: float) -> list[KeyState]:
        """Every key as it stands now, in order. O(keys)."""
        return [self.state(index, now) for index in range(len(self._entries))]

    def state(self, index: int, now: float) -> KeyState:
        """One key as it stands now."""
        entry = self._entries[index]
        parks = self._domains[entry.domain].parks
        running = {model: park for model, park in parks.items() if park.until > now}
        return KeyState(entry.key, index, replace(entry.stats), entry.disabled, running)
