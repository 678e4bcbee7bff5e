"""What Gemini counts, made into what Headgate counts.

total = prompt + candidates + thoughts + tool use prompt; what was read from a cache is part of the
prompt. Fields that are zero are left out; in a stream the counts are cumulative, and the last hold.
"""

from __future__ import annotations

import msgspec

from headgate.core.call import Usage
from headgate.core.tokens import counted

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
        prompt=counted(wire.prompt_token_count),
        output=counted(wire.candidates_token_count),
        thoughts=counted(wire.thoughts_token_count),
        cached=counted(wire.cached_content_token_count),
        tool_prompt=counted(wire.tool_use_prompt_token_count),
    )
