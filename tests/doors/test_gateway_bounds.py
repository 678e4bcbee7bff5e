"""What a connection may ask of the gateway: bounds, pipelines and the smuggling corpus, on a port."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from tests.gateway import GEMINI_KEYS, GatewayInThread
from tests.served import serving

from headgate.emulator import Emulator, EmulatorConfig, InThread, Project
from headgate.gateway.server_protocol import ServerBounds
from headgate.wiring.gateway_settings import GatewaySettings

MODEL = "gemini-3.5-flash"
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BODY = b'{"contents":[{"parts":[{"text":"hi"}]}]}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CONFIG = EmulatorConfig(projects=[Project("alpha", {"g1": GEMINI_KEYS[0]})])
ENVIRON = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|g1|alpha"}


def until(done: Callable[[], object]) -> None:
    """A server gets there: looked at again and again, for ten seconds."""
    for _ in range(1000):
        if done():
            return
        time.sleep(0.01)  # noqa: TID251 - a real server has no virtual clock
    raise AssertionError("it did not happen")


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    with Emulator(CONFIG).in_thread() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def gateway(upstream: InThread) -> Iterator[GatewayInThread]:
    settings = GatewaySettings(linger_seconds=0.0, drain_seconds=5.0, max_body_mib=1)
    with GatewayInThread(upstream.base_url, environ=ENVIRON, settings=settings) as served:
        yield served


def connect(served: GatewayInThread) -> socket.socket:
    host, _, port = served.base_url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def exchange(served: GatewayInThread, *pieces: bytes) -> bytes:
    """Everything the gateway says to these bytes, until it closes; they end with the request to."""
    with closing(connect(served)) as sock:
        heard = b""
        try:
            for piece in pieces:
                sock.sendall(piece)
            while piece := sock.recv(65_536):
                heard += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return heard


def post(*lines: bytes, body: bytes = BODY, path: str = GENERATE) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % path.encode()
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def chunked(body: bytes, te: bytes = b"Transfer-Encoding: chunked") -> bytes:
    return post(te, body=body)


CHUNK = b"%x" % len(BODY)
SECOND = b"POST /gemini/v1beta/models/smuggled:generateContent HTTP/1.1\r\nHost: localhost\r\n\r\n"

REFUSED = {
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6"),
    "two lengths in one": post(b"Content-Length: 5, 6"),
    "a length and chunks": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and a length": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "a negative length": post(b"Content-Length: -1"),
    "a length with a sign": post(b"Content-Length: +40"),
    "a length in hexadecimal": post(b"Content-Length: 0x28"),
    "a length with an underscore": post(b"Content-Length: 4_0"),
    "a length that overflows": post(b"Content-Length: 18446744073709551656"),
    "an empty length": post(b"Content-Length: "),
    "a space before the colon": post(b"Content-Length : 40"),
    "a tab before the colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"),
    "a space before the name": post(b"X-A: 1", b" Content-Length: 40"),
    "a line without a colon": post(b"Content-Length: 40", b"X-Broken"),
    "no name": post(b": 40"),
    "a NUL in a name": post(b"X\x00A: 1", LENGTH[:-2]),
    "a NUL in a value": post(b"X-A: 1\x002", LENGTH[:-2]),
    "a CR in a value": post(b"X-A: 1\rTransfer-Encoding: chunked", LENGTH[:-2]),
    "chunks twice": chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked, chunked"),
    "chunks before another": chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked, identity"),
    "an unknown coding": chunked(b"0\r\n\r\n", b"Transfer-Encoding: xchunked"),
    "a quoted coding": chunked(b"0\r\n\r\n", b'Transfer-Encoding: "chunked"'),
    "a vertical tab": chunked(b"0\r\n\r\n", b"Transfer-Encoding: \x0bchunked"),
    "a chunk size with an underscore": chunked(b"0_2\r\n{}\r\n0\r\n\r\n"),
    "a chunk size with a sign": chunked(b"+2\r\n{}\r\n0\r\n\r\n"),
    "a negative chunk size": chunked(b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk size in 0x": chunked(b"0x2\r\n{}\r\n0\r\n\r\n"),
    "a chunk size that overflows": chunked(b"1" + b"0" * 16 + b"2\r\n{}\r\n0\r\n\r\n"),
    "no chunk size": chunked(b"\r\n{}\r\n0\r\n\r\n"),
    "a space before a chunk size": chunked(b" 2\r\n{}\r\n0\r\n\r\n"),
    "a bare LF after a chunk size": chunked(b"2\n{}\r\n0\r\n\r\n"),
    "a bare LF after a chunk": chunked(b"2\r\n{}\n0\r\n\r\n"),
    "a chunk longer than it says": chunked(b"1\r\n{}\r\n0\r\n\r\n"),
    "no HTTP": b"hello there\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": post(LENGTH[:-2]).replace(b"HTTP/1.1", b"HTTP/1.12", 1),
    "a version in small letters": post(LENGTH[:-2]).replace(b"HTTP/1.1", b"http/1.1", 1),
    "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(60),
    "a header too many": post(*[b"X-A: 1"] * 101, LENGTH[:-2]),
    "a head too large": post(b"X-Long: " + b"a" * 70_000, LENGTH[:-2]),
    "a target too long": post(LENGTH[:-2], path=f"{GENERATE}?a={'b' * 9000}"),
    "a body too large": post(b"Content-Length: 9000000"),
}  # fmt: skip
"""Must not be served. Each is followed by a second request, which must not be served either."""

ONE_AT_MOST = {
    "the same length twice": post(LENGTH[:-2], LENGTH[:-2], b"Connection: close"),
    "a folded line": post(b"X-A: 1", b"\t2", LENGTH[:-2], b"Connection: close"),
    "bare LF": post(LENGTH[:-2], b"Connection: close").replace(b"\r\n", b"\n"),
    "a chunk with an extension": post(
        b"Transfer-Encoding: chunked", b"Connection: close",
        body=CHUNK + b";a=b\r\n" + BODY + b"\r\n0\r\n\r\n",
    ),
    "a trailer": post(
        b"Transfer-Encoding: chunked", b"Connection: close",
        body=CHUNK + b"\r\n" + BODY + b"\r\n0\r\nContent-Length: 1000\r\n\r\n",
    ),
    "leading zeros": post(
        b"Transfer-Encoding: chunked", b"Connection: close",
        body=b"000" + CHUNK + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    ),
    "another case": post(
        b"transfer-ENCODING: Chunked", b"Connection: close",
        body=CHUNK + b"\r\n" + BODY + b"\r\n0\r\n\r\n"
    ),
    "no host": post(LENGTH[:-2], b"Connection: close").replace(b"Host: localhost\r\n", b""),
    "two hosts": post(LENGTH[:-2], b"Host: evil.test", b"Connection: close"),
    "an absolute target": post(LENGTH[:-2], b"Connection: close").replace(
        b"POST /", b"POST http://localhost/", 1
    ),
    "a connection to be upgraded": post(
        LENGTH[:-2], b"Connection: upgrade, close", b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13",
    ),
    "HTTP/1.0": post(LENGTH[:-2]).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "a CONNECT": b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
    "an OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
}  # fmt: skip
"""May be served, or not; but never two requests, and never another body than was sent."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_proper_request_is_refused_and_so_is_what_follows(
    gateway: GatewayInThread, upstream: InThread, name: str
) -> None:
    """F35, X-30 and X-32: the gateway and a proxy before it cannot be made to disagree about where a
    request ends, for nothing is served after a doubt."""
    upstream.reset()
    heard = exchange(gateway, REFUSED[name] + SECOND)
    # An answer may be lost where the rest of the bytes was never read.
    assert re.match(rb"HTTP/1\.1 (400|413|414|431) ", heard) or heard == b"", heard[:100]
    assert heard.count(b"HTTP/1.1") == heard.lower().count(b"connection: close")
    assert heard.count(b"HTTP/1.1") <= 1
    assert upstream.report().totals.requests == 0


