"""Requests and replies of the backend: what is asked, what is answered, what is remembered between.

Instants are aware UTC. Over JSON, bytes are base64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from headgate.backend.settings import AnyFallback, ContextOverflow, PreprocessConfig
from headgate.core.call import Blob, Priority

__all__ = [
    "ConversationContext",
    "ConversationMessage",
    "FunctionCall",
    "FunctionResult",
    "GeminiRequest",
    "GeminiResponse",
    "SafetyRating",
    "StreamingChunk",
    "TokenUsage",
]


class FunctionResult(Struct, frozen=True, forbid_unknown_fields=True):
    """What a function gave that the model had called.

    Attributes:
        name, id: those of the call.
        response: an object; anything else belongs under `result` or `error` in one.
    """

    name: str
    response: Mapping[str, Any]
    id: str | None = None

    def __repr__(self) -> str:
        """Sizes only: what a function gave belongs in no log."""
        return (
            f"FunctionResult(name={self.name!r}, response=<{_fields(self.response)}>, id={self.id!r})"
        )


class GeminiRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a model (S3-23). Only `prompt` and `model` are required.

    It is checked when it is executed, before any quota is spent; an error then names the field.

    Attributes:
        prompt: the question; it may be empty where there are images, files or results of functions.
        model: a name or an alias; a retired one goes to its successor.
        session_id: continues a conversation, or begins one.
        temperature, top_k, top_p, stop_sequences: left out, with a warning, for a model that does not
            take it.
        max_output_tokens: of the answer; the model's card bounds it.
        system_instruction: how to behave.
        images: pairs of media type and bytes.
        files: triples of name, media type and bytes.
        stream: answers with `StreamingChunk`s.
        priority: a `Priority` or its name in any case.
        preprocess_config: instead of the backend's.
        response_mime_type: `application/json` for structured output.
        response_schema: a JSON schema the reply must fit.
        fallback: (ours) instead of the backend's chain.
        context_overflow: (ours) instead of the backend's.
        tools, tool_config: (ours) passed on as they are, for function calling.
        function_results: (ours) of the calls in the session's last answer; the prompt may be empty.
        caller: (ours) whose call it is: callers share quota fairly, and no cached replies.
        timeout_seconds: (ours) longest time until the whole answer.
        use_cache: (ours) False neither reads the reply cache nor writes it.
        cache_namespace: (ours) a name to forget cached replies by; no reply of another name is given.
        upload: (ours) True uploads images and files once, for calls to name; False never does; None
            does where they are too large to travel inside of the call.
    """

    prompt: str
    model: str
    session_id: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    stop_sequences: Sequence[str] | None = None
    system_instruction: str | None = None
    images: Sequence[tuple[str, bytes]] | None = field(default=None)
    files: Sequence[tuple[str, str, bytes]] | None = field(default=None)
    stream: bool = False
    priority: str = Priority.NORMAL
    preprocess_config: PreprocessConfig | None = None
    response_mime_type: str | None = None
    response_schema: Mapping[str, Any] | None = None
    fallback: Sequence[AnyFallback] | None = None
    context_overflow: ContextOverflow | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_config: Mapping[str, Any] | None = None
    function_results: Sequence[FunctionResult] | None = None
    caller: str = ""
    timeout_seconds: float | None = None
    use_cache: bool = True
    cache_namespace: str = ""
    upload: bool | None = None

    def __repr__(self) -> str:
        """Sizes only: prompts and media belong in no log."""
        media = f"{_count(self.images)} images, {_count(self.files)} files"
        return (
            f"GeminiRequest(model={self.model!r:.200}, prompt=<{_size(self.prompt)}>, "
            f"media=<{media}>, stream={self.stream!r:.20})"
        )


