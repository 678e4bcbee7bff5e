"""What a client counts and times, in bounded memory. One lock, held for a moment, never within another.

Kept are the last 10 000 attempts, none older than a day; rates and times are those of the last hour.
Answers from the cache are counted apart: they say nothing about the upstream.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from headgate.core.outcome import Kind
from headgate.core.resource import ResourceRecord

__all__ = ["Measures", "PerformanceStats"]

_MOST = 10_000
_KEPT_SECONDS = 86_400.0
_WINDOW_SECONDS = 3_600.0
_MOST_EVENTS = 1_000


class PerformanceStats(BaseModel):
    """The last hour. Times in milliseconds, `error_rate` 0 to 100."""

    total_requests: int = 0
    successful_requests: int = 0
    failed_requests: int = 0
    average_response_time_ms: float = 0.0
    min_response_time_ms: float = 0.0
    max_response_time_ms: float = 0.0
    p50_response_time_ms: float = 0.0
    p95_response_time_ms: float = 0.0
    p99_response_time_ms: float = 0.0
    total_bytes_sent: int = 0
    total_bytes_received: int = 0
    error_rate: float = 0.0
    requests_per_second: float = 0.0


class _Seen(NamedTuple):
    at: float
    endpoint: str
    milliseconds: float
    error: str | None
    sent: int
    received: int


class Measures:
    """Hears attempts and answers questions about them.

    Args:
        now: monotonic seconds.
        wall: Unix time.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._now = now
        self._wall = wall
        self._lock = threading.Lock()
        self._seen: deque[_Seen] = deque(maxlen=_MOST)
        self._limited: deque[dict[str, Any]] = deque(maxlen=_MOST_EVENTS)
        self._totals: Counter[tuple[str, str]] = Counter()
        self._kept: Counter[str] = Counter()
        self._begun = now()

    def attempt(self, record: ResourceRecord) -> None:
        """One attempt ended, or a kept answer was given."""
        if record.kept:
            with self._lock:
                self._kept[record.endpoint] += 1
            return
        error = None if record.kind is Kind.SUCCESS else _error_name(record)
        milliseconds = (record.ended - record.started) * 1000
        seen = _Seen(
            record.ended, record.endpoint, milliseconds, error, record.bytes_sent, record.bytes_received
        )
        with self._lock:
            self._seen.append(seen)
            self._totals[record.endpoint, error or "success"] += 1
            if record.status == 429:
                event = {"endpoint": record.endpoint, "group": record.group, "at": self._wall()}
                self._limited.append(event)

    def stats(self) -> PerformanceStats:
        """The last hour."""
        seen = self._recent()
        if not seen:
            return PerformanceStats()
        times = sorted(item.milliseconds for item in seen)
        failed = sum(item.error is not None for item in seen)
        seconds = min(_WINDOW_SECONDS, max(self._now() - self._begun, 0.001))
        return PerformanceStats(
            total_requests=len(seen),
            successful_requests=len(seen) - failed,
            failed_requests=failed,
            average_response_time_ms=sum(times) / len(times),
            min_response_time_ms=times[0],
            max_response_time_ms=times[-1],
            p50_response_time_ms=_quantile(times, 0.50),
            p95_response_time_ms=_quantile(times, 0.95),
            p99_response_time_ms=_quantile(times, 0.99),
            total_bytes_sent=sum(item.sent for item in seen),
            total_bytes_received=sum(item.received for item in seen),
            error_rate=100 * failed / len(seen),
            requests_per_second=len(seen) / seconds,
        )

    def errors(self) -> dict[str, Any]:
        """What failed in the last hour, by kind and by endpoint."""
        failures = [item for item in self._recent() if item.error is not None]
        return {
            "error_counts": dict(Counter(item.error for item in failures)),
            "endpoint_error_counts": dict(Counter(item.endpoint for item in failures)),
            "total_errors": len(failures),
            "rate_limit_events": len(self.rate_limit_events()),
        }

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """The last hour of each endpoint."""
        by_name: dict[str, list[_Seen]] = {}
        for item in self._recent():
            by_name.setdefault(item.endpoint, []).append(item)
        shown = {}
        for name, items in sorted(by_name.items()):
            failed = sum(item.error is not None for item in items)
            shown[name] = {
                "total_requests": len(items),
                "success_rate": 100 * (len(items) - failed) / len(items),
                "average_response_time_ms": sum(item.milliseconds for item in items) / len(items),
                "error_rate": 100 * failed / len(items),
            }
        return shown

    def rate_limit_events(self) -> list[dict[str, Any]]:
        """The 429s of the last day, at most 1000; `at` is Unix time."""
        since = self._wall() - _KEPT_SECONDS
        with self._lock:
            return [dict(event) for event in self._limited if event["at"] >= since]

    def totals(self) -> dict[tuple[str, str], int]:
        """Attempts since the client was made, by endpoint and result."""
        with self._lock:
            return dict(self._totals)

    def kept(self) -> dict[str, int]:
        """Answers from the cache since the client was made, by endpoint."""
        with self._lock:
            return dict(self._kept)

    def _recent(self) -> list[_Seen]:
        now = self._now()
        with self._lock:
            while self._seen and self._seen[0].at < now - _KEPT_SECONDS:
                self._seen.popleft()
            return [item for item in self._seen if item.at > now - _WINDOW_SECONDS]


def _error_name(record: ResourceRecord) -> str:
    return record.kind.value if record.status is None else f"http_{record.status}"


def _quantile(ordered: list[float], share: float) -> float:
    """The nearest-rank quantile."""
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[rank - 1]
