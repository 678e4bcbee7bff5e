"""JSON schemas of bodies, for OpenAPI. `fields.py` checks what is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.content.fields import (
    LANGUAGES,
    LONGEST_LEVEL,
    LONGEST_PROMPT,
    LONGEST_TOPIC,
    MOST_SUBTOPICS,
)

__all__ = [
    "BREAKER", "CACHE_STATS", "ERROR", "EXPLANATIONS", "HEALTH", "IMAGE", "IMAGE_PROMPT", "IMAGE_TOPIC",
    "IMAGE_UPLOAD", "INVALIDATION", "PRESENTATION", "PROMPTS", "QUOTA_REFUSAL", "QUOTA_STATS", "READY",
    "REMOVED", "STATS", "SUBTOPICS", "TOPIC",
]  # fmt: skip

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_WARNINGS: Schema = {"type": ["array", "null"], "items": _TEXT}
_SCORE: Schema = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_ANY: Schema = {"type": "object"}


def _bounded(longest: int) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": longest}


def _object(fields: Mapping[str, Schema], required: tuple[str, ...] | None = None) -> Schema:
    needed = list(fields) if required is None else list(required)
    return {"type": "object", "properties": dict(fields), "required": needed}


_STANDING_IN: Mapping[str, Schema] = {
    "cached": {"type": "boolean", "description": "an earlier result stands in"},
    "from_fallback": {"type": "boolean"},
}

TOPIC = _object({"topic": _bounded(LONGEST_TOPIC)})
SUBTOPICS = _object(
    {
        "subtopics": {"type": "array", "items": _TEXT},
        "count": _COUNT,
        "quality_score": _SCORE,
        "warnings": _WARNINGS,
        "metadata": _object({"cache_hit": {"type": "boolean"}, "cached": {"type": "boolean"}}),
        **_STANDING_IN,
    },
    ("subtopics", "count", "quality_score", "warnings", "metadata"),
)

PRESENTATION = _object(
    {
        "topic": _bounded(LONGEST_TOPIC),
        "educationLevel": _bounded(LONGEST_LEVEL),
        "levelOfDetail": _bounded(LONGEST_LEVEL),
        "focus": {
            "type": "array",
            "items": _bounded(LONGEST_TOPIC),
            "minItems": 1,
            "maxItems": MOST_SUBTOPICS,
        },
        "learningStyle": _bounded(LONGEST_LEVEL),
        "language": {"type": "string", "enum": list(LANGUAGES)},
    },
    ("topic", "focus"),
)
_ITEM = _object(
    {
        "subtopic": _TEXT,
        "explanation": {"type": ["string", "null"]},
        "real_world_application": {"type": ["string", "null"]},
        "youtube_search_query": {"type": ["string", "null"]},
        "error": {"type": ["string", "null"]},
        "quality_score": _SCORE,
        "warnings": _WARNINGS,
    }
)
EXPLANATIONS = _object(
    {
        "explanations": {"type": "array", "items": _ITEM},
        "success_count": _COUNT,
        "failed_count": _COUNT,
    }
)

IMAGE_UPLOAD = _object({"image": {"type": "string", "format": "binary"}})
IMAGE_TOPIC = _object(
    {"generated_topic": _TEXT, "quality_score": _SCORE, "warnings": _WARNINGS, **_STANDING_IN},
    ("generated_topic", "quality_score", "warnings"),
)

IMAGE_PROMPT = _object({"prompt": _bounded(LONGEST_PROMPT)})
IMAGE = _object(
    {
        "image": {"type": "string", "contentEncoding": "base64"},
        "format": {"const": "base64_png"},
        **_STANDING_IN,
    },
    ("image", "format"),
)

_WINDOW = _object(
    {
        "current": {"type": ["integer", "null"]},
        "limit": _COUNT,
        "effective_limit": _COUNT,
        "nominal_limit": _COUNT,
        "percentage": {"type": ["number", "null"]},
    }
)
_USED = _object({"requests": {"type": ["integer", "null"]}, "tokens": {"type": ["integer", "null"]}})
_LIMITS = _object({name: {"type": ["integer", "null"]} for name in ("rpm", "rpd", "tpm", "tpd")})
QUOTA_STATS = _object(
    {
        "current_minute": _USED,
        "current_day": _USED,
        "limits": _LIMITS,
        "effective_limits": _LIMITS,
        "remaining": _LIMITS,
        "requests": _object({"per_minute": _WINDOW, "per_day": _WINDOW}),
        "tokens": _object({"per_minute": _WINDOW, "per_day": _WINDOW}),
        "statistics": _object(
            dict.fromkeys(
                ("total_requests", "quota_exceeded", "fallback_used", "queued_requests",
                 "current_queue_size"), _COUNT,
            )
        ),
        "queue": _object(dict.fromkeys(("CRITICAL", "HIGH", "MEDIUM", "LOW"), _COUNT)),
    }
)  # fmt: skip

HEALTH = _object(
    {
        "status": {"enum": ["healthy", "healthy_with_warnings", "unhealthy"]},
        "timestamp": {"type": "string", "format": "date-time"},
        "version": _TEXT,
        "uptime": _NUMBER,
        "checks": _object(
            dict.fromkeys(
                ("database", "redis", "gemini_api", "quota", "circuit_breakers",
                 "system_resources"), _ANY,
            )
        ),
    }
)  # fmt: skip
READY = _object(
    {
        "status": {"enum": ["ready", "not_ready"]},
        "ready": {"type": "boolean"},
        "checks": _object(dict.fromkeys(("redis", "gemini_api", "quota"), _ANY)),
    }
)
PROMPTS = _object({"prompts": _ANY})

INVALIDATION = _object({"namespace": _bounded(200), "pattern": _bounded(500)}, ("namespace",))
REMOVED = _object({"removed": _COUNT})
CACHE_STATS = _ANY
BREAKER = _object({"name": _TEXT, "state": {"enum": ["closed", "open", "half_open"]}})
STATS = _object({"quota": {"type": ["object", "null"]}, "cache": _ANY})

ERROR = _object(
    {"error": _TEXT, "request_id": _TEXT, "issues": {"type": "array", "items": _TEXT}}, ("error",)
)
QUOTA_REFUSAL = _object(
    {
        "error": {"const": "quota_exceeded"},
        "message": _TEXT,
        "retry_after": {"type": "string", "pattern": "^[0-9]+ seconds$"},
        "request_id": _TEXT,
        "fits_now": _COUNT,
    },
    ("error", "message", "retry_after"),
)
