"""The S1 view on the keys: configuration, metrics, status. Computed at every read, never stored.

The engine books every outcome on the key of its own lease; what is shown here is read from those books.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from msgspec import structs

from headgate.core.call import Key, Secret
from headgate.core.errors import ConfigurationError, HeadgateError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock
from headgate.engine.pool import KeyPool
from headgate.gemini.errors import AllKeysExhaustedError, accepted_errors
from headgate.policy.keyring import KeyRing
from headgate.policy.leases import KeyState, Lease
from headgate.policy.redaction import redact
from headgate.providers.gemini_errors import speaks_of_quota
from headgate.wiring.clock import SystemClock
from headgate.wiring.keys import parse_keys

__all__ = ["ApiKeyConfig", "ApiKeyMetrics", "GeminiKeyManager", "KeyStatus", "as_keys"]

_OWN_DOMAIN = "key:"


class KeyStatus(StrEnum):
    """What a key can do at this moment."""

    ACTIVE = "ACTIVE"
    EXHAUSTED = "EXHAUSTED"  # its project cools down for at least one model
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
class _Reading:
    """A key's state with its times turned into dates."""

    status: KeyStatus
    quota_exceeded_at: datetime | None
    retry_after: datetime | None
    models: dict[str, datetime]
    metrics: ApiKeyMetrics
    disabled_reason: str | None


class ApiKeyConfig:
    """One key. Its `repr` masks the value; everything but value, name and project is read live."""

    def __init__(self, value: str, name: str = "", project: str | None = None) -> None:
        self.value: str = Secret(value)
        self.name = name
        self.project = project
        self._manager: GeminiKeyManager | None = None
        self._index = 0

    def __repr__(self) -> str:
        project = f", project={self.project!r}" if self.project else ""
        return f"ApiKeyConfig(name={self.name!r}, value='…'{project}, status={self.status.value})"

    @property
    def status(self) -> KeyStatus:
        """ACTIVE, EXHAUSTED or DISABLED."""
        return self._read().status

    @property
    def is_active(self) -> bool:
        """Whether the key may be used for every model it has been asked for."""
        return self.status is KeyStatus.ACTIVE

    @property
    def quota_exceeded_at(self) -> datetime | None:
        """When the cool-down that still runs began."""
        return self._read().quota_exceeded_at

    @property
    def retry_after(self) -> datetime | None:
        """When the key is wholly active again."""
        return self._read().retry_after

    @property
    def metrics(self) -> ApiKeyMetrics:
        """What it went through."""
        return self._read().metrics

    def _read(self) -> _Reading:
        if self._manager is None:
            return _Reading(KeyStatus.ACTIVE, None, None, {}, ApiKeyMetrics(), None)
        return self._manager._readings()[self._index]


