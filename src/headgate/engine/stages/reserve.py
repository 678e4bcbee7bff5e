"""Reserve: takes a lease on the key that should send, settles it with what became of the attempt.

Reactive for now: a key has room until its domain was refused. Every lease is settled exactly once,
also when the caller goes away; a stream settles when it ends.
"""

from __future__ import annotations

from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, Observer
from headgate.core.records import AttemptRecord
from headgate.engine.passage import Answer, AttemptFailed, NoKeyReady, Onward, Passage
from headgate.engine.pool import KeyPool
from headgate.engine.stream import ReplyStream
from headgate.policy.leases import Lease

__all__ = ["Reserve"]


class Reserve:
    """Chooses the key of an attempt and books the outcome on it."""

    def __init__(self, pool: KeyPool, clock: Clock, observer: Observer) -> None:
        self._pool = pool
        self._clock = clock
        self._observer = observer

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises `NoKeyReady`, or passes on the failure of the attempt."""
        got = self._pool.lease(passage.model, exclude=passage.refused_by, prefer=passage.prefer)
        if not isinstance(got, Lease):
            raise NoKeyReady(got)
        passage.lease = got
        passage.attempts += 1
        number = passage.attempts
        try:
            answer = await onward(passage)
        except AttemptFailed as failed:
            self._settle(passage, got, number, failed.outcome)
            raise
        except BaseException:  # cancelled, or a fault of ours: the lease must not stay out
            self._settle(passage, got, number, Outcome(Kind.CANCELLED, "The call was cancelled."))
            raise
        if isinstance(answer, ReplyStream):
            answer.on_end(lambda outcome: self._settle(passage, got, number, outcome))
        else:
            success = Outcome(Kind.SUCCESS, status=200, usage=answer.usage)
            self._settle(passage, got, number, success)
        return answer

    def _settle(self, passage: Passage, lease: Lease, number: int, outcome: Outcome) -> None:
        self._pool.settle(lease, outcome)
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
