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
from headgate.core.call import Call, Chunk, Reply, Usage
from headgate.core.call import SafetyRating as Rated
from headgate.core.fallback import INCOMPLETE, DefaultResponse
from headgate.core.records import Findings

__all__ = ["chunk_of", "response_of"]


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
    fallback: str | None = None,
    age: float | None = None,
) -> GeminiResponse:
    """An answer and what it took.

    Args:
        model: the one that was asked, for an answer that does not say.
        cost: dollars, or None.
        shortened: turns of the conversation were left out, or summarised.
        warnings: besides those of the findings.
        fallback: the word of what stood in for an answer of the model that was asked.
        age: in seconds, of an earlier reply that was given; None: this one is new.
    """
    return GeminiResponse(
        text=reply.text,
        model="" if fallback == DefaultResponse.__name__ else reply.model or model,
        finish_reason=reply.finish_reason,
        usage=_usage(reply.usage, estimated=reply.finish_reason == INCOMPLETE),
        cost_estimate=cost,
        request_id=call.request_id,
        cached=age is not None,
        age_seconds=age,
        from_fallback=fallback is not None,
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
    incomplete = chunk.finish_reason == INCOMPLETE
    return StreamingChunk(
        delta=chunk.text,
        finish_reason=chunk.finish_reason,
        safety_ratings=_ratings(chunk.safety),
        usage=None if chunk.usage is None else _usage(chunk.usage, estimated=incomplete),
        function_calls=_calls(chunk.content),
    )


def _usage(usage: Usage, *, estimated: bool = False) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=usage.prompt + usage.tool_prompt,
        completion_tokens=usage.output + usage.thoughts,
        total_tokens=usage.total,
        cached_tokens=usage.cached,
        reasoning_tokens=usage.thoughts,
        estimated=estimated,
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
