"""Caches of replies for tests: in memory and on a real Valkey, under a clock of the test's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from hashlib import sha256
from typing import Any, Protocol

from tests.valkey import Server

from headgate.core.call import Reply, Usage
from headgate.core.replies import KeptReply, ReplyCache
from headgate.stores.replies import MemoryReplies
from headgate.stores.replies_valkey import ValkeyReplies, script_source
from headgate.testing import VirtualClock

TIME_KEY = "test:replies_time"
"""Where `TIMED_SCRIPT` takes the time from, in microseconds."""

TIMED_SCRIPT, _replaced = re.subn(
    r"^local now = .*-- the server's microseconds.*$",
    f"local now = tonumber(redis.call('GET', '{TIME_KEY}'))",
    script_source(),
    flags=re.MULTILINE,
)
assert _replaced == 1

KEY = sha256(b"a question").hexdigest()
OTHER = sha256(b"another").hexdigest()


def answer(text: str = "fine", **more: Any) -> Reply:
    """A normal reply."""
    return Reply(text=text, finish_reason="STOP", usage=Usage(prompt=5, output=3), model="m", **more)


def kept(
    clock: VirtualClock,
    reply: Reply | None = None,
    *,
    fresh: float = 60.0,
    revalidate: float = 0.0,
    rescue: float = 0.0,
) -> KeptReply:
    """An answer that came just now."""
    now = clock.wall()
    again = now + fresh + revalidate
    return KeptReply(reply or answer(), "m", now, now + fresh, again, again + rescue)


class Place(Protocol):
    """A cache, and another user of the same store."""

    clock: VirtualClock
    cache: ReplyCache
    other: ReplyCache

    def pass_time(self, seconds: float) -> None: ...
    def run(self, work: Coroutine[Any, Any, None]) -> None: ...


class InMemory:
    """Both users are one."""

    def __init__(self, *, most_entries: int = 100, most_bytes: int = 10**6) -> None:
        self.clock = VirtualClock()
        self.cache = MemoryReplies(self.clock, most_entries=most_entries, most_bytes=most_bytes)
        self.other = self.cache

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)


class OnValkey:
    """Two processes' caches on one server, in the time of the test."""

    def __init__(self, server: Server, *, most_entries: int = 100, most_bytes: int = 10**6) -> None:
        self.clock = VirtualClock()
        self.server = server
        self.pass_time(0.0)
        self._bounds = {"most_entries": most_entries, "most_bytes": most_bytes}
        self.cache, self.other = self.opened(), self.opened()

    def opened(self, **more: Any) -> ValkeyReplies:
        """One more process."""
        settings: dict[str, Any] = {
            **self._bounds, "most_shared_bytes": 10**6, "timeout": 5.0, "script": TIMED_SCRIPT, **more
        }  # fmt: skip
        return ValkeyReplies(self.server.url, clock=self.clock, chance=lambda: 0.5, **settings)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        with self.server.client() as client:
            client.set(TIME_KEY, int(self.clock.wall() * 1e6))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def all_of_it() -> None:
            try:
                await work
            finally:
                await self.cache.aclose()
                await self.other.aclose()

        asyncio.run(all_of_it())
