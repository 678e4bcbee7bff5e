"""Answers and their pieces: a streamed answer put together, a whole one told again as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from headgate.core.call import Blob, Call, Chunk, Operation, Reply, SafetyRating
from headgate.core.outcome import Outcome
from headgate.core.ports import Event
from headgate.core.raw import RawReply
from headgate.core.tokens import Usage
from headgate.engine.stream import ReplyStream

__all__ = ["Gathered", "in_form", "told_again", "whole"]


class Gathered:
    """A streamed answer, put together piece by piece."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._blobs: list[Blob] = []
        self._content: list[Mapping[str, object]] = []
        self._safety: tuple[SafetyRating, ...] = ()
        self._usage = Usage()
        self._reason: str | None = None
        self._model = ""
        self._raw: list[bytes] = []

    def add(self, chunk: Chunk) -> None:
        """One more piece."""
        self._texts.append(chunk.text)
        self._blobs += chunk.blobs
        self._content += chunk.content
        self._safety = chunk.safety or self._safety
        self._usage = chunk.usage or self._usage
        self._reason = chunk.finish_reason or self._reason
        self._model = chunk.model or self._model
        if chunk.raw:
            self._raw.append(chunk.raw)

    def reply(self) -> Reply:
        """The whole answer so far."""
        return Reply(
            text="".join(self._texts),
            blobs=tuple(self._blobs),
            finish_reason=self._reason,
            usage=self._usage,
            model=self._model,
            content=tuple(self._content),
            safety=self._safety,
            raw=RawReply(200, {}, b"".join(self._raw)) if self._raw else None,
        )


def told_again(reply: Reply, request_id: str) -> ReplyStream:
    """An answer that is there already, as a stream of one piece. Nothing needs to be given back."""
    piece = Chunk(
        text=reply.text,
        blobs=reply.blobs,
        finish_reason=reply.finish_reason,
        usage=reply.usage,
        model=reply.model,
        content=reply.content,
        safety=reply.safety,
        raw=b"" if reply.raw is None else reply.raw.body,
    )
    return ReplyStream(piece, _Nothing(), _Closed(), lambda outcome: outcome, request_id, "")


def in_form(call: Call, reply: Reply) -> Reply | ReplyStream:
    """A whole answer as the call wants it: as it is, or as a stream."""
    return told_again(reply, call.request_id) if call.operation is Operation.STREAM else reply


async def whole(stream: ReplyStream) -> Reply:
    """All of a streamed answer. Raises what reading it does; then nothing stays open."""
    gathered = Gathered()
    try:
        async for chunk in stream:
            gathered.add(chunk)
    finally:
        await stream.aclose()
    return gathered.reply()


class _Nothing:
    """No further pieces. No generator: see `Rest`."""

    async def __anext__(self) -> Chunk | Outcome:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Nothing is open."""


class _Closed:
    """An exchange that is over."""

    @property
    def status(self) -> int:
        return 200

    @property
    def headers(self) -> Mapping[str, str]:
        return {}

    async def read(self) -> bytes:
        return b""

    async def events(self) -> AsyncGenerator[Event]:
        none: tuple[Event, ...] = ()
        for event in none:
            yield event

    async def aclose(self) -> None:
        """Nothing is open."""
