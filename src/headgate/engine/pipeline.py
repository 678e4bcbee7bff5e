"""The order of the path, once.

A call goes down the tuple and its answer comes back up. Later stages (admit, recall, degrade, protect)
take their place in this tuple and nowhere else.
"""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial

from headgate.core.call import Call, Usage
from headgate.core.errors import HeadgateError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, Observer
from headgate.engine.passage import Answer, Onward, Passage, Stage
from headgate.engine.stream import ReplyStream

__all__ = ["Pipeline"]


class Pipeline:
    """The engine a door drives: one call in, one answer or one typed error out, one record.

    Safe to share between tasks, threads and event loops: all state of a call lives in its passage.
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
    ) -> None:
        self.order = (prepare, attempt, reserve, send)
        self._clock = clock
        self._observer = observer
        path: Onward = _end
        for stage in reversed(self.order):
            path = partial(stage, onward=path)
        self._path = path

    async def run(self, call: Call) -> tuple[Answer, Passage]:
        """Take a call down the path.

        Returns the answer and what it took. Raises a `HeadgateError`. A `ReplyStream` must be read to
        its end or closed; its record is made then.
        """
        passage = Passage(call, self._clock.monotonic())
        try:
            answer = await self._path(passage)
        except HeadgateError as error:
            self._done(passage, Usage(), error.kind)
            raise
        except CancelledError:
            self._done(passage, Usage(), Kind.CANCELLED.value)
            raise
        except Exception:  # a fault of ours: whoever counts calls counts it too
            self._done(passage, Usage(), "fault")
            raise
        if isinstance(answer, ReplyStream):
            answer.on_end(partial(self._stream_done, passage))
        else:
            self._done(passage, answer.usage, None)
        return answer, passage

    def _stream_done(self, passage: Passage, outcome: Outcome) -> None:
        error = None if outcome.kind is Kind.SUCCESS else outcome.rule.public_kind
        self._done(passage, outcome.usage or Usage(), error)

    def _done(self, passage: Passage, usage: Usage, error: str | None) -> None:
        self._observer.call(passage.record(self._clock.monotonic(), usage, error))


async def _end(passage: Passage) -> Answer:
    raise AssertionError(f"the last stage must answer call {passage.call.request_id} itself")
