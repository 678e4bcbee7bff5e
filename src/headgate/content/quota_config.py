"""What a quota tracker is told, and what it says: limits and margins, refusals, what is put aside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from msgspec import Struct

from headgate.content.settings import ContentSettings
from headgate.core.call import Priority
from headgate.core.errors import ConfigurationError, HeadgateError
from headgate.core.quota import Counts, Kind, Limit
from headgate.policy.quota.windows import DAY
from headgate.wiring.calls import standing

__all__ = [
    "LIMITS",
    "PRIORITY_NAMES",
    "Held",
    "NoRoom",
    "QuotaConfig",
    "QuotaExceededError",
    "RequestPriority",
    "limit_sentence",
    "priority_of",
]

RequestPriority = Priority
"""S4's name of the one enum: CRITICAL, HIGH, NORMAL (which it calls MEDIUM), LOW."""

PRIORITY_NAMES: Mapping[Priority, str] = {
    Priority.CRITICAL: "CRITICAL",
    Priority.HIGH: "HIGH",
    Priority.NORMAL: "MEDIUM",
    Priority.LOW: "LOW",
}
"""As S4 shows them."""

LIMITS = ("rpm", "rpd", "tpm", "tpd")

_PERIODS = {"rpm": "minute", "tpm": "minute", "rpd": "day", "tpd": "day"}
_SHORT = {
    "rpm": "requests_per_minute",
    "rpd": "requests_per_day",
    "tpm": "tokens_per_minute",
    "tpd": "tokens_per_day",
}


def priority_of(given: object) -> Priority:
    """A priority, or its name in any case. Raises `InvalidCallError`, also for a bare number: S3 and S4
    count in opposite directions."""
    return standing({"priority": given})[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaConfig:
    """Limits, as the provider states them, and the share of each that is used (S4-08, S4 §5.7).

    Attributes:
        requests_per_minute, requests_per_day, tokens_per_minute, tokens_per_day: nominal; those of
            Gemini's free tier as S4 has them, which are defaults and no facts.
        rpm_safety_margin, rpd_safety_margin, tpm_safety_margin, tpd_safety_margin: above 0 and up to 1.
        enable_fallback: whether an earlier response may stand in.
        fallback_cache_ttl: seconds it may.
        max_queue_size: pieces of work that may wait.
        queue_timeout: seconds one may wait.

    Raises:
        ConfigurationError: a value is outside what it takes.
    """

    requests_per_minute: int = 15
    requests_per_day: int = 1500
    tokens_per_minute: int = 1_000_000
    tokens_per_day: int = 50_000_000
    rpm_safety_margin: float = 0.8
    rpd_safety_margin: float = 0.8
    tpm_safety_margin: float = 0.8
    tpd_safety_margin: float = 0.8
    enable_fallback: bool = True
    fallback_cache_ttl: float = 3600
    max_queue_size: int = 100
    queue_timeout: float = 30

    def __post_init__(self) -> None:
        for name in (*_SHORT.values(), "max_queue_size"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(
                    f"{name} is {value!r:.80}; it takes a whole number, 1 or more."
                )
        for limit in LIMITS:
            margin: object = getattr(self, f"{limit}_safety_margin")
            good = isinstance(margin, int | float) and not isinstance(margin, bool)
            if not good or not 0 < float(margin) <= 1:  # type: ignore[arg-type]
                name = f"{limit}_safety_margin"
                raise ConfigurationError(
                    f"{name} is {margin!r:.80}; it takes a share above 0, up to 1."
                )

    @classmethod
    def of(cls, settings: ContentSettings) -> QuotaConfig:
        """The configuration of a content service."""
        margin = settings.quota_safety_margin
        return cls(
            requests_per_minute=settings.quota_rpm, requests_per_day=settings.quota_rpd,
            tokens_per_minute=settings.quota_tpm, tokens_per_day=settings.quota_tpd,
            rpm_safety_margin=margin, rpd_safety_margin=margin,
            tpm_safety_margin=margin, tpd_safety_margin=margin,
            enable_fallback=settings.quota_enable_fallback,
            fallback_cache_ttl=settings.quota_fallback_cache_ttl,
            max_queue_size=settings.quota_max_queue_size, queue_timeout=settings.quota_queue_timeout,
        )  # fmt: skip

    def nominal(self, limit: str) -> int:
        """A limit as it is stated: `rpm`, `rpd`, `tpm` or `tpd`."""
        number: int = getattr(self, _SHORT[limit])
        return number

    def safe(self, limit: str) -> int:
        """What of it is used: floor(nominal × margin) in decimal, at least 1."""
        margin = Decimal(str(getattr(self, f"{limit}_safety_margin")))
        return max(1, int(self.nominal(limit) * margin))

    def get_safe_rpm(self) -> int:
        """Requests a minute that are used."""
        return self.safe("rpm")

    def get_safe_rpd(self) -> int:
        """Requests a day that are used."""
        return self.safe("rpd")

    def get_safe_tpm(self) -> int:
        """Tokens a minute that are used."""
        return self.safe("tpm")

    def get_safe_tpd(self) -> int:
        """Tokens a day that are used."""
        return self.safe("tpd")

    def limits(self) -> tuple[Limit, ...]:
        """The ledger's limits, for a tracker that stands alone."""
        return (
            Limit("rpm", Counts.REQUESTS, self.safe("rpm")),
            Limit("tpm", Counts.TOTAL, self.safe("tpm")),
            Limit("rpd", Counts.REQUESTS, self.safe("rpd"), Kind.CALENDAR, DAY),
            Limit("tpd", Counts.TOTAL, self.safe("tpd"), Kind.CALENDAR, DAY),
        )


class Held(Struct, frozen=True):
    """What is put aside for one call.

    Attributes:
        rid: of the reservation; empty where no quota is tracked.
        tokens: put aside.
        model: the model whose ledger it is in.
    """

    rid: str = ""
    tokens: int = 0
    model: str = ""


class NoRoom(Struct, frozen=True):
    """The quota has no room for what was asked.

    Attributes:
        limit: the name of the limit that binds; None: no limit of ours, its keys cool down.
        seconds: until there may be room; None: never by waiting.
        fits: how many of those that were asked for have room now.
        settling: nothing is full; the shared ledger is finding out who else is there.
    """

    limit: str | None
    seconds: float | None
    fits: int = 0
    settling: bool = False


def limit_sentence(limit: str | None, nominal: int | None) -> str:
    """The accepted words of a refusal: `RPM limit exceeded (15 per minute)`."""
    if limit is None or limit not in _PERIODS:
        return "The provider's quota is used up"
    amount = "" if nominal is None else f" ({nominal} per {_PERIODS[limit]})"
    return f"{limit.upper()} limit exceeded{amount}"


class QuotaExceededError(HeadgateError):
    """A call does not fit the quota (S4-06).

    Attributes:
        limit: `rpm`, `rpd`, `tpm`, `tpd`; None where the provider refused without naming one.
        fits: how many of the calls that were asked for together have room now.
    """

    default_kind = "quota"
    http_status = 429
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        limit: str | None = None,
        retry_after: float | None = None,
        fits: int = 0,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, request_id=request_id)
        self.limit = limit
        self.fits = fits

    @property
    def wait_seconds(self) -> int:
        """The true wait in whole seconds, at least 1; a minute where nobody knows it (C4)."""
        return 60 if self.retry_after is None else max(1, math.ceil(self.retry_after))

    def to_dict(self) -> dict[str, object]:
        """The accepted body."""
        return {
            "error": "quota_exceeded",
            "message": self.message,
            "retry_after": f"{self.wait_seconds} seconds",
        }
