"""What flows through the lean transport: how much it holds, how long, what stays after a long run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import authority, server_context, trusting
from tests.transports import (
    CREDENTIAL,
    accepting,
    chunked,
    events,
    fetch,
    http,
    request,
    respond,
    serving,
    take_request,
    turns,
)

from headgate.core.errors import ConfigurationError
from headgate.core.outcome import Kind
from headgate.core.ports import TransportError
from headgate.testing import VirtualClock
from headgate.transport import lean_parser
from headgate.transport.bounds import Timeouts
from headgate.transport.lean import LeanTransport
from headgate.transport.lean_exchange import HIGH_WATER, LeanExchange
from headgate.transport.lean_pool import LeanPool

pytestmark = pytest.mark.timeout(60)

ONE_READ = 256 * 1024
"""Bytes a loop reads from a socket at once, at the most."""


def pool_of(transport: LeanTransport) -> LeanPool:
    return transport._keepers[asyncio.get_running_loop()].pool


# ── what they hold ───────────────────────────────────────────────────────────────────────────────


async def test_a_slow_reader_holds_no_more_than_a_few_reads(clock: VirtualClock) -> None:
    """F30, upstream's side: 24 MB are offered; what nobody reads stays with the upstream."""
    event = b"data: " + b"x" * 65530 + b"\n\n"
    written = 0

    async def eager(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(chunked(end=False))
        for _ in range(366):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            written += len(event)
        writer.write(b"0\r\n\r\n")

    async with serving(eager) as server:
        transport = LeanTransport(clock, Timeouts(stream_idle=10))
        exchange = await transport.open(request(server.url, streaming=True), CREDENTIAL, None)
        events = exchange.events()
        seen = 0
        for _ in range(3):
            await anext(events)
            seen += 1
            await clock.sleep(60)  # longer than silence may last: it is ours, not the upstream's
            assert exchange.held <= HIGH_WATER + ONE_READ
        assert written < 366 * len(event)
        async for _ in events:
            seen += 1
            assert exchange.held <= HIGH_WATER + ONE_READ
        assert seen == 366
        await exchange.aclose()
        assert await fetch(transport, server.url)
        assert server.connections == 1, "and the connection is as good as any other"
        await transport.aclose()


async def test_a_deadline_is_one_for_slow_readers_too(clock: VirtualClock) -> None:
    async def eager(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(end=False))
        while True:
            writer.write(b"10000\r\n" + b"data: x\n" * 8192 + b"\r\n")
            await writer.drain()

    async with serving(eager) as server:
        transport = LeanTransport(clock)
        exchange = await transport.open(request(server.url, streaming=True), CREDENTIAL, 30.0)
        await asyncio.wait_for(server.gone.wait(), 60)
        assert clock.monotonic() == pytest.approx(30, abs=0.1)
        with pytest.raises(TransportError) as caught:
            async for _ in exchange.events():
                pass
        assert caught.value.outcome.kind is Kind.TIMEOUT
        await transport.aclose()


async def test_an_answer_that_was_closed_is_not_read(clock: VirtualClock) -> None:
    async with serving(respond(http(b"half", length=100), stall=True)) as server:
        transport = LeanTransport(clock)
        for read in (LeanExchange.read, lambda exchange: anext(exchange.events())):
            exchange = await transport.open(request(server.url), CREDENTIAL, None)
            await exchange.aclose()
            with pytest.raises(TransportError):
                await read(exchange)
        await transport.aclose()


async def test_one_timer_serves_many_requests(clock: VirtualClock) -> None:
    """A hundred calls over a connection set one timer; and the last still ends at its own deadline."""
    replies = [http(b"x")] * 100 + [b""]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = replies.pop(0)
        await respond(raw, stall=not raw)(reader, writer)

    async with serving(script) as server:
        transport = LeanTransport(clock, Timeouts(attempt=50))
        loop = asyncio.get_running_loop()
        armed: list[float] = []
        call_at = loop.call_at

        def counted(when: float, *rest: object, **options: object) -> asyncio.TimerHandle:
            if getattr(rest[0], "__name__", "") == "_look_at_time":
                armed.append(when)
            return call_at(when, *rest, **options)  # type: ignore[arg-type]

        loop.call_at = counted  # type: ignore[method-assign, assignment]
        for _ in range(100):
            assert await fetch(transport, server.url) == (200, b"x")
            await clock.sleep(0.1)
        assert len(armed) == 1
        began = clock.monotonic()
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url)
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert clock.monotonic() - began == pytest.approx(50, abs=0.1)
        assert len(armed) == 2
        await transport.aclose()


async def test_a_call_whose_time_is_over_sends_nothing(clock: VirtualClock) -> None:
    async with serving(respond(http(b"x"))) as server:
        transport = LeanTransport(clock)
        await clock.sleep(5)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url, 5.0)
        assert (caught.value.outcome.kind, caught.value.sent) == (Kind.TIMEOUT, False)
        assert server.connections == 0
        await transport.aclose()


async def test_a_body_larger_than_a_buffer_goes_out_whole(clock: VirtualClock) -> None:
    body = os.urandom(3 << 20)
    async with serving(respond(http(b"x"))) as server:
        transport = LeanTransport(clock)
        exchange = await transport.open(request(server.url, body=body), CREDENTIAL, None)
        assert await exchange.read() == b"x"
        assert server.requests[0].partition(b"\r\n\r\n")[2] == body
        assert await fetch(transport, server.url) == (200, b"x")
        assert server.connections == 1
        await transport.aclose()


