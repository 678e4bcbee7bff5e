"""One ledger's turnstile: offers the first in line, hands out turns, tells what became of them.

Who asks for others does so in a task on the loop of one that waits; when that loop goes, another takes
over. What the ledger is to be told rides on asks, or goes alone after 50 ms.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import NamedTuple

from headgate.core.errors import InvalidCallError, StoreError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Clock, QuotaStore
from headgate.core.quota import Batch, BatchReply, Costs, Limit, Penalty, Settlement
from headgate.engine.asking import LOOK_AGAIN, Asking, Refused
from headgate.engine.fresh_ids import fresh_id
from headgate.engine.line import Line, Offer, Turn, Waiter, Want
from headgate.engine.loops import call_on, running_loop
from headgate.engine.passage import NoKeyReady
from headgate.engine.pool import KeyPool
from headgate.engine.pulse import Held, Pulse, Pulses
from headgate.policy.leases import Lease, Unready
from headgate.policy.quota.outlook import share
from headgate.policy.tally import Charge

__all__ = ["Turnstile"]

TELL_AFTER = 0.05
"""Seconds that what the ledger is to be told waits for an ask to ride on (quota ledger, §9.1)."""

TELL_AGAIN = 1.0
"""Seconds until it is told again after the store did not answer."""

LAST_CALL = 0.01
"""Seconds beyond a call's bound: room that comes at that very instant is still for it."""


class _Alarm(NamedTuple):
    """When the first in line are to be offered again, and on which loop. Replaced, never cancelled."""

    loop: asyncio.AbstractEventLoop
    when: float


