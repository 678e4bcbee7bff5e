"""The endpoints of the backend, as data: what `desk_gemini.py` does, with examples."""

from __future__ import annotations

from headgate.backend.accounts import ErrorReport, UsageForecast
from headgate.backend.configuration import ConfigChange
from headgate.backend.measures import (
    BackendStatus,
    CacheStats,
    HealthStatus,
    ModelMetrics,
    MonitoringMetrics,
    PerformanceAnalytics,
)
from headgate.backend.registry import ModelSources
from headgate.backend.settings import BackendConfig
from headgate.backend.structures import (
    ConversationContext,
    GeminiRequest,
    GeminiResponse,
)
from headgate.core.model_card import ModelMetadata
from headgate.gateway.manage import desk_gemini as desk
from headgate.gateway.manage.pages import Page, Paged
from headgate.gateway.manage.table import Endpoint, NoQuery, endpoint

__all__ = ["ENDPOINTS"]

_NONE = type(None)
_TAG = "gemini"
_CALLS = ("call-failed", "configuration", "store")
_MODEL = "gemini-3.8-flash"
_AT = "2026-11-21T08:00:00.000000+00:00"
_STREAMS = (
    " With `stream` the answer is server-sent events: `gemini-stream` for each piece, then one "
    "`gemini-response` with the whole."
)
_ANSWER = {
    "text": "A headgate lets water into a canal.", "model": _MODEL, "finish_reason": "STOP",
    "usage": {"prompt_tokens": 8, "completion_tokens": 9, "total_tokens": 17, "cached_tokens": 0,
              "reasoning_tokens": 0, "estimated": False},
    "cost_estimate": 0.000027, "request_id": "5f0c1d9a2b3e4f60", "cached": False,
    "from_fallback": False, "redactions": {}, "safety_ratings": [], "truncated": False,
    "age_seconds": None, "injection_score": 0.0, "parsed": None, "function_calls": [], "media": [],
    "session_id": None, "cwd": None, "warnings": [],
}  # fmt: skip
_HEALTH = {
    "model": _MODEL, "status": "healthy", "circuit_state": "closed", "recent_errors": 0,
    "success_rate": 100.0, "avg_latency_ms": 640.0, "last_check": _AT,
}  # fmt: skip
_REALTIME = {
    "timestamp": _AT, "active_requests": 1, "requests_per_second": 0.4, "tokens_per_second": 96.0,
    "error_rate": 0.0, "avg_latency_ms": 640.0, "queue_depth": 0,
    "circuit_breaker_status": {_MODEL: "closed"},
}  # fmt: skip
_PERFORMANCE = {
    _MODEL: {
        "total_requests": 12, "successful_requests": 12, "failed_requests": 0,
        "total_latency_ms": 7680.0, "min_latency_ms": 410.0, "max_latency_ms": 980.0,
        "total_input_tokens": 960, "total_output_tokens": 411, "cache_hits": 1, "cache_misses": 11,
    }
}  # fmt: skip
_CACHE = {
    "entries": 11, "size_bytes": 20480, "max_size_bytes": 104857600, "total_hits": 1,
    "expired_entries": 0, "hit_rate": 8.33,
}  # fmt: skip
_REQUEST = {
    "request_id": "5f0c1d9a2b3e4f60", "model": _MODEL, "timestamp": _AT, "duration_ms": 640.0,
    "input_tokens": 8, "output_tokens": 9, "total_tokens": 17, "cost_estimate": 0.000027,
    "status": "Success", "error": None, "cache_hit": False, "retry_count": 0,
}  # fmt: skip
_POINT = {"start": _AT, "expected": 0.12, "low": 0.08, "high": 0.17}

