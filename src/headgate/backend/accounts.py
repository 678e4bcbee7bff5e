"""What the backend tells of what was used: sums, failures, and what is to be expected. Ours.

Costs are dollars, instants aware UTC.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

__all__ = ["ErrorReport", "ForecastOf", "ForecastPoint", "UsageBy", "UsageForecast", "UsageLine"]


class UsageBy(StrEnum):
    """What usage is summed over. Periods are those of UTC; weeks begin on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    MODEL = "model"
    CALLER = "caller"
    KEY = "key"
    PROVIDER = "provider"


class ForecastOf(StrEnum):
    """What is looked ahead for."""

    COST = "cost"
    REQUESTS = "requests"
    TOKENS = "tokens"


class UsageLine(Struct, frozen=True, kw_only=True):
    """Sums over one period or one name.

    Attributes:
        name: the model, caller, key or provider; for a period its first day, or hour.
        start: first instant of the period; None for a name.
        total_requests: calls that succeeded or failed; `cancelled_requests` are beside them.
        cached_requests: that a kept reply answered.
        attempts: that were sent.
        reasoning_tokens, cached_tokens: parts of the output and of the input.
        total_cost: of all attempts whose model has a price; `unpriced_attempts` have none.
        cached_cost, output_cost, reasoning_cost: parts of it; the rest is the input's.
        cached_savings: what the kept replies would have cost.
        estimated_attempts: attempts whose tokens the provider did not tell, or not all of them.
        avg_latency_ms: of requests, with all waits; None without any.
    """

    name: str
    start: datetime | None = None
    total_requests: int = 0
    successful_requests: int = 0
    failed_requests: int = 0
    cancelled_requests: int = 0
    cached_requests: int = 0
    attempts: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_cost: float = 0.0
    cached_cost: float = 0.0
    output_cost: float = 0.0
    reasoning_cost: float = 0.0
    cached_savings: float = 0.0
    unpriced_attempts: int = 0
    estimated_attempts: int = 0
    avg_latency_ms: float | None = None


class ErrorReport(Struct, frozen=True, kw_only=True):
    """An attempt that failed, or a request that failed before its first one.

    Attributes:
        error_type: in the words of `ErrorType`.
        key_name: of the key it was sent with; None where nothing was sent.
        status: HTTP status, where there was one.
        message: the upstream's words, without credentials.
    """

    timestamp: datetime
    error_type: str
    model: str
    key_name: str | None
    request_id: str
    status: int | None = None
    message: str = ""


class ForecastPoint(Struct, frozen=True):
    """A coming hour, or all of them: with a probability of 95 % between `low` and `high`."""

    start: datetime
    expected: float
    low: float
    high: float


class UsageForecast(Struct, frozen=True, kw_only=True):
    """What the coming hours will probably bring: a line through the past, and the shape of a day.

    Attributes:
        of: dollars, requests or tokens.
        model: None: all of them.
        hours_used: how many past hours it was made from.
        change_per_day: by how much a day lies above the day before, as an hourly mean.
        change_error: half the width of its own interval of 95 %.
        trend: `rising`, `falling`, or `steady`: a change that may be chance.
        seasonal: whether the shape of a day is in it: from two whole days on.
        total: of all the coming hours together.
        hours: one by one.
    """

    of: ForecastOf
    model: str | None
    hours_used: int
    change_per_day: float
    change_error: float
    trend: str
    seasonal: bool
    total: ForecastPoint
    hours: tuple[ForecastPoint, ...]
