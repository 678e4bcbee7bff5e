"""Many askers, one question: whoever asks the same while it is under way gets the same answer.

The question belongs to all who wait for it. One who leaves takes nothing away from the others; when the
last has left it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Generic, TypeVar

__all__ = ["SingleFlight"]

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0

    @property
    def failed(self) -> bool:
        """Whether it is over without an answer."""
        task = self.task
        return task.done() and (task.cancelled() or task.exception() is not None)


class SingleFlight(Generic[T]):
    """Shares answers between the tasks of each event loop; loops do not share."""

    def __init__(self) -> None:
        self._flights: dict[tuple[asyncio.AbstractEventLoop, str], _Flight[T]] = {}

    async def ask(self, key: str, question: Callable[[], Coroutine[object, object, T]]) -> T:
        """The answer to `question()`, or to the one that is under way under the same key."""
        loop = asyncio.get_running_loop()
        place = (loop, key)
        flight = self._flights.get(place)
        if flight is None or flight.failed:  # the news of a failure may still be on its way here
            flight = self._flights[place] = _Flight(loop.create_task(question()))
            flight.task.add_done_callback(partial(self._land, place, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._land(place, flight)  # whoever asks from now on asks anew
                await _cancelled(flight.task)

    def _land(
        self, place: tuple[asyncio.AbstractEventLoop, str], flight: _Flight[T], _: object = None
    ) -> None:
        if self._flights.get(place) is flight:
            del self._flights[place]


async def _cancelled(task: asyncio.Task[T]) -> None:
    """Cancel and wait until it is over, so that nothing outlives its caller."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # it failed at the same moment; nobody is left to hear of it
