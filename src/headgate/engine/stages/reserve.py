"""Reserve: takes a lease on the key that should send, settles it with what became of the attempt.

Where quotas of the model are declared, the gate reserves what the attempt is expected to use, and the
truth replaces it afterwards; elsewhere a key has room until its domain was refused. Every lease is
settled exactly once, also when the caller goes away; a stream settles when it ends.

A reservation is good for a send that begins within a tenth of a second. One that comes later, because
the process was busy or the connection slow, is given back and made again: no byte was sent, so that is
no attempt and costs nothing.
"""

from __future__ import annotations

import logging

from msgspec import structs

from headgate.core.call import Call, Operation, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, Observer, Tariff
from headgate.core.quota import Costs, Counts
from headgate.core.records import AttemptRecord, WaitFor, WaitRecord
from headgate.engine.gate import QuotaGate, Turn, Want
from headgate.engine.passage import Answer, AttemptFailed, Learner, NoKeyReady, Onward, Passage
from headgate.engine.pool import KeyPool
from headgate.engine.stream import ReplyStream
from headgate.policy.estimate import LONGEST_OUTPUT, TokenEstimator, ceiling
from headgate.policy.leases import Lease
from headgate.policy.tariff import WholePrompt

__all__ = ["Reserve"]

SEND_TRIES = 4
"""Reservations made for one attempt before it counts as failed: four in a row mean that the process
hangs."""

_log = logging.getLogger("headgate.quota")

_ELASTIC = frozenset({Counts.OUTPUT, Counts.TOTAL})
_ELASTIC_PROMPT = _ELASTIC | {Counts.INPUT}

# Looked up once: a member of an enum costs as much as a call, and each attempt asks for all of these.
_REQUESTS, _INPUT, _OUTPUT, _TOTAL, _SLOTS = (
    Counts.REQUESTS, Counts.INPUT, Counts.OUTPUT, Counts.TOTAL, Counts.SLOTS,
)  # fmt: skip
_SUCCESS, _EMBED = Kind.SUCCESS, Operation.EMBED

_NOT_MADE = (Kind.LATE, Kind.BREAKER_OPEN)

# What is certain about an attempt without usage: the request was counted, and for these no token was.
_NO_TOKENS = frozenset(Kind) - {Kind.SUCCESS, Kind.CANCELLED, Kind.TIMEOUT, Kind.PROTOCOL, Kind.NETWORK}


