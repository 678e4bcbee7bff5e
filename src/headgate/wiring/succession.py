"""What an engine takes over from the one before it, so that a change of the configuration neither
forgives a cool-down nor grants a quota twice (ADR 0031)."""

from __future__ import annotations

from typing import Protocol, cast

from msgspec import structs

from headgate.core.quota import Batch, Fill, Kind, Limit, Penalty, Restore
from headgate.engine.gate import QuotaGate
from headgate.policy.days import next_reset
from headgate.wiring.build import Engine

__all__ = ["carry_charges", "carry_limits"]

_LIFTED = 10**12
"""Amount of a limit that is declared no more: nothing reaches it within its window."""


def carry_limits(before: Engine, engine: Engine) -> None:
    """Tell the ledgers that go on which limits are declared now; what was used counts against them.

    Nothing happens where the new one keeps its books elsewhere, or has other keys: then it has other
    ledgers.
    """
    old, new = before.gate, engine.gate
    if before.pool is not engine.pool:
        return
    if old is not None and new is not None and old is not new and old.store is new.store:
        _tell(before, engine, old, new)


def _tell(before: Engine, engine: Engine, old_gate: QuotaGate, gate: QuotaGate) -> None:
    for model in {*old_gate.learned, *old_gate.models}:
        gate.cover(model, {})
        penalties = []
        for handle, domain in enumerate(engine.pool.domain_names):
            old = {limit.name: limit for limit in before.table.quota(domain, model).limits()}
            new = {limit.name: limit for limit in engine.table.quota(domain, model).limits()}
            lifted = [structs.replace(old[name], amount=_LIFTED) for name in old if name not in new]
            told = [limit for name, limit in new.items() if limit != old.get(name)]
            penalties += [Penalty(handle, limit=limit) for limit in (*lifted, *told)]
        gate.tell(model, penalties)


async def carry_charges(before: Engine, engine: Engine) -> None:
    """Tell the ledgers of other keys what was used of the quotas of domains that both have.

    A ledger is of a list of domains, so other keys have other ledgers. What was used counts there as if
    it had been used just now, which is never too little; calls under way are counted by what is held
    for them. Nothing happens where the new engine keeps its books elsewhere, or has the same keys.

    Raises `StoreError`.
    """
    old, new = before.gate, engine.gate
    if before.pool is engine.pool or old is None or new is None or old.store is not new.store:
        return
    if not hasattr(old.store, "fills"):
        return
    names, handles = before.pool.domain_names, engine.pool.domain_names
    for model in old.models:
        rows = await cast("_Tells", old.store).fills(await old.group(model))
        known = {
            handles.index(name): row for name, row in zip(names, rows, strict=False) if name in handles
        }
        if model in old.learned:
            new.cover(model, {handle: _learned(engine, model, handles[handle], row)
                              for handle, row in known.items()})  # fmt: skip
        if known and new.covers(model):
            await _restore(new, model, known, f"handed-on:{await old.group(model)}")


class _Tells(Protocol):
    """A store that tells how full its ledgers are."""

    async def fills(self, group: str) -> tuple[tuple[Fill, ...], ...]:
        """How full each limit of each domain is."""


def _learned(engine: Engine, model: str, domain: str, row: tuple[Fill, ...]) -> tuple[Limit, ...]:
    declared = {limit.name for limit in engine.table.limits(domain, model)}
    return tuple(fill.limit for fill in row if fill.limit.name not in declared)


async def _restore(
    gate: QuotaGate, model: str, known: dict[int, tuple[Fill, ...]], member: str
) -> None:
    """Charge what these domains have used beyond what their ledger knows already: the same keys may
    come back, and another worker may have told it."""
    group = await gate.group(model)
    now = (await gate.store.transact(group, Batch())).now
    rows = await cast("_Tells", gate.store).fills(group)
    restores = []
    for handle, row in known.items():
        there = {fill.limit.name: fill.used for fill in rows[handle]}
        for fill in row:
            limit, missing = fill.limit, fill.used - there.get(fill.limit.name, 0)
            if missing > 0 and limit.kind is not Kind.CONCURRENT:
                told = f"{member}:{now // _MINUTE}"
                restores.append(Restore(told, handle, limit.name, _ends(limit, now), missing))
    if restores:
        await gate.store.transact(group, Batch(restores=tuple(restores)))


_MINUTE = 60_000
_GRAIN = 10_000
"""Milliseconds: workers that tell the same within this time tell it of the same bucket."""


def _ends(limit: Limit, now: int) -> int:
    """When a charge of now ends, in milliseconds of the store's clock."""
    if limit.kind is Kind.CALENDAR:
        return int(next_reset(now / 1000) * 1000)
    return -(-(now + limit.window + limit.guard) // _GRAIN) * _GRAIN
