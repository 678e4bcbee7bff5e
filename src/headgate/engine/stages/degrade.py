"""Degrade: what stands in for an answer when every try has failed (S3-04f).

The strategies a call brings are tried in order; the first that has an answer gives it, marked. When
none has, the first failure is raised, with what was tried in its message. Which failures degrade at all
says `policy/degrading.py`.

- A call sends for as many engines as it has `SwitchModel`s, and one more: each strategy is tried once,
  no model twice, and what is tried elsewhere degrades no further.
- The deadline is one for all. Once it has passed only strategies that send nothing are left.
- Nothing is asked anew once a piece of a stream was passed on: then only `PartialResponse` helps, which
  ends the stream with what came.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from msgspec import structs

from headgate.core.call import Call, Chunk, Operation, Reply
from headgate.core.errors import HeadgateError
from headgate.core.fallback import (
    DEFAULT,
    INCOMPLETE,
    DefaultResponse,
    FailFast,
    FallbackStrategy,
    PartialResponse,
    SwitchModel,
    UseCachedResponse,
)
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, Provider
from headgate.core.tokens import Usage
from headgate.engine.gathering import in_form
from headgate.engine.passage import Answer, Onward, Passage
from headgate.engine.stream import ReplyStream
from headgate.engine.writing import written
from headgate.policy.degrading import degrades, nothing_helped
from headgate.policy.json_schema import problems

__all__ = ["Degrade", "Move"]

Move = Callable[[Passage, str], Awaitable[None]]
"""Makes a call in a passage ready for another model. Raises a `HeadgateError` if it cannot go there."""

LETTERS = 4
"""Characters to a token, where nobody counted: Google's own rule of thumb for English."""

_ANSWERS = (Operation.GENERATE, Operation.STREAM)


@dataclass(slots=True)
class _Failed:
    """A call that failed, while its strategies are tried.

    Attributes:
        call: as it failed, with its strategies.
        model: that was asked.
        kind: of the failure.
        asked: models, as they are on the wire.
        came: the passage with the most of an answer that broke off, if any did.
    """

    passage: Passage
    onward: Onward
    call: Call
    model: str
    kind: str
    asked: set[str]
    came: Passage | None = None

    def remember(self, other: Passage) -> None:
        """What came elsewhere before it broke off, if it is more."""
        if other.partial is None:
            return
        before = None if self.came is None else self.came.partial
        if before is None or len(other.partial.text) > len(before.text):
            self.came = other


