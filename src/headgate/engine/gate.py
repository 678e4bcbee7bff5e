"""The gate: a call whose quotas are known waits here for its turn, and goes when a domain has room.

The ledger decides, atomically, which domain serves; a refusal names the instant at which room may come.
Calls wait in order of class, then fairly between callers (`policy/fairness.py`). The first in line are
offered to the ledger together; then nothing happens until the earliest instant named, or until
something is given back: no polling, one ask a release. Each waiting call wakes once, with its turn or
with the reason why there is none. One that cannot get its turn within its bound is refused at once and
told when to come back.

A model, or a class of models that are counted together, has a ledger, and a turnstile before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from threading import Lock

from headgate.core.ports import Clock, QuotaStore
from headgate.core.quota import Costs, Limit, Penalty
from headgate.engine.line import Turn, Want
from headgate.engine.pool import KeyPool
from headgate.engine.turnstile import Turnstile
from headgate.policy.leases import Lease
from headgate.policy.quota.table import QuotaTable
from headgate.policy.tally import Charge

__all__ = ["QuotaGate", "Turn", "Want"]

MOST_LINES = 1000
"""Callers may name any model: further names go without reservations."""


class QuotaGate:
    """Reservations for the calls of one provider. Threads and event loops may share it.

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
        self._turnstiles: dict[str, Turnstile] = {}
        self._covered: dict[str, Mapping[int, tuple[Limit, ...]]] = {}
        declarations = (table.models, table.presets, table.projects, table.project_models)
        self._declares = table.default.declared or any(declarations)  # every call asks

    def covers(self, model: str) -> bool:
        """Whether quotas of this model are declared or were learned: its calls go through the gate."""
        if not self._declares and not self._covered:
            return False
        name = self._table.class_of(model)
        if name in self._turnstiles:  # nothing but covering it made that
            return True
        fits = len(self._turnstiles) < MOST_LINES
        return fits and (name in self._covered or self._table.covers(model))

    @property
    def store(self) -> QuotaStore:
        """Where its ledgers live."""
        return self._store

    @property
    def models(self) -> list[str]:
        """The models, or classes of models, whose calls came through here."""
        return list(self._turnstiles)

    @property
    def learned(self) -> list[str]:
        """The models, or classes of models, whose quotas nobody declared and that are covered."""
        with self._lock:
            return list(self._covered)

    @property
    def waiting(self) -> int:
        """Calls that wait for quota, over all models."""
        return sum(len(turnstile.line.queue) for turnstile in list(self._turnstiles.values()))

    def exact(self, model: str) -> bool:
        """Whether reservations for a model must cover the most that a call can use."""
        return self._table.is_exact(model)

    def cover(self, model: str, limits_by_domain: Mapping[int, tuple[Limit, ...]]) -> None:
        """From now on a model's calls go through the gate, with these limits where none were declared.

        Args:
            limits_by_domain: by handle of the domain; the others begin without limits. The ledger is
                told of them in any case, as `tell` does: another process may have made it already.
        """
        name = self._table.class_of(model)
        with self._lock:
            fresh = not (name in self._covered or self._table.covers(model))
            if fresh and len(self._covered) < MOST_LINES:
                self._covered[name] = dict(limits_by_domain)
        told = [Penalty(d, limit=limit) for d, row in limits_by_domain.items() for limit in row]
        self.tell(model, told)

    def tell(self, model: str, penalties: Sequence[Penalty]) -> None:
        """Say what a provider said of domains; told to the model's ledger with the next batch, which
        goes within 50 ms where a loop runs. Of a model that is not covered nothing is kept."""
        if self.covers(model) and penalties:
            self._turnstile(model).tell(penalties)

    def recall(self, model: str, charges: Sequence[Charge]) -> None:
        """Say what was sent before a limit was known; told with the model's next batch."""
        if self.covers(model):
            self._turnstile(model).recall(charges)

    async def acquire(self, want: Want) -> Turn:
        """A turn: a lease with a reservation, and when its send must have begun.

        Raises:
            NoKeyReady: no domain has room within the bound; says when the first will.
            InvalidCallError: the call needs more than any domain's limit.
            StoreError: the store does not answer.
        """
        turnstile = self._turnstile(want.model)
        if not turnstile.line.declared:
            await self._declare(turnstile, want.model)
        return await turnstile.acquire(want)

    async def group(self, model: str) -> str:
        """The name of a model's ledger in the store, which knows it by then: for those who reserve
        there what calls will name as their earmark. Raises `StoreError`."""
        turnstile = self._turnstile(model)
        if not turnstile.line.declared:
            await self._declare(turnstile, model)
        return turnstile.line.group

    def settle(self, lease: Lease, costs: Costs | None, *, served: bool) -> None:
        """Say what a reservation used; None gives it back whole: no byte was sent."""
        self._turnstile(lease.model).settle(lease, costs, served=served)

    def give_back(self, model: str, rid: str) -> None:
        """Say that a reservation made before for a call was not used: it never came so far."""
        if self.covers(model):
            self._turnstile(model).tell((), (rid,))

    async def flush(self) -> None:
        """Tell the ledgers now what they would be told within 50 ms, before this process ends."""
        for turnstile in list(self._turnstiles.values()):
            await turnstile.flush()

    def _turnstile(self, model: str) -> Turnstile:
        name = self._table.class_of(model)
        found = self._turnstiles.get(name)
        if found is None:
            fresh = Turnstile(name, self._store, self._pool, self._clock, self._chance)
            with self._lock:
                found = self._turnstiles.setdefault(name, fresh)
        return found

    async def _declare(self, turnstile: Turnstile, model: str) -> None:
        name, names = self._table.class_of(model), self._pool.domain_names
        learned = self._covered.get(name, {})
        limits = [
            self._table.limits(domain, model) + learned.get(handle, ())
            for handle, domain in enumerate(names)
        ]
        await turnstile.declare(f"{self._namespace}:{_fingerprint(names)}:{name}", limits)


def _fingerprint(names: list[str]) -> str:
    """Of the domains: handles mean the same in two processes only if their lists are the same."""
    return sha256("\n".join(names).encode()).hexdigest()[:12]
