"""Servers that do what they are told byte by byte, and requests to them: for tests of transports."""

from __future__ import annotations

import asyncio
import ssl
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from headgate.core.ports import Request, Transport
from headgate.transport.http import HttpTransport
from headgate.transport.lean import LeanTransport

CREDENTIAL = {"x-goog-api-key": "AIzaCANARY-one"}

Make = type[HttpTransport] | type[LeanTransport]
every_real = pytest.mark.parametrize("make", [HttpTransport, LeanTransport], ids=["aiohttp", "lean"])
"""Each transport that opens sockets."""

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
        await turns(10)  # a connection may have been accepted at this very moment
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await turns(3)  # sockets are closed a turn later


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
            seen.append(event.data)  # noqa: PERF401 - it stays seen where the stream breaks
    finally:
        await exchange.aclose()


@asynccontextmanager
async def accepting(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    **options: Any,
) -> AsyncIterator[int]:
    """A server that leaves all of a connection to a script, TLS with `ssl=…`; gives its port."""
    tasks: list[asyncio.Future[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await connected(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    listener = await asyncio.start_server(accepted, "127.0.0.1", 0, limit=2**20, **options)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await turns(10)  # a connection may have been accepted at this very moment
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await turns(3)


async def turns(number: int) -> None:
    """Let the loop turn; no time passes."""
    for _ in range(number):
        await asyncio.sleep(0)  # noqa: TID251 - yields to the loop


@types.coroutine
def cancelled_at(work: Coroutine[Any, Any, object], point: int) -> Generator[object, object, bool]:
    """Run a coroutine, cancelling its task while it waits for the `point`-th time.

    Returns whether it ended before it got there.
    """
    seen = 0
    error: BaseException | None = None
    while True:
        try:
            waited_for = work.send(None) if error is None else work.throw(error)
        except StopIteration:
            return True
        seen += 1
        if seen == point:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        error = None
        try:
            yield waited_for
        except BaseException as raised:
            error = raised
