"""The backend door: models, requests, sessions and run-time configuration behind one object.

    backend = GeminiBackend(BackendConfig(max_concurrent_requests=10))
    reply = await backend.execute_gemini_enhanced(GeminiRequest(prompt="…", model="…"))

The reference is docs/reference/backend.md. Names are imported when they are first used: asking about
models need not wait for the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.backend.commands import (
        GeminiBackend,
    )
    from headgate.backend.configuration import (
        ConfigChange,
    )
    from headgate.backend.default import (
        default_backend,
        execute_gemini_code_enhanced,
        execute_gemini_enhanced,
        get_gemini_backend_config,
        get_gemini_model_info,
        list_gemini_models,
        process_gemini_request,
        recommend_gemini_model,
        update_gemini_backend_config,
        validate_gemini_model,
    )
    from headgate.backend.registry import (
        ModelSources,
    )
    from headgate.backend.structures import (
        AnyFallback,
        BackendConfig,
        BackendStatus,
        CacheStats,
        CircuitBreakerConfig,
        CircuitState,
        ContextOverflow,
        ConversationContext,
        ConversationMessage,
        CostAnalysis,
        DefaultResponse,
        ErrorType,
        FailFast,
        FallbackStrategy,
        FunctionCall,
        FunctionResult,
        GeminiError,
        GeminiRequest,
        GeminiResponse,
        HealthState,
        HealthStatus,
        LatencyDistribution,
        LoggingConfig,
        ModelCapabilities,
        ModelEntry,
        ModelMetadata,
        ModelMetrics,
        ModelNotFoundError,
        ModelPerformance,
        ModelPricing,
        ModelRecommendation,
        MonitoringMetrics,
        PartialResponse,
        PerformanceAnalytics,
        PreprocessConfig,
        Priority,
        Provenance,
        RealtimeMetrics,
        RequestMetrics,
        RequestStatus,
        RetryConfig,
        SafetyRating,
        StreamingChunk,
        SwitchModel,
        ThroughputMetrics,
        TimeRange,
        TokenUsage,
        UsageMetrics,
        UsagePeriodName,
        UsagePeriods,
        UseCachedResponse,
        ValidationStatus,
    )

_ROOMS = {
    "configuration": ("ConfigChange",),
    "default": (
        "default_backend",
        "execute_gemini_code_enhanced",
        "execute_gemini_enhanced",
        "get_gemini_backend_config",
        "get_gemini_model_info",
        "list_gemini_models",
        "process_gemini_request",
        "recommend_gemini_model",
        "update_gemini_backend_config",
        "validate_gemini_model",
    ),
    "registry": ("ModelSources",),
    "commands": ("GeminiBackend",),
    "structures": (
        "AnyFallback",
        "BackendConfig",
        "BackendStatus",
        "CacheStats",
        "CircuitBreakerConfig",
        "CircuitState",
        "ContextOverflow",
        "ConversationContext",
        "ConversationMessage",
        "CostAnalysis",
        "DefaultResponse",
        "ErrorType",
        "FailFast",
        "FallbackStrategy",
        "FunctionCall",
        "FunctionResult",
        "GeminiError",
        "GeminiRequest",
        "GeminiResponse",
        "HealthState",
        "HealthStatus",
        "LatencyDistribution",
        "LoggingConfig",
        "ModelCapabilities",
        "ModelEntry",
        "ModelMetadata",
        "ModelMetrics",
        "ModelNotFoundError",
        "ModelPerformance",
        "ModelPricing",
        "ModelRecommendation",
        "MonitoringMetrics",
        "PartialResponse",
        "PerformanceAnalytics",
        "PreprocessConfig",
        "Priority",
        "Provenance",
        "RealtimeMetrics",
        "RequestMetrics",
        "RequestStatus",
        "RetryConfig",
        "SafetyRating",
        "StreamingChunk",
        "SwitchModel",
        "ThroughputMetrics",
        "TimeRange",
        "TokenUsage",
        "UsageMetrics",
        "UsagePeriodName",
        "UsagePeriods",
        "UseCachedResponse",
        "ValidationStatus",
    ),
}
"""The public names, by the room they live in."""

_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "AnyFallback",
    "BackendConfig",
    "BackendStatus",
    "CacheStats",
    "CircuitBreakerConfig",
    "CircuitState",
    "ConfigChange",
    "ContextOverflow",
    "ConversationContext",
    "ConversationMessage",
    "CostAnalysis",
    "DefaultResponse",
    "ErrorType",
    "FailFast",
    "FallbackStrategy",
    "FunctionCall",
    "FunctionResult",
    "GeminiBackend",
    "GeminiError",
    "GeminiRequest",
    "GeminiResponse",
    "HealthState",
    "HealthStatus",
    "LatencyDistribution",
    "LoggingConfig",
    "ModelCapabilities",
    "ModelEntry",
    "ModelMetadata",
    "ModelMetrics",
    "ModelNotFoundError",
    "ModelPerformance",
    "ModelPricing",
    "ModelRecommendation",
    "ModelSources",
    "MonitoringMetrics",
    "PartialResponse",
    "PerformanceAnalytics",
    "PreprocessConfig",
    "Priority",
    "Provenance",
    "RealtimeMetrics",
    "RequestMetrics",
    "RequestStatus",
    "RetryConfig",
    "SafetyRating",
    "StreamingChunk",
    "SwitchModel",
    "ThroughputMetrics",
    "TimeRange",
    "TokenUsage",
    "UsageMetrics",
    "UsagePeriodName",
    "UsagePeriods",
    "UseCachedResponse",
    "ValidationStatus",
    "default_backend",
    "execute_gemini_code_enhanced",
    "execute_gemini_enhanced",
    "get_gemini_backend_config",
    "get_gemini_model_info",
    "list_gemini_models",
    "process_gemini_request",
    "recommend_gemini_model",
    "update_gemini_backend_config",
    "validate_gemini_model",
]


def __getattr__(name: str) -> object:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
