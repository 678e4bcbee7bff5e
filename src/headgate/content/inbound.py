"""How often one may ask, before any quota is looked at: `RATE_LIMIT_*`, off unless it is switched on.

Buckets are of this process. Three are asked in order: of the caller, of the address, of all together:
what the narrow ones refuse takes nothing from everybody's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headgate.content.problems import RefusedError
from headgate.content.settings import ContentSettings
from headgate.core.ports import Clock
from headgate.limits import RateLimiter
from headgate.limits.limiter import Limit

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["Inbound"]

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


class Inbound:
    """Counts requests of callers, of addresses and of all."""

    def __init__(self, settings: ContentSettings, clock: Clock) -> None:
        self._on = settings.rate_limit_enabled
        self._limiter: RateLimiter | None = None
        self._clock = clock
        self._everybody = (
            Limit(settings.rate_limit_global_per_minute, _MINUTE),
            Limit(settings.rate_limit_global_per_hour, _HOUR),
        )
        self._address = (
            Limit(settings.rate_limit_ip_per_minute, _MINUTE),
            Limit(settings.rate_limit_ip_per_hour, _HOUR),
        )
        self._user = (
            Limit(settings.rate_limit_user_per_minute, _MINUTE),
            Limit(settings.rate_limit_user_per_hour, _HOUR),
            Limit(settings.rate_limit_user_per_day, _DAY),
        )

    async def check(self, request: Request, caller: str) -> None:
        """Count a request. Raises `RefusedError`: 429."""
        if not self._on:
            return
        if self._limiter is None:
            self._limiter = RateLimiter(clock=self._clock, registry=_no_registry(), scopes=())
        address = request.client.host if request.client is not None else "unknown"
        checks: list[tuple[str, tuple[Limit, ...]]] = [
            (f"ip:{address}", self._address),
            ("global:", self._everybody),
        ]
        if caller:
            checks.insert(0, (f"user:{caller}", self._user))
        for identifier, limits in checks:
            decision = await self._limiter.decide(identifier, limits)
            if not decision.allowed:
                raise RefusedError(
                    "Too many requests. Slow down.",
                    status=429,
                    headers={"retry-after": str(decision.retry_after)},
                )


def _no_registry() -> object:
    """A registry of nobody: the metrics of these limits are those of the service's requests."""
    try:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return CollectorRegistry()