_ASKING = (
    endpoint("POST", "/gemini/execute", desk.ask_model, query=NoQuery, body=GeminiRequest,
             answer=GeminiResponse, tag=_TAG, summary="Ask a model (S3-08)", may_stream=True,
             description="With everything the backend does: preparation, cache, fallbacks, sessions. "
             "Bytes are base64." + _STREAMS, problems=_CALLS,
             body_example={"prompt": "What is a headgate?", "model": _MODEL}, answer_example=_ANSWER),
    endpoint("POST", "/gemini/process", desk.process, query=NoQuery, body=desk.Process,
             answer=GeminiResponse, tag=_TAG, may_stream=True, problems=_CALLS,
             summary="Ask a model with the accepted settings (S3-09)",
             description="Temperature 0.7, 8192 output tokens, top_k 10, top_p 0.95, as far as the "
             "model takes them." + _STREAMS,
             body_example={"prompt": "What is a headgate?", "model": _MODEL}, answer_example=_ANSWER),
    endpoint("POST", "/gemini/code", desk.ask_code, query=NoQuery, body=desk.Code,
             answer=GeminiResponse, tag=_TAG, summary="Ask about a project (S3-10)", problems=_CALLS,
             description="The path is reported as `cwd`; no file in it is read or run. It must lie "
             "below one of the folders in HEADGATE_GATEWAY_PROJECT_ROOTS.",
             body_example={"prompt": "Where would a cache go?", "model": _MODEL,
                           "project_path": "/srv/projects/canal"},
             answer_example={**_ANSWER, "cwd": "/srv/projects/canal"}),
)  # fmt: skip

_MODELS = (
    endpoint("GET", "/gemini/models", desk.list_models, query=Paged, body=_NONE,
             answer=Page[ModelMetadata], tag=_TAG, summary="Every model once, the newest first (S3-12)",
             answer_example={"items": [{"id": _MODEL, "name": "Gemini 3.8 Flash"}], "next": None}),
    endpoint("GET", "/gemini/models/{model_id}", desk.show_model, query=NoQuery, body=_NONE,
             answer=ModelMetadata, tag=_TAG, summary="The card of a model or alias (S3-11)",
             path_examples={"model_id": _MODEL}, answer_example={"id": _MODEL}),
    endpoint("POST", "/gemini/models/{model_id}/validate", desk.validate_model, query=NoQuery,
             body=desk.Validate, answer=desk.Valid, tag=_TAG, problems=_CALLS,
             summary="Whether the upstream has a model for these keys (S3-14)",
             description="Asks for its card, which costs no generation.",
             path_examples={"model_id": _MODEL}, body_example={"probe": False},
             answer_example={"model": _MODEL, "valid": True}),
    endpoint("POST", "/gemini/models/refresh", desk.refresh_models, query=NoQuery, body=_NONE,
             answer=ModelSources, tag=_TAG, summary="Read the upstream's list of models now",
             problems=_CALLS,
             answer_example={"shipped": "2026-11-21", "prices_as_of": "2026-11-21",
                             "prices_from": "shipped", "discovered_at": _AT, "discovered": 41}),
    endpoint("GET", "/gemini/sessions/{session_id}", desk.show_session, query=desk.OfCaller,
             body=_NONE, answer=ConversationContext, tag=_TAG,
             summary="A conversation as it is remembered",
             path_examples={"session_id": "support-17"},
             answer_example={"session_id": "support-17", "messages": [], "system_instruction": None,
                             "total_tokens": 0, "created_at": _AT, "last_updated": _AT}),
    endpoint("DELETE", "/gemini/sessions/{session_id}", desk.forget_session, query=desk.OfCaller,
             body=_NONE, answer=desk.Forgotten, tag=_TAG, summary="Forget a conversation",
             path_examples={"session_id": "support-17"}, answer_example={"forgotten": True}),
    endpoint("GET", "/gemini/recommendations", desk.recommend, query=desk.UseCase, body=_NONE,
             answer=desk.Recommendations, tag=_TAG, summary="Models for a use case (S3-13)",
             query_example={"use_case": "summarise reports", "budget": 0.01},
             answer_example={"models": [{"metadata": {"id": _MODEL}, "score": 0.81,
                                         "reasons": ["for summarization"], "cost_per_call": 0.0016}]}),
)  # fmt: skip

