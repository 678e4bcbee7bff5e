"""The order of the path, once.

A call goes down the tuple and its answer comes back up. An engine may be built without recall,
degrade, admit, upload, hedge, protect and watch; what it has of them has its place in this tuple and
nowhere else.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from functools import partial

from headgate.core.call import Call, Reply, Usage
from headgate.core.errors import HeadgateError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import CallListener, Clock, Observer
from headgate.core.request_ids import REQUEST_ID, leave
from headgate.engine.passage import Answer, Onward, Passage, Stage
from headgate.engine.stopwatch import timed
from headgate.engine.stream import ReplyStream

__all__ = ["Pipeline"]


_NAMES = (
    "prepare", "recall", "degrade", "admit", "upload", "attempt", "hedge", "protect", "reserve",
    "watch", "send",
)  # fmt: skip
"""Of the stages, in their order."""


class Pipeline:
    """The engine a door drives: one call in, one answer or one typed error out, one record.

    Safe to share between tasks, threads and event loops: all state of a call lives in its passage.

    Args:
        provider: its name, for records.
        listener: hears that a call begins, and what it was answered.
        give_back: is told model and id of a reservation that was made before for a call, where no
            attempt of the call came to use it.
    """

    def __init__(
        self,
        *,
        prepare: Stage,
        attempt: Stage,
        reserve: Stage,
        send: Stage,
        clock: Clock,
        observer: Observer,
        recall: Stage | None = None,
        degrade: Stage | None = None,
        admit: Stage | None = None,
        upload: Stage | None = None,
        hedge: Stage | None = None,
        protect: Stage | None = None,
        watch: Stage | None = None,
        provider: str = "",
        listener: CallListener | None = None,
        give_back: Callable[[str, str], None] | None = None,
    ) -> None:
        whole = (
            prepare, recall, degrade, admit, upload, attempt, hedge, protect, reserve, watch, send,
        )  # fmt: skip
        self.order = tuple(stage for stage in whole if stage is not None)
        self._named = [
            (name, stage) for name, stage in zip(_NAMES, whole, strict=True) if stage is not None
        ]
        self._provider = provider
        self._clock = clock
        self._observer = observer
        self._listener = listener
        self._give_back = give_back
        path: Onward = _end
        for stage in reversed(self.order):
            path = partial(stage, onward=path)
        self._path = path

    async def run(self, call: Call) -> tuple[Answer, Passage]:
        """Take a call down the path.

        Returns the answer and what it took. Raises a `HeadgateError`. A `ReplyStream` must be read to
        its end or closed; its record is made then.
        """
        passage, path = Passage(call, self._clock.monotonic()), self._path
        if self._listener is not None:
            passage.trace = self._listener.begun(call)
            heard = self._listener.timing(call)
            if heard is not None:
                path = timed(self._named, _end, self._clock, heard)
        token = REQUEST_ID.set(call.request_id)
        try:
            answer = await path(passage)
        except HeadgateError as error:
            error.attempts = passage.attempts
            self._done(passage, Usage(), error.kind)
            raise
        except CancelledError:
            self._done(passage, Usage(), Kind.CANCELLED.value)
            raise
        except Exception:  # a fault of ours: whoever counts calls counts it too
            self._done(passage, Usage(), "fault")
            raise
        finally:
            leave(token)
        if isinstance(answer, ReplyStream):
            answer.on_end(partial(self._stream_done, passage, answer))
        else:
            self._answered(call, answer)
            self._done(passage, answer.usage, None)
        return answer, passage

    def _answered(self, call: Call, reply: Reply) -> None:
        if self._listener is not None:
            self._listener.answered(call, reply)

    def _stream_done(self, passage: Passage, stream: ReplyStream, outcome: Outcome) -> None:
        if outcome.kind is Kind.SUCCESS:
            reply = Reply(finish_reason=stream.finish_reason, model=stream.model)
            self._answered(passage.call, reply)
        error = None if outcome.kind is Kind.SUCCESS else outcome.rule.public_kind
        self._done(passage, outcome.usage or Usage(), error)

    def _done(self, passage: Passage, usage: Usage, error: str | None) -> None:
        earmark = passage.call.earmark
        if earmark is not None and earmark.rid and not passage.attempts and self._give_back is not None:
            self._give_back(passage.model or passage.call.model, earmark.rid)
        record = passage.record(self._clock.monotonic(), usage, error, self._provider)
        self._observer.call(record)


async def _end(passage: Passage) -> Answer:
    raise AssertionError(f"the last stage must answer call {passage.call.request_id} itself")
