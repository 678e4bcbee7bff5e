"""Ids that nobody else has: random, read from the system for many at a time.

A call needs one or two, and to ask the system is most of what one costs.
"""

from __future__ import annotations

import os
from secrets import token_hex

__all__ = ["fresh_id"]

_DIGITS = 16
_AT_ONCE = 256

_ready: list[str] = []


def fresh_id() -> str:
    """16 hexadecimal digits. Threads may share it; a forked process has ids of its own."""
    try:
        return _ready.pop()
    except IndexError:
        digits = token_hex(_DIGITS * _AT_ONCE // 2)
        _ready.extend([digits[at : at + _DIGITS] for at in range(_DIGITS, len(digits), _DIGITS)])
        return digits[:_DIGITS]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ready.clear)
