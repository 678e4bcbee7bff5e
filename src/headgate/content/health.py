"""What machines ask of the service: does it live, may work come here (S4-20).

Nothing is generated for it: both answers come from the configuration, the breakers, the ledger and one
question to the shared store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from headgate.content.ports import Json, Layers, StoreState
from headgate.content.quota_config import LIMITS
from headgate.content.quota_stats import amounts_of, used_of
from headgate.content.settings import ContentSettings
from headgate.content.tracker import QuotaTracker
from headgate.core.errors import HeadgateError
from headgate.core.ports import Clock
from headgate.policy.breaker import BreakerState
from headgate.wiring.content import ContentEngine

__all__ = ["Health", "installed_version"]

MUCH_QUOTA = 90.0
"""Percent from which the quota warns."""


def installed_version() -> str:
    """Of this package."""
    try:
        return version("headgate")
    except PackageNotFoundError:
        return "unknown"


class Health:
    """Looks at the parts of a service.

    Args:
        ledger: how the usage ledger is: its word for `checks.database`.
    """

    def __init__(
        self,
        settings: ContentSettings,
        room: ContentEngine,
        layers: Layers,
        tracker: QuotaTracker | None,
        clock: Clock,
        *,
        ledger: Callable[[], str] = lambda: "not_configured",
    ) -> None:
        self._settings = settings
        self._room = room
        self._layers = layers
        self._tracker = tracker
        self._clock = clock
        self._ledger = ledger
        self._began = clock.monotonic()
        self.draining = False

    async def health(self) -> tuple[int, dict[str, Json]]:
        """Status and body of `/api/health`."""
        store = await self._layers.state()
        usage = await self._usage()
        states = self._room.engine.protection.states()
        broken = sorted(name for name, state in states.items() if state is not BreakerState.CLOSED)
        usable = self._room.keys
        checks: dict[str, Any] = {
            "database": {"status": self._ledger()},
            "redis": _redis(store),
            "gemini_api": {"status": "configured" if usable else "no_usable_key", "keys": usable},
            "quota": _quota(usage, tracked=self._tracker is not None),
            "circuit_breakers": {
                "status": "open" if broken else "healthy",
                "states": {name: state.value for name, state in sorted(states.items())},
            },
            "system_resources": _resources(),
        }
        full = usage is not None and max(usage.values(), default=0.0) > MUCH_QUOTA
        lost = store.enabled and not store.answers and self._settings.store_named
        word = "healthy_with_warnings" if broken or full or lost else "healthy"
        if not usable or (lost and self._settings.redis_critical):
            word = "unhealthy"
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        body: dict[str, Json] = {
            "status": word,
            "timestamp": now.isoformat(timespec="microseconds"),
            "version": installed_version(),
            "uptime": round(self._clock.monotonic() - self._began, 3),
            "checks": checks,
        }
        return (503 if word == "unhealthy" else 200), body

    async def ready(self) -> tuple[int, dict[str, Json]]:
        """Status and body of `/api/ready`. A store that is away leaves it ready, unless it is said to
        be critical: memory and the own share of the quota go on."""
        store = await self._layers.state()
        usage = await self._usage()
        lost = store.enabled and not store.answers and self._settings.redis_critical
        usable = self._room.keys > 0
        good = usable and not lost and not self.draining
        checks = {
            "redis": _redis(store),
            "gemini_api": {"status": "configured" if usable else "no_usable_key"},
            "quota": _quota(usage, tracked=self._tracker is not None),
        }
        body: dict[str, Json] = {
            "status": "ready" if good else "not_ready",
            "ready": good,
            "checks": checks,
        }
        if self.draining:
            body["draining"] = True
        return (200 if good else 503), body

    async def _usage(self) -> dict[str, float] | None:
        """Percent of each limit in use; None where nobody knows."""
        if self._tracker is None:
            return None
        try:
            fills = await self._tracker.book.fills()
        except HeadgateError:
            return None
        if fills is None:
            return None
        used = {name: (used_of(fills, name), amounts_of(fills, name)) for name in LIMITS}
        return {name: round(100 * now / most, 2) for name, (now, most) in used.items() if most}


def _redis(store: StoreState) -> dict[str, Json]:
    if not store.enabled:
        return {"status": "disabled", "response_time": None}
    shown = None if store.seconds is None else f"{store.seconds:.3f}s"
    return {"status": "healthy" if store.answers else "unavailable", "response_time": shown}


def _quota(usage: dict[str, float] | None, *, tracked: bool) -> dict[str, Json]:
    if usage is None:  # the shared ledger is away, or nobody has asked it for anything yet
        status = "unknown" if tracked else "not_tracked"
        return {"status": status, "rpm_usage": None, "tpm_usage": None}
    full = max(usage.values(), default=0.0) > MUCH_QUOTA
    return {
        "status": "warning" if full else "healthy",
        "rpm_usage": usage.get("rpm", 0.0),
        "tpm_usage": usage.get("tpm", 0.0),
    }


def _resources() -> dict[str, Json]:
    if sys.platform == "win32":
        return {"status": "unknown"}
    import resource  # noqa: PLC0415 - not on every system

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return {"status": "healthy", "memory_peak_mb": round(most * unit / 1_000_000, 1)}
