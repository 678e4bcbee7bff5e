"""A transport that answers from a script, in the time of its clock, and remembers what was sent.

transport = ScriptedTransport([Answer(body=b"…"), Answer(429, body=b"…"), BROKEN])
client = ResilientGeminiClient(keys="…", transport=transport, clock=clock)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, Event, Request, TransportError
from headgate.testing.clock import VirtualClock
from headgate.transport.sse import SseDecoder

__all__ = ["BROKEN", "Answer", "Broken", "ScriptedTransport", "Sent"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to give. Delays are in seconds of the transport's clock.

    Attributes:
        status: HTTP status.
        body: the whole body, or what precedes `pieces`.
        headers: names in lower case.
        connect: until a connection is in hand and the request leaves.
        delay: until the head of the answer is in.
        pieces: more of the body, each after `piece_delay`.
        broken: whether the connection breaks after the body.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    connect: float = 0.0
    delay: float = 0.0
    pieces: tuple[bytes, ...] = ()
    piece_delay: float = 0.0
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """No answer: the exchange fails with this kind after `delay` seconds."""

    kind: Kind = Kind.NETWORK
    message: str = "The connection broke."
    sent: bool = True
    delay: float = 0.0


BROKEN = Broken()

Script = Answer | Broken


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it left: when, to where, with which credential headers."""

    request: Request
    credential: Mapping[str, str]
    at: float


class ScriptedTransport:
    """A `Transport` without sockets.

    Args:
        script: the answers in order (the last one repeats), or a function from what was sent to an
            answer.
        clock: whose time delays take.

    Attributes:
        sent: everything that was sent, in order.
        open_exchanges: answers not closed yet; 0 at the end of a test that leaks nothing.
    """

    def __init__(
        self,
        script: Iterable[Script] | Callable[[Sent], Script],
        clock: Clock | None = None,
    ) -> None:
        self._script: Callable[[Sent], Script] | None = script if callable(script) else None
        self._answers = [] if callable(script) else list(script)
        self._clock = clock or VirtualClock()
        self.sent: list[Sent] = []
        self.open_exchanges = 0

    async def open(
        self,
        request: Request,
        credential: Mapping[str, str],
        deadline: float | None,
        *,
        not_after: float | None = None,
    ) -> ScriptedExchange:
        """See `Transport.open`."""
        sent = Sent(request, dict(credential), self._clock.monotonic())
        answer = self._next(sent)
        if isinstance(answer, Answer) and answer.connect:
            await self.wait(answer.connect, deadline)
            sent = Sent(request, sent.credential, self._clock.monotonic())
        if not_after is not None and self._clock.monotonic() > not_after:
            raise TransportError(Outcome(Kind.LATE, "The connection came too late."), sent=False)
        self.sent.append(sent)
        await self.wait(answer.delay, deadline)
        if isinstance(answer, Broken):
            raise TransportError(Outcome(answer.kind, answer.message), sent=answer.sent)
        self.open_exchanges += 1
        return ScriptedExchange(self, answer, deadline)

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _next(self, sent: Sent) -> Script:
        if self._script is not None:
            return self._script(sent)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    async def wait(self, seconds: float, deadline: float | None) -> None:
        """Let time pass, to the deadline at most, which is then an error."""
        left = None if deadline is None else deadline - self._clock.monotonic()
        if left is not None and seconds > left:
            await self._clock.sleep(left)
            raise TransportError(Outcome(Kind.TIMEOUT, "The upstream took too long."), sent=True)
        if seconds:
            await self._clock.sleep(seconds)


class ScriptedExchange:
    """An `Exchange` that gives what the script says."""

    def __init__(self, transport: ScriptedTransport, answer: Answer, deadline: float | None) -> None:
        self._transport = transport
        self._answer = answer
        self._deadline = deadline
        self._closed = False

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers."""
        return self._answer.headers

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self._pieces()])

    async def events(self) -> AsyncGenerator[Event]:
        """The body as server-sent events."""
        decoder = SseDecoder()
        async with aclosing(self._pieces()) as body:
            async for piece in body:
                for event in decoder.feed(piece):
                    yield event
        for event in decoder.end():
            yield event

    async def aclose(self) -> None:
        """Count as closed, once."""
        if not self._closed:
            self._closed = True
            self._transport.open_exchanges -= 1

    async def _pieces(self) -> AsyncGenerator[bytes]:
        if self._answer.body:
            yield self._answer.body
        for piece in self._answer.pieces:
            await self._transport.wait(self._answer.piece_delay, self._deadline)
            yield piece
        if self._answer.broken:
            raise TransportError(Outcome(Kind.NETWORK, "The connection broke."), sent=True)
