"""The errors of the Claude door, and how the engine's errors become them.

ClaudeError
├── ClaudeQuotaError     every organisation is out of quota or money; `retry_after` says until when
└── ClaudeCallError      the call failed for another reason; `kind` says which

Wrong settings are raised as they are: `ConfigurationError` and its kinds, from `headgate.core.errors`.
"""

from __future__ import annotations

from contextlib import ContextDecorator

from headgate.core.errors import (
    ConfigurationError,
    HeadgateError,
    QuotaExhaustedError,
    UpstreamError,
)

__all__ = ["ClaudeCallError", "ClaudeError", "ClaudeQuotaError", "claude_errors"]


class ClaudeError(HeadgateError):
    """Base of the Claude door's errors.

    Attributes:
        key_name: the key it concerns, or None. Never the key itself.
        upstream_id: Anthropic's id of the last request (`req_…`), for its support; or None.
        original_error: the engine's own error, with all details.
    """

    default_kind = "claude"

    def __init__(self, message: str, *, original_error: HeadgateError) -> None:
        super().__init__(
            message,
            kind=original_error.kind,
            retry_after=original_error.retry_after,
            request_id=original_error.request_id,
        )
        self.original_error = original_error
        self.http_status = original_error.http_status
        self.retryable = original_error.retryable
        told = _told(original_error)
        self.key_name = None if told is None else told.key_name
        self.upstream_id = None if told is None else told.outcome.upstream_id


class ClaudeQuotaError(ClaudeError):
    """Every key waits: wait `retry_after` seconds, or tell the user.

    Attributes:
        total_keys: number of configured keys.
    """

    default_kind = "quota"

    def __init__(self, message: str, *, original_error: QuotaExhaustedError) -> None:
        super().__init__(message, original_error=original_error)
        self.total_keys = original_error.total_keys


class ClaudeCallError(ClaudeError):
    """The call failed: after the retries, or at once where trying again cannot help."""

    default_kind = "upstream"


class claude_errors(ContextDecorator):  # noqa: N801 - reads as a statement
    """Engine errors leave as this door's, with the engine's own as cause.

    Around every call, so a plain class: a `@contextmanager` costs eight times as much.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, HeadgateError) or isinstance(error, ClaudeError | ConfigurationError):
            return
        if isinstance(error, QuotaExhaustedError):
            raise ClaudeQuotaError(error.message, original_error=error) from error
        raise ClaudeCallError(error.message, original_error=error) from error


def _told(error: HeadgateError) -> UpstreamError | None:
    """What the upstream said last, if it said anything."""
    if isinstance(error, UpstreamError):
        return error
    return error.__cause__ if isinstance(error.__cause__, UpstreamError) else None
