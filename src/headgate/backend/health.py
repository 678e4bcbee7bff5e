"""How models are doing: what the upstream says of them, what calls showed, what breakers do.

A check asks the upstream for a model's card: it generates nothing, and uses no quota of generations.
Its finding stands for `health_check_interval_secs`.

unhealthy   the breaker is open, or the last check did not reach the upstream
degraded    the breaker is half open, the last check was answered with an error, or fewer than 95 % of
            the recent requests succeeded
healthy     else
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from hashlib import sha256
from threading import Lock
from typing import NamedTuple

from headgate.backend.generations import EngineRoom
from headgate.backend.measures import CircuitState, HealthState, HealthStatus
from headgate.backend.measuring import instant
from headgate.backend.recent_calls import RecentCalls
from headgate.backend.registry import ASK_SECONDS, Models
from headgate.backend.settings import BackendConfig
from headgate.core.errors import ConfigurationError, HeadgateError, UpstreamError
from headgate.core.ports import Clock
from headgate.engine.single_flight import SingleFlight
from headgate.wiring.discovery import Discovery

__all__ = ["RECENT_SECONDS", "Health"]

_log = logging.getLogger("headgate.backend")

RECENT_SECONDS = 900.0
"""What counts as recent: errors, rates and latencies of health are those of the last 15 minutes."""

_LEAST_PERCENT = 95.0
"""Of successes; with fewer a model is degraded (S3 §4.4)."""

_MOST_FINDINGS = 1000


class _Answer(Enum):
    """How the upstream answered a check."""

    CARD = "card"
    ERROR = "error"
    NOTHING = "nothing"


class _Finding(NamedTuple):
    answer: _Answer
    checked: float  # monotonic seconds
    at: float  # Unix seconds


class Health:
    """The health of a backend's models.

    Args:
        room: where the upstream is asked.
        recent: how the calls of the last `RECENT_SECONDS` went.
        circuits: the breakers of models that were called.
    """

    def __init__(
        self,
        room: EngineRoom,
        models: Models,
        recent: RecentCalls,
        circuits: Callable[[], Mapping[str, CircuitState]],
        clock: Clock,
    ) -> None:
        self._room = room
        self._models = models
        self._recent = recent
        self._circuits = circuits
        self._clock = clock
        self._lock = Lock()
        self._findings: OrderedDict[tuple[str, str], _Finding] = OrderedDict()
        self._asking: SingleFlight[_Finding] = SingleFlight()

    async def status(self, model: str, api_key: str | None = None) -> HealthStatus:
        """S3-19: a model's health, by a check that is not older than the interval.

        Args:
            api_key: asks with this key alone; what it finds is told to whoever brings it again.

        Raises:
            ConfigurationError: no key is configured.
        """
        name = self._models.name_of(model)
        whose = "" if api_key is None else sha256(api_key.encode()).hexdigest()
        finding = self._known(name, whose)
        if finding is None:
            flight = f"{whose}:{name}"
            finding = await self._asking.ask(flight, lambda: self._check(name, whose, api_key))
        return self._status(name, finding)

    def statuses(self) -> dict[str, HealthStatus]:
        """Models that were checked or called, asking nobody: a call stands for a check where none was
        made."""
        with self._lock:
            found = {name: one for (name, whose), one in self._findings.items() if not whose}
        now, wall = self._clock.monotonic(), self._clock.wall()
        for name, last in self._recent.reached().items():
            if name not in found:
                found[name] = _Finding(_Answer.CARD, last, wall - (now - last))
        return {name: self._status(name, found[name]) for name in sorted(found)}

    async def keep_fresh(self) -> None:
        """S3-07g: check every model that was asked for, again and again. Never raises for a check."""
        while True:
            for name in self._recent.models():
                try:
                    await self.status(name)
                except (HeadgateError, ConfigurationError) as error:
                    _log.warning("the health of %s was not checked: %s", name, error.message)
            await self._clock.sleep(self._config.health_check_interval_secs)

    @property
    def _config(self) -> BackendConfig:
        return self._room.config

    def _known(self, name: str, whose: str) -> _Finding | None:
        with self._lock:
            finding = self._findings.get((name, whose))
        if finding is None:
            return None
        age = self._clock.monotonic() - finding.checked
        return finding if age < self._config.health_check_interval_secs else None

    async def _check(self, name: str, whose: str, api_key: str | None) -> _Finding:
        generation = self._room.generation(api_key)
        settings = generation.settings
        discovery = Discovery(generation.engine.transport, settings.base_url, settings.keys)
        try:
            told = await discovery.model(name, self._clock.monotonic() + ASK_SECONDS)
            answer = _Answer.ERROR if told is None else _Answer.CARD
        except UpstreamError as error:
            # Whatever has a status was said by the upstream; what has none never reached it.
            answer = _Answer.NOTHING if error.outcome.status is None else _Answer.ERROR
        except HeadgateError:
            answer = _Answer.ERROR  # no upstream has a model of such a name
        finding = _Finding(answer, self._clock.monotonic(), self._clock.wall())
        with self._lock:
            self._findings[name, whose] = finding
            self._findings.move_to_end((name, whose))
            while len(self._findings) > _MOST_FINDINGS:
                self._findings.popitem(last=False)
        return finding

    def _status(self, name: str, finding: _Finding) -> HealthStatus:
        recent = self._recent.of(name)
        circuit = self._circuits().get(name, CircuitState.CLOSED)
        judged = recent.successes + recent.errors
        rate = 100 * recent.successes / judged if judged else None
        return HealthStatus(
            model=name,
            status=_state(circuit, finding.answer, rate),
            circuit_state=circuit,
            recent_errors=recent.errors,
            success_rate=rate,
            avg_latency_ms=1000 * recent.seconds / recent.requests if recent.requests else None,
            last_check=instant(finding.at),
        )


def _state(circuit: CircuitState, answer: _Answer, rate: float | None) -> HealthState:
    if circuit is CircuitState.OPEN or answer is _Answer.NOTHING:
        return HealthState.UNHEALTHY
    half = circuit is CircuitState.HALF_OPEN or answer is _Answer.ERROR
    if half or (rate is not None and rate < _LEAST_PERCENT):
        return HealthState.DEGRADED
    return HealthState.HEALTHY
