"""Which models there are: the dated data file of the package, and what the configuration adds."""

from __future__ import annotations

from datetime import date, datetime
from importlib import resources
from zoneinfo import ZoneInfo

import msgspec

from headgate.emulator.config import EmulatorConfig, Model
from headgate.policy.days import PACIFIC

__all__ = ["Catalogue"]

_ALIAS_VERSIONS = ("v1beta", "v1alpha")


class _File(msgspec.Struct):
    about: str
    state: str
    models: list[Model]


class Catalogue:
    """Resolves the name in a path to the model that answers."""

    def __init__(self, config: EmulatorConfig) -> None:
        raw = resources.files("headgate.emulator").joinpath("data/models.json").read_bytes()
        shipped = msgspec.json.decode(raw, type=_File).models
        self._models = {m.id: m for m in (*shipped, *config.models)}
        self._aliases = {a: m.id for m in self._models.values() for a in m.aliases}
        self._retire = config.retire_models

    def resolve(self, name: str, version: str, wall: float) -> Model | None:
        """The model that answers to a name (without `models/`), or None for a 404.

        Aliases are known to v1beta and v1alpha only. A model past its shutdown date is answered by
        its successor, or gone.
        """
        if version in _ALIAS_VERSIONS:
            name = self._aliases.get(name, name)
        model = self._models.get(name)
        while model is not None and self._gone(model, wall):
            model = self._models.get(model.successor) if model.successor else None
        return model

    def listed(self, version: str, wall: float) -> list[tuple[str, Model]]:
        """Names and models as the list shows them."""
        present = [(m.id, m) for m in self._models.values() if not self._gone(m, wall)]
        if version in _ALIAS_VERSIONS:
            present += [(a, m) for _, m in tuple(present) for a in m.aliases]
        return present

    def _gone(self, model: Model, wall: float) -> bool:
        if model.shutdown is None or not self._retire:
            return False
        day = datetime.fromtimestamp(wall, ZoneInfo(PACIFIC)).date()
        return day >= date.fromisoformat(model.shutdown)
