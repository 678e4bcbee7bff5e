"""What an error of the Anthropic API means: read from status, type and code, from words only where
those say too little.

The facts and their sources are in docs/reference/claude.md; the bodies they were taken from are the
tests' table (`tests/data/anthropic/errors.json`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from headgate.core.outcome import Kind, Outcome
from headgate.core.quota import Limit
from headgate.policy import hints
from headgate.policy.quota.table import Quota

__all__ = ["LimitReading", "classify", "classify_body", "named_limits", "read_limits"]


class LimitReading(msgspec.Struct, frozen=True):
    """One limit as the headers of an answer show it.

    Attributes:
        name: `requests`, `tokens`, `input-tokens`, `output-tokens`.
        limit: so much a minute.
        remaining: what is left of it; tokens are rounded to thousands.
        resets: Unix time at which it is full again, or None.
    """

    name: str
    limit: int
    remaining: int
    resets: float | None


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""
    details: msgspec.Raw = msgspec.Raw()


class _Envelope(msgspec.Struct):
    error: _Error
    request_id: str | None = None


class _Details(msgspec.Struct):
    error_code: str = ""


_DECODE_ENVELOPE = msgspec.json.Decoder(_Envelope, strict=False)
_DECODE_DETAILS = msgspec.json.Decoder(_Details)

# What a type stands for where there is no status: in an event of a stream that began with 200.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "forbidden": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

_KIND_OF_STATUS = {
    401: Kind.BAD_KEY,
    402: Kind.BILLING,
    403: Kind.BAD_KEY,
    408: Kind.SERVER,
    409: Kind.SERVER,
    529: Kind.OVERLOAD,
}

# Codes of a 429 that no waiting of seconds cures: money is the limit.
_SPEND_CODES = frozenset(
    ("enforced_spend_limit_reached", "contract_spend_limit_reached", "ramp_limit_exceeded")
)
_SPEND_WORDS = re.compile(r"specified API usage limits|credit balance is too low", re.IGNORECASE)
_REGAIN = re.compile(r"regain access on (\d{4}-\d\d-\d\d)(?: at (\d\d:\d\d) UTC)?")
_LIMIT_NAMES = ("requests", "tokens", "input-tokens", "output-tokens")
_PREFIX = "anthropic-ratelimit-"
_LEDGER_NAMES = {"requests": "rpm", "input-tokens": "itpm", "output-tokens": "otpm"}

# Digits of an amount that is believed: quotas of 10¹⁵ tokens are none.
_LONGEST_AMOUNT = 15


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """The outcome of an answer whose status is not 200."""
    envelope = _parse(body)
    if envelope is None:
        return _untyped(status, headers, body)
    return _typed(envelope, status, headers)


def classify_body(body: bytes) -> Outcome | None:
    """The outcome of an error that came inside a 200, or None if the body is no error."""
    envelope = _parse(body)
    if envelope is None:
        return None
    return _typed(envelope, _STATUS_OF_TYPE.get(envelope.error.type, 500), None)


def read_limits(headers: Mapping[str, str]) -> tuple[LimitReading, ...]:
    """The limits that the headers of an answer show; one that is not whole is left out."""
    found = []
    for name in _LIMIT_NAMES:
        limit = headers.get(f"{_PREFIX}{name}-limit", "")
        remaining = headers.get(f"{_PREFIX}{name}-remaining", "")
        if limit.isdecimal() and remaining.isdecimal():
            resets = _moment(headers.get(f"{_PREFIX}{name}-reset", ""))
            found.append(LimitReading(name, int(limit), int(remaining), resets))
    return tuple(found)


def named_limits(headers: Mapping[str, str]) -> tuple[Limit, ...]:
    """The limits that stand beside every answer, as the ledger counts them.

    `tokens` is left out: it repeats whichever of the limits is the tightest at the moment (vendor's
    page of rate limits), so it says nothing new, and its amount changes its meaning.
    """
    return _limits_of(*(headers.get(f"{_PREFIX}{name}-limit", "") for name in _LEDGER_NAMES))


@lru_cache(maxsize=256)
def _limits_of(*amounts: str) -> tuple[Limit, ...]:
    """The same few texts come with every answer of an organisation: they are read once."""
    numbers = {
        name: int(text)
        for name, text in zip(_LEDGER_NAMES.values(), amounts, strict=True)
        if text.isascii() and text.isdigit() and len(text) <= _LONGEST_AMOUNT and int(text)
    }
    return Quota(**numbers).limits()


def _exhausted(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the limits of which nothing is left."""
    return tuple(
        _LEDGER_NAMES[reading.name]
        for reading in read_limits(headers)
        if reading.remaining == 0 and reading.name in _LEDGER_NAMES
    )