class Reserve:
    """Chooses the key of an attempt and books the outcome on it.

    Args:
        gate: reserves quota for models whose quotas are declared; None reserves nothing.
        learner: hears the outcome of every settled attempt.
        tariff: what the provider's quotas count of a call.
    """

    def __init__(
        self,
        pool: KeyPool,
        clock: Clock,
        observer: Observer,
        gate: QuotaGate | None = None,
        estimator: TokenEstimator | None = None,
        learner: Learner | None = None,
        tariff: Tariff | None = None,
        provider: str = "",
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._observer = observer
        self._gate = gate
        self._estimator = estimator or TokenEstimator()
        self._learner = learner
        self._tariff: Tariff = tariff or WholePrompt()
        self._provider = provider

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises `NoKeyReady`, or passes on the failure of the attempt."""
        for number in range(1, SEND_TRIES):
            try:
                return await self._attempt(passage, onward, again=number > 1)
            except AttemptFailed as failed:
                if failed.outcome.kind is not Kind.LATE:
                    raise
        return await self._attempt(passage, onward, again=True)

    async def _attempt(self, passage: Passage, onward: Onward, *, again: bool) -> Answer:
        lease = await self._lease(passage, again=again)
        passage.lease, passage.limits = lease, ()
        if self._learner is not None and not passage.call.operation.is_free:
            self._learner.leased(lease, self._requests(passage.call))
        passage.attempts += 1
        number = passage.attempts
        try:
            self._check_punctual(passage)
            answer = await onward(passage)
        except AttemptFailed as failed:
            if failed.outcome.kind in _NOT_MADE:
                self._take_back(passage, lease, failed.outcome)
                raise
            self._settle(passage, lease, number, failed.outcome, sent=failed.sent)
            raise
        except BaseException:  # cancelled, or a fault of ours: the lease must not stay out
            self._settle(passage, lease, number, Outcome(Kind.CANCELLED, "The attempt was cancelled."))
            raise
        if isinstance(answer, ReplyStream):
            began = self._clock.monotonic()  # its first piece was read
            answer.on_end(lambda told: self._settle(passage, lease, number, told, first_piece=began))
        else:
            success = Outcome(_SUCCESS, status=200, usage=answer.usage)
            self._settle(passage, lease, number, success)
        return answer

    # ── on the way down ─────────────────────────────────────────────────────────────────────────

    async def _lease(self, passage: Passage, *, again: bool) -> Lease:
        gate, model = self._gate, passage.model
        passage.not_after, passage.reserved = None, {}
        if passage.call.operation.is_free:
            model = f"{model}#count"  # counting has limits of its own, and uses none of the model's
        elif gate is not None and gate.covers(model):
            turn = await self._reserve(gate, passage, again=again)
            passage.not_after = turn.not_after
            return turn.lease
        if passage.call.domain:
            got = self._pool.lease_of(passage.call.domain, model, passage.prefer)
        else:
            got = self._pool.lease(model, exclude=passage.refused_by, prefer=passage.prefer)
        if isinstance(got, Lease):
            return got
        now = self._clock.monotonic()
        wait = None if got.recovers is None else max(0.0, got.recovers - now)
        raise NoKeyReady(got, wait, final=False)

    def _check_punctual(self, passage: Passage) -> None:
        """Before anything is done for the send: was this process too busy to notice its turn?"""
        if passage.not_after is not None and self._clock.monotonic() > passage.not_after:
            raise AttemptFailed(Outcome(Kind.LATE, "The turn was noticed too late."), sent=False)

    async def _reserve(self, gate: QuotaGate, passage: Passage, *, again: bool) -> Turn:
        call = passage.call
        exact = gate.exact(passage.model)
        passage.reserved = self._estimate(passage, exact=exact)
        elastic = _ELASTIC_PROMPT if self._cached(call) else _ELASTIC
        began = self._clock.monotonic()
        want = Want(
            passage.model,
            passage.reserved,
            exclude=self._pool.others(call.domain) if call.domain else passage.refused_by,
            prefer=passage.prefer,
            bound=passage.wait_bound,
            on_wait=lambda seconds: self._waits(passage, seconds, again=again),
            # An answer may stay below its bound, and a prompt may come from the cache: no call is
            # refused for what it only might use, unless it is to be reserved exactly.
            elastic=() if exact else elastic,
            priority=call.priority,
            caller=call.caller,
            again=again,
            rid=self._held_for(passage, again=again),
        )
        try:
            return await gate.acquire(want)
        finally:
            took = self._clock.monotonic() - began
            passage.waited += took
            passage.wait_bound = max(0.0, passage.wait_bound - took)

    @staticmethod
    def _held_for(passage: Passage, *, again: bool) -> str:
        """The reservation that was made before for the first attempt of a call; empty: none is held."""
        earmark = passage.call.earmark
        return "" if earmark is None or again or passage.attempts else earmark.rid

    def _estimate(self, passage: Passage, *, exact: bool) -> Costs:
        """What an attempt is expected to use; with `exact` what it uses at the most."""
        call, lesson, raw = passage.call, self._lesson(passage), passage.call.raw
        prompt = () if raw is not None else self._tariff.prompt(call)
        most = self._tariff.most_output(call) if raw is None else raw.weight.most_output
        if not passage.token_count:
            passage.token_count = self._estimator.count(prompt) if raw is None else raw.weight.tokens
        if exact:
            tokens = ceiling(prompt) if raw is None else raw.weight.ceiling
            output = most or LONGEST_OUTPUT
        else:
            tokens = self._estimator.estimate(lesson, passage.token_count)
            output = self._estimator.output(lesson, passage.token_count, most)
        output = max(output, self._tariff.prepaid_output(call))
        if call.operation is _EMBED:
            output = 1
        if call.earmark is not None and not exact:
            tokens = min(tokens, call.earmark.tokens)
            output = call.earmark.tokens - tokens
        return {
            _REQUESTS: self._requests(call),
            _INPUT: tokens,
            _OUTPUT: output,
            _TOTAL: tokens + output,
            _SLOTS: 1,
        }

    def _lesson(self, passage: Passage) -> str:
        """What an estimate learns under: prompts that a cache may shorten, apart from the others, and
        those that were counted by their bytes."""
        how = ", cached" if self._cached(passage.call) else ""
        return f"{passage.model}{how}" if passage.call.raw is None else f"{passage.model}{how}, raw"

    def _requests(self, call: Call) -> int:
        return self._tariff.requests(call) if call.raw is None else call.raw.weight.requests

    def _cached(self, call: Call) -> bool:
        return self._tariff.cached(call) if call.raw is None else call.raw.weight.cached

    def _waits(self, passage: Passage, seconds: float, *, again: bool) -> None:
        passage.retries += not again  # only the first wait of an attempt costs one
        passage.refused_by.clear()
        record = WaitRecord(passage.call.request_id, WaitFor.KEY, seconds)
        self._observer.waiting(record)

    # ── on the way up ───────────────────────────────────────────────────────────────────────────

    def _settle(
        self, passage: Passage, lease: Lease, number: int, outcome: Outcome, *, sent: bool = True,
        first_piece: float | None = None,
    ) -> None:  # fmt: skip
        self._pool.settle(lease, outcome)
        if lease.rid and self._gate is not None:
            usage: Usage | None = outcome.usage
            counted = self._tariff.counted(usage) if usage is not None and usage.prompt else None
            costs = self._truth(passage.call, outcome, counted) if sent else None
            self._gate.settle(lease, costs, served=not outcome.rule.is_quota)
            if counted is not None and outcome.kind is _SUCCESS:
                self._learn(passage, counted)
        if self._learner is not None and not passage.call.operation.is_free:
            if passage.limits and not outcome.limits:
                outcome = structs.replace(outcome, limits=passage.limits)
            requests = self._requests(passage.call)
            self._learner.heard(lease, outcome, reserved=bool(lease.rid), sent=sent, requests=requests)
        self._observer.attempt(
            AttemptRecord(
                request_id=passage.call.request_id,
                number=number,
                key_name=lease.key.name,
                domain=lease.key.domain,
                model=passage.model,
                started=lease.taken,
                ended=self._clock.monotonic(),
                outcome=outcome,
                operation=passage.call.operation,
                caller=passage.call.caller,
                provider=self._provider,
                estimate=self._guess(passage, outcome) if sent else None,
                first_piece=first_piece,
            )
        )

    def _take_back(self, passage: Passage, lease: Lease, outcome: Outcome) -> None:
        """Of an attempt that was not made nothing stays: no record, no count, no charge."""
        passage.attempts -= 1
        self._pool.settle(lease, structs.replace(outcome, kind=Kind.CANCELLED))
        if lease.rid and self._gate is not None:
            self._gate.settle(lease, None, served=True)
        if self._learner is not None and not passage.call.operation.is_free:
            requests = self._requests(passage.call)
            self._learner.heard(lease, outcome, reserved=bool(lease.rid), sent=False, requests=requests)

    def _learn(self, passage: Passage, counted: Costs) -> None:
        lesson, reserved = self._lesson(passage), passage.reserved
        tokens, output = counted.get(_INPUT, 0), counted.get(_OUTPUT, 0)
        if self._gate is not None and self._gate.exact(passage.model):
            if tokens > reserved[Counts.INPUT] or output > reserved[Counts.OUTPUT]:
                _log.warning(
                    "quota=exceeds_exact model=%s input=%d/%d output=%d/%d",
                    passage.model, tokens, reserved[Counts.INPUT], output, reserved[Counts.OUTPUT],
                )  # fmt: skip
            return
        self._estimator.learn(lesson, passage.token_count, tokens)
        answers = passage.call.operation is not _EMBED
        if answers and not self._tariff.prepaid_output(passage.call):
            short = output > reserved[_OUTPUT]
            self._estimator.learn_output(lesson, passage.token_count, output, short=short)

    def _guess(self, passage: Passage, outcome: Outcome) -> Usage | None:
        """What an attempt is taken to have used whose tokens the upstream did not tell, or not all of
        them; None: they are known."""
        call, told = passage.call, outcome.usage or Usage()
        whole = told.prompt and outcome.kind is _SUCCESS
        if whole or call.operation.is_free or outcome.kind in _NO_TOKENS:
            return None
        if told.prompt:
            return told  # as far as it had come
        tokens = passage.token_count
        if not tokens and call.raw is None:
            tokens = self._estimator.count(self._tariff.prompt(call))
        elif not tokens and call.raw is not None:
            tokens = call.raw.weight.tokens
        answers = call.operation is not Operation.EMBED
        output = told.output or (passage.reserved.get(Counts.OUTPUT, 0) if answers else 0)
        return structs.replace(told, prompt=tokens, output=output)

    def _truth(self, call: Call, outcome: Outcome, counted: Costs | None) -> Costs:
        """What an attempt used that was sent: the request for certain, tokens as far as they are known.

        Nothing named means that the estimate stays: the provider may have counted it.

        Args:
            counted: what the quotas count of the usage that the upstream told; None: it told none.
        """
        if call.earmark is not None and call.earmark.fixed and outcome.kind is _SUCCESS:
            return {}
        if counted is not None:
            return self._with_prepaid(call, counted)
        if outcome.kind in _NO_TOKENS:
            return {Counts.INPUT: 0, Counts.OUTPUT: 0, Counts.TOTAL: 0}
        return {}

    def _with_prepaid(self, call: Call, counted: Costs) -> Costs:
        """What was counted of an attempt, with the output that was counted before there was any."""
        more = self._tariff.prepaid_output(call) - counted.get(_OUTPUT, 0)
        if more <= 0:
            return counted
        output, total = counted.get(Counts.OUTPUT, 0) + more, counted.get(Counts.TOTAL, 0) + more
        return {**counted, Counts.OUTPUT: output, Counts.TOTAL: total}
