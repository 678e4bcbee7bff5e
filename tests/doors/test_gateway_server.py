"""The gateway on a port: bytes, bounds, slow clients, and its orderly end."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import CALLER_KEY, GEMINI_KEYS, GatewayInThread, gateway_over
from tests.support import Ear

from headgate.emulator import Emulator, EmulatorConfig, InThread, Project
from headgate.gateway.server import GatewayServer, run
from headgate.gateway.server_protocol import ServerBounds
from headgate.wiring.clock import SystemClock
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.gateway_transport import Sending

DATA = Path(__file__).parents[1] / "data"
MODEL = "gemini-3.5-flash"
BODY = json.dumps({"contents": [{"parts": [{"text": "How does a headgate work?"}]}]}).encode()
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
JSON = {"content-type": "application/json"}
CONFIG = EmulatorConfig(projects=[Project("alpha", {"g1": GEMINI_KEYS[0]})])
ENVIRON = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|g1|alpha"}


def until(done: Callable[[], object]) -> None:
    """Another thread or process gets there: looked at again and again, for twenty seconds."""
    for _ in range(2000):
        if done():
            return
        time.sleep(0.01)  # noqa: TID251 - a real server has no virtual clock
    raise AssertionError("it did not happen")


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    with Emulator(CONFIG).in_thread() as emulator:
        yield emulator


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture(scope="module", params=[Sending.LEAN, Sending.AIOHTTP])
def over(request: pytest.FixtureRequest) -> GatewaySettings:
    """Settings of a gateway that sends over one transport and the other."""
    return GatewaySettings(linger_seconds=0.0, drain_seconds=5.0, transport=request.param)


@pytest.fixture
def gateway(upstream: InThread, ear: Ear, over: GatewaySettings) -> Iterator[GatewayInThread]:
    upstream.reset()
    with GatewayInThread(upstream.base_url, environ=ENVIRON, settings=over, observers=[ear]) as served:
        yield served


def connect(url: str) -> HTTPConnection:
    return HTTPConnection(url.removeprefix("http://"), timeout=20)


def post(url: str, path: str, body: bytes = BODY, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = connect(url)
    try:
        connection.request("POST", path, body, {**JSON, **headers})
        response = connection.getresponse()
        return response.status, {n.lower(): v for n, v in response.getheaders()}, response.read()
    finally:
        connection.close()


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────


def recorded(provider: str) -> list[dict[str, Any]]:
    lines = (DATA / provider / "recorded.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    tails = ("Content", "Contents", "countTokens", "/messages", "count_tokens")
    asked = [row for row in rows if "json" in row["request"]]
    return [row for row in asked if row["request"]["path"].endswith(tails)]


ROWS = {provider: recorded(provider) for provider in ("gemini", "anthropic")}


def answer_of(row: dict[str, Any]) -> bytes:
    response = row["response"]
    text: str = response["text"] if "text" in response else json.dumps(response["json"], indent=2)
    return text.encode()


class Replay(BaseHTTPRequestHandler):
    """Answers with the recording whose number the model is named after, in pieces of odd sizes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the pieces are small: each would wait for the other side's word
    seen: list[bytes] = []  # noqa: RUF012 - of all connections

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(body)
        provider = "gemini" if "/models/" in self.path else "anthropic"
        found = re.search(rb"replay-(\d+)", self.path.encode() + body)
        assert found is not None
        row = ROWS[provider][int(found[1])]
        answer = answer_of(row)
        self.send_response(row["response"]["status"])
        self.send_header(
            "content-type", row["response"]["headers"].get("content-type", "application/json")
        )
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for start in range(0, len(answer), 977):
            piece = answer[start : start + 977]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def replay() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def through(replay: str, over: GatewaySettings) -> Iterator[str]:
    with GatewayInThread(replay, settings=over) as served:
        yield served.base_url


