"""What HTTP says about requests that name a version, and about encodings. Pure.

RFC 9110: entity tags 8.8.3, If-Match 13.1.1, If-None-Match 13.1.2, their order 13.2.2, Accept-Encoding
12.5.3.
"""

from __future__ import annotations

import re
from enum import Enum, auto

__all__ = ["Verdict", "accepts_gzip", "judged"]

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)+|[ \t]*$")
_WEIGHT = re.compile(r"[01](?:\.\d{0,3})?")


class Verdict(Enum):
    """What is to be answered to a request that reads."""

    WHOLE = auto()  # the representation
    UNCHANGED = auto()  # 304
    REFUSED = auto()  # 412


def judged(tag: str, if_match: str | None, if_none_match: str | None) -> Verdict:
    """The answer to a GET or HEAD of what exists.

    Args:
        tag: the strong entity tag of the representation, in its quotes.
        if_match, if_none_match: the fields as they came, several lines joined; None: absent.
    """
    if if_match is not None and not _named(if_match, tag, weakly=False):
        return Verdict.REFUSED
    if if_none_match is not None and _named(if_none_match, tag, weakly=True):
        return Verdict.UNCHANGED
    return Verdict.WHOLE


def _named(field: str, tag: str, *, weakly: bool) -> bool:
    """Whether a list of tags names this one. A list that cannot be read names none: who sent it gets
    the whole of what it asked for, or no change made."""
    text = field.strip(" \t")
    if text == "*":
        return True
    at, found = 0, False
    while at < len(text):
        member = _TAG.match(text, at)
        if member is None:
            return False
        found = found or (member[2] == tag and (weakly or not member[1]))
        gap = _SEPARATOR.match(text, member.end())
        if gap is None:
            return False
        at = gap.end()
    return found


def accepts_gzip(field: str | None) -> bool:
    """Whether gzip may be sent: it is named, or everything is, with a weight above 0."""
    named: float | None = None
    anything = 0.0
    for member in (field or "").lower().split(","):
        coding, *parameters = (part.strip(" \t") for part in member.split(";"))
        weight = _weight(parameters)
        if coding in ("gzip", "x-gzip"):
            named = weight
        elif coding == "*":
            anything = weight
    return (anything if named is None else named) > 0


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip(" \t") == "q":
            given = value.strip(" \t")
            return min(1.0, float(given)) if _WEIGHT.fullmatch(given) else 0.0
    return 1.0
