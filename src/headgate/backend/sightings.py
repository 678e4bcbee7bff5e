"""What this process has seen of each model: calls, failures, and how long answers took."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

from headgate.core.fallback import SwitchModel
from headgate.core.model_card import ModelPerformance
from headgate.core.outcome import Kind
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord

__all__ = ["Sighting", "Sightings"]

MOST_MODELS = 1000
"""Callers may name any model: of further ones nothing is counted."""


@dataclass(slots=True)
class Sighting:
    """One model. Seconds are those of answered calls, without their waits for keys."""

    calls: int = 0
    errors: int = 0
    answered: int = 0
    seconds: float = 0.0
    output_tokens: int = 0

    @property
    def average_ms(self) -> float | None:
        """Milliseconds of an answered call."""
        return 1000 * self.seconds / self.answered if self.answered else None

    @property
    def performance(self) -> ModelPerformance:
        """In the words of a card."""
        rate = self.output_tokens / self.seconds if self.seconds > 0 and self.output_tokens else None
        return ModelPerformance(avg_latency_ms=self.average_ms, tokens_per_second=rate)


class Sightings:
    """An observer that counts by model. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._models: dict[str, Sighting] = {}

    def of(self, model: str) -> Sighting:
        """What was seen of a model: zeros for one that nobody asked."""
        with self._lock:
            return self._models.get(model) or Sighting()

    def attempt(self, record: AttemptRecord) -> None:
        """Nothing: calls are counted."""

    def waiting(self, record: WaitRecord) -> None:
        """Nothing: calls are counted."""

    def call(self, record: CallRecord) -> None:
        """One call ended. One that its caller gave up says nothing about the model."""
        if record.error == Kind.CANCELLED.value:
            return
        with self._lock:
            seen = self._models.get(record.model)
            if seen is None:
                if len(self._models) >= MOST_MODELS:
                    return
                seen = self._models[record.model] = Sighting()
            seen.calls += 1
            switched = record.fallback == SwitchModel.__name__
            if record.error is not None or (record.fallback is not None and not switched):
                seen.errors += 1
                return
            if record.cached or switched:
                return  # how long that took says nothing about the model
            seen.answered += 1
            seen.seconds += max(0.0, record.ended - record.started - record.waited)
            seen.output_tokens += record.usage.output + record.usage.thoughts
