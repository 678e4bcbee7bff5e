"""One answer on its way out: headers, bytes, pauses, and everything that goes wrong with them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11

from headgate.core.ports import Clock
from headgate.emulator import dialect
from headgate.emulator.config import Fault
from headgate.emulator.errors import Refusal, recorded
from headgate.emulator.pace import Pace

__all__ = ["Broken", "Delivery"]

_HTML = b"""<!DOCTYPE html>
<html lang=en>
  <title>Error</title>
  <p>The server encountered a temporary error and could not complete your request.
  <p>Please try again in 30 seconds.
</html>
"""
_NEVER_SENT_BYTES = 64


class Broken(Exception):  # noqa: N818 - it is a signal, not an error
    """A fault ended the exchange; `response` is what there is of it."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__("an injected fault ended the exchange")
        self.response = response


class Delivery:
    """Writes one answer to one request.

    Attributes:
        started: whether the answer's first byte went out.
        on_end: called when all is sent but the end itself: whoever sees the end finds the books
            closed.
        on_fault: the same for an exchange that an injected fault ends.
        sent: chunks of a stream that went out whole.
        tier: the service tier named in the headers.
        more_headers: of this answer, beside those that every answer has.
    """

    json_kind = "application/json; charset=UTF-8"
    stream_kind = "text/event-stream"

    def __init__(
        self, request: web.BaseRequest, clock: Clock, pace: Pace, stopping: asyncio.Event, now: float
    ) -> None:
        self._request = request
        self._clock = clock
        self._pace = pace
        self._stopping = stopping
        self._began = clock.monotonic()
        self._date = now
        self.started = False
        self.on_end: Callable[[], None] = _nothing
        self.on_fault: Callable[[], None] = _nothing
        self.tier = "standard"
        self.more_headers: Mapping[str, str] = {}
        self.sent = 0

    # ── whole answers ────────────────────────────────────────────────────────

    async def refuse(self, refusal: Refusal, *, wrapped: bool) -> web.StreamResponse:
        """An error body; `wrapped` puts it into a list of one."""
        await self._clock.sleep(self._pace.refusal())
        return await self._whole(
            dialect.pretty([refusal.body] if wrapped else refusal.body), refusal.status
        )

    async def page(self, status: int) -> web.StreamResponse:
        """An HTML page, as a proxy in between would send it."""
        return await self._whole(_HTML, status, "text/html; charset=UTF-8")

    async def whole(self, body: bytes, fault: Fault | None, chunks: int = 1) -> web.StreamResponse:
        """A 200 with a whole body that took as long as `chunks` chunks. Raises `Broken`."""
        await self._clock.sleep(self._pace.first_byte())
        for _ in range(chunks - 1):
            await self._clock.sleep(self._pace.chunk())
        if fault is not None:
            await self._disturb_whole(body, fault)
        return await self._whole(body)

    async def _disturb_whole(self, body: bytes, fault: Fault) -> None:
        """What a fault does before or instead of a whole body."""
        match fault.kind:
            case "slow":
                await self._clock.sleep(fault.seconds)
            case "broken_json":
                self.on_end = self.on_fault
                raise Broken(await self._whole(body[: len(body) // 2]))
            case "wrong_length":
                response = await self._head(200, self.json_kind, length=len(body) + _NEVER_SENT_BYTES)
                await response.write(body)
                self.close()
                raise Broken(response)
            case "reset_mid" | "stall_mid":
                response = await self._head(200, self.json_kind)
                await response.write(body[: len(body) // 2])
                await self._break(fault)
                raise Broken(response)

    async def _whole(
        self, body: bytes, status: int = 200, kind: str | None = None
    ) -> web.StreamResponse:
        response = await self._head(status, kind or self.json_kind)
        await response.write(body)
        return await self._ended(response)

    # ── streams ──────────────────────────────────────────────────────────────

    async def stream(
        self, chunks: list[dict[str, Any]], fault: Fault | None, *, sse: bool
    ) -> web.StreamResponse:
        """A streamed 200: events, or one JSON array. Raises `Broken`."""
        await self._clock.sleep(self._pace.first_byte())
        kind = fault.kind if fault else ""
        if fault is not None and kind == "slow":
            await self._clock.sleep(fault.seconds)
        response = await self._head(200, self.stream_kind if sse else self.json_kind)
        if kind == "empty_stream":
            self.on_end = self.on_fault
            raise Broken(await self._ended(response))
        for index, chunk in enumerate(chunks):
            if index:
                await self._clock.sleep(self._pace.chunk())
            if fault is not None and kind == "slow_chunks":
                await self._clock.sleep(fault.seconds)
            if fault is not None and index == min(fault.after, len(chunks) - 1):
                await self._disturb(response, fault, chunk, sse=sse, first=index == 0)
            await response.write(self.framed(chunk, kind, sse=sse, first=index == 0))
            self.sent = index + 1
        if ending := self.ending(kind, sse=sse):
            await response.write(ending)
        return await self._ended(response)

    async def _disturb(
        self,
        response: web.StreamResponse,
        fault: Fault,
        chunk: dict[str, Any],
        *,
        sse: bool,
        first: bool,
    ) -> None:
        """What a fault does in place of the chunk that would come now."""
        error = self.stream_error()
        whole = self.framed(chunk, "", sse=sse, first=first)
        match fault.kind:
            case "raw_error":
                instead = dialect.pretty(error) if sse else self.framed(error, "", sse=sse, first=first)
            case "prefixed_error":
                instead = self.framed(error, "", sse=sse, first=first)
            case "late_error_key":
                instead = self.framed({"candidates": [], **error}, "", sse=sse, first=first)
            case "half_event":
                instead = whole[: len(whole) // 2]
            case "malformed_sse" | "broken_json" | "wrong_length":
                instead = whole[: len(whole) // 2] + (b"\r\n\r\n" if sse else b"]")
            case "silent_eof":
                instead = b""
            case "reset_mid" | "stall_mid":
                await self._break(fault)
                raise Broken(response)
            case _:
                return
        if instead:
            await response.write(instead)
        self.on_end = self.on_fault
        raise Broken(await self._ended(response))

    async def _ended(self, response: web.StreamResponse) -> web.StreamResponse:
        self.on_end()
        await response.write_eof()
        return response

    # ── sockets ──────────────────────────────────────────────────────────────

    async def before(self, fault: Fault) -> None:
        """A fault instead of any answer. Always raises `Broken`."""
        self.on_end = self.on_fault
        if fault.kind == "html":
            raise Broken(await self.page(fault.status))
        if fault.kind == "close":
            self.close()
        elif fault.kind == "stall":
            await self.stall()
        else:
            self.reset()
        raise Broken(web.StreamResponse())

    async def _break(self, fault: Fault) -> None:
        if fault.kind == "stall_mid":
            await self.stall()
        else:
            # What was written must leave before the reset, or the peer never sees it.
            await self._clock.sleep(0)
            self.reset()

    async def stall(self) -> None:
        """Say nothing until the client goes away or the emulator stops."""
        self.on_fault()
        await self._stopping.wait()
        self.reset()

    def reset(self) -> None:
        """Drop the connection with a RST, as a crashed peer does."""
        self.on_fault()
        transport = self._request.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def close(self) -> None:
        """Close the connection in the middle of what was promised."""
        self.on_fault()
        if self._request.transport is not None:
            self._request.transport.close()

    async def _head(self, status: int, kind: str, length: int | None = None) -> web.StreamResponse:
        duration = round((self._clock.monotonic() - self._began) * 1000)
        headers = {**self.headers(kind, duration), **self.more_headers}
        response = web.StreamResponse(status=status, headers=headers)
        if length is not None:
            response.content_length = length
        elif self._request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(self._request)
        self.started = True
        return response

    # ── dialect ──────────────────────────────────────────────────────────────

    def date(self, duration: float) -> str:
        """The upstream's date that many milliseconds after the request came in."""
        return formatdate(self._date + duration / 1000, usegmt=True)

    def headers(self, kind: str, duration: int) -> Mapping[str, str]:
        """The headers of an answer that took that many milliseconds."""
        headers = {
            hdrs.CONTENT_TYPE: kind,
            hdrs.DATE: self.date(duration),
            hdrs.VARY: "Origin, X-Origin, Referer",
            hdrs.SERVER: "scaffolding on HTTPServer2",
            "X-XSS-Protection": "0",
            "X-Frame-Options": "SAMEORIGIN",
            "X-Content-Type-Options": "nosniff",
            "Server-Timing": f"gfet4t7; dur={duration}",
            "X-Gemini-Service-Tier": self.tier,
        }
        if kind == self.stream_kind:
            headers[hdrs.CONTENT_DISPOSITION] = "attachment"
        return headers

    def stream_error(self) -> dict[str, Any]:
        """The error of a stream that began well."""
        return recorded("503-high-demand", {}).body

    def framed(self, chunk: dict[str, Any], kind: str, *, sse: bool, first: bool) -> bytes:
        """A chunk as it travels, or as `kind` says it should not."""
        return _framed(chunk, kind, sse=sse, first=first)

    def ending(self, kind: str, *, sse: bool) -> bytes:
        """What comes after the last chunk of a stream that met no fault, or one of this kind."""
        if not sse:
            return b"]"
        return b"data: [DONE]\r\n\r\n" if kind == "sse_done" else b""


def _nothing() -> None:
    """Nobody wants to know."""


def _framed(chunk: dict[str, Any], kind: str, *, sse: bool, first: bool) -> bytes:
    """A chunk as an event or as a member of the JSON array, or as `kind` says it should not be."""
    if not sse:
        return (b"[" if first else b"\r\n,") + dialect.pretty(chunk).rstrip(b"\n")
    event = dialect.event(chunk)
    match kind:
        case "sse_no_space":
            return b"data:" + event.removeprefix(b"data: ")
        case "sse_comment":
            return b": ping\r\n\r\n" + event
        case "sse_event_line":
            return b"event: message\r\n" + event
        case _:
            return event
