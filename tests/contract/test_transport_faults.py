"""Faults of an upstream that a transport can meet, by their numbers: F11 to F14, F16, F23, F24.

Connections (F15, F21, F26) and TLS (F22) have files of their own. F17 to F20 and F25 are answers that
arrive well: providers judge them.
"""

from __future__ import annotations

import asyncio
import gzip

import pytest
from tests.transports import (
    CREDENTIAL,
    Make,
    accepting,
    chunked,
    events,
    every_real,
    fetch,
    http,
    request,
    respond,
    serving,
    take_request,
    turns,
)

from headgate.core.outcome import Kind
from headgate.core.ports import Request, TransportError
from headgate.testing import VirtualClock
from headgate.transport.bounds import Timeouts
from headgate.transport.lean import LeanTransport

pytestmark = pytest.mark.timeout(60)


@every_real
async def test_f11_a_reset_before_the_head(make: Make, clock: VirtualClock) -> None:
    async with serving(respond(b"", reset=True)) as server:
        transport = make(clock)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url)
        assert (caught.value.outcome.kind, caught.value.sent) == (Kind.NETWORK, True)
        await transport.aclose()


@every_real
async def test_f12_a_reset_in_mid_stream_after_what_came(make: Make, clock: VirtualClock) -> None:
    """What came is handed on, the rest is an error, and nobody asks a second time in silence."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"data: one\n\n", b"data: two\n\ndata: hal", end=False))
        await clock.sleep(1)
        writer.transport.abort()

    async with serving(script) as server:
        transport = make(clock)
        seen: list[bytes] = []
        with pytest.raises(TransportError) as caught:
            await events(transport, server.url, seen)
        assert seen == [b"one", b"two"]
        assert (caught.value.outcome.kind, caught.value.sent) == (Kind.NETWORK, True)
        assert len(server.requests) == 1
        await transport.aclose()


@every_real
async def test_f13_one_byte_at_a_time(make: Make, clock: VirtualClock) -> None:
    """Characters of several bytes and line ends are cut anywhere; events and bodies are the same."""
    texts = ["data: 漢字 🙂\r\n\r\n", "data: é\n\n", ": comment\n\ndata: a\rdata: b\r\r"]
    raw = chunked(*(text.encode() for text in texts))

    async def slices(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in range(len(raw)):
            writer.write(raw[at : at + 1])
            await turns(2)

    async with serving(slices) as server:
        transport = make(clock)
        seen: list[bytes] = []
        await events(transport, server.url, seen)
        spoken = [event for event in seen if event]
        assert spoken == ["漢字 🙂".encode(), "é".encode(), b"a\nb"]
        assert await fetch(transport, server.url) == (200, "".join(texts).encode())
        assert server.connections == 1
        await transport.aclose()


@every_real
async def test_f14_silence_in_mid_stream_is_judged_by_silence_not_by_length(
    make: Make, clock: VirtualClock
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(end=False))
        for _ in range(10):
            await clock.sleep(29)
            writer.write(b"9\r\ndata: a\n\n\r\n")
        await reader.read()

    async with serving(script) as server:
        transport = make(clock, Timeouts(stream_idle=30, attempt=60))
        seen: list[bytes] = []
        with pytest.raises(TransportError) as caught:
            await events(transport, server.url, seen)
        assert len(seen) == 10
        assert caught.value.outcome.kind is Kind.TIMEOUT
        assert clock.monotonic() == pytest.approx(10 * 29 + 30, abs=0.1)
        await asyncio.wait_for(server.gone.wait(), 1)
        await transport.aclose()


# ── F16, F23, F24: bodies ────────────────────────────────────────────────────────────────────────


@every_real
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\xef\xbb\xbfdata: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: " + b"x" * (8 << 20) + b"\n\n", [b"x" * (8 << 20)]),
        (b"data: a\n\ndata: no blank line", [b"a", b"no blank line"]),
        (b"data: not json {\n\n", [b"not json {"]),
        (b'data: a\n\n{"error": {"code": 503}}', [b"a", b'{"error": {"code": 503}}']),
    ],
    ids=["BOM and CR", "8 MiB line", "no blank line", "no JSON", "bare error"],
)
async def test_f16_malformed_events_come_as_what_they_are(
    make: Make, body: bytes, expected: list[bytes], clock: VirtualClock
) -> None:
    async with serving(respond(http(body))) as server:
        transport = make(clock)
        seen: list[bytes] = []
        await events(transport, server.url, seen)
        assert [event for event in seen if event] == expected
        await transport.aclose()


@every_real
@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (http(b"four", length=5), Kind.NETWORK),
        (http(b"four+", length=4), Kind.PROTOCOL),
        (chunked(b"four", end=False), Kind.NETWORK),
        (chunked(b"four", end=False) + b"0\r\n", Kind.NETWORK),
        (chunked(b"four", end=False) + b"5\r\nfour", Kind.NETWORK),
    ],
)
async def test_f23_a_body_that_is_cut_is_no_body(
    make: Make, raw: bytes, kind: Kind, clock: VirtualClock
) -> None:
    async with serving(respond(raw, close=True)) as server:
        transport = make(clock)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url)
        assert caught.value.outcome.kind is kind
        await transport.aclose()


@every_real
async def test_f23_a_bomb_stays_packed(make: Make, clock: VirtualClock) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    async with serving(respond(http(bomb, "200 OK", "Content-Encoding: gzip"))) as server:
        transport = make(clock)
        assert await fetch(transport, server.url) == (200, bomb)
        await transport.aclose()


@every_real
async def test_f23_a_body_without_end_is_cut(
    make: Make, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("http", "lean_exchange"):
        monkeypatch.setattr(f"headgate.transport.{module}.LARGEST_BODY", 300_000)

    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(end=False))
        while True:
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()

    async with serving(endless) as server:
        transport = make(clock)
        with pytest.raises(TransportError) as caught:
            await fetch(transport, server.url)
        assert caught.value.outcome.kind is Kind.PROTOCOL
        assert "300000" in caught.value.outcome.message
        await transport.aclose()
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_a_body_that_ends_with_the_connection_is_whole_then(clock: VirtualClock) -> None:
    """HTTP/1.0's way; its connection serves nobody else."""
    raw = b"HTTP/1.0 200 OK\r\n\r\ndata: one\n\ndata: two"
    async with serving(respond(raw, close=True)) as server:
        transport = LeanTransport(clock)
        assert await fetch(transport, server.url) == (200, b"data: one\n\ndata: two")
        seen: list[bytes] = []
        await events(transport, server.url, seen)
        assert seen == [b"one", b"two"]
        assert server.connections == 2
        await transport.aclose()


