"""The gate: a call whose quotas are known waits here for its turn, and goes when a domain has room.

The ledger decides, atomically, which domain serves; a refusal names the instant at which room may come.
Calls wait in order of priority, then of arrival. Only the first in line asks, and it sleeps until that
instant, or until something is given back: no polling, one ask a release, and nobody overtakes.
A call that cannot get its turn within its bound is refused at once and told when to come back.

Threads and event loops may share a gate: whoever is first in line is woken on its own loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256
from heapq import heapify, heappop, heappush
from secrets import token_hex
from threading import Lock

from headgate.core.errors import InvalidCallError, StoreError
from headgate.core.ports import Clock, QuotaStore
from headgate.core.quota import Ask, Batch, Costs, Counts, Grant, Refusal, Settlement
from headgate.engine.passage import NoKeyReady
from headgate.engine.pool import KeyPool
from headgate.policy.leases import Lease, Unready
from headgate.policy.quota.outlook import Capacity, capacity, least_wait
from headgate.policy.quota.table import QuotaTable

__all__ = ["QuotaGate", "Want"]

MOST_WAITING = 10_000
"""Calls that may wait for one model; more are refused at once rather than kept without end."""

MOST_LINES = 1000
"""Callers may name any model: further names go without reservations."""

_SEEDS = 2**31 - 2


class Want:
    """What a call wants of the gate.

    Args:
        model: the model on the wire.
        costs: what it is expected to use.
        exclude: domains that refused it.
        prefer: the lease whose key it would use again, or None.
        bound: seconds it may wait.
        on_wait: told the seconds of a wait that begins.
    """

    __slots__ = ("bound", "costs", "exclude", "model", "on_wait", "prefer", "rid")

    def __init__(
        self,
        model: str,
        costs: Costs,
        exclude: Collection[int],
        prefer: Lease | None,
        bound: float,
        on_wait: Callable[[float], None],
    ) -> None:
        self.rid = token_hex(8)
        self.model = model
        self.costs = costs
        self.exclude = exclude
        self.prefer = prefer
        self.bound = bound
        self.on_wait = on_wait


class _Waiter:
    """A place in line. `wake` may be called from any thread."""

    __slots__ = ("_future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None

    async def sleep(self, seconds: float | None) -> None:
        """Until woken, or for so many seconds."""
        future = self._future = self.loop.create_future()
        timer = None if seconds is None else self.loop.call_later(seconds, _resolve, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """End a sleep."""
        self.loop.call_soon_threadsafe(self._rouse)

    def _rouse(self) -> None:
        if self._future is not None:
            _resolve(self._future)


class _Line:
    """The calls that wait for one model, and what is still to be told to the ledger."""

    __slots__ = ("backlog", "capacity", "declared", "group", "places", "sequence", "settles")

    def __init__(self) -> None:
        self.declared = False
        self.group = ""
        self.capacity: Capacity = {}
        self.backlog: Counter[Counts] = Counter()
        self.places: list[tuple[int, _Waiter]] = []
        self.settles: list[Settlement | str] = []
        self.sequence = 0

    def head(self) -> _Waiter | None:
        """Who is first."""
        return self.places[0][1] if self.places else None


class QuotaGate:
    """Reservations for the calls of one provider.

    Args:
        store: where the ledgers live.
        pool: the keys.
        table: the declared quotas.
        chance: uniform in [0, 1), for the choice among domains.
        namespace: tells the groups of one provider from another's in a shared store.
    """

    def __init__(
        self,
        store: QuotaStore,
        pool: KeyPool,
        table: QuotaTable,
        clock: Clock,
        chance: Callable[[], float],
        namespace: str = "gemini",
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._pool = pool
        self._table = table
        self._clock = clock
        self._chance = chance
        self._lock = Lock()
        self._lines: dict[str, _Line] = {}

    def covers(self, model: str) -> bool:
        """Whether quotas of this model are declared, so that calls for it go through the gate."""
        known = model in self._lines or len(self._lines) < MOST_LINES
        return known and self._table.covers(model)

    async def acquire(self, want: Want) -> Lease:
        """A lease with a reservation.

        Raises:
            NoKeyReady: no domain has room within the bound; says when the first will.
            InvalidCallError: the call needs more than any domain's limit.
        """
        line = await self._line(want.model)
        refused: tuple[float | None, Unready] | None = None
        if line.head() is None:
            got = await self._ask(line, want)
            if isinstance(got, Lease):
                return got
            refused = got
        return await self._wait(line, want, refused)

    def settle(self, lease: Lease, costs: Costs | None, *, served: bool) -> None:
        """Say what a reservation used; None gives it back whole: no byte was sent."""
        line = self._lines[lease.model]
        with self._lock:
            line.settles.append(lease.rid if costs is None else Settlement(lease.rid, costs, served))
            head = line.head()
        if head is not None:
            head.wake()  # something may have become free

    # ── waiting ─────────────────────────────────────────────────────────────────────────────────

    async def _wait(
        self, line: _Line, want: Want, refused: tuple[float | None, Unready] | None
    ) -> Lease:
        began = self._clock.monotonic()
        self._check(want, refused, want.bound)
        self._check_line(line, want)
        waiter = _Waiter()
        self._join(line, waiter, want)
        want.on_wait(0.0 if refused is None else refused[0] or 0.0)
        try:
            while True:
                left = want.bound - (self._clock.monotonic() - began)
                pause: float | None = left
                if line.head() is waiter:
                    got = await self._ask(line, want)
                    if isinstance(got, Lease):
                        return got
                    self._check(want, got, left)
                    pause = got[0]
                elif left <= 0:
                    raise NoKeyReady(self._pool.closed(want.model)[1], self._least(line), final=True)
                await waiter.sleep(pause)
        finally:
            self._leave(line, waiter, want)

    def _check(self, want: Want, refused: tuple[float | None, Unready] | None, left: float) -> None:
        if refused is None:
            if want.bound <= 0:
                raise NoKeyReady(self._pool.closed(want.model)[1], 0.0, final=True)
            return
        seconds, unready = refused
        if seconds is None or seconds > left:
            raise NoKeyReady(unready, seconds, final=True)

    def _check_line(self, line: _Line, want: Want) -> None:
        """Refuse at once a call that cannot get its turn in time, however things go."""
        least = self._least(line, want)
        if least > want.bound:
            raise NoKeyReady(self._pool.closed(want.model)[1], least, final=True)

    def _least(self, line: _Line, want: Want | None = None) -> float:
        with self._lock:
            backlog = Counter(line.backlog)
        if want is not None:
            backlog.update(want.costs)
        return least_wait(line.capacity, backlog)

    def _join(self, line: _Line, waiter: _Waiter, want: Want) -> None:
        with self._lock:
            if len(line.places) >= MOST_WAITING:
                raise NoKeyReady(self._pool.closed(want.model)[1], want.bound, final=True)
            line.sequence += 1
            line.backlog.update(want.costs)
            heappush(
                line.places, (line.sequence, waiter)
            )  # sequences differ: waiters are never compared

    def _leave(self, line: _Line, waiter: _Waiter, want: Want) -> None:
        with self._lock:
            line.backlog.subtract(want.costs)
            was_head = line.head() is waiter
            if was_head:
                heappop(line.places)
            else:
                line.places = [place for place in line.places if place[1] is not waiter]
                heapify(line.places)
            head = line.head()
        if was_head and head is not None:
            head.wake()

    # ── asking ──────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, line: _Line, want: Want) -> Lease | tuple[float | None, Unready]:
        """One round trip to the ledger: a lease, or the seconds until there may be room."""
        closed, unready = self._pool.closed(want.model)
        exclude = closed.union(want.exclude)
        with self._lock:
            told, line.settles = line.settles, []
        batch = Batch(
            settles=tuple(item for item in told if isinstance(item, Settlement)),
            cancels=tuple(item for item in told if isinstance(item, str)),
            asks=(self._ask_of(want, exclude),),
            seed=int(self._chance() * _SEEDS) + 1,
        )
        try:
            reply = await self._store.transact(line.group, batch)
        except (StoreError, asyncio.CancelledError):
            with self._lock:  # it may have been granted: nobody will use it
                line.settles.append(want.rid)
            raise
        (answer,) = reply.answers
        if isinstance(answer, Grant):
            lease = self._pool.lease_in(answer.domain, want.model, want.rid, want.prefer)
            if lease is not None:
                return lease
            with self._lock:
                line.settles.append(want.rid)  # its last key was disabled meanwhile
            return 0.0, unready
        probe = self._pool.lease_probe(want.model, want.exclude)
        return probe or (self._seconds(answer, reply.now, want, unready), unready)

    @staticmethod
    def _ask_of(want: Want, exclude: set[int]) -> Ask:
        prefer = None if want.prefer is None else want.prefer.domain
        return Ask(want.rid, want.costs, tuple(exclude), prefer)

    def _seconds(self, answer: Refusal, now: int, want: Want, unready: Unready) -> float | None:
        """Seconds until a domain has room, or until one that rests comes back."""
        if answer.never and unready.recovers is None:
            raise InvalidCallError(
                f"The call needs {_amounts(want.costs)} of {want.model}, more than the declared quota "
                "of any project. Shorten the prompt or declare the larger limit."
            )
        times = []
        if answer.at is not None:
            times.append((answer.at - now) / 1000)
        if unready.recovers is not None:
            times.append(unready.recovers - self._clock.monotonic())
        return max(0.0, min(times)) if times else None

    async def _line(self, model: str) -> _Line:
        with self._lock:
            line = self._lines.setdefault(model, _Line())
        if not line.declared:
            names = self._pool.domain_names
            limits = [self._table.quota(name, model).limits() for name in names]
            line.group = f"{self._namespace}:{_fingerprint(names)}:{model}"
            await self._store.declare(line.group, limits)
            line.capacity = capacity(limits)
            line.declared = True
        return line


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fingerprint(names: list[str]) -> str:
    """Of the domains: handles mean the same in two processes only if their lists are the same."""
    return sha256("\n".join(names).encode()).hexdigest()[:12]


def _amounts(costs: Costs) -> str:
    parts: Iterable[str] = (f"{amount} {counts.value}" for counts, amount in costs.items())
    return ", ".join(parts)