async def test_an_upstream_that_takes_a_large_request_slowly_is_not_silent(clock: VirtualClock) -> None:
    """A stream's silence counts from the last byte either way."""
    taken = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while taken < length:
            taken += len(await reader.readexactly(min(8 << 20, length - taken)))
            await clock.sleep(8)
        writer.write(chunked(b"data: one\n\n"))
        await reader.read()

    async with accepting(slow) as port:
        transport = LeanTransport(clock, Timeouts(stream_idle=10))
        url = f"http://127.0.0.1:{port}"
        exchange = await transport.open(
            request(url, streaming=True, body=bytes(64 << 20)), CREDENTIAL, None
        )
        assert [event.data async for event in exchange.events()] == [b"one"]
        assert taken == 64 << 20
        assert clock.monotonic() > 60
        await transport.aclose()


async def test_and_one_that_stops_taking_it_is(clock: VirtualClock) -> None:
    async def stops(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await clock.sleep(1000)

    async with accepting(stops) as port:
        transport = LeanTransport(clock, Timeouts(stream_idle=10))
        large = request(f"http://127.0.0.1:{port}", streaming=True, body=bytes(64 << 20))
        with pytest.raises(TransportError) as caught:
            await transport.open(large, CREDENTIAL, None)
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert clock.monotonic() <= 20.1, "within a second silence: the first began before it stopped"
        await transport.aclose()


def test_without_httptools_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "httptools", None)
    with pytest.raises(ConfigurationError, match=r"headgate\[serve\]"):
        LeanTransport(VirtualClock())
    with pytest.raises(ConfigurationError, match="aiohttp"):
        lean_parser.load_library()


# ── a long run, on each loop there is ────────────────────────────────────────────────────────────


def event_loops() -> list[Any]:
    found = [pytest.param(asyncio.new_event_loop, id="asyncio")]
    if find_spec("uvloop"):  # not on every system
        import uvloop

        found.append(pytest.param(uvloop.new_event_loop, id="uvloop"))
    return found


@pytest.mark.parametrize("new_loop", event_loops())
def test_a_long_run_of_all_kinds_of_calls_leaves_nothing_behind(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Whole answers, streams, breaks, refusals, early goodbyes: sockets, tasks and slots stay flat."""
    kinds = (b"/whole", b"/chunks", b"/close", b"/cut", b"/stall", b"/junk")
    bodies = {
        b"/whole": http(b"x" * 1000),
        b"/chunks": chunked(*[b"data: piece\n\n"] * 20),
        b"/close": http(b"last", "200 OK", "Connection: close"),
        b"/cut": http(b"half", length=100),
        b"/stall": chunked(b"data: first\n\n", end=False),
        b"/junk": b"junk\r\n\r\n",
    }

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await take_request(reader)
            kind = head.split(b" ")[1].partition(b"/v1beta")[0]
            writer.write(bodies[kind])
            if kind in (b"/close", b"/cut", b"/junk"):
                writer.close()
                return
            if kind == b"/stall":
                await reader.read()
                return

    async def call(transport: LeanTransport, url: str, number: int) -> str:
        kind = kinds[number % len(kinds)].decode()
        try:
            if kind in ("/chunks", "/stall"):
                seen: list[bytes] = []
                await asyncio.wait_for(
                    events(transport, url + kind, seen), 0.02 if kind == "/stall" else 30
                )
                return str(len(seen))
            return str((await fetch(transport, url + kind))[0])
        except TransportError as error:
            return error.outcome.kind.value
        except TimeoutError:
            return "left"

    async def run() -> None:
        async with accepting(answers) as port:
            transport = LeanTransport(VirtualClock(), Timeouts(connect=60), connections=8)
            url = f"http://127.0.0.1:{port}"
            before = descriptors()
            expected = ["200", "20", "200", "network", "left", "protocol"]
            for _ in range(5):
                results = await asyncio.gather(*(call(transport, url, number) for number in range(240)))
                assert results == expected * 40
                pool = pool_of(transport)
                assert pool.slots <= 8
                assert len(pool._line) == 0
            await transport.aclose()
            await turns(5)
            await until(
                lambda: descriptors() <= before + 1
            )  # the server closes its side in its own time
            assert pool.slots == 0
            here = asyncio.current_task()
            tasks = [task for task in asyncio.all_tasks() if task is not here]
            assert all("serve" in repr(task.get_coro()) for task in tasks)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


async def until(true: Callable[[], bool]) -> None:
    """Let a real server do its part; ten seconds are for a machine that is very busy."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)  # noqa: TID251 - a real loop, and a real server
    pytest.fail("it never came to be")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("new_loop", event_loops())
def test_each_loop_lets_go_at_once(
    new_loop: Callable[[], asyncio.AbstractEventLoop], tls: bool, tmp_path: Path
) -> None:
    """Cancelled before the head, in the body, in a stream: closed at once; the next call is served."""
    asked = ended = 0

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked, ended
        try:
            head = await take_request(reader)
            asked += 1
            if b"/fine" in head:
                writer.write(http(b"x"))
                await reader.read()
                return
            writer.write(b"" if b"/silent" in head else chunked(b"data: one\n\n", end=False))
            await reader.read()
        finally:
            ended += 1

    async def run() -> None:
        options = {"ssl": server_context(tmp_path, "127.0.0.1", signed_by=authority())} if tls else {}
        async with accepting(stalls, **options) as port:
            url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            transport = LeanTransport(VirtualClock(), Timeouts(), lambda: trusting(authority()))
            calls = (
                fetch(transport, f"{url}/silent"),
                fetch(transport, f"{url}/body"),
                events(transport, f"{url}/stream", []),
            )
            for number, call in enumerate(calls, 1):
                task = asyncio.ensure_future(call)
                await until(lambda number=number: asked == number)  # type: ignore[misc]
                await turns(20)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await until(lambda number=number: ended == number)  # type: ignore[misc]
            assert await fetch(transport, f"{url}/fine") == (200, b"x")
            await transport.aclose()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
