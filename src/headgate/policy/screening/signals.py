"""Signs that a text tries to give a model orders: a score to log and to look at, no protection.

Patterns find the clumsiest attempts only. They cannot tell an attack from a question about attacks, and
whoever writes an attack can write it so that none fits. So the score is told, and decides nothing.
What can be done exactly stands beside it: `escape_template_tokens`, `delimited`, and `invisible.clean`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Signals", "delimited", "escape_template_tokens", "signals"]


class Signals(NamedTuple):
    """What was seen in a text.

    Attributes:
        score: 0.0 (nothing) to 1.0.
        names: which signs, in the order they are listed here.
    """

    score: float
    names: tuple[str, ...]


# Every quantifier is bounded, so the time is linear in the text whatever it holds.
_EARLIER = (
    r"(?:all |any |the |of |your |my |these |those |every |system |prior |previous |preceding |above |"
    r"earlier |initial |original ){1,5}"
)
_ORDERS = r"(?:instructions?|prompts?|directions?|guidelines?|commands?|orders?|rules)"
_OF_A_GAME = r"(?! (?:in|on|from|of) the (?:book|manual|box|recipe|game))"
_HIDDEN = r"(?:full |entire |exact |hidden |secret |initial |original )?"
_SYSTEM = r"(?:system prompt|system message|initial prompt|hidden instructions)"
_FREE = r"(?:dan\b|developer mode|jailbroken|bound by|restricted by|unrestricted)"
_PATTERNS = {
    (
        "override",
        0.7,
    ): rf"\b(?:ignore|disregard|forget|override|bypass) {_EARLIER}{_ORDERS}\b{_OF_A_GAME}",
    ("new_orders", 0.5): (
        rf"(?:\A|[\n.!:]) {{0,4}}(?:new|updated|real|actual) (?:system )?{_ORDERS} {{0,2}}:"
    ),
    ("reveal", 0.6): (
        r"\b(?:reveal|print|show|repeat|output|leak|tell me) (?:me )?(?:your |the )" + _HIDDEN + _SYSTEM
    ),
    ("unbound", 0.6): rf"\byou are (?:now|no longer) (?:in )?{_FREE}",
    ("template_tokens", 0.6): (
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|start_header_id|eot_id)\|>"
        r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    ),
}
# Each pattern is tried only where one of these is there: looking for a text is a hundred times faster.
_MARKS = {
    "override": ("ignore", "disregard", "forget", "override", "bypass"),
    "new_orders": ("new ", "updated ", "real ", "actual "),
    "reveal": ("system prompt", "system message", "initial prompt", "hidden instructions"),
    "unbound": ("you are now", "you are no longer"),
    "template_tokens": ("<|", "inst]", "sys>>", "_of_turn>"),
}
_SIGNS = [
    (name, weight, _MARKS[name], re.compile(text, re.IGNORECASE))
    for (name, weight), text in _PATTERNS.items()
]
_TEMPLATE_TOKENS = re.compile(
    r"<\|[a-z_]{2,24}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?s>(?=\s*\[INST\])"
)


def signals(text: str) -> Signals:
    """Which signs a text shows; the score is that at least one of them means something."""
    folded = text.casefold()
    seen = [
        (name, weight)
        for name, weight, marks, sign in _SIGNS
        if any(mark in folded for mark in marks) and sign.search(text)
    ]
    innocent = 1.0
    for _, weight in seen:
        innocent *= 1 - weight
    return Signals(round(1 - innocent, 3), tuple(name for name, _ in seen))


def escape_template_tokens(text: str) -> str:
    """The text with the control tokens of chat templates broken up, so that no tokenizer reads one.

    A zero-width character would be invisible itself; a space is honest.
    """
    if "<" not in text and "[" not in text:
        return text
    return _TEMPLATE_TOKENS.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)


def delimited(text: str, nonce: str) -> str:
    """Text of somebody else between two lines that it cannot imitate.

    Args:
        nonce: unguessable and new for each call; the text must not contain it.

    Raises:
        ValueError: the text contains the nonce, or the nonce is shorter than 8 characters.
    """
    if len(nonce) < 8 or nonce in text:
        raise ValueError("a nonce has 8 characters or more and does not occur in the text")
    return f"<untrusted-{nonce}>\n{text}\n</untrusted-{nonce}>"
