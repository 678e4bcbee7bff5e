"""Bodies of JSON as tariffs look at them: what has not the form that is expected counts as nothing."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["as_json", "rows"]


def rows(value: object) -> list[Mapping[str, object]]:
    """The objects of a list; none where it is no list."""
    if not isinstance(value, list | tuple):
        return []
    return [row for row in value if isinstance(row, Mapping)]


def as_json(value: object) -> str:
    """The text a value travels as; empty where it has none: the provider says so when it writes."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, msgspec.EncodeError, UnicodeEncodeError, RecursionError):
        return ""
