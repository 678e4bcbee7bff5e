"""What the service tells Prometheus beside its counts: quota, cache and breakers as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headgate.content.health import installed_version
from headgate.content.ports import Layers
from headgate.content.quota_book import Fills, QuotaBook
from headgate.core.errors import HeadgateError
from headgate.core.outcome import Kind
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.engine.protection import Protection
from headgate.policy.breaker import BreakerState

if TYPE_CHECKING:
    from headgate.telemetry.metrics.books import Sheet
    from headgate.telemetry.metrics.metrics import Metrics
    from headgate.wiring.metrics import EngineState

__all__ = ["BreakerCounts", "Gauges"]

_STATES = {BreakerState.CLOSED: 0.0, BreakerState.OPEN: 1.0, BreakerState.HALF_OPEN: 2.0}

_USED = {
    "rpm": "quota_requests_current_minute",
    "rpd": "quota_requests_today",
    "tpm": "quota_tokens_current_minute",
    "tpd": "quota_tokens_today",
}
_LEFT = {"rpm": ("quota_rpm_remaining", "quota_rpm_limit"),
         "tpm": ("quota_tpm_remaining", "quota_tpm_limit")}  # fmt: skip

_FAULTS = frozenset({
    Kind.SERVER, Kind.OVERLOAD, Kind.NETWORK, Kind.TIMEOUT, Kind.PROTOCOL, Kind.TLS,
})  # fmt: skip
"""What a breaker counts, as `engine/protection.py` has it."""


class Gauges:
    """Reads what is state. `look` asks the ledgers, which may be elsewhere; a scrape then reads what
    that found, and what is in this process.

    Args:
        books: the ledgers that were used, by model.
        main: the one that is told of in any case.
        engine: reads what the engine knows, in the names that all servers share.
    """

    def __init__(
        self,
        layers: Layers,
        protection: Protection,
        books: Mapping[str, QuotaBook],
        main: QuotaBook | None,
        *,
        engine: EngineState | None = None,
    ) -> None:
        self._layers = layers
        self._protection = protection
        self._books = books
        self._main = main
        self._engine = engine
        self._fills: list[Fills] = []

    async def look(self) -> None:
        """Ask the ledgers and the shared store; what does not answer is not told of."""
        await self._layers.state()
        books = {id(book): book for book in (*self._books.values(), self._main) if book is not None}
        found: list[Fills] = []
        for book in books.values():
            try:
                fills = await book.fills()
            except HeadgateError:
                continue
            if fills is not None:
                found.append(fills)
        self._fills = found
        if self._engine is not None:
            await self._engine.refresh()

    def read(self, sheet: Sheet) -> None:
        """Put everything on a sheet."""
        sheet.put("app_info", 1, installed_version())
        for row in (row for fills in self._fills for row in fills):
            for fill in row:
                name = fill.limit.name
                if name in _USED:
                    sheet.put(_USED[name], fill.used)
                if name in _LEFT:
                    remaining, limit = _LEFT[name]
                    sheet.put(remaining, max(0, fill.limit.amount - fill.used))
                    sheet.put(limit, fill.limit.amount)
        for model, state in self._protection.states().items():
            sheet.put("circuit_breaker_state", _STATES[state], model)
        self._read_cache(sheet)

    def _read_cache(self, sheet: Sheet) -> None:
        stats = self._layers.stats()
        if not stats.get("enabled"):
            return
        sheet.put("cache_hit_rate", float(stats.get("hit_rate", 0.0)))
        layers: Mapping[str, Any] = stats.get("layers") or {}
        for layer, figures in layers.items():
            if figures and "items" in figures:
                sheet.put("cache_items_count", float(figures["items"]), layer)
                sheet.put("cache_size_bytes", float(figures["bytes"]), layer)


class BreakerCounts:
    """An observer: what breakers saw of attempts, by the model that they stand before."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended."""
        if record.outcome.kind is Kind.SUCCESS:
            self._metrics.add("circuit_breaker_successes_total", 1, record.model)
        elif record.outcome.kind in _FAULTS:
            self._metrics.add("circuit_breaker_failures_total", 1, record.model)

    def waiting(self, record: WaitRecord) -> None:
        """Nothing to count."""

    def call(self, record: CallRecord) -> None:
        """Nothing to count."""
