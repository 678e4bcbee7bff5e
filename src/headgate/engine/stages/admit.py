"""Admit: a call that goes upstream takes one of a number of places first, and gives it back at its end.

It stands behind recall and degrade: an answer that is known, and a question that is under way, need no
place; and where the line is full or too slow, something else may stand in. It stands before attempt:
a call keeps its place while it is tried again. A stream keeps it to its end.
"""

from __future__ import annotations

from functools import partial

from headgate.core.errors import DeadlineExceededError, QueueFullError
from headgate.core.outcome import Outcome
from headgate.core.ports import Clock
from headgate.engine.passage import Answer, Onward, Passage
from headgate.engine.places import Places
from headgate.engine.stream import ReplyStream

__all__ = ["Admit"]


class Admit:
    """Holds a place while a call is under way.

    Args:
        places: of all engines that share them: those of one backend's generations, say.
    """

    def __init__(self, places: Places, clock: Clock) -> None:
        self._places = places
        self._clock = clock

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises `QueueFullError`, `DeadlineExceededError` of kind `busy`, and what the path does."""
        begun = self._places.take_at_once()
        if begun is None:
            begun = await self._wait(passage)
        answer: Answer | None = None
        try:
            answer = await onward(passage)
        finally:
            if not isinstance(answer, ReplyStream):
                self._places.give_back(begun)
        if isinstance(answer, ReplyStream):
            answer.on_end(partial(self._stream_ended, begun))
        return answer

    async def _wait(self, passage: Passage) -> float:
        """Wait in line; the monotonic second at which the place was had."""
        call, arrived = passage.call, self._clock.monotonic()
        try:
            return await self._places.take(call.priority, call.deadline)
        except (QueueFullError, DeadlineExceededError) as error:
            error.request_id = call.request_id
            raise
        finally:
            passage.queued += self._clock.monotonic() - arrived

    def _stream_ended(self, begun: float, outcome: Outcome) -> None:  # noqa: ARG002 - any end
        self._places.give_back(begun)
