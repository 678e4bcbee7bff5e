"""Refusals with the bodies of the OpenAI API."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.emulator.vocabulary import OPENAI_ALIASES, OPENAI_ERRORS

__all__ = ["OpenAIRefusal", "Short", "go_duration", "invalid", "known", "too_many"]

_WORDS = {
    "rpm": ("requests", "requests per min (RPM)"),
    "rpd": ("requests", "requests per day (RPD)"),
    "tpm": ("tokens", "tokens per min (TPM)"),
}


@dataclass(frozen=True)
class OpenAIRefusal:
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        error: the JSON inside `error`.
        reason: what the report counts it under.
        headers: beside those every answer has.
    """

    status: int
    error: dict[str, Any]
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, deviations: Collection[str] = ()) -> Any:
        """The whole JSON, in the vendor's form or in one of those that compatible upstreams have."""
        if "list_errors" in deviations:  # Gemini's own compatible endpoint
            error = {"code": self.status, "message": self.error["message"], "status": _google(self)}
            return [{"error": error}]
        if "string_errors" in deviations:
            return {"error": self.error["message"]}
        return {"error": self.error}


@dataclass(frozen=True)
class Short:
    """A bucket that lacks what is asked.

    Attributes:
        quota: `rpm`, `tpm` or `rpd`.
        wait: seconds until there is room; `inf` if a single call is larger than the limit.
    """

    quota: str
    limit: int
    used: int
    requested: int
    wait: float


def known(kind: str, values: Mapping[str, str], reason: str | None = None) -> OpenAIRefusal:
    """An error by id or short name, with the request's own model, organisation … filled in."""
    entry = OPENAI_ERRORS[OPENAI_ALIASES.get(kind, kind)]
    message = entry["message"]
    for name, value in values.items():
        message = message.replace("{" + name + "}", value)
    return OpenAIRefusal(
        entry["http"],
        _error(message, entry["type"], entry.get("param"), entry.get("code")),
        reason or kind,
        entry.get("headers", {}),
    )


def invalid(
    message: str, param: str | None = None, code: str | None = None, reason: str = "invalid_argument"
) -> OpenAIRefusal:
    """400 invalid_request_error."""
    return OpenAIRefusal(400, _error(message, "invalid_request_error", param, code), reason)


def too_many(short: Short, model: str, organisation: str) -> OpenAIRefusal:
    """429 for a bucket that lacks what is asked."""
    kind, words = _WORDS[short.quota]
    where = f"{model} in organization org-{organisation} on {words}: Limit {short.limit}"
    visit = "Visit https://platform.openai.com/account/rate-limits to learn more."
    if math.isinf(short.wait):
        message = (
            f"Request too large for {where}, Requested {short.requested}. The input or output tokens "
            f"must be reduced in order to run successfully. {visit}"
        )
        headers = {"x-should-retry": "false"}
    else:
        message = (
            f"Rate limit reached for {where}, Used {short.used}, Requested {short.requested}. Please "
            f"try again in {go_duration(short.wait)}. {visit}"
        )
        milliseconds = math.ceil(short.wait * 1000)
        headers = {
            "retry-after-ms": str(milliseconds),
            "retry-after": str(math.ceil(milliseconds / 1000)),
        }
    return OpenAIRefusal(429, _error(message, kind, None, "rate_limit_exceeded"), short.quota, headers)


def go_duration(seconds: float) -> str:
    """A duration as Go prints it, rounded up to milliseconds: `120ms`, `8.64s`, `7m12s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _error(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"message": message, "type": kind, "param": param, "code": code}


def _google(refusal: OpenAIRefusal) -> str:
    names = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED",
             404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}  # fmt: skip
    return names.get(refusal.status, "INTERNAL")
