"""What became of one attempt: classified once, by the provider, and read by every stage after it.

`Kind` names what happened; `RULES` says, once for all of them, what follows: what the key or its
domain suffers, and what the call does next.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from headgate.core.quota import Limit
from headgate.core.raw import RawReply
from headgate.core.tokens import Usage

__all__ = ["RULES", "Booking", "Detail", "Kind", "Next", "Outcome", "Rule"]


class Kind(StrEnum):
    """What happened to an attempt."""

    SUCCESS = "success"
    # the domain is out of quota
    QUOTA_MINUTE = "quota_minute"
    QUOTA_DAY = "quota_day"
    QUOTA_UNKNOWN = "quota_unknown"  # a quota refusal that does not say which quota
    QUOTA_ZERO = "quota_zero"  # the tier has no quota at all for this model
    BILLING = "billing"
    # the key, or the key for this model, is refused
    BAD_KEY = "bad_key"
    KEY_MODEL = "key_model"
    PROJECT_MODEL = "project_model"
    TOO_LARGE = "too_large"  # one call is more than the domain's whole quota; another's may be larger
    # nobody's fault, may pass
    CAPACITY = "capacity"
    OVERLOAD = "overload"
    SERVER = "server"
    NETWORK = "network"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"  # the answer was cut, malformed, or no answer of this API at all
    LATE = "late"  # no byte was sent: this process got to it too long after its reservation
    BREAKER_OPEN = "breaker_open"  # no byte was sent: the model failed in a row, and is left alone
    # never again as it is
    TLS = "tls"
    EGRESS = "egress"
    RESOURCE = "resource"
    STORAGE = "storage"
    BLOCKED = "blocked"
    REQUEST = "request"
    # the caller went away
    CANCELLED = "cancelled"


class Booking(StrEnum):
    """What the key or its domain suffers."""

    NOTHING = "nothing"
    SKIP_DOMAIN = "skip_domain"  # nothing: only this call does not ask it again
    PARK_MODEL = "park_model"  # the domain cools down for this model
    PARK_DOMAIN = "park_domain"  # the domain cools down for every model
    DENY_DOMAIN_MODEL = "deny_domain_model"
    DENY_KEY_MODEL = "deny_key_model"
    DISABLE_KEY = "disable_key"


_OF_THE_DOMAIN = (Booking.PARK_MODEL, Booking.PARK_DOMAIN, Booking.SKIP_DOMAIN)


class Next(StrEnum):
    """What the call does next."""

    DONE = "done"
    ROTATE = "rotate"  # another domain or key at once; costs neither a retry nor a sleep
    RETRY = "retry"  # the same key after a back-off; costs a retry
    STOP = "stop"  # nothing more now; the same call may succeed later
    FAIL = "fail"


class Rule(Struct, frozen=True):
    """What follows from a kind of outcome, and how it is shown."""

    next: Next
    booking: Booking
    public_kind: str
    http_status: int
    is_quota: bool = False

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later without a change."""
        return self.next is not Next.FAIL

    @property
    def leaves_domain(self) -> bool:
        """Whether the call does not ask the same domain again before it has waited."""
        return self.booking in _OF_THE_DOMAIN


def _quota(booking: Booking = Booking.PARK_MODEL) -> Rule:
    return Rule(Next.ROTATE, booking, "quota", 429, is_quota=True)


def _transient(public_kind: str, status: int) -> Rule:
    return Rule(Next.RETRY, Booking.NOTHING, public_kind, status)


def _final(public_kind: str, status: int) -> Rule:
    return Rule(Next.FAIL, Booking.NOTHING, public_kind, status)


RULES: dict[Kind, Rule] = {
    Kind.SUCCESS: Rule(Next.DONE, Booking.NOTHING, "success", 200),
    Kind.QUOTA_MINUTE: _quota(),
    Kind.QUOTA_DAY: _quota(),
    Kind.QUOTA_UNKNOWN: _quota(),
    Kind.QUOTA_ZERO: _quota(),
    Kind.BILLING: _quota(Booking.PARK_DOMAIN),
    Kind.BAD_KEY: Rule(Next.ROTATE, Booking.DISABLE_KEY, "auth", 503),
    Kind.KEY_MODEL: Rule(Next.ROTATE, Booking.DENY_KEY_MODEL, "no_access", 403),
    Kind.PROJECT_MODEL: Rule(Next.ROTATE, Booking.DENY_DOMAIN_MODEL, "no_access", 404),
    Kind.TOO_LARGE: Rule(Next.ROTATE, Booking.SKIP_DOMAIN, "invalid", 400),
    Kind.CAPACITY: _transient("unavailable", 503),
    Kind.OVERLOAD: _transient("unavailable", 503),
    Kind.SERVER: _transient("server", 502),
    Kind.NETWORK: _transient("network", 502),
    Kind.TIMEOUT: _transient("timeout", 504),
    Kind.PROTOCOL: _transient("protocol", 502),
    Kind.LATE: _transient("busy", 503),
    Kind.BREAKER_OPEN: Rule(Next.STOP, Booking.NOTHING, "unavailable", 503),
    Kind.TLS: _final("tls", 502),
    Kind.EGRESS: _final("egress", 403),
    Kind.RESOURCE: _final("resource", 403),
    Kind.STORAGE: _final("storage_quota", 429),
    Kind.BLOCKED: _final("blocked", 422),
    Kind.REQUEST: _final("invalid", 400),
    Kind.CANCELLED: _final("cancelled", 499),
}


class Detail(StrEnum):
    """What a kind leaves open and some callers tell apart. Decides nothing here."""

    DNS = "dns"  # the name was not resolved
    CONNECT_TIMEOUT = "connect_timeout"  # no connection in time, so nothing was sent
    SAFETY = "safety"  # the model's own filters
    RECITATION = "recitation"
    PAYLOAD = "payload"  # more bytes than the upstream takes in one request


class Outcome(Struct, frozen=True):
    """The result of one attempt.

    Attributes:
        kind: what happened.
        message: the upstream's words or ours, already redacted.
        status: HTTP status, or None when there was none.
        retry_after: the upstream's own hint in seconds, or None.
        quota_model: the model family the upstream named in a quota refusal, or None: models of one
            family are counted together.
        quota_names: names of the limits (`rpm`, `tpm`, `rpd`, …) that a quota refusal says are used up;
            empty where it does not say.
        limits: quotas of the key's domain and model that the upstream named with their amounts, in a
            refusal or beside an answer.
        usage: tokens the attempt is known to have used, or None.
        upstream_id: what the upstream calls the request, for its support; or None.
        detail: what the kind leaves open, where it is known.
        raw: a final refusal as it came, without the credential, of a call that was raw; None where
            there is none, or too much of it.
    """

    kind: Kind
    message: str = ""
    status: int | None = None
    retry_after: float | None = None
    quota_model: str | None = None
    quota_names: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    usage: Usage | None = None
    upstream_id: str | None = None
    detail: Detail | None = None
    raw: RawReply | None = None

    @property
    def rule(self) -> Rule:
        """What follows from this outcome."""
        return RULES[self.kind]
