"""Clients that ask as fast as they are answered, each on a connection that it keeps.

They cost little: on the machine that is measured they take processor time from what is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Outcome", "pressed"]


@dataclass(slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        seconds: it took.
        statuses: of all answers.
        delays: of answers, in seconds.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.statuses[200] / self.seconds

    def delay(self, share: float) -> float:
        """That this share of the answers took at most."""
        ordered = sorted(self.delays)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def pressed(port: int, topics: Iterator[str], clients: int, *, seconds: float) -> Outcome:
    """Ask for subtopics until the time is over, or there are no more topics."""
    outcome = Outcome()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_client(port, topics, began + seconds, outcome))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def _client(port: int, topics: Iterator[str], end: float, outcome: Outcome) -> None:
    streams = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.perf_counter() < end and (topic := next(topics, None)) is not None:
            began = time.perf_counter()
            status, kept = await _ask(*streams, topic)
            outcome.statuses[status] += 1
            outcome.delays.append(time.perf_counter() - began)
            if not kept:  # nginx lets a connection go after a thousand requests
                streams[1].close()
                streams = await asyncio.open_connection("127.0.0.1", port)
    finally:
        streams[1].close()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, topic: str
) -> tuple[int, bool]:
    """The status, and whether the connection is kept."""
    body = f'{{"topic": "{topic}"}}'
    head = (
        "POST /api/create_subtopics HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write((head + body).encode())
    fields = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, rest = fields.partition(b"content-length:")
    if rest:
        await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    else:
        await _chunks(reader)
    return int(fields.split(b" ", 2)[1]), b"connection: close" not in fields


async def _chunks(reader: asyncio.StreamReader) -> None:
    while size := int((await reader.readline()).split(b";")[0], 16):
        await reader.readexactly(size + 2)
    await reader.readline()
