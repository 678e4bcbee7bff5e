"""Which model a name means today.

Names, successors and dates are data (`wiring/data/`); here is only how they are read. A model is
*retiring* from the day withdrawals were announced or seen, and *gone* from its shutdown date; from
the first of the two days a call goes to the successor, with one warning, unless the policy forbids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

__all__ = ["Model", "ModelPolicy", "Registry", "Resolution"]


class ModelPolicy(StrEnum):
    """What to do about a retired model."""

    SUCCESSOR = "successor"  # ask its successor instead, and say so once
    STRICT = "strict"  # refuse
    AS_ASKED = "as_asked"  # send what was asked, and say once that it is retired


@dataclass(frozen=True, slots=True)
class Model:
    """One row of the registry.

    Attributes:
        id: the name on the wire.
        retiring: the first day on which withdrawals were announced or seen.
        shutdown: the day the provider gives.
        successor: where calls go then; None where nothing can stand in (embeddings).
        sampling: whether `temperature`, `top_p` and `top_k` are taken.
        note: what a person should know, shown in warnings.
    """

    id: str
    retiring: date | None = None
    shutdown: date | None = None
    successor: str | None = None
    sampling: bool = True
    note: str = ""

    def retired(self, today: date) -> bool:
        """Whether calls should no longer go to this model."""
        days = [day for day in (self.retiring, self.shutdown) if day is not None]
        return bool(days) and today >= min(days)


@dataclass(frozen=True, slots=True)
class Resolution:
    """The model to send to, and a sentence to say once, if there is one.

    `allowed` is False where the policy is strict and the model is retired.
    """

    model: Model
    warning: str | None = None
    allowed: bool = True


class Registry:
    """Models by name and alias. Immutable; a name it does not know is used as it is."""

    def __init__(self, models: Iterable[Model], aliases: Mapping[str, str]) -> None:
        self._models = {model.id: model for model in models}
        self._aliases = dict(aliases)

    def find(self, name: str) -> Model:
        """The row of a name or alias; an unknown name gets a row of its own."""
        bare = name.removeprefix("models/")
        bare = self._aliases.get(bare, bare)
        return self._models.get(bare) or Model(bare)

    def resolve(self, name: str, today: date, policy: ModelPolicy) -> Resolution:
        """The model a call for `name` goes to on that day."""
        asked = self.find(name)
        if not asked.retired(today):
            return Resolution(asked)
        if policy is ModelPolicy.STRICT:
            return Resolution(asked, self._sentence(asked, "refused"), allowed=False)
        successor = self._last_successor(asked, today)
        if policy is ModelPolicy.AS_ASKED or successor is None:
            return Resolution(asked, self._sentence(asked, "asked all the same"))
        sentence = self._sentence(asked, f"calls go to {successor.id}")
        return Resolution(successor, sentence)

    def _last_successor(self, model: Model, today: date) -> Model | None:
        seen = {model.id}
        while model.retired(today):
            if model.successor is None or model.successor in seen:
                return None
            seen.add(model.successor)
            model = self.find(model.successor)
        return model

    @staticmethod
    def _sentence(model: Model, what: str) -> str:
        when = f"shut down on {model.shutdown}" if model.shutdown else "retired"
        if model.retiring and model.shutdown and model.retiring < model.shutdown:
            when = f"being withdrawn since {model.retiring}, to be shut down on {model.shutdown}"
        note = f" {model.note}" if model.note else ""
        return f"Model {model.id} is {when}: {what}.{note}"
