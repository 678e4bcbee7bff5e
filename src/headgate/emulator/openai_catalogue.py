"""Which models the OpenAI surface has: the dated data file of the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, Literal

import msgspec

__all__ = ["OpenAICatalogue", "OpenAIModel", "described"]


class OpenAIModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model.

    Attributes:
        id: as answers name it.
        family: what limits are counted against; the id where nothing else is said.
        created: Unix time.
        context: tokens of prompt and answer together.
        reasons: whether it thinks before it answers, and so takes no `max_tokens`.
        dimensions: length of an embedding.
    """

    id: str
    kind: Literal["chat", "embedding"] = "chat"
    family: str = ""
    created: int = 1_700_000_000
    owned_by: str = "system"
    context: int = 128_000
    output_tokens: int = 16_384
    reasons: bool = False
    dimensions: int = 1_536

    @property
    def names(self) -> tuple[str, str]:
        """What limits may be declared for: the family, and the model itself."""
        return self.family or self.id, self.id


class _File(msgspec.Struct):
    about: str
    state: str
    models: list[OpenAIModel]


class OpenAICatalogue:
    """Resolves the name in a request to the model that answers."""

    def __init__(self) -> None:
        raw = resources.files("headgate.emulator").joinpath("data/openai-models.json").read_bytes()
        self._models = {model.id: model for model in msgspec.json.decode(raw, type=_File).models}

    def resolve(self, name: str, more: Sequence[str] = ()) -> OpenAIModel | None:
        """The model that answers to a name; None for a 404.

        Args:
            more: names that answer beside those of the file, as chat models.
        """
        bare = name.removeprefix("models/")
        return OpenAIModel(id=bare) if bare in more else self._models.get(bare)

    def listed(self, more: Sequence[str] = ()) -> list[OpenAIModel]:
        """Every model."""
        return [*self._models.values(), *(OpenAIModel(id=name) for name in more)]


def described(model: OpenAIModel) -> dict[str, Any]:
    """A model as list and get show it."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
    }
