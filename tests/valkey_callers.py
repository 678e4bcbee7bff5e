"""What tests of the shared store on real servers do again and again: ask, wait, count, leap."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from random import Random  # noqa: TID251 - seeded
from typing import Any, TypeVar

import pytest
from tests import valkey
from tests.valkey import Server

from headgate.core.errors import StoreError
from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Counts,
    Grant,
    Kind,
    Limit,
    Refusal,
    Settlement,
)
from headgate.stores.valkey import ValkeyStore

valkey_server = valkey.valkey_server

T = TypeVar("T")

SLOTS = [Limit("slots", Counts.SLOTS, 100_000, Kind.CONCURRENT)]
ONE = {Counts.SLOTS: 1}
CANCELLED = 10_000
"""Commands a storm breaks off (issue 3, "When the store is slow …")."""

PATIENT = 10.0
"""Seconds a call may take where a test is not about deadlines: machines of CI are slow."""


class Leaping:
    """A clock that stands still and leaps over what a test need not wait for: no load hurries it."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._began = time.time()  # noqa: TID251 - the server's days are the real ones

    def monotonic(self) -> float:
        return self.ahead

    def wall(self) -> float:
        return self._began + self.ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251


def store_on(server: Server | str, timeout: float = PATIENT, **more: Any) -> ValkeyStore:
    url = server if isinstance(server, str) else server.url
    more.setdefault("clock", Leaping())
    return ValkeyStore(url, chance=Random(1).random, timeout=timeout, **more)


async def ask(store: ValkeyStore, rid: str, group: str = "g", **more: Any) -> Grant | Refusal:
    reply = await store.transact(group, Batch(asks=(Ask(rid, ONE, **more),)))
    return reply.answers[0]


async def free_again(store: ValkeyStore, clock: Leaping) -> BatchReply:
    """As soon as the store answers."""
    return await patiently(clock, lambda: store.transact("g", Batch()))


def settled(*rids: str) -> Batch:
    return Batch(settles=tuple(Settlement(rid, {}) for rid in rids))


async def patiently(clock: Leaping, command: Callable[[], Awaitable[T]]) -> T:
    """Ask until the store answers; the breaker's waits are leapt over."""
    for _ in range(200):
        try:
            return await command()
        except StoreError:
            clock.ahead += 2.0
            await asyncio.sleep(0.02)  # noqa: TID251
    raise AssertionError("the store did not come back")


def counting(store: ValkeyStore, calls: list[str]) -> Callable[[], Awaitable[None]]:
    """Note every command of the running loop."""

    async def begin() -> None:
        link = (await store._here()).link
        run = link.run

        async def noted(*words: str | int | bytes) -> Any:
            calls.append(str(words[0]))
            return await run(*words)

        link.run = noted  # type: ignore[method-assign]

    return begin


@pytest.fixture(autouse=True)
def no_socket_left() -> Iterator[None]:
    """What a test leaves open is found in that test, not in whichever makes the most garbage next.

    These storms do: they were red, every other run, for sockets that others had left behind.
    """
    yield
    gc.collect()
