"""Ports: the seams where the engine meets the outside. `wiring/build.py` introduces them.

Every implementation of a port passes one contract suite in `tests/contract`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from headgate.core.buckets import Ask, Verdict
from headgate.core.call import Call, Chunk, Key, Part, Reply, Usage
from headgate.core.outcome import Outcome
from headgate.core.quota import Batch, BatchReply, Costs, Limit
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord

__all__ = [
    "Buckets",
    "CallListener",
    "Clock",
    "Event",
    "Exchange",
    "LimitObserver",
    "Observer",
    "Provider",
    "QuotaStore",
    "Request",
    "Tariff",
    "Transport",
    "TransportError",
    "UsageDays",
]


class Clock(Protocol):
    """Time as an argument. `headgate.testing.VirtualClock` makes it jump instead of pass."""

    def monotonic(self) -> float:
        """Seconds that never step back; the origin means nothing."""

    def wall(self) -> float:
        """Unix time in seconds; may step."""

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less only yields to other tasks."""


class Request(Struct, frozen=True):
    """An HTTP request without a credential. `body` may hold prompts: it is never logged."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    streaming: bool = False

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url}, {len(self.body)} bytes)"


class Event(Struct, frozen=True, eq=False):
    """A piece of an event stream.

    `framed` is False for text that is no server-sent event at all: some upstreams drop a bare error
    body into a stream that began well.

    `raw` is every byte since the event before it, as it came: the data, its framing, comments. What is
    neither an event nor stray text, a comment at the end for instance, comes as an event without data
    that is not framed: see `is_filler`.
    """

    data: bytes
    framed: bool = True
    raw: bytes = b""

    def __eq__(self, other: object) -> bool:
        """Alike in what they say, however it was framed."""
        return isinstance(other, Event) and (self.data, self.framed) == (other.data, other.framed)

    def __hash__(self) -> int:
        return hash((self.data, self.framed))

    def __repr__(self) -> str:
        return f"Event({len(self.data)} bytes, framed={self.framed})"  # it may hold prompts

    @property
    def is_filler(self) -> bool:
        """Whether it says nothing, and is there only for the bytes."""
        return not self.framed and not self.data


class TransportError(Exception):
    """The exchange broke off: no answer, or not a whole one. Holds no credential.

    Attributes:
        outcome: NETWORK, TIMEOUT, TLS, PROTOCOL or LATE, with a sentence that says what happened.
        sent: whether any byte of the request may have reached the upstream.
    """

    def __init__(self, outcome: Outcome, *, sent: bool) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome
        self.sent = sent


class Exchange(Protocol):
    """One answer as it arrives. Whoever opened it closes it; closing twice is harmless."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers, names in lower case."""

    async def read(self) -> bytes:
        """The whole body. Raises `TransportError`."""

    def events(self) -> AsyncGenerator[Event]:
        """The body as server-sent events, as they come. Raises `TransportError`."""

    async def aclose(self) -> None:
        """Give the socket back, or drop it when the body was not read to its end."""


class Transport(Protocol):
    """Sockets, no wire formats. Follows no redirect, adds no header, decodes no body."""

    async def open(
        self,
        request: Request,
        credential: Mapping[str, str],
        deadline: float | None,
        *,
        not_after: float | None = None,
    ) -> Exchange:
        """Send the request with the credential's headers and return once the answer's head is in.

        Args:
            deadline: in `Clock.monotonic` seconds; it also bounds what is read from the exchange.
            not_after: when the connection is in hand only after this instant, in the same seconds,
                nothing is sent: a `TransportError` of kind LATE. The connection is kept for the next.

        Raises `TransportError`. Cancelling it closes the connection at once.
        """

    async def aclose(self) -> None:
        """Close every connection of the running event loop."""


class Provider(Protocol):
    """One upstream's wire format and errors; no sockets. Every answer is classified here, once."""

    @property
    def name(self) -> str:
        """`gemini`, …"""

    def write(self, call: Call, model: str) -> Request:
        """The wire form of a call for a resolved model; of a raw one its own bytes. Raises
        `InvalidCallError`."""

    def credential(self, key: Key) -> Mapping[str, str]:
        """The headers that carry a key; never part of a URL."""

    def read(self, call: Call, body: bytes) -> Reply | Outcome:
        """The reply in a 200 body, or why it is none (blocked, malformed). Of a raw call an answer that
        was withheld is a reply too: whoever asked is told so in the upstream's own words."""

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """What an answer with another status means."""

    def named_limits(self, headers: Mapping[str, str]) -> tuple[Limit, ...]:
        """The quotas that the headers of a 200 name for the key's domain and the model."""

    def chunks(
        self, events: AsyncGenerator[Event], *, raw: bool = False
    ) -> AsyncGenerator[Chunk | Outcome]:
        """A streamed answer piece by piece; an `Outcome` ends one that failed. Closes `events`.

        Args:
            raw: the call was raw: pieces carry their bytes, and of what they say what policy needs.
        """


