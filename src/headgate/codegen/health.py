"""Whether a client can work, told truthfully and in time.

A check holds no lock, is bounded in time, and its worst part decides: `healthy`, `degraded` (it works,
but not as it should), `unhealthy`.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from headgate.codegen.caller import Caller
from headgate.codegen.errors import AuthenticationError, CodegenAPIError, RateLimitError
from headgate.codegen.models import UserResponse

__all__ = ["health_of", "path_view"]

_LONGEST_CHECK = 10.0  # seconds
_ORDER = ("healthy", "degraded", "unhealthy")


async def health_of(caller: Caller) -> dict[str, Any]:
    """`overall_status`, `timestamp` and `checks`, each with status, response_time_ms and details."""
    connectivity = await _connectivity(caller)
    checks = {"api_connectivity": connectivity, **_standing(caller)}
    worst = max((check["status"] for check in checks.values()), key=_ORDER.index)
    moment = datetime.fromtimestamp(caller.clock.wall(), UTC)
    return {
        "overall_status": worst,
        "timestamp": moment.isoformat(timespec="microseconds"),
        "checks": checks,
    }


def path_view(caller: Caller) -> dict[str, Any]:
    """The breaker and the limits as they stand. Raises `AuthenticationError` without a token."""
    path = caller.path()
    return {
        "breaker": path.breaker_view(),
        "rate_limits": {group: asdict(view) for group, view in path.limits.views().items()},
    }


async def _connectivity(caller: Caller) -> dict[str, Any]:
    """Ask who we are, once, past the cache."""
    begun = caller.clock.monotonic()
    limit = min(_LONGEST_CHECK, caller.config.timeout)
    bound = asyncio.timeout(limit)
    try:
        async with bound:
            user = await caller.ask(UserResponse, "get_current_user", fresh=True, retries=0)
        status, details = "healthy", {"user": user.github_username}
    except RateLimitError as error:  # it answers, but not us
        status, details = "degraded", _problem(error)
    except CodegenAPIError as error:
        status, details = "unhealthy", _problem(error)
    except builtins.TimeoutError:
        if not bound.expired():
            raise
        status = "degraded" if _out_of_tokens(caller) else "unhealthy"
        what = "our own limit left no room" if status == "degraded" else "no answer"
        details = {"error_type": "TimeoutError", "error": f"{what} within {limit:g} s"}
    return _check(status, (caller.clock.monotonic() - begun) * 1000, details)


def _standing(caller: Caller) -> dict[str, Any]:
    try:
        view = path_view(caller)
    except AuthenticationError as error:
        return {"rate_limiting": _check("unhealthy", 0.0, _problem(error))}
    limits = view["rate_limits"]
    narrowed = any(_narrowed(item) for item in limits.values())
    breaker = view["breaker"]
    states = {"closed": "healthy", "half_open": "degraded", "open": "unhealthy"}
    return {
        "rate_limiting": _check("degraded" if narrowed else "healthy", 0.0, limits),
        "circuit_breaker": _check(states[breaker["state"]], 0.0, breaker),
    }


def _narrowed(view: Mapping[str, Any]) -> bool:
    return bool(view["paused"] > 0 or view["limit"] < view["ceiling"])


def _out_of_tokens(caller: Caller) -> bool:
    try:
        return bool(path_view(caller)["rate_limits"]["standard"]["left"] == 0)
    except AuthenticationError:
        return False


def _problem(error: CodegenAPIError) -> dict[str, Any]:
    return {
        "error_type": type(error).__name__,
        "error": error.message,
        "status_code": error.status_code,
        "retry_after": error.retry_after,
    }


def _check(status: str, milliseconds: float, details: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": status, "response_time_ms": round(milliseconds, 3), "details": dict(details)}
