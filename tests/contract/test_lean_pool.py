"""The connections of the lean transport: how many, whose turn, and how long they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
from tests.transports import (
    CREDENTIAL,
    accepting,
    fetch,
    http,
    request,
    respond,
    serving,
    take_request,
    turns,
)

from headgate.core.outcome import Detail, Kind
from headgate.core.ports import TransportError
from headgate.testing import VirtualClock
from headgate.transport.bounds import Timeouts
from headgate.transport.lean import LeanTransport
from headgate.transport.lean_pool import LeanPool

pytestmark = pytest.mark.timeout(60)


@dataclass
class Counted:
    """A server's connections at once."""

    url: str = ""
    now: int = 0
    most: int = 0
    requests: int = 0


@asynccontextmanager
async def counting(clock: VirtualClock, seconds: float = 1.0) -> AsyncIterator[Counted]:
    """A server that takes its time for an answer and counts connections."""
    counted = Counted()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counted.now += 1
        counted.most = max(counted.most, counted.now)
        try:
            while True:
                await take_request(reader)
                counted.requests += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.readexactly(1), seconds)  # raises if it is gone
                writer.write(http(b"x"))
        finally:
            counted.now -= 1

    async with accepting(connected) as port:
        counted.url = f"http://127.0.0.1:{port}"
        yield counted


def pool_of(transport: LeanTransport) -> LeanPool:
    return transport._keepers[asyncio.get_running_loop()].pool


# ── how many, and whose turn ─────────────────────────────────────────────────────────────────────


async def test_there_are_never_more_connections_than_allowed(clock: VirtualClock) -> None:
    async with counting(clock) as server:
        transport = LeanTransport(clock, connections=3)
        results = await asyncio.gather(*(fetch(transport, server.url) for _ in range(15)))
        assert results == [(200, b"x")] * 15
        assert server.most == 3
        assert clock.monotonic() == pytest.approx(5, abs=0.1)
        await transport.aclose()
        await turns(5)
        assert server.now == 0


async def test_who_waits_longest_is_served_first(clock: VirtualClock) -> None:
    async with counting(clock) as server:
        transport = LeanTransport(clock, connections=1)
        order: list[int] = []

        async def call(number: int) -> None:
            await fetch(transport, server.url)
            order.append(number)

        tasks = []
        for number in range(6):
            tasks.append(asyncio.ensure_future(call(number)))
            await turns(2)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4, 5]
        await transport.aclose()


async def test_waiting_for_a_connection_counts_as_connecting(clock: VirtualClock) -> None:
    async with counting(clock, seconds=60) as server:
        transport = LeanTransport(clock, Timeouts(connect=7), connections=1)
        first = asyncio.ensure_future(fetch(transport, server.url))
        await turns(20)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url)
        assert caught.value.outcome.detail is Detail.CONNECT_TIMEOUT
        assert not caught.value.sent
        assert clock.monotonic() == pytest.approx(7, abs=0.1)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url, clock.monotonic() + 3)
        assert (caught.value.outcome.kind, caught.value.sent) == (Kind.TIMEOUT, False)
        assert clock.monotonic() == pytest.approx(10, abs=0.1)
        assert await first == (200, b"x")
        assert (server.requests, len(pool_of(transport)._line)) == (1, 0)
        await transport.aclose()


async def test_who_leaves_the_line_takes_nothing_along(clock: VirtualClock) -> None:
    """Cancelled at any moment around its turn, a waiting call's slot goes to the next."""
    async with counting(clock) as server:
        transport = LeanTransport(clock, connections=1)
        for delay in range(12):
            first = asyncio.ensure_future(fetch(transport, server.url))
            await turns(3)
            leaving = asyncio.ensure_future(fetch(transport, server.url))
            staying = asyncio.ensure_future(fetch(transport, server.url))
            while not first.done():
                await clock.sleep(0.25)
                if server.requests > 2 * delay:
                    break
            await clock.sleep(0.75)
            await turns(delay)
            leaving.cancel()
            assert await first == (200, b"x")
            assert await staying == (200, b"x")
            await asyncio.gather(leaving, return_exceptions=True)
        assert pool_of(transport).slots == 1
        assert server.most == 1
        await transport.aclose()


async def test_room_is_made_for_another_upstream(clock: VirtualClock) -> None:
    """Connections that only wait are closed for calls that go elsewhere; the line knows no origins."""
    async with counting(clock) as one, counting(clock) as other:
        transport = LeanTransport(clock, connections=2)
        await asyncio.gather(*(fetch(transport, one.url) for _ in range(2)))
        assert (one.now, other.now) == (2, 0)
        await asyncio.gather(*(fetch(transport, other.url) for _ in range(2)))
        await turns(5)
        assert (one.now, other.now) == (0, 2)
        urls = [one.url, other.url] * 4
        assert await asyncio.gather(*(fetch(transport, url) for url in urls)) == [(200, b"x")] * 8
        assert pool_of(transport).slots == 2
        await transport.aclose()


