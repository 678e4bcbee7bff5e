"""One answer as it arrives over a lean connection.

The answer holds what came and nothing of the connection's state: the connection goes back to its pool
the moment the last byte is parsed, and may serve the next request while this body is still being read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, TransportError
from headgate.transport.bounds import LARGEST_BODY
from headgate.transport.sse import EventTooLongError, SseDecoder

__all__ = ["HIGH_WATER", "LOW_WATER", "LeanExchange", "Wire"]

HIGH_WATER = 128 * 1024
"""Bytes of a stream nobody has read yet at which the socket is left alone; one read more may come."""

LOW_WATER = 32 * 1024
"""Bytes at which it is read again."""


class Wire(Protocol):
    """The connection an answer comes over, while it does."""

    def drop(self, exchange: LeanExchange) -> None:
        """Close at once, if this answer is still coming over it."""

    def resume(self) -> None:
        """Read the socket again."""


class LeanExchange:
    """See `Exchange`. Its connection fills it and takes itself out when it is whole or broken.

    Attributes:
        status: HTTP status; 0 until the head is in.
        began: whether the head is in.
        done: whether nothing more will come.
        pieces: of the body, not read yet.
        held: their bytes.
        limit: of `held`, at which the connection stops reading; or breaks off, if `whole`.
        whole: whether the reader wants all of it at once.
    """

    __slots__ = (
        "_failure",
        "_headers",
        "_loop",
        "_raw_headers",
        "_waiter",
        "began",
        "done",
        "held",
        "limit",
        "pieces",
        "status",
        "whole",
        "wire",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._raw_headers: list[tuple[bytes, bytes]] = []
        self._headers: dict[str, str] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Outcome | None = None
        self.wire: Wire | None = None
        self.status = 0
        self.began = self.done = self.whole = False
        self.pieces: deque[bytes] = deque()
        self.held = 0
        self.limit = HIGH_WATER

    # ── for whoever asked ───────────────────────────────────────────────────────────────────────

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers, names in lower case; of a repeated one the last."""
        if self._headers is None:  # most answers are read without a look at them
            self._headers = {_text(name).lower(): _text(value) for name, value in self._raw_headers}
        return self._headers

    async def opened(self) -> None:
        """Until the head is in. Raises `TransportError`; cancelling it closes the connection."""
        self._waiter = waiter = self._loop.create_future()  # as `_wait`, and one await less
        try:
            await waiter
        except asyncio.CancelledError:
            self.abandon()
            raise
        if not self.began:
            raise self._error()

    async def read(self) -> bytes:
        """The whole body. Raises `TransportError`."""
        self.whole = True
        self.limit = LARGEST_BODY
        if self.wire is not None:
            self.wire.resume()
        while not self.done:
            await self._wait()
        if self._failure is not None:
            raise self._error()
        body = b"".join(self.pieces)
        self.pieces.clear()
        return body

    async def events(self) -> AsyncGenerator[Event]:
        """The body as server-sent events, as they come. Raises `TransportError`."""
        decoder = SseDecoder()
        pieces = self.pieces
        try:
            while True:
                while pieces:
                    piece = pieces.popleft()
                    for event in decoder.feed(piece):
                        yield event
                    self._took(len(piece))
                if self.done:
                    break
                await self._wait()
        except EventTooLongError as error:
            raise TransportError(Outcome(Kind.PROTOCOL, f"{error}."), sent=True) from None
        if self._failure is not None:
            raise self._error()
        for event in decoder.end():
            yield event

    async def aclose(self) -> None:
        """Drop the connection if the answer is not whole. Twice is harmless."""
        self.abandon()

    def abandon(self) -> None:
        """Nobody wants the rest: a connection it would come over is closed at once."""
        wire, self.wire = self.wire, None
        if wire is not None:
            wire.drop(self)
        if not self.done:
            self.fail(Outcome(Kind.NETWORK, "The answer was closed before it was whole."))
        self.pieces.clear()

    def _took(self, size: int) -> None:
        self.held -= size
        if self.held <= LOW_WATER and self.wire is not None:
            self.wire.resume()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abandon()
            raise

    def _error(self) -> TransportError:
        assert self._failure is not None  # noqa: S101 - asked for after it broke
        return TransportError(self._failure, sent=True)

    # ── for its connection ──────────────────────────────────────────────────────────────────────

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head is in."""
        self.status = status
        self._raw_headers = headers
        self.began = True

    def take(self, piece: bytes) -> None:
        """A piece of the body."""
        self.pieces.append(piece)
        self.held += len(piece)

    def finish(self) -> None:
        """The last byte is in; the connection serves others from now on."""
        self.wire = None
        self.done = True
        self.wake()

    def fail(self, outcome: Outcome) -> None:
        """No more will come. What came before can still be read."""
        self.wire = None
        if not self.done:
            self._failure = outcome
        self.done = True
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look at what came."""
        waiter = self._waiter
        if waiter is not None and (self.done or (self.began and not self.whole)):
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
