"""Tokens that an attempt used, in one vocabulary for all providers."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["MOST_TOKENS", "Usage", "counted"]

MOST_TOKENS = 1_000_000_000
"""Of one kind in one answer: a hundred times the largest window of any model in Nov 2026. An upstream
that names more is wrong, and no ledger or sum could hold what it may name."""


class Usage(Struct, frozen=True, omit_defaults=True):
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


def counted(value: float | None) -> int:
    """Tokens as an upstream names them; 0, as if it named none, where that cannot be."""
    return int(value) if value is not None and 0 < value <= MOST_TOKENS else 0
