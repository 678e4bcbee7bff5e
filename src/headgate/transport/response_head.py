"""What the head of an answer says about where its body ends; whatever leaves a doubt is refused.

A client that takes an answer to end elsewhere than the upstream does would hand the rest to the next
caller on that connection. So two lengths, a length beside a transfer coding, codings other than
`chunked`, and statuses that HTTP does not have are errors, not riddles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["LARGEST_HEAD", "MOST_HEADERS", "Framing", "InvalidAnswerError", "framing_of"]

LARGEST_HEAD = 64 * 1024
"""Bytes of names and values, and of anything else that is no body, at a stretch."""

MOST_HEADERS = 128
"""Of one answer; providers send about fifteen, behind a content network thirty."""

_LENGTHS = frozenset(map(len, (b"content-length", b"transfer-encoding", b"keep-alive")))
_MOST_DIGITS = 18  # fit in 64 bits
_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout=([0-9]{1,6})(?:$|[,;\s])", re.IGNORECASE)

Headers = Sequence[tuple[bytes, bytes]]


class InvalidAnswerError(ValueError):
    """The answer is not valid HTTP, or leaves a doubt where it ends. Says why in a few words."""


class Framing(NamedTuple):
    """Where the body ends, and what becomes of the connection.

    Attributes:
        bodiless: there is none, whatever the headers say.
        chunked: it comes in chunks.
        until_close: it ends with the connection.
        announced: the headers told of a body, so a bodiless answer is not to be trusted with another.
        kept_seconds: how long the upstream keeps an idle connection, where it says so.
    """

    bodiless: bool
    chunked: bool
    until_close: bool
    announced: bool
    kept_seconds: int | None


def framing_of(headers: Headers, status: int, *, head_only: bool) -> Framing:
    """Raises `InvalidAnswerError`.

    Args:
        headers: as they came.
        head_only: the request was a HEAD.
    """
    if len(headers) > MOST_HEADERS:
        raise InvalidAnswerError(f"more than {MOST_HEADERS} headers")
    length: int | None = None
    chunked = False
    kept: int | None = None
    for name, value in headers:
        if len(name) not in _LENGTHS:
            continue
        plain = name.lower()
        if plain == b"content-length":
            if length is not None:
                raise InvalidAnswerError("more than one length")
            length = _length(value)
        elif plain == b"transfer-encoding":
            if chunked or value.strip(b" \t").lower() != b"chunked":
                raise InvalidAnswerError("a transfer coding other than chunked")
            chunked = True
        elif plain == b"keep-alive":
            found = _TIMEOUT.search(value)
            kept = int(found[1]) if found else kept
    if chunked and length is not None:
        raise InvalidAnswerError("a length beside a transfer coding")
    if status < 100:
        raise InvalidAnswerError("a status below 100")
    bodiless = head_only or status in (204, 304)
    until_close = not (bodiless or chunked or length is not None)
    return Framing(bodiless, chunked, until_close, chunked or bool(length), kept)


def _length(value: bytes) -> int:
    digits = value if value.isdigit() else value.strip(b" \t")
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise InvalidAnswerError("a length that is no number")
    return int(digits)
