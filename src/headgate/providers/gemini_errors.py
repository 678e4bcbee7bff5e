"""What an error of the Gemini API means: read from its structure, from words only where it has none.

The facts and their sources are in docs/explanation/gemini-errors.md; the bodies they were taken from
are the tests' table (`tests/data/gemini/errors.json`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from headgate.core.outcome import Detail, Kind, Outcome
from headgate.core.quota import Limit
from headgate.policy import hints
from headgate.policy.quota.table import Quota

__all__ = ["UNREADABLE", "classify", "classify_body", "no_answer", "speaks_of_quota"]

# What decoding raises for bytes that are no answer; the last for one that is nested without end.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Violation(msgspec.Struct, rename="camel"):
    quota_metric: str = ""
    quota_id: str = ""
    quota_value: str | int | None = None
    quota_dimensions: dict[str, str] = {}


class _Detail(msgspec.Struct, rename="camel"):
    type: str = msgspec.field(name="@type", default="")
    violations: list[_Violation] = []
    retry_delay: str = ""
    reason: str = ""
    metadata: dict[str, str] = {}


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""
    status: str = ""
    details: list[msgspec.Raw] = []


class _Envelope(msgspec.Struct):
    error: _Error


_DECODE_ENVELOPE = msgspec.json.Decoder(_Envelope, strict=False)
_DECODE_LIST = msgspec.json.Decoder(list[_Envelope], strict=False)
_DECODE_DETAIL = msgspec.json.Decoder(_Detail, strict=False)

# Reasons of google.rpc.ErrorInfo with which a key is refused whatever it asks for.
_DEAD_KEY_REASONS = frozenset(
    (
        "API_KEY_INVALID",
        "API_KEY_EXPIRED",
        "API_KEY_SERVICE_BLOCKED",
        "API_KEY_HTTP_REFERRER_BLOCKED",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "API_KEY_ANDROID_APP_BLOCKED",
        "API_KEY_IOS_APP_BLOCKED",
        "CONSUMER_SUSPENDED",
        "CONSUMER_INVALID",
        "SERVICE_DISABLED",
    )
)
# The same without a reason, which is seen on 403 only. From the start: further on, a message may
# repeat what the caller wrote, and no prompt shall disable a key.
_DEAD_KEY_WORDS = re.compile(
    r"your api key was reported as leaked|permission denied: consumer \S+ has been suspended"
    r"|requests (to this api|from (referer|this))",
    re.IGNORECASE,
)
_RESOURCE_WORDS = re.compile(r"permission to access the file|cachedcontent not found", re.IGNORECASE)
_PAYLOAD_WORDS = "Request payload size exceeds the limit: "  # other sizes for each method
_ZERO_LIMIT_WORDS = re.compile(r"\blimit: 0\b")
_RETRY_WORDS = re.compile(r"please retry in ([\d.]+)s", re.IGNORECASE)
_FAMILY_WORDS = re.compile(r"\bmodel: ([\w.\-]+)")
_DAY_PARTS = re.compile(r"per_?day", re.IGNORECASE)
_MINUTE_PARTS = re.compile(r"per_?minute", re.IGNORECASE)
_TOKEN_PARTS = re.compile(r"token", re.IGNORECASE)
_REQUEST_PARTS = re.compile(r"requests", re.IGNORECASE)
_OVERLOAD_WORDS = re.compile(r"overloaded|high demand", re.IGNORECASE)

# Digits of an amount that is believed: quotas of 10¹⁵ tokens are none.
_LONGEST_AMOUNT = 15

# Accepted as S1-36, for errors without any structure: "quota" alone, or a bare 429, says nothing.
_QUOTA_WORDS = re.compile(
    r"quota (exceeded|exhausted)|exceeded .{0,40}quota|rate[_ ]limit|resource_exhausted"
    r"|too many requests",
    re.IGNORECASE,
)


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """The outcome of an answer whose status is not 200."""
    error = _parse(body)
    if error is None:
        return _untyped(status, headers, body)
    return _typed(error, status, hints.header_hint(headers))


def classify_body(body: bytes) -> Outcome | None:
    """The outcome of an error that came inside a 200, or None if the body is no error."""
    error = _parse(body)
    return None if error is None else _typed(error, error.code or 500, None)


def no_answer(body: bytes) -> Outcome:
    """What a 200 means that holds no answer: an error in disguise, or nothing of this API."""
    if (failed := classify_body(body)) is not None:
        return failed
    start = " ".join(body[:120].decode("utf-8", "replace").split())
    return Outcome(Kind.PROTOCOL, f"It begins: {start or '(nothing)'}.", 200)


def speaks_of_quota(text: str) -> bool:
    """Whether the words of an error without structure name quota as the reason (S1-36)."""
    return _QUOTA_WORDS.search(text) is not None


def _parse(body: bytes) -> _Error | None:
    try:
        if body.lstrip()[:1] == b"[":
            return _DECODE_LIST.decode(body)[0].error
        return _DECODE_ENVELOPE.decode(body).error
    except (msgspec.DecodeError, IndexError, UnicodeDecodeError, RecursionError):
        return None


def _details(error: _Error) -> list[_Detail]:
    found = []
    for raw in error.details:
        try:
            found.append(_DECODE_DETAIL.decode(raw))
        except (msgspec.DecodeError, RecursionError):
            continue  # a detail of a shape not known here says nothing we could use
    return found


def _typed(error: _Error, status: int, header_hint: float | None) -> Outcome:
    details = _details(error)
    message = error.message or f"HTTP {status} without a message."
    hint = _hint(details, error.message)
    if hint is None:
        hint = header_hint
    if status == 429:
        return _quota(error, details, hint)
    kind = _kind(status, error, {detail.reason for detail in details})
    large = kind is Kind.REQUEST and error.message.startswith(_PAYLOAD_WORDS)
    return Outcome(kind, message, status, hint, detail=Detail.PAYLOAD if large else None)


def _kind(status: int, error: _Error, reasons: set[str]) -> Kind:  # noqa: PLR0911 - a table by status
    message = error.message
    if status == 401 or reasons & _DEAD_KEY_REASONS:
        return Kind.BAD_KEY
    if status == 400:
        return Kind.EGRESS if "location is not supported" in message else Kind.REQUEST
    if status == 403:
        if _DEAD_KEY_WORDS.match(message):
            return Kind.BAD_KEY
        if "unregistered callers" in message:
            return Kind.REQUEST
        return Kind.RESOURCE if _RESOURCE_WORDS.search(message) else Kind.KEY_MODEL
    if status == 404:
        return Kind.PROJECT_MODEL if "no longer available to new users" in message else Kind.REQUEST
    if status == 503 and _OVERLOAD_WORDS.search(message):
        return Kind.OVERLOAD
    if status >= 500 or status in (408, 499):
        return Kind.SERVER
    return Kind.PROTOCOL if status < 400 else Kind.REQUEST


def _quota(error: _Error, details: list[_Detail], hint: float | None) -> Outcome:
    violations = [violation for detail in details for violation in detail.violations]
    infos = [detail.metadata for detail in details if "quota_limit" in detail.metadata]
    names = " ".join(
        [f"{violation.quota_id} {violation.quota_metric}" for violation in violations]
        + [f"{info['quota_limit']} {info.get('quota_metric', '')}" for info in infos]
    )
    values = [violation.quota_value for violation in violations]
    values += [info.get("quota_limit_value") for info in infos]
    named = [(_limit_name(f"{v.quota_id} {v.quota_metric}"), v.quota_value) for v in violations]
    family = _family(error.message, violations)
    return Outcome(
        _quota_kind(error, names, values, hint, has_details=bool(error.details)),
        error.message or "HTTP 429 without a message.",
        429,
        hint,
        quota_model=family,
        quota_names=tuple(dict.fromkeys(name for name, _ in named if name is not None)),
        limits=_limits(named),
    )


def _limit_name(parts: str) -> str | None:
    """Which limit a violation concerns, by parts of its quota id and metric; None: one not known."""
    per_day = _DAY_PARTS.search(parts) is not None
    if not per_day and not _MINUTE_PARTS.search(parts):
        return None
    if _TOKEN_PARTS.search(parts):
        return "tpd" if per_day else "tpm"
    if _REQUEST_PARTS.search(parts):
        return "rpd" if per_day else "rpm"
    return None


def _limits(named: list[tuple[str | None, str | int | None]]) -> tuple[Limit, ...]:
    """The limits that violations name with an amount. Of several amounts for one the smallest counts;
    an amount of nought is no limit but a model that the tier does not have."""
    amounts: dict[str, int] = {}
    for name, value in named:
        amount = _amount(value)
        if name is not None and amount is not None:
            amounts[name] = min(amount, amounts.get(name, amount))
    return Quota(**amounts).limits()


def _amount(value: str | int | None) -> int | None:
    """A quota value, an int64 that JSON writes as text; None where it is none of a quota's size."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_AMOUNT):
        return None
    return int(text) or None


