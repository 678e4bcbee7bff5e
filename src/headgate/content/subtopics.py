"""Subtopics of a topic (S4-01, S4-16)."""

from __future__ import annotations

import json
import unicodedata

from headgate.content.generator import json_in
from headgate.content.ports import Json
from headgate.content.problems import PoorContentError
from headgate.content.prompts import EXPECTED_SUBTOPICS, subtopics_prompt
from headgate.content.studio import MadeOnce, Studio
from headgate.policy.content_quality import assess_subtopics

__all__ = ["SUBTOPIC_TOKENS", "Subtopics", "readable_key"]

SUBTOPIC_TOKENS = 1500
"""Put aside for one call (S4-01)."""

NAMESPACE = "subtopics"

FUNCTION = "create_subtopics"

WORST_QUALITY = 0.3
"""Below, nothing is given (S4 §5.6)."""


def readable_key(*parts: str) -> str:
    """A key that people can read and no other parts make: what was said, case-folded."""
    folded = [unicodedata.normalize("NFC", " ".join(part.casefold().split())) for part in parts]
    return json.dumps(folded, ensure_ascii=False)


class Subtopics:
    """Makes them."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    async def of(self, topic: str, *, caller: str = "") -> dict[str, Json]:
        """The reply of `/api/create_subtopics`.

        Raises:
            QuotaExceededError: no quota, and nothing that may stand in.
            PoorContentError: what the model gave is no list of subtopics.
        """
        studio, model = self._studio, self._studio.settings.model

        async def make() -> Json:
            return await self._made(topic, model, caller)

        kept = await studio.kept_or_made(NAMESPACE, readable_key(topic, model), make)
        metadata = {"cache_hit": kept.hit, "cached": kept.hit}
        return {**kept.value, "metadata": metadata}

    async def _made(self, topic: str, model: str, caller: str) -> Json:
        studio = self._studio
        (held,) = await studio.put_aside(model, SUBTOPIC_TOKENS)
        made = await studio.generator.ask(FUNCTION, model, subtopics_prompt(topic), held, caller=caller)
        items = _items(json_in(made.text))
        found = assess_subtopics(items, EXPECTED_SUBTOPICS)
        studio.assessed("subtopic", "subtopic", found)
        if found.score < WORST_QUALITY:
            raise PoorContentError("The subtopics are not good enough. Try again.", found.issues)
        if studio.measures is not None:
            studio.measures.subtopics(len(items))
        value = {
            "subtopics": items,
            "count": len(items),
            "quality_score": found.score,
            "warnings": found.remarks,
        }
        if not found.valid:
            raise MadeOnce(value)
        return value


def _items(value: Json) -> list[str]:
    """An array of texts, or one under `subtopics`. Raises `PoorContentError`."""
    listed = value.get("subtopics") if isinstance(value, dict) else value
    if not isinstance(listed, list):
        raise PoorContentError("The model's answer is no list.", ["no list"])
    return [" ".join(item.split()) for item in listed if isinstance(item, str) and item.strip()]
