"""Aggregation: items that are asked for one by one travel together, and each hears its own outcome.

An item that comes while nothing of its group is under way goes at once, with whatever else came in the
same turn of the loop: nobody waits for company that may never come. While a batch of the group is under
way, items collect; they go when there are enough of them, when that batch is back, or when the first of
them has waited for the window. So a lone caller never waits, and under load batches fill by themselves.
An item with a deadline waits for others a tenth of its time at the most; one that is urgent takes along
what there is.

A batch belongs to those who wait for it. One who leaves takes nothing away from the others: before the
batch has gone its item goes with it; when the last has left, the batch is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from copy import copy
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

from headgate.core.errors import DeadlineExceededError, HeadgateError, QueueFullError
from headgate.core.ports import Clock

__all__ = ["Aggregator", "Carry", "own_copy"]

G = TypeVar("G", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")

Carry = Callable[[G, Sequence[Item], float | None], Awaitable[Sequence[Result | Exception]]]
"""Gets a group, its items and a deadline in monotonic seconds; gives for each item, in order, its
result or what became of it instead. What it raises is the outcome of every item."""

_SHARE = 0.1
"""Of the time an item has left, what it may wait for others: most is for the answer."""

_COME_BACK = 1.0
"""Seconds after which one who is refused may come again: about as long as an embedding takes."""


@dataclass(slots=True, eq=False)
class _Asked(Generic[Item, Result]):
    """An item that somebody waits for."""

    item: Item
    weight: int
    deadline: float | None
    future: asyncio.Future[Result]
    batch: _Batch[Item, Result] | None = None


@dataclass(slots=True, eq=False)
class _Batch(Generic[Item, Result]):
    """Items under way together. `waiting`: how many of them somebody still waits for."""

    members: list[_Asked[Item, Result]]
    waiting: int
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class _Group(Generic[Item, Result]):
    """What is collected of a group on one loop, and how many of its batches are under way.

    Attributes:
        timer: what sends the collected items off, and `due`, when: seconds of the loop.
    """

    loop: asyncio.AbstractEventLoop
    name: Hashable
    collected: list[_Asked[Item, Result]] = field(default_factory=list)
    under_way: int = 0
    timer: asyncio.Handle | None = None
    due: float = 0.0

    @property
    def weight(self) -> int:
        return sum(asked.weight for asked in self.collected)


class Aggregator(Generic[G, Item, Result]):
    """Collects items of a group into batches. Threads and event loops may share it; items of two loops
    never travel together.

    Args:
        carry: answers a batch.
        size: items of a batch at the most; looked up for each item, as are the other bounds.
        window: seconds an item waits for others at the most.
        most: items that may be collected or under way at once.
        most_weight: of a batch, in the measure of `ask`; one item alone may exceed it.
    """

    def __init__(
        self,
        carry: Carry[G, Item, Result],
        clock: Clock,
        *,
        size: Callable[[], int],
        window: Callable[[], float],
        most: Callable[[], int],
        most_weight: int,
    ) -> None:
        self._carry = carry
        self._clock = clock
        self._size = size
        self._window = window
        self._most = most
        self._most_weight = most_weight
        self._groups: dict[tuple[asyncio.AbstractEventLoop, G], _Group[Item, Result]] = {}
        self._batches: set[_Batch[Item, Result]] = set()
        self._lock = Lock()
        self._here = 0

    @property
    def here(self) -> int:
        """Items that are collected or under way."""
        return self._here

    async def ask(
        self,
        group: G,
        item: Item,
        *,
        deadline: float | None = None,
        weight: int = 0,
        urgent: bool = False,
    ) -> Result:
        """The result of an item.

        Args:
            group: only items of one group travel together.
            deadline: monotonic seconds at which the caller stops waiting.
            weight: of the item; a batch goes before it grows too heavy.
            urgent: waits for nobody.

        Raises:
            QueueFullError: too many items are here already.
            DeadlineExceededError: the deadline passed first.
            Exception: whatever `carry` says became of the item.
        """
        self._enter()
        try:
            loop = asyncio.get_running_loop()
            here = self._groups.setdefault((loop, group), _Group(loop, group))
            asked: _Asked[Item, Result] = _Asked(item, weight, deadline, loop.create_future())
            if here.collected and here.weight + weight > self._most_weight:
                self._send_off(group, here)
            here.collected.append(asked)
            self._arrange(group, here, asked, urgent=urgent)
            return await self._outcome(group, here, asked)
        finally:
            with self._lock:
                self._here -= 1

    async def aclose(self) -> None:
        """Send off what the running loop has collected, and wait until it is answered."""
        loop = asyncio.get_running_loop()
        for (its_loop, name), group in list(self._groups.items()):
            if its_loop is loop:
                self._send_off(name, group)
            elif not its_loop.is_closed():
                its_loop.call_soon_threadsafe(self._send_off, name, group)
        under_way = [batch.task for batch in list(self._batches) if batch.task is not None]
        tasks = [task for task in under_way if task.get_loop() is loop]
        if tasks:
            await asyncio.wait(tasks)

    # ── collecting, on the group's own loop ─────────────────────────────────────────────────────

    def _enter(self) -> None:
        with self._lock:
            if self._here >= self._most():
                raise QueueFullError(
                    f"{self._here} items wait to be answered in batches; no more may. Come back in "
                    f"{_COME_BACK:.0f} s, or allow more calls at once.",
                    retry_after=_COME_BACK,
                )
            self._here += 1

    def _arrange(
        self, name: G, group: _Group[Item, Result], asked: _Asked[Item, Result], *, urgent: bool
    ) -> None:
        """See to it that what is collected goes in time."""
        if len(group.collected) >= self._size():
            self._send_off(name, group)
            return
        patience = self._window() if group.under_way and not urgent else 0.0
        if asked.deadline is not None:
            patience = min(patience, _SHARE * (asked.deadline - self._clock.monotonic()))
        self._send_off_in(max(0.0, patience), name, group)

    def _send_off_in(self, seconds: float, name: G, group: _Group[Item, Result]) -> None:
        due = group.loop.time() + seconds
        if group.timer is not None:
            if group.due <= due:
                return
            group.timer.cancel()
        group.due = due
        if seconds:
            group.timer = group.loop.call_later(seconds, self._ring, name, group)
        else:  # at the end of this turn of the loop: others may come in it
            group.timer = group.loop.call_soon(self._ring, name, group)

    def _ring(self, name: G, group: _Group[Item, Result]) -> None:
        group.timer = None
        self._send_off(name, group)

    def _send_off(self, name: G, group: _Group[Item, Result]) -> None:
        """What is collected goes now. Of a turn in which the first came, the rest goes at its end."""
        if group.timer is not None and group.due > group.loop.time():
            group.timer.cancel()
            group.timer = None
        size = max(1, self._size())
        while group.collected:
            members, group.collected = group.collected[:size], group.collected[size:]
            batch = _Batch(members, len(members))
            for asked in members:
                asked.batch = batch
            group.under_way += 1
            self._batches.add(batch)
            batch.task = group.loop.create_task(self._carried(name, group, batch))
        self._drop_if_idle(name, group)

    # ── under way ───────────────────────────────────────────────────────────────────────────────

    async def _carried(self, name: G, group: _Group[Item, Result], batch: _Batch[Item, Result]) -> None:
        """Ask for a batch and tell everybody in it what became of their item."""
        members = [asked for asked in batch.members if not asked.future.done()]
        outcomes: Sequence[Result | Exception] = ()
        try:
            if members:
                items = [asked.item for asked in members]
                outcomes = await self._carry(name, items, _latest(members))
                if len(outcomes) != len(members):
                    raise AssertionError(f"{len(outcomes)} outcomes for {len(members)} items")
        except Exception as error:  # noqa: BLE001 - everybody in the batch is to hear of it
            outcomes = [own_copy(error) for _ in members]
        finally:
            self._batches.discard(batch)
            group.under_way -= 1
            if not outcomes:  # cancelled: the loop shuts down, or nobody waits any more
                for asked in members:
                    asked.future.cancel()
            if group.collected and not group.under_way:
                self._send_off_in(0.0, name, group)
            self._drop_if_idle(name, group)
        for asked, outcome in zip(members, outcomes, strict=True):
            _tell(asked.future, outcome)

    async def _outcome(
        self, name: G, group: _Group[Item, Result], asked: _Asked[Item, Result]
    ) -> Result:
        now, deadline = self._clock.monotonic(), asked.deadline
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - now)):
                return await asked.future
        except TimeoutError:
            if asked.future.done() and not asked.future.cancelled():
                raise  # it is what became of the item
            raise DeadlineExceededError(
                "The deadline passed before the batch was answered. Allow more time, or make batches "
                "smaller."
            ) from None
        finally:
            if asked.future.cancelled() or not asked.future.done():
                await self._left(name, group, asked)
            elif asked.future.done():
                asked.future.exception()  # heard, even where its caller was cancelled at that moment

    async def _left(self, name: G, group: _Group[Item, Result], asked: _Asked[Item, Result]) -> None:
        """Nobody waits for an item any more."""
        asked.future.cancel()
        batch = asked.batch
        if batch is None:
            if asked in group.collected:
                group.collected.remove(asked)
            self._drop_if_idle(name, group)
            return
        batch.waiting -= 1
        if not batch.waiting and batch.task is not None and not batch.task.done():
            batch.task.cancel()
            await asyncio.wait([batch.task])  # nothing outlives its callers

    def _drop_if_idle(self, name: G, group: _Group[Item, Result]) -> None:
        if group.collected or group.under_way:
            return
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        if self._groups.get((group.loop, name)) is group:
            del self._groups[group.loop, name]


def own_copy(error: Exception) -> Exception:
    """An error for one of several who hear of it: each raises it with a traceback of its own."""
    if not isinstance(error, HeadgateError):
        return error
    again = copy(error)
    again.__cause__ = error.__cause__
    return again


def _latest(members: Sequence[_Asked[Item, Result]]) -> float | None:
    """Until when somebody waits for a batch; None: without end."""
    deadlines = [asked.deadline for asked in members]
    known = [deadline for deadline in deadlines if deadline is not None]
    return max(known) if len(known) == len(deadlines) else None


def _tell(future: asyncio.Future[Result], outcome: Result | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
