"""The families that S4 names, and those that reach its "30+ metrics in 6 categories" (S4-22 … S4-28).

All names stay as they are accepted; help, labels and types are corrected, and each has a twin or a rule
that says it properly.
"""

from __future__ import annotations

from headgate.telemetry.metrics import labels as say
from headgate.telemetry.metrics.family import Category, Family, Feeder, Label, Merge, Shape

__all__ = ["CONTENT", "ENDPOINTS", "FUNCTIONS", "ISSUES", "LEDGER", "UNMATCHED", "VALIDATORS"]

UNMATCHED = "_unmatched"
"""The endpoint of a request that no route takes."""

ENDPOINTS = (
    "create_subtopics", "create_presentation", "image2topic", "generate_image",
    "quota_stats", "health", "ready", "metrics", "result", "page", "prompts", "stats", "docs",
    "openapi", "cache_invalidate", "cache_clear", "cache_stats", "breaker_state", "breaker_reset",
    "admin_metrics",
    UNMATCHED,
)  # fmt: skip
"""Names of the content service's handlers."""

FUNCTIONS = (
    "create_subtopics", "create_presentation", "image2topic", "generate_image",
    "generate_single_explanation_google_ai", "other",
)  # fmt: skip
"""What calls Gemini."""

VALIDATORS = ("subtopic", "explanation", "topic", "image", "request", "other")
ISSUES = (
    "empty", "missing", "malformed", "too_few", "too_short", "too_long", "one_sentence", "duplicate",
    "generic", "refusal", "off_topic", "wrong_type", "too_large", "control_characters", "low_quality",
    "other",
)  # fmt: skip
"""What a validator finds wrong; never a sentence."""

