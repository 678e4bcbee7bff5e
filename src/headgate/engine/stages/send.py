"""Send: the wire form goes out with a key, the answer comes back classified.

On failure the socket is closed and `AttemptFailed` carries the outcome up, with every credential
already taken out of its message. An answer that streams is returned once its first piece is in; until
then nothing was passed on, so the attempt may still be repeated elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from headgate.core.call import Chunk, Key, Operation, RawReply, Reply
from headgate.core.errors import UpstreamError
from headgate.core.outcome import Kind, Next, Outcome
from headgate.core.ports import Clock, Exchange, Provider, Transport, TransportError
from headgate.engine.gathering import Gathered
from headgate.engine.passage import Answer, AttemptFailed, Onward, Passage
from headgate.engine.stream import ReplyStream
from headgate.policy.degrading import degrades
from headgate.policy.redaction import one_line, redact

__all__ = ["Send"]

LARGEST_REFUSAL = 16_384
"""Bytes of a refusal that is passed on as it came; every one of them is searched for the credential."""


class Send:
    """The last stage: it has no one to go on to.

    Args:
        clock, most_seconds: bound a whole answer that is asked for in pieces; where it is asked for as
            one, the transport does.
    """

    def __init__(
        self,
        provider: Provider,
        transport: Transport,
        clock: Clock | None = None,
        most_seconds: float = float("inf"),
    ) -> None:
        self._provider = provider
        self._transport = transport
        self._clock = clock
        self._most_seconds = most_seconds

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:  # noqa: ARG002 - the end
        """One attempt with the passage's lease. Raises `AttemptFailed`."""
        assert passage.request is not None and passage.lease is not None  # noqa: S101, PT018 - set above
        key = passage.lease.key
        try:
            exchange = await self._transport.open(
                passage.request,
                self._headers(passage, key),
                self._deadline(passage),
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

    def _headers(self, passage: Passage, key: Key) -> Mapping[str, str]:
        credential = self._provider.credential(key)
        return credential if passage.trace is None else {**credential, **passage.trace}

    def _deadline(self, passage: Passage) -> float | None:
        deadline = passage.call.deadline
        if self._clock is None or not _in_pieces(passage):
            return deadline
        most = self._clock.monotonic() + self._most_seconds
        return most if deadline is None else min(most, deadline)

    async def _answer(self, passage: Passage, exchange: Exchange, key: Key) -> Answer:
        if exchange.status != 200:
            body = await exchange.read()
            outcome = self._provider.read_error(exchange.status, exchange.headers, body)
            final = outcome.rule.next is Next.FAIL and len(body) <= LARGEST_REFUSAL
            if final and passage.call.raw is not None:
                outcome = structs.replace(outcome, raw=_refusal(exchange, body, key))
            raise AttemptFailed(_safe(outcome, key))
        assert passage.request is not None  # noqa: S101 - set by prepare
        passage.limits = self._provider.named_limits(exchange.headers)
        if passage.request.streaming:
            stream = await self._stream(passage, exchange, key)
            return await _gathered(passage, stream) if _in_pieces(passage) else stream
        body = await exchange.read()
        result = self._provider.read(passage.call, body)
        if not isinstance(result, Reply):
            raise AttemptFailed(_safe(result, key))
        if passage.call.raw is not None:
            result = structs.replace(result, raw=RawReply(200, exchange.headers, body))
        return result

    async def _stream(self, passage: Passage, exchange: Exchange, key: Key) -> ReplyStream:
        raw = passage.call.raw is not None
        chunks = self._provider.chunks(exchange.events(), raw=raw)
        first = await anext(chunks, None)
        if isinstance(first, Chunk):
            request_id = passage.call.request_id
            return ReplyStream(
                first, chunks, exchange, lambda out: _safe(out, key), request_id, key.name
            )
        await chunks.aclose()
        silence = Outcome(Kind.PROTOCOL, "The upstream ended the stream before it began.", status=200)
        raise AttemptFailed(_safe(first or silence, key))


def _in_pieces(passage: Passage) -> bool:
    """Whether a whole answer was asked for in pieces, so that something is there if it breaks off."""
    call, request = passage.call, passage.request
    streams = request is not None and request.streaming
    return streams and call.operation is Operation.GENERATE and call.raw is None


async def _gathered(passage: Passage, stream: ReplyStream) -> Reply:
    """The whole answer. Of one that breaks off the passage remembers what came, if it is more than
    what came before. Raises `AttemptFailed`."""
    gathered = Gathered()
    try:
        async for chunk in stream:
            gathered.add(chunk)
    except UpstreamError as broken:
        came, before = gathered.reply(), passage.partial
        more = _size(came) > (0 if before is None else _size(before))
        if more and degrades(broken.kind):  # what was withheld is no part of an answer
            passage.partial = came
        raise AttemptFailed(broken.outcome) from None
    finally:
        await stream.aclose()
    return gathered.reply()


def _size(reply: Reply) -> int:
    return len(reply.text) + len(reply.blobs) + len(reply.content)


def _safe(outcome: Outcome, key: Key) -> Outcome:
    return structs.replace(outcome, message=one_line(redact(outcome.message, key.value)))


def _refusal(exchange: Exchange, body: bytes, key: Key) -> RawReply:
    """A refusal as it came; only where it repeats the credential is that taken out."""
    text = body.decode("utf-8", "replace")
    safe = redact(text, key.value, limit=2 * len(text))
    return RawReply(exchange.status, exchange.headers, body if safe == text else safe.encode())
