"""What every transport promises, and what the real one does with a server that misbehaves."""

# ruff: noqa: PERF401, PT012 - these tests look at what came before a stream broke

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from headgate.core.outcome import Kind
from headgate.core.ports import Exchange, Request, Transport, TransportError
from headgate.testing import Answer, Broken, ScriptedTransport, VirtualClock
from headgate.transport.http import HttpTransport, Timeouts

CREDENTIAL = {"x-goog-api-key": "AIzaCANARY-one"}

# ── a server that does what it is told, byte by byte ────────────────────────────────────────────

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A raw loopback server.

    Attributes:
        requests: heads and bodies as they came.
        gone: set when a client's connection has ended.
    """

    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0


async def take_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return head + (await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b"")


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    server = Server()
    tasks: list[asyncio.Future[None]] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while True:
                server.requests.append(await take_request(reader))
                await script(reader, writer)
                await writer.drain()
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            server.gone.set()
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**20)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for _ in range(10):  # a connection may have been accepted at this very moment
            await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def respond(raw: bytes, *, close: bool = False, stall: bool = False, reset: bool = False) -> Script:
    """Writes bytes, then closes, resets, or says nothing more until the client is gone."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if raw:
            writer.write(raw)
            await writer.drain()
        if stall:
            await reader.read()
            writer.close()
        elif reset:
            writer.transport.abort()
        elif close:
            writer.close()

    return script


def http(
    body: bytes = b"", status: str = "200 OK", *headers: str, length: int | str | None = "real"
) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == 'real' else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return http(b"", "200 OK", "Transfer-Encoding: chunked", length=None) + body + b"0\r\n\r\n" * end


def request(url: str, *, streaming: bool = False, body: bytes = b'{"a":1}') -> Request:
    return Request(
        "POST", f"{url}/v1beta/models/m:x", {"content-type": "application/json"}, body, streaming
    )


async def fetch(transport: Transport, url: str, deadline: float | None = None) -> tuple[int, bytes]:
    exchange = await transport.open(request(url), CREDENTIAL, deadline)
    try:
        return exchange.status, await exchange.read()
    finally:
        await exchange.aclose()


async def events(
    transport: Transport, url: str, seen: list[bytes], deadline: float | None = None
) -> None:
    exchange = await transport.open(request(url, streaming=True), CREDENTIAL, deadline)
    try:
        async for event in exchange.events():
            seen.append(event.data)
    finally:
        await exchange.aclose()


# ── the suite for every transport ───────────────────────────────────────────────────────────────


@dataclass
class Case:
    """A transport and where to send to, set up to answer in one way."""

    transport: Transport
    url: str = "http://127.0.0.1:9"

    async def open(self, *, streaming: bool = False, deadline: float | None = None) -> Exchange:
        return await self.transport.open(request(self.url, streaming=streaming), CREDENTIAL, deadline)


WHOLE = b'{"text": "' + "漢".encode() * 1000 + b'"}'
EVENTS = (b"data: one\r\n\r\n", b"data: two\r\n\r\n", b"data: three")
SITUATIONS: dict[str, tuple[Answer | Broken, Script]] = {
    "whole": (Answer(200, WHOLE, {"x-a": "b"}), respond(http(WHOLE, "200 OK", "X-A: b"))),
    "error": (Answer(429, b"no", {"x-a": "b"}), respond(http(b"no", "429 Too Many", "X-A: b"))),
    "events": (Answer(pieces=EVENTS), respond(chunked(*EVENTS))),
    "broken": (
        Answer(pieces=EVENTS[:2], broken=True),
        respond(chunked(*EVENTS[:2], end=False), close=True),
    ),
    "refused": (Broken(Kind.NETWORK), respond(b"", close=True)),
    "silent": (Answer(200, delay=1e6), respond(b"", stall=True)),
    "stalled": (
        Answer(body=EVENTS[0], pieces=(b"",), piece_delay=1e6),
        respond(chunked(EVENTS[0], end=False), stall=True),
    ),
}


