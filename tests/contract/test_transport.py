"""What every transport promises, and what those with sockets do with a server that misbehaves."""

# ruff: noqa: PERF401, PT012 - these tests look at what came before a stream broke

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from tests.transports import (
    CREDENTIAL,
    Make,
    Script,
    accepting,
    chunked,
    events,
    every_real,
    fetch,
    http,
    request,
    respond,
    serving,
)

from headgate.core.outcome import Kind
from headgate.core.ports import Exchange, Request, Transport, TransportError
from headgate.testing import Answer, Broken, ScriptedTransport, VirtualClock
from headgate.transport.bounds import Timeouts
from headgate.transport.http import HttpTransport
from headgate.transport.lean import LeanTransport

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
        transport = HttpTransport(clock) if kind == "aiohttp" else LeanTransport(clock)
        yield Case(transport, server.url)
        await transport.aclose()


pytestmark = pytest.mark.timeout(60)
every = pytest.mark.parametrize("kind", ["scripted", "aiohttp", "lean"])


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


@every_real
async def test_a_late_connection_serves_the_next_request(make: Make, clock: VirtualClock) -> None:
    """Whoever was late because of the handshake is not late again."""
    async with serving(respond(http(b"fine"))) as server:
        transport = make(clock)
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


@every_real
@pytest.mark.parametrize("name", LIES)
async def test_a_misbehaving_server_becomes_a_typed_error_within_the_deadline(
    make: Make, name: str, clock: VirtualClock
) -> None:
    script, kind = LIES[name]
    async with serving(script) as server:
        transport = make(clock)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url, clock.monotonic() + 20)
        assert caught.value.outcome.kind is kind
        assert caught.value.sent
        assert caught.value.outcome.message.endswith(".")
        assert "CANARY" not in str(caught.value)
        assert clock.monotonic() <= 20.1
        await asyncio.wait_for(server.gone.wait(), 5)
        await transport.aclose()


@every_real
@pytest.mark.parametrize("name", [name for name, (_, kind) in LIES.items() if kind is Kind.TIMEOUT])
async def test_without_a_deadline_the_attempt_timeout_counts(
    make: Make, name: str, clock: VirtualClock
) -> None:
    async with serving(LIES[name][0]) as server:
        transport = make(clock, Timeouts(attempt=33))
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url)
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert clock.monotonic() == pytest.approx(33, abs=0.1)
        await transport.aclose()


@every_real
@pytest.mark.parametrize("raw", [b"", chunked(b"data: one\n\n", end=False)], ids=["head", "body"])
async def test_a_stream_may_be_long_but_not_silent(make: Make, raw: bytes, clock: VirtualClock) -> None:
    async with serving(respond(raw, stall=True)) as server:
        transport = make(clock, Timeouts(stream_idle=44, attempt=10))
        seen: list[bytes] = []
        with pytest.raises(TransportError) as caught:
            await events(transport, server.url, seen)
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert seen == ([b"one"] if raw else [])
        assert clock.monotonic() == pytest.approx(44, abs=0.1)
        await transport.aclose()


@every_real
async def test_a_stream_that_trickles_for_an_hour_is_read_to_its_end(
    make: Make, clock: VirtualClock
) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(end=False))
        for number in range(40):
            await clock.sleep(90)
            piece = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")

    async with serving(trickle) as server:
        transport = make(clock)
        seen: list[bytes] = []
        await events(transport, server.url, seen)
        assert seen == [b"%d" % number for number in range(40)]
        assert clock.monotonic() == pytest.approx(3600)
        await transport.aclose()


@every_real
async def test_half_an_event_is_an_error_where_the_server_breaks_off(
    make: Make, clock: VirtualClock
) -> None:
    raw = chunked(b'data: {"a":1}\n\nda', b'ta: {"b"', end=False)
    async with serving(respond(raw, close=True)) as server:
        transport = make(clock)
        seen: list[bytes] = []
        with pytest.raises(TransportError):
            await events(transport, server.url, seen)
        assert seen == [b'{"a":1}']
        await transport.aclose()


@every_real
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
    make: Make, raw: bytes, status: int, body: bytes, clock: VirtualClock
) -> None:
    async with serving(respond(raw)) as server:
        transport = make(clock)
        assert await fetch(transport, server.url) == (status, body)
        await transport.aclose()


@every_real
async def test_a_body_nobody_asked_to_compress_is_not_unpacked(make: Make, clock: VirtualClock) -> None:
    packed = gzip.compress(b"x" * 1000)
    async with serving(respond(http(packed, "200 OK", "Content-Encoding: gzip"))) as server:
        transport = make(clock)
        assert await fetch(transport, server.url) == (200, packed)
        assert b"accept-encoding" not in server.requests[0].lower()
        await transport.aclose()


