"""Calls and replies: what a caller asks, what an upstream answers, what it used.

Everything here is immutable and provider-neutral; wire formats live in `providers/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

__all__ = [
    "Blob",
    "Call",
    "Chunk",
    "Key",
    "Operation",
    "Part",
    "Preparation",
    "Priority",
    "Reply",
    "Role",
    "SafetyRating",
    "Secret",
    "Turn",
    "Usage",
]


class Operation(StrEnum):
    """What is asked of a model."""

    GENERATE = "generate"
    STREAM = "stream"
    EMBED = "embed"
    COUNT = "count"


class Priority(StrEnum):
    """How urgent a call is. Members are in order, the most urgent first."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for the most urgent."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


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


class Role(StrEnum):
    """Who speaks in a turn of a conversation."""

    USER = "user"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said before, by one side.

    Attributes:
        parts: text and media; a mapping is a piece in the upstream's own form, such as a function call
            with its signature, and is sent back as it came.
    """

    role: Role
    parts: tuple[Part | Mapping[str, object], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is to happen to a call before any quota is spent. A call without one is sent as it is.

    Attributes:
        sanitize: remove invisible characters, break up template tokens, tell signs of injection.
        redact: put markers in the place of personal data of a checkable form.
        restore: number the markers, and put the data back into the reply.
        enforce_tokens: refuse what does not fit the model's window.
        truncate: shorten it instead, as far as that helps.
        drop_turns: leave out the oldest turns of a conversation that does not fit.
        schema: what the text of the reply must fit; None checks nothing.
    """

    sanitize: bool = True
    redact: bool = True
    restore: bool = False
    enforce_tokens: bool = True
    truncate: bool = False
    drop_turns: bool = False
    schema: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a caller, before anything was decided about it.

    Attributes:
        operation: generate, stream, embed or count.
        model: the model as the caller named it.
        parts: the prompt, in order.
        options: generation or embedding options under their snake_case names.
        request_id: follows the call through logs, errors and records.
        deadline: monotonic seconds at which the caller stops waiting, or None.
        max_wait: seconds the call may wait for keys, all its waits together; the deadline bounds it
            too.
        messages: a conversation in the upstream's own form, instead of `parts`.
        priority: which calls go before it where calls wait for quota.
        caller: whose call it is; callers of one priority share quota fairly.
        turns: what was said before `parts`, oldest first.
        preparation: what is to happen to it before it is written; None: nothing.
    """

    operation: Operation
    model: str
    parts: tuple[Part, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    request_id: str = ""
    deadline: float | None = None
    max_wait: float = 0.0
    messages: tuple[Mapping[str, object], ...] = field(default=(), repr=False)
    priority: Priority = Priority.NORMAL
    caller: str = ""
    turns: tuple[Turn, ...] = ()
    preparation: Preparation | None = None


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


class SafetyRating(Struct, frozen=True):
    """What the upstream thinks of an answer, in its own words; None where it left something out."""

    category: str | None = None
    probability: str | None = None
    blocked: bool | None = None


class Reply(Struct, frozen=True):
    """A complete answer.

    Attributes:
        text: the visible text, thoughts left out.
        blobs: images or other media the model produced.
        vector: the embedding, for an embed call.
        finish_reason: why the model stopped, in the upstream's words.
        usage: tokens used.
        model: the model version that answered.
        content: the answer's blocks as the upstream sent them, where it answers in blocks; of Gemini
            those that are neither text nor media: the function calls.
        upstream_id: what the upstream calls the answer.
        tokens: of the prompt, for a call that only counts them; such a call uses none.
        safety: what the upstream thinks of the answer, where it says so.
    """

    text: str = ""
    blobs: tuple[Blob, ...] = ()
    vector: tuple[float, ...] = ()
    finish_reason: str | None = None
    usage: Usage = Usage()
    model: str = ""
    content: tuple[Mapping[str, object], ...] = ()
    upstream_id: str = ""
    tokens: int = 0
    safety: tuple[SafetyRating, ...] = ()


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
    safety: tuple[SafetyRating, ...] = ()
