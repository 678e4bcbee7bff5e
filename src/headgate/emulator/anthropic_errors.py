"""Refusals with the bodies of the Anthropic API."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headgate.emulator.errors import Shortage
from headgate.emulator.vocabulary import CLAUDE_ALIASES, CLAUDE_ERRORS

__all__ = ["ClaudeRefusal", "invalid", "known", "too_many"]

_WORDS = {"rpm": "requests", "itpm": "input tokens", "otpm": "output tokens"}


@dataclass(frozen=True)
class ClaudeRefusal:
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        error: the JSON inside `error`.
        reason: what the report counts it under.
        headers: beside those every answer has.
        bare: whether it lacks the envelope's `type` and `request_id`, as answers do that were given
            before the API itself was reached.
    """

    status: int
    error: dict[str, Any]
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False

    def body(self, request_id: str) -> dict[str, Any]:
        """The whole JSON."""
        if self.bare:
            return {"error": self.error}
        return {"type": "error", "error": self.error, "request_id": request_id}


def known(kind: str, values: Mapping[str, str], reason: str | None = None) -> ClaudeRefusal:
    """An error by id or short name, with the request's own model, date … filled in."""
    entry = CLAUDE_ERRORS[CLAUDE_ALIASES.get(kind, kind)]
    message = entry["message"]
    for name, value in values.items():
        message = message.replace("{" + name + "}", value)
    error = {"type": entry["type"], "message": message}
    if "error_code" in entry:
        error["details"] = {"error_code": entry["error_code"]}
    headers = {"retry-after": str(entry["retry_after"])} if "retry_after" in entry else {}
    return ClaudeRefusal(entry["http"], error, reason or kind, headers, bool(entry.get("bare")))


def invalid(message: str, reason: str = "invalid_argument") -> ClaudeRefusal:
    """400 invalid_request_error."""
    return ClaudeRefusal(400, {"type": "invalid_request_error", "message": message}, reason)


def too_many(shortages: Sequence[Shortage], model: str) -> ClaudeRefusal:
    """429 for buckets that lack what is asked, with the seconds until the fullest wish is met."""
    longest = max(shortages, key=lambda shortage: shortage.wait)
    message = (
        f"This request would exceed your organization's rate limit of {longest.limit:,} "
        f"{_WORDS[longest.quota]} per minute (model: {model}). Please reduce the prompt length or the "
        "maximum tokens requested, or try again later."
    )
    wait = 60 if math.isinf(longest.wait) else max(1, math.ceil(longest.wait))
    return ClaudeRefusal(
        429,
        {"type": "rate_limit_error", "message": message},
        longest.quota,
        {"retry-after": str(wait)},
    )
