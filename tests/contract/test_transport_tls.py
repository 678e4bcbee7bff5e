"""F22: TLS that is expired, made out to others, signed by nobody known, or stalls; always checked."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from tests.certificates import authority, server_context, trusting
from tests.transports import (
    Make,
    accepting,
    chunked,
    events,
    every_real,
    fetch,
    http,
    respond,
    take_request,
)

from headgate.core.outcome import Detail, Kind
from headgate.core.ports import TransportError
from headgate.testing import VirtualClock
from headgate.transport.bounds import Timeouts
from headgate.transport.lean import LeanTransport

pytestmark = pytest.mark.timeout(60)


class Answers:
    """Answers one request after the other with the same bytes, and counts."""

    def __init__(self, raw: bytes = http(b"x"), *, end: str = "") -> None:
        self.raw, self.end = raw, end
        self.requests = self.connections = 0
        self.protocols: list[str | None] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        tls = writer.get_extra_info("ssl_object")
        self.protocols.append(tls and tls.selected_alpn_protocol())
        while True:
            await take_request(reader)
            self.requests += 1
            writer.write(self.raw)
            await writer.drain()
            if self.end == "cut":
                writer.transport.abort()
                return
            if self.end == "close":
                writer.close()
                await writer.wait_closed()
                return


@every_real
async def test_a_good_certificate_is_accepted_and_the_connection_kept(
    make: Make, clock: VirtualClock, tmp_path: Path
) -> None:
    context = server_context(tmp_path, "localhost", "127.0.0.1", signed_by=authority())
    context.set_alpn_protocols(["h2", "http/1.1"])
    named: list[str | None] = []
    context.sni_callback = lambda _, name, __: named.append(name)
    answers = Answers()
    async with accepting(answers, ssl=context) as port:
        transport = make(clock, Timeouts(), lambda: trusting(authority()))
        for _ in range(3):
            assert await fetch(transport, f"https://localhost:{port}") == (200, b"x")
        assert answers.connections == 1
        assert await fetch(transport, f"https://127.0.0.1:{port}") == (200, b"x")
        assert named[0] == "localhost"
        assert set(answers.protocols) <= {None, "http/1.1"}, "HTTP/2 is not spoken"
        if make is LeanTransport:
            assert answers.protocols[0] == "http/1.1", "and it says so"
        await transport.aclose()


@every_real
@pytest.mark.parametrize(
    "fault", ["expired", "not yet valid", "wrong host", "self-signed", "unknown signer"]
)
async def test_f22_a_bad_certificate_is_refused_before_anything_is_sent(
    make: Make, fault: str, clock: VirtualClock, tmp_path: Path
) -> None:
    signer = {"self-signed": None, "unknown signer": authority("Nobody")}.get(fault, authority())
    names = ("elsewhere.example",) if fault == "wrong host" else ("localhost", "127.0.0.1")
    age = {"expired": timedelta(days=30), "not yet valid": timedelta(days=-30)}.get(fault, timedelta(0))
    answers = Answers()
    context = server_context(tmp_path, *names, signed_by=signer, age=age)
    async with accepting(answers, ssl=context) as port:
        transport = make(clock, Timeouts(), lambda: trusting(authority()))
        for host in ("localhost", "127.0.0.1", "localhost"):
            with pytest.raises(TransportError) as caught:
                await fetch(transport, f"https://{host}:{port}", clock.monotonic() + 20)
            assert caught.value.outcome.kind is Kind.TLS
            assert not caught.value.sent
            assert "CANARY" not in str(caught.value)
        assert answers.requests == 0
        await transport.aclose()


@every_real
async def test_f22_a_handshake_that_stalls_costs_the_connect_timeout(
    make: Make, clock: VirtualClock
) -> None:
    gone = asyncio.Event()

    async def stalls(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with accepting(stalls) as port:
        transport = make(clock, Timeouts(connect=7), lambda: trusting(authority()))
        with pytest.raises(TransportError) as caught:
            await fetch(transport, f"https://127.0.0.1:{port}")
        assert caught.value.outcome.kind is Kind.NETWORK
        assert caught.value.outcome.detail is Detail.CONNECT_TIMEOUT
        assert not caught.value.sent
        assert clock.monotonic() == pytest.approx(7, abs=0.1)
        await asyncio.wait_for(gone.wait(), 1)
        await transport.aclose()


@every_real
async def test_f22_a_handshake_that_is_cut_sent_nothing(make: Make, clock: VirtualClock) -> None:
    async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with accepting(cuts) as port:
        transport = make(clock, Timeouts(), lambda: trusting(authority()))
        with pytest.raises(TransportError) as caught:
            await fetch(transport, f"https://127.0.0.1:{port}")
        assert caught.value.outcome.kind in (Kind.NETWORK, Kind.TLS)
        assert not caught.value.sent
        await transport.aclose()


@every_real
async def test_a_stream_over_tls_that_is_cut_is_an_error(
    make: Make, clock: VirtualClock, tmp_path: Path
) -> None:
    answers = Answers(chunked(b"data: one\n\n", end=False), end="cut")
    context = server_context(tmp_path, "127.0.0.1", signed_by=authority())
    async with accepting(answers, ssl=context) as port:
        transport = make(clock, Timeouts(), lambda: trusting(authority()))
        seen: list[bytes] = []
        with pytest.raises(TransportError) as caught:
            await events(transport, f"https://127.0.0.1:{port}", seen)
        assert (seen, caught.value.outcome.kind) == ([b"one"], Kind.NETWORK)
        await transport.aclose()


@pytest.mark.parametrize("end", ["close", "cut"])
async def test_over_tls_an_end_that_the_upstream_did_not_sign_is_no_end(
    end: str, clock: VirtualClock, tmp_path: Path
) -> None:
    """Whoever sits between could cut a body that ends with the connection, without anybody noticing."""
    answers = Answers(b"HTTP/1.0 200 OK\r\n\r\nall of it?", end=end)
    context = server_context(tmp_path, "127.0.0.1", signed_by=authority())
    async with accepting(answers, ssl=context) as port:
        transport = LeanTransport(clock, Timeouts(), lambda: trusting(authority()))
        if end == "close":
            assert await fetch(transport, f"https://127.0.0.1:{port}") == (200, b"all of it?")
        else:
            with pytest.raises(TransportError) as caught:
                await fetch(transport, f"https://127.0.0.1:{port}")
            assert caught.value.outcome.kind is Kind.NETWORK
        await transport.aclose()


@every_real
async def test_a_call_cancelled_over_tls_closes_its_connection_at_once(
    make: Make, clock: VirtualClock, tmp_path: Path
) -> None:
    gone = asyncio.Event()

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await take_request(reader)
            await respond(b"", stall=True)(reader, writer)
        finally:
            gone.set()

    context = server_context(tmp_path, "127.0.0.1", signed_by=authority())
    async with accepting(stalls, ssl=context) as port:
        transport = make(clock, Timeouts(), lambda: trusting(authority()))
        call = asyncio.ensure_future(fetch(transport, f"https://127.0.0.1:{port}"))
        await clock.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        before = clock.monotonic()
        await asyncio.wait_for(gone.wait(), 5)
        assert clock.monotonic() - before < 0.1
        await transport.aclose()


def test_a_context_is_made_once_and_only_where_it_is_needed(tmp_path: Path) -> None:
    """It takes 10 ms to read the system's certificates; plain upstreams do not wait for that."""
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(trusting(authority()))
        return made[-1]

    async def scene(clock: VirtualClock) -> None:
        transport = LeanTransport(clock, Timeouts(), make)
        plain = Answers()
        context = server_context(tmp_path, "127.0.0.1", signed_by=authority())
        async with accepting(plain) as port:
            assert await fetch(transport, f"http://127.0.0.1:{port}") == (200, b"x")
        assert not made
        async with accepting(plain, ssl=context) as port:
            await asyncio.gather(*(fetch(transport, f"https://127.0.0.1:{port}") for _ in range(5)))
        assert len(made) == 1
        await transport.aclose()

    clock = VirtualClock()
    clock.run(scene(clock))
