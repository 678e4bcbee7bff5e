"""Answers as JSON: instants in UTC with microseconds and `+00:00`, as everywhere in Headgate."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import msgspec

__all__ = ["to_json", "to_plain"]


def to_json(value: object) -> bytes:
    """The JSON of a structure."""
    return msgspec.json.encode(to_plain(value))


def to_plain(value: object) -> Any:
    """A structure as JSON has it: objects, lists, texts, numbers."""
    return _texts(msgspec.to_builtins(value, builtin_types=(datetime, date), str_keys=True))


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _texts(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value
