"""Holds of money and places for calls under way, out of a store that may wait for a disk.

Calls that ask at the same time share one step of the store, made in a thread: while one is under way,
the next collect. What ended is booked with the next step and makes nobody wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from headgate.core.callers import CallerStore, Denied, Held, Hold, Settled
from headgate.core.errors import HeadgateError
from headgate.core.ports import Clock
from headgate.gateway.callers import CallersUnavailableError
from headgate.policy.budget import HOLD_SECONDS

__all__ = ["Purse"]

_MOST_AT_ONCE = 256
_RENEW_SECONDS = HOLD_SECONDS / 3
_GATHER_SECONDS = 0.02
"""How long what ended may wait to be booked; the next call of this process is decided after it."""

_AGAIN_SECONDS = 1.0
"""After which what could not be booked is told again."""

_LAST_TRIES = 3

_AWAY = (
    "The gateway cannot reach the store of its callers, so nobody knows what this one may still spend. "
    "Nothing was sent; try again in a moment."
)
_log = logging.getLogger("headgate.gateway")

_Asked: TypeAlias = tuple[Hold, asyncio.Future[Held | Denied]]


class Purse:
    """Holds for the calls of one event loop.

    Where the store fails, nobody gets anything: a budget that nobody can look at is not spent.
    """

    def __init__(self, store: CallerStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._asked: deque[_Asked] = deque()
        self._settled: deque[Settled] = deque()
        self._open: set[str] = set()
        self._renewed = clock.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, ask: Hold) -> Held | Denied:
        """Hold something for a call, or say why not. Raises `CallersUnavailableError`.

        What was held must be settled. Whoever is cancelled while waiting holds nothing.
        """
        if not self._store.blocks:
            (verdict,) = self._at_once((), (ask,))
            self._note(ask, verdict)
            return verdict
        future: asyncio.Future[Held | Denied] = asyncio.get_running_loop().create_future()
        self._asked.append((ask, future))
        self._kick()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.settle(Settled(ask.id))  # the answer came, and nobody is left to use it
            raise

    def settle(self, ended: Settled) -> None:
        """Book what became of a hold. A hold that is not open is left alone."""
        if ended.id not in self._open:
            return
        self._open.discard(ended.id)
        if not self._store.blocks:
            self._at_once((ended,), ())
            return
        self._settled.append(ended)
        if len(self._settled) >= _MOST_AT_ONCE:
            self._kick()
        else:
            self._wake_in(_GATHER_SECONDS)

    async def aclose(self) -> None:
        """Book everything that ended, and close the store. What cannot be booked stays held, at its
        worst."""
        self._rest()
        for _ in range(_LAST_TRIES):
            if self._settled:
                self._kick()
            if self._task is not None:
                await asyncio.wait([self._task])
            if not self._settled:
                break
        else:
            _log.error("budget=not_booked calls=%d", len(self._settled))
        self._rest()
        if self._store.blocks:
            await asyncio.get_running_loop().run_in_executor(None, self._store.close)

    # ── steps ───────────────────────────────────────────────────────────────────────────────────

    def _at_once(self, settled: Sequence[Settled], asked: Sequence[Hold]) -> list[Held | Denied]:
        return self._store.hold(settled, self._renewals(), asked, self._clock.wall())

    def _renewals(self) -> tuple[str, ...]:
        """The holds that are to go on, if it is time to say so."""
        now = self._clock.monotonic()
        if now - self._renewed < _RENEW_SECONDS:
            return ()
        self._renewed = now
        return tuple(self._open)

    def _note(self, ask: Hold, verdict: Held | Denied) -> None:
        if isinstance(verdict, Held):
            self._open.add(ask.id)

    def _kick(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._asked or self._settled or self._is_due():
            asked = self._next()
            settled = [self._settled.popleft() for _ in range(len(self._settled))]
            step = partial(
                self._store.hold,
                settled,
                self._renewals(),
                [ask for ask, _ in asked],
                self._clock.wall(),
            )
            try:
                verdicts = await loop.run_in_executor(None, step)
            except BaseException as error:  # whatever it is, nobody may wait for an answer for ever
                self._failed(asked, error)
                self._settled.extendleft(reversed(settled))
                if not isinstance(error, HeadgateError):
                    raise
                break
            self._answer(asked, verdicts)
        self._arm()

    def _answer(self, asked: Sequence[_Asked], verdicts: Sequence[Held | Denied]) -> None:
        for (ask, future), verdict in zip(asked, verdicts, strict=True):
            self._note(ask, verdict)
            if not future.cancelled():
                future.set_result(verdict)
            elif isinstance(verdict, Held):
                self._open.discard(ask.id)
                self._settled.append(Settled(ask.id))

    def _is_due(self) -> bool:
        return bool(self._open) and self._clock.monotonic() - self._renewed >= _RENEW_SECONDS

    def _next(self) -> list[_Asked]:
        found: list[_Asked] = []
        while self._asked and len(found) < _MOST_AT_ONCE:
            entry = self._asked.popleft()
            if not entry[1].done():
                found.append(entry)
        return found

    def _failed(self, asked: Sequence[_Asked], error: BaseException) -> None:
        what = error.message if isinstance(error, HeadgateError) else type(error).__name__
        _log.error("budget=store_failed error=%s", what)
        for _, future in (*asked, *self._asked):
            if not future.done():
                told = CallersUnavailableError(_AWAY, retry_after=1.0)
                told.__cause__ = error
                future.set_exception(told)
        self._asked.clear()

    def _arm(self) -> None:
        """See to it that there is a next step: for what is to be booked, and for holds to renew."""
        if self._settled:
            self._wake_in(_AGAIN_SECONDS)
        elif self._open:
            self._wake_in(_RENEW_SECONDS)

    def _wake_in(self, seconds: float) -> None:
        """Make a step then, if none is made before."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._wake)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._kick()
