"""The process's tracker, and the decorator that holds functions to it."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Awaitable, Callable
from hashlib import sha256
from threading import Lock
from typing import Any, ParamSpec, TypeVar, cast

from headgate.content.quota_config import QuotaConfig, QuotaExceededError, priority_of
from headgate.content.tracker import QuotaTracker
from headgate.core.call import Priority

__all__ = ["adopt", "get_quota_tracker", "tokens_of", "with_quota_check"]

P = ParamSpec("P")
R = TypeVar("R")

_lock = Lock()
_tracker: QuotaTracker | None = None


def get_quota_tracker(config: QuotaConfig | None = None) -> QuotaTracker:
    """The tracker of this process: that of its content service, else one by the `QUOTA_*` and `REDIS_*`
    variables.

    Args:
        config: the limits of a tracker that is made now; one that is there stays as it is.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    global _tracker  # noqa: PLW0603 - one of a process, as accepted
    with _lock:
        if _tracker is None:
            _tracker = _by_settings(config)
        return _tracker


def adopt(tracker: QuotaTracker) -> None:
    """Let a service's tracker be that of the process, so that both keep one ledger."""
    global _tracker  # noqa: PLW0603 - as above
    with _lock:
        _tracker = tracker


def _by_settings(config: QuotaConfig | None) -> QuotaTracker:
    from headgate.content.fallback_shelf import open_shelf  # noqa: PLC0415 - once
    from headgate.content.quota_alone import lone_book, machine_clock  # noqa: PLC0415 - once
    from headgate.content.settings import load_content, with_packages  # noqa: PLC0415 - once
    from headgate.wiring.content import open_content_store  # noqa: PLC0415 - once

    settings, clock = with_packages(load_content()), machine_clock()
    config = config or QuotaConfig.of(settings)
    store = open_content_store(settings.needs, clock)
    shelf = open_shelf(settings.cache, clock) if settings.caching else None
    return QuotaTracker(config, book=lone_book(config, clock, store), shelf=shelf, clock=clock)


def with_quota_check(
    priority: object = Priority.HIGH,
    estimated_tokens: int = 1000,
    *,
    tracker: QuotaTracker | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the function runs once its quota is put aside, which it then settles.

    Where there is no room, an earlier result of the same arguments stands in, flagged `cached` and
    `from_fallback` where it is an object. A result that is an object tells its tokens under
    `tokens_used`, `total_tokens` or `usage`; else the estimate stays booked. A call that fails counts
    as a request without tokens.

    Args:
        priority: CRITICAL and HIGH are refused at once; NORMAL and LOW wait in line first.
        estimated_tokens: put aside for each call.
        tracker: instead of the process's.

    The function raises `QuotaExceededError` where nothing may stand in.
    """
    urgency = priority_of(priority)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        guard = _Guard(function, urgency, estimated_tokens, tracker)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                call = cast("Callable[P, Awaitable[Any]]", function)
                return await guard.run(lambda: call(*args, **kwargs), args, kwargs)

            return cast("Callable[P, R]", awaited)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            return guard.run_sync(lambda: function(*args, **kwargs), args, kwargs)

        return called

    return decorate


class _Guard:
    """One decorated function."""

    def __init__(
        self,
        function: Callable[..., Any],
        priority: Priority,
        tokens: int,
        tracker: QuotaTracker | None,
    ) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._tokens = tokens
        self._patient = priority.rank >= Priority.NORMAL.rank
        self._given = tracker
        self._priority = priority

    @property
    def _tracker(self) -> QuotaTracker:
        return self._given or get_quota_tracker()

    async def run(
        self, call: Callable[[], Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        tracker, key = self._tracker, self._key(args, kwargs)
        try:
            if self._patient:
                seconds = tracker.config.queue_timeout
                held = await tracker.aturn(self._priority, self._name, self._tokens, seconds)
            else:
                (held,) = await tracker.areserve(self._tokens)
        except QuotaExceededError:
            fallback = None if key is None else await tracker.aget_fallback_response(key)
            if fallback is None:
                raise
            return fallback
        used: int | None = 0
        try:
            result = await call()
            used = tokens_of(result)
        finally:
            await tracker.asettle(held, self._tokens if used is None else used)
        if key is not None and _is_json(result):
            await tracker.acache_response(key, result)
        return result

    def run_sync(self, call: Callable[[], R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        tracker, key = self._tracker, self._key(args, kwargs)
        wait = tracker.config.queue_timeout if self._patient else 0.0
        try:
            (held,) = tracker.reserve(self._tokens, wait=wait)
        except QuotaExceededError:
            fallback = None if key is None else tracker.get_fallback_response(key)
            if fallback is None:
                raise
            return cast("R", fallback)
        used: int | None = 0
        try:
            result = call()
            used = tokens_of(result)
        finally:
            tracker.settle(held, self._tokens if used is None else used)
        if key is not None and _is_json(result):
            tracker.cache_response(key, result)
        return result

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The function and its arguments as JSON, hashed; None where they are none: `str` of an object
        may tell two apart that are alike, and take two for one that are not."""
        try:
            said = json.dumps([args, kwargs], sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return None
        return f"{self._name}:{sha256(said.encode()).hexdigest()}"


def tokens_of(result: object) -> int | None:
    """The tokens that a result says it used; None where it says nothing."""
    if not isinstance(result, dict):
        return None
    for name in ("tokens_used", "total_tokens"):
        if isinstance(result.get(name), int):
            return cast("int", result[name])
    usage = result.get("usage")
    return tokens_of(usage) if isinstance(usage, dict) else None


def _is_json(value: object) -> bool:
    """Whether JSON holds it as it is. None does not stand in: it would look like no response."""
    if value is None:
        return False
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
