"""Lanes: what attempts and calls of certain labels count in, looked up once and kept.

Whoever adds to a lane holds the lock of `EngineMeasures`.
"""

from __future__ import annotations

from typing import NamedTuple

from headgate.telemetry.metrics.books import Cell, Spread

__all__ = ["AttemptLane", "CallLane", "Tokens"]


class Tokens(NamedTuple):
    """In the order of `TOKEN_TYPE`."""

    input: Cell
    output: Cell
    cache_read: Cell
    cache_write: Cell
    reasoning: Cell


class AttemptLane:
    """Attempts of certain labels.

    Attributes:
        number: those that are not in `counted` yet.
        counted: what each of them counts in.
        plain: whether it is no refusal.
        gone: nobody finds it any more; whoever has it in hand settles it at once.
    """

    __slots__ = (
        "cost", "counted", "duration", "first", "gone", "model", "number", "plain", "provider",
        "tokens",
    )  # fmt: skip

    def __init__(
        self, provider: str, model: str, counted: list[Cell], duration: Spread, tokens: Tokens
    ) -> None:
        self.number = 0
        self.provider = provider
        self.model = model
        self.counted = counted
        self.duration = duration
        self.tokens = tokens
        self.plain = True
        self.gone = False
        self.first: Spread | None = None
        self.cost: list[Cell] | None = None  # in all, and by `COST_TYPE`

    def settle(self) -> None:
        """Count what was only noted; under the lock of whoever counts."""
        for cell in self.counted:
            cell.value += self.number
        self.number = 0


class CallLane:
    """Calls of certain labels.

    Attributes:
        number: those that are not in `counted` yet.
        unwaited: those that are not in `wait` yet, for they waited for nothing.
        counted: what each of them counts in.
        gone: as of an attempt's lane.
    """

    __slots__ = (
        "counted", "duration", "gone", "number", "retries", "rotations", "saved", "unwaited", "wait",
    )  # fmt: skip

    def __init__(
        self, counted: list[Cell], duration: Spread, wait: Spread, rotations: Cell, retries: Cell
    ) -> None:
        self.number = self.unwaited = 0
        self.gone = False
        self.counted = counted
        self.duration = duration
        self.wait = wait
        self.rotations = rotations
        self.retries = retries
        self.saved: Cell | None = None

    def settle(self) -> None:
        """See `AttemptLane.settle`."""
        for cell in self.counted:
            cell.value += self.number
        self.wait.counts[0] += self.unwaited
        self.number = self.unwaited = 0
