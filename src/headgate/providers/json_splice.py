"""Replacing a member of a JSON text and nothing else: every other byte stays as it came.

A raw call is passed on in its caller's bytes; where its model goes by another name upstream, that one
value is changed in place. Parsing and writing anew would lose the order of keys, long integers, escapes
and whatever else a caller may be particular about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator

__all__ = ["with_member"]

Path = tuple[str, ...]
"""Where a value stands: names of members from the outside in; `*` for any place in a list."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def with_member(body: bytes, paths: Collection[Path], value: str) -> bytes:
    """The text with another value at these paths, wherever there is one; also at repeated names, for
    parsers differ in which of them counts.

    Args:
        body: valid JSON.
        paths: names from the outside in, `*` for any place in a list.
        value: the text that takes the place of what stands there, which must be text too.
    """
    written = json.dumps(value, ensure_ascii=False).encode()
    pieces: list[bytes] = []
    done = 0
    for start, end in _texts_at(body, paths):
        pieces += (body[done:start], written)
        done = end
    pieces.append(body[done:])
    return b"".join(pieces)


def _texts_at(body: bytes, paths: Collection[Path]) -> Iterator[tuple[int, int]]:
    """Where the texts at these paths begin and end."""
    deepest = max(map(len, paths))
    where: list[str] = []  # the path of the value that comes next
    lists: list[bool] = []  # for each bracket that is open: whether it is a list
    named = False  # whether the name of the member was read already
    for token in _TOKEN.finditer(body):
        sign = body[token.start() : token.start() + 1]
        if sign in (b"{", b"["):
            lists.append(sign == b"[")
            where.append("*")
            named = False
        elif sign in (b"}", b"]"):
            lists.pop()
            where.pop()
            named = False
        elif sign == b",":
            named = False
        elif sign == b":":
            named = True
        elif sign == b'"' and len(where) <= deepest:
            if lists and not lists[-1] and not named:
                where[-1] = json.loads(token[0])
            elif tuple(where) in paths:
                yield token.span()
