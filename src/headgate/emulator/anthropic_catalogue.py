"""Which Claude models there are: the dated data file of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import msgspec

from headgate.emulator.anthropic_errors import invalid
from headgate.emulator.errors import Refused

__all__ = ["ClaudeCatalogue", "ClaudeModel", "described", "page"]

_PAGE = 20
_LARGEST_PAGE = 1000


class ClaudeModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model.

    Attributes:
        id: as answers name it.
        model_class: what limits are counted against.
        aliases: other names of it.
        shutdown: date (YYYY-MM-DD, UTC) from which it is gone.
    """

    id: str
    model_class: str
    display_name: str
    created_at: str
    aliases: list[str] = []
    shutdown: str | None = None
    input_tokens: int = 200_000
    output_tokens: int = 64_000

    @property
    def names(self) -> tuple[str, str]:
        """Class and id: what limits may be given for."""
        return self.model_class, self.id


class _File(msgspec.Struct):
    about: str
    state: str
    models: list[ClaudeModel]


class ClaudeCatalogue:
    """Resolves the name in a request to the model that answers."""

    def __init__(self, *, retire: bool) -> None:
        raw = resources.files("headgate.emulator").joinpath("data/anthropic-models.json").read_bytes()
        models = msgspec.json.decode(raw, type=_File).models
        self._all = models
        self._models = {name: model for model in models for name in (model.id, *model.aliases)}
        self._retire = retire

    def resolve(self, name: str, wall: float) -> ClaudeModel | None:
        """The model of a name, unless it is gone."""
        model = self._models.get(name)
        return None if model is None or self._gone(model, wall) else model

    def listed(self, wall: float) -> list[ClaudeModel]:
        """Every model that is not gone, the newest first."""
        return [model for model in self._all if not self._gone(model, wall)]

    def _gone(self, model: ClaudeModel, wall: float) -> bool:
        today = datetime.fromtimestamp(wall, UTC).date().isoformat()
        return self._retire and model.shutdown is not None and today >= model.shutdown


def page(models: Sequence[ClaudeModel], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of the list. Raises `Refused`."""
    text = query.get("limit", str(_PAGE))
    if not text.isdecimal() or not 1 <= int(text) <= _LARGEST_PAGE:
        raise Refused(invalid(f"limit: Input should be between 1 and {_LARGEST_PAGE}"))
    ids = [model.id for model in models]
    start, end = 0, len(models)
    if (after := query.get("after_id")) is not None:
        start = ids.index(after) + 1 if after in ids else end
    if (before := query.get("before_id")) is not None and before in ids:
        end = ids.index(before)
        start = max(start, end - int(text))
    shown = [described(model) for model in models[start : min(end, start + int(text))]]
    return {
        "data": shown,
        "has_more": start + len(shown) < end if before is None else start > 0,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }


def described(model: ClaudeModel) -> dict[str, Any]:
    """A model as list and get show it."""
    retires = None if model.shutdown is None else f"{model.shutdown}T00:00:00Z"
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name,
        "created_at": f"{model.created_at}T00:00:00Z",
        "lifecycle": "active" if retires is None else "deprecated",
        "retires_at": retires,
        "max_input_tokens": model.input_tokens,
        "max_tokens": model.output_tokens,
    }