class Turnstile:
    """The way through one ledger. Threads and event loops may share it."""

    def __init__(
        self, name: str, store: QuotaStore, pool: KeyPool, clock: Clock, chance: Callable[[], float]
    ) -> None:
        self._store = store
        self._pool = pool
        self._clock = clock
        self._lock = Lock()
        self._pulses = Pulses(self._beat)
        self._offer = self._tell = False  # what the serving task finds to do next
        self._serving: asyncio.AbstractEventLoop | None = None
        self._telling: asyncio.AbstractEventLoop | None = None  # where a timer to tell runs
        self._alarm: _Alarm | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.line = Line()
        self._asking = Asking(name, self.line, self._lock, store, pool, clock, chance)

    async def declare(self, group: str, limits: Sequence[Sequence[Limit]]) -> None:
        """Make the ledger known to the store, once. Raises `StoreError`."""
        await self._store.declare(group, limits)
        with self._lock:
            if not self.line.declared:
                self.line.declare(group, limits)

    async def acquire(self, want: Want) -> Turn:
        """A turn. Raises as `QuotaGate.acquire`."""
        with self._lock:
            want.costs = self.line.sizes.costs(want.costs, want.elastic)
            straight = want.again or bool(want.rid) or not self.line.queue
            changes = self.line.changes
        refused = None
        if straight:
            got = await self._asking.one(want)
            if isinstance(got, Turn):
                return self._used(want, got, waited=False)
            refused = got
        return self._used(want, await self._wait(want, refused, changes), waited=True)

    def settle(self, lease: Lease, costs: Costs | None, *, served: bool) -> None:
        """Say what a reservation used; None gives it back whole."""
        line = self.line
        with self._lock:
            held = self._pulses.pop(lease.rid)
            if costs is None:
                line.news.cancels[lease.rid] = None
            else:
                line.news.settles[lease.rid] = Settlement(lease.rid, costs, served)
            frees = held is None or line.frees(lease.rid, held.costs, costs)
            if frees:
                line.freed()
            if held is not None and held.waited:
                truth = dict.fromkeys(held.costs, 0) if costs is None else {**held.costs, **costs}
                difference = share(line.capacity, truth) - share(line.capacity, held.costs)
                line.queue.correct(held.rank, held.caller, difference)
        self._stir_or_tell(freed=frees)

    def tell(self, penalties: Sequence[Penalty], unused: Sequence[str] = ()) -> None:
        """Say what a provider said of domains, and which reservations nothing was sent with."""
        with self._lock:
            self.line.tell(penalties)
            self.line.news.cancels |= dict.fromkeys(unused)
            self.line.freed()
        self._stir_or_tell(freed=True)

    def recall(self, charges: Sequence[Charge]) -> None:
        """Say what was sent before a limit was known: it counts against it."""
        self._asking.recall(charges)
        self._tell_soon(TELL_AFTER)

    async def flush(self) -> None:
        """Tell the ledger everything now. What cannot be told is kept."""
        with self._lock:
            tells = self.line.declared and (self.line.news or self._asking.recalls)
            news = self.line.news.take() if tells else None
        if news is not None:
            try:
                await self._asking.transact(news, ())
            except StoreError:
                self._tell_soon(TELL_AGAIN)

    # ── one call ────────────────────────────────────────────────────────────────────────────────

    async def _wait(self, want: Want, refused: Refused | None, changes: int) -> Turn:
        now, line, loop = self._clock.monotonic(), self.line, asyncio.get_running_loop()
        closed, unready = self._pool.closed(want.model)
        with self._lock:
            if changes != line.changes:  # what was refused may have become possible since
                line.freed()
                refused = None
            seconds = self._least(want, refused, closed, unready, now)
            waiter = Waiter(want, now + want.bound, loop, loop.create_future())
            if refused is not None:
                waiter.note(now, refused.needs)
            asks = refused is None and not line.barred(want, closed, now)
            line.join(waiter)
        timer: asyncio.TimerHandle | None = None
        if math.isfinite(want.bound):
            timer = loop.call_later(want.bound + LAST_CALL, self._expire, waiter)
        try:
            if want.bound > 0:
                want.on_wait(seconds)
            if asks:
                self._stir()
            elif refused is not None:
                self._ring_in(refused.pause, loop)
            return await waiter.future
        except BaseException:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self._give_back(future.result())  # cancelled on the way out
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(waiter)

    def _least(
        self, want: Want, refused: Refused | None, closed: Collection[int], unready: Unready, now: float
    ) -> float:
        """The seconds that a call must wait at the least. Raises `NoKeyReady` if it may not wait."""
        line = self.line
        if refused is not None and refused.seconds is None:
            raise NoKeyReady(refused.unready, None, final=True)
        least = line.least_wait(want, closed, now)
        if refused is not None and refused.firm:
            least = max(least, refused.seconds or 0.0)
        patient = want.bound > 0 or (refused is None and line.goes_first(want.priority))
        if least > want.bound or not patient or not line.has_place(want.priority):
            named = refused.seconds if refused is not None else None
            raise NoKeyReady(unready, max(least, named or self._next_in(now)), final=True)
        return least

    def _next_in(self, now: float) -> float:
        return 0.0 if self._alarm is None else max(0.0, self._alarm.when - now)

    def _used(self, want: Want, turn: Turn, *, waited: bool) -> Turn:
        if turn.lease.rid:
            rank, now = want.priority.rank, self._clock.monotonic()
            with self._lock:
                self._pulses.add(turn.lease.rid, Held(want.costs, rank, want.caller, waited, now))
        return turn

    def _expire(self, waiter: Waiter) -> None:
        """Its bound has passed. If it is being asked for at this moment, the answer decides."""
        with self._lock:
            if waiter.asked or waiter not in self.line.queue:
                return
            seconds = self._next_in(self._clock.monotonic())
        unready = self._pool.closed(waiter.want.model)[1]
        self._fail(waiter, NoKeyReady(unready, seconds, final=True))

    def _leave(self, waiter: Waiter) -> None:
        with self._lock:
            line = self.line
            line.leave(waiter)
            lost = self._alarm is not None and self._alarm.loop not in line.loops
            stirs = bool(line.queue) and (waiter.held or lost)
        if stirs:
            self._stir()

    # ── handing out ─────────────────────────────────────────────────────────────────────────────

    def _grant(self, waiter: Waiter, turn: Turn) -> None:
        with self._lock:
            waits = waiter in self.line.queue
            self.line.leave(waiter, served=True)
        if not (waits and call_on(waiter.loop, self._resolve, waiter, turn)):
            self._give_back(turn)

    def _resolve(self, waiter: Waiter, turn: Turn) -> None:
        if waiter.future.done():
            self._give_back(turn)
        else:
            waiter.future.set_result(turn)

    def _fail(self, waiter: Waiter, error: Exception) -> None:
        with self._lock:
            self.line.leave(waiter)
        call_on(waiter.loop, _reject, waiter.future, error)

    def _give_back(self, turn: Turn) -> None:
        """The call it was for has left."""
        self._pool.settle(turn.lease, Outcome(Kind.CANCELLED, "The call was cancelled."))
        if turn.lease.rid:
            self.tell((), (turn.lease.rid,))

    # ── serving the line ────────────────────────────────────────────────────────────────────────

    def _stir(self, *, offer: bool = True) -> None:
        """See to it that the first in line are offered, or at least that the ledger is told."""
        with self._lock:
            self._offer |= offer
            self._tell = True
            if self._serving is not None and self._serving.is_running():
                return  # it looks again before it ends
            loop = self._serving = self._loop_to_serve_on()
        if loop is not None and not call_on(loop, self._serve_on, loop):
            with self._lock:  # closed this moment: its calls are dead, and another loop serves
                for waiter in [each for each in self.line.queue if each.loop is loop]:
                    self.line.leave(waiter)
                self._serving = None
            self._stir(offer=offer)

    def _loop_to_serve_on(self) -> asyncio.AbstractEventLoop | None:
        here, loops = running_loop(), self.line.loops
        if here is not None and (here in loops or not loops):
            return here
        return next((loop for loop in loops if loop.is_running()), here)

    def _serve_on(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._serve(loop))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Offer and tell until there is no more reason to."""
        try:
            while (work := self._work()) is not None:
                await self._round(loop, *work)
        except BaseException as error:
            with self._lock:
                self._serving = None
            if isinstance(error, asyncio.CancelledError):
                self._stir_or_tell(freed=True)  # the loop shuts down: another may go on
            else:
                self._ring_in(LOOK_AGAIN, loop)  # a fault of ours must not end in a tight loop
            raise

    def _work(self) -> tuple[list[Offer], Batch] | None:
        with self._lock:
            while self._offer or self._tell:
                now = self._clock.monotonic()
                offers = self.line.offers(self._asking.closed(), now) if self._offer else []
                self._offer = self._tell = False
                if offers or self.line.news or self._asking.recalls:
                    return offers, self.line.news.take()
            self._serving = None
            return None

    async def _round(
        self, loop: asyncio.AbstractEventLoop, offers: Sequence[Offer], news: Batch
    ) -> None:
        asked = self._clock.monotonic()
        try:
            reply = await self._asking.transact(news, [offer.ask for offer in offers])
            self._hand_out(loop, offers, reply, asked)
        except StoreError as error:
            for offer in offers:
                self._fail(offer.waiter, StoreError(error.message))
            self._offer |= bool(offers)  # those behind them are to hear it, too
            self._tell_soon(TELL_AGAIN)
        except asyncio.CancelledError:
            for offer in offers:
                offer.waiter.asked, offer.waiter.rid = False, fresh_id()
            raise
        except Exception as error:
            for offer in offers:
                self._fail(offer.waiter, error)
            raise

    def _hand_out(
        self, loop: asyncio.AbstractEventLoop, offers: Sequence[Offer], reply: BatchReply, asked: float
    ) -> None:
        went, held, pauses = False, False, []
        for (waiter, ask, kept_out), answer in zip(offers, reply.answers, strict=True):
            unready = self._pool.closed(waiter.want.model)[1]
            try:
                got = self._asking.meaning(waiter.want, ask, answer, reply.now, asked, unready)
            except InvalidCallError as error:
                held |= waiter.held
                self._fail(waiter, error)
                continue
            if isinstance(got, Turn):
                went, held = True, held or waiter.held
                self._grant(waiter, got)
                continue
            waiter.note(self._clock.monotonic(), got.needs)
            if kept_out:  # it is offered again when the one for whom a domain is held has gone
                got = got._replace(seconds=got.seconds or 0.0, firm=False)
            if self._may_wait(waiter, got):
                pauses.append(LOOK_AGAIN if kept_out else got.pause)
            else:
                held |= waiter.held
        with self._lock:
            more = held or not pauses
            if went and not more:
                more = self.line.others_may_fit(self._asking.closed(), self._clock.monotonic())
            self._offer |= bool(offers and more and self.line.queue)
        if pauses:
            self._ring_in(min(pauses), loop, replace=True)

    def _may_wait(self, waiter: Waiter, refused: Refused) -> bool:
        left = waiter.until - self._clock.monotonic()
        if refused.seconds is not None and left > 0 and not (refused.firm and refused.seconds > left):
            return True
        self._fail(waiter, NoKeyReady(refused.unready, refused.seconds, final=True))
        return False

    # ── timers ──────────────────────────────────────────────────────────────────────────────────

    def _ring_in(
        self, seconds: float, loop: asyncio.AbstractEventLoop, *, replace: bool = False
    ) -> None:
        """Offer the first in line again in so many seconds, on the running loop."""
        alarm = _Alarm(loop, self._clock.monotonic() + seconds)
        with self._lock:
            old = self._alarm
            if not replace and old is not None and old.when <= alarm.when and old.loop.is_running():
                return
            self._alarm = alarm
        loop.call_later(seconds, self._ring, alarm)

    def _ring(self, alarm: _Alarm) -> None:
        if self._alarm is alarm:
            self._alarm = None
            self._stir()

    def _stir_or_tell(self, *, freed: bool) -> None:
        if freed and self.line.queue:
            self._stir()
        else:
            self._tell_soon(TELL_AFTER)

    def _tell_soon(self, seconds: float) -> None:
        """Tell the ledger what there is to tell, unless an ask took it along until then."""
        loop = running_loop()
        if loop is None or not self.line.declared:
            return  # the next ask takes it along
        with self._lock:
            if self._telling is not None and self._telling.is_running():
                return
            self._telling = loop
        loop.call_later(seconds, self._tell_now)

    def _tell_now(self) -> None:
        self._telling = None
        if self.line.news or self._asking.recalls:
            self._stir(offer=False)

    def _beat(self, pulse: Pulse) -> None:
        with self._lock:
            self.line.news.renews |= dict.fromkeys(pulse.due(self._clock.monotonic()))
        self._tell_soon(TELL_AFTER)


def _reject(future: asyncio.Future[Turn], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