def asked(provider: str, number: int) -> tuple[str, bytes]:
    """The path and body of a recorded request, for the model `replay-N`."""
    request = ROWS[provider][number]["request"]
    name = f"replay-{number}"
    if provider == "gemini":
        verb = request["path"].rpartition(":")[2]
        query = "?alt=sse" if verb.startswith("stream") else ""
        return f"/v1beta/models/{name}:{verb}{query}", json.dumps(request["json"], indent=1).encode()
    return request["path"], json.dumps({**request["json"], "model": name}, indent=1).encode()


@pytest.mark.parametrize("provider", ["gemini", "anthropic"])
def test_recorded_calls_are_the_same_directly_and_through_the_gateway(
    replay: str, through: str, provider: str
) -> None:
    """Bodies both ways, whole and streamed, answers and refusals: equal to the byte."""
    passed = 0
    for number, row in enumerate(ROWS[provider]):
        path, body = asked(provider, number)
        status = row["response"]["status"]
        if status not in (200, 400, 404):
            continue
        direct = post(replay, path, body)
        got = post(through, f"/{provider}{path}", body)
        assert (got[0], got[2]) == (direct[0], direct[2]) == (status, answer_of(row)), row["id"]
        kinds = [
            answer[1]["content-type"].lower().replace("; charset=utf-8", "") for answer in (got, direct)
        ]
        assert kinds[0] == kinds[1], row["id"]
        assert Replay.seen[-1] == Replay.seen[-2] == body
        passed += 1
    assert passed > 25


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────


def exchange(url: str, sent: bytes) -> bytes:
    """Everything a server says to these bytes, until it closes or falls silent for a second."""
    host, _, port = url.removeprefix("http://").partition(":")
    heard = b""
    with socket.create_connection((host, int(port)), timeout=1.0) as sock:
        sock.sendall(sent)
        try:
            while piece := sock.recv(65_536):
                heard += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return heard


HEAD = f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()

