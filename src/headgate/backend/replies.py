"""Answers of the engine in the accepted words: responses, pieces of a stream, tokens, costs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headgate.backend.structures import (
    FunctionCall,
    GeminiResponse,
    SafetyRating,
    StreamingChunk,
    TokenUsage,
)
from headgate.core.call import Blob, Call, Chunk, Reply, Usage
from headgate.core.call import SafetyRating as Rated
from headgate.core.records import Findings

__all__ = ["Gathered", "chunk_of", "response_of"]


class Gathered:
    """A streamed answer, put together piece by piece."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._blobs: list[Blob] = []
        self._content: list[Mapping[str, object]] = []
        self._safety: tuple[Rated, ...] = ()
        self._usage = Usage()
        self._reason: str | None = None
        self._model = ""

    def add(self, chunk: Chunk) -> None:
        """One more piece."""
        self._texts.append(chunk.text)
        self._blobs += chunk.blobs
        self._content += chunk.content
        self._safety = chunk.safety or self._safety
        self._usage = chunk.usage or self._usage
        self._reason = chunk.finish_reason or self._reason
        self._model = chunk.model or self._model

    def reply(self) -> Reply:
        """The whole answer so far."""
        return Reply(
            text="".join(self._texts),
            blobs=tuple(self._blobs),
            finish_reason=self._reason,
            usage=self._usage,
            model=self._model,
            content=tuple(self._content),
            safety=self._safety,
        )


def response_of(
    reply: Reply,
    call: Call,
    model: str,
    findings: Findings,
    *,
    cost: float | None,
    session_id: str | None = None,
    cwd: str | None = None,
    shortened: bool = False,
    warnings: Sequence[str] = (),
) -> GeminiResponse:
    """An answer and what it took.

    Args:
        model: the one that was asked, for an answer that does not say.
        cost: dollars, or None.
        shortened: turns of the conversation were left out, or summarised.
        warnings: besides those of the findings.
    """
    return GeminiResponse(
        text=reply.text,
        model=reply.model or model,
        finish_reason=reply.finish_reason,
        usage=_usage(reply.usage),
        cost_estimate=cost,
        request_id=call.request_id,
        redactions=findings.redactions,
        safety_ratings=_ratings(reply.safety),
        truncated=shortened or bool(findings.dropped_turns or findings.cut_characters),
        injection_score=findings.injection_score,
        parsed=_parsed(reply.text, call),
        function_calls=_calls(reply.content),
        media=reply.blobs,
        session_id=session_id,
        cwd=cwd,
        warnings=(*warnings, *findings.warnings),
    )


def chunk_of(chunk: Chunk) -> StreamingChunk:
    """A piece of a streamed answer."""
    return StreamingChunk(
        delta=chunk.text,
        finish_reason=chunk.finish_reason,
        safety_ratings=_ratings(chunk.safety),
        usage=None if chunk.usage is None else _usage(chunk.usage),
        function_calls=_calls(chunk.content),
    )


def _usage(usage: Usage) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=usage.prompt + usage.tool_prompt,
        completion_tokens=usage.output + usage.thoughts,
        total_tokens=usage.total,
        cached_tokens=usage.cached,
        reasoning_tokens=usage.thoughts,
    )


def _ratings(ratings: Iterable[Rated]) -> tuple[SafetyRating, ...]:
    return tuple(
        SafetyRating(rating.category or "", rating.probability or "", bool(rating.blocked))
        for rating in ratings
    )


def _calls(content: Iterable[Mapping[str, object]]) -> tuple[FunctionCall, ...]:
    found = []
    for piece in content:
        call = piece.get("functionCall")
        if isinstance(call, Mapping):
            args = call.get("args")
            identity = call.get("id")
            found.append(
                FunctionCall(
                    str(call.get("name", "")),
                    args if isinstance(args, Mapping) else {},
                    None if identity is None else str(identity),
                )
            )
    return tuple(found)


def _parsed(text: str, call: Call) -> Any:
    """The text read as JSON where JSON was asked for; None where it is none."""
    if call.options.get("response_mime_type") != "application/json":
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
