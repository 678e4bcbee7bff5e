"""What the client adds to a call: against a bare transport, and against bare aiohttp over a socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial

import aiohttp

from bench.micro.figures import Figure, Scale, per_call, ratio
from bench.micro.upstream import CHUNKS, REPLY, serving
from headgate.core.ports import Event, Request
from headgate.gemini import ResilientGeminiClient

__all__ = [
    "AT_ONCE",
    "HEADERS",
    "IN_PROCESS",
    "KEYS",
    "MODEL",
    "OVER_HTTP",
    "PROMPT",
    "STREAM",
    "NoTransport",
    "cpu_of",
    "measure",
    "rounds_of",
    "text_of",
]

IN_PROCESS = "A call without a socket"
OVER_HTTP = "A call over loopback"
STREAM = f"A stream of {CHUNKS} pieces over loopback"
MODEL = "gemini-3.8-flash"
PROMPT = "Why is the sky blue?"
KEYS = "bench-key-number-one|one|alpha,bench-key-number-two|two|beta"
BODY = json.dumps({"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}).encode()
HEADERS = {"content-type": "application/json", "x-goog-api-key": "bench-key-number-one"}
AT_ONCE = 32

Once = Callable[[], Awaitable[object]]


class _Answered:
    status = 200
    headers: Mapping[str, str] = {}

    async def read(self) -> bytes:
        return REPLY

    async def events(self) -> AsyncGenerator[Event]:
        yield Event(REPLY)

    async def aclose(self) -> None:
        pass


class NoTransport:
    """A transport that answers at once."""

    async def open(
        self,
        request: Request,  # noqa: ARG002
        credential: Mapping[str, str],  # noqa: ARG002
        deadline: float | None,  # noqa: ARG002
        *,
        not_after: float | None = None,  # noqa: ARG002
    ) -> _Answered:
        return _Answered()

    async def aclose(self) -> None:
        pass


def measure(scale: Scale) -> list[Figure]:
    figures = asyncio.run(_in_process(scale))
    with serving() as base_url:
        figures += asyncio.run(_over_http(scale, base_url))
        figures += asyncio.run(_streams(scale, base_url))
    return figures


def text_of(body: bytes) -> str:
    return str(json.loads(body)["candidates"][0]["content"]["parts"][0]["text"])


async def cpu_of(once: Once, calls: int, at_once: int = 1) -> float:
    """Microseconds of this process's CPU a call."""

    async def worker() -> None:
        for _ in range(calls // at_once):
            await once()

    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return per_call(time.process_time() - began, calls // at_once * at_once)


async def rounds_of(
    repeats: int, takings: Sequence[Callable[[], Awaitable[float]]]
) -> list[tuple[float, ...]]:
    rounds = [[await taking() for taking in takings] for _ in range(repeats)]
    return [tuple(values) for values in zip(*rounds, strict=True)]


async def _in_process(scale: Scale) -> list[Figure]:
    transport = NoTransport()
    client = ResilientGeminiClient(keys=KEYS, transport=transport)
    request = Request("POST", "http://127.0.0.1", {}, BODY)

    async def by_hand() -> str:
        exchange = await transport.open(request, HEADERS, None)
        return text_of(await exchange.read())

    async def ours() -> object:
        return await client.generate_reply(PROMPT, MODEL)

    bare, through = await rounds_of(
        scale.repeats, [partial(cpu_of, by_hand, scale.calls), partial(cpu_of, ours, scale.calls)]
    )
    return _compared(IN_PROCESS, "reply read by hand", bare, "client", through)


async def _over_http(scale: Scale, base_url: str) -> list[Figure]:
    url = f"{base_url}/v1beta/models/{MODEL}:generateContent"
    figures = []
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ResilientGeminiClient(keys=KEYS, base_url=base_url) as client,
    ):

        async def by_hand() -> str:
            async with session.post(url, data=BODY, headers=HEADERS) as response:
                return text_of(await response.read())

        async def ours() -> object:
            return await client.generate_reply(PROMPT, MODEL)

        for at_once in (1, AT_ONCE):
            calls = max(scale.calls // 2, at_once)
            await cpu_of(by_hand, at_once, at_once)
            await cpu_of(ours, at_once, at_once)
            bare, through = await rounds_of(
                scale.repeats,
                [
                    partial(cpu_of, by_hand, calls, at_once),
                    partial(cpu_of, ours, calls, at_once),
                ],
            )
            group = f"{OVER_HTTP}, {at_once} at a time"
            figures += _compared(group, "aiohttp", bare, "client", through)
    return figures


async def _streams(scale: Scale, base_url: str) -> list[Figure]:
    url = f"{base_url}/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
    streams = max(2, scale.calls // 10)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ResilientGeminiClient(keys=KEYS, base_url=base_url) as client,
    ):

        async def by_hand(first: list[float]) -> None:
            began = time.perf_counter()
            async with session.post(url, data=BODY, headers=HEADERS) as response:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        text_of(line[6:])
                        first.append(time.perf_counter() - began)

        async def ours(first: list[float]) -> None:
            began = time.perf_counter()
            async for _ in client.generate_content_stream(PROMPT, MODEL):
                first.append(time.perf_counter() - began)  # noqa: PERF401

        ways = (by_hand, ours)
        for way in ways:
            await way([])
        firsts: list[list[float]] = [[], []]
        costs: list[list[float]] = [[], []]
        for _ in range(scale.repeats):
            for number, way in enumerate(ways):
                first, cost = await _stream_figures(way, streams)
                firsts[number].append(first)
                costs[number].append(cost)
    return [
        *_compared(STREAM, "first piece, aiohttp", tuple(firsts[0]), "first piece, client",
                   tuple(firsts[1]), of="wall time"),
        *_compared(STREAM, "whole stream, aiohttp", tuple(costs[0]), "whole stream, client",
                   tuple(costs[1])),
    ]  # fmt: skip


async def _stream_figures(
    way: Callable[[list[float]], Awaitable[None]], streams: int
) -> tuple[float, float]:
    """Median microseconds to the first piece, and microseconds of CPU a stream."""
    waits = []
    began = time.process_time()
    for _ in range(streams):
        seen: list[float] = []
        await way(seen)
        waits.append(seen[0])
    cost = per_call(time.process_time() - began, streams)
    return sorted(waits)[len(waits) // 2] * 1e6, cost


def _compared(
    group: str,
    bare_name: str,
    bare: tuple[float, ...],
    name: str,
    through: tuple[float, ...],
    of: str = "CPU",
) -> list[Figure]:
    one = Figure(group, f"{bare_name}, {of}", "µs", bare)
    other = Figure(group, f"{name}, {of}", "µs", through)
    added = tuple(above - below for above, below in zip(through, bare, strict=True))
    return [
        one,
        other,
        Figure(group, f"added, {of}", "µs", added),
        ratio(group, f"{name} to {bare_name}", other, one),
    ]
