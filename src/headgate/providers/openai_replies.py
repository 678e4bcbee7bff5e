"""Answers of the OpenAI API: what policy needs of one, and the whole of it.

What policy needs (did it answer, why did it stop, what did it use) is read by `hear` alone, so that
whoever passes an answer on as it came need not build a reply of it.
"""

from __future__ import annotations

import binascii
import struct
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from headgate.core.call import Reply, Usage
from headgate.core.outcome import Detail, Kind, Outcome
from headgate.providers import openai_errors
from headgate.providers.openai_usage import read_usage

__all__ = [
    "Heard",
    "hear",
    "is_given",
    "no_answer",
    "read_chat",
    "read_embeddings",
    "text_of",
    "withheld",
]

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FLOAT = 4
"""Bytes of a number in a vector that is written in base64: float32, little-endian."""


class Heard(Struct, frozen=True):
    """What policy needs of an answer. `answers` counts its choices: an embedding has none."""

    usage: Usage | None = None
    model: str = ""
    finish_reason: str | None = None
    upstream_id: str = ""
    answers: int = 0


# What may be left out may also be null: proxies write it so.
class _Choice(Struct):
    index: int | None = None
    message: dict[str, Any] | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Completion(Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Vector(Struct):
    embedding: str | list[float]
    index: int | None = None


class _Embeddings(Struct):
    data: list[_Vector] | None = None
    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Bare(Struct):
    """Only what policy needs; the rest of the bytes is skipped."""

    id: str | None = None
    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    choices: list[_Stop] | None = None


class _Stop(Struct):
    index: int | None = None
    finish_reason: str | None = None


_DECODE_COMPLETION = msgspec.json.Decoder(_Completion, strict=False)
_DECODE_EMBEDDINGS = msgspec.json.Decoder(_Embeddings, strict=False)
_DECODE_BARE = msgspec.json.Decoder(_Bare, strict=False)


def is_given(raw: msgspec.Raw) -> bool:
    """Whether a member is there and not null."""
    return bytes(raw).strip() not in (b"", b"null")


def hear(body: bytes) -> Heard | Outcome:
    """What policy needs of a whole answer, whichever call it answers."""
    try:
        bare = _DECODE_BARE.decode(body)
    except _UNREADABLE:
        return no_answer(body)
    if is_given(bare.error):
        return no_answer(body)
    stops = [stop.finish_reason for stop in bare.choices or ()]
    return Heard(
        read_usage(bare.usage),
        bare.model or "",
        next((stop for stop in stops if stop), None),
        bare.id or "",
        len(stops),
    )


def read_chat(body: bytes) -> Reply | Outcome:
    """The reply in a chat completion, or why it is none."""
    try:
        completion = _DECODE_COMPLETION.decode(body)
    except _UNREADABLE:
        return no_answer(body)
    choices = sorted(completion.choices or (), key=lambda choice: choice.index or 0)
    if is_given(completion.error) or not choices:
        return no_answer(body)
    first, usage = choices[0], read_usage(completion.usage) or Usage()
    if is_given(first.error):
        failed = openai_errors.classify_body(b'{"error":' + bytes(first.error) + b"}")
        return structs.replace(failed or _broken(body), usage=usage)
    message = first.message or {}
    if (refused := withheld(first.finish_reason, message, usage)) is not None:
        return refused
    return Reply(
        text=text_of(message),
        finish_reason=first.finish_reason,
        usage=usage,
        model=completion.model or "",
        content=tuple(choice.message for choice in choices if choice.message),
        upstream_id=completion.id or "",
    )


def read_embeddings(body: bytes, count: int) -> Reply | Outcome:
    """The reply to an embedding call, or why it is none.

    Args:
        count: how many vectors were asked for.
    """
    try:
        embedded = _DECODE_EMBEDDINGS.decode(body)
        if is_given(embedded.error) or not embedded.data:
            return no_answer(body)
        rows = sorted(embedded.data, key=lambda row: row.index or 0)
        vectors = tuple(_vector(row.embedding) for row in rows)
    except (*_UNREADABLE, struct.error, binascii.Error, ValueError):
        return no_answer(body)
    if len(vectors) != count or not all(vectors):
        what = f"It holds {len(vectors)} vectors for {count} texts, or empty ones."
        return Outcome(Kind.PROTOCOL, what, 200)
    return Reply(
        vector=vectors[0],
        vectors=vectors if count > 1 else (),
        usage=read_usage(embedded.usage) or Usage(),
        model=embedded.model or "",
    )


def withheld(reason: str | None, message: Mapping[str, Any], usage: Usage) -> Outcome | None:
    """An answer that the upstream filtered or the model refused is none, whatever stands before it."""
    if reason == "error":  # OpenRouter's, of the model behind it
        return Outcome(Kind.SERVER, "The answer ended with an error.", 200, usage=usage)
    if reason == "content_filter":
        said = "The upstream withheld the answer (content_filter)."
        return Outcome(Kind.BLOCKED, said, 200, usage=usage, detail=Detail.SAFETY)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal and not text_of(message) and not message.get("tool_calls"):
        return Outcome(Kind.BLOCKED, f"The model refused to answer ({refusal}).", 200, usage=usage)
    return None


def text_of(message: Mapping[str, Any]) -> str:
    """The visible text of a message; some upstreams write it in pieces."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [piece.get("text") for piece in content if isinstance(piece, Mapping)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def no_answer(body: bytes) -> Outcome:
    """What a 200 means that holds no answer: an error in disguise, or nothing of this API."""
    return openai_errors.classify_body(body) or _broken(body)


def _broken(body: bytes) -> Outcome:
    start = " ".join(body[:120].decode("utf-8", "replace").split())
    return Outcome(Kind.PROTOCOL, f"It begins: {start or '(nothing)'}.", 200)


def _vector(written: str | list[float]) -> tuple[float, ...]:
    if isinstance(written, str):
        raw = b64decode(written, validate=True)
        return struct.unpack(f"<{len(raw) // _FLOAT}f", raw)
    return tuple(written)
