"""What one process may still send when the store it shares with others is away: pure arithmetic.

With the store gone nobody adds up. Two rules keep the sum of all processes below each limit L, however
they differ in when they notice:

    at first    a process refills only what it held itself when the store went, and none of it counts
                twice: together they held at most L. What it newly charges stays within its share.
    from then   once everything charged before has surely ended, it holds at most its share, and the
                shares add up to at most L.

Days are longer than outages. There a process may use its part of what was left at its last grant, less
what the others can have used since.

Why the sums hold is in docs/explanation/store-failure.md. Times are integer milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from headgate.core.quota import Counts, Kind, Limit, Mode
from headgate.policy.quota.windows import bucket_width, expiry

__all__ = ["LATE", "LONGEST_CALL", "Standing", "Terms", "day_terms", "most_used", "share_of", "terms"]

LATE = 1_000
"""A reply may be this late, clocks may have drifted this far: added wherever others' charges must have
ended."""

LONGEST_CALL = 600_000
"""Where a limit counts calls at their end, one that began before the outage may count this late."""


class Standing(Struct, frozen=True):
    """What a process knows of itself and the others at the moment the store goes.

    Attributes:
        processes: the most that may go on with shares; 0 if that is not known.
        rank: its place among them, from 0, if all of them know the same order.
        entitled: whether the others count it in: a newcomer has no share.
        since: when it began to write down its charges; None if it never reached the store.
        hold: others may still be served by the store this long after.
    """

    processes: int
    rank: int | None = None
    entitled: bool = True
    since: int | None = None
    hold: int = 0

    @property
    def alone(self) -> bool:
        """Whether there is nobody else, so that its own journal is all there is."""
        return self.processes == 1

    def share(self, amount: int) -> int:
        """Its part of a limit."""
        return share_of(amount, self.processes, self.rank) if self.entitled else 0


class Terms(Struct, frozen=True):
    """Bounds on one limit of one domain.

    Attributes:
        cap: what may be held in all,
        until: until this instant; from then on the limit itself binds.
        share: what may be held of charges made since the store went.
    """

    cap: int
    until: int
    share: int


def share_of(amount: int, processes: int, rank: int | None = None) -> int:
    """A process's part of a limit. With ranks the remainder is dealt out, so that no limit is lost."""
    if processes < 1:
        return 0
    return amount // processes + int(rank is not None and rank < amount % processes)


def terms(limit: Limit, held: int, who: Standing, now: int, resets: Sequence[int]) -> Terms:
    """Terms of a limit that is not of calendar days.

    Args:
        held: what this process holds and will still hold `who.hold` and `LATE` from now.
        resets: ends of days, for `windows.expiry`; not used by these limits.
    """
    last = now + who.hold + LATE  # of the charges the store can have made
    if who.alone:
        # What is not in the journal was charged by somebody before it.
        last = now if who.since is None else who.since
    if limit.kind is Kind.CONCURRENT or limit.mode is Mode.ENVELOPE:
        last += LONGEST_CALL
    if limit.kind is not Kind.CONCURRENT:
        last = expiry(limit, last, resets, counted_by=max(limit.guard, LATE)) + bucket_width(limit)
    if last <= now:
        return Terms(limit.amount, now, who.share(limit.amount))
    return Terms(min(limit.amount, held), last, who.share(limit.amount))


def day_terms(
    limit: Limit, held: int, allowance: int, who: Standing, now: int, resets: Sequence[int]
) -> Terms:
    """Terms of a limit of calendar days.

    Args:
        held: what this process holds of the day, now or at its last grant, whichever is less.
        allowance: what it may use beyond that.
        resets: ends of days around `now`, the last one included.
    """
    share = who.share(limit.amount)
    ends = expiry(limit, now + who.hold, resets)
    if who.alone and who.since is not None and expiry(limit, who.since, resets) < ends:
        return Terms(limit.amount, now, share)  # the whole day is in the journal
    cap = held + (allowance if who.entitled else 0)
    return Terms(min(limit.amount, cap), ends + LATE, share)


def most_used(limits: Iterable[Limit], counts: Counts, age: int) -> int | None:
    """The most that all together can have used of what is counted, within so many milliseconds.

    A window of a rolling limit never sees more than its amount. None: nothing bounds it.
    """
    bounds = [
        limit.amount * -(-max(age, 1) // limit.window)
        for limit in limits
        if limit.kind is Kind.ROLLING and limit.counts is counts
    ]
    return min(bounds, default=None)
