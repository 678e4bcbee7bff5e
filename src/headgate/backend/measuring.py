"""Sums and rows put into the accepted structures: seconds become milliseconds, nano-dollars dollars."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from headgate.backend.errors import ErrorType, GeminiError
from headgate.backend.measures import (
    CostAnalysis,
    LatencyDistribution,
    ModelMetrics,
    RequestMetrics,
    RequestStatus,
)
from headgate.core.ports import Clock
from headgate.core.usage import CANCELLED, SUCCESS
from headgate.policy.analytics import Bucket
from headgate.telemetry.usage_rows import EndedCall

__all__ = [
    "CANCELLED_WORD",
    "cost_analysis_of",
    "dollars",
    "instant",
    "is_whole",
    "latencies_of",
    "metrics_of",
    "request_of",
    "second_of",
    "wrong_request",
]

CANCELLED_WORD = "Cancelled"
"""What stands for an error type where the caller gave a request up."""

_NANO = 1e9
_STATUSES = {
    ErrorType.RATE_LIMIT_EXCEEDED.value: RequestStatus.RATE_LIMITED,
    ErrorType.QUOTA_EXCEEDED.value: RequestStatus.RATE_LIMITED,
    ErrorType.REQUEST_TIMEOUT.value: RequestStatus.TIMEOUT,
    ErrorType.CONNECTION_TIMEOUT.value: RequestStatus.TIMEOUT,
    ErrorType.GATEWAY_TIMEOUT.value: RequestStatus.TIMEOUT,
    ErrorType.CONTENT_BLOCKED.value: RequestStatus.BLOCKED,
    ErrorType.SAFETY_VIOLATION.value: RequestStatus.BLOCKED,
    ErrorType.RECITATION_ERROR.value: RequestStatus.BLOCKED,
}


def metrics_of(bucket: Bucket) -> ModelMetrics:
    """A model's sums."""
    some = bucket.requests > 0
    return ModelMetrics(
        total_requests=bucket.requests,
        successful_requests=bucket.successes,
        failed_requests=bucket.failed,
        total_latency_ms=1000 * bucket.seconds,
        min_latency_ms=1000 * bucket.least if some else None,
        max_latency_ms=1000 * bucket.most if some else None,
        total_input_tokens=bucket.input_tokens,
        total_output_tokens=bucket.output_tokens,
        cache_hits=bucket.cached,
        cache_misses=max(0, bucket.lookups - bucket.cached),
    )


def request_of(one: EndedCall) -> RequestMetrics:
    """A single request."""
    row = one.row
    failed = row.call != SUCCESS
    error = CANCELLED_WORD if row.call == CANCELLED else row.call
    return RequestMetrics(
        request_id=row.request_id,
        model=row.model,
        timestamp=instant(row.at),
        duration_ms=1000 * row.call_seconds,
        input_tokens=one.input_tokens,
        output_tokens=one.output_tokens,
        total_tokens=one.input_tokens + one.output_tokens,
        cost_estimate=None if one.cost is None else dollars(one.cost),
        status=_STATUSES.get(row.call, RequestStatus.FAILED) if failed else RequestStatus.SUCCESS,
        error=error if failed else None,
        cache_hit=row.from_cache,
        retry_count=row.retries,
    )


def latencies_of(bucket: Bucket) -> LatencyDistribution:
    """Quantiles of the latencies."""
    sketch = bucket.latency
    if not sketch.count:
        return LatencyDistribution()
    median = sketch.quantile(0.5)
    return LatencyDistribution(
        min=sketch.minimum,
        max=sketch.maximum,
        mean=sketch.mean,
        median=median,
        p50=median,
        p75=sketch.quantile(0.75),
        p90=sketch.quantile(0.9),
        p95=sketch.quantile(0.95),
        p99=sketch.quantile(0.99),
    )


def cost_analysis_of(bucket: Bucket) -> CostAnalysis:
    """What it cost."""
    spoken = bucket.output_cost + bucket.reasoning_cost
    return CostAnalysis(
        total_cost=dollars(bucket.cost),
        input_cost=dollars(bucket.cost - spoken),
        output_cost=dollars(spoken),
        cached_savings=dollars(bucket.saved),
        cost_per_request=dollars(bucket.cost) / bucket.requests if bucket.requests else 0.0,
        cost_per_thousand_tokens=1000 * dollars(bucket.cost) / bucket.tokens if bucket.tokens else 0.0,
    )


def wrong_request(sentence: str, clock: Clock) -> GeminiError:
    """The error of an argument that is wrong."""
    error = GeminiError(
        ErrorType.INVALID_REQUEST, sentence, timestamp=instant(clock.wall()), kind="invalid"
    )
    error.http_status = 400
    return error


def is_whole(value: object, least: int, most: float = math.inf) -> bool:
    """Whether it is a whole number between these."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def dollars(nano: int) -> float:
    """Dollars out of dollars × 10⁹."""
    return nano / _NANO


def instant(second: float) -> datetime:
    """A Unix second as an aware instant of UTC."""
    return datetime.fromtimestamp(second, UTC)


def second_of(name: str, value: str | datetime, clock: Clock) -> float:
    """The Unix second of an instant: aware, or as RFC 3339 writes it. Raises `GeminiError`."""
    found: object = value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value.strip())
        except ValueError:
            found = None
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise wrong_request(
            f"{name} takes an instant with its offset from UTC, such as 2026-11-21T18:00:00Z; "
            f"got {value!r:.60}.",
            clock,
        )
    try:
        return found.timestamp()
    except (OverflowError, ValueError):
        raise wrong_request(f"{name} {value!r:.60} is out of range.", clock) from None
