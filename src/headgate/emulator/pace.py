"""How long things take: draws from the configured distribution."""

from __future__ import annotations

import math

from headgate.emulator.chance import Chance
from headgate.emulator.config import Latency

__all__ = ["Pace"]


class Pace:
    """Waits in seconds, from a seeded source of chance."""

    def __init__(self, latency: Latency, chance: Chance) -> None:
        self._latency = latency
        self._chance = chance

    def first_byte(self) -> float:
        """Until an answer begins."""
        return self._draw(self._latency.first_byte)

    def chunk(self) -> float:
        """Between one chunk and the next."""
        return self._draw(self._latency.per_chunk)

    def refusal(self) -> float:
        """Until a refusal."""
        return self._latency.refusal

    def _draw(self, middle: float) -> float:
        spread = self._latency.spread
        if middle == 0:
            return 0.0
        match self._latency.distribution:
            case "uniform":
                wait = middle * self._chance.uniform(max(0.0, 1 - spread), 1 + spread)
            case "exponential":
                wait = self._chance.expovariate(1 / middle)
            case "lognormal":
                wait = self._chance.lognormvariate(math.log(middle), spread)
            case _:
                wait = middle
        return min(wait, self._latency.maximum)
