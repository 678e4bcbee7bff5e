"""The commands as functions: those of one backend for the process, built when the first is called.

It reads its keys and settings from environment and file. Whoever wants another configuration builds a
`GeminiBackend`, or changes this one with `update_gemini_backend_config`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING

from headgate.backend.settings import BackendConfig
from headgate.backend.structures import (
    BackendStatus,
    CacheStats,
    GeminiRequest,
    GeminiResponse,
    HealthStatus,
    ModelMetadata,
    ModelMetrics,
    ModelRecommendation,
    MonitoringMetrics,
    PerformanceAnalytics,
    StreamingChunk,
)

if TYPE_CHECKING:
    from headgate.backend.commands import GeminiBackend

__all__ = [
    "default_backend",
    "execute_gemini_code_enhanced",
    "execute_gemini_enhanced",
    "get_gemini_analytics",
    "get_gemini_backend_config",
    "get_gemini_backend_status",
    "get_gemini_cache_stats",
    "get_gemini_health_status",
    "get_gemini_model_info",
    "get_gemini_monitoring_metrics",
    "get_gemini_performance_metrics",
    "list_gemini_models",
    "process_gemini_request",
    "recommend_gemini_model",
    "update_gemini_backend_config",
    "validate_gemini_model",
]

_lock = Lock()
_backend: list[GeminiBackend] = []


def default_backend() -> GeminiBackend:
    """The backend of the functions here: the same for the whole process."""
    from headgate.backend.commands import GeminiBackend  # noqa: PLC0415 - it needs the whole engine

    with _lock:
        if not _backend:
            _backend.append(GeminiBackend())
        return _backend[0]


async def execute_gemini_enhanced(
    request: GeminiRequest, *, api_key: str | None = None
) -> GeminiResponse | AsyncGenerator[StreamingChunk]:
    """See `GeminiBackend.execute_gemini_enhanced`."""
    return await default_backend().execute_gemini_enhanced(request, api_key=api_key)


async def process_gemini_request(
    prompt: str,
    model: str,
    session_id: str | None = None,
    stream: bool = False,
    api_key: str | None = None,
) -> GeminiResponse | AsyncGenerator[StreamingChunk]:
    """See `GeminiBackend.process_gemini_request`."""
    return await default_backend().process_gemini_request(prompt, model, session_id, stream, api_key)


async def execute_gemini_code_enhanced(  # noqa: PLR0917 - the accepted order
    prompt: str,
    model: str,
    project_path: str,
    temperature: float | None = None,
    max_output_tokens: int | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_sequences: Sequence[str] | None = None,
    system_instruction: str | None = None,
) -> GeminiResponse:
    """See `GeminiBackend.execute_gemini_code_enhanced`."""
    return await default_backend().execute_gemini_code_enhanced(
        prompt, model, project_path, temperature, max_output_tokens, top_k, top_p,
        stop_sequences, system_instruction,
    )  # fmt: skip


async def get_gemini_model_info(model_id: str) -> ModelMetadata:
    """See `GeminiBackend.get_gemini_model_info`."""
    return await default_backend().get_gemini_model_info(model_id)


async def list_gemini_models() -> list[ModelMetadata]:
    """See `GeminiBackend.list_gemini_models`."""
    return await default_backend().list_gemini_models()


async def recommend_gemini_model(
    use_case: str,
    *,
    budget: float | None = None,
    input_tokens: int = 1000,
    output_tokens: int = 500,
    needs: Sequence[str] = (),
    max_latency_ms: float | None = None,
) -> list[ModelRecommendation]:
    """See `GeminiBackend.recommend_gemini_model`."""
    return await default_backend().recommend_gemini_model(
        use_case,
        budget=budget,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        needs=needs,
        max_latency_ms=max_latency_ms,
    )


async def validate_gemini_model(
    model_id: str, api_key: str | None = None, *, probe: bool = False
) -> bool:
    """See `GeminiBackend.validate_gemini_model`."""
    return await default_backend().validate_gemini_model(model_id, api_key, probe=probe)


async def get_gemini_performance_metrics() -> dict[str, ModelMetrics]:
    """See `GeminiBackend.get_gemini_performance_metrics`."""
    return await default_backend().get_gemini_performance_metrics()


async def get_gemini_cache_stats() -> CacheStats:
    """See `GeminiBackend.get_gemini_cache_stats`."""
    return await default_backend().get_gemini_cache_stats()


async def get_gemini_monitoring_metrics(
    model: str | None = None, limit: int | None = None
) -> MonitoringMetrics:
    """See `GeminiBackend.get_gemini_monitoring_metrics`."""
    return await default_backend().get_gemini_monitoring_metrics(model, limit)


async def get_gemini_analytics(
    model: str, start: str | datetime, end: str | datetime
) -> PerformanceAnalytics:
    """See `GeminiBackend.get_gemini_analytics`."""
    return await default_backend().get_gemini_analytics(model, start, end)


async def get_gemini_health_status(model: str, api_key: str | None = None) -> HealthStatus:
    """See `GeminiBackend.get_gemini_health_status`."""
    return await default_backend().get_gemini_health_status(model, api_key)


async def get_gemini_backend_status() -> BackendStatus:
    """See `GeminiBackend.get_gemini_backend_status`."""
    return await default_backend().get_gemini_backend_status()


async def get_gemini_backend_config() -> BackendConfig:
    """See `GeminiBackend.get_gemini_backend_config`."""
    return await default_backend().get_gemini_backend_config()


async def update_gemini_backend_config(config: BackendConfig | Mapping[str, object]) -> None:
    """See `GeminiBackend.update_gemini_backend_config`."""
    await default_backend().update_gemini_backend_config(config)
