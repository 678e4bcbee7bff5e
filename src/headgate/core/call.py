"""Calls and replies: what a caller asks, what an upstream answers, what it used.

Everything here is immutable and provider-neutral; wire formats live in `providers/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from headgate.core.fallback import FallbackStrategy
from headgate.core.raw import RawReply
from headgate.core.tokens import Usage

__all__ = [
    "Blob",
    "Call",
    "Chunk",
    "Earmark",
    "Keeping",
    "Key",
    "Operation",
    "Part",
    "Preparation",
    "Priority",
    "Raw",
    "RawReply",
    "Reply",
    "Role",
    "SafetyRating",
    "Secret",
    "Turn",
    "Upload",
    "Usage",
    "Weight",
]


class Operation(StrEnum):
    """What is asked of a model."""

    GENERATE = "generate"
    STREAM = "stream"
    EMBED = "embed"
    COUNT = "count"
    LIST = "list"  # of models, or one of them; asked in the upstream's own words only

    @property
    def is_free(self) -> bool:
        """Whether it uses none of the model's quota."""
        return self in _FREE


_FREE = frozenset((Operation.COUNT, Operation.LIST))


class Priority(StrEnum):
    """How urgent a call is. Members are in order, the most urgent first."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    MEDIUM = "normal"  # what S4 calls it: another name, no further member
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
class Upload:
    """Of media that the upstream keeps for calls to name, in place of bytes inside of each call.

    Attributes:
        digest: SHA-256 of media type and bytes, in hexadecimal; empty until it was made.
        size: bytes.
        uri: where the upstream keeps it, for one domain; empty: nowhere yet.
    """

    digest: str = ""
    size: int = 0
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with a media type, for images and files. The `repr` shows the size only.

    Attributes:
        data: the bytes; empty where only the upstream still has them.
        upload: set where they are to be uploaded once and named by the call; None: they travel inside
            of it.
    """

    mime_type: str
    data: bytes = field(repr=False)
    upload: Upload | None = None

    @property
    def size(self) -> int:
        """How many bytes it stands for."""
        return len(self.data) or (0 if self.upload is None else self.upload.size)


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


class Preparation(Struct, frozen=True):
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


class Keeping(Struct, frozen=True):
    """How long the answer to a call may be remembered, and for whom. Times in seconds.

    Attributes:
        partition: whose answers they are: an answer kept in one is never given in another.
        namespace: a name to drop answers by.
        ttl: how long an answer is fresh.
        revalidate: how long after that it is still given while a new one is asked for.
        rescue: how long after that it may still be given where the upstream fails.
        reads: look for a kept answer; without it the call always asks, and keeps what it gets.
    """

    partition: str = ""
    namespace: str = ""
    ttl: float = 3600.0
    revalidate: float = 0.0
    rescue: float = 0.0
    reads: bool = True


class Weight(Struct, frozen=True):
    """What quotas count of a call, as far as it shows before it is answered.

    Attributes:
        requests: how many the upstream charges for it: of a batch, one for each of its texts.
        tokens: of the prompt: a plain count, before any margin.
        ceiling: of the prompt at the most; for media as in `policy/estimate.py`.
        most_output: the longest answer in tokens; None where the call sets no bound.
        cached: whether some of the prompt may come from a cache and not be counted.
        answers: how many are asked for, each as long as the model cares to make it where `most_output`
            is None; `most_output` is of all of them together.
    """

    requests: int = 1
    tokens: int = 1
    ceiling: int = 1
    most_output: int | None = None
    cached: bool = False
    answers: int = 1


