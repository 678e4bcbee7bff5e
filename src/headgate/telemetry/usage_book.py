"""What a process remembers of its calls: an observer that notes, and a book that is written later.

On the path of a call a fact is only put in a line. Rows are made of facts, and counted, by the thread
of the usage writer, or by whoever reads before it came by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from threading import Lock

from headgate.core.ports import Clock
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.core.usage import CANCELLED, SUCCESS, UsageRow
from headgate.policy.analytics import Analytics, Bucket, LastMinute, Series
from headgate.telemetry.usage_rows import CostOf, EndedCall, FailedAttempt, RowMaker, Words

__all__ = ["MOST_CALLS", "MOST_FAILURES", "UsageBook"]

MOST_CALLS = 10_000
"""Single calls that are remembered (S3-05k)."""

MOST_FAILURES = 100
"""Failed attempts that are remembered (S3-04j)."""

_MOST_FACTS = 200_000
"""Facts in line; a thread that does not run at all must not fill the memory."""

_AT_ONCE = 100
"""Facts that are read before whoever else wants the book may have it."""

_FORGET_SECONDS = 300.0

_FREE = frozenset({"count", "list"})
"""Operations that ask no model anything: they are rows of the ledger, and no requests."""


class UsageBook:
    """An `Observer`, and a source of rows for a `UsageWriter`. Threads may share it.

    Args:
        costs: what tokens cost.
        words: the finer words for failures.
        kept_seconds: how long what is kept in memory is kept.

    Attributes:
        enabled: False notes nothing.
        writes: False makes no rows: another writer has them.
        since: Unix second at which it began.
    """

    def __init__(
        self,
        clock: Clock,
        costs: CostOf,
        words: Words,
        kept_seconds: Callable[[], float],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.enabled = True
        self.writes = True
        self.since = clock.wall()
        self.wake = wake
        self._clock = clock
        self._kept = kept_seconds
        self._maker = RowMaker(costs, words)
        self._facts: deque[tuple[AttemptRecord | CallRecord, float]] = deque(maxlen=_MOST_FACTS)
        self._made: deque[UsageRow] = deque(maxlen=_MOST_FACTS)
        self._lock = Lock()
        self._analytics = Analytics()
        self._minute = LastMinute()
        self._calls: deque[EndedCall] = deque(maxlen=MOST_CALLS)
        self._failures: deque[FailedAttempt] = deque(maxlen=MOST_FAILURES)
        self._forgot = clock.monotonic()

    # ── on the path: an observer ────────────────────────────────────────────────────────────────

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended."""
        if self.enabled:
            self._facts.append((record, self._clock.wall()))
            self.wake()

    def waiting(self, record: WaitRecord) -> None:
        """Nothing: the call says how long it waited."""

    def call(self, record: CallRecord) -> None:
        """One call ended."""
        if self.enabled:
            self._facts.append((record, self._clock.wall()))
            self.wake()

    # ── for the writer ──────────────────────────────────────────────────────────────────────────

    def rows(self, *, last: bool) -> Sequence[UsageRow]:
        """See `RowSource.rows`."""
        self._fold()
        with self._lock:
            for row in self._maker.held() if last else self._maker.overdue():
                self._keep(row)
            made = list(self._made)
            self._made.clear()
        return made

    def forked(self) -> None:
        """See `RowSource.forked`. What was counted before stays counted."""
        self._lock = Lock()
        self._facts.clear()
        self._made.clear()
        self._maker.clear()

    # ── for whoever reads ───────────────────────────────────────────────────────────────────────

    def models(self) -> list[str]:
        """The models that calls asked."""
        self._fold()
        with self._lock:
            return list(self._analytics.models)

    def whole(self) -> dict[str, Bucket]:
        """Each model since the beginning."""
        self._fold()
        with self._lock:
            return {name: series.whole() for name, series in self._analytics.models.items()}

    def between(self, model: str, start: float, end: float) -> Bucket:
        """A model within a range of Unix seconds."""
        self._fold()
        with self._lock:
            series = self._analytics.models.get(model)
            return Bucket() if series is None else series.between(start, end)

    def names(self, start: float, end: float, *, callers: bool) -> dict[str, Bucket]:
        """Each model, or each caller that gave a name, within a range of Unix seconds."""
        self._fold()
        with self._lock:
            found = self._analytics.callers if callers else self._analytics.models
            return {name: series.between(start, end) for name, series in found.items()}

    def periods(
        self,
        span: int,
        start: float,
        end: float,
        *,
        model: str | None = None,
        caller: str | None = None,
    ) -> dict[float, Bucket]:
        """Hours or days: of a model, of a caller, or of everything."""
        self._fold()
        found: dict[float, Bucket] = {}
        with self._lock:
            for series in self._chosen(model, caller):
                for begin, bucket in series.periods(span, start, end).items():
                    found.setdefault(begin, Bucket()).merge(bucket)
        return dict(sorted(found.items()))

    def last_minute(self) -> tuple[int, int, int, float]:
        """Requests, failures and tokens of the last sixty seconds, and the seconds they took."""
        self._fold()
        with self._lock:
            return self._minute.read(self._clock.monotonic())

    def calls(self, model: str | None, limit: int | None) -> list[EndedCall]:
        """Single calls, the newest first."""
        self._fold()
        oldest = self._clock.monotonic() - self._kept()
        with self._lock:
            chosen = [
                one
                for one in reversed(self._calls)
                if one.ended >= oldest and model in (None, one.row.model)
            ]
            # Copies: the sums of one may grow later.
            return [copy(one) for one in chosen[:limit]]

    def failures(self) -> list[FailedAttempt]:
        """The last failures, the newest first."""
        self._fold()
        with self._lock:
            return list(reversed(self._failures))

    # ── under the lock ──────────────────────────────────────────────────────────────────────────

    def _chosen(self, model: str | None, caller: str | None) -> list[Series]:
        if caller is not None:
            named = self._analytics.callers.get(caller)
        elif model is not None:
            named = self._analytics.models.get(model)
        else:
            return list(self._analytics.models.values())
        return [] if named is None else [named]

    def _fold(self) -> None:
        """Read what is in line."""
        while self._facts:
            with self._lock:
                for _ in range(min(_AT_ONCE, len(self._facts))):
                    self._read(*self._facts.popleft())
        now = self._clock.monotonic()
        if now - self._forgot > _FORGET_SECONDS:
            with self._lock:
                self._forgot = now
                self._analytics.forget(now - self._kept())

    def _read(self, fact: AttemptRecord | CallRecord, wall: float) -> None:
        if isinstance(fact, AttemptRecord):
            before, failed = self._maker.attempt(fact, wall)
            if before is not None:
                self._keep(before)
            if failed is not None:
                self._failures.append(failed)
            return
        ended = self._maker.call(fact, wall)
        row = ended.row
        self._keep(row)
        if row.operation in _FREE:
            return
        self._calls.append(ended)
        failed_call = row.call not in (SUCCESS, CANCELLED)
        if failed_call and not row.attempt:
            self._failures.append(
                FailedAttempt(wall, row.call, row.model, row.key_name, row.request_id, None, "")
            )
        if row.call != CANCELLED:
            tokens = ended.input_tokens + ended.output_tokens
            self._minute.add(ended.ended, failed=failed_call, tokens=tokens, seconds=row.call_seconds)

    def _keep(self, row: UsageRow) -> None:
        # Where the clock was set back, what is ours must not be read from the ledger again.
        self.since = min(self.since, row.at)
        if self.writes:
            self._made.append(row)
        if row.operation not in _FREE:
            self._analytics.add(row, self._clock.monotonic())