_METHOD = Label(
    "method",
    values=("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "_OTHER"),
    other="_OTHER",
)
_ENDPOINT = Label("endpoint", most=100, other=UNMATCHED)
_STATUS = Label("status", values=(*say.CODE.values,))
_REQUEST_METHOD = Label("http_request_method", values=_METHOD.values, other=_METHOD.other)
_ROUTE = Label("http_route", most=_ENDPOINT.most, other=UNMATCHED)
_RESPONSE_STATUS = Label("http_response_status_code", values=_STATUS.values)
_FUNCTION = Label("endpoint", values=FUNCTIONS)
_QUERY = Label("query_type", values=("write", "read", "sum", "forget", "other"))

_LATENCY = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_OF_CONVENTION = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""What OpenTelemetry advises for `http.server.request.duration` (semantic conventions 1.44, stable)."""

_GEMINI = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_QUALITY = tuple(step / 10 for step in range(11))
_QUERIES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)

_LIMITS = (("rpm",), ("rpd",), ("tpm",), ("tpd",))
_LOOKED = (("get", "hit"), ("get", "miss"), ("get", "failure"))
_CHANGED = tuple((op, result) for op in ("set", "delete") for result in ("success", "failure"))
_LAYER = Label("layer", values=("memory", "redis"))
_SERVICE = Label("service", most=50)

Counter, Gauge, Histogram = Shape.COUNTER, Shape.GAUGE, Shape.HISTOGRAM
Http, Quota, Cache = Category.HTTP, Category.QUOTA, Category.CACHE
Gemini, Content, Errors = Category.GEMINI, Category.CONTENT, Category.ERRORS
Feed = Feeder.CONTENT

_USED = 'headgate_quota_used{limit="%s"}'
_MOST = "The most that any domain and model has used"

CONTENT: tuple[Family, ...] = (
    # ── HTTP (S4-22); the gateway feeds these too ───────────────────────────────────────────────
    Family(
        "http_requests_total", Counter, "Requests that were answered.",
        Http, Feed, (_METHOD, _ENDPOINT, _STATUS), twin="http_server_request_duration_seconds_count",
        note="`endpoint` is a handler or a route template, never a path.",
    ),
    Family(
        "http_request_duration_seconds", Histogram, "Seconds until an answer was sent whole.",
        Http, Feed, (_METHOD, _ENDPOINT), "seconds", _LATENCY,
        twin="http_server_request_duration_seconds",
    ),
    Family(
        "http_server_request_duration_seconds", Histogram, "Seconds until an answer was sent whole.",
        Http, Feed, (_REQUEST_METHOD, _ROUTE, _RESPONSE_STATUS), "seconds", _OF_CONVENTION,
        note="As OpenTelemetry's HTTP conventions have it. 499: the client went away. Where "
        "`TelemetryMiddleware` counts into the same registry, its own family stands instead.",
    ),
    Family(
        "http_requests_in_progress", Gauge, "Requests that are being answered.",
        Http, Feed, (_METHOD, _ENDPOINT),
    ),
    # ── quota (S4-23, S4-28) ────────────────────────────────────────────────────────────────────
    Family(
        "quota_requests_current_minute", Gauge, f"{_MOST} of its requests per minute, now.",
        Quota, Feed, merge=Merge.MAX, twin=_USED % "rpm",
    ),
    Family(
        "quota_requests_today", Gauge,
        f"{_MOST} of its requests per day; days end at midnight in Los Angeles.",
        Quota, Feed, merge=Merge.MAX, twin=_USED % "rpd",
    ),
    Family(
        "quota_tokens_current_minute", Gauge, f"{_MOST} of its tokens per minute, now.",
        Quota, Feed, merge=Merge.MAX, twin=_USED % "tpm",
    ),
    Family(
        "quota_tokens_today", Gauge,
        f"{_MOST} of its tokens per day; days end at midnight in Los Angeles.",
        Quota, Feed, merge=Merge.MAX, twin=_USED % "tpd",
    ),
    Family(
        "quota_rpm_remaining", Gauge,
        "Requests left in this minute, of the domain and model with the fewest left.",
        Quota, Feed, merge=Merge.MIN, twin="headgate_quota:remaining",
        note="Against the effective limit: 12 of a quota of 15 with the safety margin of 0.8.",
    ),
    Family(
        "quota_tpm_remaining", Gauge,
        "Tokens left in this minute, of the domain and model with the fewest left.",
        Quota, Feed, merge=Merge.MIN, twin="headgate_quota:remaining",
    ),
    Family(
        "quota_rpm_limit", Gauge, "The smallest effective limit of requests per minute.",
        Quota, Feed, merge=Merge.MIN, twin='headgate_quota_limit{limit="rpm"}',
    ),
    Family(
        "quota_tpm_limit", Gauge, "The smallest effective limit of tokens per minute.",
        Quota, Feed, merge=Merge.MIN, twin='headgate_quota_limit{limit="tpm"}',
    ),
    Family(
        "quota_exceeded_total", Counter, "Requests that were refused for a quota, by its kind.",
        Quota, Feed, (Label("limit_type", values=("rpm", "rpd", "tpm", "tpd")),), known=_LIMITS,
    ),
    # ── cache (S4-24, S4-28) ────────────────────────────────────────────────────────────────────
    Family(
        "cache_operations_total", Counter, "Operations of the layered cache.",
        Cache, Feed,
        (
            Label("operation", values=("get", "set", "delete")),
            Label("result", values=("hit", "miss", "success", "failure")),
        ),
        known=_LOOKED + _CHANGED, twin="headgate_cache_requests_total",
        note="Of `get`: hit, miss, failure; of `set` and `delete`: success, failure.",
    ),
    Family(
        "cache_hit_rate", Gauge,
        "Percent of look-ups that found something, since this process began; deprecated.",
        Cache, Feed, unit="percent", merge=Merge.MIN, twin="cache:hits_per_requests:ratio_rate5m",
        note="A percentage of a whole life cannot be added up: the rule can.",
    ),
    Family(
        "cache_items_count", Gauge, "Entries of a layer.", Cache, Feed, (_LAYER,), merge=Merge.MAX,
        twin="headgate_cache_items",
        note="`_count` belongs to histograms; the name stays as it was accepted. A process cannot "
        "count what a CDN keeps.",
    ),
    Family(
        "cache_size_bytes", Gauge, "Bytes of a layer.", Cache, Feed, (_LAYER,), "bytes",
        merge=Merge.MAX, twin="headgate_cache_bytes",
    ),
    # ── Gemini API (S4-25) ──────────────────────────────────────────────────────────────────────
    Family(
        "gemini_api_calls_total", Counter, "Calls of Gemini by what came of them.",
        Gemini, Feed,
        (_FUNCTION, say.MODEL, Label("status", values=("success", "failure", "quota_exceeded"))),
        twin='headgate_calls_total{provider="gemini"}', note="`model` is the one that answered.",
    ),
    Family(
        "gemini_api_duration_seconds", Histogram, "Seconds of a call of Gemini, all tries included.",
        Gemini, Feed, (_FUNCTION, say.MODEL), "seconds", _GEMINI,
        twin='headgate_upstream_duration_seconds{provider="gemini"}',
    ),
    Family(
        "gemini_api_tokens_total", Counter, "Billable tokens of calls of Gemini, in and out.",
        Gemini, Feed, (_FUNCTION, say.MODEL), twin='headgate_tokens_total{provider="gemini"}',
    ),
    # ── content (S4-26) ─────────────────────────────────────────────────────────────────────────
    Family("subtopics_generated_total", Counter, "Subtopics that were made.", Content, Feed),
    Family("explanations_generated_total", Counter, "Explanations that were made.", Content, Feed),
    Family(
        "images_generated_total", Counter, "Images that were made, or taken in, by their source.",
        Content, Feed, (Label("source", values=("gemini", "dalle", "imagen", "upload")),),
        known=(("gemini",), ("dalle",), ("imagen",), ("upload",)),
        note="`dalle` and `imagen` are accepted words; nothing here makes images with them.",
    ),
    Family(
        "content_quality_score", Histogram, "Quality of what was made, from 0 to 1.",
        Content, Feed, (Label("content_type", values=("subtopic", "explanation", "topic")),),
        "ratio", _QUALITY, known=(("subtopic",), ("explanation",), ("topic",)),
    ),
    # ── errors (S4-27) ──────────────────────────────────────────────────────────────────────────
    Family(
        "application_errors_total", Counter, "Requests that failed, by the kind of error.",
        Errors, Feed, (_ENDPOINT, say.ERROR_KIND),
    ),
    Family(
        "validation_failures_total", Counter, "What validators found wrong.",
        Errors, Feed, (Label("validator", values=VALIDATORS), Label("issue_type", values=ISSUES)),
    ),
    # ── system (S4-28) ──────────────────────────────────────────────────────────────────────────
    Family(
        "circuit_breaker_state", Gauge, "0 closed, 1 open, 2 half-open.",
        Category.PROTECTION, Feed, (_SERVICE,), merge=Merge.MAX, twin="headgate_breaker_state",
        note="`service` is the model that the breaker stands before.",
    ),
    Family(
        "circuit_breaker_failures_total", Counter, "Attempts that a breaker counted as failures.",
        Category.PROTECTION, Feed, (_SERVICE,), twin="headgate_attempts_total",
    ),
    Family(
        "circuit_breaker_successes_total", Counter, "Attempts that a breaker saw succeed.",
        Category.PROTECTION, Feed, (_SERVICE,), twin="headgate_attempts_total",
    ),
    Family(
        "app_info", Shape.INFO, "The version that runs.", Category.PROCESS, Feed,
        (Label("version", most=1),), twin="headgate_build_info",
    ),
)  # fmt: skip

LEDGER: tuple[Family, ...] = (
    Family(
        "db_pool_size", Gauge, "Connections that the usage ledger may have open.",
        Category.STORE, Feeder.LEDGER, merge=Merge.SUM,
    ),
    Family(
        "db_connections_in_use", Gauge, "Connections that the usage ledger uses now.",
        Category.STORE, Feeder.LEDGER,
    ),
    Family(
        "db_pool_overflow", Gauge, "Connections of the usage ledger beyond its pool.",
        Category.STORE, Feeder.LEDGER, note="0: it opens none beyond.",
    ),
    Family(
        "db_query_duration_seconds", Histogram, "Seconds of an operation on the usage ledger.",
        Category.STORE, Feeder.LEDGER, (_QUERY,), "seconds", _QUERIES,
        known=(("write",), ("read",), ("sum",), ("forget",)),
    ),
    Family(
        "db_errors_total", Counter, "Operations on the usage ledger that failed.",
        Category.STORE, Feeder.LEDGER,
        (Label("error_type", values=("store", "configuration", "other")),),
        known=(("store",),),
    ),
)  # fmt: skip
