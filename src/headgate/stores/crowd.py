"""What one process knows of the others that share its store."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from headgate.core.errors import StoreError
from headgate.core.ports import QuotaStore
from headgate.policy.quota.share import Standing
from headgate.stores.presence import Does, Presence, Present

__all__ = ["Crowd", "Times"]

_MEMORY = 600_000
"""Milliseconds for which the most processes seen at a time are taken to be still there."""


class Times(Struct, frozen=True):
    """Seconds. The defaults fit together; `docs/explanation/store-failure.md` says how.

    Attributes:
        beat: the store hears of this process at least so often.
        probe: while it is away, it is tried so often.
        absent: after so long without an answer nobody knows what happened meanwhile.
        recent: nothing is granted adrift unless the store failed so lately.
        hold: nothing is granted in the first seconds adrift, as others may still be served.
        settle: others have told the store of their charges so long after it came back.
        known: after so long all others have heard of a new process, and reported to a new server.
        newcomer: one that is younger has no share when the store goes.
        idle: after so long without asks, holding nothing, a process stops reporting.
    """

    beat: float = 1.0
    probe: float = 0.5
    absent: float = 2.0
    recent: float = 1.0
    hold: float = 5.0
    settle: float = 5.0
    known: float = 2.5
    newcomer: float = 30.0
    idle: float = 600.0


class Crowd:
    """The processes that share a store, as one of them sees them.

    Args:
        processes: how many there are, at most; None: as many as report their presence, or one where the
            store cannot tell.
        now: milliseconds of this process's clock.
        born: identity of a server that whoever started it vouches for: while it is that one, it has
            been told everything that was ever charged.
    """

    def __init__(
        self,
        primary: QuotaStore | Present,
        *,
        processes: int | None,
        member: str,
        times: Times,
        now: Callable[[], int],
        born: str | None = None,
    ) -> None:
        if processes is not None and processes < 1:
            raise ValueError("at least one process shares the store")
        self._presence = getattr(primary, "presence", None)
        self._processes = processes
        self._member = member
        self._times = times
        self._now = now
        self._born = born
        self._seen: Presence | None = None
        self._seen_at = 0
        self._most, self._most_at = 0, 0

    def standing(self, since: int | None) -> Standing:
        """How this process stands now.

        Args:
            since: when its journal began.
        """
        seen, hold = self._seen, int(self._times.hold * 1000)
        if self._processes is not None or self._presence is None:
            count = self._processes or 1
            rank = seen.rank if seen is not None and seen.count == count else None
            return Standing(count, rank, since=since, hold=0 if count == 1 else hold)
        if seen is None or not self._is_known(seen):
            return Standing(0, hold=hold)
        count = max(self._most, seen.count)
        entitled = count == 1 or seen.own_age >= self._times.newcomer * 1000
        rank = seen.rank if seen.count == count else None
        return Standing(count, rank, entitled, since, 0 if count == 1 else hold)

    async def meet(self, does: Does) -> bool | None:
        """Report to the others, or look; whether the server is the one it was, None if unknown.

        Only who owes the store nothing may report: the others take it for a sign that the store knows
        all this process has charged.
        """
        if self._presence is None:
            return None
        sent = self._now()
        try:
            seen: Presence = await self._presence(self._member, does)
        except StoreError:
            return None
        before, self._seen, self._seen_at = self._seen, seen, sent
        if seen.count >= self._most or sent - self._most_at > _MEMORY:
            self._most, self._most_at = seen.count, sent
        return before is None or before.server == seen.server

    @property
    def original(self) -> bool:
        """Whether the server was seen to be the one it was born as: nothing is missing there."""
        return bool(self._born) and self._seen is not None and self._seen.server == self._born

    @property
    def incomplete(self) -> bool:
        """Whether somebody who was there is missing."""
        return self._seen is not None and self._seen.count < self._most

    def all_told(self, since: int) -> bool:
        """Whether all others have reported after the store was away, and know of this process.

        Args:
            since: an instant at which the store was back already.
        """
        seen = self._seen
        if seen is None or self._seen_at < since:
            return False
        return seen.silent == 0 and self._is_known(seen)

    def _is_known(self, seen: Presence) -> bool:
        """Whether all others have reported to this server, and heard of this process.

        Who is alone on a server that is new may be so because it forgot the others.
        """
        alone = seen.count == 1 and seen.server_age >= self._times.settle * 1000
        return alone or seen.own_age >= self._times.known * 1000
