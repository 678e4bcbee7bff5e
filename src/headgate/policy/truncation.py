"""Makes a prompt fit a budget of tokens: whole turns go first, then the end of the longest text.

What is kept, in this order: the system instruction, always; the prompt's last words as far as they
fit; the newest turns of the conversation. Nothing is cut inside what a reader sees as one character.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from headgate.policy.estimate import count_pieces, prefix_within

__all__ = ["Fitted", "border", "fit_texts", "turns_to_drop"]

_LOOK_BACK = 64
"""Characters: the longest cluster that is kept whole. Longer ones are made to hurt, not to be read."""

_JOINER = "\u200d"


class Fitted(NamedTuple):
    """Texts that fit, in their order, and how many characters were cut from their ends."""

    texts: list[str]
    cut: int


def turns_to_drop(sizes: Sequence[int], budget: int) -> int:
    """How many of the oldest turns must go so that the rest fits.

    Args:
        sizes: tokens of each turn, oldest first.
        budget: tokens all of them may have.

    A user's turn and the answer to it go together: a conversation begins with a user.
    """
    total, dropped = sum(sizes), 0
    while dropped < len(sizes) and total > budget:
        total -= sum(sizes[dropped : dropped + 2])
        dropped = min(len(sizes), dropped + 2)
    return dropped


def fit_texts(texts: Sequence[str], budget: int) -> Fitted:
    """Cut the longest texts from their ends until all together count as `budget` tokens at the most.

    Linear in the characters. Tokens are those of `count_pieces`, without a margin.
    """
    sizes = [count_pieces(text) for text in texts]
    allowed = _levelled(sizes, max(0, budget))
    fitted, cut = [], 0
    for text, size, room in zip(texts, sizes, allowed, strict=True):
        kept = text if size <= room else text[: border(text, prefix_within(text, room))]
        fitted.append(kept)
        cut += len(text) - len(kept)
    return Fitted(fitted, cut)


def _levelled(sizes: Sequence[int], budget: int) -> list[int]:
    """What each may have: short ones all they need, the long ones the same share of the rest."""
    allowed = [0] * len(sizes)
    left = budget
    for done, index in enumerate(sorted(range(len(sizes)), key=lambda at: sizes[at])):
        allowed[index] = min(sizes[index], left // (len(sizes) - done))
        left -= allowed[index]
    return allowed


def border(text: str, at: int) -> int:
    """The last place at or before `at` where a text may be cut: not before a combining mark, a joiner,
    a modifier, the second letter of a flag, or the end of a CRLF."""
    least = max(0, at - _LOOK_BACK)
    while least < at < len(text) and _inside(text, at):
        at -= 1
    return at


def _inside(text: str, at: int) -> bool:
    before, after = text[at - 1], text[at]
    if before.isascii() and after.isascii():
        return before == "\r" and after == "\n"
    if _JOINER in (before, after):
        return True
    if _is_flag_letter(after) and _is_flag_letter(before):
        return _letters_before(text, at) % 2 == 1
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return True
    return "\u1160" <= after <= "\u11ff" or unicodedata.category(after) in ("Mn", "Me", "Mc")


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _letters_before(text: str, at: int) -> int:
    count = 0
    while count < min(at, _LOOK_BACK) and _is_flag_letter(text[at - 1 - count]):
        count += 1
    return count
