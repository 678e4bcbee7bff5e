"""What was sent before a limit was known, on its way into the ledger.

A limit that was learned counts from the moment it is told, and a ledger would begin it empty: the first
thing to happen would be the refusal that was just learned from. So the charges that still stand are
told with it, each until the instant at which the provider lets go of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex
from threading import Lock

from headgate.core.ports import Clock, QuotaStore
from headgate.core.quota import Batch, Restore
from headgate.policy.tally import Charge

__all__ = ["Recall"]


class Recall:
    """Charges that are still to be told, by the name of their line. Threads may share it."""

    def __init__(self, store: QuotaStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._member = f"recall:{token_hex(8)}"
        self._charges: dict[str, list[Charge]] = {}
        self._lock = Lock()

    def add(self, line: str, charges: Sequence[Charge]) -> None:
        """These are to be told with the next batch of the line."""
        with self._lock:
            self._charges.setdefault(line, []).extend(charges)

    async def take(self, line: str, group: str) -> tuple[Restore, ...]:
        """What to tell, in the store's time; nothing is remembered of it any more.

        Asks the store for its time, which costs a round trip once for each limit that is learned.
        Raises `StoreError`.
        """
        if line not in self._charges:
            return ()
        reply = await self._store.transact(group, Batch())
        now = self._clock.monotonic()
        with self._lock:
            charges = self._charges.pop(line, [])
        return tuple(
            Restore(
                self._member,
                charge.domain,
                charge.limit,
                reply.now + int((charge.ends - now) * 1000),
                charge.amount,
            )
            for charge in charges
        )
