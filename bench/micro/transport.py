"""What a request costs over a bare transport: the lean one, the one on aiohttp, and a floor below both.

Both are used as the engine uses them, through the `Transport` port, against a fixed upstream in another
process. The floor is a connection that writes a prepared request and counts the bytes that come back:
no parser, no deadline, no pool. What is between it and a transport is what the transport does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from typing import cast
from urllib.parse import urlsplit

from bench.micro.figures import Figure, Scale, per_call, ratio
from bench.micro.upstream import REPLY, serving
from headgate.core.ports import Request, Transport
from headgate.transport.http import HttpTransport
from headgate.transport.lean import LeanTransport
from headgate.wiring.clock import SystemClock

__all__ = ["AT_ONCE", "PIECES", "STREAM", "WHOLE", "measure"]

PIECES = 50
AT_ONCE = (1, 32)
WHOLE = "A request over a bare transport, reply of 1 KB"
STREAM = f"A stream of {PIECES} pieces over a bare transport"

_PATH = "/v1beta/models/gemini-3.8-flash"
_HEADERS = {"content-type": "application/json", "x-goog-api-client": "headgate/0"}
_CREDENTIAL = {"x-goog-api-key": "bench-key-number-one"}
_BODY = b'{"contents":[{"role":"user","parts":[{"text":"%b"}]}]}' % (b"Why is the sky blue? " * 40)

Once = Callable[[], Awaitable[object]]


def measure(scale: Scale) -> list[Figure]:
    figures: list[Figure] = []
    with serving() as base_url:
        for name, new_loop in _loops():
            with asyncio.Runner(loop_factory=new_loop) as runner:
                figures += runner.run(_on_one_loop(scale, base_url, name))
    return sorted(figures, key=lambda figure: figure.group)


def _loops() -> list[tuple[str, Callable[[], asyncio.AbstractEventLoop]]]:
    loops = [("asyncio", asyncio.new_event_loop)]
    if find_spec("uvloop"):
        import uvloop  # noqa: PLC0415 - an extra

        loops.append(("uvloop", uvloop.new_event_loop))
    return loops


async def _on_one_loop(scale: Scale, base_url: str, loop: str) -> list[Figure]:
    transports: dict[str, Transport] = {
        "aiohttp": HttpTransport(SystemClock()),
        "lean": LeanTransport(SystemClock()),
    }
    whole = Request("POST", f"{base_url}{_PATH}:generateContent", _HEADERS, _BODY)
    stream = Request(
        "POST",
        f"{base_url}{_PATH}:streamGenerateContent?alt=sse&pieces={PIECES}",
        _HEADERS,
        _BODY,
        True,
    )
    figures: list[Figure] = []
    try:
        for at_once in AT_ONCE:
            floors = [await _Floor.connect(base_url) for _ in range(at_once)]
            free = list(floors)

            async def floor(free: list[_Floor] = free) -> None:
                connection = free.pop()
                await connection.once()
                free.append(connection)

            ways: dict[str, Once] = {"floor": floor}
            ways |= {name: partial(_read, each, whole) for name, each in transports.items()}
            group = f"{WHOLE}, {at_once} at a time"
            figures += await _taken(scale, group, loop, ways, scale.calls, at_once)
            for connection in floors:
                connection.close()
        ways = {name: partial(_follow, each, stream) for name, each in transports.items()}
        figures += await _taken(scale, STREAM, loop, ways, max(2, scale.calls // 10), 1)
    finally:
        for transport in transports.values():
            await transport.aclose()
    return figures


async def _taken(
    scale: Scale, group: str, loop: str, ways: dict[str, Once], calls: int, at_once: int
) -> list[Figure]:
    """Each way in turn, a round for each repeat, after one round that warms up."""
    calls = max(calls, at_once)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(scale.repeats + 1):
        for name, once in ways.items():
            cost = await _cpu(once, calls, at_once)
            if number:
                taken[name].append(cost)
    found = {
        name: Figure(group, f"{name}, {loop}, CPU", "µs", tuple(values))
        for name, values in taken.items()
    }
    compared = ratio(group, f"aiohttp to lean, {loop}", found["aiohttp"], found["lean"])
    return [*found.values(), compared]


async def _cpu(once: Once, calls: int, at_once: int) -> float:
    """Microseconds of this process's CPU a call."""

    async def worker() -> None:
        for _ in range(calls // at_once):
            await once()

    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return per_call(time.process_time() - began, calls // at_once * at_once)


async def _read(transport: Transport, request: Request) -> None:
    exchange = await transport.open(request, _CREDENTIAL, None)
    try:
        body = await exchange.read()
    finally:
        await exchange.aclose()
    assert len(body) == len(REPLY)


async def _follow(transport: Transport, request: Request) -> None:
    exchange = await transport.open(request, _CREDENTIAL, None)
    seen = 0
    try:
        async for _ in exchange.events():
            seen += 1
    finally:
        await exchange.aclose()
    assert seen == PIECES


class _Floor(asyncio.Protocol):
    """A connection to an upstream whose answers all have the same length."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._missing = 0
        self._loop = asyncio.get_running_loop()
        self._whole: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, base_url: str) -> _Floor:
        place = urlsplit(base_url)
        headers = "".join(f"{name}: {value}\r\n" for name, value in {**_HEADERS, **_CREDENTIAL}.items())
        head = (
            f"POST {_PATH}:generateContent HTTP/1.1\r\nHost: {place.netloc}\r\n{headers}"
            f"Content-Length: {len(_BODY)}\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: cls(head.encode() + _BODY), place.hostname or "", place.port or 80
        )
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            head = data.index(b"\r\n\r\n") + 4
            self._missing = head + len(REPLY)
        self._missing -= len(data)
        if not self._missing:
            self._whole.set_result(None)

    async def once(self) -> None:
        assert self._transport is not None
        self._whole = self._loop.create_future()
        self._transport.write(self._request)
        await self._whole

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()
