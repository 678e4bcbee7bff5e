"""Taking credentials out of text.

Upstreams echo keys in error messages, so whatever an upstream said is redacted before it goes
anywhere: into an error, a log line or a metric.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from itertools import islice
from urllib.parse import quote

__all__ = ["Redactor", "mask", "one_line", "redact"]

MASK = "[key]"

# Keys Google and Anthropic issue: `AIza…`, `AQ.…`, `sk-ant-…`. Found by shape too, because an upstream
# may echo a key that is not the one this call used. `hgk_…` are those that the gateway issues.
_KEY_SHAPES = re.compile(r"\b(?:AIza|AQ\.|sk-ant-|hgk_)[0-9A-Za-z_.\-]{8,}")

# A part of a key this long is enough to search for it elsewhere, so it must go too.
_FRAGMENT = 12

_MOST_SECRETS = 1_000  # each takes some ten kilobytes to search for


def mask(secret: str) -> str:
    """A name for a secret that cannot be used: its last four characters, if it is long enough."""
    return f"…{secret[-4:]}" if len(secret) >= 20 else "…"


def one_line(text: str) -> str:
    """`text` on one line, without control characters: what an upstream says cannot forge a log line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def redact(text: str, *secrets: str, limit: int = 500) -> str:
    """`text` without any of the secrets, cut to `limit` characters.

    A secret is found as it is, percent-encoded, in base64, and by any 12 characters in a row of these:
    an upstream may have cut it, at either end or at both.
    """
    text = text[: 20 * limit]  # what lies far beyond the cut need not be searched
    for secret in filter(None, secrets):
        for form in _forms(secret):
            text = _without(text, *_pieces(form))
    text = _KEY_SHAPES.sub(MASK, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Redactor:
    """Takes the same secrets out of many texts: what is searched for is prepared once.

    Args:
        secrets: those beyond the first thousand are found by their shape only, if they have one.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._pieces: dict[int, set[str]] = {}
        for secret in islice(filter(None, secrets), _MOST_SECRETS):
            for form in _forms(secret):
                size, pieces = _pieces(form)
                self._pieces.setdefault(size, set()).update(pieces)

    def __call__(self, text: str) -> str:
        """`text` without any of the secrets, in full length."""
        for size, pieces in self._pieces.items():
            text = _without(text, size, pieces)
        return _KEY_SHAPES.sub(MASK, text)


def _forms(secret: str) -> list[str]:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return sorted({secret, quote(secret, safe=""), encoded}, key=len, reverse=True)


def _pieces(form: str) -> tuple[int, set[str]]:
    """A size, and every run of so many characters of `form`."""
    size = min(_FRAGMENT, len(form))
    return size, {form[start : start + size] for start in range(len(form) - size + 1)}


def _without(text: str, size: int, pieces: set[str]) -> str:
    """`text` with a mask for every run that consists of the pieces, which are of one size."""
    kept: list[str] = []
    done = hidden = 0  # text up to here is in `kept`; text up to here is part of the secret
    for start in range(len(text) - size + 1):
        if text[start : start + size] in pieces:
            if start > hidden or not hidden:
                kept += (text[done:start], MASK)
            done = hidden = start + size
    return "".join(kept) + text[done:]
