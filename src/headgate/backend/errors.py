"""The backend's errors: `GeminiError` and the accepted error types.

The engine's errors leave the backend as `GeminiError`s, whose `error_type` says what happened in the
accepted words; structure decides which, never the wording of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

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
from headgate.engine.stages.attempt import MORE_TIME
from headgate.policy.excerpt import without_personal_data

__all__ = [
    "SUGGESTED_WAITS",
    "ErrorType",
    "GeminiError",
    "ModelNotFoundError",
    "gemini_errors",
    "type_of_outcome",
]


class ErrorType(StrEnum):
    """What happened, in the accepted words."""

    INVALID_API_KEY = "InvalidApiKey"
    QUOTA_EXCEEDED = "QuotaExceeded"
    RATE_LIMIT_EXCEEDED = "RateLimitExceeded"
    MODEL_NOT_FOUND = "ModelNotFound"
    INVALID_REQUEST = "InvalidRequest"
    CONTENT_BLOCKED = "ContentBlocked"
    SAFETY_VIOLATION = "SafetyViolation"
    RECITATION_ERROR = "RecitationError"
    CONNECTION_TIMEOUT = "ConnectionTimeout"
    NETWORK_ERROR = "NetworkError"
    DNS_RESOLUTION_FAILED = "DnsResolutionFailed"
    SSL_ERROR = "SslError"
    INTERNAL_SERVER_ERROR = "InternalServerError"
    SERVICE_UNAVAILABLE = "ServiceUnavailable"
    GATEWAY_TIMEOUT = "GatewayTimeout"
    REQUEST_TIMEOUT = "RequestTimeout"
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    INVALID_PARAMETERS = "InvalidParameters"
    UNKNOWN = "Unknown"

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without a change (S3-04c)."""
        return self in _RETRYABLE

    @property
    def suggested_wait(self) -> float:
        """Seconds to wait where the upstream gives no hint (S3 §4.4)."""
        return SUGGESTED_WAITS.get(self, 1.0)


_RETRYABLE = frozenset({
    ErrorType.RATE_LIMIT_EXCEEDED,
    ErrorType.CONNECTION_TIMEOUT,
    ErrorType.NETWORK_ERROR,
    ErrorType.INTERNAL_SERVER_ERROR,
    ErrorType.SERVICE_UNAVAILABLE,
    ErrorType.GATEWAY_TIMEOUT,
    ErrorType.DNS_RESOLUTION_FAILED,
})  # fmt: skip

SUGGESTED_WAITS: Mapping[ErrorType, float] = {
    ErrorType.RATE_LIMIT_EXCEEDED: 60.0,
    ErrorType.SERVICE_UNAVAILABLE: 30.0,
    ErrorType.INTERNAL_SERVER_ERROR: 10.0,
}
"""Seconds to wait without a hint, accepted in S3 §4.4; for every other type 1."""


