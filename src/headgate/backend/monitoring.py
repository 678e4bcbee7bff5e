"""What a backend remembers of its requests, told in the accepted structures (S3-15, S3-17, S3-18).

Numbers of this process come from memory. Where a ledger is kept, what was before it comes from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from headgate.backend.accounts import ErrorReport
from headgate.backend.errors import ErrorType, type_of_outcome
from headgate.backend.measures import (
    CircuitState,
    ModelMetrics,
    PerformanceAnalytics,
    RealtimeMetrics,
    RequestMetrics,
    ThroughputMetrics,
    TimeRange,
)
from headgate.backend.measuring import (
    cost_analysis_of,
    instant,
    latencies_of,
    metrics_of,
    request_of,
    second_of,
    wrong_request,
)
from headgate.backend.settings import BackendConfig
from headgate.core.call import Call
from headgate.core.errors import ConfigurationError, HeadgateError
from headgate.core.ports import Clock
from headgate.core.records import CallRecord
from headgate.core.tokens import Usage
from headgate.core.usage import UsageFilter, UsageStore
from headgate.policy.analytics import Bucket, Series
from headgate.policy.excerpt import without_personal_data
from headgate.policy.price_list import PriceList
from headgate.telemetry.usage_book import UsageBook
from headgate.telemetry.usage_rows import Words
from headgate.telemetry.usage_writer import UsageWriter
from headgate.wiring.usage import UsagePlace, costs_of, usage_place

__all__ = ["Activity", "Monitoring"]

T = TypeVar("T")

_log = logging.getLogger("headgate.usage")

_PAGE = 5000
_FLUSH_SECONDS = 5.0
"""The longest a question waits until what was told is in the ledger."""

# A failure that no attempt tells of, by the public kind of the error.
_BY_KIND = {
    "quota": ErrorType.RATE_LIMIT_EXCEEDED,
    "auth": ErrorType.INVALID_API_KEY,
    "no_access": ErrorType.MODEL_NOT_FOUND,
    "model_retired": ErrorType.MODEL_NOT_FOUND,
    "invalid": ErrorType.INVALID_PARAMETERS,
    "unsupported": ErrorType.INVALID_PARAMETERS,
    "too_large": ErrorType.PAYLOAD_TOO_LARGE,
    "timeout": ErrorType.REQUEST_TIMEOUT,
    "busy": ErrorType.SERVICE_UNAVAILABLE,
    "unavailable": ErrorType.SERVICE_UNAVAILABLE,
    "store": ErrorType.SERVICE_UNAVAILABLE,
    "blocked": ErrorType.CONTENT_BLOCKED,
    "schema": ErrorType.INVALID_REQUEST,
}


class Activity:
    """What goes on at the moment: asked for, never kept."""

    def active(self) -> int:
        """Requests under way."""
        return 0

    def queued(self) -> int:
        """Requests that wait for their turn."""
        return 0

    def circuits(self) -> Mapping[str, CircuitState]:
        """The breakers of models that were called."""
        return {}


class Monitoring:
    """The memory and the ledger of one backend. Nothing is opened before the first request.

    Args:
        config: the configuration of the moment.
        prices: the prices of the moment.
        activity: what goes on at the moment.
        environ: where settings are read from; None: the process environment.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        config: Callable[[], BackendConfig],
        prices: Callable[[], PriceList],
        activity: Activity,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._clock = clock
        self._config = config
        self._activity = activity
        self._environ = environ
        self._place: UsagePlace | None = None
        words = Words(
            lambda outcome: type_of_outcome(outcome).value, _word_of_kind, without_personal_data
        )
        self.book = UsageBook(
            clock, costs_of(prices), words, lambda: config().metrics_retention_hours * 3600
        )
        self.writer = UsageWriter(
            self._open,
            self.book,
            times=lambda: (clock.wall(), clock.monotonic()),
            kept_days=lambda: config().usage_retention_days,
        )
        self.book.wake = self.writer.wake

    # ── the ledger ──────────────────────────────────────────────────────────────────────────────

    def place(self) -> UsagePlace:
        """Where the ledger is. Raises `ConfigurationError`."""
        if self._place is None:
            self._place = usage_place(self._config().usage, self._environ)
        return self._place

    async def ask_store(self, question: Callable[[UsageStore], T]) -> T | None:
        """Ask the ledger, in a thread, once all that was told is in it; None: there is no ledger.

        Raises:
            ConfigurationError: it cannot be opened.
            StoreError: it does not answer.
        """
        if self.place().opener is None:
            return None

        def work() -> T | None:
            self.writer.flush(_FLUSH_SECONDS)
            return self.writer.ask(question)

        return await asyncio.get_running_loop().run_in_executor(None, work)

    def refused(self, call: Call, error: HeadgateError, began: float) -> None:
        """Count a request that failed before it entered the path, which tells of all others.

        Args:
            began: monotonic seconds.
        """
        if isinstance(error, ConfigurationError):
            return  # nothing can be asked here at all: no model had a part in that
        self.book.call(
            CallRecord(
                request_id=call.request_id,
                operation=call.operation,
                model=call.model,
                started=began,
                ended=self._clock.monotonic(),
                attempts=0,
                rotations=0,
                retries=0,
                waited=0.0,
                key_name=None,
                usage=Usage(),
                error=error.kind,
                caller=call.caller,
                provider="gemini",
            )
        )

    def circuits(self) -> Mapping[str, CircuitState]:
        """The breakers of models that were called."""
        return self._activity.circuits()

    async def aclose(self) -> None:
        """Write what waits, and close the ledger; once more after calls that are still under way."""
        self.writer.close_when_idle()
        if self.writer.quiet:
            return  # nothing was told yet: no thread is needed to end one
        await asyncio.get_running_loop().run_in_executor(None, self.writer.close)

    def _open(self) -> UsageStore | None:
        place = self.place()
        if place.opener is None:
            return None
        try:
            return place.opener()
        except ConfigurationError as error:
            if place.required:
                raise
            _log.warning("usage=not_kept error=%s", error)  # nobody asked for it: go on without
            self._place = UsagePlace("off", f"{place.shown} cannot be opened", False, None)
            return None

    # ── S3-15, S3-17 ────────────────────────────────────────────────────────────────────────────

    def performance(self) -> dict[str, ModelMetrics]:
        """S3-15: each model since the backend began."""
        return {name: metrics_of(bucket) for name, bucket in sorted(self.book.whole().items())}

    def requests(self, model: str | None, limit: int | None) -> tuple[RequestMetrics, ...]:
        """Single requests, the newest first."""
        return tuple(request_of(one) for one in self.book.calls(model, limit))

    def realtime(self) -> RealtimeMetrics:
        """The last sixty seconds."""
        requests, failures, tokens, seconds = self.book.last_minute()
        return RealtimeMetrics(
            timestamp=instant(self._clock.wall()),
            active_requests=self._activity.active(),
            requests_per_second=requests / 60,
            tokens_per_second=tokens / 60,
            error_rate=100 * failures / requests if requests else 0.0,
            avg_latency_ms=1000 * seconds / requests if requests else None,
            queue_depth=self._activity.queued(),
            circuit_breaker_status=self._activity.circuits(),
        )

    def errors(self, limit: int) -> tuple[ErrorReport, ...]:
        """The last failures, the newest first."""
        return tuple(
            ErrorReport(
                timestamp=instant(one.at),
                error_type=one.error,
                model=one.model,
                key_name=one.key_name or None,
                request_id=one.request_id,
                status=one.status,
                message=one.message,
            )
            for one in self.book.failures()[:limit]
        )

    # ── S3-18 ───────────────────────────────────────────────────────────────────────────────────

    async def analytics(
        self, model: str, start: str | datetime, end: str | datetime
    ) -> PerformanceAnalytics:
        """S3-18: a model over a range of time.

        Raises:
            GeminiError: the range is none.
        """
        begin, stop = second_of("start", start, self._clock), second_of("end", end, self._clock)
        if stop < begin:
            raise wrong_request(f"end {instant(stop)} lies before start {instant(begin)}.", self._clock)
        found = self.book.between(model, begin, stop)
        if begin < self.book.since:
            chosen = UsageFilter(begin // 60 * 60, min(stop, self.book.since), model)
            before = await self.ask_store(lambda store: _folded(store, chosen))
            if before is not None:
                found.merge(before)
        minutes = max(1.0, (min(stop, self._clock.wall()) - begin) / 60)
        return PerformanceAnalytics(
            model=model,
            time_range=TimeRange(instant(begin), instant(stop)),
            latency_distribution=latencies_of(found),
            error_distribution=dict(sorted(found.failures.items())),
            throughput_metrics=ThroughputMetrics(
                requests_per_minute=found.requests / minutes,
                tokens_per_minute=found.tokens / minutes,
                peak_rpm=float(found.peak_requests),
                peak_tpm=float(found.peak_tokens),
            ),
            cost_analysis=cost_analysis_of(found),
        )


def _folded(store: UsageStore, chosen: UsageFilter) -> Bucket:
    """Rows of a ledger in one bucket, page by page: their number costs time, not memory."""
    series, after = Series(), None
    while True:
        rows = store.following(after, _PAGE, chosen)
        for row in rows:
            series.add(row, 0.0)
        if len(rows) < _PAGE:
            return series.whole()
        after = rows[-1].place


def _word_of_kind(kind: str) -> str:
    return _BY_KIND.get(kind, ErrorType.UNKNOWN).value
