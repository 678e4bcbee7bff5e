"""Worlds a limiter may live in, all with a clock that only the test moves.

A test that takes the fixture `world` runs on memory and on each server there is, with replies as bytes
and as text. The servers' script is the shipped one but for its marked line: it reads the time from a
key the test writes.

A module that uses a fixture says `world = limits.world`, `served = limits.served`.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

import pytest
import redis
import redis.asyncio
from prometheus_client import CollectorRegistry
from tests.valkey import Server, oldest_redis, shared_server

from headgate.limits import RateLimiter
from headgate.stores import buckets
from headgate.testing import VirtualClock

T = TypeVar("T")

PATIENT = 10.0
"""Seconds a store call may take where a test is not about deadlines: machines of CI are slow."""

SERVERS = ["oldest-redis"] if oldest_redis() else []
WORLDS = ["memory", "valkey-bytes", "valkey-text", *SERVERS]


def with_test_time(source: str) -> str:
    """The script with its time taken from the key `test:time`, in microseconds."""
    lines = source.splitlines()
    (marked,) = (number for number, line in enumerate(lines) if "time source: tests replace" in line)
    lines[marked] = "local time = {0, redis.call('GET', 'test:time')}"
    return "\n".join(lines)


class World:
    """Memory, or a server; `later` moves its time."""

    def __init__(self, name: str, server: Server | None, *, decode: bool = False) -> None:
        self.name = name
        self.server = server
        self.clock = VirtualClock()
        self.registry = CollectorRegistry()
        self._decode = decode
        self.later(0)

    @property
    def shared(self) -> bool:
        """Whether there is a server."""
        return self.server is not None

    def later(self, seconds: float) -> None:
        """Time passes, or, below zero, the server's clock is set back."""
        if seconds >= 0:
            self.clock.advance(seconds)
        else:
            self.clock.step_wall(seconds)
        if self.server is not None:
            with self.server.client() as client:
                client.set("test:time", round(self.clock.wall() * 1_000_000))

    def connect(self) -> Any:
        """A client of the server, or None."""
        if self.server is None:
            return None
        return redis.asyncio.Redis(unix_socket_path=self.server.path, decode_responses=self._decode)

    def run(self, main: Callable[[RateLimiter, Any], Awaitable[T]], **options: Any) -> T:
        """Run a coroutine with a limiter and its client."""
        options = {"clock": self.clock, "registry": self.registry, "store_timeout": PATIENT, **options}

        async def whole() -> T:
            client = self.connect()
            try:
                async with RateLimiter(client, **options) as limiter:
                    return await main(limiter, client)
            finally:
                if client is not None:
                    await client.aclose()

        return self.clock.run(whole()) if self.server is None else asyncio.run(whole())

    def commands(self) -> dict[str, int]:
        """How often the server ran each command since the last `CONFIG RESETSTAT`."""
        assert self.server is not None
        with self.server.client() as client:
            stats: Any = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): value["calls"] for name, value in stats.items()}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """Each world in turn."""
    return World("memory", None) if request.param == "memory" else _served(request.param, monkeypatch)


@pytest.fixture(params=WORLDS[1:])
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """Each world with a server."""
    return _served(request.param, monkeypatch)


def _served(name: str, monkeypatch: pytest.MonkeyPatch) -> World:
    changed = with_test_time(buckets._source())
    monkeypatch.setattr(buckets, "_source", lambda: changed)
    server = _redis() if name in SERVERS else shared_server()
    with server.client() as client:
        client.flushall()
        client.config_resetstat()
    return World(name, server, decode=name.endswith("text"))


@cache
def _redis() -> Server:
    """The oldest Redis that is promised."""
    server = Server(oldest_redis()).start()
    atexit.register(server.close)
    return server


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """A metric's values by its labels' values."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }
