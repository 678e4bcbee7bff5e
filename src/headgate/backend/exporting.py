"""The metrics of a backend: its calls, the state of whichever engine serves them, its usage ledger."""

from __future__ import annotations

from collections.abc import Iterable

from headgate.backend.generations import EngineRoom
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock
from headgate.telemetry.metrics.books import Sheet
from headgate.telemetry.metrics.metrics import Metrics
from headgate.telemetry.usage_writer import UsageWriter
from headgate.wiring.build import Engine
from headgate.wiring.metrics import EngineState, counting_metrics, foresight_of, watch_rows
from headgate.wiring.observers import Observers

__all__ = ["BackendState", "export"]

_PROVIDER = "gemini"


def export(
    registry: object, room: EngineRoom, heard: Iterable[Observers], writer: UsageWriter, clock: Clock
) -> BackendState:
    """Have a registry's metrics hear of a backend, for as long as what this gives is held.

    Args:
        heard: what its engines report to.

    Raises:
        ConfigurationError: the `metrics` extra is not installed.
        TypeError: that is no registry.
    """
    try:
        import prometheus_client  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise ConfigurationError("Metrics need prometheus-client: install headgate[metrics].") from None
    metrics = counting_metrics(registry, clock)
    for observers in heard:
        observers.add(metrics.engine)
    metrics.engine.serves(_PROVIDER)
    watch_rows(metrics, writer)
    state = BackendState(metrics, room, clock)
    metrics.watch(state, BackendState.read)
    return state


class BackendState:
    """What the engine that serves at the moment knows: each configuration has its own."""

    def __init__(self, metrics: Metrics, room: EngineRoom, clock: Clock) -> None:
        self._metrics = metrics
        self._room = room
        self._clock = clock
        self._engine: Engine | None = None
        self._state: EngineState | None = None

    def read(self, sheet: Sheet) -> None:
        """Put it on a sheet; nothing before the first call."""
        running = self._room.started
        if running is None:
            return
        if self._state is None or running.engine is not self._engine:
            self._engine = running.engine
            self._state = EngineState(self._metrics, _PROVIDER, running.engine, self._clock)
            self._metrics.engine.serves(_PROVIDER, foresight_of(running.engine))
        self._state.read(sheet)
