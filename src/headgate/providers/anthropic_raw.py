"""Raw calls of the Anthropic API: passed on byte for byte, read only for what policy needs.

A refusal of the model is an answer here: its reader is told so by `stop_reason`. An error inside a 200,
and a stream that ends without `message_stop`, are failures here as elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import msgspec

from headgate.core.call import Blob, Call, Chunk, Operation, Raw, Reply, Usage, Weight
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Request
from headgate.policy.estimate import OVERHEAD, largest_media, media_tokens
from headgate.providers.anthropic_stream import no_answer
from headgate.providers.anthropic_usage import WireUsage, as_usage, merged
from headgate.providers.json_body import is_given
from headgate.providers.json_splice import with_member

__all__ = ["Asked", "chunks", "read", "request", "survey"]

_BYTES_PER_TOKEN = 4
"""Of JSON with English text. The estimator learns the rest by model."""

_MODEL = (("model",),)


class Asked(NamedTuple):
    """What a body asks for."""

    model: str
    streams: bool
    weight: Weight


class _Message(msgspec.Struct):
    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    messages: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()


_DECODE_MESSAGE = msgspec.json.Decoder(_Message)

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def survey(body: bytes) -> Asked:
    """What a body asks for, read in one pass.

    Raises `InvalidCallError` where it is no JSON object, or names no model: without one nobody can say
    whose quota it uses.
    """
    try:
        asked = _DECODE_MESSAGE.decode(body)
        weight = _weight(asked)
    except msgspec.ValidationError:
        raise InvalidCallError("The body is not a JSON object.") from None
    except _UNREADABLE:
        raise InvalidCallError("The body is not valid JSON.") from None
    if not isinstance(asked.model, str) or not asked.model:
        raise InvalidCallError("model: Field required")
    return Asked(asked.model, asked.stream is True, weight)


def _weight(asked: _Message) -> Weight:
    said = tuple(map(bytes, (asked.messages, asked.system, asked.tools)))
    size = sum(map(len, said))
    media: list[Blob] = []
    for text in said[:1]:
        if b'"base64"' in text:
            _collect(msgspec.json.decode(text), media)
    for blob in media:
        size -= len(blob.data) * 4 // 3  # as base64
    most = asked.max_tokens
    return Weight(
        tokens=OVERHEAD + max(0, size) // _BYTES_PER_TOKEN + sum(map(media_tokens, media)),
        ceiling=OVERHEAD + max(0, size) + sum(map(largest_media, media)),
        most_output=most if isinstance(most, int) and most > 0 else None,
        cached=any(b'"cache_control"' in text for text in said),
    )


def _collect(value: object, media: list[Blob]) -> None:
    """Every piece of media in a value. Of its bytes only the number matters."""
    if isinstance(value, dict):
        if value.get("type") == "base64" and isinstance(data := value.get("data"), str):
            kind = value.get("media_type")
            media.append(Blob(kind if isinstance(kind, str) else "", bytes(len(data) * 3 // 4)))
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _collect(inner, media)


def request(base_url: str, version: str, call: Call, raw: Raw, model: str) -> Request:
    """The caller's own bytes; only a model that goes by another name today is named so.

    Args:
        version: sent as `anthropic-version` where the caller names none.
    """
    body, headers = raw.body, raw.headers
    if model != raw.model and call.operation is not Operation.LIST:
        body = with_member(body, _MODEL, model)
    if "anthropic-version" not in headers:
        headers = {**headers, "anthropic-version": version}
    streams = call.operation is Operation.STREAM
    return Request(raw.method, base_url + raw.path, headers, body, streaming=streams)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


class _Seen(msgspec.Struct):
    """A message, a count, a list of models: what policy needs of any."""

    type: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: WireUsage | None = None
    input_tokens: int | None = None
    content: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _SeenEvent(msgspec.Struct):
    type: str | None = None
    message: _Seen | None = None
    delta: _Delta | None = None
    usage: WireUsage | None = None
    error: msgspec.Raw = msgspec.Raw()


_DECODE_SEEN = msgspec.json.Decoder(_Seen, strict=False)
_DECODE_EVENT = msgspec.json.Decoder(_SeenEvent, strict=False)


def read(call: Call, body: bytes) -> Reply | Outcome:
    """What policy needs of a 200, or why it is no answer."""
    try:
        seen = _DECODE_SEEN.decode(body)
    except _UNREADABLE:
        return no_answer(body)
    whole = is_given(seen.content) or call.operation is not Operation.GENERATE
    if seen.type == "error" or is_given(seen.error) or not whole:
        return no_answer(body)
    return Reply(
        finish_reason=seen.stop_reason,
        usage=as_usage(seen.usage),
        model=seen.model or "",
        tokens=max(0, seen.input_tokens or 0),
    )


async def chunks(events: AsyncGenerator[Event]) -> AsyncGenerator[Chunk | Outcome]:
    """The pieces of a stream with their bytes. Nothing is handed on before the model has said
    something: an error until then may be tried elsewhere."""
    reading, held, spoke = _Reading(), b"", False
    try:
        async for event in events:
            held += event.raw
            if event.is_filler or event.data == b"[DONE]":  # not Anthropic's; as good as a comment
                if not spoke:
                    continue
                item: Chunk | Outcome = Chunk()
            else:
                item = reading.take(event)
            if isinstance(item, Outcome):
                yield item
                return
            spoke = spoke or reading.spoke
            if spoke:
                yield msgspec.structs.replace(item, raw=held)
                held = b""
    finally:
        await events.aclose()
    if not reading.stopped:
        yield Outcome(Kind.PROTOCOL, "It ended without message_stop.", 200, usage=reading.usage)


_BEFORE_WORDS = frozenset(("message_start", "content_block_start", "ping"))


class _Reading:
    """What has been read of one stream.

    Attributes:
        spoke: whether the model has said anything.
        stopped: whether the upstream said that it was done.
        usage: tokens used so far, as far as is known.
    """

    def __init__(self) -> None:
        self.spoke = False
        self.stopped = False
        self.usage = Usage()
        self._wire = WireUsage()
        self._model = ""

    def take(self, event: Event) -> Chunk | Outcome:
        try:
            seen = _DECODE_EVENT.decode(event.data)
        except _UNREADABLE:
            return self._broken(event.data)
        if seen.type == "error" or is_given(seen.error) or not event.framed:
            return self._broken(event.data)
        if seen.message is not None:
            self._model = seen.message.model or ""
            self._count(seen.message.usage)
        if seen.usage is not None:
            self._count(seen.usage)
        self.spoke = self.spoke or seen.type not in _BEFORE_WORDS
        self.stopped = self.stopped or seen.type == "message_stop"
        stop = None if seen.delta is None else seen.delta.stop_reason
        return Chunk(finish_reason=stop, usage=self.usage, model=self._model)

    def _count(self, usage: WireUsage | None) -> None:
        self._wire = merged(self._wire, usage)
        self.usage = as_usage(self._wire)

    def _broken(self, data: bytes) -> Outcome:
        return msgspec.structs.replace(no_answer(data), usage=self.usage)