async def test_a_failed_connection_leaves_its_slot_to_the_next(clock: VirtualClock) -> None:
    async with serving(respond(b"")) as gone:
        nobody = gone.url
    transport = LeanTransport(clock, connections=1)
    async with counting(clock) as server:
        urls = [nobody, nobody, server.url, nobody, server.url]
        results = await asyncio.gather(*(fetch(transport, url) for url in urls), return_exceptions=True)
        assert [isinstance(result, TransportError) for result in results] == [
            True,
            True,
            False,
            True,
            False,
        ]
        assert pool_of(transport).slots == 1
        await transport.aclose()


async def test_closing_while_calls_wait_tells_them(clock: VirtualClock) -> None:
    async with counting(clock, seconds=60) as server:
        transport = LeanTransport(clock, connections=1)
        calls = [asyncio.ensure_future(fetch(transport, server.url)) for _ in range(3)]
        await turns(20)
        await transport.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)
        told = [(r.outcome.kind, r.sent) for r in results if isinstance(r, TransportError)]
        assert told == [(Kind.NETWORK, True), (Kind.NETWORK, False), (Kind.NETWORK, False)]


# ── how long they are kept ───────────────────────────────────────────────────────────────────────


async def test_a_connection_nobody_uses_is_closed_in_time(clock: VirtualClock) -> None:
    async with counting(clock, seconds=0) as server:
        transport = LeanTransport(clock, idle_seconds=15)
        await asyncio.gather(*(fetch(transport, server.url) for _ in range(4)))
        await clock.sleep(10)
        assert server.now == 4
        await fetch(transport, server.url)  # one of them rests anew
        await clock.sleep(10)
        assert server.now == 1
        await clock.sleep(10)
        assert (server.now, pool_of(transport).slots) == (0, 0)
        assert not pool_of(transport)._idle
        await transport.aclose()


async def test_the_one_used_last_is_used_next(clock: VirtualClock) -> None:
    """So that connections a quiet hour does not need expire."""
    async with counting(clock, seconds=0.1) as server:
        transport = LeanTransport(clock, idle_seconds=15)
        await asyncio.gather(*(fetch(transport, server.url) for _ in range(4)))
        for _ in range(20):
            await fetch(transport, server.url)
            await clock.sleep(1)
        assert server.now == 1
        await transport.aclose()


@pytest.mark.parametrize("surplus", [http(b"another caller's"), b"\r\n", b"x"])
async def test_what_comes_while_nobody_waits_ends_the_connection(
    surplus: bytes, clock: VirtualClock
) -> None:
    """An answer that nobody asked for reaches nobody."""
    accepted = 0

    async def generous(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await take_request(reader)
        writer.write(http(b"x"))
        await clock.sleep(1)
        writer.write(surplus)
        await reader.read()

    async with accepting(generous) as port:
        transport = LeanTransport(clock)
        for number in (1, 2):
            assert await fetch(transport, f"http://127.0.0.1:{port}") == (200, b"x")
            assert accepted == number
            await clock.sleep(2)
            assert pool_of(transport).slots == 0
        await transport.aclose()


async def test_who_speaks_first_is_not_spoken_to(clock: VirtualClock) -> None:
    """Bytes before any request: the connection is not what it seems."""

    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"unasked"))
        await reader.read()

    async with accepting(banner) as port:
        transport = LeanTransport(clock)
        with pytest.raises(TransportError):
            await transport.open(request(f"http://127.0.0.1:{port}"), CREDENTIAL, None, not_after=-1.0)
        await clock.sleep(1)  # kept for the next try, but then it spoke
        assert pool_of(transport).slots == 0
        await transport.aclose()


async def test_an_answer_reads_on_while_its_connection_serves_another(clock: VirtualClock) -> None:
    """Two answers over one connection, the first read after the second: each is its own."""
    bodies = [b"one" * 100, b"two" * 100, b"three"]

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(bodies.pop(0)))

    async with serving(script) as server:
        transport = LeanTransport(clock)
        first = await transport.open(request(server.url), CREDENTIAL, None)
        second = await transport.open(request(server.url), CREDENTIAL, None)
        assert server.connections == 1
        assert await second.read() == b"two" * 100
        assert await first.read() == b"one" * 100
        await first.aclose()  # whole already: its connection is not its own any more
        await second.aclose()
        assert await fetch(transport, server.url) == (200, b"three")
        assert server.connections == 1
        await transport.aclose()
