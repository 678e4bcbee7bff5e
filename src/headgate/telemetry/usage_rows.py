"""Rows of the usage ledger out of what the engine reports: one per attempt, priced, the last of a call
marked with what became of it.

An attempt is reported before it is known whether its call goes on. Its row is held back until then, or
until the writer comes by for the second time: what a call waits for may take minutes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import force_setattr

from headgate.core.call import Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import AttemptRecord, CallRecord
from headgate.core.usage import CANCELLED, SUCCESS, UsageRow
from headgate.policy.nano_prices import NOTHING, NanoCost

__all__ = ["CostOf", "EndedCall", "FailedAttempt", "RowMaker", "Words"]

CostOf = Callable[[str, str, Usage, date], NanoCost | None]
"""What tokens cost: provider, model, tokens, day. None: nobody knows."""

_MOST_OPEN = 100_000
"""Calls under way that are remembered: those of a reader who never ends a stream must not pile up."""

_MOST_ENDED = 4096
"""Calls that ended before an attempt of theirs, and are remembered for it."""

_NOTHING = Usage()
_SUCCESS, _CANCELLED = Kind.SUCCESS, Kind.CANCELLED


@dataclass(frozen=True, slots=True)
class Words:
    """The finer words for failures: of an attempt's outcome, of the public kind of a call's error; and
    what is kept of an upstream's own words."""

    of_outcome: Callable[[Outcome], str] = lambda outcome: outcome.kind.value
    of_kind: Callable[[str], str] = lambda kind: kind
    of_message: Callable[[str], str] = lambda message: message


class EndedCall(Struct):
    """A call that ended. Tokens and cost are those of all its attempts.

    A caller who goes away ends the call before what it sent has ended: then they grow once more.

    Attributes:
        row: its last row.
        ended: monotonic seconds.
        fallback: what stood in for an answer of the model that was asked for, if anything did.
    """

    row: UsageRow
    ended: float
    input_tokens: int
    output_tokens: int
    cost: int | None
    fallback: str | None


class FailedAttempt(Struct, frozen=True):
    """An attempt, or a call before its first one, that failed. `at` is Unix seconds; the message was
    redacted where it was read."""

    at: float
    error: str
    model: str
    key_name: str
    request_id: str
    status: int | None
    message: str


@dataclass(slots=True)
class _Open:
    """A call under way: its last row as long as it is held back, and what its attempts used so far."""

    row: UsageRow | None = None
    outcome: Outcome | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    priced: bool = True
    numbers: int = 0  # a bit for each that was given

    def number(self, number: int) -> int:
        """A number of its own for an attempt: two side by side may have been given the same."""
        while self.numbers >> number & 1:
            number += 1
        self.numbers |= 1 << number
        return number

    def take(self, row: UsageRow, outcome: Outcome) -> None:
        self.row, self.outcome = row, outcome
        self.input_tokens += row.input_tokens
        self.output_tokens += row.output_tokens
        self.priced = self.priced and row.cost is not None
        self.cost += row.cost or 0

    def sums(self) -> tuple[int, int, int | None]:
        """Input tokens, output tokens, and the cost where it is known."""
        return self.input_tokens, self.output_tokens, self.cost if self.priced else None


