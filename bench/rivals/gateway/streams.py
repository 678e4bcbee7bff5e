"""Many streams at once, from a client of our own: when the first byte came, and whether all came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Streams", "first_bytes"]

_LIMIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Streams:
    """Of streams begun at once.

    Attributes:
        p50: milliseconds from the request to the first event.
        p99: the same, of the slowest hundredth.
        events: of the stream that had the fewest.
    """

    p50: float
    p99: float
    events: int


def first_bytes(url: str, headers: Mapping[str, str], body: bytes, count: int, rounds: int) -> Streams:
    """Open so many streams at once, again and again. Raises `OSError` and `TimeoutError`."""
    return asyncio.run(_rounds(url, headers, body, count, rounds))


async def _rounds(
    url: str, headers: Mapping[str, str], body: bytes, count: int, rounds: int
) -> Streams:
    taken: list[tuple[float, int]] = []
    for _ in range(rounds):
        async with asyncio.timeout(_LIMIT_SECONDS):
            taken += await asyncio.gather(*(_stream(url, headers, body) for _ in range(count)))
    times = sorted(first for first, _events in taken)
    at = [times[int(share * (len(times) - 1))] * 1e3 for share in (0.5, 0.99)]
    return Streams(at[0], at[1], min(events for _first, events in taken))


async def _stream(url: str, headers: Mapping[str, str], body: bytes) -> tuple[float, int]:
    target = urlsplit(url)
    path = target.path + (f"?{target.query}" if target.query else "")
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    lines = [f"POST {path} HTTP/1.1", f"Host: {target.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    begun = time.monotonic()
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
    first, events = 0.0, 0
    while line := await reader.readline():
        if line.startswith(b"data:"):
            first = first or time.monotonic() - begun
            events += b"[DONE]" not in line
    writer.close()
    return first, events
