"""The usage ledger's store, with a watch on it: how long its operations take, and which fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from headgate.core.errors import HeadgateError
from headgate.core.ports import Clock
from headgate.core.usage import By, Place, UsageFilter, UsageRow, UsageStore, UsageSum

__all__ = ["LedgerMeasures", "MeasuredUsage"]


class LedgerMeasures:
    """Counts operations on a usage ledger. Threads may share it.

    Args:
        see: observes a value of a histogram: its family, the value, its labels.
        add: counts an amount of a counter in the same way.

    Attributes:
        open: ledgers that are open; each has one connection.
        in_use: operations under way.
    """

    def __init__(self, clock: Clock, see: Callable[..., None], add: Callable[..., None]) -> None:
        self.open = self.in_use = 0
        self._now = clock.monotonic
        self._see = see
        self._add = add
        self._lock = Lock()

    def opened(self, store: UsageStore) -> UsageStore:
        """The same store, watched."""
        self._count(open_=1)
        return MeasuredUsage(store, self)

    def closed(self) -> None:
        """A store was given back."""
        self._count(open_=-1)

    @contextmanager
    def operation(self, kind: str) -> Iterator[None]:
        """One operation."""
        began = self._now()
        self._count(in_use=1)
        try:
            yield
        except HeadgateError as error:
            self._add("db_errors_total", 1, error.kind)
            raise
        finally:
            self._count(in_use=-1)
            self._see("db_query_duration_seconds", self._now() - began, kind)

    def _count(self, *, open_: int = 0, in_use: int = 0) -> None:
        with self._lock:
            self.open += open_
            self.in_use += in_use


class MeasuredUsage:
    """A `UsageStore` over another."""

    def __init__(self, store: UsageStore, measures: LedgerMeasures) -> None:
        self._store = store
        self._measures = measures

    def write(self, rows: Sequence[UsageRow]) -> int:
        """See `UsageStore.write`."""
        with self._measures.operation("write"):
            return self._store.write(rows)

    def newest(self, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        """See `UsageStore.newest`."""
        with self._measures.operation("read"):
            return self._store.newest(limit, chosen)

    def following(self, after: Place | None, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        """See `UsageStore.following`."""
        with self._measures.operation("read"):
            return self._store.following(after, limit, chosen)

    def sums(self, by: By, chosen: UsageFilter) -> list[UsageSum]:
        """See `UsageStore.sums`."""
        with self._measures.operation("sum"):
            return self._store.sums(by, chosen)

    def forget(self, before: float) -> int:
        """See `UsageStore.forget`."""
        with self._measures.operation("forget"):
            return self._store.forget(before)

    def close(self) -> None:
        """See `UsageStore.close`."""
        self._measures.closed()
        self._store.close()
