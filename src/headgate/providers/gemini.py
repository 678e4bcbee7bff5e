"""The Gemini API's wire format (v1beta), as far as the engine asks it.

Requests are written in lowerCamelCase, replies are read typed and tolerant: unknown fields and enum
values never fail a call. Which fields exist is Google's API description, revision 20260816.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Mapping

import msgspec

from headgate.core.call import (
    Blob,
    Call,
    Chunk,
    Key,
    Operation,
    Part,
    Reply,
    SafetyRating,
    Usage,
)
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Request
from headgate.core.quota import Limit
from headgate.providers import gemini_errors
from headgate.providers.json_body import json_body

__all__ = ["EMBED_OPTIONS", "GENERATE_OPTIONS", "TOP_LEVEL_OPTIONS", "GeminiProvider"]

API_VERSION = "v1beta"  # a superset of v1: cached contents and JSON schema in tools are only here

GENERATE_OPTIONS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_output_tokens": "maxOutputTokens",
    "stop_sequences": "stopSequences",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "response_mime_type": "responseMimeType",
    "response_schema": "responseSchema",
    "response_json_schema": "responseJsonSchema",
    "response_modalities": "responseModalities",
    "thinking_config": "thinkingConfig",
    "image_config": "imageConfig",
}
"""Options that travel inside `generationConfig`, under their wire names."""

TOP_LEVEL_OPTIONS: Mapping[str, str] = {
    "system_instruction": "systemInstruction",
    "safety_settings": "safetySettings",
    "tools": "tools",
    "tool_config": "toolConfig",
}
"""Options that stand beside `generationConfig`, under their wire names."""

EMBED_OPTIONS: Mapping[str, str] = {
    "task_type": "taskType",
    "title": "title",
    "output_dimensionality": "outputDimensionality",
}
"""Options of an embedding, under their wire names."""

# Stops that withhold the answer. Any other, known or new, is taken by what came with it.
_BLOCKED_STOPS = frozenset(
    (
        "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
        "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "PUP_LIMITED_DISABLED",
    )
)  # fmt: skip


# What may be left out may also be null: proxies write it so.
class _InlineData(msgspec.Struct, rename="camel"):
    mime_type: str = ""
    data: str = ""


class _WirePart(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    inline_data: _InlineData | None = None
    function_call: dict[str, object] | None = None
    thought_signature: str | None = None


class _Content(msgspec.Struct):
    parts: list[_WirePart] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    safety_ratings: list[SafetyRating] | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _UsageMetadata(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None


class _Generated(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _UsageMetadata | None = None
    model_version: str | None = None
    error: msgspec.Raw | None = None


class _Embedding(msgspec.Struct):
    values: list[float] = []


class _Embedded(msgspec.Struct, rename="camel"):
    embedding: _Embedding = msgspec.field(default_factory=_Embedding)
    usage_metadata: _UsageMetadata | None = None
    error: msgspec.Raw | None = None


class _Count(msgspec.Struct, rename="camel"):
    total_tokens: int


# A caller names the model, and its name is part of the URL.
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")

_STANDARD_ALPHABET = str.maketrans("-_", "+/")

# What decoding raises for bytes that are no answer; the last for one that is nested without end.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_DECODE_GENERATED = msgspec.json.Decoder(_Generated, strict=False)
_DECODE_COUNT = msgspec.json.Decoder(_Count, strict=False)
_DECODE_EMBEDDED = msgspec.json.Decoder(_Embedded, strict=False)


class GeminiProvider:
    """Writes and reads the Gemini API.

    Args:
        base_url: scheme and host, without a path.
    """

    name = "gemini"

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")

    # ── writing ─────────────────────────────────────────────────────────────────────────────────

    def write(self, call: Call, model: str) -> Request:
        """See `Provider.write`."""
        if not call.parts and not call.turns:
            raise InvalidCallError("The prompt is empty: pass some text, or an image with a question.")
        if not _MODEL_NAME.fullmatch(model):
            raise InvalidCallError(
                f"{model[:80]!r} is not the name of a model: only letters, digits and `._@-` are."
            )
        embed = call.operation is Operation.EMBED
        body = _embed_body(call, model) if embed else _generate_body(call)
        if call.operation is Operation.COUNT:  # this form alone counts system_instruction and tools
            body = {"generateContentRequest": {"model": f"models/{model}", **body}}
        return Request(
            "POST",
            f"{self._base_url}/{API_VERSION}/models/{model}:{_METHODS[call.operation]}",
            {"content-type": "application/json"},
            json_body(body),
            streaming=call.operation is Operation.STREAM,
        )

    def credential(self, key: Key) -> Mapping[str, str]:
        """See `Provider.credential`."""
        return {"x-goog-api-key": key.value}

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def read(self, call: Call, body: bytes) -> Reply | Outcome:
        """See `Provider.read`."""
        try:
            if call.operation is Operation.EMBED:
                embedded = _DECODE_EMBEDDED.decode(body)
                return _no_answer(body) if embedded.error else _embed_reply(embedded, call.model)
            if call.operation is Operation.COUNT:
                return Reply(tokens=max(0, _DECODE_COUNT.decode(body).total_tokens))
            generated = _DECODE_GENERATED.decode(body)
            return _no_answer(body) if generated.error else _generate_reply(generated)
        except _UNREADABLE:
            return _no_answer(body)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """See `Provider.read_error`."""
        return gemini_errors.classify(status, headers, body)

    def named_limits(self, headers: Mapping[str, str]) -> tuple[Limit, ...]:  # noqa: ARG002 - the port
        """See `Provider.named_limits`. Gemini names its limits in refusals only."""
        return ()

    async def chunks(self, events: AsyncGenerator[Event]) -> AsyncGenerator[Chunk | Outcome]:
        """See `Provider.chunks`. A stream without a finish reason was cut, however quietly it ended."""
        stopped, empty, usage = False, True, Usage()
        try:
            async for event in events:
                if event.data == b"[DONE]":
                    continue  # not Gemini's, but proxies add it after the end
                item = _read_event(event)
                if isinstance(item, Outcome):
                    yield item
                    return
                usage = item.usage or usage
                stopped = stopped or item.finish_reason is not None
                empty = empty and not item.text and not item.blobs and not item.content
                yield item
                if (withheld := _withheld(item.finish_reason, "", usage)) is not None:
                    yield withheld
                    return
        finally:
            await events.aclose()
        if not stopped:
            yield Outcome(Kind.PROTOCOL, "It ended without saying why it stopped.", 200, usage=usage)
        elif empty:
            yield Outcome(Kind.BLOCKED, "The answer is empty.", 200, usage=usage)


_METHODS = {
    Operation.GENERATE: "generateContent",
    Operation.STREAM: "streamGenerateContent?alt=sse",
    Operation.EMBED: "embedContent",
    Operation.COUNT: "countTokens",
}


def _generate_body(call: Call) -> dict[str, object]:
    contents = [{"role": turn.role.value, "parts": _parts(turn.parts)} for turn in call.turns]
    if call.parts:
        contents.append({"role": "user", "parts": _parts(call.parts)})
    body: dict[str, object] = {"contents": contents}
    config: dict[str, object] = {}
    for name, value in call.options.items():
        if name in GENERATE_OPTIONS:
            config[GENERATE_OPTIONS[name]] = value
        elif name == "system_instruction" and isinstance(value, str):
            body["systemInstruction"] = {"parts": [{"text": value}]}
        else:
            body[TOP_LEVEL_OPTIONS[name]] = value
    if config:
        body["generationConfig"] = config
    return body


def _embed_body(call: Call, model: str) -> dict[str, object]:
    body: dict[str, object] = {"model": f"models/{model}", "content": {"parts": _parts(call.parts)}}
    body.update({EMBED_OPTIONS[name]: value for name, value in call.options.items()})
    return body


def _parts(parts: tuple[Part | Mapping[str, object], ...]) -> list[Mapping[str, object]]:
    return [{"text": part} if isinstance(part, str) else _wire_part(part) for part in parts]


def _wire_part(part: Blob | Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(part, Blob):
        return part
    return {"inlineData": {"mimeType": part.mime_type, "data": b64encode(part.data).decode()}}


def _read_event(event: Event) -> Chunk | Outcome:
    try:
        generated = _DECODE_GENERATED.decode(event.data)
    except _UNREADABLE:
        return _no_answer(event.data)
    if generated.error or not event.framed:
        return _no_answer(event.data)
    if (blocked := _blocked_prompt(generated)) is not None:
        return blocked
    candidate = generated.candidates[0] if generated.candidates else _Candidate()
    text, blobs, calls = _contents(candidate)
    usage = None if generated.usage_metadata is None else _usage(generated.usage_metadata)
    return Chunk(
        text,
        blobs,
        candidate.finish_reason,
        usage,
        generated.model_version or "",
        calls,
        tuple(candidate.safety_ratings or ()),
    )


def _generate_reply(generated: _Generated) -> Reply | Outcome:
    if (blocked := _blocked_prompt(generated)) is not None:
        return blocked
    usage = _usage(generated.usage_metadata)
    if not generated.candidates:
        return Outcome(
            Kind.PROTOCOL, "The answer holds no candidate and no reason for it.", 200, usage=usage
        )
    candidate = generated.candidates[0]
    withheld = _withheld(candidate.finish_reason, candidate.finish_message, usage)
    if withheld is not None:
        return withheld
    text, blobs, calls = _contents(candidate)
    if not text and not blobs and not calls:
        why = candidate.finish_message or f"finish reason {candidate.finish_reason}"
        return Outcome(Kind.BLOCKED, f"The answer is empty ({why}).", 200, usage=usage)
    return Reply(
        text=text,
        blobs=blobs,
        finish_reason=candidate.finish_reason,
        usage=usage,
        model=generated.model_version or "",
        content=calls,
        safety=tuple(candidate.safety_ratings or ()),
    )


def _embed_reply(embedded: _Embedded, model: str) -> Reply | Outcome:
    if not embedded.embedding.values:
        return Outcome(Kind.PROTOCOL, "The answer holds no vector.", 200)
    usage = _usage(embedded.usage_metadata)
    return Reply(vector=tuple(embedded.embedding.values), usage=usage, model=model)


def _contents(
    candidate: _Candidate,
) -> tuple[str, tuple[Blob, ...], tuple[Mapping[str, object], ...]]:
    """Text, media, and the function calls as they came: their signatures must be sent back."""
    content = candidate.content or _Content()
    parts = [part for part in content.parts or () if not part.thought]
    blobs, calls = [], []
    for part in parts:
        if part.function_call is not None:
            calls.append(_function_call(part.function_call, part.thought_signature))
        if part.inline_data is not None:
            try:
                blobs.append(Blob(part.inline_data.mime_type, _bytes(part.inline_data.data)))
            except ValueError as error:
                raise msgspec.DecodeError("inline data is not base64") from error
    return "".join(part.text or "" for part in parts), tuple(blobs), tuple(calls)


def _function_call(call: dict[str, object], signature: str | None) -> Mapping[str, object]:
    if signature is None:
        return {"functionCall": call}
    return {"functionCall": call, "thoughtSignature": signature}


def _bytes(text: str) -> bytes:
    """Bytes in proto3 JSON: base64 in either alphabet, padded or not. Raises `ValueError`."""
    standard = text.translate(_STANDARD_ALPHABET)
    return b64decode(standard + "=" * (-len(standard) % 4), validate=True)


def _blocked_prompt(generated: _Generated) -> Outcome | None:
    feedback = generated.prompt_feedback
    if generated.candidates or feedback is None or feedback.block_reason is None:
        return None
    usage = _usage(generated.usage_metadata)
    return Outcome(Kind.BLOCKED, f"The prompt was blocked: {feedback.block_reason}.", 200, usage=usage)


def _withheld(finish_reason: str | None, message: str | None, usage: Usage) -> Outcome | None:
    if finish_reason not in _BLOCKED_STOPS:
        return None
    why = f" ({message})" if message else ""
    said = f"The answer was withheld: {finish_reason}{why}."
    return Outcome(Kind.BLOCKED, said, 200, usage=usage, detail=gemini_errors.detail(finish_reason))


def _no_answer(body: bytes) -> Outcome:
    """What a 200 means that holds no answer: an error in disguise, or nothing of this API."""
    if (failed := gemini_errors.classify_body(body)) is not None:
        return failed
    start = " ".join(body[:120].decode("utf-8", "replace").split())
    return Outcome(Kind.PROTOCOL, f"It begins: {start or '(nothing)'}.", 200)


def _usage(wire: _UsageMetadata | None) -> Usage:
    if wire is None:
        return Usage()
    return Usage(
        prompt=max(0, wire.prompt_token_count or 0),
        output=max(0, wire.candidates_token_count or 0),
        thoughts=max(0, wire.thoughts_token_count or 0),
        cached=max(0, wire.cached_content_token_count or 0),
        tool_prompt=max(0, wire.tool_use_prompt_token_count or 0),
    )
