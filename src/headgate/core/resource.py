"""Words of calls to a resource API: endpoints, what is asked of them, what became of it.

Model calls have `core/call.py`; these are for an upstream whose operations are resources: users, runs,
repositories. An endpoint says what may be repeated, what may be kept and what a write makes stale, so
that no stage needs to know any endpoint by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from headgate.core.call import Key
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Request

__all__ = [
    "Endpoint",
    "ResourceCall",
    "ResourceFailed",
    "ResourceObserver",
    "ResourceProvider",
    "ResourceRecord",
    "ResourceReply",
]


class Endpoint(Struct, frozen=True):
    """One operation of a resource API.

    Attributes:
        name: what people, logs and metrics call it.
        path: with `{placeholders}`, after the base URL.
        group: the class whose limit it counts against.
        repeatable: whether sending it twice does what sending it once does. Where it does not, an
            attempt whose fate is unknown is never repeated.
        shelf: what its answers are kept with, or "" if they are never kept.
        spoils: shelves whose entries for the same owner it makes stale.
    """

    name: str
    method: str
    path: str
    group: str = "standard"
    repeatable: bool = True
    shelf: str = ""
    spoils: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResourceCall:
    """One request of a caller.

    Attributes:
        owner: what its answer belongs to (an organisation): writes spoil kept answers of their owner.
        values: of the path's placeholders.
        query: without what is None.
        body: JSON, or None.
        fresh: go past what is kept; the answer is kept all the same, unless `keep` is False.
        retries: extra tries, or None for the path's own number.
        timeout: seconds for each attempt, or None for the path's own. Waiting for a limit is not
            counted.
        first_delay: seconds, the bound of the first delay before a retry, or None for the path's own.
        on_send: called right before each attempt leaves; what it raises ends the call unsent.
    """

    endpoint: Endpoint
    owner: str = ""
    values: Mapping[str, int | str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = field(default=None, repr=False)
    request_id: str = ""
    fresh: bool = False
    keep: bool = True
    retries: int | None = None
    timeout: float | None = None
    first_delay: float | None = None
    on_send: Callable[[], None] | None = None


class ResourceReply(Struct, frozen=True):
    """A good answer. `body` is JSON as it came; `kept` says that it was not asked for anew."""

    status: int
    body: bytes
    kept: bool = False


class ResourceFailed(Exception):  # noqa: N818 - what became of a call; doors turn it into their errors
    """A call ended without an answer.

    Attributes:
        outcome: of the last attempt, its message redacted. OVERLOAD without a status and with
            `attempts` 0 is a breaker that is open.
        data: the error's JSON body, or None.
        sent: whether the upstream may have acted on it.
        attempts: how often it was sent.
        retry_after: seconds until the same call may do better, where that is known.
    """

    def __init__(
        self,
        outcome: Outcome,
        call: ResourceCall,
        *,
        data: object = None,
        sent: bool = False,
        attempts: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome
        self.call = call
        self.data = data
        self.sent = sent
        self.attempts = attempts
        self.retry_after = retry_after


class ResourceRecord(Struct, frozen=True):
    """One attempt, or one answer that was kept. Times are monotonic seconds.

    `kind` is SUCCESS or what went wrong; `waited` are seconds for the class's limit before it left.
    """

    request_id: str
    endpoint: str
    group: str
    number: int
    started: float
    ended: float
    kind: Kind
    status: int | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    waited: float = 0.0
    kept: bool = False


class ResourceObserver(Protocol):
    """Hears what becomes of attempts. Must return quickly and never raise."""

    def sending(self, call: ResourceCall, number: int) -> None:
        """An attempt leaves."""

    def attempt(self, record: ResourceRecord) -> None:
        """One attempt ended, or a kept answer was given."""

    def body(self, call: ResourceCall, request: bytes, reply: bytes) -> None:
        """What was said, for those who log it. Both are unredacted."""


class ResourceProvider(Protocol):
    """A resource API's wire format and errors; no sockets."""

    def write(self, call: ResourceCall) -> Request:
        """The wire form, without a credential. Raises `InvalidCallError`."""

    def credential(self, key: Key) -> Mapping[str, str]:
        """The headers that carry a key; never part of a URL."""

    def identity(self, call: ResourceCall, key: Key) -> str:
        """What two calls have in common if one answer fits both; holds no credential."""

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> tuple[Outcome, object]:
        """What an answer means, and its JSON if it is an error."""
