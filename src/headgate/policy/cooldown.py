"""How long a domain cools down after a quota refusal.

per minute    the upstream's hint, else `fallback` (60 s by default)
per day       until midnight Pacific, whatever a short hint says; a hint above an hour replaces it.
              Hints of 0–47 s were seen on per-day refusals (public issues, 2026), so the class decides
unknown       `fallback`, doubled for each refusal in a row up to an hour: a quota that lasts is found
              out without asking it every minute
none at all   a day: the tier has no quota for this model, and waiting rarely helps
billing       an hour: topping up an account takes a person. A hint above that replaces it: some
              upstreams name the day on which access returns, up to a month ahead

Long cool-downs rest on an assumption (when the upstream's day ends, what its refusal meant), so they
carry a probe: one call an hour may try, if no other domain has room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from headgate.core.outcome import Kind
from headgate.policy.days import day_start, next_reset

__all__ = ["HOUR", "Cooldown", "cooldown"]

HOUR = 3600.0
DAY = 86_400.0

# Spend limits count by the month; no day further off is believed.
LONGEST_BILL = 32 * DAY

# A hint of nought would send the next call into the same refusal.
SHORTEST = 1.0

# A provider's reset comes a little late: a per-day refusal this soon after midnight means the old day,
# not that the new one is already spent. Asked again every five minutes, at most twice.
LATE_RESET = 600.0
LATE_RESET_RETRY = 300.0


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Seconds to cool down, and seconds until one probe is allowed (None: no probe)."""

    seconds: float
    probe_after: float | None = None


def cooldown(kind: Kind, hint: float | None, *, fallback: float, streak: int, wall: float) -> Cooldown:
    """What a quota refusal costs its domain.

    Args:
        kind: one of the quota kinds.
        hint: the upstream's `retryDelay` or `Retry-After` in seconds; nonsense counts as None.
        fallback: seconds to cool down without a hint.
        streak: unknown refusals in a row before this one.
        wall: Unix time of the refusal.
    """
    seconds = _sane(hint)
    if kind is Kind.QUOTA_DAY:
        return _until_reset(seconds, wall)
    if kind is Kind.QUOTA_ZERO:
        return Cooldown(DAY, HOUR)
    if kind is Kind.BILLING:
        return _until_paid(hint)
    if kind is Kind.QUOTA_UNKNOWN and seconds is None:
        return Cooldown(min(HOUR, fallback * 2.0 ** min(streak, 16)))
    return Cooldown(min(HOUR, max(SHORTEST, fallback if seconds is None else seconds)))


def _until_paid(hint: float | None) -> Cooldown:
    if hint is None or not HOUR < hint <= LONGEST_BILL:  # NaN too
        return Cooldown(HOUR)
    return Cooldown(hint, HOUR)


def _until_reset(hint: float | None, wall: float) -> Cooldown:
    if hint is not None and hint > HOUR:
        return Cooldown(hint, HOUR)
    left = next_reset(wall) - wall
    if wall - day_start(wall) < LATE_RESET:
        return Cooldown(LATE_RESET_RETRY)
    return Cooldown(left, HOUR)


def _sane(hint: float | None) -> float | None:
    """The hint, or None where it is no usable number: NaN, infinite, negative, over two days."""
    if hint is None or not math.isfinite(hint) or hint < 0 or hint > 2 * DAY:
        return None
    return hint
