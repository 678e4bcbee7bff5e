"""Stores of values for tests: in memory and on a real Valkey, under a clock of the test's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Protocol

from tests.valkey import Server

from headgate.core.values import ValueStore
from headgate.stores.values import MemoryValues
from headgate.stores.values_valkey import ValkeyValues, script_source
from headgate.testing import VirtualClock

TIME_KEY = "test:values_time"
"""Where `TIMED_SCRIPT` takes the time from, in microseconds."""

TIMED_SCRIPT, _replaced = re.subn(
    r"^local now = .*-- the server's microseconds.*$",
    f"local now = tonumber(redis.call('GET', '{TIME_KEY}'))",
    script_source(),
    flags=re.MULTILINE,
)
assert _replaced == 1


class Place(Protocol):
    """A store, and another user of the same."""

    clock: VirtualClock
    store: ValueStore
    other: ValueStore

    def pass_time(self, seconds: float) -> None: ...
    def run(self, work: Coroutine[Any, Any, None]) -> None: ...


class InMemory:
    """Both users are one."""

    def __init__(self, *, most_entries: int = 100, most_bytes: int = 10**6) -> None:
        self.clock = VirtualClock()
        self.store = MemoryValues(self.clock, most_entries=most_entries, most_bytes=most_bytes)
        self.other = self.store

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)


class OnValkey:
    """Two processes on one server, in the time of the test."""

    def __init__(self, server: Server) -> None:
        self.clock = VirtualClock()
        self.server = server
        self.pass_time(0.0)
        self._opened: list[ValkeyValues] = []
        self.store, self.other = self.opened(), self.opened()

    def opened(
        self,
        *,
        longest: float = float("inf"),
        room: str = "test",
        shared: int = 10**6,
        beside: ValkeyValues | None = None,
    ) -> ValkeyValues:
        """One more process."""
        memory = MemoryValues(self.clock, most_entries=100, most_bytes=10**6, longest=longest)
        made = ValkeyValues(
            self.server.url, room=room, memory=memory, most_shared_bytes=shared,
            clock=self.clock, chance=lambda: 0.5, timeout=5.0, script=TIMED_SCRIPT, beside=beside,
        )  # fmt: skip
        self._opened.append(made)
        return made

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        with self.server.client() as client:
            client.set(TIME_KEY, int(self.clock.wall() * 1e6))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def all_of_it() -> None:
            try:
                await work
            finally:
                for store in self._opened:
                    await store.aclose()

        asyncio.run(all_of_it())
