"""How the calls of the last minutes went, by model: what health is judged by.

Only the backend's own keys count. What becomes of a key that a caller brought is that caller's
business, and says nothing about the model for anybody else.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from msgspec import Struct

from headgate.core.outcome import Kind
from headgate.core.ports import Clock
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord

__all__ = ["Recent", "RecentCalls"]

_MINUTE = 60.0

_MOST_MODELS = 1000
"""Callers may name any model; the one that was asked longest ago makes room."""

_SAYS_NOTHING = frozenset({
    "invalid", "unsupported", "too_large", "schema", "blocked", "resource", "egress",  # the request
    "auth", "no_access", "model_retired",  # keys and names
    "busy",  # our own queue
})  # fmt: skip
"""Public kinds of failures that tell of a request, of keys or of us, and nothing of a model."""


class Recent(Struct, frozen=True):
    """Calls of a model. `seconds` is how long all of them took together.

    Attributes:
        requests: calls that ended, but for those their callers gave up.
        errors: failures that say something of the model.
    """

    requests: int = 0
    successes: int = 0
    errors: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Minute:
    number: int
    requests: int = 0
    successes: int = 0
    errors: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Model:
    minutes: deque[_Minute] = field(default_factory=deque)
    reached: float | None = None  # monotonic seconds of the last call that asked the upstream


class RecentCalls:
    """An observer that counts by model and minute. Threads may share it.

    Args:
        seconds: how far back it looks.
        enabled: whether calls are counted at that moment.
    """

    def __init__(self, clock: Clock, seconds: float, enabled: Callable[[], bool]) -> None:
        self._clock = clock
        self._minutes = int(seconds / _MINUTE)
        self._enabled = enabled
        self._lock = Lock()
        self._models: OrderedDict[str, _Model] = OrderedDict()

    def attempt(self, record: AttemptRecord) -> None:
        """Nothing: calls are counted."""

    def waiting(self, record: WaitRecord) -> None:
        """Nothing: calls are counted."""

    def call(self, record: CallRecord) -> None:
        """One call ended. One that its caller gave up, or that asks no model, says nothing."""
        if record.error == Kind.CANCELLED.value or record.operation.is_free or not self._enabled():
            return
        number = int(record.ended // _MINUTE)
        with self._lock:
            minute = self._minute(record.model, number, record)
            minute.requests += 1
            minute.seconds += record.ended - record.started
            if record.error is None:
                minute.successes += 1
            elif record.error not in _SAYS_NOTHING:
                minute.errors += 1

    def of(self, model: str) -> Recent:
        """A model's recent calls."""
        oldest = self._clock.monotonic() // _MINUTE - self._minutes
        with self._lock:
            known = self._models.get(model)
            chosen = [] if known is None else [m for m in known.minutes if m.number >= oldest]
            return Recent(
                sum(minute.requests for minute in chosen),
                sum(minute.successes for minute in chosen),
                sum(minute.errors for minute in chosen),
                sum(minute.seconds for minute in chosen),
            )

    def models(self) -> list[str]:
        """The models that calls named."""
        with self._lock:
            return list(self._models)

    def reached(self) -> dict[str, float]:
        """Models whose calls asked the upstream, and the monotonic second of the last."""
        with self._lock:
            return {name: one.reached for name, one in self._models.items() if one.reached is not None}

    def _minute(self, name: str, number: int, record: CallRecord) -> _Minute:
        model = self._models.get(name)
        if model is None:
            if len(self._models) >= _MOST_MODELS:
                self._models.popitem(last=False)
            model = self._models[name] = _Model()
        self._models.move_to_end(name)
        if record.attempts:
            model.reached = record.ended
        minutes = model.minutes
        if not minutes or minutes[-1].number < number:
            minutes.append(_Minute(number))
            while minutes[0].number < number - self._minutes:
                minutes.popleft()
        return minutes[-1]
