"""What OpenAI and its like count, made into what Headgate counts.

prompt   = prompt_tokens, those read from a cache among them
thoughts = reasoning tokens, output = the rest of completion_tokens, which includes them at OpenAI

Some compatible upstreams leave thoughts out of `completion_tokens` and count them in `total_tokens`
alone (Gemini's own compatible endpoint), or name them beside the completion: the total tells which it
is. What is no number counts as nothing; a usage that is none at all is None.
"""

from __future__ import annotations

import msgspec

from headgate.core.call import Usage
from headgate.core.tokens import counted

__all__ = ["read_usage"]

_Count = int | float | None


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: _Count = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


_DECODE = msgspec.json.Decoder(_Usage, strict=False)


def read_usage(raw: msgspec.Raw) -> Usage | None:
    """The tokens of an answer or of a piece of one; None where it names none."""
    try:
        wire = _DECODE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    prompt, completion = counted(wire.prompt_tokens), counted(wire.completion_tokens)
    if not prompt and not completion:
        return None
    details, spent = wire.prompt_tokens_details, wire.completion_tokens_details
    cached = min(prompt, counted(details.cached_tokens if details else None))
    written = min(prompt - cached, counted(details.cache_write_tokens if details else None))
    output, thoughts = _split(
        completion,
        counted(spent.reasoning_tokens if spent else None),
        counted(wire.total_tokens) - prompt,
    )
    return Usage(prompt, output, thoughts, cached, cache_write=written)


def _split(completion: int, reasoning: int, spent: int) -> tuple[int, int]:
    """Output and thoughts: `spent` is what the total leaves for both."""
    if spent > completion:  # thoughts stand beside the completion, named or not
        return completion, spent - completion
    thoughts = min(completion, reasoning)
    return completion - thoughts, thoughts
