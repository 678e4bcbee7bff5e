"""Short plausible texts made of a prompt's own words. Nothing in them is true."""

from __future__ import annotations

import re

from headgate.emulator.chance import Chance

__all__ = ["Markers", "answer", "key_words", "markers", "thoughts"]

_WORD = re.compile(r"[^\W\d_][\w’'-]*")
_MARKER = re.compile(r"\[\[(call|words):([\w.:-]{1,64})\]\]")
_COMMON_WORDS = (
    "about above after again also answer because been before being below between both could does "
    "each explain from give have having here into just list make more most much must name need "
    "only other over please same shall should show some such tell than that their them then there "
    "these they this those through under until very want was were what when where which while "
    "whom with word words would write your "
)
_COMMON = frozenset(_COMMON_WORDS.split())
_OPENINGS = (
    "A short answer first: {a} is mostly a question of {b}.",
    "There are two sides to {a}, and {b} decides between them.",
    "Think of {a} as a gate that {b} opens and closes.",
    "Most people begin with {a}, and that is a good place to begin.",
)
_MIDDLES = (
    "When {a} grows, {b} has to give way a little.",
    "It helps to look at {a} before anything is said about {b}.",
    "In practice {a} and {b} are rarely far apart.",
    "A careful reader will notice that {b} comes back whenever {a} is left alone.",
    "The usual mistake is to measure {a} once and to trust it for ever.",
    "Where {a} is steady, {b} can be planned a day ahead.",
    "None of this needs more than patience, a notebook and some {a}.",
)
_CLOSINGS = (
    "That is the whole of it: {a}, and a little time.",
    "So start small, keep an eye on {a}, and change one thing at a time.",
    "If only one thing stays in mind, let it be {a}.",
)
_THOUGHTS = (
    "**Reading the question**\n\nThe wording points at {a}. I compare it with {b} first.\n\n\n",
    "**Weighing {a}**\n\nI look at {a} from the side of {b}, and keep what both have in common.\n\n\n",
)


class Markers:
    """What a prompt asks the emulator itself for.

    `[[call:NAME]]` calls the declared function of that name; `[[words:N]]` makes the text N words.
    """

    def __init__(self, text: str) -> None:
        found = dict(_MARKER.findall(text))
        self.call: str | None = found.get("call")
        wanted = found.get("words", "")
        self.words: int | None = min(int(wanted), 100_000) if wanted.isdecimal() else None


def markers(text: str) -> Markers:
    """The markers in a prompt; the last of each kind counts."""
    return Markers(text)


def key_words(text: str) -> list[str]:
    """Up to six words of the text that stand for what it is about, in their order."""
    found: list[str] = []
    for word in _WORD.findall(_MARKER.sub(" ", text)):
        if len(word) > 3 and word.lower() not in _COMMON and word not in found:
            found.append(word)
    longest = sorted(found, key=len, reverse=True)[:6]
    return [word for word in found if word in longest]


def answer(text: str, chance: Chance) -> str:
    """Some 20 to 120 words about the text's key words, or exactly as many as it asks for."""
    words = key_words(text) or ["water", "time"]
    wanted = markers(text).words
    sentences = [_sentence(chance.choice(_OPENINGS), words, 0, chance)]
    if wanted is not None:
        while sum(len(s.split()) for s in sentences) < wanted:
            sentences.append(_sentence(chance.choice(_MIDDLES), words, None, chance))
        return " ".join(" ".join(sentences).split()[:wanted])
    middles = range(1, 2 + chance.randrange(6))
    sentences += [_sentence(chance.choice(_MIDDLES), words, index, chance) for index in middles]
    sentences.append(_sentence(chance.choice(_CLOSINGS), words, 0, chance))
    return " ".join(sentences)


def thoughts(text: str, chance: Chance) -> str:
    """The summary of thoughts that `includeThoughts` asks for."""
    return _sentence(chance.choice(_THOUGHTS), key_words(text) or ["water", "time"], 0, chance)


def _sentence(form: str, words: list[str], index: int | None, chance: Chance) -> str:
    place = chance.randrange(len(words)) if index is None else index % len(words)
    return form.format(a=words[place], b=words[(place + 1) % len(words)])