class GeminiKeyManager:
    """The keys of a client, and the accepted way to watch and steer them.

    Args:
        keys: a `GEMINI_API_KEYS` text, or a list of such entries or `ApiKeyConfig`s.
        rotation_enabled: False uses the first key only.
        backoff_seconds: cool-down of a refusal without a hint.
        clock: where time comes from.

    Raises:
        InvalidKeyConfigError: a key is malformed, or repeated.
    """

    def __init__(
        self,
        keys: str | Sequence[str | ApiKeyConfig],
        *,
        rotation_enabled: bool = True,
        backoff_seconds: int = 60,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        found = as_keys(keys)
        ring = KeyRing(found, rotation=rotation_enabled, fallback=float(backoff_seconds))
        self._bind(KeyPool(ring, clock), clock, found, rotation_enabled, backoff_seconds)

    @classmethod
    def over(
        cls,
        pool: KeyPool,
        clock: Clock,
        keys: Sequence[Key],
        *,
        rotation_enabled: bool,
        backoff_seconds: int,
    ) -> GeminiKeyManager:
        """A view on the keys of a running engine."""
        manager = cls.__new__(cls)
        manager._bind(pool, clock, keys, rotation_enabled, backoff_seconds)
        return manager

    def _bind(
        self,
        pool: KeyPool,
        clock: Clock,
        keys: Sequence[Key],
        rotation_enabled: bool,
        backoff_seconds: int,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._rotation_enabled = rotation_enabled
        self._backoff_seconds = backoff_seconds
        self.keys: tuple[ApiKeyConfig, ...] = tuple(_config(key) for key in keys)
        for index, config in enumerate(self.keys):
            config._manager, config._index = self, index

    # ── steering ────────────────────────────────────────────────────────────────────────────────

    async def get_active_key(self, model: str = "*") -> ApiKeyConfig:
        """The key that should send next. Raises `AllKeysExhaustedError` when none is ready."""
        got = self._pool.lease(model)
        if isinstance(got, Lease):
            return self.keys[got.index]
        wait = None if got.recovers is None else max(0.0, got.recovers - self._clock.monotonic())
        when = "none recovers by itself" if wait is None else f"the first recovers in {wait:.0f} s"
        raise AllKeysExhaustedError(
            f"No key of {len(self.keys)} is ready; {when}.", total_keys=len(self.keys), retry_after=wait
        )

    def mark_quota_exceeded(self, key: ApiKeyConfig, retry_after: float | None = None) -> None:
        """Let the key's project cool down, for `retry_after` seconds or the back-off. Counts nothing:
        outcomes are counted by `track_metrics` alone."""
        seconds = float(self._backoff_seconds) if retry_after is None else max(0.0, retry_after)
        self._pool.park(self._index_of(key), seconds)

    def track_metrics(self, key: ApiKeyConfig, outcome: Outcome | BaseException | None) -> None:
        """Count one outcome on a key: None is a success, an exception a failure."""
        self._pool.record(self._index_of(key), _as_outcome(outcome, key.value))

    def disable(self, key: ApiKeyConfig, reason: str = "disabled by hand") -> None:
        """Take a key out until `enable`."""
        self._pool.disable(self._index_of(key), redact(reason, key.value))

    def enable(self, key: ApiKeyConfig) -> None:
        """Give a disabled or cooling key another chance, at once."""
        self._pool.enable(self._index_of(key))

    def _index_of(self, key: ApiKeyConfig) -> int:
        for index, config in enumerate(self.keys):
            if config is key or (config.value == key.value and config.name == key.name):
                return index
        raise ValueError(f"key {key.name!r} is not one of this manager's")

    # ── watching ────────────────────────────────────────────────────────────────────────────────

    def get_metrics(self) -> dict[str, Any]:
        """The accepted dict: totals, and per key its state and metrics. O(keys)."""
        readings = self._readings()
        return {
            "timestamp": _iso(self._date(self._clock.monotonic())),
            "total_keys": len(readings),
            "active_keys": sum(reading.status is KeyStatus.ACTIVE for reading in readings),
            "rotation_enabled": self._rotation_enabled,
            "backoff_seconds": self._backoff_seconds,
            "current_key_index": self._pool.last_index,
            "keys": [
                _key_dict(config, reading) for config, reading in zip(self.keys, readings, strict=True)
            ],
        }

    def get_status_summary(self) -> str:
        """The accepted status text."""
        readings = self._readings()
        active = sum(reading.status is KeyStatus.ACTIVE for reading in readings)
        lines = [
            "Gemini Key Manager Status",
            f"  Total Keys: {len(readings)}",
            f"  Active Keys: {active}",
            f"  Rotation: {'Enabled' if self._rotation_enabled else 'Disabled'}",
        ]
        for index, (config, reading) in enumerate(zip(self.keys, readings, strict=True)):
            metrics = reading.metrics
            rate = _percent(metrics.failed_requests, metrics.total_requests, 1)
            lines.append(
                f"  [{index}] {config.name}: {reading.status.value} (success="
                f"{metrics.successful_requests}, failed={metrics.failed_requests}, error_rate={rate}%)"
            )
        return "\n".join(lines)

    def _readings(self) -> list[_Reading]:
        return [self._reading(state) for state in self._pool.states()]

    def _reading(self, state: KeyState) -> _Reading:
        status = KeyStatus.EXHAUSTED if state.parks else KeyStatus.ACTIVE
        parks = state.parks.values()
        return _Reading(
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

    def _date(self, monotonic: float | None) -> datetime | None:
        return None if monotonic is None else self._moment(monotonic)

    def _moment(self, monotonic: float) -> datetime:
        wall = self._clock.wall() + (monotonic - self._clock.monotonic())
        return datetime.fromtimestamp(wall, UTC)


def as_keys(keys: str | Sequence[str | ApiKeyConfig]) -> tuple[Key, ...]:
    """Keys given by hand, through the same grammar and checks as those of the environment."""
    entries = [keys] if isinstance(keys, str) else [_as_entry(key) for key in keys]
    with accepted_errors():
        found = parse_keys(",".join(entries), "keys")
        if not found:
            raise ConfigurationError("keys is empty: pass at least one key, or leave it out.")
    return found


def _as_entry(key: str | ApiKeyConfig) -> str:
    if isinstance(key, ApiKeyConfig):
        return f"{key.value}|{key.name}|{key.project or ''}"
    return key


def _config(key: Key) -> ApiKeyConfig:
    own = key.domain.startswith(_OWN_DOMAIN)
    return ApiKeyConfig(key.value, key.name, None if own else key.domain)


def _key_dict(config: ApiKeyConfig, reading: _Reading) -> dict[str, object]:
    return {
        "name": config.name,
        "project": config.project,
        "status": reading.status.value,
        "is_active": reading.status is KeyStatus.ACTIVE,
        "quota_exceeded_at": _iso(reading.quota_exceeded_at),
        "retry_after": _iso(reading.retry_after),
        "exhausted_models": {model: _iso(until) for model, until in reading.models.items()},
        "disabled_reason": reading.disabled_reason,
        "metrics": reading.metrics.to_dict(),
    }


def _as_outcome(outcome: Outcome | BaseException | None, secret: str) -> Outcome:
    if outcome is None:
        return Outcome(Kind.SUCCESS)
    if isinstance(outcome, Outcome):
        return structs.replace(outcome, message=redact(outcome.message, secret))
    message = redact(str(outcome) or type(outcome).__name__, secret)
    # Of someone else's exception the words are all there is.
    quota = outcome.kind == "quota" if isinstance(outcome, HeadgateError) else speaks_of_quota(message)
    return Outcome(Kind.QUOTA_UNKNOWN if quota else Kind.SERVER, message)


def _percent(part: int, whole: int, digits: int) -> float:
    return round(part / whole * 100, digits) if whole else 0.0


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds")
