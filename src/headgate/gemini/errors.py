"""The accepted errors of the Gemini door, and how the engine's errors become them.

GeminiKeyRotationError
├── QuotaExceededError       one key ran out of quota; seen as the cause of the next
├── AllKeysExhaustedError    every key did; `retry_after` says when the first recovers
├── NoValidKeysError         no key is configured
├── InvalidKeyConfigError    the list of keys is malformed
└── GeminiAPICallError       the call failed for another reason; `kind` says which
"""

from __future__ import annotations

from contextlib import ContextDecorator
from typing import NoReturn

from headgate.core.errors import (
    ConfigurationError,
    HeadgateError,
    KeyFormatError,
    NoKeysError,
    QuotaExhaustedError,
    UpstreamError,
)

__all__ = [
    "AllKeysExhaustedError",
    "GeminiAPICallError",
    "GeminiKeyRotationError",
    "InvalidKeyConfigError",
    "NoValidKeysError",
    "QuotaExceededError",
    "accepted_errors",
]


class GeminiKeyRotationError(HeadgateError):
    """Base of the Gemini door's errors.

    Attributes:
        key_name: the key it concerns, or None. Never the key itself.
        is_quota_error: whether quota was the reason.
    """

    default_kind = "gemini"

    def __init__(
        self,
        message: str,
        *,
        key_name: str | None = None,
        is_quota_error: bool = False,
        kind: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, kind=kind, retry_after=retry_after, request_id=request_id)
        self.key_name = key_name
        self.is_quota_error = is_quota_error


class QuotaExceededError(GeminiKeyRotationError):
    """One key's project ran out of quota."""

    default_kind = "quota"
    http_status = 429
    retryable = True


class AllKeysExhaustedError(GeminiKeyRotationError):
    """Every key waits for quota: wait `retry_after` seconds, or tell the user.

    Attributes:
        total_keys: number of configured keys.
        retry_after: seconds until the first key recovers.
    """

    default_kind = "quota"
    http_status = 429
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        total_keys: int,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, is_quota_error=True, retry_after=retry_after, request_id=request_id)
        self.total_keys = total_keys


class NoValidKeysError(GeminiKeyRotationError):
    """No key is configured."""

    default_kind = "no_keys"


class InvalidKeyConfigError(GeminiKeyRotationError):
    """The list of keys is malformed.

    Attributes:
        position: the entry that is wrong, 1-based.
    """

    default_kind = "key_format"

    def __init__(self, message: str, *, position: int) -> None:
        super().__init__(message)
        self.position = position


class GeminiAPICallError(GeminiKeyRotationError):
    """The call failed: after the retries, or at once where trying again cannot help.

    Attributes:
        kind: `blocked`, `invalid`, `auth`, `no_access`, `unavailable`, `server`, `network`,
            `timeout`, `protocol`, `tls`, `egress`, `resource`, `storage_quota` or `model_retired`.
        original_error: the engine's own error, with all details.
    """

    default_kind = "upstream"
    http_status = 502

    def __init__(self, message: str, *, original_error: HeadgateError) -> None:
        quota = isinstance(original_error, UpstreamError) and original_error.outcome.rule.is_quota
        super().__init__(
            message,
            key_name=getattr(original_error, "key_name", None),
            is_quota_error=quota,
            kind=original_error.kind,
            retry_after=original_error.retry_after,
            request_id=original_error.request_id,
        )
        self.original_error = original_error
        self.http_status = original_error.http_status
        self.retryable = original_error.retryable


class accepted_errors(ContextDecorator):  # noqa: N801 - reads as a statement
    """Engine errors leave as the accepted ones, with the refusal of the last key as cause.

    Around every call, so a plain class: a `@contextmanager` costs eight times as much.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        accepted = isinstance(error, GeminiKeyRotationError)
        if isinstance(error, HeadgateError) and not accepted:
            _leave(error)


def _leave(error: HeadgateError) -> NoReturn:
    match error:
        case QuotaExhaustedError():
            raise _exhausted(error) from _refusal(error)
        case KeyFormatError():
            raise InvalidKeyConfigError(error.message, position=error.position) from None
        case NoKeysError():
            raise NoValidKeysError(error.message) from None
        case ConfigurationError():
            raise error
    raise GeminiAPICallError(error.message, original_error=error) from error


def _exhausted(error: QuotaExhaustedError) -> AllKeysExhaustedError:
    return AllKeysExhaustedError(
        error.message,
        total_keys=error.total_keys,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )


def _refusal(error: QuotaExhaustedError) -> QuotaExceededError | None:
    cause = error.__cause__
    if not isinstance(cause, UpstreamError) or not cause.outcome.rule.is_quota:
        return None
    return QuotaExceededError(
        cause.message,
        key_name=cause.key_name,
        is_quota_error=True,
        retry_after=cause.retry_after,
        request_id=cause.request_id,
    )