class TokenUsage(Struct, frozen=True):
    """Tokens of a reply. `completion_tokens` counts the reasoning ones too.

    Attributes:
        prompt_tokens: of what was asked.
        completion_tokens: of the answer, with the reasoning ones.
        total_tokens: of both.
        cached_tokens: those of the prompt that the provider read from its cache.
        reasoning_tokens: those of thinking.
        estimated: the provider did not tell them.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


class SafetyRating(Struct, frozen=True):
    """What the provider thinks of a reply."""

    category: str
    probability: str
    blocked: bool = False


class FunctionCall(Struct, frozen=True):
    """A function the model wants called. The backend calls none itself."""

    name: str
    args: Mapping[str, Any] = {}
    id: str | None = None

    def __repr__(self) -> str:
        """Sizes only: arguments are a part of the reply."""
        return f"FunctionCall(name={self.name!r}, args=<{_fields(self.args)}>, id={self.id!r})"


class GeminiResponse(Struct, frozen=True, kw_only=True):
    """An answer and what it took.

    Attributes:
        text: the answer.
        model: the one that answered; empty where a fixed text did.
        usage: tokens.
        safety_ratings: what the provider thinks of the answer.
        finish_reason: why it stopped, in the upstream's words; or `INCOMPLETE`, `DEFAULT_RESPONSE`.
        cost_estimate: dollars; None where the model has no known price.
        request_id: follows the call through logs, traces and ledgers.
        cached: an earlier reply answered.
        from_fallback: a fallback answered, after the call had failed.
        redactions: how many of each kind were put in the prompt, by marker: `{"EMAIL": 2}`.
        truncated: the prompt was shortened to fit.
        age_seconds: of a cached reply.
        injection_score: signs of injection in the prompt, 0 to 1: a signal, no verdict.
        parsed: the reply read as JSON, where a schema asked for it.
        function_calls: for the caller to make.
        media: images or other media the model produced.
        session_id: of the conversation it belongs to.
        cwd: the project path that was given as context.
        warnings: sentences a person should read.
    """

    text: str
    model: str
    finish_reason: str | None = None
    usage: TokenUsage = TokenUsage()
    cost_estimate: float | None = None
    request_id: str = ""
    cached: bool = False
    from_fallback: bool = False
    redactions: Mapping[str, int] = {}
    safety_ratings: tuple[SafetyRating, ...] = ()
    truncated: bool = False
    age_seconds: float | None = None
    injection_score: float = 0.0
    parsed: Any = None
    function_calls: tuple[FunctionCall, ...] = ()
    media: tuple[Blob, ...] = ()
    session_id: str | None = None
    cwd: str | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Sizes only: replies belong in no log."""
        return (
            f"GeminiResponse(model={self.model!r}, text=<{_size(self.text)}>, "
            f"finish_reason={self.finish_reason!r}, usage={self.usage!r}, "
            f"cost_estimate={self.cost_estimate!r}, function_calls={len(self.function_calls)}, "
            f"media={len(self.media)}, cached={self.cached}, from_fallback={self.from_fallback}, "
            f"request_id={self.request_id!r})"
        )


class StreamingChunk(Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer. `usage` is cumulative: the last one counts.

    Attributes:
        delta: the text that is new; never what came before it.
        finish_reason: why the model stopped, with the last piece of it.
        safety_ratings: what the provider thinks of the answer so far.
        usage: cumulative: the last one counts.
        function_calls: those that this piece completed.
        response: (ours) with the last piece, the whole answer and what it took.
    """

    delta: str = ""
    finish_reason: str | None = None
    safety_ratings: tuple[SafetyRating, ...] = ()
    usage: TokenUsage | None = None
    function_calls: tuple[FunctionCall, ...] = ()
    response: GeminiResponse | None = None

    def __repr__(self) -> str:
        """Sizes only."""
        return (
            f"StreamingChunk(delta=<{_size(self.delta)}>, finish_reason={self.finish_reason!r}, "
            f"usage={self.usage!r}, function_calls={len(self.function_calls)}, "
            f"response={self.response!r})"
        )


class ConversationMessage(Struct, frozen=True):
    """A turn. `role` is `user` or `model`: Gemini knows no other."""

    role: str
    content: str
    timestamp: datetime
    tokens: int

    def __repr__(self) -> str:
        """Sizes only: what was said belongs in no log."""
        return (
            f"ConversationMessage(role={self.role!r}, content=<{_size(self.content)}>, "
            f"timestamp={self.timestamp!r}, tokens={self.tokens!r})"
        )


class ConversationContext(Struct, frozen=True, kw_only=True):
    """A session: its turns, oldest first, and the system instruction, which is never dropped."""

    session_id: str
    messages: tuple[ConversationMessage, ...] = ()
    system_instruction: str | None = None
    total_tokens: int = 0
    created_at: datetime
    last_updated: datetime

    def __repr__(self) -> str:
        """Sizes only: what was said belongs in no log."""
        return (
            f"ConversationContext(messages=<{_count(self.messages)}>, "
            f"system_instruction=<{_size(self.system_instruction)}>, "
            f"total_tokens={self.total_tokens!r}, created_at={self.created_at!r}, "
            f"last_updated={self.last_updated!r})"
        )


def _size(text: object) -> str:
    """Of whatever stands where a text belongs: users look at requests that are wrong, too."""
    return f"{len(text)} characters" if isinstance(text, str) else type(text).__name__


def _count(things: object) -> str:
    if things is None:
        return "0"
    counted = isinstance(things, Sequence) and not isinstance(things, str | bytes)
    return str(len(things)) if counted else type(things).__name__  # type: ignore[arg-type]


def _fields(value: object) -> str:
    return f"{len(value)} fields" if isinstance(value, Mapping) else type(value).__name__
