"""A group of quota ledgers as one process stands to it, whose shared store may be away."""

from __future__ import annotations

from enum import Enum, auto

from headgate.policy.quota.share import Standing
from headgate.stores.journal import GroupJournal

__all__ = ["Group", "Phase"]


class Phase(Enum):
    """Who decides: see `sharing.py`."""

    TOGETHER = auto()
    ADRIFT = auto()
    RETURNING = auto()


class Group:
    """A group as this process stands to it. Times are milliseconds of its own clock."""

    __slots__ = (
        "asked", "connections", "forgot", "journal", "left", "phase", "reached", "returned", "tried",
        "unsettled", "warned", "who",
    )  # fmt: skip

    def __init__(self, journal: GroupJournal) -> None:
        self.journal = journal
        self.phase = Phase.TOGETHER
        self.who = Standing(0)  # when it was left alone
        self.reached: int | None = None  # the last answered call was sent
        self.tried = 0  # the last failed call was sent
        self.left = 0  # the store went
        self.returned = 0  # and came back
        self.forgot = False  # having lost what it knew
        self.unsettled = False  # and not all others may have told it what they charged
        self.warned = False
        self.asked = 0  # the last ask came
        self.connections: int | None = None  # made when the last reply came

    def is_returning(self) -> bool:
        """Whether it is, after an await."""
        return self.phase is Phase.RETURNING
