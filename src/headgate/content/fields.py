"""What requests may say: each field checked, and named where it is wrong.

Texts of any script are taken: letters, digits, marks, punctuation, symbols and blanks. Control
characters are not, nor what reads in another direction than it shows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from headgate.content.problems import RefusedError

__all__ = [
    "DETAIL_WORDS",
    "LANGUAGES",
    "MOST_BODY_BYTES",
    "PresentationOrder",
    "image_prompt_of",
    "language_of",
    "presentation_of",
    "read_json",
    "topic_of",
]

MOST_BODY_BYTES = 64 * 1024
"""Of a JSON body: twenty subtopics of 200 characters in any script are a third of it."""

LONGEST_TOPIC = 200
LONGEST_LEVEL = 50
LONGEST_PROMPT = 500
MOST_SUBTOPICS = 20

LANGUAGES: Mapping[str, str] = {
    "en": "English", "es": "Spanish", "fr": "French", "de": "German", "zh": "Chinese",
    "ja": "Japanese", "ar": "Arabic", "he": "Hebrew", "fa": "Persian", "ur": "Urdu",
}  # fmt: skip
"""Languages that explanations come in, by their codes."""

DETAIL_WORDS: Mapping[str, int] = {
    "lowdetail": 100, "low": 100, "brief": 100,
    "mediumdetail": 150, "medium": 150,
    "highdetail": 300, "high": 300, "detailed": 300,
}  # fmt: skip
"""How many words an explanation has, by level of detail, case-folded; 150 for any other level."""

_WRITTEN = frozenset(
    "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u061c"
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2"
)
"""Of the signs that only shape others, those that people write: joiners (Persian and Urdu are not
written without them), separators (nor are Khmer and Mongolian), marks of direction as Hebrew and Arabic
keyboards have them, the soft hyphen, and the signs of Arabic and Syriac that stand around numbers. What
turns a whole run of text around is none of them."""

_NO_CHARACTERS = range(0xFDD0, 0xFDF0)
"""With the last two of each plane: code points that never will be any (Unicode, section 23.7)."""

_BLANKS = "\n\t"


class PresentationOrder(Struct, frozen=True):
    """What explanations are asked for, and how.

    Attributes:
        language: its code.
    """

    topic: str
    focus: tuple[str, ...]
    education_level: str = "General"
    detail: str = "mediumDetail"
    learning_style: str = "General"
    language: str = "en"

    @property
    def words(self) -> int:
        """How long an explanation is to be."""
        return DETAIL_WORDS.get(self.detail.casefold().replace(" ", ""), 150)


def read_json(body: bytes, content_type: str) -> dict[str, Any]:
    """The object in a body. Raises `RefusedError`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise _refused("The body must be application/json.", "malformed", status=415)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise _refused("The body is no JSON.", "malformed") from None
    if not isinstance(value, dict):
        raise _refused("The body must be a JSON object.", "wrong_type")
    return value


def topic_of(body: Mapping[str, Any]) -> str:
    """The topic. Raises `RefusedError`."""
    return _text(body.get("topic"), "topic", LONGEST_TOPIC)


def image_prompt_of(body: Mapping[str, Any]) -> str:
    """What an image is to show; it may have lines. Raises `RefusedError`."""
    return _text(body.get("prompt"), "prompt", LONGEST_PROMPT, blanks=_BLANKS)


def presentation_of(body: Mapping[str, Any], accept_language: str) -> PresentationOrder:
    """What explanations are asked for. Raises `RefusedError`."""
    focus = body.get("focus")
    if not isinstance(focus, list) or not 1 <= len(focus) <= MOST_SUBTOPICS:
        raise _refused(f"focus takes a list of 1 to {MOST_SUBTOPICS} subtopics.", "other")
    return PresentationOrder(
        topic_of(body),
        tuple(_text(item, f"focus[{at}]", LONGEST_TOPIC) for at, item in enumerate(focus)),
        _level(body, "educationLevel", "General"),
        _level(body, "levelOfDetail", "mediumDetail"),
        _level(body, "learningStyle", "General"),
        _language(body, accept_language),
    )


def language_of(accept_language: str) -> str:
    """The first language of a header that there are explanations in; English where there is none."""
    ranked: list[tuple[float, int, str]] = []
    for place, item in enumerate(accept_language.split(",")[:20]):
        name, _, parameters = item.partition(";")
        try:
            weight = float(parameters.partition("q=")[2] or 1)
        except ValueError:
            continue
        code = name.strip().partition("-")[0].lower()
        if code in LANGUAGES and weight > 0:
            ranked.append((-weight, place, code))
    return min(ranked)[2] if ranked else "en"


def _language(body: Mapping[str, Any], accept_language: str) -> str:
    given = body.get("language")
    if given is None:
        return language_of(accept_language)
    code = given.strip().lower().partition("-")[0] if isinstance(given, str) else ""
    if code not in LANGUAGES:
        raise _refused(f"language takes one of {', '.join(LANGUAGES)}.", "other")
    return code


def _level(body: Mapping[str, Any], name: str, default: str) -> str:
    return default if body.get(name) is None else _text(body[name], name, LONGEST_LEVEL)


def _text(value: object, name: str, longest: int, *, blanks: str = "") -> str:
    if value is None:
        raise _refused(f"{name} is missing.", "missing")
    if not isinstance(value, str):
        raise _refused(f"{name} takes a text.", "wrong_type")
    text = unicodedata.normalize("NFC", value).strip()
    if not 1 <= len(text) <= longest:
        raise _refused(f"{name} takes 1 to {longest} characters.", "too_long" if text else "empty")
    if not all(sign in blanks or _is_plain(sign) for sign in text):
        raise _refused(f"{name} holds characters that nobody can read.", "control_characters")
    if not any(sign.isalnum() for sign in text):
        raise _refused(f"{name} holds no letter and no digit.", "empty")
    return text


def _is_plain(sign: str) -> bool:
    """Not a control, a half of a pair, nor what means nothing. What this Python does not know may well
    be a letter: scripts and emoji are added every year."""
    kind = unicodedata.category(sign)
    if kind == "Cn":
        return ord(sign) not in _NO_CHARACTERS and ord(sign) & 0xFFFE != 0xFFFE and not _is_tag(sign)
    return (kind[0] != "C" and sign not in "\u2028\u2029") or sign in _WRITTEN


def _is_tag(sign: str) -> bool:
    """Plane 14, where what nobody sees has its place, now and later."""
    return 0xE0000 <= ord(sign) <= 0xE0FFF


def _refused(
    sentence: str, issue: str, validator: str = "request", *, status: int = 400
) -> RefusedError:
    return RefusedError(sentence, status=status, validator=validator, issue=issue)