def _quota_kind(
    error: _Error,
    names: str,
    values: list[str | int | None],
    hint: float | None,
    *,
    has_details: bool,
) -> Kind:
    message = error.message
    kind = Kind.QUOTA_UNKNOWN
    if "CachedContentStorage" in message + names:
        kind = Kind.STORAGE
    elif "prepayment credits" in message:
        kind = Kind.BILLING
    elif any(str(value) == "0" for value in values) or _ZERO_LIMIT_WORDS.search(message):
        kind = Kind.QUOTA_ZERO
    elif _DAY_PARTS.search(names or message):
        kind = Kind.QUOTA_DAY  # of several violations the longest wait counts
    elif _MINUTE_PARTS.search(names or message) or names:
        kind = Kind.QUOTA_MINUTE
    elif not has_details and message.startswith("Resource has been exhausted"):
        kind = Kind.CAPACITY
    elif hint is not None:
        kind = Kind.QUOTA_MINUTE
    return kind


def _family(message: str, violations: list[_Violation]) -> str | None:
    for violation in violations:
        if model := violation.quota_dimensions.get("model"):
            return model
    found = _FAMILY_WORDS.search(message)
    return found[1] if found else None


def _untyped(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    hint = hints.header_hint(headers)
    what = f"HTTP {status}, not in the API's form: {text[:200] or 'no body'}"
    if status == 429 or speaks_of_quota(text):
        return Outcome(Kind.QUOTA_UNKNOWN, what, status, hint)
    if status >= 500:
        return Outcome(Kind.SERVER, what, status, hint)
    if 300 <= status < 400:
        return Outcome(Kind.PROTOCOL, f"HTTP {status}: redirects are not followed with a key.", status)
    if status in (401, 404, 405, 413):
        return Outcome(Kind.BAD_KEY if status == 401 else Kind.REQUEST, what, status)
    return Outcome(Kind.PROTOCOL, what, status)  # something between us and the API answered


def _hint(details: list[_Detail], message: str) -> float | None:
    """The longest wait the error names. RetryInfo cuts fractions off that the message still has:
    45.81 s becomes "45s", and coming back after 45 would be refused again."""
    named = [detail.retry_delay[:-1] for detail in details if detail.retry_delay.endswith("s")]
    named += _RETRY_WORDS.findall(message)
    seconds = [number for number in map(hints.seconds, named) if number is not None]
    return max(seconds, default=None)


def detail(finish_reason: str) -> Detail | None:
    """What a reason for which an answer was withheld is told apart by; LANGUAGE is neither."""
    if finish_reason.endswith("RECITATION"):
        return Detail.RECITATION
    return None if finish_reason == "LANGUAGE" else Detail.SAFETY
