"""Raw calls of the OpenAI API: passed on byte for byte, read only for what policy needs.

What was filtered or refused by the model is an answer here: its reader is told so by `finish_reason`.
An error inside a 200, and a stream that ends without saying why, are failures here as elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from headgate.core.call import Blob, Call, Chunk, Operation, Raw, Reply, Usage, Weight
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Request
from headgate.policy.estimate import OVERHEAD, largest_media, media_tokens
from headgate.providers.json_splice import with_member
from headgate.providers.openai_replies import hear, is_given, no_answer
from headgate.providers.openai_stream import DONE
from headgate.providers.openai_usage import read_usage

__all__ = ["Asked", "chunks", "read", "request", "survey"]

_BYTES_PER_TOKEN = 4
"""Of JSON with English text. The estimator learns the rest by model."""

_MODEL = (("model",),)
_DATA_URL = re.compile(rb'"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/=_-]*)"')
_MOST_ANSWERS = 128
_GENERATE, _STREAM = Operation.GENERATE, Operation.STREAM  # a member is a call to look up
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Asked(NamedTuple):
    """What a body asks for."""

    model: str
    streams: bool
    weight: Weight


class _Body(msgspec.Struct):
    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n: Any = None
    messages: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    response_format: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_DECODE_BODY = msgspec.json.Decoder(_Body)


def survey(body: bytes) -> Asked:
    """What a body asks for, read in one pass.

    Raises `InvalidCallError` where it is no JSON object, or names no model: without one nobody can say
    whose quota it uses.
    """
    try:
        asked = _DECODE_BODY.decode(body)
    except msgspec.ValidationError:
        raise InvalidCallError("The body is not a JSON object.") from None
    except _UNREADABLE:
        raise InvalidCallError("The body is not valid JSON.") from None
    if not isinstance(asked.model, str) or not asked.model:
        raise InvalidCallError("you must provide a model parameter")
    return Asked(asked.model, asked.stream is True, _weight(asked, body))


def _weight(asked: _Body, body: bytes) -> Weight:
    said = (asked.messages, asked.tools, asked.response_format, asked.input)
    size = sum(map(len, said))
    media: list[Blob] = []
    if body.find(b'"data:') >= 0:  # `in` first takes it for a number: an error made and forgotten
        for found in _DATA_URL.finditer(bytes(asked.messages)):
            media.append(Blob(found[1].decode(), bytes(len(found[2]) * 3 // 4)))
            size -= len(found[0])
    most = 0
    for bound in (asked.max_completion_tokens, asked.max_tokens):
        if isinstance(bound, int) and bound > most:
            most = bound
    times = min(asked.n, _MOST_ANSWERS) if isinstance(asked.n, int) and asked.n > 0 else 1
    return Weight(
        tokens=OVERHEAD + max(0, size) // _BYTES_PER_TOKEN + sum(map(media_tokens, media)),
        ceiling=OVERHEAD + max(0, size) + sum(map(largest_media, media)),
        most_output=most * times or None,
        answers=times,
    )


def request(base_url: str, call: Call, raw: Raw, model: str) -> Request:
    """The caller's own bytes; only a model that goes by another name today is named so.

    The base URL ends with the version that callers' paths begin with.
    """
    path, body = raw.path.removeprefix("/v1"), raw.body
    if model != raw.model and call.operation is not Operation.LIST:
        body = with_member(body, _MODEL, model)
    streams = call.operation is _STREAM
    return Request(raw.method, base_url + path, raw.headers, body, streaming=streams)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


def read(call: Call, body: bytes) -> Reply | Outcome:
    """What policy needs of a 200, or why it is no answer."""
    heard = hear(body)
    if isinstance(heard, Outcome):
        return heard
    if call.operation is _GENERATE and not heard.answers:
        return no_answer(body)
    return Reply(finish_reason=heard.finish_reason, usage=heard.usage or Usage(), model=heard.model)


async def chunks(events: AsyncGenerator[Event]) -> AsyncGenerator[Chunk | Outcome]:
    """The pieces of a stream with their bytes. Nothing is handed on before the model has said
    something: an error until then may be tried elsewhere."""
    reading, held, spoke = _Reading(), b"", False
    try:
        async for event in events:
            held += event.raw
            item = reading.take(event)
            if isinstance(item, Outcome):
                yield item
                return
            spoke = spoke or reading.spoke
            if spoke:
                yield structs.replace(item, raw=held)
                held = b""
    finally:
        await events.aclose()
    if not reading.stopped:
        what = "It ended without saying why it stopped."
        yield Outcome(Kind.PROTOCOL, what, 200, usage=reading.usage)


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: dict[str, msgspec.Raw] | None = None
    finish_reason: str | None = None


class _Piece(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_DECODE_PIECE = msgspec.json.Decoder(_Piece, strict=False)
_NOTHING_SAID = (b"null", b'""', b"[]", b"{}")


class _Reading:
    """What has been read of one stream.

    Attributes:
        spoke: whether the model has said anything.
        usage: tokens used so far, as far as they are known; None where none was named.
    """

    def __init__(self) -> None:
        self.spoke = False
        self.usage: Usage | None = None
        self._done = False
        self._open: set[int] = set()
        self._finished: set[int] = set()

    @property
    def stopped(self) -> bool:
        """Whether the upstream said that it was done: by its last word, or for each choice."""
        return self._done or (bool(self._finished) and not self._open - self._finished)

    def take(self, event: Event) -> Chunk | Outcome:
        """What policy needs of an event."""
        data = event.data.strip()
        if data == DONE:
            self._done = self.spoke = True
        if not data or self._done:
            return Chunk()
        try:
            piece = _DECODE_PIECE.decode(data)
        except _UNREADABLE:
            return self._broken(data)
        if is_given(piece.error) or not event.framed:
            return self._broken(data)
        self.usage = read_usage(piece.usage) or self.usage
        stop = None
        for choice in piece.choices or ():
            self._note(choice)
            if not choice.index:
                stop = stop or choice.finish_reason or None
        return Chunk(finish_reason=stop, usage=self.usage, model=piece.model or "")

    def _note(self, choice: _Choice) -> None:
        index = choice.index or 0
        self._open.add(index)
        if choice.finish_reason:
            self._finished.add(index)
            self.spoke = True
        if not self.spoke and choice.delta:
            said = (raw for name, raw in choice.delta.items() if name != "role")
            self.spoke = any(bytes(raw) not in _NOTHING_SAID for raw in said)

    def _broken(self, data: bytes) -> Outcome:
        return structs.replace(no_answer(data), usage=self.usage)