@asynccontextmanager
async def situation(kind: str, name: str, clock: VirtualClock) -> AsyncIterator[Case]:
    answer, script = SITUATIONS[name]
    if kind == "scripted":
        yield Case(ScriptedTransport([answer], clock))
        return
    async with serving(script) as server:
        transport = HttpTransport(clock)
        yield Case(transport, server.url)
        await transport.aclose()


pytestmark = pytest.mark.timeout(60)
every = pytest.mark.parametrize("kind", ["scripted", "http"])


@every
@pytest.mark.parametrize(("name", "status", "body"), [("whole", 200, WHOLE), ("error", 429, b"no")])
async def test_a_whole_answer_comes_as_it_was_sent(
    kind: str, name: str, status: int, body: bytes, clock: VirtualClock
) -> None:
    async with situation(kind, name, clock) as case:
        exchange = await case.open(deadline=clock.monotonic() + 30)
        assert exchange.status == status
        assert exchange.headers["x-a"] == "b"
        assert await exchange.read() == body
        await exchange.aclose()
        await exchange.aclose()  # twice is harmless


@every
async def test_events_come_in_order_and_the_unterminated_last_one_too(
    kind: str, clock: VirtualClock
) -> None:
    async with situation(kind, "events", clock) as case:
        exchange = await case.open(streaming=True)
        assert [event.data async for event in exchange.events()] == [b"one", b"two", b"three"]
        await exchange.aclose()


@every
async def test_a_break_in_mid_stream_is_typed_after_what_came(kind: str, clock: VirtualClock) -> None:
    async with situation(kind, "broken", clock) as case:
        exchange = await case.open(streaming=True)
        seen = []
        with pytest.raises(TransportError) as caught:
            async for event in exchange.events():
                seen.append(event.data)
        assert seen == [b"one", b"two"]
        assert caught.value.outcome.kind is Kind.NETWORK
        assert caught.value.sent
        await exchange.aclose()


@every
async def test_no_answer_is_a_network_fault(kind: str, clock: VirtualClock) -> None:
    async with situation(kind, "refused", clock) as case:
        with pytest.raises(TransportError) as caught:
            await case.open()
        assert caught.value.outcome.kind is Kind.NETWORK
        assert caught.value.sent
        assert "CANARY" not in str(caught.value)
        assert caught.value.__cause__ is None


@every
@pytest.mark.parametrize("streaming", [False, True])
async def test_silence_before_the_head_ends_at_the_deadline(
    kind: str, streaming: bool, clock: VirtualClock
) -> None:
    async with situation(kind, "silent", clock) as case:
        with pytest.raises(TransportError) as caught:
            await case.open(streaming=streaming, deadline=clock.monotonic() + 7)
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert caught.value.sent
        assert clock.monotonic() == pytest.approx(7, abs=0.1)


@every
async def test_silence_within_a_stream_ends_at_the_deadline(kind: str, clock: VirtualClock) -> None:
    async with situation(kind, "stalled", clock) as case:
        exchange = await case.open(streaming=True, deadline=clock.monotonic() + 7)
        seen = []
        with pytest.raises(TransportError) as caught:
            async for event in exchange.events():
                seen.append(event.data)
        assert seen == [b"one"]
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert clock.monotonic() == pytest.approx(7, abs=0.1)
        await exchange.aclose()


@every
@pytest.mark.parametrize("name", ["whole", "events", "broken", "stalled"])
async def test_an_exchange_may_be_closed_unread(kind: str, name: str, clock: VirtualClock) -> None:
    async with situation(kind, name, clock) as case:
        exchange = await case.open(streaming=True)
        await exchange.aclose()
        await exchange.aclose()
        if isinstance(case.transport, ScriptedTransport):
            assert case.transport.open_exchanges == 0


@every
async def test_closing_a_transport_is_idempotent_and_not_the_end(
    kind: str, clock: VirtualClock
) -> None:
    async with situation(kind, "whole", clock) as case:
        await case.transport.aclose()
        await case.transport.aclose()
        assert await fetch(case.transport, case.url) == (200, WHOLE)
        await case.transport.aclose()
        assert await fetch(case.transport, case.url) == (200, WHOLE)


