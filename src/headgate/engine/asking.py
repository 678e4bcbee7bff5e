"""Asking a ledger: one round trip with everything it is to be told, and what its answers mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import NamedTuple

from msgspec import structs

from headgate.core.errors import InvalidCallError
from headgate.core.ports import Clock, QuotaStore
from headgate.core.quota import Ask, Batch, BatchReply, Counts, Grant, Refusal
from headgate.engine.fresh_ids import fresh_id
from headgate.engine.line import Line, Turn, Want
from headgate.engine.pool import KeyPool
from headgate.engine.recall import Recall
from headgate.policy.leases import Unready
from headgate.policy.tally import Charge

__all__ = ["LOOK_AGAIN", "SEND_WITHIN", "Asking", "Refused"]

SEND_WITHIN = 0.1
"""Seconds from asking for a reservation to the first byte: g_send of the guard (quota ledger, §5)."""

LOOK_AGAIN = 1.0
"""Seconds between asks where room depends on calls in flight: of other processes' we do not hear."""

SHORTEST_PAUSE = 0.001
"""Seconds; the ledger counts in milliseconds, so nothing changes sooner."""

_SEEDS = 2**31 - 2


class Refused(NamedTuple):
    """No room.

    Attributes:
        seconds: until there may be some; None: never by waiting.
        firm: whether it cannot come sooner.
        unready: how the keys stand.
        needs: the tokens of whose limit there was no room, or None.
    """

    seconds: float | None
    firm: bool
    unready: Unready
    needs: Counts | None = None

    @property
    def pause(self) -> float:
        """Seconds until asking again makes sense: a clock may be too coarse for a shorter time."""
        seconds = max(SHORTEST_PAUSE, self.seconds or 0.0)
        return seconds if self.firm else min(seconds, LOOK_AGAIN)


class Asking:
    """Round trips for one line. The lock is that of its turnstile, held around the line alone.

    Attributes:
        recalls: whether the next round trip also tells what was sent before a limit was known.
    """

    def __init__(
        self, name: str, line: Line, lock: Lock, store: QuotaStore, pool: KeyPool, clock: Clock,
        chance: Callable[[], float],
    ) -> None:  # fmt: skip
        self._name = name
        self._line = line
        self._lock = lock
        self._store = store
        self._pool = pool
        self._clock = clock
        self._chance = chance
        self._recall = Recall(store, clock)
        self.recalls = False

    def recall(self, charges: Sequence[Charge]) -> None:
        """What was sent before a limit was known, to be told with the next round trip."""
        self._recall.add(self._name, charges)
        self.recalls = True

    def closed(self) -> Callable[[str], Collection[int]]:
        """The closed domains by model, each looked up once."""
        known: dict[str, Collection[int]] = {}

        def closed(model: str) -> Collection[int]:
            if model not in known:
                known[model] = self._pool.closed(model)[0]
            return known[model]

        return closed

    async def one(self, want: Want) -> Turn | Refused:
        """Ask for a call that need not stand in line. Raises `StoreError`, `InvalidCallError`."""
        closed, unready = self._pool.closed(want.model)
        ask = want.ask(want.rid or fresh_id(), closed.union(want.exclude))
        with self._lock:
            news = self._line.news.take()
        asked = self._clock.monotonic()
        reply = await self.transact(news, (ask,))
        answer = reply.answers[0]
        if want.rid and isinstance(answer, Grant) and answer.domain in ask.exclude:
            # It was reserved before its domain was closed to this call: it is asked for anew.
            with self._lock:
                self._line.news.cancels[ask.rid] = None
            want.rid = ""
            return await self.one(want)
        return self.meaning(want, ask, answer, reply.now, asked, unready)

    async def transact(self, news: Batch, asks: Sequence[Ask]) -> BatchReply:
        """One round trip. If it fails, the news are kept and whatever was granted is given back."""
        seed = int(self._chance() * _SEEDS) + 1
        group = self._line.group
        try:
            if self.recalls:
                restores = await self._recall.take(self._name, group)
                self.recalls = False
                news = structs.replace(news, restores=(*news.restores, *restores))
            batch = structs.replace(news, asks=tuple(asks), seed=seed)
            return await self._store.transact(group, batch)
        except BaseException:
            with self._lock:
                self._line.news.put_back(news)
                self._line.news.cancels |= dict.fromkeys(ask.rid for ask in asks)
            raise

    def meaning(
        self, want: Want, ask: Ask, answer: Grant | Refusal, now: int,
        asked: float, unready: Unready,
    ) -> Turn | Refused:  # fmt: skip
        """What an answer means. Raises `InvalidCallError` for a call that fits nowhere.

        Args:
            now: the store's time of the answer; `asked`: our monotonic time of the question.
        """
        if isinstance(answer, Grant):
            lease = self._pool.lease_in(answer.domain, want.model, ask.rid, want.prefer)
            if lease is not None:
                if answer.canary:
                    self._line.tests.add(ask.rid)
                return Turn(lease, asked + SEND_WITHIN)
            with self._lock:  # its last key was disabled meanwhile
                self._line.news.cancels[ask.rid] = None
            return Refused(0.0, firm=False, unready=unready)
        probe = self._pool.lease_probe(want.model, want.exclude)
        if probe is not None:
            return Turn(probe, None)
        if answer.never and unready.recovers is None:
            raise InvalidCallError(_too_large(want))
        monotonic = self._clock.monotonic()
        times = [] if answer.at is None else [(answer.at - now) / 1000]
        if unready.recovers is not None:
            times.append(unready.recovers - monotonic)
        seconds = max(0.0, min(times, default=math.inf))
        with self._lock:
            firm, needs = self._line.refused(ask, answer, seconds, monotonic)
        return Refused(seconds if times else None, firm, unready, needs)


def _too_large(want: Want) -> str:
    amounts = ", ".join(f"{amount} {counts.value}" for counts, amount in want.costs.items())
    return (
        f"The call needs {amounts} of {want.model}, more than the declared quota of any project. "
        "Shorten the prompt or declare the larger limit."
    )
