"""What the keys of an engine are doing, for people: states, metrics, a summary. Computed at every
read, never stored: the engine books every outcome on the key of its own lease, and these are those
books.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from headgate.core.call import Key
from headgate.core.ports import Clock
from headgate.engine.pool import KeyPool
from headgate.policy.leases import KeyState

__all__ = ["ApiKeyMetrics", "KeyBooks", "KeyStatus", "Reading", "group_of"]

_OWN_DOMAIN = "key:"


class KeyStatus(StrEnum):
    """What a key can do at this moment."""

    ACTIVE = "ACTIVE"
    EXHAUSTED = "EXHAUSTED"  # its quota domain cools down for at least one model
    DISABLED = "DISABLED"  # the upstream refused the key itself


@dataclass(frozen=True, slots=True)
class ApiKeyMetrics:
    """What a key went through. Rates are percentages, times aware UTC."""

    total_requests: int = 0
    successful_requests: int = 0
    failed_requests: int = 0
    quota_errors: int = 0
    other_errors: int = 0
    error_rate: float = 0.0
    last_used_at: datetime | None = None
    last_error_at: datetime | None = None
    last_error_message: str | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON-able, times in ISO 8601."""
        return {
            "total_requests": self.total_requests,
            "successful_requests": self.successful_requests,
            "failed_requests": self.failed_requests,
            "quota_errors": self.quota_errors,
            "other_errors": self.other_errors,
            "error_rate": self.error_rate,
            "last_used_at": _iso(self.last_used_at),
            "last_error_at": _iso(self.last_error_at),
            "last_error_message": self.last_error_message,
        }


@dataclass(frozen=True, slots=True)
class Reading:
    """A key's state with its times turned into dates."""

    name: str
    group: str | None
    status: KeyStatus = KeyStatus.ACTIVE
    quota_exceeded_at: datetime | None = None
    retry_after: datetime | None = None
    models: dict[str, datetime] | None = None
    metrics: ApiKeyMetrics = ApiKeyMetrics()
    disabled_reason: str | None = None


class KeyBooks:
    """A view on the keys of an engine.

    Args:
        group: what this provider counts quota against: `project`, `organisation`.
    """

    def __init__(
        self,
        pool: KeyPool,
        clock: Clock,
        *,
        group: str,
        rotation_enabled: bool,
        backoff_seconds: int,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._group = group
        self._rotation_enabled = rotation_enabled
        self._backoff_seconds = backoff_seconds

    def readings(self) -> list[Reading]:
        """Every key as it stands now, in order. O(keys)."""
        return [self._reading(state) for state in self._pool.states()]

    def reading(self, index: int) -> Reading:
        """One key as it stands now."""
        return self._reading(self._pool.state(index))

    def metrics(self) -> dict[str, Any]:
        """Totals, and per key its state and metrics. O(keys)."""
        readings = self.readings()
        return {
            "timestamp": _iso(self._date(self._clock.monotonic())),
            "total_keys": len(readings),
            "active_keys": sum(reading.status is KeyStatus.ACTIVE for reading in readings),
            "rotation_enabled": self._rotation_enabled,
            "backoff_seconds": self._backoff_seconds,
            "current_key_index": self._pool.last_index,
            "keys": [self._key_dict(reading) for reading in readings],
        }

    def summary(self, title: str) -> str:
        """The status as text, a line a key."""
        readings = self.readings()
        active = sum(reading.status is KeyStatus.ACTIVE for reading in readings)
        lines = [
            title,
            f"  Total Keys: {len(readings)}",
            f"  Active Keys: {active}",
            f"  Rotation: {'Enabled' if self._rotation_enabled else 'Disabled'}",
        ]
        for index, reading in enumerate(readings):
            metrics = reading.metrics
            rate = _percent(metrics.failed_requests, metrics.total_requests, 1)
            lines.append(
                f"  [{index}] {reading.name}: {reading.status.value} (success="
                f"{metrics.successful_requests}, failed={metrics.failed_requests}, error_rate={rate}%)"
            )
        return "\n".join(lines)

    def _reading(self, state: KeyState) -> Reading:
        status = KeyStatus.EXHAUSTED if state.parks else KeyStatus.ACTIVE
        parks = state.parks.values()
        return Reading(
            state.key.name,
            group_of(state.key),
            KeyStatus.DISABLED if state.disabled is not None else status,
            self._date(min((park.since for park in parks), default=None)),
            self._date(max((park.until for park in parks), default=None)),
            {model: self._moment(park.until) for model, park in state.parks.items()},
            self._metrics(state),
            state.disabled,
        )

    def _metrics(self, state: KeyState) -> ApiKeyMetrics:
        stats = state.stats
        total = stats.successes + stats.failures
        return ApiKeyMetrics(
            total_requests=total,
            successful_requests=stats.successes,
            failed_requests=stats.failures,
            quota_errors=stats.quota_errors,
            other_errors=stats.failures - stats.quota_errors,
            error_rate=_percent(stats.failures, total, 2),
            last_used_at=self._date(stats.last_used),
            last_error_at=self._date(stats.last_error),
            last_error_message=stats.last_error_message,
        )

    def _key_dict(self, reading: Reading) -> dict[str, object]:
        return {
            "name": reading.name,
            self._group: reading.group,
            "status": reading.status.value,
            "is_active": reading.status is KeyStatus.ACTIVE,
            "quota_exceeded_at": _iso(reading.quota_exceeded_at),
            "retry_after": _iso(reading.retry_after),
            "exhausted_models": {m: _iso(until) for m, until in (reading.models or {}).items()},
            "disabled_reason": reading.disabled_reason,
            "metrics": reading.metrics.to_dict(),
        }

    def _date(self, monotonic: float | None) -> datetime | None:
        return None if monotonic is None else self._moment(monotonic)

    def _moment(self, monotonic: float) -> datetime:
        wall = self._clock.wall() + (monotonic - self._clock.monotonic())
        return datetime.fromtimestamp(wall, UTC)


def group_of(key: Key) -> str | None:
    """The project or organisation of a key; None where it stands for itself."""
    return None if key.domain.startswith(_OWN_DOMAIN) else key.domain


def _percent(part: int, whole: int, digits: int) -> float:
    return round(part / whole * 100, digits) if whole else 0.0


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds")
