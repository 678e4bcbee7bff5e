"""What `/api/quota/stats` tells, in the accepted shape: the union of both descriptions (C12)."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.content.quota_book import Fills
from headgate.content.quota_config import LIMITS, QuotaConfig

__all__ = ["amounts_of", "stats_of", "used_of"]


def used_of(fills: Fills | None, limit: str) -> int:
    """What is used of a limit, over all projects."""
    return sum(fill.used for row in fills or () for fill in row if fill.limit.name == limit)


def amounts_of(fills: Fills | None, limit: str) -> int:
    """What may be used of a limit, over all projects; 0 where nothing is known."""
    return sum(fill.limit.amount for row in fills or () for fill in row if fill.limit.name == limit)


def stats_of(
    config: QuotaConfig,
    fills: Fills | None,
    statistics: Mapping[str, object],
    queue: Mapping[str, int],
) -> dict[str, object]:
    """The whole of it.

    Args:
        fills: of each project; None where the store cannot tell, so that current use is null.
        statistics: counts of this process.
        queue: how many wait, by priority.
    """
    projects = max(1, len(fills or ()))
    nominal = {name: projects * config.nominal(name) for name in LIMITS}
    safe = {name: amounts_of(fills, name) or projects * config.safe(name) for name in LIMITS}
    used = {name: None if fills is None else used_of(fills, name) for name in LIMITS}
    left = {name: None if (now := used[name]) is None else max(0, safe[name] - now) for name in LIMITS}

    def window(name: str) -> dict[str, object]:
        now = used[name]
        return {
            "current": now,
            "limit": safe[name],
            "effective_limit": safe[name],
            "nominal_limit": nominal[name],
            "percentage": None if now is None else round(100 * now / safe[name], 2),
        }

    return {
        "current_minute": {"requests": used["rpm"], "tokens": used["tpm"]},
        "current_day": {"requests": used["rpd"], "tokens": used["tpd"]},
        "limits": nominal,
        "effective_limits": safe,
        "remaining": left,
        "requests": {"per_minute": window("rpm"), "per_day": window("rpd")},
        "tokens": {"per_minute": window("tpm"), "per_day": window("tpd")},
        "statistics": dict(statistics),
        "queue": dict(queue),
    }
