"""The errors of the Codegen door: one class per kind of failure, all under `CodegenAPIError`.

CodegenAPIError
├── ValidationError          400, 422, or refused before sending; `field_errors`
├── AuthenticationError      401, or no token
│   └── PermissionDeniedError    403
├── PaymentRequiredError     402: the plan's agent runs are used up
├── NotFoundError            404
├── ConflictError            409
├── RateLimitError           429; `retry_after`
├── ServerError              5xx, an answer that cannot be read, or the breaker is open
├── NetworkError             no connection, or it broke
├── TimeoutError             no answer in time; also the builtin
├── FeatureDisabledError     switched off in the configuration
├── WebhookError             a webhook that was refused; `event_type`
└── BulkOperationError       fail-fast; `failed_items`, `partial_success`
"""

from __future__ import annotations

import builtins
from datetime import UTC, datetime
from typing import Any

from headgate.core.errors import HeadgateError
from headgate.core.outcome import Kind
from headgate.core.resource import ResourceFailed
from headgate.providers.codegen_errors import field_errors as read_field_errors
from headgate.wiring.clock import SystemClock

__all__ = [
    "AuthenticationError",
    "BulkOperationError",
    "CodegenAPIError",
    "ConflictError",
    "FeatureDisabledError",
    "NetworkError",
    "NotFoundError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    "TimeoutError",
    "ValidationError",
    "WebhookError",
    "translated",
]


class CodegenAPIError(HeadgateError):
    """Base of the door's errors.

    Attributes:
        status_code: HTTP status, or None where there was no answer.
        response_data: the JSON of the error, or None.
        endpoint: the operation's name, or None.
        timestamp: when it was raised, aware UTC, ISO 8601.
        sent: whether the upstream may have acted on the request.
        attempts: how often it was sent.
    """

    default_kind = "upstream"
    http_status = 502

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        response_data: object = None,
        request_id: str | None = None,
        endpoint: str | None = None,
        *,
        kind: str | None = None,
        retry_after: float | None = None,
        sent: bool = False,
        attempts: int = 0,
        at: float | None = None,
    ) -> None:
        super().__init__(message, kind=kind, retry_after=retry_after, request_id=request_id)
        self.status_code = status_code
        self.response_data = response_data
        self.endpoint = endpoint
        self.sent = sent
        self.attempts = attempts
        wall = SystemClock().wall() if at is None else at
        self.timestamp = datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds")

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """Everything there is to know, ready for JSON."""
        return {
            "error_type": type(self).__name__,
            "message": self.message,
            "kind": self.kind,
            "status_code": self.status_code,
            "response_data": self.response_data,
            "request_id": self.request_id,
            "endpoint": self.endpoint,
            "timestamp": self.timestamp,
            "retry_after": self.retry_after,
        }


