"""`RateLimiter`: the accepted calls, several limits at once, and a decorator."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ParamSpec, Self, TypeAlias, TypeVar

from headgate.core.buckets import Ask, Verdict
from headgate.core.errors import StoreError
from headgate.core.ports import Clock
from headgate.policy.bucket import ask_of, rule_of
from headgate.wiring.limits import build_limits

__all__ = ["Decision", "Limit", "LimitLike", "RateLimiter", "Remaining"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in so many seconds. Raises `ValueError` for a limit that cannot be.

    Attributes:
        name: what clients see in headers; the default is made of the numbers.
    """

    max_requests: int
    window_seconds: float
    name: str = ""

    def __post_init__(self) -> None:
        rule_of(self.max_requests, self.window_seconds)
        name = self.name or f"{self.max_requests}-per-{self.window_seconds:g}s"
        if not name.isascii() or not name.isprintable() or '"' in name or "\\" in name:
            raise ValueError(f"name takes printable ASCII without quotes; got {name!r}")
        object.__setattr__(self, "name", name)


LimitLike: TypeAlias = Limit | tuple[int, float]


@dataclass(frozen=True, slots=True)
class Remaining:
    """A bucket after a decision.

    Attributes:
        tokens: what is left, with its fraction.
        full_in: seconds until it is full, if nobody takes from it.
        exceeded: whether it had too little for this call.
    """

    limit: Limit
    tokens: float
    full_in: float
    exceeded: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one call.

    Attributes:
        retry_after: whole seconds until the same call has room; 0 when it was allowed.
        limits: the buckets, in the order asked for.
    """

    allowed: bool
    retry_after: int
    limits: tuple[Remaining, ...]


class RateLimiter:
    """Token buckets for callers. Build it anywhere, share it between tasks and event loops.

    Args:
        redis_client: a `redis.asyncio` client, single node or cluster, decoding replies or not; it
            stays yours. None keeps the buckets in this process.
        registry: the `prometheus_client` registry for metrics; None is the default one.
        fail_open: where the store fails, let a bucket of this process decide; False refuses.
        store_timeout: seconds a store call may take.
        scopes: identifiers, or what stands before their first colon, that metrics may name.
        log_key: keys the hash that stands for an identifier in logs; the default is random, so that
            hashes of two processes or two starts differ.
        clock: where time comes from; Redis and Valkey use their own.
    """

    def __init__(
        self,
        redis_client: Any | None = None,
        *,
        registry: object = None,
        fail_open: bool = True,
        store_timeout: float = 0.1,
        scopes: Collection[str] = (),
        log_key: bytes | None = None,
        clock: Clock | None = None,
    ) -> None:
        parts = build_limits(
            redis_client,
            registry=registry,
            fail_open=fail_open,
            store_timeout=store_timeout,
            scopes=scopes,
            log_key=log_key,
            clock=clock,
        )
        self._inbound = parts.inbound

    async def check_rate_limit(
        self, identifier: str, max_requests: int, window_seconds: float, *, cost: int = 1
    ) -> None:
        """Take `cost` tokens, or say when they will be there.

        Raises:
            RateLimitExceeded: there are too few. `kind` is `store` where a failed store refuses.
            ValueError: an argument is wrong; nothing was taken.
        """
        ask = ask_of(identifier, (rule_of(max_requests, window_seconds),), cost)
        await self._inbound.check(ask)

    async def check_rate_limits(
        self, identifier: str, limits: Iterable[LimitLike], *, cost: int = 1
    ) -> None:
        """As `check_rate_limit` for several limits at once: taken from all of them or from none.

        Args:
            limits: `Limit`s or pairs of max_requests and window_seconds.
        """
        await self._inbound.check(_ask(identifier, _limits(limits), cost))

    async def decide(self, identifier: str, limits: Iterable[LimitLike], *, cost: int = 1) -> Decision:
        """As `check_rate_limits`, but answers instead of raising, with what is left of each limit.

        Raises:
            RateLimitExceeded: only where `fail_open` is False and the store failed.
        """
        wanted = _limits(limits)
        verdict = await self._inbound.take(_ask(identifier, wanted, cost))
        # Two limits of the same numbers are one bucket.
        rules = dict.fromkeys(rule_of(limit.max_requests, limit.window_seconds) for limit in wanted)
        levels = dict(zip(rules, verdict.levels, strict=True))
        remaining = []
        for limit in wanted:
            level = levels[rule_of(limit.max_requests, limit.window_seconds)]
            full_in, exceeded = level.full_in_us / 1_000_000, level.wait_us > 0
            remaining.append(Remaining(limit, level.tokens, full_in, exceeded))
        retry_after = 0 if verdict.allowed else verdict.retry_after
        return Decision(verdict.allowed, retry_after, tuple(remaining))

    async def get_limit_status(
        self, identifier: str, max_requests: int, window_seconds: float
    ) -> dict[str, Any]:
        """What is left; takes nothing and counts nothing.

        Returns: `tokens_remaining` (rounded down), `reset_time` (when the bucket is full again, ISO
            8601 in UTC; None if it is), `total_limit`. Where the store failed, `tokens_remaining` is
            None and `error` says why.
        """
        rule = rule_of(max_requests, window_seconds)
        ask = ask_of(identifier, (rule,))
        try:
            verdict = await self._inbound.look(Ask(ask.identifier, ask.rules, 0))
        except StoreError as error:
            return {
                "tokens_remaining": None,
                "reset_time": None,
                "total_limit": max_requests,
                "error": error.message,
            }
        return {
            "tokens_remaining": verdict.levels[0].whole,
            "reset_time": _reset_time(verdict),
            "total_limit": max_requests,
        }

    async def reset_limit(self, identifier: str) -> None:
        """Fill every bucket of an identifier, whatever its limits. Raises `StoreError`."""
        ask_of(identifier, (rule_of(1, 1),))
        await self._inbound.reset(identifier)

    def limit(
        self,
        max_requests: int,
        window_seconds: float,
        *,
        key: str | Callable[..., str] | None = None,
        cost: int = 1,
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
        """A decorator that limits an async function.

        Args:
            key: the identifier, or a function that makes it out of the call's arguments. By default
                all calls of the function share one bucket.

        Raises, when called: RateLimitExceeded; the function then was not.
        """
        rule = rule_of(max_requests, window_seconds)

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            if not inspect.iscoroutinefunction(function):
                raise TypeError(f"limit() takes an async function; got {function!r}")
            fixed = key if key is not None else f"call:{function.__module__}.{function.__qualname__}"

            @functools.wraps(function)
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                identifier = fixed if isinstance(fixed, str) else fixed(*args, **kwargs)
                await self._inbound.check(ask_of(identifier, (rule,), cost))
                return await function(*args, **kwargs)

            return limited

        if isinstance(key, str) or key is None:
            ask_of("call" if key is None else key, (rule,), cost)  # a mistake shows where it was made
        return decorate

    async def aclose(self) -> None:
        """Wait for store calls under way; at most `store_timeout`. Your client stays open."""
        await self._inbound.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def _limits(limits: Iterable[LimitLike]) -> list[Limit]:
    return [limit if isinstance(limit, Limit) else Limit(*limit) for limit in limits]


def _ask(identifier: str, limits: Iterable[Limit], cost: int) -> Ask:
    rules = (rule_of(limit.max_requests, limit.window_seconds) for limit in limits)
    return ask_of(identifier, rules, cost)


def _reset_time(verdict: Verdict) -> str | None:
    full_in = verdict.levels[0].full_in_us
    if full_in == 0:
        return None
    seconds, micros = divmod(verdict.now_us + full_in, 1_000_000)
    moment = datetime.fromtimestamp(math.floor(seconds), UTC).replace(microsecond=micros)
    return moment.isoformat(timespec="microseconds")
