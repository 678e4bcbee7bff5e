"""The Gemini API's wire format (v1beta), as far as the engine asks it.

Requests are written in lowerCamelCase, replies are read typed and tolerant: unknown fields and enum
values never fail a call. Which fields exist is Google's API description, revision 20260816.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping

import msgspec

from headgate.core.call import (
    Blob,
    Call,
    Chunk,
    Key,
    Operation,
    Reply,
    SafetyRating,
    Usage,
)
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Request
from headgate.core.quota import Limit
from headgate.providers import gemini_errors, gemini_raw
from headgate.providers.gemini_embeddings import (
    EMBED_OPTIONS,
    embed_body,
    embed_method,
    read_embedded,
)
from headgate.providers.gemini_parts import wire_parts
from headgate.providers.gemini_usage import UsageMetadata, as_usage
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


class _Generated(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str | None = None
    error: msgspec.Raw | None = None


class _Count(msgspec.Struct, rename="camel"):
    total_tokens: int


# A caller names the model, and its name is part of the URL.
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")

_STANDARD_ALPHABET = str.maketrans("-_", "+/")

_DECODE_GENERATED = msgspec.json.Decoder(_Generated, strict=False)
_DECODE_COUNT = msgspec.json.Decoder(_Count, strict=False)


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
        if call.raw is not None:
            return gemini_raw.request(self._base_url, call, call.raw, model)
        if not call.parts and not call.turns and not call.inputs:
            raise InvalidCallError("The prompt is empty: pass some text, or an image with a question.")
        if not _MODEL_NAME.fullmatch(model):
            raise InvalidCallError(
                f"{model[:80]!r} is not the name of a model: only letters, digits and `._@-` are."
            )
        embed = call.operation is Operation.EMBED
        method = embed_method(call) if embed else _METHODS[call.operation]
        body = embed_body(call, model) if embed else _generate_body(call)
        if call.operation is Operation.COUNT:  # this form alone counts system_instruction and tools
            body = {"generateContentRequest": {"model": f"models/{model}", **body}}
        return Request(
            "POST",
            f"{self._base_url}/{API_VERSION}/models/{model}:{method}",
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
        if call.raw is not None:
            return gemini_raw.read(call, body)
        try:
            if call.operation is Operation.EMBED:
                return read_embedded(call, body) or gemini_errors.no_answer(body)
            if call.operation is Operation.COUNT:
                return Reply(tokens=max(0, _DECODE_COUNT.decode(body).total_tokens))
            generated = _DECODE_GENERATED.decode(body)
            return gemini_errors.no_answer(body) if generated.error else _generate_reply(generated)
        except gemini_errors.UNREADABLE:
            return gemini_errors.no_answer(body)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """See `Provider.read_error`."""
        return gemini_errors.classify(status, headers, body)

    def named_limits(self, headers: Mapping[str, str]) -> tuple[Limit, ...]:  # noqa: ARG002 - the port
        """See `Provider.named_limits`. Gemini names its limits in refusals only."""
        return ()

    def chunks(
        self, events: AsyncGenerator[Event], *, raw: bool = False
    ) -> AsyncGenerator[Chunk | Outcome]:
        """See `Provider.chunks`. A stream without a finish reason was cut, however quietly it ended."""
        return gemini_raw.chunks(events) if raw else self._chunks(events)

    async def _chunks(self, events: AsyncGenerator[Event]) -> AsyncGenerator[Chunk | Outcome]:
        stopped, empty, usage = False, True, Usage()
        try:
            async for event in events:
                if event.data == b"[DONE]" or event.is_filler:
                    continue  # the first is not Gemini's, but proxies add it after the end
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
    Operation.COUNT: "countTokens",
}


def _generate_body(call: Call) -> dict[str, object]:
    contents = [{"role": turn.role.value, "parts": wire_parts(turn.parts)} for turn in call.turns]
    if call.parts:
        contents.append({"role": "user", "parts": wire_parts(call.parts)})
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


def _read_event(event: Event) -> Chunk | Outcome:
    try:
        generated = _DECODE_GENERATED.decode(event.data)
    except gemini_errors.UNREADABLE:
        return gemini_errors.no_answer(event.data)
    if generated.error or not event.framed:
        return gemini_errors.no_answer(event.data)
    if (blocked := _blocked_prompt(generated)) is not None:
        return blocked
    candidate = generated.candidates[0] if generated.candidates else _Candidate()
    text, blobs, calls = _contents(candidate)
    usage = None if generated.usage_metadata is None else as_usage(generated.usage_metadata)
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
    usage = as_usage(generated.usage_metadata)
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


def _contents(
    candidate: _Candidate,
) -> tuple[str, tuple[Blob, ...], tuple[Mapping[str, object], ...]]:
    """Text, media, and the function calls as they came: their signatures must be sent back."""
    parts = () if candidate.content is None else candidate.content.parts or ()
    texts, blobs, calls = [], [], []
    for part in parts:
        if part.thought:
            continue
        if part.text:
            texts.append(part.text)
        if part.function_call is not None:
            calls.append(_function_call(part.function_call, part.thought_signature))
        if part.inline_data is not None:
            try:
                blobs.append(Blob(part.inline_data.mime_type, _bytes(part.inline_data.data)))
            except ValueError as error:
                raise msgspec.DecodeError("inline data is not base64") from error
    return "".join(texts), tuple(blobs), tuple(calls)


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
    usage = as_usage(generated.usage_metadata)
    return Outcome(Kind.BLOCKED, f"The prompt was blocked: {feedback.block_reason}.", 200, usage=usage)


def _withheld(finish_reason: str | None, message: str | None, usage: Usage) -> Outcome | None:
    if finish_reason not in _BLOCKED_STOPS:
        return None
    why = f" ({message})" if message else ""
    said = f"The answer was withheld: {finish_reason}{why}."
    return Outcome(Kind.BLOCKED, said, 200, usage=usage, detail=gemini_errors.detail(finish_reason))
