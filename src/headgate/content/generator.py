"""One call of a model on a reservation: down the engine's path, its books kept right whatever comes.

The engine settles what it sent. What never got that far is given back here, and only that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import cast

from msgspec import Struct

from headgate.content.ports import Json
from headgate.content.problems import PoorContentError
from headgate.content.prompts import Prompt
from headgate.content.quota_book import Closed, QuotaBook
from headgate.content.quota_config import Held
from headgate.core.call import Blob, Call, Earmark, Operation, Reply
from headgate.core.errors import HeadgateError
from headgate.engine.fresh_ids import fresh_id
from headgate.telemetry.metrics.content_measures import ContentMeasures
from headgate.wiring.build import CHANCE
from headgate.wiring.content import ContentEngine

__all__ = ["Generated", "Generator", "json_in"]

CALL_SECONDS = 60.0
"""A call may take, its retries included."""


class Generated(Struct, frozen=True):
    """What came of a call.

    Attributes:
        model: that answered.
        tokens: used, in and out.
    """

    text: str
    blobs: tuple[Blob, ...]
    model: str
    tokens: int

    def __repr__(self) -> str:
        return f"Generated({self.model!r}, {len(self.text)} characters, {self.tokens} tokens)"


class Generator:
    """Asks models for the service.

    Args:
        measures: counts calls, if anybody does.
    """

    def __init__(self, room: ContentEngine, *, measures: ContentMeasures | None = None) -> None:
        self._room = room
        self._measures = measures
        self._books: dict[str, QuotaBook] = {}

    def book(self, model: str) -> QuotaBook:
        """The ledger of what a model means today: the one that the engine keeps."""
        wire = self._room.on_the_wire(model)
        found = self._books.get(wire)
        if found is None:
            found = self._books[wire] = self._opened(wire)
        return found

    def on_the_wire(self, model: str) -> str:
        """The model that a call for this one goes to today."""
        return self._room.on_the_wire(model)

    @property
    def books(self) -> Mapping[str, QuotaBook]:
        """The ledgers that were used, by model."""
        return self._books

    async def ask(
        self,
        function: str,
        model: str,
        prompt: Prompt,
        held: Held,
        *,
        picture: bytes = b"",
        caller: str = "",
        fixed: bool = False,
    ) -> Generated:
        """One answer.

        Args:
            function: that asks, for metrics.
            picture: a JPEG that the prompt is about.
            held: what was put aside for it; used up, or given back, whatever comes.
            fixed: what was put aside stays booked.

        Raises what the engine raises.
        """
        began = self._room.clock.monotonic()
        call = Call(
            Operation.GENERATE,
            model,
            (Blob("image/jpeg", picture), prompt.text) if picture else (prompt.text,),
            prompt.options,
            request_id=fresh_id(),
            deadline=began + CALL_SECONDS,
            caller=caller,
            earmark=Earmark(held.tokens, held.rid, fixed) if held.rid else None,
        )
        book = self.book(model) if held.rid else None
        if book is not None:
            book.hand_over(held)
        try:
            answer, passage = await self._room.engine.pipeline.run(call)
        except HeadgateError as error:
            if book is not None and not error.attempts:
                await book.free([held])
            self._count(function, self._room.on_the_wire(model), _status(error), began)
            raise
        reply = cast("Reply", answer)
        made = Generated(reply.text, reply.blobs, reply.model or passage.model, reply.usage.total)
        self._count(function, made.model, "success", began, made.tokens, call.request_id)
        if reply.finish_reason == _CUT:
            raise PoorContentError("The model's answer was cut off. Try again.", ["cut off"])
        return made

    def _count(
        self,
        function: str,
        model: str,
        status: str,
        began: float,
        tokens: int = 0,
        request_id: str = "",
    ) -> None:
        if self._measures is not None:
            seconds = self._room.clock.monotonic() - began
            self._measures.gemini_call(
                function, model, status, seconds=seconds, tokens=tokens, request_id=request_id  # type: ignore[arg-type] # one of three
            )  # fmt: skip

    def _opened(self, wire: str) -> QuotaBook:
        room, gate = self._room, self._room.engine.gate
        if gate is None:
            raise ValueError("no quotas are tracked: there is no ledger")
        keeper = gate

        async def group() -> str:
            return await keeper.group(wire)

        return QuotaBook(
            wire,
            room.store,
            group,
            room.clock,
            CHANCE,
            closed=lambda: self._closed(wire),
            told=keeper.flush,
        )

    def _closed(self, wire: str) -> Closed:
        pool, clock = self._room.engine.pool, self._room.clock
        handles, unready = pool.closed(wire)
        recovers = unready.recovers
        seconds = None if recovers is None else max(0.0, recovers - clock.monotonic())
        return Closed(handles, len(handles) >= len(pool.domain_names), seconds)


_CUT = "MAX_TOKENS"
"""What Gemini says of an answer that it did not finish (FinishReason of its API reference)."""

_HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters beyond the first plane, as an answer may hold them that was cut in one."""


def _status(error: HeadgateError) -> str:
    return "quota_exceeded" if error.kind == "quota" else "failure"


def json_in(text: str) -> Json:
    """The JSON of an answer: all of it, or what stands in a fence. Half a character in it becomes
    U+FFFD: no UTF-8 could hold it. Raises `PoorContentError`."""
    body = text.strip()
    if body.startswith("```"):
        body = body.partition("\n")[2].rpartition("```")[0]
    try:
        value = json.loads(body)
        written = json.dumps(value, ensure_ascii=False)
        return json.loads(_HALVES.sub("\ufffd", written)) if _HALVES.search(written) else value
    except (ValueError, RecursionError):
        raise PoorContentError("The model's answer is no JSON.", ["no JSON"]) from None
