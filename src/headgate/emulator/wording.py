"""The two spellings of a JSON field: lowerCamel and snake_case mean the same."""

from __future__ import annotations

import re

__all__ = ["camel", "snake"]

_HUMP = re.compile(r"(?<=.)([A-Z])")
_STEP = re.compile(r"(?<=[a-zA-Z0-9])_([a-z0-9])")


def snake(name: str) -> str:
    """`maxOutputTokens` → `max_output_tokens`."""
    return _HUMP.sub(lambda m: "_" + m[1].lower(), name)


def camel(name: str) -> str:
    """`max_output_tokens` → `maxOutputTokens`; a leading underscore stays."""
    return _STEP.sub(lambda m: m[1].upper(), name)
