"""Clients of a soak: good ones, those that leave, and those that send what is no request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from random import Random

__all__ = ["Clients"]

_MODEL = "gemini-3.5-flash"
_WHOLE = f"/gemini/v1beta/models/{_MODEL}:generateContent"
_STREAM = f"/gemini/v1beta/models/{_MODEL}:streamGenerateContent?alt=sse"
_COUNT = f"/gemini/v1beta/models/{_MODEL}:countTokens"
_CLAUDE = "/anthropic/v1/messages"
_CHAT = "/openai/v1/chat/completions"
_PATIENCE = 30.0


class Clients:
    """Ask at random until they are told to rest.

    Attributes:
        asked: how many requests there were.
        answers: how they ended, by what they were.
        wrong: what must not happen.
    """

    def __init__(self, host: str, port: int, count: int, random: Random) -> None:
        self._address = (host, port)
        self._count = count
        self._random = random
        self.asked = 0
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def work(self, seconds: float) -> None:
        """Ask for so long."""
        end = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._one(end))

    async def _one(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._connection(end)
            except TimeoutError:
                self.wrong.append("a request had no answer within 30 s")
            except (OSError, asyncio.IncompleteReadError):
                self.answers["connection ended"] += 1

    async def _connection(self, end: float) -> None:
        """A connection, and some requests over it."""
        reader, writer = await asyncio.open_connection(*self._address)
        loop = asyncio.get_running_loop()
        try:
            for _ in range(self._random.randrange(1, 30)):
                if loop.time() > end or not await self._request(reader, writer):
                    return
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request. Whether the connection can go on."""
        self.asked += 1
        kind = self._random.choices(list(_KINDS), weights=list(_KINDS.values()))[0]
        if kind == "half a head":
            writer.write(b"POST /gemini/v1beta HTTP/1.1\r\nHost: loc")
            await writer.drain()
            return False
        if kind == "no HTTP":
            writer.write(b"\x16\x03\x01 hello\r\n\r\n")
            await reader.read()
            return False
        path, body = self._call(kind)
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"X-Headgate-Timeout: 10\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        if kind == "leaves at once":
            return False
        if kind == "leaves in a stream":
            await reader.read(self._random.randrange(1, 2000))
            return False
        return await self._answer(kind, reader)

    def _call(self, kind: str) -> tuple[str, bytes]:
        text = "word " * self._random.randrange(1, 60) + str(self._random.randrange(2000))
        contents = {"contents": [{"parts": [{"text": text}]}]}
        messages = [{"role": "user", "content": text}]
        claude = {"model": "claude-opus-5-5", "max_tokens": 50, "messages": messages, "stream": True}
        calls: dict[str, tuple[str, object]] = {
            "stream": (_STREAM, contents),
            "leaves in a stream": (_STREAM, contents),
            "count": (_COUNT, contents),
            "claude": (_CLAUDE, claude),
            "chat": (_CHAT, {"model": "gpt-4.1", "messages": messages}),
            "no path": ("/gemini/v1/nothing", {}),
            "large": (_WHOLE, {"contents": [{"parts": [{"text": text * 500}]}]}),
        }
        if kind in _NO_CALL:
            return _WHOLE, _NO_CALL[kind]
        path, body = calls.get(kind, (_WHOLE, contents))
        return path, json.dumps(body).encode()

    async def _answer(self, kind: str, reader: asyncio.StreamReader) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        self.answers[f"{kind}: {status}"] += 1
        if status == 500 and b'"HEADGATE_FAULT"' in await self._body(head, reader):
            self.wrong.append(f"a fault of the gateway on {kind}")
        elif status != 500:
            await self._body(head, reader)
        if kind in _REFUSED and status != _REFUSED[kind]:
            self.wrong.append(f"{kind} got {status}")
        return b"connection: close" not in head

    @staticmethod
    async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
        length = re.search(rb"content-length: (\d+)", head)
        if length is not None:
            return await reader.readexactly(int(length[1]))
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body


_KINDS = {
    "whole": 30, "stream": 15, "claude": 10, "chat": 10, "count": 5, "large": 3, "leaves at once": 5,
    "leaves in a stream": 8, "half a head": 3, "no HTTP": 2, "no JSON": 4, "nested": 2, "no path": 3,
}  # fmt: skip
"""Kinds of requests, and how often each comes."""

_NO_CALL = {"no JSON": b'{"contents": [', "nested": b"[" * 10_000}
_REFUSED = {"no JSON": 400, "nested": 400, "no path": 404}