@every
async def test_what_is_late_is_not_sent(kind: str, clock: VirtualClock) -> None:
    async with situation(kind, "whole", clock) as case:
        await clock.sleep(1)
        past, ahead = clock.monotonic() - 0.001, clock.monotonic() + 30
        with pytest.raises(TransportError) as caught:
            await case.transport.open(request(case.url), CREDENTIAL, None, not_after=past)
        assert caught.value.outcome.kind is Kind.LATE
        assert not caught.value.sent
        exchange = await case.transport.open(request(case.url), CREDENTIAL, None, not_after=ahead)
        assert await exchange.read() == WHOLE
        await exchange.aclose()
        if isinstance(case.transport, ScriptedTransport):
            assert len(case.transport.sent) == 1
        # It concerns one request, not those after it.
        await clock.sleep(60)
        assert await fetch(case.transport, case.url) == (200, WHOLE)


@every
async def test_events_left_early_leave_no_task_to_anyone(kind: str, clock: VirtualClock) -> None:
    async with situation(kind, "events", clock) as case:
        exchange = await case.open(streaming=True)
        before = asyncio.all_tasks()
        events = exchange.events()
        assert (await anext(events)).data == b"one"
        await events.aclose()
        await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes
        assert asyncio.all_tasks() == before
        await exchange.aclose()


async def test_a_late_connection_serves_the_next_request(clock: VirtualClock) -> None:
    """Whoever was late because of the handshake is not late again."""
    async with serving(respond(http(b"fine"))) as server:
        transport = HttpTransport(clock)
        with pytest.raises(TransportError):
            await transport.open(request(server.url), CREDENTIAL, None, not_after=-1.0)
        assert await fetch(transport, server.url) == (200, b"fine")
        assert (server.connections, len(server.requests)) == (1, 1)
        with pytest.raises(TransportError):  # one that was kept may come too late as well
            await transport.open(request(server.url), CREDENTIAL, None, not_after=-1.0)
        assert await fetch(transport, server.url) == (200, b"fine")
        assert (server.connections, len(server.requests)) == (1, 2)
        await transport.aclose()


async def test_a_send_is_late_if_the_loop_is_busy_between_connection_and_first_byte(
    clock: VirtualClock,
) -> None:
    """In a burst every call gets its connection in one turn of the loop, and is written in the next."""
    async with serving(respond(http(b"fine"))) as server:
        transport = HttpTransport(clock)
        assert await fetch(transport, server.url) == (200, b"fine")  # a connection that is kept
        seconds = iter([0.0, 1.0])  # when the connection is in hand, and before the first byte
        transport._clock = _Passing(seconds)
        with pytest.raises(TransportError) as caught:
            await transport.open(request(server.url), CREDENTIAL, None, not_after=0.5)
        assert (caught.value.outcome.kind, caught.value.sent) == (Kind.LATE, False)
        assert len(server.requests) == 1
        transport._clock = clock
        assert await fetch(transport, server.url) == (200, b"fine")
        assert len(server.requests) == 2
        await transport.aclose()


class _Passing(VirtualClock):
    """A clock that shows given times, one after the other."""

    def __init__(self, seconds: Iterator[float]) -> None:
        super().__init__()
        self._seconds = seconds

    def monotonic(self) -> float:
        return next(self._seconds)


# ── the real one against servers that misbehave ─────────────────────────────────────────────────

