"""Characters nobody sees and models read: found, and removed where they carry no meaning.

Instructions can be hidden from people in tag characters, zero-width characters and variation
selectors, and text can be shown in another order than it is read by bidirectional controls (Unicode
Technical Report 36; "Trojan Source", CVE-2021-42574). Some of them are part of ordinary writing:
joiners in Persian, Hindi or emoji, selectors behind emoji and ideographs, marks in Arabic and Hebrew.
These stay.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

__all__ = ["Cleaned", "clean"]


class Cleaned(NamedTuple):
    """A text without hidden characters, and how many of them were in it."""

    text: str
    removed: int


_SUSPECTS = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_MARKS = frozenset("\u200e\u200f\u061c")
_OPENS = {
    "\u202a": "\u202c",
    "\u202b": "\u202c",
    "\u2066": "\u2069",
    "\u2067": "\u2069",
    "\u2068": "\u2069",
}
_CLOSES = frozenset(_OPENS.values())
# Scripts in whose words the zero-width (non-)joiner is spelling: Arabic and its kin, Syriac, N'Ko,
# Mandaic, Mongolian, and the Indic scripts from Devanagari to Khmer.
_JOINED = re.compile("[\u0600-\u08ff\u0900-\u109f\u1780-\u18af\ua8e0-\ua8ff\ufb50-\ufdff\ufe70-\ufefc]")


def clean(text: str) -> Cleaned:
    """Remove hidden characters; leave those that a script or an emoji needs."""
    if text.isascii() or not _SUSPECTS.search(text):
        return Cleaned(text, 0)
    keep = _kept_spans(text)
    paired = _paired(text) if _RIGHT_TO_LEFT.search(text) else frozenset()
    parts: list[str] = []
    done = removed = 0
    for match in _SUSPECTS.finditer(text):
        at = match.start()
        if at in keep or at in paired or _needed(text, at):
            continue
        parts.append(text[done:at])
        done, removed = at + 1, removed + 1
    return Cleaned("".join((*parts, text[done:])), removed)


def _kept_spans(text: str) -> set[int]:
    """Tag characters that spell the flag of a region, as those of Scotland or Wales do."""
    return {at for match in _FLAG.finditer(text) for at in range(*match.span())}


def _paired(text: str) -> set[int]:
    """Bidirectional marks, and embeddings and isolates that are closed again on their line."""
    kept: set[int] = set()
    stack: list[tuple[int, str]] = []
    for at, char in enumerate(text):
        if char in _MARKS:
            kept.add(at)
        elif char in _OPENS:
            stack.append((at, _OPENS[char]))
        elif char in _CLOSES:
            if stack and stack[-1][1] == char:
                kept.update((stack.pop()[0], at))
        elif char == "\n":
            stack.clear()
    return kept


def _needed(text: str, at: int) -> bool:
    """Whether a joiner or selector does something between the characters beside it."""
    char = text[at]
    before = text[at - 1] if at else ""
    after = text[at + 1] if at + 1 < len(text) else ""
    if char in "\u200c\u200d":
        if _JOINED.match(before) and (char == "\u200d" or not after or _JOINED.match(after)):
            return True
        return char == "\u200d" and _is_emoji(before) and _is_emoji(after)
    if "\ufe00" <= char <= "\ufe0f":
        return _is_emoji(before) or _is_ideograph(before) or before in tuple("#*0123456789")
    if "\U000e0100" <= char <= "\U000e01ef":
        return _is_ideograph(before)
    return "\u180b" <= char <= "\u180e" and "\u1800" <= before <= "\u18af"


def _is_emoji(char: str) -> bool:
    if not char:
        return False
    return unicodedata.category(char) in ("So", "Sk", "Sm", "Po") or char == "\ufe0f"


def _is_ideograph(char: str) -> bool:
    return bool(char) and unicodedata.name(char, "").startswith(("CJK ", "KANGXI "))
