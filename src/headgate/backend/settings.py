"""What a backend is told: `BackendConfig` and its parts, checked whenever one is made.

Every structure is frozen: a change is a new one, made with `msgspec.structs.replace`, and takes effect
through `update_gemini_backend_config`. Defaults are those accepted as S3-24 and S3-25.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar

from msgspec import Struct
from msgspec.structs import force_setattr

from headgate.core.errors import ConfigurationError
from headgate.core.model_card import ModelMetadata
from headgate.policy.redaction import redact

__all__ = [
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
    """

    failure_threshold: int = 5
    success_threshold: int = 2
    timeout_seconds: float = 60.0
    half_open_max_requests: int = 3

    def __post_init__(self) -> None:
        _whole("circuit_breaker.failure_threshold", self.failure_threshold, 1)
        _whole("circuit_breaker.success_threshold", self.success_threshold, 1)
        _number("circuit_breaker.timeout_seconds", self.timeout_seconds, 0.001)
        _whole("circuit_breaker.half_open_max_requests", self.half_open_max_requests, 1)


class FallbackStrategy(Struct, frozen=True, tag_field="strategy", tag=True):
    """What to do when every try has failed. One of the five below, also found as its attributes:
    `FallbackStrategy.SwitchModel("gemini-…")`."""

    UseCachedResponse: ClassVar[type[UseCachedResponse]]
    SwitchModel: ClassVar[type[SwitchModel]]
    DefaultResponse: ClassVar[type[DefaultResponse]]
    PartialResponse: ClassVar[type[PartialResponse]]
    FailFast: ClassVar[type[FailFast]]


class UseCachedResponse(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Answer with an earlier reply to the same request, whatever its age; marked with it."""


class SwitchModel(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Ask another model; the reply names the one that answered."""

    model: str

    def __post_init__(self) -> None:
        _is("the model of SwitchModel", self.model, str)
        if not self.model.strip():
            raise ConfigurationError("SwitchModel takes the name of a model.")


class DefaultResponse(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Answer with this text."""

    text: str

    def __post_init__(self) -> None:
        _is("the text of DefaultResponse", self.text, str)


class PartialResponse(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Answer with what a stream had told before it broke; marked as such."""


class FailFast(FallbackStrategy, frozen=True, tag=True, forbid_unknown_fields=True):
    """Raise the error: what stands after it in a chain is not tried."""


FallbackStrategy.UseCachedResponse = UseCachedResponse
FallbackStrategy.SwitchModel = SwitchModel
FallbackStrategy.DefaultResponse = DefaultResponse
FallbackStrategy.PartialResponse = PartialResponse
FallbackStrategy.FailFast = FailFast

AnyFallback = UseCachedResponse | SwitchModel | DefaultResponse | PartialResponse | FailFast
"""The five strategies, for wire formats."""


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
    """What is logged.

    Attributes:
        sanitize_sensitive_data: False shows bodies of replies as they are; keys and personal data in
            prompts stay redacted whatever it says.
        max_response_length: characters of a body that are logged.
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
        max_concurrent_requests: calls under way at once; more wait their turn.
        connection_pool_size: connections to the upstream.
        cache_max_entries, cache_max_size_mb: bounds of the reply cache in memory; MB are 10⁶ bytes.
        batch_size, batch_timeout_ms: a batch goes out when it holds so many, or after so long.
        health_check_interval_secs: how long the finding of a health check stands.
        metrics_retention_hours: how long analytics look back.
        circuit_breaker: thresholds.
        fallback: tried in order when a call has failed; a request's own stands before it.
        cache_ttl_seconds: how long a reply answers for later ones; 0 keeps none.
        preprocess_config: for requests without one of their own.
        context_overflow: for requests without one of their own.
        session_ttl_seconds: how long a session lives after its last turn.
        connect_timeout_seconds, request_timeout_seconds: until a connection stands; a whole answer.
        stream_idle_seconds: silence within a stream, and before it begins.
        connection_idle_seconds: how long a connection that nobody uses is kept.
        max_queued_requests: calls that may wait their turn; more are refused at once.
        models: cards of models to add, or fields of known ones to set.
        model_discovery: whether the upstream is asked for its list of models.
        model_refresh_seconds: how old the upstream's list of models may grow.
        quotas: as `ResilientGeminiClient` takes them; empty: those of environment and file.
        store: URL of a shared store, such as `redis://host`; None: that of environment and file.
        session_file: where sessions survive a restart; None: in memory. Fixed for a backend's life.
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
    quotas: Mapping[str, object] = {}
    store: str | None = None
    session_file: str | None = None

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            _whole(name, getattr(self, name), least)
        for name, smallest in _NUMBERS.items():
            _number(name, getattr(self, name), smallest)
        _flag("circuit_breaker_enabled", self.circuit_breaker_enabled)
        _flag("monitoring_enabled", self.monitoring_enabled)
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
        for name in ("store", "session_file"):
            if getattr(self, name) is not None:
                _is(name, getattr(self, name), str)

    def __repr__(self) -> str:
        """Without the store: its URL may hold a password."""
        shown = (
            f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "store"
        )
        return f"BackendConfig({', '.join(shown)}, store={'…' if self.store else None})"


def _is(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} takes a {kind.__name__}; got {type(value).__name__}.")


_WHOLE = {
    "max_concurrent_requests": 1,
    "connection_pool_size": 1,
    "cache_max_entries": 0,
    "cache_max_size_mb": 0,
    "batch_size": 1,
    "batch_timeout_ms": 1,
    "max_queued_requests": 0,
}
_NUMBERS = {
    "health_check_interval_secs": 0.001,
    "metrics_retention_hours": 0.001,
    "cache_ttl_seconds": 0.0,
    "session_ttl_seconds": 0.001,
    "connect_timeout_seconds": 0.001,
    "request_timeout_seconds": 0.001,
    "stream_idle_seconds": 0.001,
    "connection_idle_seconds": 0.001,
    "model_refresh_seconds": 1.0,
}
_PARTS: dict[str, type] = {
    "retry_config": RetryConfig,
    "logging_config": LoggingConfig,
    "circuit_breaker": CircuitBreakerConfig,
    "preprocess_config": PreprocessConfig,
    "context_overflow": ContextOverflow,
}
