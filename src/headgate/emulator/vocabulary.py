"""The words of faults and methods. docs/reference/emulator.md explains each."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = [
    "ALIASES",
    "ANSWER_BEHAVIOURS",
    "BEHAVIOURS",
    "ERRORS",
    "ERROR_IDS",
    "METHODS",
    "STREAM_BEHAVIOURS",
    "TRANSPORT_BEHAVIOURS",
]

METHODS = (
    "generateContent",
    "streamGenerateContent",
    "countTokens",
    "embedContent",
    "batchEmbedContents",
    "models.list",
    "models.get",
)

TRANSPORT_BEHAVIOURS = ("reset", "close", "stall", "html")
"""Happen instead of an answer, before anything is checked or charged."""

ANSWER_BEHAVIOURS = (
    "slow",
    "reset_mid",
    "stall_mid",
    "wrong_length",
    "broken_json",
    "blocked",
    "safety",
    "safety_no_content",
    "safety_no_parts",
    "finish",
)
"""Happen to an answer the quotas had room for."""

STREAM_BEHAVIOURS = (
    "slow_chunks",
    "raw_error",
    "prefixed_error",
    "late_error_key",
    "silent_eof",
    "empty_stream",
    "half_event",
    "malformed_sse",
    "sse_no_space",
    "sse_comment",
    "sse_event_line",
    "sse_done",
)
"""Happen to a streamed answer the quotas had room for."""

BEHAVIOURS = (*TRANSPORT_BEHAVIOURS, *ANSWER_BEHAVIOURS, *STREAM_BEHAVIOURS)

ALIASES = {
    "overload": "503-overloaded",
    "high_demand": "503-high-demand",
    "internal": "500-internal",
    "deadline": "504-deadline",
    "capacity": "429-bare",
    "prepaid_empty": "429-prepaid-empty",
    "invalid_key": "400-key-invalid",
    "expired_key": "400-key-expired",
    "leaked_key": "403-leaked",
    "suspended_key": "403-suspended",
    "permission": "403-model-denied",
    "closed_model": "404-closed-to-new-projects",
    "location": "400-location",
}
"""Short names of recorded errors."""


def _errors() -> dict[str, dict[str, Any]]:
    text = resources.files("headgate.emulator").joinpath("data/errors.json").read_text("utf-8")
    loaded: dict[str, dict[str, Any]] = json.loads(text)["errors"]
    return loaded


ERRORS = _errors()
"""Error id to {"http": status, "body": template}; `{key}`, `{model}` … stand for the request's own."""

ERROR_IDS = tuple(ERRORS)