LIES: dict[str, tuple[Script, Kind]] = {
    "closes before the head": (respond(b"", close=True), Kind.NETWORK),
    "resets before the head": (respond(b"", reset=True), Kind.NETWORK),
    "closes within the head": (respond(b"HTTP/1.1 200 OK\r\nContent-", close=True), Kind.NETWORK),
    "closes after the head": (respond(http(length=100), close=True), Kind.NETWORK),
    "closes in the body": (respond(http(b"half", length=100), close=True), Kind.NETWORK),
    "resets in the body": (respond(http(b"half", length=100), reset=True), Kind.NETWORK),
    "closes in a chunk": (respond(chunked(b"a", end=False) + b"ff\r\nxx", close=True), Kind.NETWORK),
    "no chunk size": (respond(chunked(end=False) + b"zz\r\nxx\r\n", close=True), Kind.PROTOCOL),
    "length too short": (respond(http(b"four and more", length=4), close=True), Kind.PROTOCOL),
    "not HTTP": (respond(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", close=True), Kind.PROTOCOL),
    "bad status line": (respond(b"HTTP/1.1 abc OK\r\n\r\n", close=True), Kind.PROTOCOL),
    "huge header": (respond(http(b"x", "200 OK", "X-A: " + "a" * 70_000)), Kind.PROTOCOL),
    "two lengths": (
        respond(http(b"x", "200 OK", "Content-Length: 7"), close=True),
        Kind.PROTOCOL,
    ),
    "negative length": (respond(http(b"x", length=-5), close=True), Kind.PROTOCOL),
    "stalls before the head": (respond(b"", stall=True), Kind.TIMEOUT),
    "stalls within the head": (respond(b"HTTP/1.1 200", stall=True), Kind.TIMEOUT),
    "stalls after the head": (respond(http(length=9), stall=True), Kind.TIMEOUT),
    "stalls in the body": (respond(http(b"half", length=9), stall=True), Kind.TIMEOUT),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_misbehaving_server_becomes_a_typed_error_within_the_deadline(
    name: str, clock: VirtualClock
) -> None:
    script, kind = LIES[name]
    async with serving(script) as server:
        transport = HttpTransport(clock)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url, clock.monotonic() + 20)
        assert caught.value.outcome.kind is kind
        assert caught.value.sent
        assert caught.value.outcome.message.endswith(".")
        assert "CANARY" not in str(caught.value)
        assert clock.monotonic() <= 20.1
        await asyncio.wait_for(server.gone.wait(), 5)
        await transport.aclose()


@pytest.mark.parametrize("name", [name for name, (_, kind) in LIES.items() if kind is Kind.TIMEOUT])
async def test_without_a_deadline_the_attempt_timeout_counts(name: str, clock: VirtualClock) -> None:
    async with serving(LIES[name][0]) as server:
        transport = HttpTransport(clock, Timeouts(attempt=33))
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url)
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert clock.monotonic() == pytest.approx(33, abs=0.1)
        await transport.aclose()


@pytest.mark.parametrize("raw", [b"", chunked(b"data: one\n\n", end=False)], ids=["head", "body"])
async def test_a_stream_may_be_long_but_not_silent(raw: bytes, clock: VirtualClock) -> None:
    async with serving(respond(raw, stall=True)) as server:
        transport = HttpTransport(clock, Timeouts(stream_idle=44, attempt=10))
        seen: list[bytes] = []
        with pytest.raises(TransportError) as caught:
            await events(transport, server.url, seen)
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert seen == ([b"one"] if raw else [])
        assert clock.monotonic() == pytest.approx(44, abs=0.1)
        await transport.aclose()


async def test_a_stream_that_trickles_for_an_hour_is_read_to_its_end(clock: VirtualClock) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(end=False))
        for number in range(40):
            await clock.sleep(90)
            piece = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")

    async with serving(trickle) as server:
        transport = HttpTransport(clock)
        seen: list[bytes] = []
        await events(transport, server.url, seen)
        assert seen == [b"%d" % number for number in range(40)]
        assert clock.monotonic() == pytest.approx(3600)
        await transport.aclose()


async def test_half_an_event_is_an_error_where_the_server_breaks_off(clock: VirtualClock) -> None:
    raw = chunked(b'data: {"a":1}\n\nda', b'ta: {"b"', end=False)
    async with serving(respond(raw, close=True)) as server:
        transport = HttpTransport(clock)
        seen: list[bytes] = []
        with pytest.raises(TransportError):
            await events(transport, server.url, seen)
        assert seen == [b'{"a":1}']
        await transport.aclose()


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (http(b"<html>busy</html>", "502 Bad Gateway"), 502, b"<html>busy</html>"),
        (http(b"", "204 No Content", length=None), 204, b""),
        (http(b"", "200 OK"), 200, b""),
        (http(b"x", "599 Whatever"), 599, b"x"),
    ],
    ids=["html", "204", "empty", "599"],
)
async def test_odd_but_valid_answers_pass(
    raw: bytes, status: int, body: bytes, clock: VirtualClock
) -> None:
    async with serving(respond(raw)) as server:
        transport = HttpTransport(clock)
        assert await fetch(transport, server.url) == (status, body)
        await transport.aclose()