def _parse(body: bytes) -> _Envelope | None:
    try:
        return _DECODE_ENVELOPE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _typed(envelope: _Envelope, status: int, headers: Mapping[str, str] | None) -> Outcome:
    """`headers` is None for an error that came inside a stream."""
    error = envelope.error
    known = headers or {}
    upstream_id = known.get("request-id") or envelope.request_id
    kind, hint = _kind(error, status, headers), hints.header_hint(known)
    if kind is Kind.BILLING:
        hint = _until_access(error.message, known) or hint
    elif kind is Kind.QUOTA_MINUTE and hint is None:
        hint = _until_reset(known)
    message = error.message or f"HTTP {status} without a message."
    if upstream_id:
        message = f"{message.rstrip('.')} ({upstream_id})."
    names = _exhausted(known) if kind is Kind.QUOTA_MINUTE else ()
    return Outcome(
        kind,
        message,
        status,
        hint,
        quota_names=names,
        limits=named_limits(known),
        upstream_id=upstream_id,
    )


def _kind(error: _Error, status: int, headers: Mapping[str, str] | None) -> Kind:  # noqa: PLR0911 - a table
    if error.type == "overloaded_error":
        return Kind.OVERLOAD
    if status == 429:
        return _quota_kind(error, headers)
    if status == 400 and _SPEND_WORDS.search(error.message):
        return Kind.BILLING
    if status == 403 and error.type == "forbidden":  # said before anyone looked at the key
        return Kind.EGRESS
    if status in _KIND_OF_STATUS:
        return _KIND_OF_STATUS[status]
    if status >= 500:
        return Kind.SERVER
    return Kind.REQUEST if status >= 400 else Kind.PROTOCOL


def _quota_kind(error: _Error, headers: Mapping[str, str] | None) -> Kind:
    """A refusal without a hint is the tier's spend cap, unless a limit is seen to be empty."""
    if _error_code(error) in _SPEND_CODES:
        return Kind.BILLING
    if headers is None:
        return Kind.QUOTA_UNKNOWN
    if "retry-after" in headers or _until_reset(headers) is not None:
        return Kind.QUOTA_MINUTE
    return Kind.BILLING


def _error_code(error: _Error) -> str:
    try:
        return _DECODE_DETAILS.decode(error.details).error_code
    except msgspec.DecodeError:
        return ""


def _untyped(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """Something between us and the API answered, or the API in a form not known here."""
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    hint = hints.header_hint(headers)
    what = f"HTTP {status}, not in the API's form: {text[:200] or 'no body'}"
    upstream_id = headers.get("request-id")
    kind = Kind.PROTOCOL
    if 300 <= status < 400:
        what = f"HTTP {status}: redirects are not followed with a key."
    elif status == 429:
        kind = Kind.QUOTA_UNKNOWN
    elif status == 529:
        kind = Kind.OVERLOAD
    elif status >= 500:
        kind = Kind.SERVER
    elif status in (401, 404, 405, 413):
        kind = Kind.BAD_KEY if status == 401 else Kind.REQUEST
    return Outcome(kind, what, status, hint, upstream_id=upstream_id)


def _until_access(message: str, headers: Mapping[str, str]) -> float | None:
    """Seconds until the day the message names, by the upstream's own clock."""
    found, now = _REGAIN.search(message), hints.header_date(headers)
    if found is None or now is None:
        return None
    day = _moment(f"{found[1]}T{found[2] or '00:00'}:00Z")
    return None if day is None else max(0.0, day - now.timestamp())


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until the limits that are empty are full again."""
    now = hints.header_date(headers)
    if now is None:
        return None
    empty = [limit.resets for limit in read_limits(headers) if limit.remaining == 0]
    waits = [resets - now.timestamp() for resets in empty if resets is not None]
    return max((wait for wait in waits if wait >= 0), default=None)


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
