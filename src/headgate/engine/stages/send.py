"""Send: the wire form goes out with a key, the answer comes back classified.

On failure the socket is closed and `AttemptFailed` carries the outcome up, with every credential
already taken out of its message. An answer that streams is returned once its first piece is in; until
then nothing was passed on, so the attempt may still be repeated elsewhere.
"""

from __future__ import annotations

from msgspec import structs

from headgate.core.call import Chunk, Key, Reply
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Exchange, Provider, Transport, TransportError
from headgate.engine.passage import Answer, AttemptFailed, Onward, Passage
from headgate.engine.stream import ReplyStream
from headgate.policy.redaction import one_line, redact

__all__ = ["Send"]


class Send:
    """The last stage: it has no one to go on to."""

    def __init__(self, provider: Provider, transport: Transport) -> None:
        self._provider = provider
        self._transport = transport

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:  # noqa: ARG002 - the end
        """One attempt with the passage's lease. Raises `AttemptFailed`."""
        assert passage.request is not None and passage.lease is not None  # noqa: S101, PT018 - set above
        key = passage.lease.key
        try:
            exchange = await self._transport.open(
                passage.request,
                self._provider.credential(key),
                passage.call.deadline,
                not_after=passage.not_after,
            )
        except TransportError as failure:
            raise AttemptFailed(_safe(failure.outcome, key), sent=failure.sent) from None
        handed_over = False
        try:
            answer = await self._answer(passage, exchange, key)
            handed_over = isinstance(answer, ReplyStream)
        except TransportError as failure:
            raise AttemptFailed(_safe(failure.outcome, key)) from None
        finally:
            if not handed_over:
                await exchange.aclose()
        return answer

    async def _answer(self, passage: Passage, exchange: Exchange, key: Key) -> Answer:
        if exchange.status != 200:
            body = await exchange.read()
            outcome = self._provider.read_error(exchange.status, exchange.headers, body)
            raise AttemptFailed(_safe(outcome, key))
        assert passage.request is not None  # noqa: S101 - set by prepare
        passage.limits = self._provider.named_limits(exchange.headers)
        if passage.request.streaming:
            return await self._stream(passage, exchange, key)
        result = self._provider.read(passage.call, await exchange.read())
        if not isinstance(result, Reply):
            raise AttemptFailed(_safe(result, key))
        return result

    async def _stream(self, passage: Passage, exchange: Exchange, key: Key) -> ReplyStream:
        chunks = self._provider.chunks(exchange.events())
        first = await anext(chunks, None)
        if isinstance(first, Chunk):
            request_id = passage.call.request_id
            return ReplyStream(
                first, chunks, exchange, lambda out: _safe(out, key), request_id, key.name
            )
        await chunks.aclose()
        silence = Outcome(Kind.PROTOCOL, "The upstream ended the stream before it began.", status=200)
        raise AttemptFailed(_safe(first or silence, key))


def _safe(outcome: Outcome, key: Key) -> Outcome:
    return structs.replace(outcome, message=one_line(redact(outcome.message, key.value)))
