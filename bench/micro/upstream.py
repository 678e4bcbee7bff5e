"""An upstream that costs next to nothing, in a process of its own: fixed answers over HTTP/1.1.

The emulator would do, but it counts quotas and makes up texts; here the client's cost must stand out.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CHUNKS", "REPLY", "serving"]

CHUNKS = 20


def _reply(text: str, finish: str | None = "STOP") -> dict[str, object]:
    candidate: dict[str, object] = {"content": {"role": "model", "parts": [{"text": text}]}}
    if finish:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 12, "candidatesTokenCount": 150, "totalTokenCount": 162}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.8-flash"}


REPLY = json.dumps(_reply("A gate decides how much water is let in. " * 20)).encode()
"""A whole answer of about 1 KB."""


def _events(pieces: int) -> list[bytes]:
    return [
        b"data: %b\r\n\r\n" % json.dumps(_reply("a piece of text, ", "STOP" if last else None)).encode()
        for last in (*[False] * (pieces - 1), True)
    ]


_EVENTS = {pieces: _events(pieces) for pieces in (CHUNKS, 50)}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_WHOLE = _HEAD % len(REPLY) + REPLY
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class _Connection(asyncio.Protocol):
    """Answers every request whose end it sees; requests come one after the other."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        _, _, rest = head.lower().partition(b"content-length:")
        if len(body) < int(rest.split(b"\r\n")[0]):
            return
        self._received = b""
        assert self._transport is not None
        if b"streamGenerateContent" not in head:
            self._transport.write(_WHOLE)
            return
        self._transport.write(_STREAM_HEAD)
        for event in _EVENTS[50 if b"pieces=50" in head else CHUNKS]:
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self._transport.write(b"0\r\n\r\n")


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serving() -> Iterator[str]:
    """The base URL of such an upstream while the context lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.micro.upstream"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(_serve())