async def test_a_body_nobody_asked_to_compress_is_not_unpacked(clock: VirtualClock) -> None:
    packed = gzip.compress(b"x" * 1000)
    async with serving(respond(http(packed, "200 OK", "Content-Encoding: gzip"))) as server:
        transport = HttpTransport(clock)
        assert await fetch(transport, server.url) == (200, packed)
        assert b"accept-encoding" not in server.requests[0].lower()
        await transport.aclose()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 T", "308 P"])
async def test_a_redirect_is_never_followed(status: str, clock: VirtualClock) -> None:
    async with serving(respond(http(b"stolen"))) as elsewhere:
        to_there = http(b"", status, f"Location: {elsewhere.url}/v1beta")
        async with serving(respond(to_there)) as server:
            transport = HttpTransport(clock)
            got, _ = await fetch(transport, server.url)
            assert str(got) == status[:3]
            assert elsewhere.requests == []
            assert len(server.requests) == 1
            await transport.aclose()


async def test_the_request_leaves_as_it_was_written(clock: VirtualClock) -> None:
    async with serving(respond(http(b"x"))) as server:
        transport = HttpTransport(clock)
        await fetch(transport, server.url)
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /v1beta/models/m:x HTTP/1.1"
        names = {line.split(b":")[0].lower() for line in lines[1:]}
        assert names == {b"host", b"content-type", b"content-length", b"x-goog-api-key"}
        assert b"x-goog-api-key: AIzaCANARY-one" in lines
        assert body == b'{"a":1}'
        await transport.aclose()


async def test_no_cookie_of_one_answer_goes_out_with_the_next_request(clock: VirtualClock) -> None:
    async with serving(respond(http(b"x", "200 OK", "Set-Cookie: a=b"))) as server:
        transport = HttpTransport(clock)
        for _ in range(2):
            await fetch(transport, server.url)
        assert b"cookie" not in server.requests[1].lower()
        assert server.connections == 1, "a connection read to its end is used again"
        await transport.aclose()


async def test_an_unread_connection_is_dropped_not_used_again(clock: VirtualClock) -> None:
    async with serving(respond(http(b"x" * 200_000))) as server:
        transport = HttpTransport(clock)
        exchange = await transport.open(request(server.url), CREDENTIAL, None)
        await exchange.aclose()
        await asyncio.wait_for(server.gone.wait(), 5)
        assert (await fetch(transport, server.url))[0] == 200
        assert server.connections == 2
        await transport.aclose()


async def test_nobody_listening_is_a_network_fault_before_sending(clock: VirtualClock) -> None:
    async with serving(respond(b"")) as server:
        url = server.url
    transport = HttpTransport(clock)
    with pytest.raises(TransportError) as caught:
        await fetch(transport, url)
    assert caught.value.outcome.kind is Kind.NETWORK
    assert not caught.value.sent
    assert "127.0.0.1" in caught.value.outcome.message
    await transport.aclose()


