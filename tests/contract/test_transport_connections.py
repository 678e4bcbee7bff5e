"""Connections that go wrong before answers or between them: F15 kept ones, F21 names, F26 cancelled."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from tests.transports import (
    Make,
    cancelled_at,
    chunked,
    events,
    every_real,
    fetch,
    http,
    respond,
    serving,
    turns,
)

from headgate.core.outcome import Detail, Kind
from headgate.core.ports import TransportError
from headgate.testing import VirtualClock
from headgate.transport.bounds import Timeouts
from headgate.transport.lean import LeanTransport

pytestmark = pytest.mark.timeout(60)


# ── F15: a connection that was kept, and that the upstream has closed meanwhile ─────────────────────


@every_real
async def test_f15_a_kept_connection_that_was_closed_is_not_used(
    make: Make, clock: VirtualClock
) -> None:
    async with serving(respond(http(b"x"), close=True)) as server:
        transport = make(clock)
        for number in range(1, 4):
            assert await fetch(transport, server.url) == (200, b"x")
            await clock.sleep(0.1)
            assert server.connections == number
        await transport.aclose()


@dataclass
class Closing:
    """Closes a connection when it is `told`; `closed` says that it did."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)


@contextmanager
def closing_between_answers(close: Callable[[socket.socket], None]) -> Iterator[Closing]:
    """A server in a thread: it answers one request a connection, and closes it when told."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Closing(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.requests.append(connection.recv(65536))
            connection.sendall(http(b"x"))
            server.told.wait(5)
            close(connection)
            server.closed.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        server.told.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("close", [socket.socket.close, reset], ids=["end", "reset"])
def test_f15_even_while_the_loop_was_too_busy_to_hear_of_it(
    close: Callable[[socket.socket], None],
) -> None:
    """The lean transport asks the system about a connection that has rested, before it writes."""
    with closing_between_answers(close) as server:
        transport = LeanTransport(VirtualClock())

        async def twice() -> None:
            assert await fetch(transport, server.url) == (200, b"x")
            (kept,) = transport._keepers[asyncio.get_running_loop()].pool._all
            kept.rested -= 1  # second
            server.told.set()
            assert server.closed.wait(5)  # the loop stands still, and hears of nothing
            assert await fetch(transport, server.url) == (200, b"x")
            await transport.aclose()

        asyncio.run(twice())
        assert len(server.requests) == 2


def test_f15_a_first_write_that_the_system_refuses_goes_out_over_another() -> None:
    """Not a byte was sent, so nobody can have acted on it: the request goes on as if it were new."""
    with closing_between_answers(reset) as server:
        transport = LeanTransport(VirtualClock())

        async def twice() -> None:
            assert await fetch(transport, server.url) == (200, b"x")
            server.told.set()
            assert server.closed.wait(5)
            assert await fetch(transport, server.url) == (200, b"x")
            await transport.aclose()

        asyncio.run(twice())
        assert len(server.requests) == 2


@every_real
async def test_f15_but_what_may_have_been_heard_is_not_sent_twice(
    make: Make, clock: VirtualClock
) -> None:
    """A POST over a kept connection, taken and dropped without a word: an error that says `sent`."""
    answers = [http(b"x"), b""]

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = answers.pop(0)
        writer.write(raw)
        if not raw:
            writer.transport.abort()

    async with serving(script) as server:
        transport = make(clock)
        assert await fetch(transport, server.url) == (200, b"x")
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url)
        assert (caught.value.outcome.kind, caught.value.sent) == (Kind.NETWORK, True)
        assert (server.connections, len(server.requests)) == (1, 2)
        await transport.aclose()


@pytest.mark.parametrize("seconds", ["timeout=5", "timeout=5, max=100", "max=100,Timeout=5"])
async def test_f15_an_upstream_that_says_how_long_it_keeps_a_connection_is_believed(
    seconds: str, clock: VirtualClock
) -> None:
    async with serving(respond(http(b"x", "200 OK", f"Keep-Alive: {seconds}"))) as server:
        transport = LeanTransport(clock)
        for wait, connections in ((3.5, 1), (3.5, 1), (4.5, 2)):
            await fetch(transport, server.url)
            await clock.sleep(wait)
            await fetch(transport, server.url)
            assert server.connections == connections
        await transport.aclose()


# ── F21: names ───────────────────────────────────────────────────────────────────────────────────


@every_real
@pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL])
async def test_f21_a_name_that_is_not_resolved(
    make: Make, number: int, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NXDOMAIN and SERVFAIL; asked again by the next call."""
    asked = 0

    async def failing(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise socket.gaierror(number, "no")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", failing)
    transport = make(clock)
    for _ in range(2):
        with pytest.raises(TransportError) as caught:
            await fetch(transport, "http://api.invalid")
        assert caught.value.outcome.detail is Detail.DNS
        assert not caught.value.sent
    assert asked == 2
    await transport.aclose()


@every_real
async def test_f21_a_slow_resolver_costs_the_connect_timeout(
    make: Make, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object, **__: object) -> None:
        await clock.sleep(3600)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow)
    transport = make(clock, Timeouts(connect=7))
    with pytest.raises(TransportError) as caught:
        await fetch(transport, "http://api.invalid")
    assert caught.value.outcome.kind is Kind.NETWORK
    assert caught.value.outcome.detail is Detail.CONNECT_TIMEOUT
    assert clock.monotonic() == pytest.approx(7, abs=0.1)
    await transport.aclose()
    await turns(3)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def resolving(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name lead to these addresses; gives the names as they are asked for."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()

    async def found(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        await clock.sleep(0.5)
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (address, port)) for address in addresses]

    monkeypatch.setattr(loop, "getaddrinfo", found)
    return asked


