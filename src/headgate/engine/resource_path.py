"""The path of a resource call: recall, attempt, protect, reserve, send.

| stage | on the way down | on the way up |
|---|---|---|
| recall | a kept answer ends the call; the same question under way is shared | keeps; a write spoils |
| attempt | the only owner of retries | decides: again, or give up |
| protect | refuses while the breaker is open | tells the breaker |
| reserve | waits for the class's limit | tells the limit |
| send | the transport sends with the token's header | the provider classifies, once |

What may be done twice is retried after 429, 500, 502, 503, 504 and broken connections. What may not is
retried only where the upstream cannot have acted: after a 429, or where no connection was made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headgate.core.call import Key
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, Request, Transport, TransportError
from headgate.core.resource import (
    ResourceCall,
    ResourceFailed,
    ResourceObserver,
    ResourceProvider,
    ResourceRecord,
    ResourceReply,
)
from headgate.engine.class_limits import ClassLimits, ClassPaused
from headgate.engine.single_flight import SingleFlight
from headgate.policy.backoff import Backoff
from headgate.policy.breaker import Breaker, BreakerState, Pass
from headgate.policy.freshness import Freshness
from headgate.policy.redaction import one_line, redact

__all__ = ["PathRules", "ResourcePath"]

_FAULTS = (Kind.SERVER, Kind.OVERLOAD, Kind.NETWORK, Kind.TIMEOUT, Kind.TLS, Kind.PROTOCOL)
_BROKEN_OFF = (Kind.NETWORK, Kind.TIMEOUT, Kind.PROTOCOL)


@dataclass(frozen=True, slots=True)
class PathRules:
    """How a path behaves. Times in seconds.

    Attributes:
        timeout: for each attempt.
        retries: extra tries of a call.
        jitter: full jitter; without it each delay is as long as it may be.
        longest_wait: a hint beyond it is passed on instead of waited for.
        statuses: after which a call is tried again.
        ttls: of each shelf; what is not named is not kept.
    """

    timeout: float = 30.0
    retries: int = 3
    backoff: Backoff = field(default_factory=Backoff)
    jitter: bool = True
    longest_wait: float = 60.0
    statuses: frozenset[int] = frozenset({429, 500, 502, 503, 504})
    ttls: Mapping[str, float] = field(default_factory=dict)


class ResourcePath:
    """Calls of one token to one upstream. Tasks, threads and event loops may share it.

    Args:
        cache: where answers are kept, or None.
        breaker: one for all endpoints.
        lock: of cache and breaker, where another path shares them.
    """

    def __init__(
        self,
        *,
        key: Key,
        provider: ResourceProvider,
        transport: Transport,
        clock: Clock,
        chance: Callable[[], float],
        limits: ClassLimits,
        breaker: Breaker,
        cache: Freshness[bytes] | None,
        rules: PathRules,
        observer: ResourceObserver,
        lock: threading.Lock | None = None,
    ) -> None:
        self._key = key
        self._provider = provider
        self._transport = transport
        self._clock = clock
        self._chance = chance
        self.limits = limits
        self.breaker = breaker
        self.cache = cache
        self._rules = rules
        self._observer = observer
        self._flights: SingleFlight[ResourceReply] = SingleFlight()
        self.lock = lock or threading.Lock()

    async def call(self, call: ResourceCall) -> ResourceReply:
        """The answer. Raises `ResourceFailed`, or `InvalidCallError` for what cannot be sent."""
        endpoint = call.endpoint
        if endpoint.spoils:
            return await self._write(call)
        ttl = self._rules.ttls.get(endpoint.shelf, 0.0)
        if self.cache is None or ttl <= 0 or not (call.keep or not call.fresh):
            return await self._attempts(call)
        identity = self._provider.identity(call, self._key)
        if call.fresh:
            return await self._fetched(call, identity, ttl)
        with self.lock:
            body = self.cache.get(identity, self._clock.monotonic())
        if body is not None:
            now = self._clock.monotonic()
            self._tell(call, 0, now, Kind.SUCCESS, status=200, received=len(body), kept=True)
            return ResourceReply(200, body, kept=True)
        return await self._flights.ask(identity, lambda: self._fetched(call, identity, ttl))

    def breaker_view(self) -> dict[str, object]:
        """State, times it opened, and seconds until it lets a call through."""
        now = self._clock.monotonic()
        with self.lock:
            state, opened, wait = self.breaker.state(now), self.breaker.opened, self.breaker.wait(now)
        return {"state": state.value, "opened": opened, "retry_in": round(wait, 3)}

    # ── recall ──────────────────────────────────────────────────────────────────────────────────

    async def _fetched(self, call: ResourceCall, identity: str, ttl: float) -> ResourceReply:
        assert self.cache is not None  # noqa: S101 - asked before
        with self.lock:
            begun = self.cache.begin()
        reply = await self._attempts(call)
        tags = (f"{call.endpoint.shelf}:{call.owner}",)
        with self.lock:
            now = self._clock.monotonic()
            self.cache.put(identity, reply.body, tags, ttl=ttl, now=now, begun=begun)
        return reply

    async def _write(self, call: ResourceCall) -> ResourceReply:
        try:
            return await self._attempts(call)
        finally:  # also where it failed, or nobody waits any more: it may have been carried out
            if self.cache is not None:
                with self.lock:
                    self.cache.spoil(f"{shelf}:{call.owner}" for shelf in call.endpoint.spoils)

    # ── attempt ─────────────────────────────────────────────────────────────────────────────────

    async def _attempts(self, call: ResourceCall) -> ResourceReply:
        retries = self._rules.retries if call.retries is None else call.retries
        request = self._provider.write(call)  # first of all: what cannot be written costs nothing
        number = 0
        while True:
            try:
                return await self._once(call, request, number + 1)
            except ResourceFailed as caught:
                failed = caught
            number += 1
            if number > retries or not self._may_repeat(failed):
                raise failed
            if failed.outcome.status != 429:  # after one, the class itself waits
                await self._clock.sleep(self._delay(failed, number - 1))

    def _may_repeat(self, failed: ResourceFailed) -> bool:
        outcome = failed.outcome
        if failed.attempts == 0:  # the breaker is open
            return False
        if failed.retry_after is not None and failed.retry_after > self._rules.longest_wait:
            return False
        if outcome.status is None and not failed.sent:
            return outcome.kind is Kind.NETWORK
        if not failed.call.endpoint.repeatable:
            return outcome.status == 429 and 429 in self._rules.statuses
        return outcome.status in self._rules.statuses or outcome.kind in _BROKEN_OFF

    def _delay(self, failed: ResourceFailed, retry: int) -> float:
        if failed.retry_after is not None:
            return failed.retry_after
        backoff, first = self._rules.backoff, failed.call.first_delay
        if first is not None:
            backoff = Backoff(first, backoff.factor, max(first, backoff.cap))
        return backoff.delay(retry, self._chance()) if self._rules.jitter else backoff.ceiling(retry)

    # ── protect, reserve ────────────────────────────────────────────────────────────────────────

    async def _once(self, call: ResourceCall, request: Request, number: int) -> ResourceReply:
        self._refuse_while_open(call)
        waited = await self._turn(call)
        with self.lock:
            admitted = self.breaker.ask(self._clock.monotonic())
        if admitted is None:  # it opened while the call waited its turn
            self._refuse_while_open(call)
            raise self._refusal(call, 0.0)
        settled = False
        try:
            if call.on_send is not None:
                call.on_send()
            reply = await self._send(call, request, number, waited)
            self._settle(admitted, Kind.SUCCESS)
            settled = True
            return reply
        except ResourceFailed as failed:
            self._settle(admitted, failed.outcome.kind)
            settled = True
            raise
        finally:
            if not settled:
                self._settle(admitted, Kind.CANCELLED)

    async def _turn(self, call: ResourceCall) -> float:
        """Wait for the class's limit. A hint longer than one is obeyed is the caller's to decide on."""
        try:
            return await self.limits.turn(call.endpoint.group, self._rules.longest_wait)
        except ClassPaused as paused:
            pause = paused.seconds
        sentence = (
            f"The upstream asked to be left alone for {pause:.0f} s more, longer than a call waits. "
            "Nothing was sent."
        )
        raise ResourceFailed(Outcome(Kind.QUOTA_MINUTE, sentence, 429), call, retry_after=pause)

    def _refuse_while_open(self, call: ResourceCall) -> None:
        with self.lock:
            wait = self.breaker.wait(self._clock.monotonic())
        if wait > 0:
            raise self._refusal(call, wait)

    @staticmethod
    def _refusal(call: ResourceCall, wait: float) -> ResourceFailed:
        sentence = (
            "The breaker is open: the upstream failed several times in a row and is left alone for "
            f"{wait:.0f} s more. Nothing was sent."
        )
        return ResourceFailed(Outcome(Kind.OVERLOAD, sentence), call, retry_after=wait)

    def _settle(self, admitted: Pass, kind: Kind) -> None:
        with self.lock:
            if kind is Kind.SUCCESS:
                self.breaker.succeeded(admitted)
            elif kind in _FAULTS:
                self.breaker.failed(admitted, self._clock.monotonic())
            else:
                self.breaker.untouched(admitted)

    # ── send ────────────────────────────────────────────────────────────────────────────────────

    async def _send(
        self, call: ResourceCall, request: Request, number: int, waited: float
    ) -> ResourceReply:
        self._observer.sending(call, number)
        sent_at = self._clock.monotonic()
        deadline = sent_at + (self._rules.timeout if call.timeout is None else call.timeout)
        kind, status, received = Kind.CANCELLED, None, b""
        try:
            exchange = await self._transport.open(
                request, self._provider.credential(self._key), deadline
            )
            try:
                status, headers = exchange.status, exchange.headers
                received = await exchange.read()
            finally:
                await exchange.aclose()
            outcome, data = self._provider.read(status, headers, received)
            kind = outcome.kind
        except TransportError as failure:
            kind, status = failure.outcome.kind, None
            raise self._failed(call, failure.outcome, number, sent=failure.sent) from None
        finally:
            self._tell(
                call, number, sent_at, kind,
                status=status, sent=len(request.body), received=len(received), waited=waited,
            )  # fmt: skip
        self._observer.body(call, request.body, received)
        return self._judged(call, outcome, data, received, number, sent_at)

    def _judged(
        self, call: ResourceCall, outcome: Outcome, data: object, body: bytes, number: int, at: float
    ) -> ResourceReply:
        group = call.endpoint.group
        if outcome.kind is Kind.SUCCESS:
            self.limits.succeeded(group)
            return ResourceReply(outcome.status or 200, body)
        retry_after = outcome.retry_after
        if outcome.status == 429:
            retry_after = self.limits.refused(group, at, retry_after)
        raise self._failed(call, outcome, number, data=data, sent=True, retry_after=retry_after)

    def _failed(
        self,
        call: ResourceCall,
        outcome: Outcome,
        number: int,
        *,
        sent: bool,
        data: object = None,
        retry_after: float | None = None,
    ) -> ResourceFailed:
        message = one_line(redact(outcome.message, self._key.value))
        safe = Outcome(outcome.kind, message, outcome.status, outcome.retry_after)
        return ResourceFailed(
            safe, call, data=data, sent=sent, attempts=number, retry_after=retry_after
        )

    def _tell(
        self,
        call: ResourceCall,
        number: int,
        started: float,
        kind: Kind,
        *,
        status: int | None = None,
        sent: int = 0,
        received: int = 0,
        waited: float = 0.0,
        kept: bool = False,
    ) -> None:
        endpoint = call.endpoint
        self._observer.attempt(
            ResourceRecord(
                call.request_id, endpoint.name, endpoint.group, number, started,
                self._clock.monotonic(), kind, status, sent, received, waited, kept,
            )
        )  # fmt: skip

    def is_open(self) -> bool:
        """Whether calls are refused because the upstream failed."""
        with self.lock:
            return self.breaker.state(self._clock.monotonic()) is BreakerState.OPEN
