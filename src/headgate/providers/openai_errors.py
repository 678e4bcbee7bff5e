"""What an error of the OpenAI API means, or of one that is compatible with it: read from status, code
and type, from words only where those say too little.

The facts and their sources are in docs/explanation/openai-errors.md; the bodies they were taken from
are the tests' table (`tests/data/openai/errors.json`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct, structs

from headgate.core.outcome import Detail, Kind, Outcome
from headgate.core.quota import Limit
from headgate.policy import hints
from headgate.providers import gemini_errors
from headgate.providers.openai_limits import (
    amount_of,
    exhausted,
    limits_of,
    named_limits,
    until_reset,
)
from headgate.providers.openai_quota import class_of

__all__ = ["classify", "classify_body"]

# Codes and types, in lower case, that decide whatever the status is.
_KIND_OF_WORD = {
    "insufficient_quota": Kind.BILLING,
    "billing_hard_limit_reached": Kind.BILLING,
    "billing_not_active": Kind.BILLING,
    "invalid_api_key": Kind.BAD_KEY,
    "account_deactivated": Kind.BAD_KEY,
    "unsupported_country_region_territory": Kind.EGRESS,
    "regionerror": Kind.EGRESS,
    "content_filter": Kind.BLOCKED,
    "content_policy_violation": Kind.BLOCKED,
    "engine_overloaded": Kind.OVERLOAD,
    "engine_overloaded_error": Kind.OVERLOAD,
    "overloaded_error": Kind.OVERLOAD,
    "slow_down": Kind.OVERLOAD,
    "context_length_exceeded": Kind.REQUEST,
}

# What a code or type stands for where there is no status: in an event of a stream that began with 200.
_STATUS_OF_WORD = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "tokens": 429,
    "requests": 429,
    "server_error": 500,
}

_KIND_OF_STATUS = {
    401: Kind.BAD_KEY,
    402: Kind.BILLING,
    403: Kind.KEY_MODEL,
    408: Kind.SERVER,
    409: Kind.SERVER,
    498: Kind.CAPACITY,
    503: Kind.OVERLOAD,
    529: Kind.OVERLOAD,
}

_RATE_WORDS = frozenset(("rate_limit_exceeded", "rate_limit_error", "tokens", "requests"))
_OVERLOAD_WORDS = re.compile(r"\boverloaded\b", re.IGNORECASE)
_NO_MODEL_WORDS = re.compile(r"does not exist or you do not have access", re.IGNORECASE)
_REGION_WORDS = re.compile(r"not (?:available|supported) in your (?:country|region)", re.IGNORECASE)
_LIMIT_WORDS = re.compile(
    r"on (?P<what>tokens|requests) per (?P<per>min(?:ute)?|day) \([A-Z]{3}\): "
    r"Limit (?P<limit>\d{1,15})\b"
)
_FAMILY_WORDS = re.compile(
    r"(?:reached|too large) for (?:model )?`?(?P<model>[\w./:\-]{1,100})`?"
    r"(?: \(for limit (?P<family>[\w./:\-]{1,100})\))? (?:in|on) "
)
_AGAIN_WORDS = re.compile(r"try again in (\d[\w.µ]{0,30})")
_TOO_LARGE = re.compile(r"Request too large for ")

# What a program cannot repair by trying again, as `x-should-retry: false` says.
_MIGHT_PASS = frozenset((Kind.SERVER, Kind.OVERLOAD, Kind.CAPACITY))


class _Said(Struct, frozen=True):
    """An error, whichever form it came in.

    Attributes:
        words: code and type, in lower case.
        status: that the body itself names, as some upstreams do; or None.
        gemini: whether it has the form of Google's errors.
    """

    message: str
    words: tuple[str, ...] = ()
    status: int | None = None
    gemini: bool = False


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """The outcome of an answer whose status is not 200."""
    said = _parse(body, bare=True)
    if said is None:
        outcome = _untyped(status, headers, body)
    elif said.gemini:
        outcome = gemini_errors.classify(status, headers, body)
    else:
        outcome = _typed(said, status, headers)
    return _as_asked(outcome, headers.get("x-should-retry", "").strip().lower())


def classify_body(body: bytes) -> Outcome | None:
    """The outcome of an error that came inside a 200, or None if the body is no error."""
    said = _parse(body, bare=False)
    if said is None:
        return None
    if said.gemini:
        return gemini_errors.classify_body(body)
    named = (_STATUS_OF_WORD[word] for word in said.words if word in _STATUS_OF_WORD)
    return _typed(said, said.status or next(named, 500), {})


# ── the forms ───────────────────────────────────────────────────────────────────────────────────────


def _parse(body: bytes, *, bare: bool) -> _Said | None:
    """What a body says; None where it is no error in any of the forms.

    Args:
        bare: the status says that it is an error: it may also stand without its envelope.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, list):  # Gemini's own compatible endpoint wraps its errors
        value = value[0] if value else None
    if not isinstance(value, Mapping):
        return None
    error, detail = value.get("error"), value.get("detail")
    if isinstance(error, Mapping):
        return _said(error)
    if isinstance(error, str) and error:
        return _said({**value, "message": error})
    if value.get("object") == "error" or (bare and "message" in value):
        return _said(value)
    return _Said(detail) if bare and isinstance(detail, str) else None


