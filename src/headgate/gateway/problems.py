"""What went wrong with a request, and what its client should do about it: the same for every surface.

A surface turns a `Problem` into its own shape. Whether a client may try again is said by
`x-should-retry`, which the anthropic and openai SDKs obey: without it they repeat what the engine has
already repeated, and sleep through any `retry-after`, a day's included.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from headgate.core.callers import CallerBudgetError, CallerLimitError
from headgate.core.errors import HeadgateError, QueueFullError, QuotaExhaustedError, UpstreamError
from headgate.core.outcome import Next

__all__ = ["LONGEST_RETRY", "Headers", "Problem", "RequestRefusedError", "fault", "problem_of"]

Headers = list[tuple[bytes, bytes]]

LONGEST_RETRY = 60.0
"""Seconds up to which a client is told to come back: SDKs sleep as long as they are told, and the quota
of a minute is back by then."""

_FAULT = "Something went wrong in the gateway. Its log says what, under the id of this request."


class RequestRefusedError(HeadgateError):
    """The gateway does not take the request, whatever an upstream would say.

    Attributes:
        closes: whether the connection should not be used again, because the body was not read.
        allow: the methods that the path takes, where the request's is another.
    """

    default_kind = "invalid"

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        closes: bool = False,
        allow: str = "",
        kind: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, kind=kind, retry_after=retry_after, request_id=request_id)
        self.http_status = status
        self.closes = closes
        self.allow = allow


class Problem(NamedTuple):
    """Why there is no answer.

    Attributes:
        status: of HTTP.
        kind: a short stable word, as `HeadgateError.kind`.
        message: a sentence for a person, without secrets.
        retry_after: seconds until the same may succeed, or None.
        again: whether the client may try again by itself.
        attempts: sent to the upstream.
        key_name: of the last of them, or empty.
    """

    status: int
    kind: str
    message: str
    request_id: str
    retry_after: float | None = None
    again: bool = False
    attempts: int = 0
    key_name: str = ""

    def headers(self) -> Headers:
        """What tells a client whether and when to try again."""
        found = [(b"x-should-retry", b"true" if self.again else b"false")]
        if self.retry_after is not None and math.isfinite(self.retry_after):
            # A difference of two clock readings may be 10.000000000000002: that is ten.
            whole = math.ceil(round(self.retry_after, 3))
            found.append((b"retry-after", b"%d" % max(1, whole)))
        return found


def problem_of(error: HeadgateError, request_id: str) -> Problem:
    """What an error means for a client."""
    return Problem(
        status=_status(error),
        kind=error.kind,
        message=error.message,
        request_id=request_id,
        retry_after=error.retry_after,
        again=_again(error),
        attempts=error.attempts,
        key_name=(error.key_name or "") if isinstance(error, UpstreamError) else "",
    )


def fault(request_id: str) -> Problem:
    """A mistake of ours: what it was stands in the log only."""
    return Problem(500, "fault", _FAULT, request_id)


def _status(error: HeadgateError) -> int:
    """The upstream's own status for its own failures: clients tell 500, 503 and 529 apart."""
    if isinstance(error, UpstreamError):
        status = error.outcome.status
        return status if status is not None and status >= 500 else error.http_status
    if error.kind == "no_access" and isinstance(error.__cause__, UpstreamError):
        return error.__cause__.http_status
    return error.http_status


_OF_QUOTA = (QuotaExhaustedError, CallerLimitError, CallerBudgetError)


def _again(error: HeadgateError) -> bool:
    """Whether a client's own retry makes sense: where nothing was sent, and waiting is short."""
    if isinstance(error, QueueFullError):
        return True
    stopped = isinstance(error, UpstreamError) and error.outcome.rule.next is Next.STOP
    if not stopped and not isinstance(error, _OF_QUOTA):
        return False
    return error.retry_after is not None and error.retry_after <= LONGEST_RETRY
