"""Which models suit a use case, and why. Pure.

A use case is compared with the phrases of each card word by word, by stems: `summarise reports` meets
`summarization`, and `art` never meets `chart`. Models that are gone, that are known to lack something
needed, or that break a limit are left out; of the rest every point of the score has a reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import date

from msgspec import Struct

from headgate.core.model_card import CAPABILITY_WORDS, ModelMetadata
from headgate.policy.registry import lacking, newest_first

__all__ = ["Limits", "ModelRecommendation", "call_cost", "recommend", "stems"]


class Limits(Struct, frozen=True):
    """What a recommended model must keep to. None: no limit.

    Attributes:
        budget: dollars a call may cost, for prompts and answers of the sizes beside it.
        input_tokens, output_tokens: of a typical call.
        needs: accepted query words for capabilities.
        max_latency_ms: a model that was measured to be slower is left out.
    """

    budget: float | None = None
    input_tokens: int = 1000
    output_tokens: int = 500
    needs: tuple[str, ...] = ()
    max_latency_ms: float | None = None


class ModelRecommendation(Struct, frozen=True):
    """A model that suits, with what speaks for it and against it.

    Attributes:
        score: 0 to 1: 0.7 of it for words that meet, 0.15 for a model that is stable, open to all and
            known to have what is needed, 0.1 for its price, 0.05 for its measured speed.
        cost_per_call: dollars, for the sizes that were asked about; None: no price is known.
    """

    metadata: ModelMetadata
    score: float
    reasons: tuple[str, ...]
    cost_per_call: float | None = None

    @property
    def id(self) -> str:
        """The model's name on the wire."""
        return self.metadata.id


_NO_LIMITS = Limits()
_FOR_WORDS, _FOR_CERTAINTY, _FOR_PRICE, _FOR_SPEED = 0.7, 0.15, 0.1, 0.05


def recommend(
    cards: Iterable[ModelMetadata], use_case: str, today: date, limits: Limits = _NO_LIMITS
) -> list[ModelRecommendation]:
    """The models that suit a use case, the best first; of equals the newest.

    Raises `ValueError` for a use case without a word, and for an unknown word for a capability.
    """
    wanted = stems(use_case)
    if not wanted:
        raise ValueError("The use case says nothing")
    if strangers := [word for word in limits.needs if word not in CAPABILITY_WORDS]:
        raise ValueError(
            f"{', '.join(strangers)} is no capability; known are {', '.join(CAPABILITY_WORDS)}"
        )
    fit = [(card, _phrases(card, wanted)) for card in newest_first(cards)]
    fit = [(card, met) for card, met in fit if met and _keeps(card, today, limits)]
    costs = {card.id: call_cost(card, limits) for card, _ in fit}
    speeds = {card.id: card.performance.avg_latency_ms for card, _ in fit}
    found = [
        _judged(card, met, wanted, limits, _rank(costs, card.id), _rank(speeds, card.id))
        for card, met in fit
    ]
    return sorted(found, key=lambda one: one.score, reverse=True)


def call_cost(card: ModelMetadata, limits: Limits) -> float | None:
    """Dollars of a call of that size; None where a price is not known."""
    price = card.pricing
    if price.input_per_million is None:
        return None
    output = price.output_per_million
    if output is None:
        if card.capabilities.text_generation is not False:
            return None
        output = 0.0  # an embedding has no output
    return (price.input_per_million * limits.input_tokens + output * limits.output_tokens) / 1e6


# ── words ───────────────────────────────────────────────────────────────────────────────────────

_WORD = re.compile(r"[^\W_]+")
_SILENT = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "for", "from", "how", "i", "in",
    "into", "is", "it", "make", "me", "my", "need", "of", "on", "or", "our", "some", "that", "the",
    "this", "to", "use", "using", "want", "we", "what", "which", "with", "you", "your",
})  # fmt: skip
_ENDINGS = (
    "ifications", "ification", "isations", "isation", "ations", "ation", "ities", "ions", "ings",
    "ies", "ion", "ing", "ify", "ise", "ity", "ics", "ers", "ed", "er", "es", "ic", "is", "al",
    "e", "s", "y",
)  # fmt: skip
_SHORTEST = 3
_DOUBTFUL = frozenset({"ed", "er", "ic", "is", "al"})  # of a short word they may be the word: embed