class RowMaker:
    """Makes rows. Not locked: one thread at a time.

    Args:
        costs: what tokens cost.
        words: the finer words for failures.
    """

    def __init__(self, costs: CostOf, words: Words) -> None:
        self._costs = costs
        self._words = words
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._ended: OrderedDict[str, tuple[_Open, EndedCall]] = OrderedDict()
        self._young: list[tuple[_Open, UsageRow]] = []
        self._old: list[tuple[_Open, UsageRow]] = []

    def attempt(
        self, record: AttemptRecord, wall: float
    ) -> tuple[UsageRow | None, FailedAttempt | None]:
        """Hold an attempt's row back.

        Returns the row before it, now that the call is known to have gone on, and the failure it was.
        Of one that ended after its call it is the row itself: that call is told what it used.
        """
        outcome = record.outcome
        late = self._ended_before(record)
        opened = self._opened(record.request_id) if late is None else late[0]
        before = opened.row
        row = self._row(record, wall, opened.number(record.number))
        opened.take(row, outcome)
        if late is None:
            self._young.append((opened, row))
        else:
            before, opened.row = row, None
            ended = late[1]
            ended.input_tokens, ended.output_tokens, ended.cost = opened.sums()
        failed = None
        if outcome.kind is not _SUCCESS and outcome.kind is not _CANCELLED:
            failed = FailedAttempt(
                wall,
                row.error,
                row.model,
                row.key_name,
                row.request_id,
                outcome.status,
                self._words.of_message(outcome.message),
            )
        return before, failed

    def call(self, record: CallRecord, wall: float) -> EndedCall:
        """The last row of a call."""
        opened = self._open.pop(record.request_id, None) or _Open()
        row = opened.row or self._without_attempt(record, wall)
        opened.row = None
        # Nobody else has seen the row yet, and a copy would cost as much as the row did.
        force_setattr(row, "call", self._became(record, opened.outcome))
        force_setattr(row, "call_seconds", record.ended - record.started)
        force_setattr(row, "retries", record.retries)
        if record.looked_up or record.cached:
            force_setattr(row, "looked_up", record.looked_up)
            force_setattr(row, "from_cache", record.cached)
            force_setattr(row, "saved", self._saved(record, wall))
        ended = EndedCall(row, record.ended, *opened.sums(), record.fallback)
        if record.attempts > opened.numbers.bit_count():  # one is still under way
            self._ended[record.request_id] = opened, ended
            if len(self._ended) > _MOST_ENDED:
                self._ended.popitem(last=False)
        return ended

    def overdue(self) -> list[UsageRow]:
        """Rows held back since the last time but one that this was asked: their calls go on."""
        found = []
        for opened, row in self._old:
            if opened.row is row:
                found.append(row)
                opened.row = None
        self._old, self._young = self._young, []
        return found

    def held(self) -> list[UsageRow]:
        """All rows held back, at the end."""
        return [*self.overdue(), *self.overdue()]

    def clear(self) -> None:
        """Forget the calls under way, and what is held back of them."""
        self._open.clear()
        self._ended.clear()
        self._young.clear()
        self._old.clear()

    def _opened(self, request_id: str) -> _Open:
        opened = self._open.get(request_id)
        if opened is None:
            opened = self._open[request_id] = _Open()
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return opened

    def _ended_before(self, record: AttemptRecord) -> tuple[_Open, EndedCall] | None:
        """The call that ended while this attempt was under way. Another may have its id by now."""
        found = self._ended.get(record.request_id)
        if found is None or record.request_id in self._open:
            return None
        return found if record.started < found[1].ended <= record.ended else None

    def _row(self, record: AttemptRecord, wall: float, number: int) -> UsageRow:
        outcome = record.outcome
        usage = record.estimate or outcome.usage or _NOTHING
        cost = self._cost(record, usage, wall)
        known = cost or NOTHING
        # By place: msgspec takes ten times as long for a row of this width by name.
        return UsageRow(
            record.request_id, number, wall, record.ended - record.started,
            record.provider, record.model, record.operation.value, outcome.rule.public_kind,
            record.caller, record.domain, record.key_name,
            usage.prompt + usage.tool_prompt, usage.cached,
            usage.output + usage.thoughts, usage.thoughts,
            None if cost is None else cost.total, record.estimate is not None,
            "" if outcome.kind is _SUCCESS else self._words.of_outcome(outcome),
            known.cached, known.output, known.reasoning,
        )  # fmt: skip

    def _cost(self, record: AttemptRecord, usage: Usage, wall: float) -> NanoCost | None:
        if not usage.total or record.operation.is_free:
            return NOTHING  # whatever the price
        return self._costs(record.provider, record.model, usage, _day(wall // 86_400))

    def _without_attempt(self, record: CallRecord, wall: float) -> UsageRow:
        error = "" if record.error is None else self._words.of_kind(record.error)
        return UsageRow(
            record.request_id, 0, wall, 0.0,
            record.provider, record.model, record.operation.value, record.error or SUCCESS,
            record.caller, "", record.key_name or "", 0, 0, 0, 0, 0, False, error,
        )  # fmt: skip

    def _became(self, record: CallRecord, outcome: Outcome | None) -> str:
        if record.error is None:
            return SUCCESS
        if record.error == Kind.CANCELLED.value:
            return CANCELLED
        if outcome is not None and outcome.rule.public_kind == record.error:
            return self._words.of_outcome(outcome)
        return self._words.of_kind(record.error)

    def _saved(self, record: CallRecord, wall: float) -> int:
        if not record.cached or not record.saved.total:
            return 0
        cost = self._costs(record.provider, record.model, record.saved, _day(wall // 86_400))
        return 0 if cost is None else cost.total


@lru_cache(maxsize=8)
def _day(number: float) -> date:
    """The day of UTC with that number since 1970."""
    return datetime.fromtimestamp(number * 86_400, UTC).date()
