"""A degrade stage before a scripted rest of the path, without keys, quotas or sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from headgate.core.call import Call, Chunk, Operation, Preparation, Reply
from headgate.core.errors import HeadgateError, InvalidCallError, UpstreamError
from headgate.core.fallback import FallbackStrategy
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Request
from headgate.core.replies import KeptReply
from headgate.core.tokens import Usage
from headgate.engine.passage import Answer, Passage
from headgate.engine.stages.degrade import Degrade
from headgate.engine.stream import ReplyStream
from headgate.testing import VirtualClock

MODEL = "model-a"
UNFIT = "model-unfit"
"""A model that can do nothing."""

USAGE = Usage(prompt=7, output=2)


@dataclass(frozen=True)
class Answers:
    """The upstream answers."""

    text: str = "fine"


@dataclass(frozen=True)
class Fails:
    """The upstream fails, perhaps after a part of the answer."""

    kind: Kind = Kind.SERVER
    after: str = ""
    seconds: float = 0.0


Act = Answers | Fails


def kept(text: str = "of yesterday", at: float = 0.0) -> KeptReply:
    """An earlier answer."""
    return KeptReply(Reply(text=text, finish_reason="STOP", usage=USAGE), MODEL, at, at, at, at + 1e9)


def asked(
    *fallbacks: FallbackStrategy,
    stream: bool = False,
    deadline: float | None = None,
    schema: Mapping[str, object] | None = None,
    operation: Operation | None = None,
) -> Call:
    """A call with these strategies."""
    return Call(
        operation or (Operation.STREAM if stream else Operation.GENERATE),
        MODEL,
        ("What makes the tide?",),
        request_id="r",
        deadline=deadline,
        fallbacks=fallbacks,
        preparation=None if schema is None else Preparation(schema=schema),
    )


class Exchange:
    """Remembers whether it was closed."""

    status = 200
    headers: Mapping[str, str] = {}
    closed = False

    async def read(self) -> bytes:
        return b""

    async def events(self) -> AsyncGenerator[Event]:
        for never in ():
            yield never

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Rest:
    """The rest of the path: plays its acts in order, the last one again and again.

    Attributes:
        models: that were asked, in order.
        heard: outcomes that streams told the stages below degrade.
    """

    clock: VirtualClock
    acts: Sequence[Act]
    models: list[str] = field(default_factory=list)
    streaming: list[bool] = field(default_factory=list)
    heard: list[Outcome] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    async def __call__(self, passage: Passage) -> Answer:
        assert passage.request is not None
        act = self.acts[min(len(self.models), len(self.acts) - 1)]
        self.models.append(passage.model)
        self.streaming.append(passage.request.streaming)
        passage.attempts += 1
        if isinstance(act, Fails):
            await self.clock.sleep(act.seconds)
        if passage.call.operation is Operation.STREAM:
            return self._stream(passage, act)
        if isinstance(act, Answers):
            return Reply(text=act.text, finish_reason="STOP", usage=USAGE, model=passage.model)
        if act.after and passage.request.streaming:
            passage.partial = Reply(text=act.after, model=passage.model)
        raise UpstreamError(Outcome(act.kind, f"{passage.model} is out."), request_id="r")

    def _stream(self, passage: Passage, act: Act) -> ReplyStream:
        if isinstance(act, Fails) and not act.after:
            raise UpstreamError(Outcome(act.kind, f"{passage.model} is out."), request_id="r")
        said = act.text if isinstance(act, Answers) else act.after
        exchange = Exchange()
        self.exchanges.append(exchange)
        stream = ReplyStream(
            Chunk(said, model=passage.model), _rest_of(act), exchange, lambda out: out, "r", "k0"
        )
        stream.on_end(self.heard.append)
        return stream


async def _rest_of(act: Act) -> AsyncGenerator[Chunk | Outcome]:
    if isinstance(act, Answers):
        yield Chunk(finish_reason="STOP", usage=USAGE)
    else:
        yield Outcome(act.kind, "It broke.")


class Writer:
    """A provider that only writes."""

    name = "fake"

    def write(self, call: Call, model: str) -> Request:
        return Request("POST", model, {}, b"", streaming=call.operation is Operation.STREAM)


async def move(passage: Passage, model: str) -> None:
    """Make a call ready for another model."""
    if model == UNFIT:
        raise InvalidCallError(f"Model {model} has no understanding of images.", kind="unsupported")
    passage.model = model
    passage.call = structs.replace(passage.call, model=model)
    passage.request = Writer().write(passage.call, model)


async def run(
    call: Call, rest: Rest, clock: VirtualClock, *, stale: KeptReply | None = None
) -> tuple[Answer | HeadgateError, Passage]:
    """What becomes of a call, and its passage."""
    degrade = Degrade(Writer(), move, clock)  # type: ignore[arg-type] - it only writes
    passage = Passage(call, clock.monotonic(), model=MODEL, stale=stale)
    passage.request = Writer().write(call, MODEL)
    try:
        return await degrade(passage, rest), passage
    except HeadgateError as error:
        return error, passage


async def read(stream: ReplyStream) -> tuple[str, str | None, Usage, HeadgateError | None]:
    """A stream's text, finish reason and usage, and what it raised."""
    text = ""
    try:
        async for chunk in stream:
            text += chunk.text
    except HeadgateError as error:
        return text, stream.finish_reason, stream.usage, error
    return text, stream.finish_reason, stream.usage, None
