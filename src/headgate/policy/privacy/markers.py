"""Markers in place of personal data, and the way back.

    taken = take_out("Mail ada@example.org", numbered=True)
    taken.text                                  # "Mail [EMAIL_1]"
    taken.restore("I wrote to [EMAIL_1].")      # "I wrote to ada@example.org."

The same value gets the same marker everywhere in a call, so a reply can tell people apart. A marker the
text already held is never used for anything else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from headgate.policy.privacy.recognise import PersonalData, find

__all__ = ["Redaction", "Restorer", "take_out"]

_MARKER = re.compile(r"\[(?:EMAIL|PHONE|SSN|CREDIT_CARD|IBAN|IP)_\d{1,6}\]")
_LONGEST = len("[CREDIT_CARD_999999]")
_BEGINNING = re.compile(r"\[[A-Z_]{0,12}\d{0,6}\Z")


class Redaction:
    """What was taken out of the texts of one call.

    Attributes:
        texts: the texts with markers, in the order they came.
        counts: how many pieces of each kind were taken out.
    """

    __slots__ = ("_values", "counts", "texts")

    def __init__(self, texts: list[str], counts: Counter[PersonalData], values: dict[str, str]) -> None:
        self.texts = texts
        self.counts = counts
        self._values = values

    def __repr__(self) -> str:
        return f"Redaction({dict(self.counts)!r})"  # never the values

    @property
    def text(self) -> str:
        """The first text."""
        return self.texts[0]

    @property
    def reversible(self) -> bool:
        """Whether there is anything to put back."""
        return bool(self._values)

    def restore(self, text: str) -> str:
        """A reply with every marker replaced by what it stands for."""
        return _restored(text, self._values)

    def restorer(self) -> Restorer:
        """The same for a reply that comes in pieces."""
        return Restorer(self._values)


class Restorer:
    """Puts values back into a reply that comes in pieces, wherever a piece ends.

    What may be the beginning of a marker is held back until the next piece tells.
    """

    __slots__ = ("_held", "_values")

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._held = ""

    def feed(self, piece: str) -> str:
        """What may be passed on after this piece."""
        text = self._held + piece
        beginning = _BEGINNING.search(text, max(0, len(text) - _LONGEST)) if self._values else None
        cut = len(text) if beginning is None else beginning.start()
        self._held = text[cut:]
        return _restored(text[:cut], self._values)

    def finish(self) -> str:
        """What was held back, when no piece is left."""
        held, self._held = self._held, ""
        return held


def take_out(*texts: str, numbered: bool = False) -> Redaction:
    """Replace the personal data in the texts of a call by markers.

    Args:
        numbered: `[EMAIL_1]`, which can be put back, instead of `[EMAIL]`, which cannot.
    """
    used = {marker for text in texts for marker in _MARKER.findall(text)} if numbered else set()
    counts: Counter[PersonalData] = Counter()
    markers: dict[tuple[PersonalData, str], str] = {}
    last: Counter[PersonalData] = Counter()
    redacted = []
    for text in texts:
        parts: list[str] = []
        done = 0
        for piece in find(text):
            counts[piece.kind] += 1
            marker = f"[{piece.kind}]"
            if numbered:
                value = text[piece.start : piece.stop]
                marker = markers.get((piece.kind, value)) or _next(piece.kind, used, last)
                markers[piece.kind, value] = marker
            parts += (text[done : piece.start], marker)
            done = piece.stop
        redacted.append("".join((*parts, text[done:])))
    return Redaction(redacted, counts, {marker: value for (_, value), marker in markers.items()})


def _next(kind: PersonalData, used: set[str], last: Counter[PersonalData]) -> str:
    number = last[kind] + 1
    while (marker := f"[{kind}_{number}]") in used:
        number += 1
    last[kind] = number
    return marker


def _restored(text: str, values: Mapping[str, str]) -> str:
    if not values or "[" not in text:
        return text
    return _MARKER.sub(lambda match: values.get(match.group(), match.group()), text)
