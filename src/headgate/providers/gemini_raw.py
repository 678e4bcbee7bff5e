"""Raw calls of the Gemini API: passed on byte for byte, read only for what policy needs.

What was withheld, blocked or cut at the token limit is an answer here: its reader is told so in
Google's own words. What is no answer at all – an error inside a 200, a stream that ends without saying
why – is a failure here as elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from headgate.core.call import Blob, Call, Chunk, Operation, Raw, Reply, Usage, Weight
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Request
from headgate.policy.estimate import OVERHEAD, largest_media, media_tokens
from headgate.providers import gemini_errors
from headgate.providers.gemini_usage import UsageMetadata, as_usage
from headgate.providers.json_body import is_given
from headgate.providers.json_splice import with_member

__all__ = ["chunks", "named", "read", "request", "weigh"]

_BYTES_PER_TOKEN = 4
"""Of JSON with English text; Google's own rule of thumb. The estimator learns the rest by model."""

_MOST_ANSWERS = 128

# A member of an enum costs as much as a call to look up.
_EMBED, _GENERATE, _STREAM = Operation.EMBED, Operation.GENERATE, Operation.STREAM

_MODELS_IN_BODY = (
    ("model",),
    ("generateContentRequest", "model"),
    ("generate_content_request", "model"),
    ("requests", "*", "model"),
)

# ── what a call weighs ──────────────────────────────────────────────────────────────────────────
# Both casings are read, also mixed in one body: the official SDK sends them so.


class _Config(msgspec.Struct):
    camel: Any = msgspec.field(default=None, name="maxOutputTokens")
    snake: Any = msgspec.field(default=None, name="max_output_tokens")
    candidates: Any = msgspec.field(default=None, name="candidateCount")
    candidates_snake: Any = msgspec.field(default=None, name="candidate_count")


class _Generate(msgspec.Struct):
    contents: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="systemInstruction")
    system_snake: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="system_instruction")
    tools: msgspec.Raw = msgspec.Raw()
    config: _Config | None = msgspec.field(default=None, name="generationConfig")
    config_snake: _Config | None = msgspec.field(default=None, name="generation_config")


class _Batch(msgspec.Struct):
    requests: list[msgspec.Raw] = []


_DECODE_GENERATE = msgspec.json.Decoder(_Generate)
_DECODE_BATCH = msgspec.json.Decoder(_Batch)
_DECODE_ANY = msgspec.json.Decoder()
_DECODE_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def weigh(operation: Operation, body: bytes) -> Weight:
    """What quotas count of a body, read in one pass.

    Raises `InvalidCallError` where it is no JSON object. A body of another shape than the API's is
    weighed by its length: refusing it is the upstream's.
    """
    try:
        if operation is _EMBED:
            texts = _DECODE_BATCH.decode(body).requests
            return _weight(body, None, requests=max(1, len(texts)))
        return _said(_DECODE_GENERATE.decode(body))
    except msgspec.ValidationError:
        return _misshapen(body)
    except gemini_errors.UNREADABLE:
        raise InvalidCallError("The body is not valid JSON.") from None


def _said(asked: _Generate) -> Weight:
    # Of two that are named the larger: which one counts is the upstream's.
    most, answers = 0, 1
    for config in (asked.config, asked.config_snake):
        if config is None:
            continue
        for bound in (config.camel, config.snake):
            if isinstance(bound, int) and bound > most:
                most = bound
        for count in (config.candidates, config.candidates_snake):
            if count is not None:
                answers = max(answers, min(_whole(count), _MOST_ANSWERS))
    said = (asked.contents, asked.system, asked.system_snake, asked.tools)
    weight = _weight(b"\n".join(said), most * answers or None)
    return weight if answers == 1 else msgspec.structs.replace(weight, answers=answers)


def _whole(value: object) -> int:
    """A number as proto3 takes it, in digits or as a text of digits; 0 for anything else."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 5:
        return int(value)
    return value if type(value) is int else 0


def _misshapen(body: bytes) -> Weight:
    try:
        _DECODE_OBJECT.decode(body)
    except gemini_errors.UNREADABLE:
        raise InvalidCallError("The body is not a JSON object.") from None
    return _weight(body, None)


def _weight(said: bytes, most: int | None, *, requests: int = 1) -> Weight:
    """Args: `said`: JSON texts, one after the other."""
    size = len(said)
    if said.find(b"inlineData") < 0 and said.find(b"inline_data") < 0:  # as in `named`
        return Weight(requests, OVERHEAD + size // _BYTES_PER_TOKEN, OVERHEAD + size, most)
    media: list[Blob] = []
    _collect(_DECODE_ANY.decode_lines(said), media)
    for blob in media:
        size -= len(blob.data) * 4 // 3  # as base64
    return Weight(
        requests,
        OVERHEAD + max(0, size) // _BYTES_PER_TOKEN + sum(map(media_tokens, media)),
        OVERHEAD + max(0, size) + sum(map(largest_media, media)),
        most,
    )


def _collect(value: object, media: list[Blob]) -> None:
    """Every piece of media in a value. Of its bytes only the number matters."""
    if isinstance(value, dict):
        for name in ("inlineData", "inline_data"):
            inline = value.get(name)
            if isinstance(inline, dict):
                kind = inline.get("mimeType") or inline.get("mime_type")
                data = inline.get("data")
                size = len(data) * 3 // 4 if isinstance(data, str) else 0
                media.append(Blob(kind if isinstance(kind, str) else "", bytes(size)))
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _collect(inner, media)


# ── what a call names ───────────────────────────────────────────────────────────────────────────

_NAMING = ("fileUri", "file_uri", "cachedContent", "cached_content")
_NAMING_BYTES = tuple(name.encode() for name in _NAMING)
_NAME = re.compile(r"(?:.*/)?((?:files|cachedContents)/[A-Za-z0-9_-]+)")


def named(body: bytes) -> tuple[str, ...]:
    """The files and caches of the API that a body names, each once: they belong to one project. Other
    addresses, as of videos elsewhere, belong to none. `body` is valid JSON."""
    for name in _NAMING_BYTES:  # a pattern takes five times as long, and this is on every call's path
        if body.find(name) >= 0:  # `in` first takes it for a number: an error made and forgotten
            break
    else:
        return ()
    found: dict[str, None] = {}
    _collect_names(msgspec.json.decode(body), found)
    return tuple(found)


def _collect_names(value: object, found: dict[str, None]) -> None:
    if isinstance(value, dict):
        for name in _NAMING:
            text = value.get(name)
            if isinstance(text, str) and (match := _NAME.fullmatch(text)):
                found[match[1]] = None
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _collect_names(inner, found)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────


def request(base_url: str, call: Call, raw: Raw, model: str) -> Request:
    """The caller's own bytes; only a model that goes by another name today is named so."""
    path, body = raw.path, raw.body
    if model != raw.model and call.operation is not Operation.LIST:
        path = path.replace(f"/models/{raw.model}:", f"/models/{model}:", 1)
        if b'model"' in body:
            body = with_member(body, _MODELS_IN_BODY, f"models/{model}")
    streams = call.operation is _STREAM
    return Request(raw.method, base_url + path, raw.headers, body, streaming=streams)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


