"""Reservations in the one ledger: several at once, all of them or none; settled one by one.

A call goes down the engine's path with the id of its reservation as its earmark: the gate asks for that
id again, which moves the charge to the moment of the send, and settles it with what the call used. So
nothing is booked twice, and no instant lies between check and booking.

Time is the clock's, amounts are whole requests and tokens.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple, cast

from headgate.content.quota_config import Held, NoRoom
from headgate.core.errors import NoUsableKeyError, StoreError
from headgate.core.ports import Clock, QuotaStore
from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Counts,
    Fill,
    Grant,
    Refusal,
    Restore,
    Settlement,
)
from headgate.engine.fresh_ids import fresh_id
from headgate.engine.pulse import BEAT
from headgate.policy.days import next_reset
from headgate.policy.quota.windows import expiry

__all__ = ["Closed", "Fills", "QuotaBook"]

LOOK_AGAIN = 1.0
"""Seconds between looks while waiting: calls of others may end sooner than was said."""

MOST_BEATS = 20
"""Renewals of what is put aside: ten minutes. What is still held then was forgotten, and lapses."""

SETTLING_SECONDS = 5.0
"""That a shared ledger may take to know who shares it (`stores/crowd.py`): no reason to refuse."""

_SEEDS = 2**31 - 2

Fills = tuple[tuple[Fill, ...], ...]
"""How full each limit is, by domain."""


class Closed(NamedTuple):
    """Which domains may not serve now.

    Attributes:
        handles: of these domains.
        all: whether these are all there are.
        seconds: until the first of them may serve again; None: none ever will by itself.
    """

    handles: Collection[int] = ()
    all: bool = False
    seconds: float | None = None


class QuotaBook:
    """The ledger of one model, as those see it who reserve before they call. For one event loop at a
    time; threads bring loops of their own.

    Args:
        model: whose ledger it is.
        store: where it lives.
        group: its name there; makes it known to the store.
        closed: the domains that may not serve now.
        told: lets the store be told what is known of calls that ended.
        chance: uniform in [0, 1), for the choice among domains.
    """

    def __init__(
        self,
        model: str,
        store: QuotaStore,
        group: Callable[[], Awaitable[str]],
        clock: Clock,
        chance: Callable[[], float],
        *,
        closed: Callable[[], Closed] = Closed,
        told: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.model = model
        self._store = store
        self._group = group
        self._clock = clock
        self._chance = chance
        self._closed = closed
        self._told = told
        self._kept: dict[str, asyncio.TimerHandle] = {}
        self._renewing: set[asyncio.Task[None]] = set()

    async def reserve(self, tokens: Sequence[int]) -> tuple[Held, ...] | NoRoom:
        """Put aside one request and so many tokens for each of some calls, or for none of them.

        Raises `StoreError`, and `NoUsableKeyError` where no key may ever serve.
        """
        closed = self._closed()
        if closed.all and closed.seconds is None:
            raise NoUsableKeyError("No key of the service is accepted for this model.")
        if closed.all:
            return NoRoom(None, closed.seconds)
        asks = [Ask(fresh_id(), _costs(count), tuple(closed.handles)) for count in tokens]
        reply = await self._asked(asks)
        granted = [ask.rid for ask, got in zip(asks, reply.answers, strict=True) if type(got) is Grant]
        if len(granted) == len(asks):
            for rid in granted:
                self._keep(rid, MOST_BEATS)
            return tuple(
                Held(ask.rid, count, self.model) for ask, count in zip(asks, tokens, strict=True)
            )
        if granted:
            await self._transact(Batch(cancels=tuple(granted)))
        refusal = next(got for got in reply.answers if isinstance(got, Refusal))
        return self._no_room(refusal, reply.now, closed, len(granted))

    async def reserve_within(self, tokens: Sequence[int], seconds: float) -> tuple[Held, ...] | NoRoom:
        """As `reserve`, waiting for room so many seconds at the most; while a shared ledger finds out
        who shares it, a few seconds in any case."""
        began = self._clock.monotonic()
        while True:
            got = await self.reserve(tokens)
            patience = seconds
            if isinstance(got, NoRoom) and got.settling:
                patience = max(seconds, SETTLING_SECONDS)
            left = began + patience - self._clock.monotonic()
            if not isinstance(got, NoRoom) or got.seconds is None or got.seconds > left or left <= 0:
                return got
            await self._clock.sleep(min(max(got.seconds, 0.001), LOOK_AGAIN))

    async def join(self) -> None:
        """Make oneself known to who shares the ledger, before the first request comes."""
        await self._transact(Batch())

    async def settle(self, held: Held, tokens: int | None) -> None:
        """Say what a call used that went another way than the engine's; None: it was never sent."""
        self.hand_over(held)
        if tokens is None:
            await self._transact(Batch(cancels=(held.rid,)))
        else:
            costs = {Counts.TOTAL: tokens, Counts.INPUT: tokens}
            await self._transact(Batch(settles=(Settlement(held.rid, costs),)))

    async def free(self, helds: Collection[Held]) -> None:
        """Give back what was put aside for calls that never began."""
        for held in helds:
            self.hand_over(held)
        if helds:
            await self._transact(Batch(cancels=tuple(held.rid for held in helds)))

    def hand_over(self, held: Held) -> None:
        """A call goes on with it: from here on it is the engine's to keep and to settle."""
        timer = self._kept.pop(held.rid, None)
        if timer is not None:
            timer.cancel()

    async def record(self, tokens: int) -> None:
        """Book a call that was made without asking: it counts, also beyond a limit."""
        ask = Ask(fresh_id(), _costs(1))
        reply = await self._asked([ask])
        if isinstance(reply.answers[0], Grant):
            costs = {Counts.TOTAL: tokens, Counts.INPUT: tokens}
            await self._transact(Batch(settles=(Settlement(ask.rid, costs),)))
            return
        now, restores = reply.now, []
        resets = (int(next_reset(now / 1000) * 1000),)
        for limit in (fill.limit for fill in next(iter(await self.fills() or ()), ())):
            amount = 1 if limit.counts is Counts.REQUESTS else tokens
            restores.append(Restore(ask.rid, 0, limit.name, expiry(limit, now, resets), amount))
        await self._transact(Batch(restores=tuple(restores)))

    async def fills(self) -> Fills | None:
        """How full each limit is now; None where the store cannot tell, or is away."""
        group = await self._group()
        if self._told is not None:
            await self._told()
        tell = cast("Callable[[str], Awaitable[Fills]] | None", getattr(self._store, "fills", None))
        try:
            return (None if tell is None else await tell(group)) or None
        except StoreError:  # who asks in the moment it breaks off hears what the next ones hear
            return None

    # ── the store ───────────────────────────────────────────────────────────────────────────────

    async def _asked(self, asks: Sequence[Ask]) -> BatchReply:
        """Raises what the store raises; whatever it may have granted then is given back."""
        seed = int(self._chance() * _SEEDS) + 1
        try:
            return await self._store.transact(await self._group(), Batch(asks=tuple(asks), seed=seed))
        except asyncio.CancelledError:
            self._own(self._transact(Batch(cancels=tuple(ask.rid for ask in asks))))
            raise

    async def _transact(self, batch: Batch) -> None:
        await self._store.transact(await self._group(), batch)

    def _no_room(self, refusal: Refusal, now: int, closed: Closed, fits: int) -> NoRoom:
        seconds = None if refusal.at is None else max(0.0, (refusal.at - now) / 1000)
        if closed.seconds is not None:
            seconds = min(math.inf if seconds is None else seconds, closed.seconds)
        limit = "tpm" if refusal.never else refusal.limit
        settling = limit is None and seconds is not None
        return NoRoom(None if limit == "rest" else limit, seconds, fits, settling)

    # ── keeping alive what waits for its turn ───────────────────────────────────────────────────

    def _keep(self, rid: str, beats: int) -> None:
        loop = asyncio.get_running_loop()
        self._kept[rid] = loop.call_later(BEAT, self._due, rid, beats)

    def _due(self, rid: str, beats: int) -> None:
        if self._kept.pop(rid, None) is None or not beats:
            return
        self._own(self._transact(Batch(renews=(rid,))))
        self._keep(rid, beats - 1)

    def _own(self, work: Awaitable[None]) -> None:
        async def done() -> None:
            await work

        task = asyncio.get_running_loop().create_task(done())
        self._renewing.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._renewing.discard(task)
        if not task.cancelled():
            task.exception()  # heard: it lapses by itself where the store is away


def _costs(tokens: int) -> dict[Counts, int]:
    """What an ask puts aside. How its tokens divide into prompt and answer shows when they are used."""
    return {
        Counts.REQUESTS: 1,
        Counts.INPUT: tokens,
        Counts.OUTPUT: tokens,
        Counts.TOTAL: tokens,
        Counts.SLOTS: 1,
    }