class GeminiError(HeadgateError):
    """A request failed.

    Attributes:
        error_type: what happened.
        details: facts for programs: `kind`, `status`, `key_name`, `upstream_id`, where known.
        timestamp: when, aware UTC.
        retry_after: seconds: the upstream's hint, else what is suggested for a retryable type.
        is_retryable: whether the same request may succeed later.
    """

    default_kind = "upstream"
    http_status = 502

    def __init__(
        self,
        error_type: ErrorType,
        message: str,
        *,
        timestamp: datetime,
        details: Mapping[str, object] | None = None,
        kind: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        if retry_after is None and error_type.retryable:
            retry_after = error_type.suggested_wait
        super().__init__(message, kind=kind, retry_after=retry_after, request_id=request_id)
        self.error_type = error_type
        self.details = dict(details or {})
        self.timestamp = timestamp
        self.is_retryable = self.retryable = error_type.retryable

    def to_dict(self) -> dict[str, object]:
        """The accepted fields, ready for JSON."""
        return {
            "error_type": self.error_type.value,
            "message": self.message,
            "details": self.details,
            "timestamp": self.timestamp.isoformat(timespec="microseconds"),
            "request_id": self.request_id,
            "retry_after": self.retry_after,
            "is_retryable": self.is_retryable,
        }


class ModelNotFoundError(GeminiError):
    """No model has this name.

    Attributes:
        near: names of models that look like it, the nearest first.
    """

    default_kind = "model_not_found"
    http_status = 404

    def __init__(self, model: str, near: tuple[str, ...], *, timestamp: datetime) -> None:
        hint = f"Did you mean {' or '.join(near)}?" if near else "`headgate models list` shows all."
        super().__init__(
            ErrorType.MODEL_NOT_FOUND,
            f"No model is named {model[:80]!r}. {hint}",
            timestamp=timestamp,
            details={"model": model[:80], "near": list(near)},
        )
        self.near = near


class gemini_errors:  # noqa: N801 - reads as a statement
    """The engine's errors leave as `GeminiError`s; a configuration error stays what it is.

    What a message quotes of the prompt loses its personal data; so do the causes, which a traceback
    shows. Around every call, so a plain class: a `@contextmanager` costs eight times as much.

    Args:
        now: Unix time in seconds.
        unknown: gives the model that is asked for and names near it, where nobody has told of such a
            model; None: it is known.
    """

    __slots__ = ("_now", "_unknown")

    def __init__(
        self,
        now: Callable[[], float],
        unknown: Callable[[], tuple[str, tuple[str, ...]] | None] = lambda: None,
    ) -> None:
        self._now = now
        self._unknown = unknown

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HeadgateError) and not isinstance(error, GeminiError | ConfigurationError):
            _cleared(error)
            at, kind_of = datetime.fromtimestamp(self._now(), UTC), _type_of(error)
            unknown = self._unknown() if kind_of is ErrorType.MODEL_NOT_FOUND else None
            raise _accepted(error, kind_of, at, unknown) from error


def _cleared(error: BaseException | None) -> None:
    """Take personal data out of the messages of an error and of what caused it: an upstream may have
    quoted the prompt."""
    while isinstance(error, HeadgateError):
        error.message = without_personal_data(error.message)
        if isinstance(error, QuotaExhaustedError):
            error.message = error.message.replace(MORE_TIME, "timeout_seconds")
        error.args = (error.message, *error.args[1:])
        error = error.__cause__


def _accepted(
    error: HeadgateError,
    what: ErrorType,
    at: datetime,
    unknown: tuple[str, tuple[str, ...]] | None,
) -> GeminiError:
    details: dict[str, object] = {"kind": error.kind}
    if isinstance(error, UpstreamError):
        outcome = error.outcome
        facts = {
            "status": outcome.status,
            "key_name": error.key_name,
            "upstream_id": outcome.upstream_id,
        }
        details |= {name: value for name, value in facts.items() if value is not None}
    if unknown is not None:
        nowhere = ModelNotFoundError(*unknown, timestamp=at)
        nowhere.details = {**details, **nowhere.details, "kind": nowhere.kind}
        nowhere.request_id = error.request_id
        return nowhere
    translated = GeminiError(
        what,
        error.message,
        timestamp=at,
        details=details,
        kind=error.kind,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )
    translated.http_status = error.http_status
    return translated


def _type_of(error: HeadgateError) -> ErrorType:  # noqa: PLR0911 - a line for each class
    match error:
        case UpstreamError():
            return type_of_outcome(error.outcome)
        case QuotaExhaustedError():
            cause = error.__cause__
            daily = isinstance(cause, UpstreamError) and cause.outcome.kind is Kind.QUOTA_DAY
            return ErrorType.QUOTA_EXCEEDED if daily else ErrorType.RATE_LIMIT_EXCEEDED
        case NoUsableKeyError():
            return ErrorType.INVALID_API_KEY
        case ModelRetiredError():
            return ErrorType.MODEL_NOT_FOUND
        case InvalidCallError():
            too_large = error.kind == "too_large"
            return ErrorType.PAYLOAD_TOO_LARGE if too_large else ErrorType.INVALID_PARAMETERS
        case DeadlineExceededError():  # `busy`: it was still waiting here, and nothing was sent
            return ErrorType.SERVICE_UNAVAILABLE if error.kind == "busy" else ErrorType.REQUEST_TIMEOUT
        case QueueFullError() | StoreError():
            return ErrorType.SERVICE_UNAVAILABLE
    return ErrorType.SERVICE_UNAVAILABLE if error.kind == "unavailable" else ErrorType.UNKNOWN


