"""Other people's limiters, as their documentation has them set up. Runs in the bench's environment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import aiolimiter  # type: ignore[import-not-found,unused-ignore]
import limits.aio  # type: ignore[import-not-found,unused-ignore]
import pyrate_limiter as pyrate  # type: ignore[import-not-found,unused-ignore]
import redis.asyncio
import throttled.asyncio as throttled  # type: ignore[import-not-found,unused-ignore]

import limits  # type: ignore[import-not-found,unused-ignore]
from bench.micro.limiters.worker import Decide, Open

__all__ = ["LIMITERS", "versions"]

LIMIT = 10**12
_ITEM = limits.RateLimitItemPerMinute(LIMIT)


def versions() -> dict[str, str]:
    names = ("limits", "pyrate-limiter", "throttled-py", "aiolimiter", "redis", "hiredis")
    return {name: version(name) for name in names}


def _limits(strategy: Callable[[Any], Any]) -> Open:
    @asynccontextmanager
    async def opened(_url: str, key: str) -> AsyncIterator[Decide]:
        limiter = strategy(limits.storage.MemoryStorage())

        def decide(cost: int) -> bool:
            return bool(limiter.hit(_ITEM, key, cost=cost))

        yield decide

    return opened


def _limits_aio(strategy: Callable[[Any], Any]) -> Open:
    @asynccontextmanager
    async def opened(url: str, key: str) -> AsyncIterator[Decide]:
        storage = (
            limits.aio.storage.RedisStorage(f"async+{url}", implementation="redispy")
            if url
            else limits.aio.storage.MemoryStorage()
        )
        limiter = strategy(storage)

        async def decide(cost: int) -> bool:
            return bool(await limiter.hit(_ITEM, key, cost=cost))

        yield decide

    return opened


@asynccontextmanager
async def _pyrate(_url: str, key: str) -> AsyncIterator[Decide]:
    bucket = pyrate.InMemoryBucket([pyrate.Rate(LIMIT, pyrate.Duration.MINUTE)])
    limiter = pyrate.Limiter(bucket)

    def decide(cost: int) -> bool:
        return bool(limiter.try_acquire(key, weight=cost, blocking=False))

    yield decide
    limiter.close()


@asynccontextmanager
async def _pyrate_redis(url: str, key: str) -> AsyncIterator[Decide]:
    client = redis.asyncio.Redis.from_url(url)
    made = pyrate.RedisBucket.init([pyrate.Rate(LIMIT, pyrate.Duration.MINUTE)], client, key)
    limiter = pyrate.Limiter(await made)

    async def decide(cost: int) -> bool:
        return bool(await limiter.try_acquire_async(key, weight=cost, blocking=False))

    yield decide
    limiter.close()
    await client.aclose()


def _throttled(using: throttled.RateLimiterType) -> Open:
    @asynccontextmanager
    async def opened(url: str, key: str) -> AsyncIterator[Decide]:
        store = throttled.RedisStore(server=f"{url}/0") if url else throttled.MemoryStore()
        quota = throttled.rate_limiter.per_min(LIMIT, burst=LIMIT)
        limiter = throttled.Throttled(key=key, using=using.value, quota=quota, store=store)

        async def decide(cost: int) -> bool:
            return not (await limiter.limit(key, cost=cost)).limited

        yield decide

    return opened


@asynccontextmanager
async def _aiolimiter(_url: str, _key: str) -> AsyncIterator[Decide]:
    limiter = aiolimiter.AsyncLimiter(LIMIT, 60)

    async def decide(cost: int) -> bool:
        await limiter.acquire(cost)
        return True

    yield decide


LIMITERS: dict[str, tuple[str, Open]] = {
    "limits, fixed window": ("memory", _limits(limits.strategies.FixedWindowRateLimiter)),
    "limits, moving window": ("memory", _limits(limits.strategies.MovingWindowRateLimiter)),
    "limits, fixed window, async": (
        "memory",
        _limits_aio(limits.aio.strategies.FixedWindowRateLimiter),
    ),
    "limits, moving window, async": (
        "memory",
        _limits_aio(limits.aio.strategies.MovingWindowRateLimiter),
    ),
    "pyrate-limiter": ("memory", _pyrate),
    "throttled-py, token bucket": ("memory", _throttled(throttled.RateLimiterType.TOKEN_BUCKET)),
    "throttled-py, GCRA": ("memory", _throttled(throttled.RateLimiterType.GCRA)),
    "aiolimiter": ("memory", _aiolimiter),
    "limits, fixed window, Redis": ("store", _limits_aio(limits.aio.strategies.FixedWindowRateLimiter)),
    "limits, moving window, Redis": (
        "store",
        _limits_aio(limits.aio.strategies.MovingWindowRateLimiter),
    ),
    "pyrate-limiter, Redis": ("store", _pyrate_redis),
    "throttled-py, token bucket, Redis": ("store", _throttled(throttled.RateLimiterType.TOKEN_BUCKET)),
    "throttled-py, GCRA, Redis": ("store", _throttled(throttled.RateLimiterType.GCRA)),
}