def stems(text: str) -> frozenset[str]:
    """The words of a text that say something, each cut to its stem."""
    words = (word.lower() for word in _WORD.findall(text))
    return frozenset(_stem(word) for word in words if word not in _SILENT)


def _stem(word: str) -> str:
    word = word.replace("z", "s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST + (ending in _DOUBTFUL):
            word = word[: -len(ending)]
            break
    if word.endswith("at") and len(word) - 2 >= _SHORTEST + 2:  # translat-e, translation
        word = word[:-2]
    return word[:-1] if len(word) > _SHORTEST and word[-1] == word[-2] else word


def _phrases(card: ModelMetadata, wanted: frozenset[str]) -> dict[str, frozenset[str]]:
    """The phrases of a card that share a word with the use case, and those words."""
    met = {phrase: stems(phrase) & wanted for phrase in card.recommended_use_cases}
    return {phrase: words for phrase, words in met.items() if words}


# ── limits and points ───────────────────────────────────────────────────────────────────────────


def _keeps(card: ModelMetadata, today: date, limits: Limits) -> bool:
    if card.retired(today) or lacking(card, limits.needs):
        return False
    if limits.budget is not None:
        cost = call_cost(card, limits)
        if cost is None or cost > limits.budget:
            return False
    measured = card.performance.avg_latency_ms
    return limits.max_latency_ms is None or measured is None or measured <= limits.max_latency_ms


def _rank(values: dict[str, float | None], model: str) -> float | None:
    """1 for the least of all known values, 0 for the most; None where this one is not known."""
    value = values[model]
    if value is None:
        return None
    known = sorted({other for other in values.values() if other is not None})
    return 1.0 if len(known) == 1 else 1 - known.index(value) / (len(known) - 1)


def _judged(
    card: ModelMetadata,
    met: dict[str, frozenset[str]],
    wanted: frozenset[str],
    limits: Limits,
    cheap: float | None,
    quick: float | None,
) -> ModelRecommendation:
    reasons = ["for " + ", ".join(met)]
    covered = len(frozenset[str]().union(*met.values())) / len(wanted)
    whole = any(words == stems(phrase) for phrase, words in met.items())  # a phrase met to its end
    score = _FOR_WORDS * (0.8 * covered + 0.2 * whole)
    cost = call_cost(card, limits)
    score += _FOR_PRICE * (cheap or 0)
    if cost is None:
        reasons.append("its price is not known")
    else:
        sizes = f"{limits.input_tokens:,} tokens in, {limits.output_tokens:,} out"
        reasons.append(f"${cost:.6f} a call of {sizes}")
    measured = card.performance.avg_latency_ms
    score += _FOR_SPEED * (quick or 0)
    if measured is not None:
        reasons.append(f"answered in {measured:,.0f} ms on average")
    elif limits.max_latency_ms is not None:
        reasons.append("its latency has not been measured yet")
    unknown = _unknown(card, limits.needs)
    score += _FOR_CERTAINTY * (not unknown and card.stage in ("", "stable"))
    if card.stage not in ("", "stable"):
        reasons.append(_STAGES.get(card.stage, card.stage))
    if unknown:
        reasons.append(f"nobody has told whether it has {', '.join(unknown)}")
    if card.deprecation_date is not None:
        reasons.append(f"shuts down on {card.deprecation_date}")
    return ModelRecommendation(card, round(score, 4), tuple(reasons), cost)


_STAGES = {
    "preview": "a preview: it may change or go at short notice",
    "experimental": "an experiment: it may change or go at any time",
    "closed": "closed to new projects",
    "deprecated": "its end was announced",
}


def _unknown(card: ModelMetadata, needs: Collection[str]) -> list[str]:
    return [word for word in needs if getattr(card.capabilities, CAPABILITY_WORDS[word]) is None]
