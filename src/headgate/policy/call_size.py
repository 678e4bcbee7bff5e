"""How large a call is, by what it says. Pure, and of nothing but the call: every client needs it."""

from __future__ import annotations

from headgate.core.call import Blob, Call

__all__ = ["size_of"]


def size_of(call: Call) -> int:
    """Bytes of media and characters of texts, those of earlier turns too."""
    size = 0  # a plain loop: every call comes by here
    for part in call.parts:
        size += len(part.data) if isinstance(part, Blob) else len(part)
    for turn in call.turns:
        for said in turn.parts:
            if isinstance(said, Blob):
                size += len(said.data)
            elif isinstance(said, str):
                size += len(said)
    return size
