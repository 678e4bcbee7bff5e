"""A streamed answer that owns its release.

Lease, record and socket are given back exactly once, when the stream ends, fails, or the reader walks
away; closing it twice is harmless.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Protocol, Self

from headgate.core.call import Chunk, Usage
from headgate.core.errors import UpstreamError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Exchange, TransportError

__all__ = ["Change", "ReplyStream"]


class Change(Protocol):
    """Something that is done to every piece of a stream on its way up."""

    def feed(self, chunk: Chunk) -> Chunk:
        """The piece to pass on for a piece that came; what is not clear yet may be held back."""

    def finish(self) -> Chunk | None:
        """What was held back, once the stream is over. May raise a `HeadgateError`."""


class ReplyStream:
    """An answer in pieces. Iterate it, or close it.

    Args:
        first: the piece that was already read; it proved that the upstream answers.
        rest: the pieces after it.
        exchange: what to close at the end.
        safe: takes credentials out of an outcome's message.
    """

    def __init__(
        self,
        first: Chunk,
        rest: AsyncGenerator[Chunk | Outcome],
        exchange: Exchange,
        safe: Callable[[Outcome], Outcome],
        request_id: str,
        key_name: str,
    ) -> None:
        self._first: Chunk | None = first
        self._rest = rest
        self._exchange = exchange
        self._safe = safe
        self._request_id = request_id
        self._key_name = key_name
        self._ended = False
        self._on_end: list[Callable[[Outcome], None]] = []
        self._change: Change | None = None
        self.usage = Usage()
        self.model = first.model
        self.finish_reason: str | None = None

    def on_end(self, callback: Callable[[Outcome], None]) -> None:
        """Call back once, with the outcome, when the stream is over. Innermost stage first."""
        self._on_end.append(callback)

    def through(self, change: Change) -> None:
        """Pass every piece through a change; at most one, before the first is read."""
        self._change = change

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._ended:
            raise StopAsyncIteration
        if self._change is None:
            chunk = await self._next()
        else:
            chunk = await self._changed(self._change)
        self.usage = chunk.usage or self.usage
        self.finish_reason = chunk.finish_reason or self.finish_reason
        return chunk

    async def _changed(self, change: Change) -> Chunk:
        try:
            return change.feed(await self._next())
        except StopAsyncIteration:
            last = change.finish()
            if last is None:
                raise
            return last
        except BaseException:
            await self.aclose()
            raise

    async def _next(self) -> Chunk:
        if (first := self._first) is not None:
            self._first = None
            return first
        try:
            item = await anext(self._rest)
        except StopAsyncIteration:
            await self._end(Outcome(Kind.SUCCESS, status=200, usage=self.usage))
            raise
        except TransportError as failure:
            item = failure.outcome
        except BaseException:  # cancelled, or a fault of ours: either way nothing may stay open
            await self.aclose()
            raise
        if isinstance(item, Chunk):
            return item
        outcome = self._safe(item)
        await self._end(outcome)
        sentence = (
            f"The stream broke off: {outcome.message} What came before it is incomplete; ask again."
        )
        if outcome.kind is Kind.BLOCKED:
            sentence = f"{outcome.message} Change the prompt; sending it again will not help."
        raise UpstreamError(
            outcome,
            sentence,
            key_name=self._key_name,
            request_id=self._request_id,
        )

    async def aclose(self) -> None:
        """Stop reading: give everything back at once. An answer that was not read to its end counts
        as cancelled."""
        await self._end(Outcome(Kind.CANCELLED, "The reader closed the stream.", usage=self.usage))

    async def _end(self, outcome: Outcome) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            for callback in self._on_end:
                callback(outcome)
            await self._rest.aclose()
        finally:
            await self._exchange.aclose()