class Raw(Struct, frozen=True):
    """A call in an upstream's own words, to be passed on as they are. Holds no credential.

    Attributes:
        method: of HTTP.
        path: under the upstream's base URL, with its query.
        model: as `path` or `body` name it; only where it is another than the one that was resolved
            are they changed, and nothing else in them.
        headers: those to send, names in lower case.
        body: the caller's bytes.
        weight: what quotas count of it.
        repeatable: whether it may be sent again once the upstream may have seen it. What makes or
            changes something there may not.
        once: whether it must not be sent again once it may have been billed: there is money for one
            attempt.
    """

    method: str
    path: str
    model: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    weight: Weight = Weight()
    repeatable: bool = True
    once: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again once the upstream may have seen it, and billed it."""
        return self.repeatable and not self.once

    def __repr__(self) -> str:
        return f"Raw({self.method} {self.path}, {len(self.body)} bytes)"  # it may hold prompts


class Earmark(Struct, frozen=True):
    """What quotas put aside for a call whose caller says what it is booked as, in place of an estimate.

    Attributes:
        tokens: input and output together.
        rid: of a reservation that was made before and is held for it; empty: none is. It serves the
            first attempt; what comes after that is reserved anew.
        fixed: what was put aside stays booked, whatever the answer says it used.
    """

    tokens: int
    rid: str = ""
    fixed: bool = False


class Call(Struct, frozen=True):
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
        keeping: how its answer may be remembered; None: not at all.
        raw: the call in the upstream's own words, in place of `parts`, `messages`, `turns` and
            `options`; the answer then comes in the upstream's own words too.
        domain: the quota domain whose keys alone may serve it, because what the call names is kept
            there; empty: any.
        fallbacks: what may stand in for its answer where every try fails, in order.
        inputs: what is embedded by one request, each for a vector of its own; in place of `parts`.
        earmark: what quotas put aside for it; None: an estimate.
    """

    operation: Operation
    model: str
    parts: tuple[Part, ...]
    options: Mapping[str, object] = {}
    request_id: str = ""
    deadline: float | None = None
    max_wait: float = 0.0
    messages: tuple[Mapping[str, object], ...] = ()
    priority: Priority = Priority.NORMAL
    caller: str = ""
    turns: tuple[Turn, ...] = ()
    preparation: Preparation | None = None
    keeping: Keeping | None = None
    raw: Raw | None = None
    domain: str = ""
    fallbacks: tuple[FallbackStrategy, ...] = ()
    inputs: tuple[tuple[Part, ...], ...] = ()
    earmark: Earmark | None = None

    def __repr__(self) -> str:  # the rest may hold prompts
        return f"Call({self.operation.value} {self.model!r}, request_id={self.request_id!r})"

    @property
    def requests(self) -> int:
        """How many requests the upstream charges for it: of a batch, one for each of its texts."""
        return (len(self.inputs) or 1) if self.raw is None else self.raw.weight.requests


class SafetyRating(Struct, frozen=True):
    """What the upstream thinks of an answer, in its own words; None where it left something out."""

    category: str | None = None
    probability: str | None = None
    blocked: bool | None = None


class Reply(Struct, frozen=True, omit_defaults=True):
    """A complete answer.

    Attributes:
        text: the visible text, thoughts left out.
        blobs: images or other media the model produced.
        vector: the embedding, for an embed call.
        vectors: one for each of its `inputs`, where an embed call has several.
        finish_reason: why the model stopped, in the upstream's words.
        usage: tokens used.
        model: the model version that answered.
        content: the answer's blocks as the upstream sent them, where it answers in blocks; of Gemini
            those that are neither text nor media: the function calls.
        upstream_id: what the upstream calls the answer.
        tokens: of the prompt, for a call that only counts them; such a call uses none.
        safety: what the upstream thinks of the answer, where it says so.
        raw: the answer as it came, for a call that was raw; the rest then holds what policy needs.
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
    raw: RawReply | None = None
    vectors: tuple[tuple[float, ...], ...] = ()


class Chunk(Struct, frozen=True):
    """A piece of a streamed answer. `usage` is cumulative: the last one counts.

    `content` holds the blocks that this piece completed, where the upstream answers in blocks.
    `raw` holds, of a call that was raw, the bytes as they came: those of all pieces together are the
    body.
    """

    text: str = ""
    blobs: tuple[Blob, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    content: tuple[Mapping[str, object], ...] = ()
    safety: tuple[SafetyRating, ...] = ()
    raw: bytes = b""