@pytest.mark.parametrize("name", ONE_AT_MOST)
def test_what_is_odd_is_one_request_at_most(
    gateway: GatewayInThread, upstream: InThread, name: str
) -> None:
    """F35: whatever is made of it, what follows on the same connection is not taken for a part of
    it."""
    upstream.reset()
    heard = exchange(gateway, ONE_AT_MOST[name] + SECOND)
    assert heard.startswith(b"HTTP/1.1 ")
    assert not heard.startswith(b"HTTP/1.1 5")
    assert heard.count(b"HTTP/1.1") == 1
    assert upstream.report().totals.requests <= 1


def test_a_request_may_come_in_any_pieces(gateway: GatewayInThread, upstream: InThread) -> None:
    upstream.reset()
    whole = post(LENGTH[:-2], b"Connection: close")
    heard = exchange(gateway, *(whole[at : at + 1] for at in range(len(whole))))
    assert heard.startswith(b"HTTP/1.1 200")


def test_the_largest_head_and_target_that_fit_are_served(gateway: GatewayInThread) -> None:
    wide = post(*[b"X-A: " + b"a" * 600] * 90, LENGTH[:-2], b"Connection: close")
    assert exchange(gateway, wide).startswith(b"HTTP/1.1 200")
    long = post(LENGTH[:-2], b"Connection: close", path=f"{GENERATE}?a={'b' * 8000}")
    assert exchange(gateway, long).startswith(b"HTTP/1.1 200")


