"""What comes after the first piece of a streamed answer that several may read."""

from __future__ import annotations

import asyncio

from headgate.core.call import Chunk
from headgate.core.errors import UpstreamError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock
from headgate.engine.flights import Flight

__all__ = ["FurtherPieces"]


class FurtherPieces:
    """One reader's way through the pieces of a flight, at its own pace. Why it is no generator:
    `headgate.engine.stream.Rest`.

    Args:
        deadline: monotonic seconds up to which this reader waits; None: as long as the flight lasts.
    """

    def __init__(self, flight: Flight, clock: Clock, deadline: float | None) -> None:
        self._flight = flight
        self._clock = clock
        self._deadline = deadline
        self._number = 0
        self._over = False

    async def __anext__(self) -> Chunk | Outcome:
        """Raises `StopAsyncIteration` at the end, and what broke the flight off."""
        if self._over:
            raise StopAsyncIteration
        try:
            chunk = await self._awaited()
        except TimeoutError:
            self._over = True
            return Outcome(Kind.TIMEOUT, "The call's deadline passed before its end.")
        if chunk is not None:
            return chunk
        self._over = True
        error = self._flight.error
        if isinstance(error, UpstreamError):
            return error.outcome
        raise error or StopAsyncIteration

    async def aclose(self) -> None:
        """Nothing is open: whoever reads leaves the flight apart from this."""
        self._over = True

    async def _awaited(self) -> Chunk | None:
        """The next piece; None: there are no more. Raises `TimeoutError`."""
        self._number += 1
        if self._deadline is None:
            return await self._flight.piece(self._number)
        async with asyncio.timeout(max(0.0, self._deadline - self._clock.monotonic())):
            return await self._flight.piece(self._number)
