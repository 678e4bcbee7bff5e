"""How many tokens a prompt will be counted as, before the provider says so.

There is no exact count offline for Gemini. The piece counter below was fitted to recorded replies
(provider figures of 2025-05 … 2026-08): on 30 prompts its absolute error is 8 % in the median and 41 %
at the 90th percentile, with English text; other scripts and code are expected to be worse. So every
settled call teaches: an estimator keeps, per model, the ratio of the truth to its counts, a little on
the dear side, because a reservation that is too small is a debt and one that is too large only waits.
"""

from __future__ import annotations

import re

from headgate.core.call import Blob, Part

__all__ = ["TokenEstimator", "count_pieces"]

_PIECES = re.compile(r"[^\W\d_]+|\d|(?:([^\w\s])\1*)|_+|\n+|[ \t]{2,}")
_LONG_WORD = 13
_EAST = 0x2E80  # from here on one letter is most of a token

IMAGE_TOKENS = 1102
"""The largest count of one image seen in recordings (a flash model of 2026)."""

PDF_BYTES_PER_TOKEN = 100
OTHER_BYTES_PER_TOKEN = 50

OVERHEAD = 3
MARGIN = 1.15
"""With it 3 % of the recorded prompts were estimated too low."""

_LEARN = 0.1
_STEEP = 0.02


def count_pieces(text: str) -> int:
    """Tokens of a text, by its pieces: words, digits one by one, runs of one sign."""
    total = 0
    for match in _PIECES.finditer(text):
        piece = match[0]
        if not piece[0].isalpha():
            total += 1
        elif ord(piece[0]) >= _EAST:
            total += max(1, round(0.75 * len(piece)))
        else:
            total += 1 + (len(piece) - 1) // _LONG_WORD
    return total


class TokenEstimator:
    """Estimates prompts and learns from what they were counted as. Not locked: losing an update of a
    ratio to another thread costs a little accuracy, once."""

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}

    def count(self, parts: tuple[Part, ...]) -> int:
        """The plain count, before any margin."""
        return OVERHEAD + sum(
            count_pieces(part) if isinstance(part, str) else _media(part) for part in parts
        )

    def estimate(self, model: str, count: int) -> int:
        """What to reserve for a count."""
        return max(1, round(count * self._ratios.get(model, MARGIN)))

    def learn(self, model: str, count: int, actual: int) -> None:
        """A prompt with this count was billed as `actual` tokens.

        The ratio climbs fast after an estimate that was too low and sinks slowly otherwise, so that it
        settles near the fifth-largest in six of the ratios seen.
        """
        if actual <= 0 or count <= 0:
            return
        ratio = self._ratios.get(model, MARGIN)
        seen = actual / count
        step = _LEARN if seen > ratio else _STEEP
        if model in self._ratios or len(self._ratios) < 1000:
            self._ratios[model] = min(8.0, max(0.2, ratio + step * (seen - ratio)))


def _media(blob: Blob) -> int:
    if blob.mime_type.startswith("image/"):
        return IMAGE_TOKENS
    if blob.mime_type == "application/pdf":
        return len(blob.data) // PDF_BYTES_PER_TOKEN + 258
    return len(blob.data) // OTHER_BYTES_PER_TOKEN + 258
