"""The S1 view on the keys: configuration, steering, metrics, status.

What it shows is read from the engine's books at every look (wiring/key_status.py), never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import structs

from headgate.core.call import Key, Secret
from headgate.core.errors import ConfigurationError, HeadgateError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock
from headgate.engine.pool import KeyPool
from headgate.gemini.errors import AllKeysExhaustedError, accepted_errors
from headgate.policy.keyring import KeyRing
from headgate.policy.leases import Lease
from headgate.policy.redaction import redact
from headgate.providers.gemini_errors import speaks_of_quota
from headgate.wiring.clock import SystemClock
from headgate.wiring.key_status import ApiKeyMetrics, KeyBooks, KeyStatus, Reading, group_of
from headgate.wiring.keys import parse_keys

__all__ = ["ApiKeyConfig", "ApiKeyMetrics", "GeminiKeyManager", "KeyStatus", "as_keys"]

_YEAR = 366 * 86_400.0
"""Longest cool-down set by hand, in seconds: for good there is `disable`."""


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

    def _read(self) -> Reading:
        if self._manager is None:
            return Reading(self.name, self.project)
        return self._manager._books.reading(self._index)


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
        self._backoff_seconds = backoff_seconds
        self._books = KeyBooks(
            pool,
            clock,
            group="project",
            rotation_enabled=rotation_enabled,
            backoff_seconds=backoff_seconds,
        )
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
        outcomes are counted by `track_metrics` alone.

        Raises:
            ValueError: `retry_after` is no number of seconds from 0 to a year.
        """
        seconds = float(self._backoff_seconds if retry_after is None else retry_after)
        if not 0 <= seconds <= _YEAR:
            raise ValueError(f"retry_after takes seconds, 0 to {_YEAR:.0f}; got {retry_after!r}")
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
        if key._manager is self:
            return key._index
        for index, config in enumerate(self.keys):
            if config.value == key.value and config.name == key.name:
                return index
        raise ValueError(f"key {key.name!r} is not one of this manager's")

    # ── watching ────────────────────────────────────────────────────────────────────────────────

    def get_metrics(self) -> dict[str, Any]:
        """The accepted dict: totals, and per key its state and metrics. O(keys)."""
        return self._books.metrics()

    def get_status_summary(self) -> str:
        """The accepted status text."""
        return self._books.summary("Gemini Key Manager Status")


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
    return ApiKeyConfig(key.value, key.name, group_of(key))


def _as_outcome(outcome: Outcome | BaseException | None, secret: str) -> Outcome:
    if outcome is None:
        return Outcome(Kind.SUCCESS)
    if isinstance(outcome, Outcome):
        return structs.replace(outcome, message=redact(outcome.message, secret))
    message = redact(str(outcome) or type(outcome).__name__, secret)
    # Of someone else's exception the words are all there is.
    quota = outcome.kind == "quota" if isinstance(outcome, HeadgateError) else speaks_of_quota(message)
    return Outcome(Kind.QUOTA_UNKNOWN if quota else Kind.SERVER, message)
