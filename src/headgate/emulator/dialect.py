"""Pretty-printed JSON with a newline, and event framing, byte for byte like the real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["event", "line", "pretty"]

_ENCODER = json.JSONEncoder(separators=(",", ": "), ensure_ascii=False)


def pretty(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Two blanks a level and a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def event(value: Any) -> bytes:
    """One event: `data: `, one line of JSON with `": "` and `,"`, CRLF CRLF."""
    return b"data: " + line(value) + b"\r\n\r\n"


def line(value: Any) -> bytes:
    """JSON on one line, spaced as in recorded streams."""
    return _ENCODER.encode(value).encode()
