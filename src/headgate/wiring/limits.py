"""Who meets whom behind a limiter: buckets, the line to the store, books, clock and chance."""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from headgate.core.ports import Buckets, Clock, UsageDays
from headgate.engine.inbound import Inbound
from headgate.policy.scopes import Scopes
from headgate.stores.buckets import MemoryBuckets, RedisBuckets
from headgate.stores.line import StoreLine
from headgate.stores.usage import MemoryUsage, RedisUsage
from headgate.telemetry.limits import LimitBooks
from headgate.telemetry.metrics.books import Sheet
from headgate.telemetry.metrics.metrics import Metrics
from headgate.telemetry.of_registry import one_of
from headgate.wiring.clock import SystemClock
from headgate.wiring.prices import anthropic_prices

__all__ = ["Limits", "build_limits", "member_name"]

# One per process, so that all its limiters write the same hash for an identifier.
_LOG_KEY = secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a limiter is made of."""

    inbound: Inbound
    usage: UsageDays
    clock: Clock


def build_limits(
    client: Any | None,
    *,
    registry: object = None,
    clock: Clock | None = None,
    fail_open: bool = True,
    store_timeout: float = 0.1,
    scopes: Collection[str] = (),
    log_key: bytes | None = None,
    level: int = logging.WARNING,
) -> Limits:
    """The parts of a limiter over a caller's client, or over memory. No I/O, no event loop needed."""
    if not 0 < store_timeout <= 60:
        raise ValueError(f"store_timeout takes more than 0, up to 60 seconds; got {store_timeout!r}")
    clock = clock or SystemClock()
    memory = MemoryBuckets(clock)
    store: Buckets = memory
    usage: UsageDays = MemoryUsage()
    if client is not None:
        _refuse_blocking(client)
        chance = random.random  # noqa: TID251 - chance enters here
        line = StoreLine(client, clock=clock, chance=chance, timeout=store_timeout)
        store, usage = RedisBuckets(line), RedisUsage(line)
    books = one_of(registry, LimitBooks, clock)
    if client is not None and fail_open:
        one_of(registry, Metrics, clock).watch(books, _read_stand_ins)
    observer = _Scoped(books, Scopes(scopes, lambda model: anthropic_prices().name_of(model)))
    key = _LOG_KEY if log_key is None else log_key
    stand_in = memory if fail_open else None
    return Limits(Inbound(store, stand_in, observer, log_key=key, level=level), usage, clock)


def member_name() -> str:
    """A name for this process among those that write to a store."""
    return secrets.token_hex(8)


def _read_stand_ins(books: LimitBooks, sheet: Sheet) -> None:
    sheet.put("headgate_fail_open_total", books.errors, "inbound")


class _Scoped:
    """Hears identifiers and passes only their scope classes on."""

    def __init__(self, books: LimitBooks, scopes: Scopes) -> None:
        self._books = books
        self._scopes = scopes

    def checked(self, identifier: str, result: str, remaining: float | None) -> None:
        self._books.checked(self._scopes.of(identifier), result, remaining)


def _refuse_blocking(client: object) -> None:
    # Its commands would block the event loop, and awaiting their results would fail: each check would
    # then count as a failure of the store and be let through.
    blocking = {"redis.client", "redis.cluster", "valkey.client", "valkey.cluster"}
    names = {"Redis", "RedisCluster", "Valkey", "ValkeyCluster"}
    if any(cls.__module__ in blocking and cls.__name__ in names for cls in type(client).__mro__):
        raise TypeError("redis_client takes a client of redis.asyncio; got one of redis, which blocks")
