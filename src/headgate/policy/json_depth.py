"""How deep a JSON text is nested, told without parsing it: what reads it afterwards goes down one level
of its own stack for each."""

from __future__ import annotations

from itertools import accumulate

__all__ = ["is_deeper"]

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_LEAF = b"\x01\xff"

_PIECE = 65_536
"""Bytes that are looked at at a time: a text that only goes down is left soon, and one of quotation
marks alone is not taken apart into millions of pieces at once."""


def is_deeper(text: bytes, most: int) -> bool:
    """Whether arrays and objects stand more than `most` levels deep in a text.

    Of a text that is no JSON the answer means nothing, except that what a parser reads of it before it
    gives up is not deeper, where the answer is no. One with few brackets, as nearly all are, costs two
    counts.
    """
    if text.count(b"{") + text.count(b"[") <= most:
        return False
    if b"\\" in text:  # then a quotation mark ends a string, or begins one
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth, inside = 0, 0
    for start in range(0, len(text), _PIECE):
        parts = text[start : start + _PIECE].split(b'"')
        brackets = b"".join(parts[inside::2]).translate(_STEPS, _NO_BRACKETS)
        inside = (inside + len(parts) - 1) % 2
        if depth + _height(brackets) > most and depth + _exact_height(brackets) > most:
            return True
        depth += brackets.count(b"\x01") - brackets.count(b"\xff")
    return False


def _height(steps: bytes) -> int:
    """How far they go up, or a little more: without the pairs that hold nothing, of which there are
    most, and one more for each time that they were taken out."""
    for taken_out in range(3):
        if len(steps) < 256:  # the rest is soon counted
            return taken_out + _exact_height(steps)
        steps = steps.replace(_LEAF, b"")
    return 3 + _exact_height(steps)


def _exact_height(steps: bytes) -> int:
    return max(accumulate(memoryview(steps).cast("b"), initial=0))