SMUGGLED = {
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "bare LF chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "underscore in size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0_2\r\n{}\r\n0\r\n\r\n",
    "two hosts": HEAD + b"Host: other\r\nContent-Length: 2\r\n\r\n{}",
    "a host with a path": HEAD.replace(b"localhost", b"x/?") + b"Content-Length: 2\r\n\r\n{}",
    "a host with a fragment": HEAD.replace(b"localhost", b"x/#") + b"Content-Length: 2\r\n\r\n{}",
    "a host with a query": HEAD.replace(b"localhost", b"foo?") + b"Content-Length: 2\r\n\r\n{}",
    "a host with a user": HEAD.replace(b"localhost", b"a@b") + b"Content-Length: 2\r\n\r\n{}",
    "NUL in a value": HEAD + b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "no HTTP": b"hello there\r\n\r\n",
    "head too large": HEAD + b"X-Long: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "too many headers": HEAD + b"X-A: 1\r\n" * 120 + b"Content-Length: 2\r\n\r\n{}",
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_is_no_proper_request_is_refused_and_the_connection_closed(
    gateway: GatewayInThread, upstream: InThread, name: str
) -> None:
    """F35 and X-30: never two requests out of one, and no head without end."""
    second = b"POST /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    heard = exchange(gateway.base_url, SMUGGLED[name] + second)
    assert heard.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert heard.count(b"HTTP/1.1") == 1
    assert b"connection: close" in heard
    assert upstream.report().totals.requests == 0


def test_a_slow_sender_is_cut_off(upstream: InThread) -> None:
    """F27 and F28: a head, and a body, that never come to their end."""
    upstream.reset()
    bounds = ServerBounds(head_seconds=0.1, slowest_sender=1000)
    with GatewayInThread(upstream.base_url, environ=ENVIRON, bounds=bounds) as served:
        assert exchange(served.base_url, b"") == b"", "who says nothing is told nothing"
        assert exchange(served.base_url, HEAD).startswith(b"HTTP/1.1 408")
        # By its length it has 0.1 s beyond those of its head; by that of the largest body, hours.
        heard = exchange(served.base_url, HEAD + b"Content-Length: 100\r\n\r\n{")
        assert heard.startswith(b"HTTP/1.1 408")
        until(lambda: len(served.gateway.visits) == 0)
    assert upstream.report().totals.requests == 0


def test_a_body_over_the_cap_is_refused(upstream: InThread) -> None:
    """F31, with a length and without one."""
    settings = GatewaySettings(max_body_mib=1, linger_seconds=0.0)
    with GatewayInThread(upstream.base_url, environ=ENVIRON, settings=settings) as served:
        status, _, body = post(served.base_url, GENERATE, b" " * (1024 * 1024 + 1))
        assert (status, json.loads(body)["error"]["code"]) == (413, 413)
        chunks = b"".join([b"10000\r\n", b"x" * 65_536, b"\r\n"] * 20)
        heard = exchange(served.base_url, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert heard.startswith(b"HTTP/1.1 413") or heard == b""  # a reset may overtake the answer


def test_a_client_that_goes_away_ends_the_upstreams_work(
    gateway: GatewayInThread, upstream: InThread, ear: Ear
) -> None:
    """trust.md 1.7: over a real connection, before the first byte and within a stream."""
    for path, fault in ((GENERATE, "slow"), (STREAM, "stall_mid")):
        upstream.script(fault, **({"seconds": 30.0} if fault == "slow" else {"after": 1}))
        connection = connect(gateway.base_url)
        connection.request("POST", path, BODY, JSON)
        if path == STREAM:
            response = connection.getresponse()
            assert response.readline().startswith(b"data:")
            response.close()
        else:
            until(lambda: "slow" in upstream.report().totals.faults)
        calls = len(ear.calls)
        connection.close()
        assert connection.sock is None
        until(lambda: len(ear.calls) > calls)  # noqa: B023 - called within this turn
        assert ear.calls[-1].error == "cancelled"
        until(lambda: len(gateway.gateway.visits) == 0)


IMPATIENT = ServerBounds(reader_stall_seconds=0.3, slowest_reader=10_000_000)


class Endless(BaseHTTPRequestHandler):
    """Streams without end, and counts what the other side takes."""

    written = 0
    ended = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        part = {"candidates": [{"content": {"parts": [{"text": "x" * 10_000}]}}]}
        event = b"data: " + json.dumps(part).encode() + b"\r\n\r\n"
        try:
            while True:
                self.wfile.write(event)
                type(self).written += len(event)
        except OSError:
            self.ended.set()

    def log_message(self, *_: object) -> None: ...


def test_a_reader_that_does_not_read_holds_the_upstream_back_and_is_cut_off(
    ear: Ear, over: GatewaySettings
) -> None:
    """F30: what nobody reads is not piled up here, and not for ever."""
    Endless.ended.clear()
    Endless.written = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with GatewayInThread(
            url, environ=ENVIRON, settings=over, observers=[ear], bounds=IMPATIENT
        ) as served:
            connection = connect(served.base_url)
            connection.request("POST", STREAM, BODY, JSON)
            response = connection.getresponse()
            assert response.status == 200
            assert Endless.ended.wait(20), "the upstream is let go once the reader is cut off"
            until(lambda: len(served.gateway.visits) == 0)
            response.close()
            connection.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [record.error for record in ear.calls] == ["cancelled"]
    assert Endless.written < 64 * 1024 * 1024, "a few socket buffers, whatever the time"


def test_a_kept_connection_serves_many_calls(gateway: GatewayInThread) -> None:
    connection = connect(gateway.base_url)
    for path in (GENERATE, STREAM, GENERATE, "/gemini/nothing"):
        connection.request("POST", path, BODY, JSON)
        response = connection.getresponse()
        assert response.read()
        assert response.status == (404 if "nothing" in path else 200)
    sock = connection.sock
    assert sock is not None
    connection.close()


# ── the end ─────────────────────────────────────────────────────────────────────────────────────


def test_streams_go_on_while_it_drains_and_are_cut_at_the_limit(upstream: InThread, ear: Ear) -> None:
    """trust.md 1.5 and F43: a typed last event, usage settled, nothing left behind."""
    upstream.reset()
    settings = GatewaySettings(linger_seconds=0.0, drain_seconds=0.2)
    served = GatewayInThread(upstream.base_url, environ=ENVIRON, settings=settings, observers=[ear])
    with served:
        upstream.script("stall_mid", after=1)
        connection = connect(served.base_url)
        connection.request("POST", STREAM, BODY, JSON)
        response = connection.getresponse()
        first = response.readline()
        served.stop()
        rest = response.read()
        connection.close()
        served.join()
    assert first.startswith(b"data:")
    last = [line for line in rest.splitlines() if line][-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == 503
    assert [record.error for record in ear.calls] == ["cancelled"]
    with pytest.raises(ConnectionRefusedError):
        post(served.base_url, GENERATE)


def test_a_second_signal_means_now(upstream: InThread) -> None:
    upstream.reset()
    settings = GatewaySettings(linger_seconds=600.0, drain_seconds=600.0)
    served = GatewayInThread(upstream.base_url, environ=ENVIRON, settings=settings)
    with served:
        upstream.script("stall_mid", after=1)
        connection = connect(served.base_url)
        connection.request("POST", STREAM, BODY, JSON)
        response = connection.getresponse()
        assert response.readline().startswith(b"data:")
        served.stop()
        until(lambda: served.gateway.draining)
        assert post(served.base_url, GENERATE)[0] == 200, "it lingers, and takes calls still"
        served.stop()
        assert b'"error"' in response.read()
        connection.close()
        served.join()


def test_the_command_serves_says_where_and_ends_on_a_signal(upstream: InThread, tmp_path: Path) -> None:
    upstream.reset()
    environ = {
        "PATH": "/usr/bin:/bin",
        "HEADGATE_GEMINI_BASE_URL": upstream.base_url,
        "HEADGATE_GATEWAY_LINGER_SECONDS": "0",
        "HEADGATE_CALLER_KEYS": f"{CALLER_KEY}|ann",
        **ENVIRON,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "serve", "--port", "0"],
        env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found is not None, line + process.stderr.read()
        assert post(found[0], GENERATE)[0] == 401
        status, headers, _ = post(found[0], GENERATE, **{"x-goog-api-key": CALLER_KEY})
        assert (status, headers["x-headgate-key"]) == (200, "g1")
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()  # to its end: what was read ahead is in there too
        out, _ = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 0
    assert "ann" in said
    assert "CANARY" not in line + out + said


def test_the_server_runs_on_uvloop_and_without_it_on_asyncio(
    upstream: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def stopped_at_once() -> GatewayServer:
        seen.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])
        settings = GatewaySettings(linger_seconds=0.0, drain_seconds=0.0)
        environ = {**ENVIRON, "HEADGATE_GEMINI_BASE_URL": upstream.base_url}
        gateway = gateway_over(SystemClock(), settings=settings, environ=environ)
        made = GatewayServer(
            gateway, "127.0.0.1", 0, linger_seconds=0.0, drain_seconds=0.0, body_bytes=1
        )
        made.stop()
        return made

    there, thresholds = find_spec("uvloop") is not None, gc.get_threshold()
    try:
        run(stopped_at_once, lambda _: None)
        monkeypatch.setitem(sys.modules, "uvloop", None)
        run(stopped_at_once, lambda _: None)
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
    assert seen == ["uvloop" if there else "asyncio", "asyncio"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.7", "::"])  # noqa: S104 - that is refused
def test_without_caller_keys_it_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headgate", "serve", "--host", host],
        env={"PATH": "/usr/bin:/bin", **ENVIRON}, cwd=tmp_path, capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "HEADGATE_CALLER_KEYS" in done.stderr
