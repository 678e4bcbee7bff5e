"""The OpenAI API's wire format, and that of upstreams compatible with it: chat completions, whole and
streamed, and embeddings.

Replies are read typed and tolerant: fields, choices and pieces that are not known here pass, and what
compatible upstreams leave out (usage, [DONE], ids) is done without. How answers are read is in
`openai_replies.py`, how streams are in `openai_stream.py`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping

from headgate.core.call import Blob, Call, Chunk, Key, Operation, Part, Reply, Role, Turn
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Request
from headgate.core.quota import Limit
from headgate.providers import (
    openai_errors,
    openai_limits,
    openai_raw,
    openai_replies,
    openai_stream,
)
from headgate.providers.json_body import Media, json_body

__all__ = ["CHAT_OPTIONS", "EMBEDDING_OPTIONS", "OpenAIProvider"]

CHAT_OPTIONS = (
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "n",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "verbosity",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "seed",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "moderation",
    "safety_identifier",
    "stream_options",
    "user",
    "functions",
    "function_call",
)
"""Options that travel in the body of a chat completion, under their own names (openai SDK 3.51.0)."""

EMBEDDING_OPTIONS = ("dimensions", "encoding_format", "user")
"""The same of an embedding."""

_MODEL_NAME = re.compile(r"[^\s\x00-\x1f]{1,256}")
_ROLES = {Role.USER: "user", Role.MODEL: "assistant"}
_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


class OpenAIProvider:
    """Writes and reads the OpenAI API.

    Args:
        base_url: everything before `/chat/completions`, such as `https://api.openai.com/v1`.
    """

    name = "openai"

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")

    # ── writing ─────────────────────────────────────────────────────────────────────────────────

    def write(self, call: Call, model: str) -> Request:
        """See `Provider.write`."""
        if call.raw is not None:
            return openai_raw.request(self._base_url, call, call.raw, model)
        if call.operation not in (Operation.GENERATE, Operation.STREAM, Operation.EMBED):
            raise InvalidCallError(
                "The OpenAI API does not count tokens: ask for an answer, and see what it used."
            )
        if not _MODEL_NAME.fullmatch(model):
            raise InvalidCallError(f"{model[:80]!r} is not the name of a model: it holds a blank.")
        embeds = call.operation is Operation.EMBED
        return Request(
            "POST",
            f"{self._base_url}/{'embeddings' if embeds else 'chat/completions'}",
            {"content-type": "application/json"},
            json_body(_embedding_body(call, model) if embeds else _chat_body(call, model)),
            streaming=call.operation is Operation.STREAM,
        )

    def credential(self, key: Key) -> Mapping[str, str]:
        """See `Provider.credential`."""
        return {"authorization": f"Bearer {key.value}"}

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def read(self, call: Call, body: bytes) -> Reply | Outcome:
        """See `Provider.read`."""
        if call.raw is not None:
            return openai_raw.read(call, body)
        if call.operation is Operation.EMBED:
            return openai_replies.read_embeddings(body, max(1, len(call.inputs)))
        return openai_replies.read_chat(body)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """See `Provider.read_error`."""
        return openai_errors.classify(status, headers, body)

    def named_limits(self, headers: Mapping[str, str]) -> tuple[Limit, ...]:
        """See `Provider.named_limits`."""
        return openai_limits.named_limits(headers)

    def chunks(
        self, events: AsyncGenerator[Event], *, raw: bool = False
    ) -> AsyncGenerator[Chunk | Outcome]:
        """See `Provider.chunks`. One that says neither why it stopped nor that it is done was cut."""
        return openai_raw.chunks(events) if raw else _chunks(events)


async def _chunks(events: AsyncGenerator[Event]) -> AsyncGenerator[Chunk | Outcome]:
    reading = openai_stream.Reading()
    try:
        async for event in events:
            for item in reading.take(event):
                yield item
                if isinstance(item, Outcome):
                    return
    finally:
        await events.aclose()
    if not reading.stopped:
        what = "It ended without saying why it stopped."
        yield Outcome(Kind.PROTOCOL, what, 200, usage=reading.usage)


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────────


def _chat_body(call: Call, model: str) -> dict[str, object]:
    options = dict(call.options)
    extra = options.pop("extra_body", None)
    asked = options.pop("stream_options", {})
    body: dict[str, object] = {"model": model, "messages": _messages(call), **options}
    if isinstance(extra, Mapping):
        body.update(extra)
    body.pop("stream", None)  # whether it streams is said by the call alone
    if call.operation is Operation.STREAM:
        body["stream"] = True
        if asked is not None:  # None is for upstreams that refuse to be asked
            body["stream_options"] = {
                "include_usage": True,
                **(asked if isinstance(asked, Mapping) else {}),
            }
    return body


def _embedding_body(call: Call, model: str) -> dict[str, object]:
    options = dict(call.options)
    extra = options.pop("extra_body", None)
    texts = [_text_of(parts) for parts in call.inputs or (call.parts,)]
    body: dict[str, object] = {
        "model": model,
        "input": texts if call.inputs else texts[0],
        "encoding_format": "base64",  # half the bytes, and what the vendor's own SDK asks for
        **options,
    }
    if isinstance(extra, Mapping):
        body.update(extra)
    return body


def _text_of(parts: tuple[Part, ...]) -> str:
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) != len(parts) or not any(texts):
        raise InvalidCallError("An embedding here takes text: pass some, and no image or other file.")
    return "\n".join(texts)


def _messages(call: Call) -> list[Mapping[str, object]]:
    if call.messages:
        return list(call.messages)
    turns = [_turn(turn) for turn in call.turns]
    if call.parts:
        turns.append({"role": "user", "content": _content(call.parts)})
    if not turns:
        raise InvalidCallError("The prompt is empty: pass some text, or a list of messages.")
    return turns


def _turn(turn: Turn) -> Mapping[str, object]:
    whole = [part for part in turn.parts if isinstance(part, Mapping) and "role" in part]
    if whole:  # a message in the upstream's own form, such as one with calls of tools
        return whole[0]
    return {"role": _ROLES[turn.role], "content": _content(turn.parts)}


def _content(parts: tuple[Part | Mapping[str, object], ...]) -> object:
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return "\n".join(texts)
    return [part if isinstance(part, Mapping) else _piece(part) for part in parts]


def _piece(part: Part) -> dict[str, object]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.mime_type
    linked = Media(part.data, f"data:{kind};base64,")
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": linked}}
    if kind in _AUDIO:
        sound = {"data": Media(part.data), "format": _AUDIO[kind]}
        return {"type": "input_audio", "input_audio": sound}
    if kind == "application/pdf":
        file = {"filename": "document.pdf", "file_data": linked}
        return {"type": "file", "file": file}
    return _unsendable(part)


def _unsendable(blob: Blob) -> dict[str, object]:
    raise InvalidCallError(
        f"Chat completions take images, WAV, MP3 and PDF; {blob.mime_type} cannot be sent. Pass its "
        "text instead."
    )
