"""Models as cards: merged of what several sources tell, found by name, checked for capability. Pure.

A source tells a field or leaves it out; of what is told the later source wins, and the card remembers
who told what. So nothing that one source keeps silent about is lost, and none of it is made up.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date

from msgspec import structs

from headgate.core.model_card import (
    CAPABILITY_WORDS,
    ModelCapabilities,
    ModelMetadata,
    ModelPerformance,
    ModelPricing,
    Provenance,
)
from headgate.policy.models import Model, ModelPolicy, Registry, Resolution
from headgate.policy.price_list import PriceList

__all__ = ["Layer", "ModelRegistry", "merge_cards", "newest_first", "price_card"]

Layer = tuple[Provenance, Iterable[ModelMetadata]]
"""What one source tells."""

_NESTED = ("capabilities", "pricing", "performance")
_OWN = tuple(
    name for name in ModelMetadata.__struct_fields__ if name not in (*_NESTED, "id", "provenance")
)
_SAMPLING = ("supports_temperature", "supports_top_k", "supports_top_p")
_GENERATION = re.compile(r"^gemini-(\d+)(?:\.(\d+))?(?=-|$)")


def merge_cards(
    layers: Sequence[Layer], base: Iterable[ModelMetadata] = ()
) -> tuple[ModelMetadata, ...]:
    """One card per model, of what every layer tells of it; later layers win.

    A card whose id is an alias of another card is no model of its own: it is left out.

    Args:
        base: cards that were merged before, with who told what.
    """
    merged = {card.id: card for card in base}
    for source, cards in layers:
        aliases = {alias for card in merged.values() for alias in card.aliases}
        for card in cards:
            if card.id in aliases:
                continue
            merged[card.id] = _over(merged.get(card.id, ModelMetadata(id=card.id)), card, source)
    return tuple(merged.values())


def price_card(card: ModelMetadata, prices: PriceList, day: date, source: Provenance) -> ModelMetadata:
    """The card with its price on a day; unchanged where the list has none."""
    rates = prices.rates(card.id, day)
    if rates is None:
        return card
    change = prices.next_change(card.id, day)
    pricing = ModelPricing(
        input_per_million=float(rates.input),
        output_per_million=None if rates.output is None else float(rates.output),
        cached_input_per_million=None if rates.cached_input is None else float(rates.cached_input),
        image_per_thousand=None if rates.images is None else float(rates.images),
        image_output_per_million=None if rates.image_output is None else float(rates.image_output),
        long_prompt_above=prices.long_prompt(card.id, day),
        changes_on=change,
        as_of=prices.as_of,
    )
    return _over(card, ModelMetadata(id=card.id, pricing=pricing), source)


def newest_first(cards: Iterable[ModelMetadata]) -> list[ModelMetadata]:
    """Cards by release, the newest first.

    One without a date stands by its generation: no earlier than any dated card of the same or an older
    one, but no later than its successor. Those without either come last, by name.
    """
    found = sorted(cards, key=lambda card: card.id)
    days = {card.id: card.release_date for card in found if card.release_date is not None}

    def place(card: ModelMetadata) -> tuple[date, bool, tuple[int, int]]:
        generation = _generation(card.id)
        if card.release_date is not None:
            return card.release_date, True, generation
        before = [day for other, day in days.items() if _NONE != _generation(other) <= generation]
        day = max(before, default=date.min)
        return min(day, days.get(card.successor or "", day)), False, generation

    return sorted(found, key=place, reverse=True)


class ModelRegistry:
    """Cards by name and alias. Immutable."""

    def __init__(self, cards: Iterable[ModelMetadata]) -> None:
        self._cards = {card.id: card for card in cards}
        self._aliases = {alias: card.id for card in self._cards.values() for alias in card.aliases}
        self._names = Registry(map(_as_model, self._cards.values()), self._aliases)

    def __len__(self) -> int:
        return len(self._cards)

    @property
    def cards(self) -> list[ModelMetadata]:
        """All of them, the newest first, each once."""
        return newest_first(self._cards.values())

    @property
    def names(self) -> Registry:
        """The same models in the words of the path of a call."""
        return self._names

    def find(self, name: str) -> ModelMetadata | None:
        """The card of a name, an alias or a `models/…` path."""
        bare = name.strip().removeprefix("models/")
        return self._cards.get(self._aliases.get(bare, bare))

    def near(self, name: str, most: int = 3) -> tuple[str, ...]:
        """Names and aliases that look like this one, the nearest first."""
        bare = name.strip().removeprefix("models/").lower()
        known = [*self._cards, *self._aliases]
        found = difflib.get_close_matches(bare, known, n=most, cutoff=0.6)
        parts = [other for other in known if bare and bare in other and other not in found]
        return (*found, *sorted(parts, key=len))[:most]

    def resolve(self, name: str, today: date, policy: ModelPolicy) -> Resolution:
        """The model a call for `name` goes to on that day; see `Registry.resolve`."""
        return self._names.resolve(name, today, policy)

    def refusal(self, name: str, needs: Collection[str], today: date) -> str | None:
        """Why a model cannot serve a call that needs so much; None if nothing is known against it.

        Args:
            needs: accepted query words: `text image code function_calling json_mode
                system_instructions context_caching`.

        Returns a sentence that names a model which has it all, where there is one.
        """
        card = self.find(name)
        missing = [] if card is None else lacking(card, needs)
        if card is None or not missing:
            return None
        what = ", ".join(_IN_WORDS[word] for word in missing)
        able = self.able(needs, today, like=card)
        instead = f" {able[0].id} has it." if able else ""
        return f"Model {card.id} has no {what}.{instead}"

    def able(
        self, needs: Collection[str], today: date, *, like: ModelMetadata | None = None
    ) -> list[ModelMetadata]:
        """The living models that are known to have all of it: nearest in price to `like`, or newest."""
        found = [card for card in self.cards if not card.retired(today) and _has(card, needs)]
        price = None if like is None else like.pricing.input_per_million
        if price is None:
            return found

        def distance(card: ModelMetadata) -> float:
            theirs = card.pricing.input_per_million
            return float("inf") if theirs is None else abs(theirs - price)

        return sorted(found, key=distance)


def lacking(card: ModelMetadata, needs: Collection[str]) -> list[str]:
    """Which of the query words a model is known not to have. Raises `KeyError` for an unknown word."""
    return [word for word in needs if getattr(card.capabilities, CAPABILITY_WORDS[word]) is False]


def _has(card: ModelMetadata, needs: Collection[str]) -> bool:
    return all(getattr(card.capabilities, CAPABILITY_WORDS[word]) is True for word in needs)


_IN_WORDS: Mapping[str, str] = {
    "text": "text generation",
    "image": "understanding of images",
    "code": "generation of code",
    "function_calling": "function calling",
    "json_mode": "JSON mode",
    "system_instructions": "system instructions",
    "context_caching": "context caching",
}

_NONE = (-1, -1)


def _generation(model: str) -> tuple[int, int]:
    found = _GENERATION.match(model)
    return _NONE if found is None else (int(found[1]), int(found[2] or 0))


def _told(value: object) -> bool:
    return value is not None and value not in ("", ())


def _over(below: ModelMetadata, above: ModelMetadata, source: Provenance) -> ModelMetadata:
    changes: dict[str, object] = {}
    who = dict(below.provenance)
    for name in _OWN:
        value = getattr(above, name)
        if _told(value):
            changes[name] = value
            who[name] = source
    for part in _NESTED:
        ours: ModelCapabilities | ModelPricing | ModelPerformance = getattr(below, part)
        theirs: ModelCapabilities | ModelPricing | ModelPerformance = getattr(above, part)
        news = {
            name: getattr(theirs, name)
            for name in theirs.__struct_fields__
            if _told(getattr(theirs, name))
        }
        if news:
            changes[part] = structs.replace(ours, **news)
            who.update({f"{part}.{name}": source for name in news})
    return structs.replace(below, **changes, provenance=who)


def _as_model(card: ModelMetadata) -> Model:
    can = card.capabilities
    ends = card.retiring is not None or card.deprecation_date is not None
    return Model(
        card.id,
        card.retiring,
        card.deprecation_date,
        card.successor,
        sampling=not any(getattr(can, name) is False for name in _SAMPLING),
        note=card.limitations[-1] if ends and card.limitations else "",
    )