def test_each_refusal_says_what_it_is(gateway: GatewayInThread) -> None:
    for name, status in (
        ("a header too many", 431),
        ("a target too long", 414),
        ("a body too large", 413),
    ):
        assert exchange(gateway, REFUSED[name]).startswith(b"HTTP/1.1 %d " % status), name


# ── pipelines ───────────────────────────────────────────────────────────────────────────────────


def test_pipelined_requests_are_answered_in_their_order(
    gateway: GatewayInThread, upstream: InThread
) -> None:
    upstream.reset()
    paths = ["/livez", "/readyz", "/livez"]
    asked = [b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode() for path in paths]
    last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    heard = exchange(gateway, b"".join(asked) + last)
    assert re.findall(rb"HTTP/1\.1 (\d+)", heard) == [b"200", b"200", b"200", b"404"]


def test_so_many_that_they_would_fill_memory_end_the_connection(
    gateway: GatewayInThread, upstream: InThread
) -> None:
    """A client that sends on without waiting costs the server an object a request: they are bounded."""
    upstream.reset()
    upstream.script("slow", seconds=0.5)
    asked = post(LENGTH[:-2]) + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000
    heard = exchange(gateway, asked)
    assert re.findall(rb"HTTP/1\.1 (\d+)", heard) == [b"200"], "the one that is served is served"
    until(lambda: not gateway.gateway.visits)


@pytest.mark.parametrize(
    "after", [b"\x00garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /livez HTTP/1.1\r\nX"]
)
def test_what_follows_a_request_does_not_take_its_answer(
    gateway: GatewayInThread, upstream: InThread, after: bytes
) -> None:
    """Whatever it is, the request before it was in order and is served."""
    upstream.reset()
    upstream.script("slow", seconds=0.2)
    with closing(connect(gateway)) as sock:
        sock.sendall(post(LENGTH[:-2]) + after)
        heard = sock.recv(65_536)
    assert heard.startswith(b"HTTP/1.1 200")