async def test_f21_one_question_serves_all_who_wait_for_it(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where whoever asked first was cancelled; and the answer is good for a minute."""
    async with serving(respond(http(b"x"))) as server:
        asked = resolving(clock, monkeypatch, "127.0.0.1")
        url = server.url.replace("127.0.0.1", "api.example")
        transport = LeanTransport(clock)
        calls = [asyncio.ensure_future(fetch(transport, url)) for _ in range(20)]
        await clock.sleep(0.1)
        calls[0].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[1:] == [(200, b"x")] * 19
        assert asked == ["api.example"]
        assert b"Host: api.example" in server.requests[0]
        await transport.aclose()


async def test_f21_an_address_that_changed_is_found(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute for new connections, and after ten for one that is always in use."""
    async with serving(respond(http(b"x"))) as server:
        asked = resolving(clock, monkeypatch, "127.0.0.1")
        url = server.url.replace("127.0.0.1", "api.example")
        transport = LeanTransport(clock)
        for _ in range(63):
            assert await fetch(transport, url) == (200, b"x")
            await clock.sleep(10)
        assert (server.connections, len(asked)) == (2, 2)
        await transport.aclose()


@pytest.mark.parametrize("fault", ["silent", "refused"])
async def test_f21_an_address_where_nobody_answers_is_asked_for_anew(
    fault: str, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def dead(sock: socket.socket, address: tuple[str, int]) -> None:
        if fault == "silent":
            await clock.sleep(3600)
        raise ConnectionRefusedError(111, "Connection refused")

    async with serving(respond(http(b"x"))) as server:
        asked = resolving(clock, monkeypatch, "127.0.0.1")
        transport = LeanTransport(clock, Timeouts(connect=5))
        url = server.url.replace("127.0.0.1", "api.example")
        monkeypatch.setattr(loop, "sock_connect", dead)
        with pytest.raises(TransportError):
            await fetch(transport, url)
        monkeypatch.setattr(loop, "sock_connect", connect)
        assert await fetch(transport, url) == (200, b"x")
        assert len(asked) == 2
        await transport.aclose()


async def test_f21_one_dead_address_of_two_costs_a_quarter_of_a_second(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8305: the next address is tried beside one that does not answer."""
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def dead(sock: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "127.0.0.9":
            await clock.sleep(3600)
        await connect(sock, address)

    async with serving(respond(http(b"x"))) as server:
        resolving(clock, monkeypatch, "127.0.0.9", "127.0.0.1")
        monkeypatch.setattr(loop, "sock_connect", dead)
        transport = LeanTransport(clock)
        url = server.url.replace("127.0.0.1", "api.example")
        assert await fetch(transport, url) == (200, b"x")
        assert clock.monotonic() == pytest.approx(0.5 + 0.25, abs=0.1)
        await transport.aclose()


# ── F26: calls that are cancelled ────────────────────────────────────────────────────────────────


async def test_f26_a_thousand_calls_cancelled_while_they_connect_leave_no_slot_behind(
    clock: VirtualClock,
) -> None:
    async with serving(respond(http(b"x"))) as server:
        transport = LeanTransport(clock, connections=8)
        for round_number in range(10):
            tasks = [asyncio.ensure_future(fetch(transport, server.url)) for _ in range(100)]
            await turns(round_number)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        results = await asyncio.gather(*(fetch(transport, server.url) for _ in range(50)))
        assert results == [(200, b"x")] * 50
        pool = transport._keepers[asyncio.get_running_loop()].pool
        assert pool.slots == len(pool._all) <= 8
        await transport.aclose()
        assert pool.slots == 0


@every_real
@pytest.mark.parametrize("streaming", [False, True])
def test_f26_cancelled_at_every_await_point_the_transport_serves_on(
    make: Make, streaming: bool
) -> None:
    """Each time: no task stays, the upstream sees the end, the next call is answered."""
    points = 0
    while not cancelled_play(make, streaming, points + 1):
        points += 1
    assert points >= 3, "connecting, head and body were waited for"


def cancelled_play(make: Make, streaming: bool, point: int) -> bool:
    """One call, cancelled at a point, then another. Returns whether the first ended before it."""
    clock = VirtualClock()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (chunked(end=False), b"9\r\ndata: a\n\n\r\n", b"0\r\n\r\n"):
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 1)  # raises when the client is gone
            writer.write(piece)

    async def scene() -> bool:
        async with serving(slowly) as server:
            transport = make(clock, Timeouts())
            before = asyncio.all_tasks()
            seen: list[bytes] = []
            call = events(transport, server.url, seen) if streaming else fetch(transport, server.url)
            cut_short = False
            ended = False
            try:
                ended = await cancelled_at(call, point)
            except asyncio.CancelledError:
                cut_short = True
            assert ended != cut_short
            await turns(5)
            mine = {
                task for task in asyncio.all_tasks() - before if "serve" not in repr(task.get_coro())
            }
            assert not mine
            if cut_short and server.connections:
                started = clock.monotonic()
                await asyncio.wait_for(server.gone.wait(), 5)
                assert clock.monotonic() - started < 0.1
            assert await fetch(transport, server.url) == (200, b"data: a\n\n")
            await transport.aclose()
            return ended

    return clock.run(scene())
