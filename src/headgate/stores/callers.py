"""Callers in this process's memory: what is made here ends with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from msgspec import structs

from headgate.core.callers import (
    BudgetWindow,
    Caller,
    CallerConflictError,
    Denied,
    Held,
    Hold,
    Settled,
    Spending,
)
from headgate.policy.budget import HOLD_SECONDS, decide, period_of

__all__ = ["MemoryCallers", "changed_meanwhile", "name_is_taken"]


@dataclass(slots=True)
class _Sums:
    spent: int = 0
    unpriced: int = 0


@dataclass(slots=True)
class _Open:
    caller: str
    period: str
    amount: int
    until: float


class MemoryCallers:
    """A `CallerStore` without a disk. Threads may share it."""

    blocks = False

    def __init__(self) -> None:
        self._lock = Lock()
        self._version = 0
        self._callers: dict[str, Caller] = {}
        self._names: dict[str, str] = {}
        self._sums: dict[tuple[str, str], _Sums] = {}
        self._open: dict[str, _Open] = {}
        self._of: dict[str, set[str]] = {}  # the holds of a caller

    def changed(self, since: int) -> list[Caller]:
        """See `CallerStore.changed`."""
        if since >= self._version:
            return []
        with self._lock:
            found = [one for one in self._callers.values() if one.version > since]
        return sorted(found, key=lambda one: one.version)

    def put(self, caller: Caller) -> Caller:
        """See `CallerStore.put`."""
        with self._lock:
            before = self._callers.get(caller.id)
            if (0 if before is None else before.version) != caller.version:
                raise changed_meanwhile(caller)
            if self._names.get(caller.name, caller.id) != caller.id:
                raise name_is_taken(caller)
            if before is not None:
                del self._names[before.name]
            self._version += 1
            kept = structs.replace(caller, version=self._version)
            self._callers[kept.id], self._names[kept.name] = kept, kept.id
            return kept

    def find(self, name: str) -> Caller | None:
        """See `CallerStore.find`."""
        with self._lock:
            return self._callers.get(name) or self._callers.get(self._names.get(name, ""))

    def page(self, after: str, limit: int) -> list[Caller]:
        """See `CallerStore.page`."""
        with self._lock:
            names = sorted(name for name in self._names if name > after)[:limit]
            return [self._callers[self._names[name]] for name in names]

    def hold(
        self, settled: Sequence[Settled], renewed: Sequence[str], asked: Sequence[Hold], now: float
    ) -> list[Held | Denied]:
        """See `CallerStore.hold`."""
        with self._lock:
            for ended in settled:
                self._settle(ended)
            for name in renewed:
                if (opened := self._open.get(name)) is not None:
                    opened.until = now + HOLD_SECONDS
            return [self._ask(ask, now) for ask in asked]

    def _settle(self, ended: Settled) -> None:
        opened = self._open.pop(ended.id, None)
        if opened is None:
            return
        holds = self._of[opened.caller]
        holds.discard(ended.id)
        if not holds:
            del self._of[opened.caller]
        if opened.period:
            sums = self._sums.setdefault((opened.caller, opened.period), _Sums())
            sums.spent += ended.amount
            sums.unpriced += ended.unpriced

    def _ask(self, ask: Hold, now: float) -> Held | Denied:
        period = "" if ask.budget is None else period_of(ask.budget.window, now)
        found = self._found(ask.caller, period, now)
        verdict = decide(ask, spent=found.spent, held=found.held, under_way=found.under_way)
        if isinstance(verdict, Held):
            self._open[ask.id] = _Open(ask.caller, period, verdict.amount, now + HOLD_SECONDS)
            self._of.setdefault(ask.caller, set()).add(ask.id)
        return verdict

    def spending(self, caller: str, window: BudgetWindow, now: float) -> Spending:
        """See `CallerStore.spending`."""
        with self._lock:
            return self._found(caller, period_of(window, now), now)

    def _found(self, caller: str, period: str, now: float) -> Spending:
        sums = self._sums.get((caller, period)) or _Sums()
        holds = [self._open[name] for name in self._of.get(caller, ())]
        held = sum(one.amount for one in holds if one.period == period)
        return Spending(sums.spent, held, sum(one.until > now for one in holds), sums.unpriced)

    def close(self) -> None:
        """Nothing to close."""


def name_is_taken(caller: Caller) -> CallerConflictError:
    """Why a caller cannot be kept under its name."""
    return CallerConflictError(
        f"There is a caller {caller.name!r} already, or was: names are not used again, so that what "
        "two callers used is never summed. Choose another name."
    )


def changed_meanwhile(caller: Caller) -> CallerConflictError:
    """Why a caller cannot be kept as it is."""
    return CallerConflictError(
        f"Somebody else changed the caller {caller.name!r} meanwhile. Look at it again, then repeat."
    )
