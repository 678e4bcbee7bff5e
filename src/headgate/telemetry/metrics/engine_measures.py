"""What records of attempts and calls say, counted. An observer on the path of every call.

Children are looked up once for each set of labels, and kept in a *lane*. An attempt or a call is then
one look-up and an addition or two; what follows for each family is worked out when somebody reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from headgate.core.call import Operation
from headgate.core.outcome import Kind
from headgate.core.ports import Clock
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.core.tokens import Usage
from headgate.policy.nano_prices import NanoCost
from headgate.telemetry.call_traces import TRACES
from headgate.telemetry.metrics.books import Cell, Mark, Shelf, Spread, mark_of
from headgate.telemetry.metrics.labels import (
    COST_TYPE,
    MODEL,
    RESULT,
    TOKEN_TYPE,
    alias_of,
    code_of,
    result_of,
)
from headgate.telemetry.metrics.lanes import AttemptLane, CallLane, Tokens
from headgate.telemetry.metrics.naming import PROVES, ModelNames
from headgate.telemetry.switch import SWITCH

__all__ = ["EngineMeasures", "Foresight", "Price"]

_MOST_LANES = 4_096
"""Lanes that are kept; names that callers make up have lanes of their own, with the children of
`other`. When there are more they are all looked up anew."""

_MOST_USED = 20_000
"""Attempts whose tokens wait for a reader; beyond that each attempt counts two that wait."""

_MOST_CUT = 1_000
"""Streams that broke and whose call has not ended yet."""

_CUT, _NOT_CUT = "cut ", object()
_NANO = 1e9

Price = Callable[[str, str, Usage], NanoCost | None]
"""What tokens cost: provider, model, tokens. None: nobody knows."""


class Foresight(Protocol):
    """Whether a refusal could have been foreseen."""

    def predicted(self, record: AttemptRecord) -> bool:
        """Whether the declared limits and what this process sent before said that it would come."""


class EngineMeasures:
    """An `Observer` that counts. Threads and event loops may share it.

    Args:
        shelf: where the counts are.
        clock: for the times of exemplars.
        lock: held while it counts.

    Attributes:
        price: what tokens cost; nothing is priced until it is given.
    """

    def __init__(self, shelf: Shelf, clock: Clock, lock: Lock) -> None:
        self.price: Price | None = None
        self._ahead = clock.wall() - clock.monotonic()  # of the times in records
        self._shelf = shelf
        self._lock = lock
        self._names = ModelNames(MODEL.most)
        self._attempts: dict[tuple[object, ...], AttemptLane] = {}
        self._calls: dict[tuple[object, ...], CallLane] = {}
        self._foresight: dict[str, Foresight] = {}
        self._waits = {reason: self._cell("waits_total", reason) for reason in ("key", "retry")}
        self._used: deque[tuple[AttemptLane, str, Usage]] = deque()
        self._cut: dict[str, None] = {}  # requests, the oldest first

    # ── an observer ─────────────────────────────────────────────────────────────────────────────

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended."""
        outcome, model = record.outcome, record.model
        key = (
            record.provider, model, record.domain, outcome.kind, outcome.status, record.operation
        )  # fmt: skip
        lane = self._attempts.get(key)
        if lane is None:
            lane = self._attempt_lane(record, key)
        usage = outcome.usage or record.estimate
        if usage is not None:
            self._used.append((lane, model, usage))
            if len(self._used) > _MOST_USED:
                self._count_used(2)
        # As `Spread.see`, which is a call more: this is on the path of every call.
        duration, seconds = lane.duration, record.ended - record.started
        place = bisect_left(duration.bounds, seconds)
        with self._lock:
            lane.number += 1
            duration.counts[place] += 1
            duration.total += seconds
            if lane.gone:
                lane.settle()
        duration.latest[place] = record if SWITCH.setup is None else self._mark_of(record)
        if not lane.plain or record.first_piece is not None:
            self._count_more(lane, record)

    def waiting(self, record: WaitRecord) -> None:
        """A call starts to wait."""
        with self._lock:
            self._waits[record.reason.value].value += 1

    def call(self, record: CallRecord) -> None:
        """One call ended."""
        error: str | None = record.error
        if self._cut and self._cut.pop(record.request_id, _NOT_CUT) is None:
            error = error and _CUT + error  # something may have stood in for the rest of it
        key = (
            record.provider, record.model, record.operation, error, record.fallback, record.cached,
            record.looked_up,
        )  # fmt: skip
        lane = self._calls.get(key)
        if lane is None:
            lane = self._call_lane(record, key, cut=error is not record.error)
        # As `Spread.see`, which is a call more: this is on the path of every call.
        duration, seconds = lane.duration, record.ended - record.started
        place = bisect_left(duration.bounds, seconds)
        with self._lock:
            lane.number += 1
            duration.counts[place] += 1
            duration.total += seconds
            if record.waited:
                lane.wait.see(record.waited, self._mark_at(record, record.waited, record.ended))
            else:
                lane.unwaited += 1
            if record.rotations:
                lane.rotations.value += record.rotations
            if record.retries:  # a wait for a key costs one, too
                lane.retries.value += record.retries
            if lane.saved is not None:
                lane.saved.value += record.saved.total
            if lane.gone:
                lane.settle()
        duration.latest[place] = record if SWITCH.setup is None else self._mark_of(record)

    # ── for whoever builds, and whoever reads ───────────────────────────────────────────────────

    def serves(self, provider: str, foresight: Foresight | None = None) -> None:
        """An engine of this provider reports here: what it may count exists from now on, at 0.

        Args:
            foresight: tells avoidable refusals; of several engines the newest counts.
        """
        if foresight is not None:
            self._foresight[provider] = foresight
        for operation in (Operation.GENERATE, Operation.STREAM):
            self._results_of(provider, operation.value)
        self._cell("unpriced_attempts_total", provider)

    def label(self, model: str) -> str:
        """What stands for a model in labels."""
        return self._names.label(model)

    def settle(self) -> None:
        """Before somebody reads: count what was only noted on the path."""
        self._count_used(len(self._used))
        with self._lock:
            for lane in self._lanes():
                lane.settle()
            for spread in {lane.duration for lane in self._lanes()}:
                spread.latest[:] = map(self._mark, spread.latest)

    # ── attempts ────────────────────────────────────────────────────────────────────────────────

    def _count_more(self, lane: AttemptLane, record: AttemptRecord) -> None:
        """What most attempts have not: a refusal, a first piece."""
        if record.outcome.rule.is_quota:
            foresight = self._foresight.get(record.provider)
            avoidable = foresight is not None and foresight.predicted(record)
            word = "true" if avoidable else "false"
            refusals = self._cell("quota_refusals_total", record.provider, lane.model, word)
            with self._lock:
                refusals.value += 1
        if record.first_piece is None:
            return
        if lane.first is None:
            lane.first = self._spread("first_piece_seconds", record.provider, lane.model)
        seconds = record.first_piece - record.started
        mark = self._mark_at(record, seconds, record.first_piece)
        with self._lock:
            lane.first.see(seconds, mark)
            broke = record.outcome.kind not in (Kind.SUCCESS, Kind.CANCELLED)
            if broke:
                self._cut[record.request_id] = None
                if len(self._cut) > _MOST_CUT:
                    del self._cut[next(iter(self._cut))]

    def _count_used(self, most: int) -> None:
        """Count and price the tokens that wait, the oldest first."""
        price, used = self.price, self._used
        for _ in range(most):
            try:
                lane, model, usage = used.popleft()
            except IndexError:
                return  # another thread was faster
            cached, written = usage.cached, usage.cache_write
            fresh = max(0, usage.prompt + usage.tool_prompt - cached - written)
            amounts = (fresh, usage.output, cached, written, usage.thoughts)
            with self._lock:
                for cell, amount in zip(lane.tokens, amounts, strict=True):
                    cell.value += amount
            if price is not None and any(amounts):
                self._count_cost(lane, price(lane.provider, model, usage))

    def _count_cost(self, lane: AttemptLane, cost: NanoCost | None) -> None:
        if cost is None:
            unpriced = self._cell("unpriced_attempts_total", lane.provider)
            with self._lock:
                unpriced.value += 1
            return
        if lane.cost is None:
            labels = lane.provider, lane.model
            types = [self._cell("cost_by_type_usd_total", *labels, kind) for kind in COST_TYPE.values]
            lane.cost = [self._cell("cost_usd_total", *labels), *types]
        fresh = cost.total - cost.cached - cost.output - cost.reasoning
        parts = (cost.total, fresh, cost.cached, cost.output, cost.reasoning)
        with self._lock:
            for cell, nano in zip(lane.cost, parts, strict=True):
                cell.value += nano / _NANO

    def _attempt_lane(self, record: AttemptRecord, key: tuple[object, ...]) -> AttemptLane:
        outcome, provider = record.outcome, record.provider
        if outcome.kind in PROVES or record.first_piece is not None:
            self._earn(record.model)
        model = self._names.label(record.model)
        counted = [
            self._cell("attempts_total", provider, model, outcome.kind.value),
            self._cell("upstream_requests_total", provider, model, code_of(outcome.status)),
        ]
        if not record.operation.is_free:
            domain = alias_of(record.domain)
            counted.append(self._cell("admitted_requests_total", provider, domain, model))
            for word in ("true", "false"):
                self._cell("quota_refusals_total", provider, model, word)
        types = (self._cell("tokens_total", provider, model, kind) for kind in TOKEN_TYPE.values)
        duration = self._spread("upstream_duration_seconds", provider, model)
        lane = AttemptLane(provider, model, counted, duration, Tokens(*types))
        lane.plain = not outcome.rule.is_quota
        self._make_room()
        with self._lock:  # a reader may be going through them
            return self._attempts.setdefault(key, lane)  # another thread may have been faster

    # ── calls ───────────────────────────────────────────────────────────────────────────────────

    def _call_lane(self, record: CallRecord, key: tuple[object, ...], *, cut: bool) -> CallLane:
        provider, operation = record.provider, record.operation.value
        if record.error is None:
            self._earn(record.model)
        model = self._names.label(record.model)
        result = _CUT.strip() if cut else result_of(record.error)
        self._results_of(provider, operation)
        counted = [self._cell("calls_total", provider, operation, result)]
        if record.error is not None:
            counted.append(self._cell("call_errors_total", provider, record.error))
        if record.fallback is not None:
            counted.append(self._cell("fallbacks_total", provider, record.fallback))
        if record.cached or record.looked_up:
            found = "hit" if record.cached else "miss"
            counted.append(self._cell("cache_requests_total", "replies", found))
        lane = CallLane(
            counted,
            self._spread("call_duration_seconds", provider, operation),
            self._spread("call_wait_seconds", provider, model),
            self._cell("rotations_total", provider, model),
            self._cell("retries_total", provider, model),
        )
        if record.cached:
            lane.saved = self._cell("cache_saved_tokens_total", provider, model)
        self._make_room()
        with self._lock:  # a reader may be going through them
            return self._calls.setdefault(key, lane)  # another thread may have been faster

    def _results_of(self, provider: str, operation: str) -> None:
        """All of them exist at 0: of a series that begins at 1 nobody sees that it grew."""
        for result in RESULT.values:
            self._cell("calls_total", provider, operation, result)

    # ── lanes and children ──────────────────────────────────────────────────────────────────────

    def _earn(self, model: str) -> None:
        """The model is there: lanes of its name that lead to `other` are looked up anew."""
        if self._names.earn(model):
            self._forget_lanes()

    def _make_room(self) -> None:
        if len(self._attempts) + len(self._calls) >= _MOST_LANES:
            self._forget_lanes()

    def _forget_lanes(self) -> None:
        """Look all of them up anew. Another thread may have one in hand, and finds that it is gone."""
        with self._lock:
            for lane in self._lanes():
                lane.settle()
                lane.gone = True
            self._attempts, self._calls = {}, {}

    def _lanes(self) -> list[AttemptLane | CallLane]:
        return [*self._attempts.values(), *self._calls.values()]

    def _cell(self, name: str, *labels: str) -> Cell:
        return self._shelf.cell(f"headgate_{name}", *labels)

    def _spread(self, name: str, *labels: str) -> Spread:
        return self._shelf.spread(f"headgate_{name}", *labels)

    # ── exemplars ───────────────────────────────────────────────────────────────────────────────

    def _mark_of(self, record: AttemptRecord | CallRecord) -> object:
        """What leads from a histogram to a call. Of one that is not traced the record will do."""
        ids = TRACES.kept_ids(record.request_id) if TRACES.busy else None
        if ids is None:
            return record
        return mark_of(ids, "", record.ended - record.started, self._ahead + record.ended)

    def _mark_at(self, record: AttemptRecord | CallRecord, value: float, at: float) -> Mark | None:
        """The same of what is rarer than an attempt or a call, at once."""
        ids = TRACES.kept_ids(record.request_id) if TRACES.busy else None
        return mark_of(ids, record.request_id, value, self._ahead + at)

    def _mark(self, noted: object) -> Mark | None:
        if not isinstance(noted, AttemptRecord | CallRecord):
            return noted  # type: ignore[return-value] # a mark, or nothing
        value = noted.ended - noted.started
        return mark_of(None, noted.request_id, value, self._ahead + noted.ended)
