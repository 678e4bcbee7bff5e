"""How many tokens a prompt will be counted as, before the provider says so.

There is no exact count offline for Gemini. The piece counter below was fitted to recorded replies
(provider figures of 2025-05 … 2026-08): on 30 prompts its absolute error is 8 % in the median and 41 %
at the 90th percentile, with English text; other scripts and code are expected to be worse. So every
settled call teaches: an estimator keeps, per model, the ratio of the truth to its counts, a little on
the dear side, because a reservation that is too small is a debt and one that is too large only waits.

How long an answer will be nobody knows. Reserved is a quantile of those seen, by model and by size of
the prompt in octaves, kept by online conformal correction (Gibbs and Candès, 2021): each answer that
was longer than reserved raises it by STEP × (1 − SHORT) octaves, each other lowers it by STEP × SHORT.
So the share of answers that were longer tends to SHORT, whatever their distribution is.

`ceiling` is for those who must never reserve too little: a token is at least one byte of text.
"""

from __future__ import annotations

import math
import re

from headgate.core.call import Blob, Part

__all__ = [
    "FIRST_OUTPUT",
    "LONGEST_OUTPUT",
    "SHORT",
    "STEP",
    "TokenEstimator",
    "ceiling",
    "count_pieces",
    "largest_media",
    "media_tokens",
    "prefix_within",
]

_PIECES = re.compile(r"[^\W\d_]+|\d|(?:([^\w\s])\1*)|_+|\n+|[ \t]{2,}")
_PLAIN_SIGNS = [sign for sign in map(chr, range(128)) if re.fullmatch(r"[^\w\s]", sign)]
_RUNS = [f"{re.escape(sign)}+" for sign in sorted(_PLAIN_SIGNS, key=lambda sign: sign not in ".,-'()/")]
_ASCII_PIECES = re.compile("|".join(["[A-Za-z]+", "[ \t]+", "[0-9]", *_RUNS, "_+", "\n+"]))
"""The same, and a single space or tab, of plain text: without a group `findall` makes no matches."""
_LONG_WORD = 13
_EAST = 0x2E80  # from here on one letter is most of a token

IMAGE_TOKENS = 1102
"""The largest count of one image seen in recordings (a flash model of 2026)."""

PDF_BYTES_PER_TOKEN = 100
VIDEO_BYTES_PER_TOKEN = 500
AUDIO_BYTES_PER_TOKEN = 250
"""A second of video is 258 tokens of pictures, one of sound 32 (Gemini API, video and audio guides,
2026): with a megabit a second of the one, 64 kilobits of the other. Most recordings have more bytes."""

OTHER_BYTES_PER_TOKEN = 50
TEXT_BYTES_PER_TOKEN = 4
"""Of files of text; Google's own rule of thumb for English."""

OVERHEAD = 3
MARGIN = 1.15
"""With it 3 % of the recorded prompts were estimated too low."""

SHORT = 0.1
"""The share of answers that may be longer than reserved: they are charged in full when they end."""

STEP = 0.5
"""Octaves. With it an estimate four octaves too low is right after nine answers."""

FIRST_OUTPUT = 1024
"""Tokens reserved for a first answer whose call sets no bound: a guess of ours."""

LONGEST_OUTPUT = 65_536
"""Tokens of an answer whose call sets no bound, at the most: the output limit of the flash models of
2026 (Gemini API, models page, read 2026-11)."""

LARGEST_IMAGE = 2240
"""Tokens of an image at the highest media resolution (Gemini API, media resolution page, 2026)."""

_LONGEST_OCTAVE = 20.0
_MOST_LESSONS = 1000

_LEARN = 0.1
_STEEP = 0.02


def count_pieces(text: str) -> int:
    """Tokens of a text, by its pieces: words, digits one by one, runs of one sign."""
    if text.isascii():  # half the time: a prompt is counted on the path of its call
        pieces: list[str] = _ASCII_PIECES.findall(text)
        long_words = [piece for piece in pieces if len(piece) > _LONG_WORD and piece.isalpha()]
        more = sum([(len(word) - 1) // _LONG_WORD for word in long_words])
        return len(pieces) - pieces.count(" ") - pieces.count("\t") + more
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


def prefix_within(text: str, tokens: int) -> int:
    """How many characters from the start `count_pieces` counts as so many tokens at the most."""
    left = tokens
    for match in _PIECES.finditer(text):
        piece = match[0]
        cost = count_pieces(piece)
        if cost > left:
            share = len(piece) * left // cost  # of a long word; of a run of one sign there is none
            return match.start() + (share if piece[0].isalpha() else 0)
        left -= cost
    return len(text)


class TokenEstimator:
    """Estimates prompts and learns from what they were counted as. Not locked: losing an update of a
    ratio to another thread costs a little accuracy, once."""

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}
        self._octaves: dict[tuple[str, int], float] = {}

    def count(self, parts: tuple[Part, ...]) -> int:
        """The plain count, before any margin."""
        return OVERHEAD + sum(
            count_pieces(part) if isinstance(part, str) else media_tokens(part) for part in parts
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

    def output(self, model: str, count: int, most: int | None) -> int:
        """What to reserve for the answer to a prompt with this count.

        Args:
            most: tokens of the answer at the most, where the call sets a bound. Until something was
                learned, all of them are reserved.
        """
        octaves = self._octaves.get((model, count.bit_length()))
        if octaves is None:
            return most or FIRST_OUTPUT
        tokens = math.ceil(math.exp2(octaves))
        return tokens if most is None else min(most, tokens)

    def learn_output(self, model: str, count: int, actual: int, *, short: bool) -> None:
        """The answer to a prompt with this count had `actual` tokens.

        Args:
            short: whether that was more than had been reserved for it.
        """
        lesson = (model, count.bit_length())
        octaves = self._octaves.get(lesson)
        if octaves is None:
            if len(self._octaves) < _MOST_LESSONS:
                self._octaves[lesson] = math.log2(max(1, actual)) + STEP
            return
        octaves += STEP * (short - SHORT)
        self._octaves[lesson] = min(_LONGEST_OCTAVE, max(0.0, octaves))


def ceiling(parts: tuple[Part, ...]) -> int:
    """Tokens of a prompt at the most. For text that is certain; for media it is the largest count known
    for its kind, and a file whose pages are smaller than known ones may exceed it."""
    return OVERHEAD + sum(
        len(part.encode()) if isinstance(part, str) else largest_media(part) for part in parts
    )


def largest_media(blob: Blob) -> int:
    """Tokens of a piece of media at the most, as far as its kind is known."""
    if blob.mime_type.startswith("text/"):
        return blob.size
    return LARGEST_IMAGE if blob.mime_type.startswith("image/") else 2 * media_tokens(blob)


def media_tokens(blob: Blob) -> int:
    """Tokens of a piece of media, by its kind and size."""
    if blob.mime_type.startswith("image/"):
        return IMAGE_TOKENS
    if blob.mime_type == "application/pdf":
        return blob.size // PDF_BYTES_PER_TOKEN + 258
    if blob.mime_type.startswith("text/"):
        return blob.size // TEXT_BYTES_PER_TOKEN + 1
    if blob.mime_type.startswith("video/"):
        return blob.size // VIDEO_BYTES_PER_TOKEN + 258
    if blob.mime_type.startswith("audio/"):
        return blob.size // AUDIO_BYTES_PER_TOKEN + 258
    return blob.size // OTHER_BYTES_PER_TOKEN + 258
