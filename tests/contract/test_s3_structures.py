"""S3-23 to S3-25, §4.4: every structure has its accepted fields and defaults; bad values are named."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from headgate import backend
from headgate.backend import (
    AnyFallback,
    BackendConfig,
    CircuitBreakerConfig,
    ErrorType,
    FallbackStrategy,
    GeminiError,
    GeminiRequest,
    LoggingConfig,
    ModelMetrics,
    ModelNotFoundError,
    PreprocessConfig,
    RetryConfig,
)
from headgate.backend.errors import gemini_errors, type_of_outcome
from headgate.core.errors import (
    ConfigurationError,
    DeadlineExceededError,
    HeadgateError,
    InvalidCallError,
    ModelRetiredError,
    NoUsableKeyError,
    QueueFullError,
    QuotaExhaustedError,
    StoreError,
    UpstreamError,
)
from headgate.core.outcome import Detail, Kind, Outcome

NOW = datetime(2026, 11, 21, tzinfo=UTC)

FIELDS = {
    "GeminiRequest": "prompt model session_id temperature max_output_tokens top_k top_p stop_sequences "
    "system_instruction images files stream priority preprocess_config response_mime_type "
    "response_schema fallback",
    "GeminiResponse": "text model finish_reason usage cost_estimate request_id cached from_fallback "
    "redactions safety_ratings",
    "StreamingChunk": "delta finish_reason safety_ratings usage",
    "TokenUsage": "prompt_tokens completion_tokens total_tokens",
    "ConversationContext": "session_id messages system_instruction total_tokens created_at "
    "last_updated",
    "ConversationMessage": "role content timestamp tokens",
    "ModelMetadata": "id name description version release_date deprecation_date capabilities pricing "
    "performance aliases recommended_use_cases limitations",
    "ModelCapabilities": "text_generation image_understanding code_generation function_calling "
    "json_mode system_instructions context_caching max_input_tokens max_output_tokens "
    "supports_temperature supports_top_k supports_top_p supports_stop_sequences",
    "ModelPricing": "input_per_million output_per_million cached_input_per_million image_per_thousand",
    "ModelPerformance": "avg_latency_ms tokens_per_second concurrency_limit rate_limit_rpm "
    "rate_limit_tpd",
    "ModelEntry": "metadata last_validated validation_status usage_count error_count avg_response_time",
    "RequestMetrics": "request_id model timestamp duration_ms input_tokens output_tokens total_tokens "
    "cost_estimate status error cache_hit retry_count",
    "UsageMetrics": "model period total_requests successful_requests failed_requests "
    "total_input_tokens total_output_tokens total_cost avg_latency_ms",
    "RealtimeMetrics": "timestamp active_requests requests_per_second tokens_per_second error_rate "
    "avg_latency_ms queue_depth circuit_breaker_status",
    "PerformanceAnalytics": "model time_range latency_distribution error_distribution "
    "throughput_metrics cost_analysis",
    "TimeRange": "start end",
    "LatencyDistribution": "min max mean median p50 p75 p90 p95 p99",
    "ThroughputMetrics": "requests_per_minute tokens_per_minute peak_rpm peak_tpm",
    "CostAnalysis": "total_cost input_cost output_cost cached_savings cost_per_request "
    "cost_per_thousand_tokens",
    "ModelMetrics": "total_requests successful_requests failed_requests total_latency_ms "
    "min_latency_ms max_latency_ms total_input_tokens total_output_tokens cache_hits cache_misses",
    "CacheStats": "entries size_bytes max_size_bytes total_hits expired_entries hit_rate",
    "HealthStatus": "model status circuit_state recent_errors success_rate avg_latency_ms last_check",
    "BackendStatus": "realtime_metrics cache_stats performance_metrics health_statuses config",
}


@pytest.mark.parametrize(("structure", "fields"), FIELDS.items())
def test_s3_4_4_every_accepted_field_is_there_in_its_order(structure: str, fields: str) -> None:
    accepted = fields.split()
    found = [name for name in getattr(backend, structure).__struct_fields__ if name in accepted]
    assert found == accepted


DEFAULTS: list[tuple[Any, dict[str, object]]] = [
    (
        BackendConfig(),
        {
            "max_concurrent_requests": 10,
            "connection_pool_size": 20,
            "cache_max_entries": 1000,
            "cache_max_size_mb": 100,
            "batch_size": 5,
            "batch_timeout_ms": 5000,
            "retry_config": RetryConfig(),
            "health_check_interval_secs": 300,
            "circuit_breaker_enabled": True,
            "monitoring_enabled": True,
            "logging_config": LoggingConfig(),
            "metrics_retention_hours": 24,
            "circuit_breaker": CircuitBreakerConfig(),
            "fallback": (),
            "cache_ttl_seconds": 3600,
            "connect_timeout_seconds": 30,
            "request_timeout_seconds": 120,
            "connection_idle_seconds": 90,
            "session_ttl_seconds": 86_400,
            "model_refresh_seconds": 3600,
        },
    ),
    (
        RetryConfig(),
        {
            "max_attempts": 3,
            "initial_delay_ms": 1000,
            "max_delay_ms": 60_000,
            "exponential_base": 2.0,
            "jitter": True,
        },
    ),
    (
        CircuitBreakerConfig(),
        {
            "failure_threshold": 5,
            "success_threshold": 2,
            "timeout_seconds": 60,
            "half_open_max_requests": 3,
        },
    ),
    (
        PreprocessConfig(),
        {
            "sanitize_input": True,
            "validate_json_schema": False,
            "enforce_token_limits": True,
            "auto_truncate": False,
            "strip_sensitive_data": True,
            "restore_redacted": False,
        },
    ),
    (
        LoggingConfig(),
        {
            "log_requests": True,
            "log_responses": False,
            "log_errors": True,
            "log_performance": True,
            "sanitize_sensitive_data": True,
            "max_response_length": 1000,
        },
    ),
]


@pytest.mark.parametrize(("made", "defaults"), DEFAULTS, ids=lambda value: type(value).__name__)
def test_s3_24_25_every_default_is_the_accepted_one(made: Any, defaults: dict[str, object]) -> None:
    assert {name: getattr(made, name) for name in defaults} == defaults


def test_s3_23_only_prompt_and_model_are_required() -> None:
    request = GeminiRequest("Explain tides", "gemini-3.8-flash")
    assert request == GeminiRequest(prompt="Explain tides", model="gemini-3.8-flash")
    for field in ("prompt", "model"):
        with pytest.raises(TypeError):
            GeminiRequest(**{field: "x"})


def test_s3_23_bytes_are_base64_over_json_and_come_back() -> None:
    request = GeminiRequest(
        "p", "m", images=[("image/png", b"\x89PNG")], files=[("a.pdf", "application/pdf", b"%PDF")]
    )
    wire = msgspec.json.encode(request)
    assert b'["image/png","iVBORw=="]' in wire
    again = msgspec.json.decode(wire, type=GeminiRequest)
    assert again == request


def test_a_request_shows_sizes_and_no_text() -> None:
    shown = repr(GeminiRequest("my secret plan", "m", images=[("image/png", b"CANARY")]))
    assert "secret" not in shown
    assert "CANARY" not in shown
    assert "14 characters" in shown


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_concurrent_requests": 0}, "max_concurrent_requests"),
        ({"max_concurrent_requests": True}, "max_concurrent_requests"),
        ({"connection_pool_size": 1.5}, "connection_pool_size"),
        ({"cache_ttl_seconds": -1}, "cache_ttl_seconds"),
        ({"cache_ttl_seconds": float("inf")}, "cache_ttl_seconds"),
        ({"circuit_breaker_enabled": "yes"}, "circuit_breaker_enabled"),
        ({"retry_config": {"max_attempts": 3}}, "retry_config"),
        ({"fallback": ["UseCachedResponse"]}, "fallback"),
        ({"fallback": "FailFast"}, "fallback"),
        ({"models": [{"id": "m"}]}, "models"),
        ({"quotas": [("rpm", 1)]}, "quotas"),
        ({"store": 7}, "store"),
    ],
)
def test_s3_24_a_wrong_value_is_named_with_what_is_allowed(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{named}.* takes"):
        BackendConfig(**fields)


@pytest.mark.parametrize(
    ("part", "fields", "named"),
    [
        (RetryConfig, {"max_attempts": 0}, "retry_config.max_attempts"),
        (RetryConfig, {"exponential_base": 0.5}, "retry_config.exponential_base"),
        (RetryConfig, {"initial_delay_ms": 5000, "max_delay_ms": 1000}, "retry_config.max_delay_ms"),
        (RetryConfig, {"jitter": 1}, "retry_config.jitter"),
        (CircuitBreakerConfig, {"timeout_seconds": 0}, "circuit_breaker.timeout_seconds"),
        (LoggingConfig, {"max_response_length": -1}, "logging_config.max_response_length"),
        (LoggingConfig, {"log_errors": None}, "logging_config.log_errors"),
        (PreprocessConfig, {"auto_truncate": 0}, "preprocess_config.auto_truncate"),
    ],
)
def test_s3_25_the_parts_name_themselves_too(part: Any, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        part(**fields)


def test_s3_4_4_fallbacks_are_found_by_name_and_travel_as_json() -> None:
    chain = [
        FallbackStrategy.SwitchModel("gemini-3.5-flash"),
        FallbackStrategy.UseCachedResponse(),
        FallbackStrategy.DefaultResponse("Later."),
        FallbackStrategy.PartialResponse(),
        FallbackStrategy.FailFast(),
    ]
    config = BackendConfig(fallback=chain)
    assert list(config.fallback) == chain
    assert msgspec.json.decode(msgspec.json.encode(config), type=BackendConfig) == config
    with pytest.raises(ConfigurationError):
        FallbackStrategy.SwitchModel("")
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"strategy": "Pray"}, AnyFallback)


def test_a_configuration_cannot_be_changed_under_a_running_backend() -> None:
    chain = [FallbackStrategy.FailFast()]
    config = BackendConfig(fallback=chain)
    chain.clear()
    assert len(config.fallback) == 1
    with pytest.raises(AttributeError):
        config.batch_size = 3  # type: ignore[misc]


def test_s3_20_the_repr_of_a_configuration_hides_the_store() -> None:
    assert "CANARY" not in repr(BackendConfig(store="redis://u:CANARY-pass@host"))


def test_s3_4_4_derived_metrics_are_percent_and_survive_zero() -> None:
    nothing = ModelMetrics()
    assert (nothing.avg_latency_ms, nothing.success_rate, nothing.cache_hit_rate) == (None, 0.0, 0.0)
    some = ModelMetrics(
        total_requests=4, successful_requests=3, total_latency_ms=100, cache_hits=1, cache_misses=3
    )
    assert (some.avg_latency_ms, some.success_rate, some.cache_hit_rate) == (25.0, 75.0, 25.0)


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


def test_s3_4_4_error_types_are_the_accepted_words_with_their_waits() -> None:
    accepted = (
        "InvalidApiKey QuotaExceeded RateLimitExceeded ModelNotFound InvalidRequest ContentBlocked "
        "SafetyViolation RecitationError ConnectionTimeout NetworkError DnsResolutionFailed SslError "
        "InternalServerError ServiceUnavailable GatewayTimeout RequestTimeout PayloadTooLarge "
        "InvalidParameters Unknown"
    )
    assert [kind.value for kind in ErrorType] == accepted.split()
    waits = {kind.value: kind.suggested_wait for kind in ErrorType if kind.suggested_wait != 1.0}
    assert waits == {"RateLimitExceeded": 60, "ServiceUnavailable": 30, "InternalServerError": 10}


def test_s3_04c_exactly_the_accepted_types_are_retryable() -> None:
    assert {kind.value for kind in ErrorType if kind.retryable} == {
        "RateLimitExceeded",
        "ConnectionTimeout",
        "NetworkError",
        "InternalServerError",
        "ServiceUnavailable",
        "GatewayTimeout",
        "DnsResolutionFailed",
    }


def quota_of(kind: Kind) -> QuotaExhaustedError:
    error = QuotaExhaustedError("out", total_keys=1, retry_after=7.0)
    error.__cause__ = UpstreamError(Outcome(kind, "m", 429))
    return error


UPSTREAM = [
    (Outcome(Kind.QUOTA_MINUTE, "m", 429), "RateLimitExceeded"),
    (Outcome(Kind.QUOTA_DAY, "m", 429), "QuotaExceeded"),
    (Outcome(Kind.BAD_KEY, "m", 400), "InvalidApiKey"),
    (Outcome(Kind.PROJECT_MODEL, "m", 404), "ModelNotFound"),
    (Outcome(Kind.REQUEST, "m", 404), "ModelNotFound"),
    (Outcome(Kind.REQUEST, "m", 400), "InvalidRequest"),
    (Outcome(Kind.REQUEST, "m", 413), "PayloadTooLarge"),
    (Outcome(Kind.REQUEST, "m", 422), "InvalidParameters"),
    (Outcome(Kind.BLOCKED, "m", 200), "ContentBlocked"),
    (Outcome(Kind.BLOCKED, "m", 200, detail=Detail.SAFETY), "SafetyViolation"),
    (Outcome(Kind.BLOCKED, "m", 200, detail=Detail.RECITATION), "RecitationError"),
    (Outcome(Kind.NETWORK, "m"), "NetworkError"),
    (Outcome(Kind.NETWORK, "m", detail=Detail.DNS), "DnsResolutionFailed"),
    (Outcome(Kind.NETWORK, "m", detail=Detail.CONNECT_TIMEOUT), "ConnectionTimeout"),
    (Outcome(Kind.TLS, "m"), "SslError"),
    (Outcome(Kind.SERVER, "m", 500), "InternalServerError"),
    (Outcome(Kind.SERVER, "m", 503), "ServiceUnavailable"),
    (Outcome(Kind.OVERLOAD, "m", 503), "ServiceUnavailable"),
    (Outcome(Kind.TIMEOUT, "m", 504), "GatewayTimeout"),
    (Outcome(Kind.TIMEOUT, "m"), "RequestTimeout"),
]


@pytest.mark.parametrize(("outcome", "word"), UPSTREAM, ids=lambda value: str(value)[:40])
def test_s3_04a_each_outcome_has_its_accepted_word(outcome: Outcome, word: str) -> None:
    assert type_of_outcome(outcome).value == word
    with pytest.raises(GeminiError) as caught, gemini_errors(NOW.timestamp):
        raise UpstreamError(outcome, request_id="r1", key_name="k1")
    error = caught.value
    assert (error.error_type.value, error.timestamp, error.request_id) == (word, NOW, "r1")
    assert error.is_retryable is error.retryable is error.error_type.retryable
    assert error.details["key_name"] == "k1"


def test_every_kind_of_outcome_has_a_word() -> None:
    unknown = [kind for kind in Kind if type_of_outcome(Outcome(kind)) is ErrorType.UNKNOWN]
    assert unknown == [Kind.SUCCESS, Kind.CANCELLED]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (quota_of(Kind.QUOTA_MINUTE), "RateLimitExceeded"),
        (quota_of(Kind.QUOTA_DAY), "QuotaExceeded"),
        (NoUsableKeyError("no"), "InvalidApiKey"),
        (ModelRetiredError("gone"), "ModelNotFound"),
        (InvalidCallError("bad"), "InvalidParameters"),
        (InvalidCallError("big", kind="too_large"), "PayloadTooLarge"),
        (DeadlineExceededError("late"), "RequestTimeout"),
        (DeadlineExceededError("in line", kind="busy"), "ServiceUnavailable"),
        (QueueFullError("full", retry_after=3), "ServiceUnavailable"),
        (StoreError("down"), "ServiceUnavailable"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_s3_04a_errors_of_the_engine_leave_in_the_accepted_words(
    error: HeadgateError, word: str
) -> None:
    with pytest.raises(GeminiError) as caught, gemini_errors(NOW.timestamp):
        raise error
    assert caught.value.error_type.value == word
    assert caught.value.__cause__ is error
    assert (caught.value.http_status, caught.value.kind) == (error.http_status, error.kind)
    if error.retry_after is not None:
        assert caught.value.retry_after == error.retry_after  # a hint beats the suggestion


def test_configuration_errors_and_our_own_pass_as_they_are() -> None:
    own = GeminiError(ErrorType.UNKNOWN, "x", timestamp=NOW)
    for error in (ConfigurationError("no"), own):
        with pytest.raises(type(error)) as caught, gemini_errors(NOW.timestamp):
            raise error
        assert caught.value is error


def test_s3_4_4_a_gemini_error_as_json_has_every_accepted_field() -> None:
    error = GeminiError(ErrorType.SERVICE_UNAVAILABLE, "down", timestamp=NOW, request_id="r")
    assert error.to_dict() == {
        "error_type": "ServiceUnavailable",
        "message": "down",
        "details": {},
        "timestamp": "2026-11-21T00:00:00.000000+00:00",
        "request_id": "r",
        "retry_after": 30.0,
        "is_retryable": True,
    }
    assert GeminiError(ErrorType.SSL_ERROR, "x", timestamp=NOW).retry_after is None


def test_a_typed_not_found_crosses_process_boundaries_whole() -> None:
    error = pickle.loads(pickle.dumps(ModelNotFoundError("m", ("n",), timestamp=NOW)))  # noqa: S301
    assert (error.near, error.error_type, error.http_status) == (("n",), ErrorType.MODEL_NOT_FOUND, 404)


# ── the door ────────────────────────────────────────────────────────────────────────────────────


def test_every_public_name_can_be_had() -> None:
    assert sorted(backend.__all__) == list(backend.__all__)
    assert all(getattr(backend, name) is not None for name in backend.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = backend.nonsense  # type: ignore[attr-defined]
