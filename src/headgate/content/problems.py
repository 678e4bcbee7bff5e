"""What goes wrong, as clients of the service are told: `{"error": …}` with a status and a request id.

Refusals for quota have the accepted body and the true wait (S4-06). Structure decides; no message of an
upstream reaches a client but what the engine made of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from headgate.content.quota_config import LIMITS, QuotaConfig, QuotaExceededError, limit_sentence
from headgate.core.errors import HeadgateError, QuotaExhaustedError, UpstreamError
from headgate.core.outcome import Kind, Outcome

__all__ = [
    "BREAKER_OPEN",
    "FAULT",
    "VALIDATION_FAILED",
    "PoorContentError",
    "Problem",
    "RefusedError",
    "item_error",
    "problem_of",
    "quota_refusal",
]

FAULT = "Something went wrong here. The log of the service has it under this request id."
"""What is said where the fault is ours."""

BREAKER_OPEN = "circuit_breaker_open"
VALIDATION_FAILED = "validation_failed"
"""Words that stand for a whole item's failure."""

_STATUSES = {502: 503, 422: 400, 499: 503}
"""Statuses of the engine's errors that the accepted set does not have."""


class RefusedError(HeadgateError):
    """A request that is not served as it is: the caller's mistake, or none of his business.

    Attributes:
        status: of the answer.
        validator, issue: what found it, and what it is, in words of a closed set.
        headers: to be sent with the answer.
    """

    default_kind = "invalid"
    http_status = 400

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        validator: str = "",
        issue: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = status
        self.validator = validator
        self.issue = issue
        self.headers = dict(headers or {})


class PoorContentError(HeadgateError):
    """What the model made is not good enough to be given. Another try may be.

    Attributes:
        issues: sentences.
    """

    default_kind = "quality"
    http_status = 500
    retryable = True

    def __init__(self, message: str, issues: Sequence[str]) -> None:
        super().__init__(message)
        self.issues = list(issues)


class Problem(Struct, frozen=True):
    """An error as it is sent.

    Attributes:
        kind: for metrics.
    """

    status: int
    body: dict[str, object]
    kind: str
    headers: dict[str, str] = {}


def quota_refusal(error: QuotaExhaustedError, config: QuotaConfig | None) -> QuotaExceededError:
    """The provider's refusal in the accepted words: its own limits are none that we declared."""
    cause = error.__cause__
    outcome = cause.outcome if isinstance(cause, UpstreamError) else None
    limit = _limit_of(outcome)
    nominal = None
    if outcome is not None:
        nominal = next((one.amount for one in outcome.limits if one.name == limit), None)
    elif limit is not None and config is not None:
        nominal = config.nominal(limit)
    return QuotaExceededError(
        limit_sentence(limit, nominal),
        limit=limit,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )


def _limit_of(outcome: Outcome | None) -> str | None:
    if outcome is None:
        return None
    named = [name for name in outcome.quota_names if name in LIMITS]
    if named:
        return named[0]
    return {Kind.QUOTA_DAY: "rpd", Kind.QUOTA_MINUTE: "rpm"}.get(outcome.kind)


def problem_of(error: HeadgateError, request_id: str, config: QuotaConfig | None = None) -> Problem:
    """An error as its client is told."""
    if isinstance(error, QuotaExhaustedError):
        error = quota_refusal(error, config)
    if isinstance(error, QuotaExceededError):
        body = {**error.to_dict(), "request_id": request_id}
        if error.fits:
            body["fits_now"] = error.fits
        return Problem(429, body, "quota", {"retry-after": str(error.wait_seconds)})
    status = _STATUSES.get(error.http_status, error.http_status)
    body = {"error": _said(error), "request_id": request_id}
    headers = dict(error.headers) if isinstance(error, RefusedError) else {}
    if isinstance(error, PoorContentError):
        body["issues"] = error.issues
    if error.retry_after is not None and status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    return Problem(status, body, error.kind, headers)


def item_error(error: HeadgateError, config: QuotaConfig | None = None) -> str:
    """The `error` of an item that failed while others did not."""
    if isinstance(error, PoorContentError):
        return VALIDATION_FAILED
    if isinstance(error, QuotaExhaustedError):
        return quota_refusal(error, config).message
    return _said(error)


def _said(error: HeadgateError) -> str:
    if isinstance(error, UpstreamError) and error.outcome.kind is Kind.BREAKER_OPEN:
        return BREAKER_OPEN
    if isinstance(error, UpstreamError):  # its message names keys of ours
        return _UPSTREAM.get(error.kind, "The model did not answer. Try again later.")
    if error.kind in ("auth", "no_access"):
        return "The service has no key that the model accepts."
    return error.message


_UPSTREAM = {
    "blocked": "The model gave no answer to this: change the wording.",
    "invalid": "The model refused the request as it is.",
    "timeout": "The model did not answer in time. Try again.",
    "unavailable": "The model is overloaded. Try again later.",
    "auth": "The service has no key that the model accepts.",
    "no_access": "The service has no key that may use this model.",
}