class ValidationError(CodegenAPIError):
    """The request is wrong: found here before it was sent, or by the API.

    Attributes:
        field_errors: field to what is wrong with it, each a list.
    """

    default_kind = "invalid"
    http_status = 400

    def __init__(
        self, message: str, field_errors: dict[str, list[str]] | None = None, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.field_errors = dict(field_errors or {})

    def to_dict(self) -> dict[str, Any]:
        """See `CodegenAPIError.to_dict`."""
        return {**super().to_dict(), "field_errors": self.field_errors}


class AuthenticationError(CodegenAPIError):
    """There is no token, or the API does not accept it."""

    default_kind = "auth"
    http_status = 401


class PermissionDeniedError(AuthenticationError):
    """The token is good, but not for this organisation."""

    default_kind = "no_access"
    http_status = 403


class PaymentRequiredError(CodegenAPIError):
    """The plan's agent runs are used up."""

    default_kind = "quota"
    http_status = 402


class NotFoundError(CodegenAPIError):
    """There is no such thing, or none that this token may see.

    Attributes:
        resource_type, resource_id: what was asked for, where one thing was.
    """

    default_kind = "invalid"
    http_status = 404

    def __init__(
        self,
        message: str,
        resource_type: str | None = None,
        resource_id: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.resource_type = resource_type
        self.resource_id = resource_id


class ConflictError(CodegenAPIError):
    """The state of the thing does not allow this."""

    default_kind = "invalid"
    http_status = 409


class RateLimitError(CodegenAPIError):
    """Too many requests. `retry_after`: whole seconds until one may do better, 60 if nobody knows."""

    default_kind = "rate_limit"
    http_status = 429
    retryable = True

    def __init__(self, message: str, retry_after: float | None = None, **details: Any) -> None:
        seconds = 60 if retry_after is None else -int(-retry_after // 1)
        super().__init__(message, retry_after=seconds, **details)


class ServerError(CodegenAPIError):
    """The API failed, or is left alone because it did."""

    default_kind = "server"
    retryable = True


class NetworkError(CodegenAPIError):
    """No connection, or it broke."""

    default_kind = "network"
    retryable = True


class TimeoutError(CodegenAPIError, builtins.TimeoutError):
    """No answer in time. `last_run`: what was last known of a run that was waited for, or None."""

    default_kind = "timeout"
    http_status = 504
    retryable = True

    def __init__(self, message: str, *, last_run: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.last_run = last_run


class FeatureDisabledError(CodegenAPIError):
    """The configuration switches this off."""

    default_kind = "configuration"
    http_status = 403


class WebhookError(CodegenAPIError):
    """A webhook that was refused: nobody heard of it.

    Attributes:
        event_type: where it is known.
    """

    default_kind = "webhook"
    http_status = 400

    def __init__(self, message: str, event_type: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.event_type = event_type


class BulkOperationError(CodegenAPIError):
    """A fail-fast bulk operation stopped at its first failure.

    Attributes:
        failed_items: the errors, as in `BulkOperationResult.errors`.
        partial_success: whether some items had succeeded.
        result: what was done until then.
    """

    default_kind = "bulk"

    def __init__(
        self,
        message: str,
        failed_items: list[dict[str, Any]] | None = None,
        partial_success: bool = False,
        *,
        result: Any = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.failed_items = list(failed_items or ())
        self.partial_success = partial_success
        self.result = result


_BY_STATUS: dict[int, type[CodegenAPIError]] = {
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    408: TimeoutError,
    409: ConflictError,
}
_BY_KIND: dict[Kind, type[CodegenAPIError]] = {
    Kind.NETWORK: NetworkError,
    Kind.TLS: NetworkError,
    Kind.TIMEOUT: TimeoutError,
    Kind.PROTOCOL: ServerError,
}


def translated(failed: ResourceFailed, at: float) -> CodegenAPIError:
    """The door's error for what became of a call. `at`: Unix time."""
    call, status = failed.call, failed.outcome.status
    details: dict[str, Any] = {
        "status_code": status,
        "response_data": failed.data,
        "request_id": call.request_id,
        "endpoint": call.endpoint.name,
        "sent": failed.sent,
        "attempts": failed.attempts,
        "at": at,
    }
    message = _sentence(failed)
    if status == 429:
        return RateLimitError(message, failed.retry_after, **details)
    if status == 404:
        kind, number = _resource(call.values)
        return NotFoundError(message, kind, number, **details)
    details["retry_after"] = failed.retry_after
    if status is None or status < 400:
        cls = _BY_KIND.get(failed.outcome.kind, ServerError)
        return cls(message, kind="unavailable" if not failed.attempts else None, **details)
    if status in _BY_STATUS:
        return _BY_STATUS[status](message, **details)
    if status >= 500:
        return ServerError(message, **details)
    return ValidationError(message, read_field_errors(failed.data) or {"request": [message]}, **details)


def _sentence(failed: ResourceFailed) -> str:
    """What happened, where, and what follows from it."""
    said = failed.outcome.message.strip()
    said = said if said.endswith((".", "!", "?", "…")) else f"{said}."
    endpoint = failed.call.endpoint
    doubt = ""
    if failed.sent and not endpoint.repeatable and (failed.outcome.status or 500) >= 500:
        doubt = (
            " It may have been carried out all the same, so it was not sent again: look before you do."
        )
    tries = f", {failed.attempts} attempts" if failed.attempts > 1 else ""
    return f"{endpoint.name}{tries}: {said}{doubt}"


def _resource(values: Any) -> tuple[str | None, str | None]:
    """What a path asked for: the last of its placeholders."""
    name = next(reversed(values), None)
    return (name.removesuffix("_id"), str(values[name])) if name else (None, None)
