"""What refusals and answers teach about a limit that nobody told.

An `Interval` finds a limit per minute by use alone. A window in which `u` was sent and then one more
was refused says that the limit is at most u; a window in which u was served says that it is at least u,
or half of that, where the provider's fixed windows met in the middle of ours. So a refusal always wins:

    refused at u   level = the most that was ever served, but not above u; else 0.9 u
    served at u    level = u, if that is higher
    long quiet     the level climbs by 1, 2, 4, … a window while it is used up, until it is refused

Unknown never means unlimited retries: each refusal doubles the time that must stay quiet before the
level climbs again, from five minutes to a day. A limit that stays as it is causes O(log) refusals a
day; one that was believed too low, because a refusal meant something else, is left behind in O(log)
windows.

`Pacing` follows what the ledger makes of unexplained refusals, to know when that no longer helps.

Pure: times are arguments, in monotonic seconds; amounts are requests or tokens a minute.
"""

from __future__ import annotations

from headgate.policy.tally import WINDOW

__all__ = ["DAY", "PATIENCE", "SHARE", "Interval", "Pacing"]

DAY = 86_400.0

PATIENCE = 5.0 * WINDOW
"""Quiet seconds after a first refusal before the level climbs."""

SHARE = 0.9
"""Share of the use at a refusal that is believed to be safe: the figure of the ledger's design."""

_SATURATED = 0.9
"""Share of the level from which on demand counts as using it up. Below 1: buckets are cut at the ends
of a window, and a large call may wait for the rest of it."""


class Interval:
    """A limit per minute, found by use.

    Attributes:
        level: what may be used in a minute; None before the first refusal: not limited.
        adjusted: when it last changed because of a refusal.
        refusals: those that counted: thirty replies to one burst are one.
    """

    __slots__ = (
        "_climbs_at", "_floor", "_foot", "_patience", "_proven", "_step", "adjusted", "level",
        "refusals",
    )  # fmt: skip

    def __init__(self) -> None:
        self.level: int | None = None
        self.adjusted = -float("inf")
        self.refusals = 0
        self._proven = 0  # the most that was served in a minute, as far as no refusal contradicts
        self._floor = 1  # no refusal of the present burst brings the level below this
        self._foot = 1  # the level from which it climbs
        self._step = 1
        self._patience = PATIENCE
        self._climbs_at = 0.0

    def refused(self, use: int, taken: float, now: float) -> int:
        """A call was refused. Returns the new level.

        Args:
            use: what else was sent in the minute before, in flight or served; not what was refused.
            taken: when the refused call left.
        """
        use = max(1, use)
        if self._proven > use:  # it was served across two windows of the provider's
            self._proven = int(SHARE * use)
        level = max(1, self._proven, int(SHARE * use))
        if self.level is not None:
            level = min(self.level, level)
        if taken <= self.adjusted:  # of the burst that was adjusted for: fewer were in flight after all
            self.level = max(self._floor, level)
        else:
            # One refusal may mean something else than this limit: it halves at the most.
            self._floor = 1 if self.level is None else -(-self.level // 2)
            self.level = max(self._floor, level)
            self.adjusted = now
            self.refusals += 1
            self._climbs_at = now + self._patience
            self._patience = min(DAY, 2 * self._patience)
        self._foot, self._step = self.level, 1
        return self.level

    def served(self, use: int, now: float) -> int | None:
        """So much was served in the minute that ends now. Returns the level if it rose."""
        self._proven = max(self._proven, use)
        if self.level is None:
            return None
        before = self.level
        self.level = max(before, use)
        if use >= 2 * self._foot:
            self._patience = PATIENCE  # the refusals meant something else
        if now >= self._climbs_at and use >= _SATURATED * self.level:
            self.level += self._step
            self._step = min(2 * self._step, self.level)
            self._climbs_at = now + WINDOW
        return self.level if self.level > before else None


class Pacing:
    """How tightly the ledger paces a limit: half of it at the first unexplained refusal, half of that
    at the next, down to single calls, and one wider again for every quiet minute.

    Args:
        amount: the limit.
    """

    __slots__ = ("_amount", "_burst", "_since")

    def __init__(self, amount: int) -> None:
        self._amount = amount
        self._burst = amount
        self._since = 0.0

    def tighten(self, now: float) -> bool:
        """One more unexplained refusal. Whether it came although calls were spread one by one."""
        quiet = int((now - self._since) / WINDOW)
        if self._burst < self._amount:
            self._burst = min(self._amount, self._burst + quiet)
        exhausted = self._burst <= 1
        self._burst = max(1, self._burst // 2)
        self._since = now
        return exhausted