def test_a_second_request_that_waits_for_its_turn_is_not_called_slow(upstream: InThread) -> None:
    """What comes before its turn is not read, so no deadline of the sender's may run meanwhile."""
    upstream.reset()
    upstream.script("slow", seconds=0.6)
    bounds = ServerBounds(head_seconds=0.1)
    with GatewayInThread(upstream.base_url, environ=ENVIRON, bounds=bounds) as served:
        first, second = post(LENGTH[:-2]), post(LENGTH[:-2], b"Connection: close")
        with closing(connect(served)) as sock:
            sock.sendall(first + second[:-5])
            heard = b""
            while b"\r\n\r\n" not in heard:
                piece = sock.recv(65_536)
                assert piece, "it was closed"
                heard += piece
            sock.sendall(second[-5:])
            while piece := sock.recv(65_536):
                heard += piece
    assert re.findall(rb"HTTP/1\.1 (\d+)", heard) == [b"200", b"200"]


# ── connections and readers ─────────────────────────────────────────────────────────────────────


def test_connections_beyond_their_number_are_turned_away(upstream: InThread) -> None:
    bounds = ServerBounds(connections=3)
    with GatewayInThread(upstream.base_url, environ=ENVIRON, bounds=bounds) as served:
        held = [connect(served) for _ in range(3)]
        for sock in held:
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200")
        heard = exchange(served)
        assert heard.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in heard
        held.pop().close()
        until(
            lambda: (
                exchange(served, b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")[9:12] == b"200"
            )
        )
        for sock in held:
            sock.close()


class Large(BaseHTTPRequestHandler):
    """Answers with 8 MB at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        text = "x" * 8_000_000
        part: dict[str, Any] = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}
        body = json.dumps({"candidates": [part]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def big(bounds: ServerBounds) -> Iterator[GatewayInThread]:
    """A gateway before an upstream of large answers."""
    with serving(Large) as url, GatewayInThread(url, environ=ENVIRON, bounds=bounds) as served:
        yield served


@pytest.mark.parametrize("line", [b"Connection: close", b"Connection: keep-alive"])
def test_a_whole_answer_that_nobody_reads_is_dropped(line: bytes) -> None:
    """F30: the call is over by then, so nothing else would ever look at the connection again; and
    closing one waits until all of it is read."""
    bounds = ServerBounds(reader_stall_seconds=0.3)
    with big(bounds) as served, closing(connect(served)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(post(LENGTH[:-2], line))
        assert sock.recv(10).startswith(b"HTTP/1.1")
        connections = served.connections
        assert len(connections) == 1
        until(lambda: not connections)


def test_a_slow_reader_that_reads_is_waited_for() -> None:
    """It takes longer than nothing may be read, but something always is."""
    bounds = ServerBounds(reader_stall_seconds=0.2, slowest_reader=1_000_000)
    with big(bounds) as served, closing(connect(served)) as sock:
        sock.sendall(post(LENGTH[:-2], b"Connection: close"))
        heard = 0
        while piece := sock.recv(65_536):
            heard += len(piece)
            time.sleep(0.008)  # noqa: TID251 - some 6 MB a second: a real reader's pace
        assert heard > 8_000_000


def test_a_small_answer_that_was_read_is_forgotten(upstream: InThread) -> None:
    """Nothing waits any more, so an idle connection is left alone."""
    upstream.reset()
    bounds = ServerBounds(reader_stall_seconds=0.1)
    with big(bounds) as served, closing(connect(served)) as sock:
        for _ in range(2):
            sock.sendall(post(LENGTH[:-2]))
            heard = 0
            while heard < 8_000_000:
                heard += len(sock.recv(1_000_000))
            time.sleep(0.25)  # noqa: TID251 - twice as long as an answer may lie unread
        assert len(served.connections) == 1


def test_a_request_that_was_refused_early_has_one_answer(upstream: InThread) -> None:
    """Its body never comes to its end: the connection is closed, for a second answer would be taken for
    that to the next request."""
    bounds = ServerBounds(head_seconds=0.1, slowest_sender=1000)
    with GatewayInThread(upstream.base_url, environ=ENVIRON, bounds=bounds) as served:
        for rest in (b"{", b"{" + b"x" * 30):
            heard = exchange(served, post(b"Content-Length: 100", path="/gemini/nothing", body=rest))
            assert heard.startswith(b"HTTP/1.1 404")
            assert heard.count(b"HTTP/1.1") == 1
