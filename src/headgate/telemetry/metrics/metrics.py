"""The metrics of a process over one registry: what is counted, and what is read when somebody asks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from headgate.core.ports import Clock
from headgate.telemetry.metrics.books import Labels, Sheet, Shelf
from headgate.telemetry.metrics.catalogue import CATALOGUE
from headgate.telemetry.metrics.content_measures import ContentMeasures
from headgate.telemetry.metrics.engine_families import LIMITS
from headgate.telemetry.metrics.engine_measures import EngineMeasures
from headgate.telemetry.metrics.family import Family, Feeder, Shape
from headgate.telemetry.metrics.http_measures import SERVER_DURATION, HttpMeasures
from headgate.telemetry.metrics.key_families import KEYS
from headgate.telemetry.metrics.ledger_measures import LedgerMeasures
from headgate.telemetry.of_registry import is_bridged

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Metrics"]

S = TypeVar("S")

_ELSEWHERE = frozenset(family.name for family in (*KEYS, *LIMITS))
"""Told by collectors of their own: `telemetry/keys.py`, `telemetry/limits.py`."""


class Metrics:
    """A collector of one registry. Threads and event loops may share it.

    Attributes:
        version: of Headgate, as it is told; empty: not told.
        engine: an observer for engines.
        http: requests that a server of ours answers.
        content: what the content service does.
        ledger: operations on the usage ledger.
    """

    def __init__(self, clock: Clock) -> None:
        self._own = {family.name: family for family in CATALOGUE if family.name not in _ELSEWHERE}
        self._shelf = Shelf(self._own.values())
        self._lock = Lock()
        self._feeders: set[Feeder] = set()
        self._readers: list[tuple[weakref.ref[object], Callable[[object, Sheet], None]]] = []
        self._started = clock.wall()
        self.version = ""
        self.http = HttpMeasures(self._shelf, clock, self._lock)
        self.engine = EngineMeasures(self._shelf, clock, self._lock)
        self.content = ContentMeasures(self._shelf, clock, self._lock, self.http)
        self.ledger = LedgerMeasures(clock, self.see, self.add)

    # ── who tells ───────────────────────────────────────────────────────────────────────────────

    def feed(self, *feeders: Feeder) -> None:
        """These parts run here: their families are exported from now on, at 0 where that is known."""
        self._feeders.update(feeders)

    def watch(self, source: S, read: Callable[[S, Sheet], None]) -> None:
        """At each scrape, read the state of a source, as long as anybody else holds it. Watching it
        again changes nothing.

        Args:
            read: puts on the sheet what the source says; must not block, and is called by any thread.
        """
        with self._lock:
            self._readers = [(ref, reader) for ref, reader in self._readers if ref() is not None]
            if all(ref() is not source for ref, _ in self._readers):
                self._readers.append((weakref.ref(source), read))  # type: ignore[arg-type]

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Count something of a family. Raises `KeyError` for a name that is in no catalogue."""
        cell = self._shelf.cell(name, *labels)
        with self._lock:
            cell.value += amount

    def see(self, name: str, value: float, *labels: str) -> None:
        """Observe a value of a histogram. Raises as `add`."""
        spread = self._shelf.spread(name, *labels)
        with self._lock:
            spread.see(value)

    def rows(self, name: str) -> list[tuple[Labels, float]]:
        """What was counted of a family: for a reader that makes another family of it."""
        return [(labels, cell.value) for labels, cell in self._shelf.cells(name)]

    # ── a collector ─────────────────────────────────────────────────────────────────────────────

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that a registry notices a second collector."""
        from headgate.telemetry.metrics.rendering import empty  # noqa: PLC0415 - an extra

        return map(empty, self._own.values())

    def collect(self) -> Iterator[Metric]:
        """The families that have something to tell."""
        self.engine.settle()
        self.http.settle()
        bridged = is_bridged(self)
        sheet = self._read()
        for family in self._own.values():
            if bridged and family.name == SERVER_DURATION:
                continue  # OpenTelemetry's own is there, and counts these requests too
            made = self._family(family, sheet)
            if made.samples and (family.feeder in self._feeders or self._is_fed(family, sheet)):
                yield made

    def _read(self) -> Sheet:
        sheet = Sheet(self._own.values())
        if self._feeders:
            sheet.put("headgate_process_start_time_seconds", self._started)
            sheet.put("headgate_workers", 1)
        if self.version:
            sheet.put("headgate_build_info", 1, self.version)
        if self.version and Feeder.CONTENT in self._feeders:
            sheet.put("app_info", 1, self.version)
        with self._lock:
            readers = list(self._readers)
        for ref, read in readers:
            source = ref()
            if source is not None:
                read(source, sheet)
        if Feeder.LEDGER in self._feeders:
            sheet.put("db_pool_size", self.ledger.open)
            sheet.put("db_connections_in_use", self.ledger.in_use)
            sheet.put("db_pool_overflow", 0)
        return sheet

    def _family(self, family: Family, sheet: Sheet) -> Metric:
        from headgate.telemetry.metrics import rendering  # noqa: PLC0415 - an extra

        if family.shape is Shape.HISTOGRAM:
            return rendering.with_spreads(family, self._shelf.spreads(family.name))
        rows = {labels: cell.value for labels, cell in self._shelf.cells(family.name)}
        told = sheet.rows(family.name)
        if family.shape is Shape.GAUGE and told:
            rows = {}  # of what is read nothing is counted
        for labels, value in told:
            rows[labels] = rows.get(labels, 0.0) + value
        return rendering.with_values(family, sorted(rows.items()))

    def _is_fed(self, family: Family, sheet: Sheet) -> bool:
        """Whether a part that was not announced told something all the same."""
        if family.shape is Shape.HISTOGRAM:
            return any(sum(spread.counts) for _, spread in self._shelf.spreads(family.name))
        cells = self._shelf.cells(family.name)
        counted = any(cell.value for _, cell in cells) if family.shape is Shape.COUNTER else bool(cells)
        return counted or bool(sheet.rows(family.name))
