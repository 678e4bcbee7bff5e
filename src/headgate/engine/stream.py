"""A streamed answer that owns its release.

Lease, record and socket are given back exactly once, when the stream ends, fails, or the reader walks
away; closing it twice is harmless.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, Self

from headgate.core.call import Chunk, Usage
from headgate.core.errors import UpstreamError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Exchange, TransportError

__all__ = ["Change", "Ending", "ReplyStream", "Rest"]

Ending = Callable[[Outcome], tuple[Chunk, Outcome] | None]
"""Gets the outcome of a stream that is over. For one that broke it may give a last piece, with which
the stream ends as if it were whole, and the outcome that stages further out are told."""


class Rest(Protocol):
    """The pieces after the first: an asynchronous generator, or what reads like one.

    A generator must have been begun when it gets here. One that is closed before anybody began it, as
    the event loop ends, registers with a loop that takes none any more, which warns of it.
    """

    def __anext__(self) -> Awaitable[Chunk | Outcome]:
        """The next piece, or why there is none. Raises `StopAsyncIteration` at the end."""

    def aclose(self) -> Awaitable[None]:
        """Nobody reads on."""


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
        rest: Rest,
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
        self._ending: Ending | None = None
        self._inner = 0
        self.usage = Usage()
        self.model = first.model
        self.headers = exchange.headers  # of the answer, names in lower case
        self.finish_reason: str | None = None
        self.length = 0  # characters, media and calls that were passed on

    def on_end(self, callback: Callable[[Outcome], None]) -> None:
        """Call back once, with the outcome, when the stream is over. Innermost stage first."""
        self._on_end.append(callback)

    def through(self, change: Change) -> None:
        """Pass every piece through a change; at most one, before the first is read."""
        self._change = change

    def mend(self, ending: Ending) -> None:
        """End as `ending` says where the stream breaks. Who asked to be called back before hears of the
        break, who asks after that only of the ending."""
        self._ending, self._inner = ending, len(self._on_end)

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
        self.length += len(chunk.text) + len(chunk.blobs) + len(chunk.content)
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
            item = await self._rest.__anext__()
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
        last = await self._end(outcome)
        if last is not None:
            return last
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

    async def _end(self, outcome: Outcome) -> Chunk | None:
        """Give everything back, once. The last piece, where the break is mended."""
        if self._ended:
            return None
        self._ended = True
        try:
            for callback in self._on_end[: self._inner]:
                callback(outcome)
            mended = None if self._ending is None else self._ending(outcome)
            last, outcome = mended or (None, outcome)
            for callback in self._on_end[self._inner :]:
                callback(outcome)
            await self._rest.aclose()
        finally:
            await self._exchange.aclose()
        return last