async def test_and_is_not_where_the_connection_is_reset(clock: VirtualClock) -> None:
    async with serving(respond(b"HTTP/1.0 200 OK\r\n\r\nhalf", stall=True)) as server:
        transport = LeanTransport(clock)
        exchange = await transport.open(request(server.url), CREDENTIAL, None)
        (connection,) = transport._keepers[asyncio.get_running_loop()].pool._all
        connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
        with pytest.raises(TransportError) as caught:
            await exchange.read()
        assert caught.value.outcome.kind is Kind.NETWORK
        await exchange.aclose()


@every_real
async def test_f24_the_key_stays_where_it_was_sent(make: Make, clock: VirtualClock) -> None:
    async with serving(respond(http(b"stolen"))) as elsewhere:
        to_there = http(b"", "307 T", f"Location: {elsewhere.url}/", "Refresh: 0; url=/there")
        async with serving(respond(to_there)) as server:
            transport = make(clock)
            assert (await fetch(transport, server.url))[0] == 307
            assert (len(server.requests), elsewhere.connections) == (1, 0)
            await transport.aclose()


async def test_an_answer_before_the_request_was_heard_ends_the_connection(clock: VirtualClock) -> None:
    """413 after the head alone: the answer counts, the rest of the body reaches no other request."""
    accepted = 0

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(http(b"too large", "413 Content Too Large"))
        await clock.sleep(60)

    async with accepting(hasty) as port:
        transport = LeanTransport(clock)
        large = Request("POST", f"http://127.0.0.1:{port}/", {}, bytes(32 << 20))
        for number in (1, 2):
            exchange = await transport.open(large, CREDENTIAL, None)
            assert (exchange.status, await exchange.read()) == (413, b"too large")
            await exchange.aclose()
            assert accepted == number
        await transport.aclose()


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE"])
async def test_a_body_comes_only_where_one_was_asked_for(method: str, clock: VirtualClock) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await take_request(reader)
        writer.write(http(b"" if head.startswith(b"HEAD") else b"hello", length=5))
        await writer.drain()

    async with accepting(script) as port:
        transport = LeanTransport(clock)
        exchange = await transport.open(Request(method, f"http://127.0.0.1:{port}/", {}, b""), {}, 5.0)
        assert await exchange.read() == (b"" if method == "HEAD" else b"hello")
        assert exchange.headers["content-length"] == "5"
        await transport.aclose()
