"""Hedge: a second attempt on another domain, beside one that is slow to answer. Off unless asked for.

Once the first attempt has been on the wire for so many seconds, a second is made, if another domain
has room for it at once and the budget allows it. Whichever answers first is the answer; of a stream its
first piece counts. The other is cancelled and waited for: its socket is closed, and its reservation
settled at the estimate, because the provider may have counted it. Both are attempts with records of
their own.

The second can only help. What it fails with is in its record and nowhere else while the first is
under way; and where the first fails in a way that may pass, the second is waited for. Without a budget,
a free domain or a quiet upstream there is none, and the call goes on as if nobody had asked for one.

The races are those that Kevlar's report 14 lists: the timer against the answer and against the caller
who leaves, in both orders; a loser that answers or fails late; no launch after the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from headgate.core.errors import HeadgateError
from headgate.core.outcome import Next
from headgate.engine.passage import Answer, AttemptFailed, NoKeyReady, Onward, Passage
from headgate.engine.protection import Protection, Ward
from headgate.engine.stream import ReplyStream

__all__ = ["Hedge"]

_log = logging.getLogger("headgate.engine")

_Attempt = asyncio.Task[Answer]


class Hedge:
    """Races a second attempt against a slow one.

    Args:
        after: seconds on the wire, after which the second is made.
    """

    def __init__(self, protection: Protection, after: float) -> None:
        self._protection = protection
        self._after = after

    async def __call__(self, passage: Passage, onward: Onward) -> Answer:
        """Raises what the first attempt raises."""
        call, raw = passage.call, passage.call.raw
        # A call that one domain alone may serve has no other to be made on.
        if call.operation.is_free or call.domain or (raw is not None and not raw.may_repeat):
            return await onward(passage)
        ward = self._protection.ward(passage.model, call.operation)
        return await _Race(passage, onward, ward, self._after).run()


class _Timer:
    """Rings when an attempt has been on the wire for so long; starts anew if it is sent anew."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: float) -> None:
        self._loop = loop
        self._after = after
        self._handle: asyncio.TimerHandle | None = None
        self.rung: asyncio.Future[None] = loop.create_future()

    def begun(self) -> None:
        self.ended()
        self._handle = self._loop.call_later(self._after, self._ring)

    def ended(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self.rung.done():
            self.rung = self._loop.create_future()

    def _ring(self) -> None:
        self.rung.set_result(None)


class _Race:
    def __init__(self, passage: Passage, onward: Onward, ward: Ward, after: float) -> None:
        self._passage = passage
        self._onward = onward
        self._ward = ward
        self._loop = asyncio.get_running_loop()
        self._timer = _Timer(self._loop, after)

    async def run(self) -> Answer:
        passage, twin = self._passage, None
        second: _Attempt | None = None
        winner: _Attempt | None = None
        passage.wire = self._timer
        first = self._launch(passage)
        try:
            await self._until_slow(first)
            if not first.done() and self._ward.may_hedge():
                twin = passage.beside()
                second = self._launch(twin)
            winner = await _winner(first, second)
        finally:
            self._timer.ended()
            passage.wire = None
            try:
                await _dismiss([task for task in (first, second) if task is not winner], winner)
            finally:
                if twin is not None:
                    passage.attempts = max(passage.attempts, twin.attempts)
        if twin is not None and second is not None:
            self._account(twin, second, won=winner is second)
        return winner.result()

    def _launch(self, passage: Passage) -> _Attempt:
        return self._loop.create_task(_answer(self._onward, passage))

    async def _until_slow(self, first: _Attempt) -> None:
        """Until the first attempt has ended, or has been on the wire for long."""
        while not first.done() and not self._timer.rung.done():
            either: tuple[asyncio.Future[Any], ...] = (first, self._timer.rung)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    def _account(self, twin: Passage, second: _Attempt, *, won: bool) -> None:
        """Let the call's passage say which of both attempts answered, and who refused it."""
        passage = self._passage
        passage.partial = passage.partial or twin.partial
        if won:
            passage.lease, passage.limits = twin.lease, twin.limits
            passage.reserved, passage.token_count = twin.reserved, twin.token_count
            return
        failure = None if second.cancelled() else second.exception()
        if not isinstance(failure, AttemptFailed) or twin.lease is None:
            return
        if failure.outcome.rule.leaves_domain:
            passage.refused_by.add(twin.lease.domain)


async def _answer(onward: Onward, passage: Passage) -> Answer:
    return await onward(passage)


async def _winner(first: _Attempt, second: _Attempt | None) -> _Attempt:
    """Whichever answers first; the first attempt, where neither does."""
    racers = [first] if second is None else [first, second]
    while True:
        for task in racers:
            if task.done() and not task.cancelled() and task.exception() is None:
                return task
        running = [task for task in racers if not task.done()]
        if not running or (first.done() and _is_final(first)):
            return first
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)


def _is_final(failed: _Attempt) -> bool:
    """Whether what the first attempt failed with holds for the second as well."""
    error = None if failed.cancelled() else failed.exception()
    if isinstance(error, AttemptFailed):
        return error.outcome.rule.next in (Next.FAIL, Next.STOP)
    return not isinstance(error, NoKeyReady)


async def _dismiss(losers: Iterable[_Attempt | None], winner: _Attempt | None) -> None:
    """End whoever lost, and see it end: nothing of a call may be under way after it."""
    left = False
    for task in losers:
        if task is None:
            continue
        task.cancel()
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:  # the caller leaves: at once, but not before this one
                left = True
                task.cancel()
        await _drop(task)
    if left:
        if winner is not None:
            await _drop(winner)
        raise asyncio.CancelledError


async def _drop(task: _Attempt) -> None:
    """Let go of what came of an attempt that nobody wants."""
    if task.cancelled():
        return
    error = task.exception()
    if error is None:
        answer = task.result()
        if isinstance(answer, ReplyStream):
            await answer.aclose()
    elif not isinstance(error, AttemptFailed | NoKeyReady | HeadgateError):
        _log.error("hedge=fault error=%s", type(error).__name__)
