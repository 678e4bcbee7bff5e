"""How good generated content looks: documented heuristics, the same for the same text, from 0 to 1.

They look at form, not at truth: how many items there are, how long they are, whether a model refused or
said nothing. All scripts count alike: where a script writes no spaces, two wide characters are a word.

    subtopics     from 1.0: −0.2 for each issue (under 70 % of the expected number, a duplicate, an item
                  under 3 characters), −0.1 for each warning (an item over 8 words); valid from 0.6
    explanation   from 1.0: a refusal → 0; −0.5 under 20 words; −0.1 to −0.2 over 500; −0.3 for less
                  than two sentences; −0.1 for each generic phrase, up to −0.3; ±0.1 for the topic's
                  own words; valid from 0.5
    topic         1.0; 0.3 with an issue; 0.0 where there is none
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Assessment", "assess_explanation", "assess_subtopics", "assess_topic", "count_words"]

ISSUE, WARNING = 0.2, 0.1
ENOUGH_SUBTOPICS = 0.7
SHORTEST_ITEM = 3
LONGEST_ITEM_WORDS = 8
VALID_SUBTOPICS = 0.6

FEWEST_WORDS, MOST_WORDS = 20, 500
FAR_TOO_MANY_WORDS = 1000
"""From here on overlong costs its most."""
VALID_EXPLANATION = 0.5

LONGEST_TOPIC = 200
MOST_TOPIC_WORDS = 12
WITH_ISSUES = 0.3
VALID_TOPIC = 0.5

_REFUSALS = (
    "i cannot help", "i can't help", "i cannot assist", "i can't assist", "i'm unable to",
    "i am unable to",
    "i'm sorry, but i", "i am sorry, but i", "as an ai language model", "i cannot provide",
    "i can't provide", "no puedo ayudar", "lo siento, pero no puedo", "je ne peux pas vous aider",
    "je suis désolé, mais je ne", "ich kann dabei nicht helfen", "es tut mir leid, aber ich kann",
    "我无法提供", "抱歉，我无法", "申し訳ありませんが、", "お手伝いできません", "لا أستطيع مساعدتك",
    "לא אוכל לעזור", "نمی‌توانم کمک کنم", "میں مدد نہیں کر سکتا",
)  # fmt: skip
"""What models say instead of an answer, in the ten languages of the page; compared case-folded."""

_GENERIC = (
    "in today's world", "plays a crucial role", "plays an important role", "it is important to note",
    "as we all know", "there are many", "is a complex topic", "in conclusion,", "delve into",
    "ever-evolving",
)  # fmt: skip
"""Phrases that fit any subject."""

_NO_TOPICS = frozenset({
    "image", "picture", "photo", "unknown", "n/a", "none", "null", "untitled", "topic", "object",
})  # fmt: skip

_SENTENCE_ENDS = re.compile(r"[.!?…؟۔।]+(?=[\s\"'”’»)\]]|$)|[。！？]+")
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


class Assessment(Struct, frozen=True):
    """What the heuristics say of a text.

    Attributes:
        score: from 0 to 1, in hundredths.
        valid: whether it is good enough to be given.
        issues, warnings: sentences for a person; they quote nothing of the text.
        codes: the same in words for programs, each once.
    """

    score: float
    valid: bool
    issues: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str] | None:
        """Issues and warnings together; None: there are none."""
        return [*self.issues, *self.warnings] or None


class _Remarks:
    """What is found on the way."""

    def __init__(self) -> None:
        self.issues: list[str] = []
        self.warnings: list[str] = []
        self.codes: dict[str, None] = {}

    def issue(self, code: str, sentence: str) -> None:
        self.issues.append(sentence)
        self.codes[code] = None

    def warn(self, code: str, sentence: str) -> None:
        self.warnings.append(sentence)
        self.codes[code] = None

    def assessment(self, score: float, valid_from: float) -> Assessment:
        score = _hundredths(score)
        texts = (tuple(self.issues), tuple(self.warnings), tuple(self.codes))
        return Assessment(score, score >= valid_from, *texts)

    def hopeless(self, code: str, sentence: str) -> Assessment:
        self.issue(code, sentence)
        return self.assessment(0.0, 1.0)


def assess_subtopics(items: Sequence[str], expected: int) -> Assessment:
    """Of a list of subtopics.

    Args:
        expected: how many were asked for.
    """
    found, seen = _Remarks(), set[str]()
    if not items:
        return found.hopeless("empty", "there are no subtopics")
    if len(items) < ENOUGH_SUBTOPICS * expected:
        found.issue("too_few", f"only {len(items)} of {expected} subtopics")
    for number, item in enumerate(items, start=1):
        plain = _plain(item)
        if plain in seen:
            found.issue("duplicate", f"subtopic {number} is a duplicate")
        seen.add(plain)
        if _width(plain) < SHORTEST_ITEM:
            found.issue("too_short", f"subtopic {number} is shorter than {SHORTEST_ITEM} characters")
        if count_words(item) > LONGEST_ITEM_WORDS:
            found.warn("too_long", f"subtopic {number} is longer than {LONGEST_ITEM_WORDS} words")
    score = 1.0 - ISSUE * len(found.issues) - WARNING * len(found.warnings)
    return found.assessment(score, VALID_SUBTOPICS)


def assess_explanation(text: str, topic: str) -> Assessment:
    """Of an explanation.

    Args:
        topic: what it is to explain.
    """
    folded, found, score = _plain(text), _Remarks(), 1.0
    if not folded:
        return found.hopeless("empty", "there is no explanation")
    if any(phrase in folded for phrase in _REFUSALS):
        return found.hopeless("refusal", "the model refused")
    words = count_words(text)
    if words < FEWEST_WORDS:
        found.issue("too_short", f"shorter than {FEWEST_WORDS} words")
        score -= 0.5
    if words > MOST_WORDS:
        found.warn("too_long", f"longer than {MOST_WORDS} words")
        beyond = min(1.0, (words - MOST_WORDS) / (FAR_TOO_MANY_WORDS - MOST_WORDS))
        score -= 0.1 + 0.1 * beyond
    if len(_SENTENCE_ENDS.findall(text)) < 2:
        found.issue("one_sentence", "fewer than two sentences")
        score -= 0.3
    generic = min(3, sum(phrase in folded for phrase in _GENERIC))
    if generic:
        found.warn("generic", "generic phrases")
        score -= 0.1 * generic
    overlap = _overlap(folded, topic)
    if overlap < 0:
        found.warn("off_topic", "none of the topic's words")
    return found.assessment(score + overlap, VALID_EXPLANATION)


def assess_topic(topic: str) -> Assessment:
    """Of a topic that was read from an image."""
    plain, found = _plain(topic), _Remarks()
    if not plain:
        return found.hopeless("empty", "there is no topic")
    if len(plain) > LONGEST_TOPIC or count_words(plain) > MOST_TOPIC_WORDS:
        found.issue("too_long", "a sentence rather than a topic")
    if any(phrase in plain for phrase in _REFUSALS):
        found.issue("refusal", "the model refused")
    if plain.strip(".!?\"'`* ") in _NO_TOPICS or not any(sign.isalnum() for sign in plain):
        found.issue("generic", "it names nothing")
    return found.assessment(WITH_ISSUES if found.issues else 1.0, VALID_TOPIC)


def count_words(text: str) -> int:
    """Words, in any script: where one writes no spaces, two wide characters count as one."""
    wide = sum(_is_wide(sign) for sign in text)
    narrow = "".join(" " if _is_wide(sign) else sign for sign in text) if wide else text
    return len(_WORD.findall(narrow)) + math.ceil(wide / 2)


def _overlap(folded: str, topic: str) -> float:
    """+0.1 where half of the topic's words are in the text, −0.1 where none is; 0 between, and for a
    topic without words."""
    words = {word for word in _WORD.findall(_plain(topic)) if _width(word) >= SHORTEST_ITEM}
    if not words:
        return 0.0
    found = sum(word in folded for word in words)
    if found == 0:
        return -0.1
    return 0.1 if 2 * found >= len(words) else 0.0


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _width(text: str) -> int:
    return sum(2 if _is_wide(sign) else 1 for sign in text)


def _is_wide(sign: str) -> bool:
    return sign > "\u10ff" and unicodedata.east_asian_width(sign) in "WF" and sign.isalnum()


def _hundredths(score: float) -> float:
    return round(min(1.0, max(0.0, score)), 2)