class _Candidate(msgspec.Struct):
    reason: str | None = msgspec.field(default=None, name="finishReason")


class _Feedback(msgspec.Struct):
    reason: str | None = msgspec.field(default=None, name="blockReason")


class _Seen(msgspec.Struct):
    candidates: list[_Candidate] | None = None
    feedback: _Feedback | None = msgspec.field(default=None, name="promptFeedback")
    usage: UsageMetadata | None = msgspec.field(default=None, name="usageMetadata")
    model: str | None = msgspec.field(default=None, name="modelVersion")
    error: msgspec.Raw = msgspec.Raw()

    @property
    def stop(self) -> str | None:
        """Why it ended, in Google's words; None where it says nothing of it."""
        if self.candidates:
            return self.candidates[0].reason
        return None if self.feedback is None else self.feedback.reason


class _Other(msgspec.Struct):
    """An embedding, a count, a list of models, a file. That a file failed, and why, is an answer: it
    alone has a state."""

    state: msgspec.Raw = msgspec.Raw()
    usage: UsageMetadata | None = msgspec.field(default=None, name="usageMetadata")
    tokens: int | None = msgspec.field(default=None, name="totalTokens")
    error: msgspec.Raw = msgspec.Raw()


_DECODE_SEEN = msgspec.json.Decoder(_Seen, strict=False)
_DECODE_OTHER = msgspec.json.Decoder(_Other, strict=False)


def read(call: Call, body: bytes) -> Reply | Outcome:
    """What policy needs of a 200, or why it is no answer."""
    try:
        if call.operation is not _GENERATE:
            return _other(call, body)
        seen = _DECODE_SEEN.decode(body)
    except gemini_errors.UNREADABLE:
        return gemini_errors.no_answer(body)
    if is_given(seen.error):
        return gemini_errors.no_answer(body)
    usage = as_usage(seen.usage)
    if not seen.candidates and seen.stop is None:
        what = "The answer holds no candidate and no reason for it."
        return Outcome(Kind.PROTOCOL, what, 200, usage=usage)
    return Reply(finish_reason=seen.stop, usage=usage, model=seen.model or "")


def _other(call: Call, body: bytes) -> Reply | Outcome:
    if not body and call.operation is Operation.LIST:
        return Reply()  # of an upload: all there is to say stands in the headers
    other = _DECODE_OTHER.decode(body)
    if is_given(other.error) and not is_given(other.state):
        return gemini_errors.no_answer(body)
    return Reply(usage=as_usage(other.usage), tokens=max(0, other.tokens or 0), model=call.model)


async def chunks(events: AsyncGenerator[Event]) -> AsyncGenerator[Chunk | Outcome]:
    """The pieces of a stream with their bytes. One that ends without a finish reason was cut."""
    begun, stopped, usage, held = False, False, Usage(), b""
    try:
        async for event in events:
            if event.is_filler or event.data == b"[DONE]":  # not Gemini's; as good as a comment
                if begun:
                    yield Chunk(raw=event.raw)
                else:
                    held += event.raw
                continue
            item = _piece(event, held)
            if isinstance(item, Outcome):
                yield item
                return
            begun, held = True, b""
            usage = item.usage or usage
            stopped = stopped or item.finish_reason is not None
            yield item
    finally:
        await events.aclose()
    if not stopped:
        yield Outcome(Kind.PROTOCOL, "It ended without saying why it stopped.", 200, usage=usage)


def _piece(event: Event, held: bytes) -> Chunk | Outcome:
    try:
        seen = _DECODE_SEEN.decode(event.data)
    except gemini_errors.UNREADABLE:
        return gemini_errors.no_answer(event.data)
    if is_given(seen.error) or not event.framed:
        return gemini_errors.no_answer(event.data)
    usage = None if seen.usage is None else as_usage(seen.usage)
    return Chunk(finish_reason=seen.stop, usage=usage, model=seen.model or "", raw=held + event.raw)