_MONITORING = (
    endpoint("GET", "/gemini/performance", desk.show_performance, query=NoQuery, body=_NONE,
             answer=dict[str, ModelMetrics], tag=_TAG, summary="Each model that was asked (S3-15)",
             description="Since this process began to count: with an admin key from its start, without "
             "one from the first request to this API. What the gateway's callers asked of Gemini is in "
             "it, as in all figures below.", answer_example=_PERFORMANCE),
    endpoint("GET", "/gemini/cache", desk.show_reply_cache, query=NoQuery, body=_NONE,
             answer=CacheStats, tag=_TAG, summary="What the backend remembers (S3-16)",
             answer_example=_CACHE),
    endpoint("GET", "/gemini/metrics", desk.show_metrics, query=desk.Metrics, body=_NONE,
             answer=MonitoringMetrics, tag=_TAG, problems=("store",),
             summary="The last requests and the last minute; of a model its usage (S3-17)",
             query_example={"limit": 1},
             answer_example={"request_history": [_REQUEST], "realtime_metrics": _REALTIME,
                             "usage_metrics": None}),
    endpoint("GET", "/gemini/analytics", desk.show_analytics, query=desk.Range, body=_NONE,
             answer=PerformanceAnalytics, tag=_TAG, problems=("store",),
             summary="A model over a range of time (S3-18)",
             query_example={"model": _MODEL, "start": "2026-11-20T00:00:00Z",
                            "end": "2026-11-21T00:00:00Z"},
             answer_example={"model": _MODEL, "time_range": {"start": _AT, "end": _AT}}),
    endpoint("GET", "/gemini/health/{model}", desk.show_health, query=NoQuery, body=_NONE,
             answer=HealthStatus, tag=_TAG, summary="How a model is doing (S3-19)", problems=_CALLS,
             description="Asks for the model's card once in `health_check_interval_secs`.",
             path_examples={"model": _MODEL}, answer_example=_HEALTH),
    endpoint("GET", "/gemini/status", desk.show_backend_status, query=NoQuery, body=_NONE,
             answer=BackendStatus, tag=_TAG, summary="Everything at a glance (S3-22)",
             answer_example={"realtime_metrics": _REALTIME, "cache_stats": _CACHE,
                             "performance_metrics": _PERFORMANCE, "health_statuses": {_MODEL: _HEALTH},
                             "config": {}}),
    endpoint("GET", "/gemini/errors", desk.list_errors, query=desk.Last, body=_NONE,
             answer=list[ErrorReport], tag=_TAG, summary="The last failures, the newest first",
             answer_example=[{"timestamp": _AT, "error_type": "RateLimitExceeded", "model": _MODEL,
                              "key_name": "primary", "request_id": "5f0c1d9a2b3e4f60", "status": 429,
                              "message": "You exceeded your current quota."}]),
    endpoint("GET", "/gemini/forecast", desk.forecast, query=desk.Hours, body=_NONE,
             answer=UsageForecast, tag=_TAG, summary="What the coming hours will probably bring",
             problems=("conflict", "store"), query_example={"of": "cost", "hours": 1},
             answer_example={"of": "cost", "model": None, "hours_used": 72, "change_per_day": 0.01,
                             "change_error": 0.02, "trend": "steady", "seasonal": True,
                             "total": _POINT, "hours": [_POINT]}),
)  # fmt: skip

_CONFIGURATION = (
    endpoint("GET", "/gemini/config", desk.show_config, query=NoQuery, body=_NONE,
             answer=BackendConfig, tag=_TAG, summary="What new requests to the backend meet (S3-20)",
             description="Passwords in places are masked.", answer_example={"batch_size": 5}),
    endpoint("PUT", "/gemini/config", desk.put_config, query=NoQuery, body=BackendConfig,
             answer=BackendConfig, tag=_TAG, summary="Let a whole configuration take over (S3-21)",
             description="What is left out has its default; requests under way keep the one they began "
             "with. A place that is masked as GET shows it means the one there is.",
             problems=("configuration",),
             body_example={"max_concurrent_requests": 20, "cache_ttl_seconds": 600.0},
             answer_example={"max_concurrent_requests": 20, "cache_ttl_seconds": 600.0}),
    endpoint("GET", "/gemini/config/history", desk.show_config_history, query=NoQuery, body=_NONE,
             answer=list[ConfigChange], tag=_TAG, summary="The last hundred changes, the newest first",
             answer_example=[{"number": 1, "at": _AT, "changed": ["cache_ttl_seconds"],
                              "config": {"cache_ttl_seconds": 600.0}}]),
)  # fmt: skip

ENDPOINTS: tuple[Endpoint, ...] = (*_ASKING, *_MODELS, *_MONITORING, *_CONFIGURATION)
