"""Refusals with the bodies of the real API."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from headgate.emulator.chance import Chance
from headgate.emulator.vocabulary import ALIASES, ERRORS

__all__ = ["Refusal", "Shortage", "bad_request", "quota_refusal", "recorded", "unknown_fields"]

_TYPE = "type.googleapis.com/google.rpc."
_METRIC = "generativelanguage.googleapis.com/"
_HELP = {
    "@type": _TYPE + "Help",
    "links": [
        {
            "description": "Learn more about Gemini API quotas",
            "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
        }
    ],
}
_EXCEEDED = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)
_MONITOR = " To monitor your current usage, head to: https://ai.dev/rate-limit. "


class _Error(Protocol):
    """An answer that is an error; `reason` is what the report counts it under."""

    @property
    def reason(self) -> str: ...


R = TypeVar("R", bound=_Error)


class Refused(Exception, Generic[R]):  # noqa: N818 - it is a signal, not an error
    """The request is answered with an error body."""

    def __init__(self, refusal: R) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        body: the JSON, with the outer `error`. May echo a key, as the real one does: never shown.
        reason: what the report counts it under.
    """

    status: int
    body: dict[str, Any] = field(repr=False)
    reason: str


@dataclass(frozen=True)
class Shortage:
    """One quota without room.

    Attributes:
        quota: `rpm`, `tpm` or `rpd`.
        limit: its limit.
        wait: seconds until there is room; `inf` if a single call is larger than the limit.
    """

    quota: str
    limit: int
    wait: float


def recorded(kind: str, values: Mapping[str, str], reason: str | None = None) -> Refusal:
    """A recorded error by id or short name, with the request's own key, model … filled in."""
    entry = ERRORS[ALIASES.get(kind, kind)]
    return Refusal(entry["http"], _fill(entry["body"], values), reason or kind)


def bad_request(message: str, reason: str = "invalid_argument") -> Refusal:
    """400 INVALID_ARGUMENT without details."""
    body = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
    return Refusal(400, body, reason)


def unknown_fields(violations: Sequence[tuple[str, str]]) -> Refusal:
    """400 with one line and one violation per (field path, description)."""
    described: list[dict[str, str]] = []
    for path, description in violations:
        entry = {"field": path} if path else {}
        described.append({**entry, "description": description})
    refusal = bad_request("\n".join(text for _, text in violations), "invalid_json")
    refusal.body["error"]["details"] = [{"@type": _TYPE + "BadRequest", "fieldViolations": described}]
    return refusal


def quota_refusal(
    shortages: Sequence[Shortage],
    *,
    family: str,
    tier: str,
    embedding: bool,
    form: str,
    rounding: str,
    chance: Chance,
) -> Refusal:
    """The 429 for quotas without room, in the wanted form.

    The hint is the true wait for minute quotas. With a daily quota among them it is a short random
    time, as in the recorded bodies: whoever believes it comes back for nothing.
    """
    if form == "mixed":
        form = chance.choice(("2026", "classic", "no_value", "shuffled"))
    longest = max(shortages, key=lambda s: (s.limit == 0, s.quota == "rpd", s.wait))
    reason = f"{longest.quota}_zero" if longest.limit == 0 else longest.quota
    delay = _delay(shortages, chance)
    message, details = _EXCEEDED, _details(shortages, family, tier, embedding, delay, rounding, form)
    if form == "bare":
        return recorded("429-bare", {}, reason)
    if form in ("2026", "shuffled"):
        message += _MONITOR + _lines(shortages, family, tier, embedding, delay)
    if form == "shuffled":
        chance.shuffle(details)
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}
    return Refusal(429, {"error": error}, reason)


def _delay(shortages: Sequence[Shortage], chance: Chance) -> float:
    if any(s.quota == "rpd" or s.limit == 0 or math.isinf(s.wait) for s in shortages):
        return chance.uniform(0.5, 47.0)
    return max(s.wait for s in shortages)


def _details(
    shortages: Sequence[Shortage],
    family: str,
    tier: str,
    embedding: bool,
    delay: float,
    rounding: str,
    form: str,
) -> list[dict[str, Any]]:
    violations: list[dict[str, Any]] = []
    for shortage in shortages:
        metric, quota_id = _names(shortage.quota, tier, embedding=embedding)
        violation: dict[str, Any] = {
            "quotaMetric": _METRIC + metric,
            "quotaId": quota_id,
            "quotaDimensions": {"model": family, "location": "global"},
        }
        if shortage.limit and form != "no_value":  # proto3 JSON drops zeros
            violation["quotaValue"] = str(shortage.limit)
        violations.append(violation)
    failure = {"@type": _TYPE + "QuotaFailure", "violations": violations}
    whole = math.ceil(delay) if rounding == "up" else math.floor(delay)
    info = {"@type": _TYPE + "RetryInfo", "retryDelay": f"{whole}s"}
    if form == "help_only":
        return [_HELP]
    return [failure, _HELP, info] if form == "classic" else [_HELP, failure, info]


def _lines(shortages: Sequence[Shortage], family: str, tier: str, embedding: bool, delay: float) -> str:
    lines = [
        f"\n* Quota exceeded for metric: {_METRIC}{_names(s.quota, tier, embedding=embedding)[0]}, "
        f"limit: {s.limit}, model: {family}"
        for s in shortages
    ]
    return "".join(lines) + f"\nPlease retry in {_decimal(delay)}s."


def _decimal(seconds: float) -> str:
    nanoseconds = math.ceil(seconds * 1e9)  # up: whoever believes it must not come too early
    return f"{nanoseconds / 1e9:.9f}".rstrip("0").rstrip(".")


def _names(quota: str, tier: str, *, embedding: bool) -> tuple[str, str]:
    """(metric, quotaId) of a quota, as seen in 429 bodies of that tier."""
    suffix = {"free": "-FreeTier", "paid": "-PaidTier", "paid_2": "-PaidTier2", "paid_3": "-PaidTier3"}
    words = {"free": "free_tier", "paid": "paid_tier", "paid_2": "paid_tier_2", "paid_3": "paid_tier_3"}
    span = "Day" if quota == "rpd" else "Minute"
    if embedding:
        user = "PerUser" if tier == "free" else ""
        if quota == "tpm":  # no such body was ever seen; named like its neighbours
            name = f"EmbedContentInputTokensPerModelPer{span}{suffix[tier]}"
            return f"embed_content_{words[tier]}_input_token_count", name
        name = f"EmbedContentRequestsPer{span}{user}PerProjectPerModel{suffix[tier]}"
        return f"embed_content_{words[tier]}_requests", name
    if quota == "tpm":
        name = f"GenerateContentInputTokensPerModelPer{span}{suffix[tier]}"
        if tier == "paid":
            name = f"GenerateContentPaidTierInputTokensPerModelPer{span}"
        return f"generate_content_{words[tier]}_input_token_count", name
    ending = "" if (tier, quota) == ("paid", "rpd") else suffix[tier]
    name = f"GenerateRequestsPer{span}PerProjectPerModel{ending}"
    if tier == "free":
        return "generate_content_free_tier_requests", name
    return "generate_requests_per_model" + ("_per_day" if quota == "rpd" else ""), name


def _fill(template: Any, values: Mapping[str, str]) -> Any:
    if isinstance(template, dict):
        return {name: _fill(value, values) for name, value in template.items()}
    if isinstance(template, list):
        return [_fill(value, values) for value in template]
    if isinstance(template, str) and "{" in template:
        for name, value in values.items():
            template = template.replace("{" + name + "}", value)
    return template