class Tariff(Protocol):
    """What a provider's quotas count of a call. Each provider counts in its own way."""

    def prompt(self, call: Call) -> tuple[Part, ...]:
        """All of a call that is counted as input, for an estimate of its tokens."""

    def cached(self, call: Call) -> bool:
        """Whether some of the prompt may come from a cache and not be counted."""

    def requests(self, call: Call) -> int:
        """How many requests are counted for a call: of a batch, one or one for each of its texts."""

    def most_output(self, call: Call) -> int | None:
        """The longest answer in tokens; None where the call sets no bound."""

    def prepaid_output(self, call: Call) -> int:
        """Tokens of output that are counted when the call arrives, whatever comes out of it; 0 where
        only what has come out is counted."""

    def counted(self, usage: Usage) -> Costs:
        """The tokens that quotas count of an attempt: input, output and total."""


class QuotaStore(Protocol):
    """Where quota ledgers live. Every implementation gives the same answers to the same history.

    Times are milliseconds of the store's own clock, made monotone. A store that cannot answer raises
    `StoreError` within its deadline; what it was told may then have happened or not, and may be told
    again, because every operation is idempotent by reservation id.
    """

    async def declare(self, group: str, domains: Sequence[Sequence[Limit]]) -> None:
        """Make a group with these limits per domain, if there is none yet."""

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        """One atomic step, one round trip."""

    async def aclose(self) -> None:
        """Give connections back."""


class Buckets(Protocol):
    """Where the token buckets of inbound limits live. Every implementation decides alike.

    A store that cannot answer raises `StoreError` within its deadline; tokens may then be gone.
    """

    async def take(self, ask: Ask) -> Verdict:
        """Take from every bucket of the ask or from none, in one atomic step."""

    async def reset(self, identifier: str) -> int:
        """Delete every bucket of an identifier. How many there were."""

    async def aclose(self) -> None:
        """Wait for what is under way."""


class UsageDays(Protocol):
    """Where daily usage totals live. Days are UTC, written YYYY-MM-DD; amounts are decimal texts."""

    async def add(self, day: str, member: str, number: int, amounts: Mapping[str, str]) -> None:
        """Add a batch to a day in one atomic step, once: the same number again changes nothing.

        A member counts its batches up and sends one at a time. Raises `StoreError`.
        """

    async def read(self, days: Sequence[str]) -> list[dict[str, str]]:
        """What each day holds; nothing for a day without usage. Raises `StoreError`."""

    async def aclose(self) -> None:
        """Wait for what is under way."""


class LimitObserver(Protocol):
    """Hears what became of each inbound check. Must return quickly and never raise."""

    def checked(self, identifier: str, result: str, remaining: float | None) -> None:
        """One check ended: `allowed`, `exceeded` or `error`, with the fewest tokens left."""


class StageTimes(Protocol):
    """Hears where the time of one call goes. Returns at once, never raises."""

    def __call__(self, stage: str, began: float, ended: float) -> None:
        """A stage was busy itself, not further down the path. Monotonic seconds."""


class CallListener(Protocol):
    """Hears of a call under way; an observer may be one, too. Returns quickly, never raises."""

    def begun(self, call: Call) -> Mapping[str, str] | None:
        """A call begins. Gives headers that its upstream requests are to carry, if any."""

    def timing(self, call: Call) -> StageTimes | None:
        """Of a call that has begun: who hears of its stages; None where nobody wants to."""

    def answered(self, call: Call, reply: Reply) -> None:
        """A call was answered; of a stream, without its text."""


class Observer(Protocol):
    """Hears typed facts. Must return quickly and never raise; it cannot change a call."""

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended."""

    def waiting(self, record: WaitRecord) -> None:
        """A call starts to wait: for a key, or before a retry."""

    def call(self, record: CallRecord) -> None:
        """One call ended."""
