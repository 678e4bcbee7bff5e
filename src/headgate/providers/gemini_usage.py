"""What Gemini counts, made into what Headgate counts.

total = prompt + candidates + thoughts + tool use prompt; what was read from a cache is part of the
prompt. Fields that are zero are left out; in a stream the counts are cumulative, and the last hold.
"""

from __future__ import annotations

import msgspec

from headgate.core.call import Usage

__all__ = ["UsageMetadata", "as_usage"]


class UsageMetadata(msgspec.Struct, rename="camel"):
    """`usageMetadata` of a reply; what may be left out may also be null: proxies write it so."""

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None


def as_usage(wire: UsageMetadata | None) -> Usage:
    """Tokens in Headgate's words."""
    if wire is None:
        return Usage()
    return Usage(
        prompt=max(0, wire.prompt_token_count or 0),
        output=max(0, wire.candidates_token_count or 0),
        thoughts=max(0, wire.thoughts_token_count or 0),
        cached=max(0, wire.cached_content_token_count or 0),
        tool_prompt=max(0, wire.tool_use_prompt_token_count or 0),
    )
