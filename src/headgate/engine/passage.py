"""What a call carries down the path, and the signals that come back up it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from msgspec import Struct

from headgate.core.call import Call, Reply, Usage
from headgate.core.outcome import Outcome
from headgate.core.ports import Request
from headgate.core.quota import Costs, Limit
from headgate.core.records import CallRecord, Findings
from headgate.core.replies import KeptReply
from headgate.engine.stream import ReplyStream
from headgate.policy.leases import Lease, Unready

__all__ = ["Answer", "AttemptFailed", "Learner", "NoKeyReady", "Onward", "Passage", "Stage", "Wire"]

Answer = Reply | ReplyStream

_NOTHING_SAVED = Usage()


class Wire(Protocol):
    """Hears when an attempt is on the wire. Returns quickly, never raises."""

    def begun(self) -> None:
        """It is about to be sent."""

    def ended(self) -> None:
        """It is no longer waited for: there is an answer, or the first piece of one, or a failure."""


class Passage(Struct):
    """One call on its way: made per call, never shared.

    Attributes:
        call: what was asked.
        started: monotonic seconds.
        model: the model on the wire, once it is resolved.
        request: the wire form, once it is written.
        lease: the key of the attempt under way, or of the last one.
        prefer: the lease whose key a retry should use again.
        refused_by: domains that refused this call since it last waited.
        refusal: the last quota refusal, as (key name, outcome).
        not_after: monotonic seconds by which the send must have begun, or None.
        wait_bound: seconds the call may still wait for a key; 0: not at all.
        limits: quotas that the answer of the attempt under way named.
        token_count: the plain count of the prompt's tokens, once somebody needed it.
        reserved: what the attempt under way was expected to use; empty where nothing was reserved.
        findings: what preparing the call found, where it was prepared.
        recalled: the kept answer that was given, where one was.
        stale: a kept answer too old to be given, unless everything else fails.
        fallback: the word of what stood in for an answer of the model that was asked for.
        trace: headers that carry the call's trace to the upstream, where the user wants that.
        left_out: options of the call that the model does not take.
        partial: the most that came of an answer before it broke off.
        notes: sentences for a person about what stood in, and why.
        failure: what the attempt before this one failed with, where it was to be tried again.
        wire: told when an attempt is on the wire, where somebody wants to know.
        attempts, rotations, retries, waited: what it took; waited is in seconds.
        queued: seconds in line for a place, which the bound of `waited` does not count.
    """

    call: Call
    started: float
    model: str = ""
    request: Request | None = None
    lease: Lease | None = None
    prefer: Lease | None = None
    refused_by: set[int] = set()
    refusal: tuple[str, Outcome] | None = None
    not_after: float | None = None
    wait_bound: float = 0.0
    limits: tuple[Limit, ...] = ()
    token_count: int = 0
    reserved: Costs = {}
    findings: Findings | None = None
    recalled: KeptReply | None = None
    stale: KeptReply | None = None
    fallback: str | None = None
    trace: Mapping[str, str] | None = None
    left_out: Mapping[str, object] = {}
    partial: Reply | None = None
    notes: tuple[str, ...] = ()
    failure: Outcome | None = None
    wire: Wire | None = None
    attempts: int = 0
    rotations: int = 0
    retries: int = 0
    waited: float = 0.0
    queued: float = 0.0

    def beside(self) -> Passage:
        """A passage of the same call at the same time, on another domain. It may wait for nothing."""
        taken = () if self.lease is None else (self.lease.domain,)
        return Passage(
            self.call,
            self.started,
            model=self.model,
            request=self.request,
            refused_by={*self.refused_by, *taken},
            token_count=self.token_count,
            findings=self.findings,
            trace=self.trace,
            left_out=self.left_out,
            attempts=self.attempts,
        )

    def elsewhere(self) -> Passage:
        """A passage of the same call to another model: attempts and waits are counted on."""
        return Passage(
            self.call,
            self.started,
            findings=self.findings,
            trace=self.trace,
            left_out=self.left_out,
            attempts=self.attempts,
            waited=self.waited,
            queued=self.queued,
        )

    def count(self, other: Passage) -> None:
        """Add what a passage elsewhere took."""
        self.attempts, self.waited, self.queued = other.attempts, other.waited, other.queued
        self.rotations += other.rotations
        self.retries += other.retries

    def become(self, other: Passage) -> None:
        """The answer came of a passage elsewhere: it says which model and key gave it, and to what."""
        self.call, self.model, self.request = other.call, other.model, other.request
        self.lease, self.findings, self.limits = other.lease, other.findings, other.limits
        self.token_count, self.reserved = other.token_count, other.reserved

    def record(self, ended: float, usage: Usage, error: str | None, provider: str) -> CallRecord:
        """The facts of the finished call. What a kept answer once used is not used again."""
        if self.recalled is not None:
            usage = Usage()
        call, recalled = self.call, self.recalled
        # What is always there by place: msgspec takes five times as long for so many names.
        return CallRecord(
            call.request_id,
            call.operation,
            self.model or call.model,
            self.started,
            ended,
            self.attempts,
            self.rotations,
            self.retries,
            self.waited + self.queued,
            self.lease.key.name if self.lease else None,
            usage,
            error,
            findings=self.findings,
            caller=call.caller,
            provider=provider,
            cached=recalled is not None,
            saved=_NOTHING_SAVED if recalled is None else recalled.reply.usage,
            fallback=self.fallback,
            looked_up=call.keeping is not None and call.keeping.reads,
        )


Onward = Callable[[Passage], Awaitable[Answer]]
"""The rest of the path, as a stage sees it."""


class Stage(Protocol):
    """One step of the path."""

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Do the way down, go on, do the way up."""


class Learner(Protocol):
    """Hears what became of every attempt, to learn quotas from it. Returns quickly, never raises."""

    def leased(self, lease: Lease, requests: int = 1) -> None:
        """One attempt is about to be sent; the upstream charges it as so many requests."""

    def heard(
        self, lease: Lease, outcome: Outcome, *, reserved: bool, sent: bool, requests: int = 1
    ) -> None:
        """One attempt was settled.

        Args:
            reserved: its quota had been reserved before it was sent.
            sent: whether the upstream may have seen it.
        """


class AttemptFailed(Exception):  # noqa: N818 - a signal between stages, never seen by a user
    """An attempt ended without an answer. `sent`: the upstream may have seen it."""

    def __init__(self, outcome: Outcome, *, sent: bool = True) -> None:
        super().__init__(outcome.kind)
        self.outcome = outcome
        self.sent = sent


class NoKeyReady(Exception):  # noqa: N818 - a signal between stages, never seen by a user
    """No key is ready for this call.

    Attributes:
        unready: how many keys wait or are out.
        wait: seconds until one is ready; None: never by waiting.
        final: whether all waiting that fits the call has been done.
    """

    def __init__(self, unready: Unready, wait: float | None, *, final: bool) -> None:
        super().__init__("no key ready")
        self.unready = unready
        self.wait = wait
        self.final = final
