"""Group commit: what waits for the next call of a group, and what is still owed to the store."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import TypeVar

from headgate.core.errors import StoreError
from headgate.core.quota import Batch, BatchReply, Grant, Settlement
from headgate.stores import valkey_wire as wire

T = TypeVar("T")

__all__ = ["MOST_ASKS", "MOST_OWED", "Entry", "Lane", "Owed", "pieces_of"]

MOST_ASKS = 64
"""Asks in one call, so that none holds the server for long."""

MOST_OTHERS = 256
"""Settlements, cancellations, renewals, penalties and restores in one call."""

MOST_OWED = 4096
"""Undelivered facts of a kind that are kept; beyond, the oldest lapse at the store by themselves."""


class Entry:
    """One caller's batch and the future it waits for."""

    __slots__ = ("batch", "future", "wired")

    def __init__(self, batch: Batch, future: asyncio.Future[BatchReply]) -> None:
        self.batch = batch
        self.wired = wire.wired(batch)
        self.future = future


class Owed:
    """What could not be told: idempotent by reservation id, so telling it late or twice is harmless."""

    def __init__(self) -> None:
        self._lock = Lock()  # loops of several threads may share a store
        self._settles: dict[str, Settlement] = {}
        self._cancels: dict[str, None] = {}
        self._renews: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._settles) + len(self._cancels) + len(self._renews)

    def keep(self, batch: Batch) -> None:
        """Keep what a batch told of reservations. The rest is the caller's to repeat."""
        with self._lock:
            self._settles.update((settle.rid, settle) for settle in batch.settles)
            self._cancels.update(dict.fromkeys(batch.cancels))
            self._renews.update(dict.fromkeys(batch.renews))
            _shorten(self._settles, MOST_OWED)
            _shorten(self._cancels, MOST_OWED)
            _shorten(self._renews, MOST_OWED)

    def take(self) -> Batch | None:
        """As much as one call carries, or None."""
        if not self:
            return None
        with self._lock:
            settles = tuple(settle for _, settle in _pop(self._settles, MOST_OTHERS // 2))
            cancels = tuple(rid for rid, _ in _pop(self._cancels, MOST_OTHERS // 4))
            renews = tuple(rid for rid, _ in _pop(self._renews, MOST_OTHERS // 4))
        return Batch(settles, cancels, renews)


class Lane:
    """The callers of one group in one event loop. One call is under way at a time."""

    def __init__(self, owed: Owed) -> None:
        self.owed = owed
        self.waiting: deque[Entry] = deque()
        self.busy = False
        self._urgent = False  # a grant nobody waits for is to be given back

    @property
    def has_work(self) -> bool:
        """Whether there is reason for a call."""
        return self._urgent or bool(self.waiting)

    def next(self) -> list[Entry]:
        """The entries of the next call. Of a caller that left only its facts are sent."""
        entries: list[Entry] = []
        asks = others = 0
        while self.waiting:
            entry = self.waiting[0]
            if entry.future.done():
                self.owed.keep(self.waiting.popleft().batch)
                continue
            asks, others = asks + len(entry.batch.asks), others + _others(entry.batch)
            if entries and (asks > MOST_ASKS or others > MOST_OTHERS):
                break
            entries.append(self.waiting.popleft())
        # One call carries only so much of what is owed, and the rest is no less urgent.
        self._urgent = self._urgent and bool(self.owed)
        return entries

    def answer(self, entries: Iterable[Entry], said: wire.Answers) -> None:
        """Hand each caller its own answers."""
        first = 0
        for entry in entries:
            reply = said.reply(entry.batch.asks, first)
            first += len(entry.batch.asks)
            if entry.future.done():
                self._give_back(reply)
            else:
                entry.future.set_result(reply)

    def fail(self, entries: Iterable[Entry], error: StoreError) -> None:
        """Tell these and everybody behind them: none shall wait out a second deadline."""
        for entry in (*entries, *self.waiting):
            self.owed.keep(entry.batch)
            if entry.future.done():
                self._forsake(entry)
            else:
                entry.future.set_exception(StoreError(error.message))
        self.waiting.clear()
        self._urgent = False

    def hurry(self) -> None:
        """Have what is owed told now, whether or not somebody comes along."""
        self._urgent = bool(self.owed)

    def abandon(self, entry: Entry) -> None:
        """The caller was cancelled. If its answer was on the way to it, nobody will act on that."""
        if entry.future.done() and not entry.future.cancelled() and not entry.future.exception():
            self._give_back(entry.future.result())

    def close(self, entries: Iterable[Entry]) -> None:
        """The loop shuts down while a call is under way."""
        for entry in entries:
            if not entry.future.done():
                self.owed.keep(entry.batch)
                self._forsake(entry)
                entry.future.cancel()

    def _forsake(self, entry: Entry) -> None:
        self.owed.keep(Batch(cancels=tuple(ask.rid for ask in entry.batch.asks)))

    def _give_back(self, reply: BatchReply) -> None:
        granted = tuple(answer.rid for answer in reply.answers if isinstance(answer, Grant))
        if granted:
            self.owed.keep(Batch(cancels=granted))
            self._urgent = True


def pieces_of(batch: Batch) -> Iterator[Batch]:
    """A batch in pieces that fit a call; the usual one in one piece, itself."""
    if len(batch.asks) <= MOST_ASKS and _others(batch) <= MOST_OTHERS:
        yield batch
        return
    kinds = (batch.settles, batch.cancels, batch.renews, batch.penalties, batch.restores)
    size = MOST_OTHERS // len(kinds)
    for at in range(0, max(map(len, kinds)), size):
        cut = slice(at, at + size)
        yield Batch(
            batch.settles[cut],
            batch.cancels[cut],
            batch.renews[cut],
            batch.penalties[cut],
            restores=batch.restores[cut],
        )
    seed = batch.seed
    for at in range(0, len(batch.asks), MOST_ASKS):
        yield Batch(asks=batch.asks[at : at + MOST_ASKS], seed=seed)
        for _ in range(MOST_ASKS):
            seed = wire.next_seed(seed)


def _others(batch: Batch) -> int:
    facts = len(batch.settles) + len(batch.cancels) + len(batch.renews) + len(batch.penalties)
    return facts + len(batch.restores)


def _shorten(kept: dict[str, T], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]


def _pop(kept: dict[str, T], most: int) -> list[tuple[str, T]]:
    return [(rid, kept.pop(rid)) for rid in list(kept)[:most]]