@every_real
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 T", "308 P"])
async def test_a_redirect_is_never_followed(make: Make, status: str, clock: VirtualClock) -> None:
    async with serving(respond(http(b"stolen"))) as elsewhere:
        to_there = http(b"", status, f"Location: {elsewhere.url}/v1beta")
        async with serving(respond(to_there)) as server:
            transport = make(clock)
            got, _ = await fetch(transport, server.url)
            assert str(got) == status[:3]
            assert elsewhere.requests == []
            assert len(server.requests) == 1
            await transport.aclose()


@every_real
async def test_the_request_leaves_as_it_was_written(make: Make, clock: VirtualClock) -> None:
    async with serving(respond(http(b"x"))) as server:
        transport = make(clock)
        await fetch(transport, server.url)
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /v1beta/models/m:x HTTP/1.1"
        names = {line.split(b":")[0].lower() for line in lines[1:]}
        assert names == {b"host", b"content-type", b"content-length", b"x-goog-api-key"}
        assert b"x-goog-api-key: AIzaCANARY-one" in lines
        assert body == b'{"a":1}'
        await transport.aclose()


@every_real
@pytest.mark.parametrize(
    "headers",
    [
        {"x-a": "b\r\nX-Evil: 1"},
        {"x-a": "b\n"},
        {"x-a": "b\x00"},
        {"x-a\r\nX-Evil": "1"},
        {"x a": "1"},
        {"transfer-encoding": "chunked"},
        {"Content-Length": "3"},
        {"connection": "x-goog-api-key"},
    ],
)
async def test_a_header_that_smuggles_is_refused_before_a_connection_is_opened(
    make: Make, headers: dict[str, str], clock: VirtualClock
) -> None:
    """F35, going out; X-32."""
    async with serving(respond(http(b"x"))) as server:
        transport = make(clock)
        with pytest.raises(TransportError) as caught:
            await transport.open(Request("POST", server.url, headers, b"{}"), CREDENTIAL, None)
        assert (caught.value.outcome.kind, caught.value.sent) == (Kind.REQUEST, False)
        with pytest.raises(TransportError) as caught:
            await transport.open(Request("POST", server.url, {}, b"{}"), {"k": "AIzaCANARY\n"}, None)
        assert "CANARY" not in str(caught.value)
        assert server.connections == 0
        await transport.aclose()


@every_real
async def test_the_key_of_the_call_goes_out_and_no_other(make: Make, clock: VirtualClock) -> None:
    async with serving(respond(http(b"x"))) as server:
        transport = make(clock)
        theirs = {"X-Goog-Api-Key": "the caller's", "x-a": "b"}
        exchange = await transport.open(Request("POST", server.url, theirs, b"{}"), CREDENTIAL, None)
        await exchange.read()
        lines = server.requests[0].split(b"\r\n")
        assert [line for line in lines if b"api-key" in line.lower()] == [
            b"x-goog-api-key: AIzaCANARY-one"
        ]
        await transport.aclose()


@every_real
async def test_no_cookie_of_one_answer_goes_out_with_the_next_request(
    make: Make, clock: VirtualClock
) -> None:
    async with serving(respond(http(b"x", "200 OK", "Set-Cookie: a=b"))) as server:
        transport = make(clock)
        for _ in range(2):
            await fetch(transport, server.url)
        assert b"cookie" not in server.requests[1].lower()
        assert server.connections == 1, "a connection read to its end is used again"
        await transport.aclose()


@every_real
async def test_an_unread_connection_is_dropped_not_used_again(make: Make, clock: VirtualClock) -> None:
    async with serving(respond(http(b"x" * 200_000))) as server:
        transport = make(clock)
        exchange = await transport.open(request(server.url), CREDENTIAL, None)
        await exchange.aclose()
        await asyncio.wait_for(server.gone.wait(), 5)
        assert (await fetch(transport, server.url))[0] == 200
        assert server.connections == 2
        await transport.aclose()


@every_real
async def test_nobody_listening_is_a_network_fault_before_sending(
    make: Make, clock: VirtualClock
) -> None:
    async with serving(respond(b"")) as server:
        url = server.url
    transport = make(clock)
    with pytest.raises(TransportError) as caught:
        await fetch(transport, url)
    assert caught.value.outcome.kind is Kind.NETWORK
    assert not caught.value.sent
    assert "127.0.0.1" in caught.value.outcome.message
    await transport.aclose()


@every_real
async def test_a_name_that_does_not_exist_is_a_network_fault_before_sending(
    make: Make, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    transport = make(clock)
    with pytest.raises(TransportError) as caught:
        await fetch(transport, "http://no-such-host.invalid")
    assert caught.value.outcome.kind is Kind.NETWORK
    assert not caught.value.sent
    assert "no-such-host.invalid" in caught.value.outcome.message
    await transport.aclose()


@every_real
async def test_speaking_tls_to_a_plain_server_is_a_tls_fault(make: Make, clock: VirtualClock) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with accepting(plain) as port:
        transport = make(clock)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, f"https://127.0.0.1:{port}")
        assert caught.value.outcome.kind is Kind.TLS
        assert not caught.value.sent
        await transport.aclose()
