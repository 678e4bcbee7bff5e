"""The commands of a backend that tell of its requests: S3-15, S3-17 to S3-19, S3-22, and ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import datetime

from headgate.backend.accounts import ErrorReport, ForecastOf, UsageBy, UsageForecast, UsageLine
from headgate.backend.configuration import Configuration
from headgate.backend.errors import gemini_errors
from headgate.backend.generations import EngineRoom
from headgate.backend.health import Health
from headgate.backend.measures import (
    BackendStatus,
    CacheStats,
    CircuitState,
    HealthStatus,
    ModelMetrics,
    MonitoringMetrics,
    PerformanceAnalytics,
    UsageMetrics,
    UsagePeriodName,
)
from headgate.backend.measuring import is_whole, wrong_request
from headgate.backend.monitoring import Activity, Monitoring
from headgate.backend.registry import Models
from headgate.backend.usage_sums import UsageSums
from headgate.core.ports import Clock
from headgate.engine.protection import Protection

__all__ = ["MonitoringCommands", "RoomActivity"]


class RoomActivity(Activity):
    """What goes on in the rooms of a backend."""

    def __init__(self, room: Callable[[], EngineRoom]) -> None:
        self._room = room

    def active(self) -> int:
        """Requests that have a place."""
        return self._room().places.used

    def queued(self) -> int:
        """Requests that wait for a place, or for a model that takes no more at once."""
        protection = self._protection()
        return self._room().places.waiting + (0 if protection is None else protection.waiting)

    def circuits(self) -> Mapping[str, CircuitState]:
        """The breakers of models that were called."""
        protection = self._protection()
        states = {} if protection is None else protection.states()
        return {model: CircuitState(state.value) for model, state in states.items()}

    def _protection(self) -> Protection | None:
        started = self._room().started
        return None if started is None else started.engine.protection


class MonitoringCommands:
    """What a backend tells of its requests."""

    _clock: Clock
    _room: EngineRoom
    _models: Models
    _monitoring: Monitoring
    _health: Health
    _configuration: Configuration

    async def get_gemini_performance_metrics(self) -> dict[str, ModelMetrics]:
        """S3-15: each model that was asked, since the backend began."""
        return self._monitoring.performance()

    async def get_gemini_monitoring_metrics(
        self, model: str | None = None, limit: int | None = None
    ) -> MonitoringMetrics:
        """S3-17: the last requests, the newest first, the last sixty seconds, and, where a model is
        named, its usage by hours and days.

        Args:
            model: only its requests.
            limit: how many requests at the most; None: all that are remembered.

        Raises:
            GeminiError: the limit is no whole number from 0 on, or the ledger does not answer.
        """
        with gemini_errors(self._clock.wall):
            if not (limit is None or is_whole(limit, 0)):
                raise wrong_request(
                    f"limit takes a whole number, 0 or more; got {limit!r:.40}.", self._clock
                )
            name = None if model is None else self._models.name_of(model)
            return MonitoringMetrics(
                request_history=self._monitoring.requests(name, limit),
                realtime_metrics=self._monitoring.realtime(),
                usage_metrics=None if name is None else await self._sums.periods(name),
            )

    async def get_gemini_analytics(
        self, model: str, start: str | datetime, end: str | datetime
    ) -> PerformanceAnalytics:
        """S3-18: a model over a range of time: what was before this process comes from the ledger.

        Args:
            start, end: aware instants, or as RFC 3339 writes them.

        Raises:
            GeminiError: the range is none, or the ledger does not answer.
        """
        with gemini_errors(self._clock.wall):
            return await self._monitoring.analytics(self._models.name_of(model), start, end)

    async def get_gemini_health_status(self, model: str, api_key: str | None = None) -> HealthStatus:
        """S3-19: a model's health. Asks the upstream for its card once in
        `health_check_interval_secs`; generates nothing.

        Args:
            api_key: asks with this key alone.

        Raises:
            headgate.core.errors.ConfigurationError: no key is configured.
        """
        with gemini_errors(self._clock.wall):
            return await self._health.status(model, api_key)

    async def get_gemini_backend_status(self) -> BackendStatus:
        """S3-22: everything at a glance, asking nobody."""
        return BackendStatus(
            realtime_metrics=self._monitoring.realtime(),
            cache_stats=await self._cache_stats(),
            performance_metrics=self._monitoring.performance(),
            health_statuses=self._health.statuses(),
            config=self._configuration.current(),
        )

    async def get_gemini_usage(
        self,
        by: UsageBy | str = UsageBy.DAY,
        *,
        model: str | None = None,
        caller: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
    ) -> tuple[UsageLine, ...]:
        """What was used, over all processes that share the ledger; without one, by this process. Ours.

        Args:
            by: periods, the oldest first, or names, the dearest first.
            model, caller: only theirs.
            since, until: only what ended within; aware instants, or as RFC 3339 writes them.

        Raises:
            GeminiError: an argument is wrong, needs a ledger, or the ledger does not answer.
        """
        with gemini_errors(self._clock.wall):
            name = None if model is None else self._models.name_of(model)
            return await self._sums.lines(by, model=name, caller=caller, since=since, until=until)

    async def get_gemini_usage_metrics(
        self, model: str, period: UsagePeriodName | str = UsagePeriodName.DAILY, limit: int = 30
    ) -> tuple[UsageMetrics, ...]:
        """S3-05b: a model's usage by hours, days, weeks or months, the newest first. Ours.

        Raises:
            GeminiError: an argument is wrong, or the ledger does not answer.
        """
        with gemini_errors(self._clock.wall):
            try:
                what = UsagePeriodName(period)
            except ValueError:
                allowed = ", ".join(UsagePeriodName)
                raise wrong_request(
                    f"period takes {allowed}; got {period!r:.40}.", self._clock
                ) from None
            if not is_whole(limit, 1):
                raise wrong_request(
                    f"limit takes a whole number, 1 or more; got {limit!r:.40}.", self._clock
                )
            return await self._sums.metrics(self._models.name_of(model), what, limit)

    async def get_gemini_forecast(
        self, of: ForecastOf | str = ForecastOf.COST, *, model: str | None = None, hours: int = 24
    ) -> UsageForecast | None:
        """S3-05k: what the coming hours will probably bring; None: too little is known yet. Ours.

        Raises:
            GeminiError: an argument is wrong, or the ledger does not answer.
        """
        with gemini_errors(self._clock.wall):
            name = None if model is None else self._models.name_of(model)
            return await self._sums.forecast(of, name, hours)

    def get_gemini_errors(self, limit: int = 100) -> tuple[ErrorReport, ...]:
        """S3-04j: the last failures, the newest first; a hundred are kept. Ours.

        Raises:
            GeminiError: the limit is no whole number from 0 on.
        """
        if not is_whole(limit, 0):
            raise wrong_request(
                f"limit takes a whole number, 0 or more; got {limit!r:.40}.", self._clock
            )
        return self._monitoring.errors(limit)

    async def keep_gemini_health_fresh(self) -> None:
        """Check the models that were asked every `health_check_interval_secs`, for ever: run it as a
        task beside your work, and cancel it at the end. Ours."""
        await self._health.keep_fresh()

    @property
    def _sums(self) -> UsageSums:
        return UsageSums(self._monitoring, self._clock)

    async def _cache_stats(self) -> CacheStats:
        ask = getattr(self, "get_gemini_cache_stats", None)
        if ask is None:
            return CacheStats()
        told = ask()
        found = await told if inspect.isawaitable(told) else told
        return found if isinstance(found, CacheStats) else CacheStats()
