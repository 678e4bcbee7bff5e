"""Which models have a name of their own in labels.

Callers may name any model, so a name has to earn its place: by an answer, or by a refusal that only a
model that is there gives. Until then, and when all places are taken, a model is `other`.
"""

from __future__ import annotations

from headgate.core.outcome import Kind
from headgate.telemetry.metrics.family import OTHER

__all__ = ["PROVES", "ModelNames"]

PROVES = frozenset({
    Kind.SUCCESS, Kind.QUOTA_MINUTE, Kind.QUOTA_DAY, Kind.QUOTA_UNKNOWN, Kind.CAPACITY, Kind.OVERLOAD,
    Kind.BLOCKED, Kind.TOO_LARGE,
})  # fmt: skip
"""Outcomes of an attempt that say that the upstream has the model."""

_LONGEST = 100
"""Characters of an id; the longest in use have about 60."""


class ModelNames:
    """The names that have a place.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()

    def label(self, model: str) -> str:
        """The model, or what stands for it."""
        return model if model in self._names else OTHER

    def earn(self, model: str) -> bool:
        """The model is there. Whether it has a place of its own only from now on."""
        if model in self._names or len(self._names) >= self._most:
            return False
        if not 0 < len(model) <= _LONGEST:
            return False
        self._names.add(model)
        return True
