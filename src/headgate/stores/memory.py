"""Quota ledgers of one process: nothing to install, and the same answers as the shared store gives."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from headgate.core.ports import Clock
from headgate.core.quota import Batch, BatchReply, Fill, Limit, Penalty
from headgate.policy.days import next_reset
from headgate.policy.quota.ledger import QuotaLedger
from headgate.policy.quota.price import next_seed

__all__ = ["MemoryStore", "apply_penalty"]

DAYS_AHEAD = 3
"""Resets kept ready: more than a call can last, and they are renewed daily."""


class MemoryStore:
    """A `QuotaStore` in this process. Threads and event loops may share it.

    Args:
        clock: where time comes from. The ledger goes by the wall clock at the start plus monotonic
            time, so it neither stops nor jumps when the wall clock is set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._origin = clock.wall() - clock.monotonic()
        self._lock = Lock()
        self._groups: dict[str, _Books] = {}

    async def declare(self, group: str, domains: Sequence[Sequence[Limit]]) -> None:
        """Make a group with these limits, if there is none yet."""
        with self._lock:
            if group not in self._groups:
                self._groups[group] = _Books(QuotaLedger(domains), self._now())

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        """One atomic step. Raises `KeyError` for a group that was not declared."""
        with self._lock:
            books = self._groups[group]
            books.seq += 1
            ledger, now = books.ledger, self._now()
            self._renew_resets(ledger, now)
            for settle in batch.settles:
                ledger.settle(settle.rid, settle.costs, now, served=settle.served)
            for rid in batch.cancels:
                ledger.cancel(rid, now)
            for rid in batch.renews:
                ledger.renew(rid, now)
            for penalty in batch.penalties:
                apply_penalty(ledger, penalty, now)
            for restore in batch.restores:
                ledger.restore(restore, now)
            seed, answers = batch.seed, []
            for ask in batch.asks:
                answers.append(ledger.acquire(ask, now, seed))
                seed = next_seed(seed)
            return BatchReply(tuple(answers), ledger.advance(now), books.epoch, books.seq)

    async def fills(self, group: str) -> tuple[tuple[Fill, ...], ...]:
        """How full each limit of each domain is now; nothing for a group that was not declared."""
        with self._lock:
            books = self._groups.get(group)
            if books is None:
                return ()
            self._renew_resets(books.ledger, self._now())
            books.ledger.advance(self._now())
            return tuple(
                tuple(Fill(limit, used) for limit, used in zip(one.limits, one.used, strict=True))
                for one in books.ledger.accounts
            )

    def _now(self) -> int:
        return int((self._origin + self._clock.monotonic()) * 1000)

    async def aclose(self) -> None:
        """Nothing is held open."""

    @staticmethod
    def _renew_resets(ledger: QuotaLedger, now: int) -> None:
        resets = ledger.resets
        if len(resets) >= DAYS_AHEAD - 1 and resets[1 - DAYS_AHEAD] > now:
            return  # they ascend: so many lie ahead
        reset = float(now // 1000)
        ledger.resets = []
        for _ in range(DAYS_AHEAD):
            reset = next_reset(reset)
            ledger.resets.append(int(reset * 1000))


class _Books:
    """The ledger of a group, when it was begun and how many steps it has made."""

    __slots__ = ("epoch", "ledger", "seq")

    def __init__(self, ledger: QuotaLedger, epoch: int) -> None:
        self.ledger = ledger
        self.epoch = epoch
        self.seq = 1  # its declaration


def apply_penalty(ledger: QuotaLedger, penalty: Penalty, now: int) -> None:
    """What a penalty says, said to a ledger."""
    handle = penalty.domain
    if penalty.limit is not None:
        ledger.learn(handle, penalty.limit, now)
    if penalty.shut is not None:
        ledger.shut(handle, now, shut=penalty.shut)
    if penalty.until == 0:
        ledger.reopen(handle, now)
    elif penalty.until is not None:
        ledger.penalize(handle, penalty.until, now, canary=penalty.canary)
    if penalty.pace is not None:
        ledger.pace(handle, penalty.pace, now)