async def test_a_name_that_does_not_exist_is_a_network_fault_before_sending(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    transport = HttpTransport(clock)
    with pytest.raises(TransportError) as caught:
        await fetch(transport, "http://no-such-host.invalid")
    assert caught.value.outcome.kind is Kind.NETWORK
    assert not caught.value.sent
    assert "no-such-host.invalid" in caught.value.outcome.message
    await transport.aclose()


async def test_speaking_tls_to_a_plain_server_is_a_tls_fault(clock: VirtualClock) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(plain, "127.0.0.1", 0)
    transport = HttpTransport(clock)
    with pytest.raises(TransportError) as caught:
        await fetch(transport, f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    assert caught.value.outcome.kind is Kind.TLS
    assert not caught.value.sent
    await transport.aclose()
    listener.close()
    await listener.wait_closed()


# ── letting go ──────────────────────────────────────────────────────────────────────────────────

WAITING: dict[str, bytes] = {
    "before the head": b"",
    "in the head": b"HTTP/1.1 200 OK\r\n",
    "in the body": http(b"half", length=100),
    "in a stream": chunked(b"data: one\n\n", end=False),
}


@pytest.mark.parametrize("name", WAITING)
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cancelled_call_closes_its_connection_at_once(
    name: str, streaming: bool, clock: VirtualClock
) -> None:
    async with serving(respond(WAITING[name], stall=True)) as server:
        transport = HttpTransport(clock)
        call = events(transport, server.url, []) if streaming else fetch(transport, server.url)
        task = asyncio.ensure_future(call)
        await clock.sleep(1)
        assert server.connections == 1
        assert not server.gone.is_set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = clock.monotonic()
        await asyncio.wait_for(server.gone.wait(), 5)
        assert clock.monotonic() - before < 0.1, "the server must see the end at once"
        await transport.aclose()


async def test_many_cancelled_calls_leave_a_transport_that_serves(clock: VirtualClock) -> None:
    answers = {"stall": True}

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await respond(b"" if answers["stall"] else http(b"x"), stall=answers["stall"])(reader, writer)

    async with serving(script) as server:
        transport = HttpTransport(clock)
        tasks = [asyncio.ensure_future(fetch(transport, server.url)) for _ in range(200)]
        for number, task in enumerate(tasks):
            if number % 10 == 0:
                await clock.sleep(0)  # some are cancelled while they still connect
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        answers["stall"] = False
        assert await fetch(transport, server.url) == (200, b"x")
        await transport.aclose()


def test_one_transport_lives_in_a_second_loop() -> None:
    clock = VirtualClock()
    transport = HttpTransport(clock)

    async def once() -> tuple[int, bytes]:
        async with serving(respond(http(b"x"))) as server:
            return await fetch(transport, server.url)

    assert asyncio.run(once()) == (200, b"x")
    assert asyncio.run(once()) == (200, b"x")
    assert clock.run(once()) == (200, b"x")
    assert len(transport._keepers) == 1, "ended loops are forgotten"


def test_a_loop_that_another_thread_forgot_first_is_no_trouble() -> None:
    """Two threads may see the same ended loop at the same moment."""
    transport = HttpTransport(VirtualClock())

    class Ended:
        def is_closed(self) -> bool:
            transport._keepers.pop(self, None)  # type: ignore[call-overload]
            return True

    transport._keepers[Ended()] = None  # type: ignore[index,assignment]

    async def once() -> tuple[int, bytes]:
        async with serving(respond(http(b"x"))) as server:
            return await fetch(transport, server.url)

    assert asyncio.run(once()) == (200, b"x")


def test_threads_share_one_transport() -> None:
    transport = HttpTransport(VirtualClock())
    results: list[object] = []

    async def many() -> None:
        async with serving(respond(http(b"x"))) as server:
            results.extend(await asyncio.gather(*(fetch(transport, server.url) for _ in range(10))))
            await transport.aclose()

    def work() -> None:
        try:
            asyncio.run(many())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(200, b"x")] * 80


UNCLOSED = """
import asyncio, gc, sys
from headgate.core.ports import Request
from headgate.transport.http import HttpTransport
from headgate.wiring.clock import SystemClock

async def answer(reader, writer):
    try:
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\nx")
        await reader.read()
    except asyncio.CancelledError:
        pass  # the loop ends; the server's own trouble is not what is looked for here
    writer.close()

transport = HttpTransport(SystemClock())

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = Request("POST", f"http://127.0.0.1:{port}/", {}, b"")
    exchange = await transport.open(request, {}, None)
    print(await exchange.read())
    if "unread" not in sys.argv:
        await exchange.aclose()
    server.close()

asyncio.run(main())
asyncio.run(main())
gc.collect()
"""


@pytest.mark.parametrize("argument", ["", "unread"])
def test_a_transport_nobody_closes_warns_of_nothing(argument: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", UNCLOSED, argument],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stderr == ""
    assert (done.returncode, done.stdout) == (0, "b'x'\nb'x'\n")
