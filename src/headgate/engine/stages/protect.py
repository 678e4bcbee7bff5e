"""Protect: keeps calls from a model that fails, and from doing more to one that has too much.

It stands at two points of the path, because quota may be waited for between them:

- `Protect`, before a key is chosen and quota reserved: a call to a model whose breaker is open is
  refused at once, and one to a model that was overloaded waits for its place, by priority.
- `Watch`, right before the send: the breaker may have opened meanwhile. Then the reservation is taken
  back, and nothing is sent. Only here a pass of the breaker is taken, so that no probe is spent on a
  call that waits for quota; and it comes back with whatever becomes of the attempt, a stream's with
  its end.
"""

from __future__ import annotations

from functools import partial

from headgate.core.errors import DeadlineExceededError, QueueFullError
from headgate.core.outcome import Kind, Outcome
from headgate.engine.passage import Answer, AttemptFailed, Onward, Passage
from headgate.engine.places import Places
from headgate.engine.protection import Protection, Ward
from headgate.engine.stream import ReplyStream

__all__ = ["Protect", "Watch"]

_SUCCESS = Outcome(Kind.SUCCESS, status=200)
_CANCELLED = Outcome(Kind.CANCELLED, "The attempt was cancelled.")


class Protect:
    """Refuses while the breaker is open; holds a place while the attempt lasts."""

    def __init__(self, protection: Protection) -> None:
        self._protection = protection

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises `AttemptFailed` of kind BREAKER_OPEN, `QueueFullError`, `DeadlineExceededError`; or
        passes on what comes from behind it."""
        ward = self._protection.ward(passage.model, passage.call.operation)
        ward.refuse_while_open()
        places = ward.places
        if places is None:
            return await onward(passage)
        begun = places.take_at_once()
        if begun is None:
            begun = await self._wait(passage, ward, places)
        answer: Answer | None = None
        try:
            ward.refuse_while_open()  # it may have opened while the call waited
            answer = await onward(passage)
        finally:
            if not isinstance(answer, ReplyStream):
                places.give_back(begun)
        if isinstance(answer, ReplyStream):
            answer.on_end(partial(_give_back, places, begun))
        return answer

    async def _wait(self, passage: Passage, ward: Ward, places: Places) -> float:
        """Wait for a place; the monotonic second at which it was had."""
        call, arrived = passage.call, self._protection.clock.monotonic()
        try:
            begun = await places.take(call.priority, call.deadline)
        except DeadlineExceededError:
            raise DeadlineExceededError(
                f"The call's deadline passed while it waited for a place: {ward.model} was overloaded "
                f"and is asked by no more than {ward.limit} calls at once. Give the call more time, or "
                "use another model.",
                kind=None if passage.attempts else "busy",  # nothing was sent
                request_id=call.request_id,
            ) from None
        except QueueFullError as full:
            raise QueueFullError(
                f"{ward.model} was overloaded and is asked by no more than {ward.limit} calls at once; "
                f"{ward.waiting} wait already, and no more may. Try again later, or use another model.",
                retry_after=full.retry_after,
                request_id=call.request_id,
            ) from None
        passage.waited += begun - arrived
        return begun


def _give_back(places: Places, begun: float, outcome: Outcome) -> None:  # noqa: ARG001 - any end
    places.give_back(begun)


class Watch:
    """Takes a pass for the attempt that is about to leave, and tells what became of it."""

    def __init__(self, protection: Protection) -> None:
        self._protection = protection

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises `AttemptFailed` of kind BREAKER_OPEN, or passes on the failure of the attempt."""
        ward = self._protection.ward(passage.model, passage.call.operation)
        sending = ward.send(passage.call.deadline)
        wire = passage.wire
        if wire is not None:
            wire.begun()
        try:
            answer = await onward(passage)
        except AttemptFailed as failed:
            sending.ended(failed.outcome)
            raise
        except BaseException:  # cancelled, or a fault of ours: the pass must not stay out
            sending.ended(_CANCELLED)
            raise
        finally:
            if wire is not None:
                wire.ended()
        if isinstance(answer, ReplyStream):
            answer.on_end(sending.ended)
        else:
            sending.ended(_SUCCESS)
        return answer
