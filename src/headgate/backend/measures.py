"""What the backend tells about its calls. Rates are percent, durations milliseconds, costs dollars,
instants aware UTC. None: nothing was measured yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from headgate.backend.settings import BackendConfig

__all__ = [
    "BackendStatus",
    "CacheStats",
    "CircuitState",
    "CostAnalysis",
    "HealthState",
    "HealthStatus",
    "LatencyDistribution",
    "ModelMetrics",
    "MonitoringMetrics",
    "PerformanceAnalytics",
    "RealtimeMetrics",
    "RequestMetrics",
    "RequestStatus",
    "ThroughputMetrics",
    "TimeRange",
    "UsageMetrics",
    "UsagePeriodName",
    "UsagePeriods",
]


class RequestStatus(StrEnum):
    """What became of a request."""

    SUCCESS = "Success"
    FAILED = "Failed"
    TIMEOUT = "Timeout"
    RATE_LIMITED = "RateLimited"
    BLOCKED = "Blocked"


class UsagePeriodName(StrEnum):
    """What usage is summed over."""

    HOURLY = "Hourly"
    DAILY = "Daily"
    WEEKLY = "Weekly"
    MONTHLY = "Monthly"


class CircuitState(StrEnum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class HealthState(StrEnum):
    """How a model is doing."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class RequestMetrics(Struct, frozen=True, kw_only=True):
    """One request. `error` is an error type of `ErrorType`; `retry_count` counts the extra tries."""

    request_id: str
    model: str
    timestamp: datetime
    duration_ms: float
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost_estimate: float | None
    status: RequestStatus
    error: str | None = None
    cache_hit: bool = False
    retry_count: int = 0


class UsageMetrics(Struct, frozen=True, kw_only=True):
    """Sums over one period; (ours) `start` is its first instant."""

    model: str
    period: UsagePeriodName
    start: datetime
    total_requests: int = 0
    successful_requests: int = 0
    failed_requests: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    total_cost: float = 0.0
    avg_latency_ms: float | None = None


class RealtimeMetrics(Struct, frozen=True, kw_only=True):
    """The last 60 seconds."""

    timestamp: datetime
    active_requests: int = 0
    requests_per_second: float = 0.0
    tokens_per_second: float = 0.0
    error_rate: float = 0.0
    avg_latency_ms: float | None = None
    queue_depth: int = 0
    circuit_breaker_status: Mapping[str, CircuitState] = {}


class TimeRange(Struct, frozen=True):
    """From `start` until just before `end`."""

    start: datetime
    end: datetime


class LatencyDistribution(Struct, frozen=True, kw_only=True):
    """Milliseconds; quantiles are within one per cent of the true ones."""

    min: float | None = None
    max: float | None = None
    mean: float | None = None
    median: float | None = None
    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


class ThroughputMetrics(Struct, frozen=True, kw_only=True):
    """Means over the range, and the busiest minute in it."""

    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    peak_rpm: float = 0.0
    peak_tpm: float = 0.0


class CostAnalysis(Struct, frozen=True, kw_only=True):
    """Dollars. `cached_savings` is what replies from caches would have cost."""

    total_cost: float = 0.0
    input_cost: float = 0.0
    output_cost: float = 0.0
    cached_savings: float = 0.0
    cost_per_request: float = 0.0
    cost_per_thousand_tokens: float = 0.0


class PerformanceAnalytics(Struct, frozen=True, kw_only=True):
    """A model over a range of time; `error_distribution` counts failures by error type."""

    model: str
    time_range: TimeRange
    latency_distribution: LatencyDistribution = LatencyDistribution()
    error_distribution: Mapping[str, int] = {}
    throughput_metrics: ThroughputMetrics = ThroughputMetrics()
    cost_analysis: CostAnalysis = CostAnalysis()


class ModelMetrics(Struct, frozen=True, kw_only=True):
    """A model since the backend began."""

    total_requests: int = 0
    successful_requests: int = 0
    failed_requests: int = 0
    total_latency_ms: float = 0.0
    min_latency_ms: float | None = None
    max_latency_ms: float | None = None
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    cache_hits: int = 0
    cache_misses: int = 0

    @property
    def avg_latency_ms(self) -> float | None:
        """Mean over all requests."""
        return self.total_latency_ms / self.total_requests if self.total_requests else None

    @property
    def success_rate(self) -> float:
        """Percent; 0 before the first request."""
        return 100 * self.successful_requests / self.total_requests if self.total_requests else 0.0

    @property
    def cache_hit_rate(self) -> float:
        """Percent of look-ups; 0 before the first."""
        lookups = self.cache_hits + self.cache_misses
        return 100 * self.cache_hits / lookups if lookups else 0.0


class CacheStats(Struct, frozen=True, kw_only=True):
    """The reply cache. `hit_rate` is percent, hits over look-ups."""

    entries: int = 0
    size_bytes: int = 0
    max_size_bytes: int = 0
    total_hits: int = 0
    expired_entries: int = 0
    hit_rate: float = 0.0


class HealthStatus(Struct, frozen=True, kw_only=True):
    """A model's health. `success_rate` is percent, None before the first request."""

    model: str
    status: HealthState
    circuit_state: CircuitState
    recent_errors: int
    success_rate: float | None
    avg_latency_ms: float | None
    last_check: datetime


class UsagePeriods(Struct, frozen=True):
    """A model's usage, newest period first."""

    hourly: tuple[UsageMetrics, ...] = ()
    daily: tuple[UsageMetrics, ...] = ()


class MonitoringMetrics(Struct, frozen=True, kw_only=True):
    """The answer of S3-17. `usage_metrics` only where a model was named."""

    request_history: tuple[RequestMetrics, ...]
    realtime_metrics: RealtimeMetrics
    usage_metrics: UsagePeriods | None = None


class BackendStatus(Struct, frozen=True, kw_only=True):
    """The answer of S3-22."""

    realtime_metrics: RealtimeMetrics
    cache_stats: CacheStats
    performance_metrics: Mapping[str, ModelMetrics]
    health_statuses: Mapping[str, HealthStatus]
    config: BackendConfig
