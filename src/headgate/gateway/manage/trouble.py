"""What goes wrong with a request to the management API, as RFC 9457 writes it: problem+json.

Each kind of problem has a title, a status and a hint that says what to do next; what happened this
time is its detail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from headgate.backend.errors import GeminiError
from headgate.core.callers import CallerConflictError, UnknownCallerError
from headgate.core.errors import ConfigurationError, HeadgateError, StoreError

__all__ = ["KINDS", "Kind", "Problem", "TroubleError", "problem_of"]


class Kind(NamedTuple):
    """A kind of problem."""

    status: int
    title: str
    hint: str


KINDS: Mapping[str, Kind] = {
    "invalid": Kind(400, "The request is not valid",
        "The detail names the field; the endpoint's page at /docs shows what it takes."),
    "configuration": Kind(400, "The configuration is not valid",
        "The detail names the setting and what it takes. Nothing was changed."),
    "unauthorized": Kind(401, "The admin key is missing or wrong",
        "Send HEADGATE_ADMIN_KEY's value as `Authorization: Bearer …`. Caller keys do not manage."),
    "not-local": Kind(403, "Without an admin key this API answers this machine only",
        "Call it at 127.0.0.1 or localhost, or set HEADGATE_ADMIN_KEY and restart."),
    "management-off": Kind(404, "The management API is off",
        "Set HEADGATE_ADMIN_KEY to 24 characters or more (`openssl rand -hex 24`) and restart."),
    "not-found": Kind(404, "There is no such thing",
        "GET /openapi.json lists every path; the lists of keys, domains and callers show every name."),
    "method-not-allowed": Kind(405, "The path does not take this method",
        "The header allow names those it takes."),
    "conflict": Kind(409, "That does not fit the state things are in",
        "The detail says what stands in the way."),
    "no-ledger": Kind(409, "No usage ledger is kept",
        "Set HEADGATE_USAGE to a file or a Postgres URL and restart."),
    "in-progress": Kind(409, "A request with this idempotency key is under way",
        "Wait until it has ended, then repeat it with the same key to get its answer."),
    "too-large": Kind(413, "The body is too large",
        "HEADGATE_GATEWAY_MAX_BODY_MIB says how large one may be."),
    "unsupported-media-type": Kind(415, "The body is not JSON",
        "Send it as application/json, without content-encoding."),
    "key-reused": Kind(422, "The idempotency key belongs to another request",
        "Use a new key for a new request; repeat a request with the very same body."),
    "busy": Kind(503, "The gateway takes no more at the moment", "Try again after retry-after."),
    "store": Kind(503, "A store did not answer",
        "Try again; `headgate config check` shows where stores are."),
    "call-failed": Kind(502, "The model could not be asked",
        "error_type says why; is_retryable whether the same may succeed later."),
    "fault": Kind(500, "Something went wrong in the gateway",
        "Its log says what, under the request id."),
}  # fmt: skip


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem as it is sent.

    Attributes:
        type: leads to what is said of this kind of problem.
        title: of the kind.
        status: of HTTP.
        detail: what happened this time.
        hint: what to do next.
        request_id: stands in the log of the gateway too.
        retry_after: seconds after which the same may succeed.
        error_type, is_retryable: of a call to a model, in the words of the backend.
    """

    type: str
    title: str
    status: int
    detail: str
    hint: str
    request_id: str
    retry_after: float | None = None
    error_type: str | None = None
    is_retryable: bool | None = None


class TroubleError(HeadgateError):
    """A request that cannot be served.

    Attributes:
        about: a kind of `KINDS`.
        allow: the methods a path takes.
    """

    default_kind = "management"

    def __init__(self, about: str, detail: str, *, hint: str = "", allow: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.about = about
        self.hint = hint
        self.allow = allow
        self.http_status = KINDS[about].status


def problem_of(error: HeadgateError, request_id: str) -> Problem:
    """The problem that an error is for whoever asked."""
    kind = KINDS[_kind_of(error)]
    status = kind.status
    error_type: str | None = None
    retryable: bool | None = None
    if isinstance(error, GeminiError):
        status, error_type = error.http_status, error.error_type.value
        retryable = error.is_retryable
    wait = error.retry_after
    return Problem(
        type=f"/docs#problem-{_kind_of(error)}",
        title=kind.title,
        status=status,
        detail=error.message,
        hint=(error.hint if isinstance(error, TroubleError) else "") or kind.hint,
        request_id=error.request_id or request_id,
        retry_after=wait if wait is not None and math.isfinite(wait) else None,
        error_type=error_type,
        is_retryable=retryable,
    )


def _kind_of(error: HeadgateError) -> str:
    if isinstance(error, TroubleError):
        return error.about
    if isinstance(error, GeminiError):
        return "not-found" if error.kind == "model_not_found" else _of_status(error.http_status)
    for kind, name in _BY_CLASS.items():
        if isinstance(error, kind):
            return name
    return _of_status(error.http_status)


_BY_CLASS: Mapping[type[HeadgateError], str] = {
    UnknownCallerError: "not-found",
    CallerConflictError: "conflict",
    ConfigurationError: "configuration",
    StoreError: "store",
}


def _of_status(status: int) -> str:
    if status in (400, 422):
        return "invalid"
    by_status = {403: "not-local", 404: "call-failed", 413: "too-large", 415: "unsupported-media-type"}
    return by_status.get(status, "call-failed")