_BY_DETAIL = {
    Detail.DNS: ErrorType.DNS_RESOLUTION_FAILED,
    Detail.CONNECT_TIMEOUT: ErrorType.CONNECTION_TIMEOUT,
    Detail.SAFETY: ErrorType.SAFETY_VIOLATION,
    Detail.RECITATION: ErrorType.RECITATION_ERROR,
    Detail.PAYLOAD: ErrorType.PAYLOAD_TOO_LARGE,
}
_BY_STATUS = {
    404: ErrorType.MODEL_NOT_FOUND,
    413: ErrorType.PAYLOAD_TOO_LARGE,
    422: ErrorType.INVALID_PARAMETERS,
    500: ErrorType.INTERNAL_SERVER_ERROR,
    503: ErrorType.SERVICE_UNAVAILABLE,
    504: ErrorType.GATEWAY_TIMEOUT,
}
_BY_KIND = {
    Kind.QUOTA_MINUTE: ErrorType.RATE_LIMIT_EXCEEDED,
    Kind.QUOTA_UNKNOWN: ErrorType.RATE_LIMIT_EXCEEDED,
    Kind.QUOTA_DAY: ErrorType.QUOTA_EXCEEDED,
    Kind.QUOTA_ZERO: ErrorType.QUOTA_EXCEEDED,
    Kind.BILLING: ErrorType.QUOTA_EXCEEDED,
    Kind.STORAGE: ErrorType.QUOTA_EXCEEDED,
    Kind.BAD_KEY: ErrorType.INVALID_API_KEY,
    Kind.KEY_MODEL: ErrorType.INVALID_API_KEY,
    Kind.PROJECT_MODEL: ErrorType.MODEL_NOT_FOUND,
    Kind.CAPACITY: ErrorType.SERVICE_UNAVAILABLE,
    Kind.OVERLOAD: ErrorType.SERVICE_UNAVAILABLE,
    Kind.SERVER: ErrorType.INTERNAL_SERVER_ERROR,
    Kind.NETWORK: ErrorType.NETWORK_ERROR,
    Kind.PROTOCOL: ErrorType.NETWORK_ERROR,
    Kind.LATE: ErrorType.SERVICE_UNAVAILABLE,
    Kind.BREAKER_OPEN: ErrorType.SERVICE_UNAVAILABLE,
    Kind.TIMEOUT: ErrorType.REQUEST_TIMEOUT,
    Kind.TLS: ErrorType.SSL_ERROR,
    Kind.EGRESS: ErrorType.INVALID_REQUEST,
    Kind.RESOURCE: ErrorType.INVALID_REQUEST,
    Kind.BLOCKED: ErrorType.CONTENT_BLOCKED,
    Kind.REQUEST: ErrorType.INVALID_REQUEST,
    Kind.TOO_LARGE: ErrorType.INVALID_REQUEST,
}
# Where the status tells more than the kind does. A quota refusal, say, is one whatever its status.
_STATUS_TELLS = {Kind.SERVER, Kind.OVERLOAD, Kind.CAPACITY, Kind.TIMEOUT, Kind.REQUEST, Kind.PROTOCOL}


def type_of_outcome(outcome: Outcome) -> ErrorType:
    """The accepted word for what became of an attempt."""
    if outcome.detail is not None and outcome.detail in _BY_DETAIL:
        return _BY_DETAIL[outcome.detail]
    if outcome.status is not None and outcome.kind in _STATUS_TELLS and outcome.status in _BY_STATUS:
        return _BY_STATUS[outcome.status]
    return _BY_KIND.get(outcome.kind, ErrorType.UNKNOWN)
