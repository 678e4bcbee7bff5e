"""What of a text may be shown in a log or a trace: its beginning, no key, no personal data. Pure."""

from __future__ import annotations

from headgate.policy.privacy.recognise import find
from headgate.policy.redaction import Redactor, one_line

__all__ = ["excerpt", "without_personal_data"]

# Looked at beyond the cut, so that nothing that stands across it is shown in part: the longest address
# there can be has 64 characters, an @ and 8 labels of 63; a key is shorter.
_BEYOND = 700


def without_personal_data(text: str) -> str:
    """A text with a marker, such as `[EMAIL]`, for all personal data of a checkable form."""
    parts: list[str] = []
    done = 0
    for piece in find(text):
        parts += (text[done : piece.start], f"[{piece.kind}]")
        done = piece.stop
    return "".join((*parts, text[done:]))


def excerpt(text: str, most: int, redactor: Redactor, *, personal: bool = True) -> str:
    """The first `most` characters of a text, on one line.

    Args:
        redactor: takes keys out; there is no way to leave them in.
        personal: take personal data of a checkable form out too.
    """
    if most <= 0:
        return ""
    looked_at = redactor(text[: most + _BEYOND])
    whole = len(text) <= most + _BEYOND
    stop = min(most, len(looked_at) if whole else len(looked_at) - _BEYOND)
    parts: list[str] = []
    done = 0
    for piece in find(looked_at) if personal else ():
        if piece.start >= stop:
            break
        parts += (looked_at[done : piece.start], f"[{piece.kind}]")
        done = piece.stop
    parts.append(looked_at[done:stop])
    cut = "" if whole and stop == len(looked_at) else "…"
    return one_line("".join(parts)) + cut