class Degrade:
    """Tries the strategies of calls that failed. Calls without any pass through.

    Args:
        provider: writes a whole call so that it is answered in pieces, where a part of the answer is
            wanted if it breaks off.
        move: makes a call ready for another model.
    """

    def __init__(self, provider: Provider, move: Move, clock: Clock) -> None:
        self._provider = provider
        self._move = move
        self._clock = clock

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises the first failure where nothing stands in."""
        call, model = passage.call, passage.model
        if not call.fallbacks:
            return await onward(passage)
        try:
            return await self._ask(passage, onward, passage)
        except HeadgateError as error:
            first = error
        if degrades(first.kind):
            failed = _Failed(passage, onward, call, model, first.kind, {model})
            failed.remember(passage)
            answer = await self._stand_in(failed, first)
            if answer is not None:
                return answer
        raise first

    async def _stand_in(self, failed: _Failed, first: HeadgateError) -> Answer | None:
        """The answer of the first strategy that has one; None: none has, and the error says so."""
        tried: list[str] = []
        for strategy in failed.call.fallbacks:
            if isinstance(strategy, FailFast):
                break
            got = await self._try(failed, strategy)
            if not isinstance(got, str):
                return got
            tried.append(f"{strategy.name}: {got}")
        first.message = nothing_helped(first.message, tried)
        first.args = (first.message,)
        return None

    async def _try(self, failed: _Failed, strategy: FallbackStrategy) -> Answer | str:
        """The answer of a strategy, or why it has none."""
        match strategy:
            case UseCachedResponse():
                return self._kept(failed)
            case SwitchModel():
                return await self._elsewhere(failed, strategy.model)
            case DefaultResponse():
                return _default(failed, strategy.text)
            case PartialResponse():
                return _incomplete(failed)
        raise AssertionError(f"no strategy is called {strategy.name}")

    # ── asking ──────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, passage: Passage, onward: Onward, told: Passage) -> Answer:
        """Go on, so that a part of the answer is there where the call wants it.

        Args:
            told: the passage of the whole call, whose record is made.
        """
        call = told.call
        if not _wants_parts(call):
            return await onward(passage)
        if call.operation is Operation.GENERATE:
            pieces = structs.replace(passage.call, operation=Operation.STREAM)
            passage.request = await written(self._provider, pieces, passage.model)
        answer = await onward(passage)
        if isinstance(answer, ReplyStream):
            answer.mend(partial(_mended, answer, told, passage))
        return answer

    async def _elsewhere(self, failed: _Failed, model: str) -> Answer | str:
        call, passage = failed.call, failed.passage
        if call.operation not in _ANSWERS:
            return "what two models make of a text cannot be compared"
        if call.deadline is not None and self._clock.monotonic() >= call.deadline:
            return "the deadline has passed"
        hop = passage.elsewhere()
        try:
            await self._move(hop, model)
        except HeadgateError as refused:
            return refused.message
        if hop.model in failed.asked:
            return f"{hop.model} was asked already"
        failed.asked.add(hop.model)
        try:
            answer = await self._ask(hop, failed.onward, passage)
        except HeadgateError as error:
            failed.remember(hop)
            return f"{hop.model} failed too ({error.kind})"
        finally:
            passage.count(hop)
        passage.become(hop)
        _mark(failed, SwitchModel, f"{hop.model} answers instead.")
        return answer

    def _kept(self, failed: _Failed) -> Answer | str:
        kept = failed.passage.stale
        if kept is None:
            return "no earlier answer is kept"
        failed.passage.recalled = kept
        age = max(0.0, self._clock.wall() - kept.at)
        _mark(failed, UseCachedResponse, f"an answer from {age:.0f} s ago stands in.")
        return in_form(failed.call, kept.reply)


# ── what needs nobody ───────────────────────────────────────────────────────────────────────────


def _default(failed: _Failed, text: str) -> Answer | str:
    if failed.call.operation not in _ANSWERS or failed.call.raw is not None:
        return "a text is no answer to this call"
    if not _fits(text, failed.call):
        return "its text does not fit the schema"
    _mark(failed, DefaultResponse, "a fixed text stands in.")
    return in_form(failed.call, Reply(text=text, finish_reason=DEFAULT))


def _incomplete(failed: _Failed) -> Answer | str:
    if not _wants_parts(failed.call):
        return "a part of an answer does not fit a schema"
    came = failed.came
    if came is None or came.partial is None:
        return "nothing had come"
    reply = came.partial
    usage = _estimated(came, reply.usage, len(reply.text))
    if came is not failed.passage:
        failed.passage.become(came)
    _mark(failed, PartialResponse, "what had come of the answer stands in; it is incomplete.")
    return structs.replace(reply, finish_reason=INCOMPLETE, usage=usage)


def _mended(
    stream: ReplyStream, told: Passage, sent: Passage, outcome: Outcome
) -> tuple[Chunk, Outcome] | None:
    """How a stream ends that broke off after its first piece; None: as it broke."""
    if not stream.length or not degrades(outcome.rule.public_kind):
        return None
    usage = _estimated(sent, outcome.usage or stream.usage, stream.length)
    told.fallback = PartialResponse.__name__
    told.notes = (
        *told.notes,
        f"The answer of {sent.model} broke off ({outcome.rule.public_kind}); it is incomplete.",
    )
    ended = Outcome(Kind.SUCCESS, status=200, usage=usage)
    return Chunk(finish_reason=INCOMPLETE, usage=usage, model=stream.model), ended


def _mark(failed: _Failed, strategy: type[FallbackStrategy], what: str) -> None:
    passage = failed.passage
    passage.fallback = strategy.__name__
    passage.notes = (*passage.notes, f"{failed.model} failed ({failed.kind}): {what}")


def _wants_parts(call: Call) -> bool:
    """Whether a part of the answer may stand in. A schema is never kept by a part; after `FailFast`
    nothing is."""
    if call.operation not in _ANSWERS or call.raw is not None or _schema(call) is not None:
        return False
    for strategy in call.fallbacks:
        if isinstance(strategy, FailFast):
            return False
        if isinstance(strategy, PartialResponse):
            return True
    return False


def _schema(call: Call) -> object:
    return None if call.preparation is None else call.preparation.schema


def _fits(text: str, call: Call) -> bool:
    if call.preparation is None or call.preparation.schema is None:
        return True
    try:
        return not problems(json.loads(text), call.preparation.schema)
    except (ValueError, RecursionError):
        return False


def _estimated(passage: Passage, known: Usage, characters: int) -> Usage:
    """What a part of an answer used: as the upstream told last, and what it did not tell as a guess."""
    said = sum(len(part) for part in passage.call.parts if isinstance(part, str))
    return structs.replace(
        known,
        prompt=known.prompt or passage.token_count or said // LETTERS + 1,
        output=known.output or characters // LETTERS + 1,
    )
