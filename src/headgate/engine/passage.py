"""What a call carries down the path, and the signals that come back up it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from headgate.core.call import Call, Reply, Usage
from headgate.core.outcome import Outcome
from headgate.core.ports import Request
from headgate.core.quota import Costs, Limit
from headgate.core.records import CallRecord, Findings
from headgate.engine.stream import ReplyStream
from headgate.policy.leases import Lease, Unready

__all__ = ["Answer", "AttemptFailed", "Learner", "NoKeyReady", "Onward", "Passage", "Stage"]

Answer = Reply | ReplyStream


@dataclass(slots=True)
class Passage:
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
        attempts, rotations, retries, waited: what it took; waited is in seconds.
    """

    call: Call
    started: float
    model: str = ""
    request: Request | None = None
    lease: Lease | None = None
    prefer: Lease | None = None
    refused_by: set[int] = field(default_factory=set)
    refusal: tuple[str, Outcome] | None = None
    not_after: float | None = None
    wait_bound: float = 0.0
    limits: tuple[Limit, ...] = ()
    token_count: int = 0
    reserved: Costs = field(default_factory=dict)
    findings: Findings | None = None
    attempts: int = 0
    rotations: int = 0
    retries: int = 0
    waited: float = 0.0

    def record(self, ended: float, usage: Usage, error: str | None) -> CallRecord:
        """The facts of the finished call."""
        return CallRecord(
            request_id=self.call.request_id,
            operation=self.call.operation,
            model=self.model or self.call.model,
            started=self.started,
            ended=ended,
            attempts=self.attempts,
            rotations=self.rotations,
            retries=self.retries,
            waited=self.waited,
            key_name=self.lease.key.name if self.lease else None,
            usage=usage,
            error=error,
            findings=self.findings,
        )


Onward = Callable[[Passage], Awaitable[Answer]]
"""The rest of the path, as a stage sees it."""


class Stage(Protocol):
    """One step of the path."""

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Do the way down, go on, do the way up."""


class Learner(Protocol):
    """Hears what became of every attempt, to learn quotas from it. Returns quickly, never raises."""

    def leased(self, lease: Lease) -> None:
        """One attempt is about to be sent."""

    def heard(self, lease: Lease, outcome: Outcome, *, reserved: bool, sent: bool) -> None:
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
