"""What Anthropic counts, made into what Headgate counts.

prompt   = input + cache creation + cache read        Anthropic's three are disjoint
thoughts = thinking tokens, output = the rest of it   Anthropic's output includes them
"""

from __future__ import annotations

import msgspec

from headgate.core.call import Usage
from headgate.core.tokens import counted

__all__ = ["WireUsage", "as_usage", "merged"]


class _CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """`usage` of a message, of `message_start`, and of `message_delta`, which has only some of it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None


def merged(earlier: WireUsage, later: WireUsage | None) -> WireUsage:
    """The later counts, and the earlier where it says nothing. Counts of a stream are cumulative."""
    if later is None:
        return earlier
    both = {
        name: getattr(earlier, name) if (value := getattr(later, name)) is None else value
        for name in WireUsage.__struct_fields__
    }
    return WireUsage(**both)


def as_usage(wire: WireUsage | None) -> Usage:
    """Tokens in Headgate's words."""
    if wire is None:
        return Usage()
    written = counted(wire.cache_creation_input_tokens)
    read = counted(wire.cache_read_input_tokens)
    long = counted(wire.cache_creation.ephemeral_1h_input_tokens if wire.cache_creation else None)
    details = wire.output_tokens_details
    output = counted(wire.output_tokens)
    thoughts = min(output, counted(details.thinking_tokens if details else None))
    return Usage(
        prompt=counted(wire.input_tokens) + written + read,
        output=output - thoughts,
        thoughts=thoughts,
        cached=read,
        cache_write=written,
        cache_write_long=min(written, long),
    )
