"""Calls and replies: what a caller asks, what an upstream answers, what it used.

Everything here is immutable and provider-neutral; wire formats live in `providers/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

__all__ = ["Blob", "Call", "Chunk", "Key", "Operation", "Part", "Reply", "Secret", "Usage"]


class Operation(StrEnum):
    """What is asked of a model."""

    GENERATE = "generate"
    STREAM = "stream"
    EMBED = "embed"


class Secret(str):
    """Text that hides itself: its `repr` is masked, so that neither a container's `repr` nor a
    traceback with local variables shows it. As a `str` it is what it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


@dataclass(frozen=True, slots=True)
class Key:
    """One credential. Its value never appears in a `repr`.

    Attributes:
        name: what people and logs call it.
        value: the credential itself.
        domain: what the provider counts its quota against; keys of one domain share fate.
    """

    name: str
    value: str = field(repr=False)
    domain: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", Secret(self.value))


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with a media type, for images and files. The `repr` shows the size only."""

    mime_type: str
    data: bytes = field(repr=False)


Part = str | Blob
"""A piece of a prompt: text, or bytes with a media type."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a caller, before anything was decided about it.

    Attributes:
        operation: generate, stream or embed.
        model: the model as the caller named it.
        parts: the prompt, in order.
        options: generation or embedding options under their snake_case names.
        request_id: follows the call through logs, errors and records.
        deadline: monotonic seconds at which the caller stops waiting, or None.
        max_wait: longest wait for a key in seconds; the deadline bounds it too.
        messages: a conversation in the upstream's own form, instead of `parts`.
    """

    operation: Operation
    model: str
    parts: tuple[Part, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    request_id: str = ""
    deadline: float | None = None
    max_wait: float = 0.0
    messages: tuple[Mapping[str, object], ...] = field(default=(), repr=False)


class Usage(Struct, frozen=True):
    """Tokens one attempt used. Thoughts cost as output; they are not in `output`.

    `cached` (read from a cache) and `cache_write` (written to one) are parts of `prompt`, whatever
    the upstream counts them as; `cache_write_long` is the part of `cache_write` that is kept for an
    hour.
    """

    prompt: int = 0
    output: int = 0
    thoughts: int = 0
    cached: int = 0
    tool_prompt: int = 0
    cache_write: int = 0
    cache_write_long: int = 0

    @property
    def total(self) -> int:
        """All tokens, as Gemini totals them: prompt + output + thoughts + tool prompt."""
        return self.prompt + self.output + self.thoughts + self.tool_prompt

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.output + other.output,
            self.thoughts + other.thoughts,
            self.cached + other.cached,
            self.tool_prompt + other.tool_prompt,
            self.cache_write + other.cache_write,
            self.cache_write_long + other.cache_write_long,
        )


class Reply(Struct, frozen=True):
    """A complete answer.

    Attributes:
        text: the visible text, thoughts left out.
        blobs: images or other media the model produced.
        vector: the embedding, for an embed call.
        finish_reason: why the model stopped, in the upstream's words.
        usage: tokens used.
        model: the model version that answered.
        content: the answer's blocks as the upstream sent them, where it answers in blocks.
        upstream_id: what the upstream calls the answer.
    """

    text: str = ""
    blobs: tuple[Blob, ...] = ()
    vector: tuple[float, ...] = ()
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str = ""
    content: tuple[Mapping[str, object], ...] = ()
    upstream_id: str = ""


class Chunk(Struct, frozen=True):
    """A piece of a streamed answer. `usage` is cumulative: the last one counts.

    `content` holds the blocks that this piece completed, where the upstream answers in blocks.
    """

    text: str = ""
    blobs: tuple[Blob, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    content: tuple[Mapping[str, object], ...] = ()