def _said(error: Mapping[str, object]) -> _Said:
    code, status = error.get("code"), error.get("status")
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    words = [word.lower() for word in (code, error.get("type")) if isinstance(word, str) and word]
    message = error.get("message")
    return _Said(
        message if isinstance(message, str) else "",
        tuple(words),
        number if number is not None and 400 <= number <= 599 else None,
        gemini=number is not None and isinstance(status, str) and status.isupper(),
    )


# ── what it means ───────────────────────────────────────────────────────────────────────────────────


def _typed(said: _Said, status: int, headers: Mapping[str, str]) -> Outcome:
    upstream_id = headers.get("x-request-id")
    message = said.message or f"HTTP {status} without a message."
    if upstream_id:
        message = f"{message.rstrip('.')} ({upstream_id})."
    kind, hint = _kind(said, status), hints.header_hint(headers)
    outcome = Outcome(kind, message, status, hint, upstream_id=upstream_id)
    if kind is Kind.BLOCKED:
        return structs.replace(outcome, detail=Detail.SAFETY)
    limits, names = _limits(said.message, headers)
    if status != 429 or kind is not Kind.QUOTA_UNKNOWN:
        return structs.replace(outcome, limits=limits)
    return structs.replace(
        _refused(outcome, said, headers, named=bool(names)),
        quota_model=_family(said.message),
        quota_names=names,
        limits=limits,
    )


def _kind(said: _Said, status: int) -> Kind:  # noqa: PLR0911 - a table
    for word in said.words:
        if word in _KIND_OF_WORD:
            return _KIND_OF_WORD[word]
    overloaded = _OVERLOAD_WORDS.search(said.message) is not None
    if status == 429:
        return Kind.OVERLOAD if overloaded and not _RATE_WORDS & {*said.words} else Kind.QUOTA_UNKNOWN
    if status == 403 and _REGION_WORDS.search(said.message):
        return Kind.EGRESS
    if status == 404 and ("model_not_found" in said.words or _NO_MODEL_WORDS.search(said.message)):
        return Kind.PROJECT_MODEL
    if status in _KIND_OF_STATUS:
        return _KIND_OF_STATUS[status]
    if status >= 500:
        return Kind.OVERLOAD if overloaded else Kind.SERVER
    return Kind.REQUEST if status >= 400 else Kind.PROTOCOL


def _refused(outcome: Outcome, said: _Said, headers: Mapping[str, str], *, named: bool) -> Outcome:
    """A refusal for quota: of which kind, and for how long.

    Of the wait the message names and the header's the longer counts: the header is rounded. Days count
    as minutes here: their buckets refill evenly, so that the wait named is right.
    """
    if _TOO_LARGE.match(said.message):  # waiting makes no room for it here
        return structs.replace(outcome, kind=Kind.TOO_LARGE, retry_after=None)
    found = _AGAIN_WORDS.search(said.message)
    waits = [outcome.retry_after, hints.duration(found[1].rstrip(".")) if found else None]
    wait = max((seconds for seconds in waits if seconds is not None), default=None)
    if wait is None:
        wait = until_reset(headers)
    known = named or wait is not None or bool(_RATE_WORDS & {*said.words})
    kind = Kind.QUOTA_MINUTE if known else Kind.QUOTA_UNKNOWN
    return structs.replace(outcome, kind=kind, retry_after=wait)


def _limits(message: str, headers: Mapping[str, str]) -> tuple[tuple[Limit, ...], tuple[str, ...]]:
    """The limits an error names, and the names of those that it says are used up."""
    beside, found = named_limits(headers), _LIMIT_WORDS.search(message)
    if found is None:
        return beside, exhausted(headers)
    name = found["what"][0] + ("pd" if found["per"] == "day" else "pm")
    told = limits_of({name: amount_of(found["limit"])})
    return (*told, *(limit for limit in beside if limit.name != name)), (name,)


def _family(message: str) -> str | None:
    found = _FAMILY_WORDS.search(message)
    return None if found is None else class_of(found["family"] or found["model"])


def _as_asked(outcome: Outcome, should_retry: str) -> Outcome:
    """The upstream's own word on whether to try again outweighs what its status says."""
    if should_retry == "true" and outcome.kind is Kind.REQUEST:
        return structs.replace(outcome, kind=Kind.SERVER)
    if should_retry == "false" and outcome.kind in _MIGHT_PASS:
        said = f"{outcome.message.rstrip('.')}; the upstream says not to try again."
        return structs.replace(outcome, kind=Kind.REQUEST, message=said)
    return outcome


def _untyped(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """Something between us and the API answered, or the API in a form not known here."""
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    hint = hints.header_hint(headers)
    what = f"HTTP {status}, not in the API's form: {text[:200] or 'no body'}"
    kind = Kind.PROTOCOL
    if 300 <= status < 400:
        what = f"HTTP {status}: redirects are not followed with a key."
    elif status == 429:
        kind = Kind.QUOTA_UNKNOWN if hint is None else Kind.QUOTA_MINUTE
    elif status in (402, 498, 503, 529):
        kind = _KIND_OF_STATUS[status]
    elif status >= 500:
        kind = Kind.SERVER
    elif status in (401, 404, 405, 413):
        kind = Kind.BAD_KEY if status == 401 else Kind.REQUEST
    return Outcome(
        kind,
        what,
        status,
        hint,
        limits=named_limits(headers),
        upstream_id=headers.get("x-request-id"),
    )
