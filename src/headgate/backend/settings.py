"""What a backend is told: `BackendConfig` and its parts, checked whenever one is made.

Every structure is frozen: a change is a new one, made with `msgspec.structs.replace`, and takes effect
through `update_gemini_backend_config`. Defaults are those accepted as S3-24 and S3-25.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import force_setattr

from headgate.core.errors import ConfigurationError
from headgate.core.fallback import (
    AnyFallback,
    DefaultResponse,
    FailFast,
    FallbackStrategy,
    PartialResponse,
    SwitchModel,
    UseCachedResponse,
)
from headgate.core.model_card import ModelMetadata
from headgate.policy.alert_rules import AlertRules
from headgate.policy.redaction import redact
from headgate.stores.usage_url import UsageUrl

__all__ = [
    "AlertRules",
    "AnyFallback",
    "BackendConfig",
    "CircuitBreakerConfig",
    "ContextOverflow",
    "DefaultResponse",
    "FailFast",
    "FallbackStrategy",
    "LoggingConfig",
    "PartialResponse",
    "PreprocessConfig",
    "RetryConfig",
    "SwitchModel",
    "UseCachedResponse",
]


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"{name} is {redact(repr(value), limit=80)}; it takes a whole number, {least} or more."
        )


def _number(name: str, value: object, least: float) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not least <= float(value) < float("inf"):  # type: ignore[arg-type]
        raise ConfigurationError(
            f"{name} is {redact(repr(value), limit=80)}; it takes a number, {least:g} or more."
        )


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {redact(repr(value), limit=80)}; it takes true or false.")


class RetryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How calls are tried again (S3-25). Waits are full jitter: anywhere from 0 to their bound.

    Attributes:
        max_attempts: all tries of a call, the first among them.
        initial_delay_ms: bound of the first wait.
        max_delay_ms: no bound grows beyond it.
        exponential_base: each bound is so many times the one before.
        jitter: False waits the whole bound.

    Raises:
        ConfigurationError: a value is outside what it takes; so do all structures of this page.
    """

    max_attempts: int = 3
    initial_delay_ms: int = 1000
    max_delay_ms: int = 60_000
    exponential_base: float = 2.0
    jitter: bool = True

    def __post_init__(self) -> None:
        _whole("retry_config.max_attempts", self.max_attempts, 1)
        _whole("retry_config.initial_delay_ms", self.initial_delay_ms, 1)
        _whole("retry_config.max_delay_ms", self.max_delay_ms, 1)
        _number("retry_config.exponential_base", self.exponential_base, 1.0)
        _flag("retry_config.jitter", self.jitter)
        if self.max_delay_ms < self.initial_delay_ms:
            raise ConfigurationError(
                f"retry_config.max_delay_ms is {self.max_delay_ms}, below initial_delay_ms "
                f"{self.initial_delay_ms}; it takes as much or more."
            )


class CircuitBreakerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When calls to a (provider, model) stop for a while (S3-04e).

    Attributes:
        failure_threshold: failures in a row, after which it opens.
        success_threshold: successes while half-open, after which it closes.
        timeout_seconds: how long it stays open.
        half_open_max_requests: calls at once that are let through while half-open.
        half_open_max_calls: another name for it, as some breakers call it.
    """

    failure_threshold: int = 5
    success_threshold: int = 2
    timeout_seconds: float = 60.0
    half_open_max_requests: int = 3
    half_open_max_calls: int | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.half_open_max_calls is not UNSET:
            _whole("circuit_breaker.half_open_max_calls", self.half_open_max_calls, 1)
            force_setattr(self, "half_open_max_requests", self.half_open_max_calls)
            force_setattr(self, "half_open_max_calls", UNSET)
        _whole("circuit_breaker.failure_threshold", self.failure_threshold, 1)
        _whole("circuit_breaker.success_threshold", self.success_threshold, 1)
        _number("circuit_breaker.timeout_seconds", self.timeout_seconds, 0.001)
        _whole("circuit_breaker.half_open_max_requests", self.half_open_max_requests, 1)


class PreprocessConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to a request before any quota is spent.

    Attributes:
        sanitize_input: removes invisible characters and tells signs of injection.
        validate_json_schema: checks `response_schema`, and the reply against it.
        enforce_token_limits: refuses what does not fit the model's window.
        auto_truncate: shortens it instead, from the oldest on; the reply says so.
        strip_sensitive_data: puts markers in the place of personal data of a checkable form.
        restore_redacted: numbers the markers and puts the data back into the reply.
    """

    sanitize_input: bool = True
    validate_json_schema: bool = False
    enforce_token_limits: bool = True
    auto_truncate: bool = False
    strip_sensitive_data: bool = True
    restore_redacted: bool = False

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _flag(f"preprocess_config.{name}", getattr(self, name))


class LoggingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What is logged, to the logger `headgate.backend`. Prompts never are.

    Attributes:
        log_requests: a line when a request begins: its model, sizes and options that matter.
        log_responses: a line with the text of each reply.
        log_errors: failed attempts and failed requests, with the reason.
        log_performance: waits, and of each request how long it took and what it used.
        sanitize_sensitive_data: False shows texts of replies as they are; keys are redacted
            whatever it says.
        max_response_length: characters of a text that are logged.
    """

    log_requests: bool = True
    log_responses: bool = False
    log_errors: bool = True
    log_performance: bool = True
    sanitize_sensitive_data: bool = True
    max_response_length: int = 1000

    def __post_init__(self) -> None:
        _whole("logging_config.max_response_length", self.max_response_length, 0)
        for name in self.__struct_fields__[:-1]:
            _flag(f"logging_config.{name}", getattr(self, name))


class ContextOverflow(StrEnum):
    """What to do about a conversation that outgrows the model's window."""

    DROP = "drop"  # the oldest turns
    SUMMARISE = "summarise"  # the oldest turns become a summary, which the model writes
    REFUSE = "refuse"


class BackendConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration of a backend (S3-24). Fields after `metrics_retention_hours` are ours.

    Attributes:
        max_concurrent_requests: calls to the upstream at once, never more than `connection_pool_size`;
            more wait their turn. What the cache answers, or the answer to the same question under way,
            takes none.
        connection_pool_size: connections to the upstream.
        cache_max_entries: replies remembered in memory; 0 remembers none.
        cache_max_size_mb: what they may take; 0 remembers none.
        batch_size: texts to embed in a request at the most.
        batch_timeout_ms: how long a text waits for others at the most.
        retry_config: how calls are tried again.
        health_check_interval_secs: how long the finding of a health check stands.
        circuit_breaker_enabled: whether calls to a model that fails stop for a while.
        monitoring_enabled: whether requests are counted and written to the usage ledger.
        logging_config: what is logged.
        metrics_retention_hours: how long analytics and single requests, 10,000 at the most, stay in
            memory.
        circuit_breaker: when they stop.
        fallback: tried in order when a call has failed; a request's own takes its place.
        cache_ttl_seconds: how long a reply answers for later ones; 0 keeps none.
        cache_stale_seconds: how long after that it still does, while a new one is asked for.
        cache_rescue_seconds: how long after that `UseCachedResponse` may give it.
        cache_shared_max_size_mb: bound of the replies in `store`, which processes share.
        preprocess_config: for requests without one of their own.
        context_overflow: for requests without one of their own.
        session_ttl_seconds: how long a session lives after its last turn.
        connect_timeout_seconds: until a connection stands.
        request_timeout_seconds: until a whole answer is there.
        stream_idle_seconds: silence within a stream, and before it begins.
        connection_idle_seconds: how long a connection that nobody uses is kept.
        max_queued_requests: calls that may wait their turn; more are refused at once.
        models: cards of models to add, or fields of known ones to set.
        model_discovery: whether the upstream is asked for its list of models.
        model_refresh_seconds: how old the upstream's list of models may grow.
        alerts: where alerts begin.
        adaptive_concurrency: whether calls at once to a model are limited once it was overloaded.
        retry_budget: how many retries the calls of two minutes may cause, as a share of them, and ten
            in any case; at `max_attempts` - 1 or more nothing is held back.
        hedge_after_seconds: after which a second attempt is made on another project; None: never.
        quotas: as `ResilientGeminiClient` takes them; empty: those of environment and file.
        store: URL of a shared store, such as `redis://host`; None: that of environment and file.
        session_file: where sessions survive a restart; None: in memory. Fixed for a backend's life.
        usage: where the usage ledger is kept, as `HEADGATE_USAGE` says it; None: where that says.
            Fixed for a backend's life.
        usage_retention_days: how long its rows are kept.
    """

    max_concurrent_requests: int = 10
    connection_pool_size: int = 20
    cache_max_entries: int = 1000
    cache_max_size_mb: int = 100
    batch_size: int = 5
    batch_timeout_ms: int = 5000
    retry_config: RetryConfig = RetryConfig()
    health_check_interval_secs: float = 300
    circuit_breaker_enabled: bool = True
    monitoring_enabled: bool = True
    logging_config: LoggingConfig = LoggingConfig()
    metrics_retention_hours: float = 24
    circuit_breaker: CircuitBreakerConfig = CircuitBreakerConfig()
    fallback: Sequence[AnyFallback] = ()
    cache_ttl_seconds: float = 3600
    cache_stale_seconds: float = 0
    cache_rescue_seconds: float = 86_400
    cache_shared_max_size_mb: int = 256
    preprocess_config: PreprocessConfig = PreprocessConfig()
    context_overflow: ContextOverflow = ContextOverflow.DROP
    session_ttl_seconds: float = 86_400
    connect_timeout_seconds: float = 30
    request_timeout_seconds: float = 120
    stream_idle_seconds: float = 120
    connection_idle_seconds: float = 90
    max_queued_requests: int = 1000
    models: Sequence[ModelMetadata] = ()
    model_discovery: bool = True
    model_refresh_seconds: float = 3600
    alerts: AlertRules = AlertRules()
    adaptive_concurrency: bool = True
    retry_budget: float = 0.2
    hedge_after_seconds: float | None = None
    quotas: Mapping[str, object] = {}
    store: str | None = None
    session_file: str | None = None
    usage: str | None = None
    usage_retention_days: float = 90

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            _whole(name, getattr(self, name), least)
        for name, smallest in _NUMBERS.items():
            _number(name, getattr(self, name), smallest)
        _flag("circuit_breaker_enabled", self.circuit_breaker_enabled)
        _flag("monitoring_enabled", self.monitoring_enabled)
        _flag("adaptive_concurrency", self.adaptive_concurrency)
        if self.hedge_after_seconds is not None:
            _number("hedge_after_seconds", self.hedge_after_seconds, 0.001)
        _flag("model_discovery", self.model_discovery)
        for name, part in _PARTS.items():
            _is(name, getattr(self, name), part)
        self._freeze()

    def _freeze(self) -> None:
        """Lists become tuples: what a running backend reads cannot be changed under it."""
        for name, part in (("fallback", FallbackStrategy), ("models", ModelMetadata)):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise ConfigurationError(f"{name} takes a list of {part.__name__}.")
            for item in given:
                _is(f"an item of {name}", item, part)
            force_setattr(self, name, tuple(given))
        _is("quotas", self.quotas, Mapping)
        for name in ("store", "session_file", "usage"):
            if getattr(self, name) is not None:
                _is(name, getattr(self, name), str)
        if self.usage is not None:
            try:
                UsageUrl.read(self.usage)
            except ValueError as error:
                raise ConfigurationError(f"usage takes {error}.") from None

    def __repr__(self) -> str:
        """Without the places: their URLs may hold a password."""
        hidden = {"store": self.store, "usage": self.usage}
        fields = [name for name in self.__struct_fields__ if name not in hidden]
        shown = [f"{name}={getattr(self, name)!r}" for name in fields]
        shown += [f"{name}={'…' if value else None}" for name, value in hidden.items()]
        return f"BackendConfig({', '.join(shown)})"


def _is(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} takes a {kind.__name__}; got {type(value).__name__}.")


_WHOLE = {
    "max_concurrent_requests": 1,
    "connection_pool_size": 1,
    "cache_max_entries": 0,
    "cache_max_size_mb": 0,
    "cache_shared_max_size_mb": 1,
    "batch_size": 1,
    "batch_timeout_ms": 1,
    "max_queued_requests": 0,
}
_NUMBERS = {
    "health_check_interval_secs": 0.001,
    "metrics_retention_hours": 0.001,
    "cache_ttl_seconds": 0.0,
    "cache_stale_seconds": 0.0,
    "cache_rescue_seconds": 0.0,
    "session_ttl_seconds": 0.001,
    "connect_timeout_seconds": 0.001,
    "request_timeout_seconds": 0.001,
    "stream_idle_seconds": 0.001,
    "connection_idle_seconds": 0.001,
    "model_refresh_seconds": 1.0,
    "usage_retention_days": 0.001,
    "retry_budget": 0.0,
}
_PARTS: dict[str, type] = {
    "retry_config": RetryConfig,
    "logging_config": LoggingConfig,
    "alerts": AlertRules,
    "circuit_breaker": CircuitBreakerConfig,
    "preprocess_config": PreprocessConfig,
    "context_overflow": ContextOverflow,
}
