"""What happened to a call, out of its rows in the usage ledger. Pure.

Rows tell when each attempt ended, how long it took, and how long the whole call was. Waits are not kept
one by one: what lies between two attempts is known, and what no attempt took. Where neither tells when
the call began, nothing is said of the time before its first attempt.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from headgate.core.usage import SUCCESS, UsageRow

__all__ = ["AttemptStory", "CallStory", "story_of"]


class AttemptStory(Struct, frozen=True):
    """An attempt of a call.

    Attributes:
        row: as the ledger has it.
        began: Unix seconds.
        waited: seconds since the attempt before it ended, or since the call began; below 0 where it ran
            beside another one; None: not known.
    """

    row: UsageRow
    began: float
    waited: float | None


class CallStory(Struct, frozen=True):
    """A call.

    Attributes:
        attempts: in their order; none where a kept reply answered, or nothing was sent.
        any: one of its rows, for what they share.
        end: the row that says what became of the call; None while it goes on, or for ever where its
            process was killed.
        outside: seconds of the call in which no attempt was under way; None where it has no end.
        cost: dollars × 10⁹ of all attempts whose price is known.
        unpriced: attempts whose price is not known.
    """

    attempts: tuple[AttemptStory, ...]
    any: UsageRow
    end: UsageRow | None
    outside: float | None
    cost: int
    unpriced: int

    @property
    def input_tokens(self) -> int:
        """Of all attempts."""
        return sum(one.row.input_tokens for one in self.attempts)

    @property
    def output_tokens(self) -> int:
        """Of all attempts."""
        return sum(one.row.output_tokens for one in self.attempts)


def story_of(rows: Sequence[UsageRow]) -> CallStory | None:
    """The story of a call; None where there is no row of it."""
    if not rows:
        return None
    sent = sorted((row for row in rows if row.attempt), key=lambda row: row.attempt)
    end = next((row for row in rows if row.call), None)
    before, attempts = None if end is None else _began(end), []
    for row in sent:
        began = row.at - row.duration
        attempts.append(AttemptStory(row, began, None if before is None else began - before))
        before = row.at if before is None else max(before, row.at)
    return CallStory(
        tuple(attempts),
        rows[0] if end is None else end,
        end,
        None if end is None else max(0.0, end.call_seconds - _busy(sent)),
        sum(row.cost or 0 for row in sent),
        sum(row.cost is None for row in sent),
    )


def _began(end: UsageRow) -> float | None:
    """When the call began, in Unix seconds; None where it may have gone on after the row's attempt."""
    if end.attempt and (end.call != SUCCESS or end.result != SUCCESS):
        return None
    return end.at - end.call_seconds


def _busy(sent: Sequence[UsageRow]) -> float:
    """Seconds in which one attempt or more was under way."""
    total, until = 0.0, float("-inf")
    for row in sorted(sent, key=lambda row: row.at - row.duration):
        total += max(0.0, row.at - max(until, row.at - row.duration))
        until = max(until, row.at)
    return total
