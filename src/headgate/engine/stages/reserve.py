"""Reserve: takes a lease on the key that should send, settles it with what became of the attempt.

Where quotas of the model are declared, the gate reserves what the attempt is expected to use, and the
truth replaces it afterwards; elsewhere a key has room until its domain was refused. Every lease is
settled exactly once, also when the caller goes away; a stream settles when it ends.
"""

from __future__ import annotations

from headgate.core.call import Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, Observer
from headgate.core.quota import Costs, Counts
from headgate.core.records import AttemptRecord, WaitFor, WaitRecord
from headgate.engine.gate import QuotaGate, Want
from headgate.engine.passage import Answer, AttemptFailed, NoKeyReady, Onward, Passage
from headgate.engine.pool import KeyPool
from headgate.engine.stream import ReplyStream
from headgate.policy.estimate import TokenEstimator
from headgate.policy.leases import Lease

__all__ = ["Reserve"]

# What is certain about an attempt without usage: the request was counted, and for these no token was.
_NO_TOKENS = frozenset(Kind) - {Kind.SUCCESS, Kind.CANCELLED, Kind.TIMEOUT, Kind.PROTOCOL, Kind.NETWORK}


class Reserve:
    """Chooses the key of an attempt and books the outcome on it.

    Args:
        gate: reserves quota for models whose quotas are declared; None reserves nothing.
    """

    def __init__(
        self,
        pool: KeyPool,
        clock: Clock,
        observer: Observer,
        gate: QuotaGate | None = None,
        estimator: TokenEstimator | None = None,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._observer = observer
        self._gate = gate
        self._estimator = estimator or TokenEstimator()

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises `NoKeyReady`, or passes on the failure of the attempt."""
        lease = await self._lease(passage)
        passage.lease = lease
        passage.attempts += 1
        number = passage.attempts
        try:
            answer = await onward(passage)
        except AttemptFailed as failed:
            self._settle(passage, lease, number, failed.outcome, sent=failed.sent)
            raise
        except BaseException:  # cancelled, or a fault of ours: the lease must not stay out
            self._settle(passage, lease, number, Outcome(Kind.CANCELLED, "The call was cancelled."))
            raise
        if isinstance(answer, ReplyStream):
            answer.on_end(lambda outcome: self._settle(passage, lease, number, outcome))
        else:
            success = Outcome(Kind.SUCCESS, status=200, usage=answer.usage)
            self._settle(passage, lease, number, success)
        return answer

    # ── on the way down ─────────────────────────────────────────────────────────────────────────

    async def _lease(self, passage: Passage) -> Lease:
        gate = self._gate
        if gate is not None and gate.covers(passage.model):
            return await self._reserve(gate, passage)
        got = self._pool.lease(passage.model, exclude=passage.refused_by, prefer=passage.prefer)
        if isinstance(got, Lease):
            return got
        now = self._clock.monotonic()
        wait = None if got.recovers is None else max(0.0, got.recovers - now)
        raise NoKeyReady(got, wait, final=False)

    async def _reserve(self, gate: QuotaGate, passage: Passage) -> Lease:
        if not passage.token_count:
            passage.token_count = self._estimator.count(passage.call.parts)
        tokens = self._estimator.estimate(passage.model, passage.token_count)
        began = self._clock.monotonic()
        want = Want(
            passage.model,
            {Counts.REQUESTS: 1, Counts.INPUT: tokens},
            exclude=passage.refused_by,
            prefer=passage.prefer,
            bound=passage.wait_bound,
            on_wait=lambda seconds: self._waits(passage, seconds),
        )
        try:
            return await gate.acquire(want)
        finally:
            passage.waited += self._clock.monotonic() - began

    def _waits(self, passage: Passage, seconds: float) -> None:
        passage.retries += 1
        passage.refused_by.clear()
        record = WaitRecord(passage.call.request_id, WaitFor.KEY, seconds)
        self._observer.waiting(record)

    # ── on the way up ───────────────────────────────────────────────────────────────────────────

    def _settle(
        self, passage: Passage, lease: Lease, number: int, outcome: Outcome, *, sent: bool = True
    ) -> None:
        self._pool.settle(lease, outcome)
        if lease.rid and self._gate is not None:
            costs = _truth(outcome) if sent else None
            self._gate.settle(lease, costs, served=not outcome.rule.is_quota)
            if outcome.usage is not None:
                self._estimator.learn(lease.model, passage.token_count, outcome.usage.prompt)
        self._observer.attempt(
            AttemptRecord(
                request_id=passage.call.request_id,
                number=number,
                key_name=lease.key.name,
                domain=lease.key.domain,
                model=lease.model,
                started=lease.taken,
                ended=self._clock.monotonic(),
                outcome=outcome,
            )
        )


def _truth(outcome: Outcome) -> Costs:
    """What an attempt used that was sent: the request for certain, tokens as far as they are known.

    Nothing named means that the estimate stays: the provider may have counted it.
    """
    usage: Usage | None = outcome.usage
    if usage is not None and usage.prompt:
        spent = usage.output + usage.thoughts
        return {Counts.INPUT: usage.prompt, Counts.OUTPUT: spent, Counts.TOTAL: usage.total}
    if outcome.kind in _NO_TOKENS:
        return {Counts.INPUT: 0, Counts.OUTPUT: 0, Counts.TOTAL: 0}
    return {}
