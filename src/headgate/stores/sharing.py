"""A shared store with a stand-in: while it is away, a process goes on from its own share of the quota.

Every charge of this process is also written down here (`journal.py`). When the store fails, asks are
answered from the journal at once, by the bounds of `policy/quota/share.py`. When it comes back, it is
told what was charged meanwhile, and everything if it forgot; only then does it decide again.

    TOGETHER    the store decides
    ADRIFT      it does not answer: each process decides by its own share
    RETURNING   it answers, but others may not have told it yet what they charged: a grant needs both
                the store and the own share

Why no limit is exceeded on the way is in docs/explanation/store-failure.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from msgspec import structs

from headgate.core.errors import StoreError
from headgate.core.ports import Clock, QuotaStore
from headgate.core.quota import Batch, BatchReply, Fill, Limit, Refusal
from headgate.policy.quota.share import Standing
from headgate.stores.crowd import Crowd, Times
from headgate.stores.journal import GroupJournal
from headgate.stores.presence import Does
from headgate.stores.sharing_group import Group, Phase

__all__ = ["SharedStore", "Times"]

_log = logging.getLogger("headgate.stores")


class SharedStore:
    """A `QuotaStore` over another that may fail; itself it raises no `StoreError`.

    Threads and event loops may share it.

    Args:
        primary: the store all processes share. If it has a method `presence` (`presence.Present`), the
            processes are counted by it.
        chance: uniform in [0, 1): spreads the reports of many processes.
        processes: how many share the store, at most; None: as many as report their presence, or one
            where the primary cannot tell.
        member: name of this process, unlike that of any other, in letters and digits.
        born: identity of the server, where whoever started it for these processes says it; a process
            that finds this one need not wait until others have told it what they charged.
    """

    def __init__(
        self,
        primary: QuotaStore,
        *,
        clock: Clock,
        chance: Callable[[], float],
        processes: int | None = None,
        member: str,
        times: Times | None = None,
        born: str | None = None,
    ) -> None:
        self._primary = primary
        self._clock = clock
        self._chance = chance
        self._member = member
        self._times = times or Times()
        self._origin = clock.wall() - clock.monotonic()
        self._groups: dict[str, Group] = {}
        self._crowd = Crowd(
            primary, processes=processes, member=member, times=self._times, now=self._now, born=born
        )  # fmt: skip
        self._watch: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._away_since: int | None = None
        self._seconds_away = 0.0
        self.outages = 0

    @property
    def local_grants(self) -> int:
        """Grants made without the store."""
        return sum(group.journal.local_grants for group in self._groups.values())

    @property
    def away(self) -> bool:
        """Whether the store does not answer now."""
        return self._away_since is not None

    @property
    def seconds_away(self) -> float:
        """How long the store has been away, in all."""
        running = 0 if self._away_since is None else self._now() - self._away_since
        return self._seconds_away + running / 1000

    async def declare(self, group: str, domains: Sequence[Sequence[Limit]]) -> None:
        """Make a group with these limits, if there is none yet. Raises `ConfigurationError`."""
        known = self._groups.setdefault(group, Group(GroupJournal(group, domains, self._member)))
        sent = self._now()
        known.asked = sent
        try:
            await self._primary.declare(group, domains)
        except StoreError:
            self._fail(known, sent)
        else:
            await self._meet(Does.REPORT)
        self._keep_watch()

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        """One step. Raises `KeyError` for a group that was not declared."""
        known = self._groups[group]
        self._keep_watch()
        known.asked = now = self._now()
        known.journal.apply(batch, now)
        if known.phase is Phase.TOGETHER and not self._is_current(known, now):
            await self._visit(known)
        if known.phase is Phase.TOGETHER and not known.journal.strained:
            reply = await self._ask(known, batch)
            return reply or await self._decide(known, batch)
        known.journal.keep(batch)
        if known.phase is Phase.TOGETHER:
            return await self._ask_both(known, batch)
        return await self._decide(known, batch)

    async def fills(self, group: str) -> tuple[tuple[Fill, ...], ...]:
        """How full each limit of each domain is, as the shared store has it. Nothing while it is away,
        and of a group that was not declared. Raises `StoreError` where it does not answer."""
        known, tells = self._groups.get(group), getattr(self._primary, "fills", None)
        if known is None or known.phase is not Phase.TOGETHER or tells is None:
            return ()
        found: tuple[tuple[Fill, ...], ...] = await tells(group)
        return found

    async def aclose(self) -> None:
        """Tell the store what it does not know, take leave, and close it for the running loop."""
        if self._loop is asyncio.get_running_loop() and self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None
            for group in self._groups.values():
                if group.phase is not Phase.ADRIFT:
                    await self._tell(group)
            await self._meet(Does.LEAVE)
        await self._primary.aclose()

    # ── one step ────────────────────────────────────────────────────────────────────────────────

    def _is_current(self, group: Group, now: int) -> bool:
        """Whether the store was away so shortly, if at all, that nobody went on without it."""
        if group.reached is None:
            return False
        return self._standing(group).alone or now - group.reached < self._times.absent * 1000

    async def _ask(self, group: Group, batch: Batch) -> BatchReply | None:
        """Ask the store; None if it did not answer, or has lost its books."""
        reply = await self._send(group, batch)
        if reply is not None:
            group.journal.granted(batch.asks, reply, self._now())
        return reply

    async def _send(self, group: Group, batch: Batch) -> BatchReply | None:
        """One call that carries what is owed, too. None if nothing may be built on its reply."""
        journal = group.journal
        restores = journal.untold()
        facts = journal.facts()
        told = batch if facts is None else _together(facts, batch)
        if restores or told.restores:  # the batch's own are in the journal
            told = structs.replace(told, restores=restores)
        sent, mark = self._now(), journal.mark
        try:
            reply = await self._primary.transact(journal.name, told)
        except BaseException as error:
            journal.keep(told)
            journal.forsake(batch.asks)
            if not isinstance(error, StoreError):
                raise  # the caller has gone, and will not ask with this id again
            self._fail(group, sent)
            return None
        journal.told(restores)
        trusted = False
        try:
            if journal.contact(reply, mark, sent, self._now()):
                self._lose(group)
            elif await self._same_server(group):
                group.reached, trusted = sent, True
        finally:
            if not trusted:
                journal.forsake(batch.asks)
        return reply if trusted else None

    async def _decide(self, group: Group, batch: Batch) -> BatchReply:
        """Answer from the own share."""
        now, alone, times, journal = self._now(), group.who.alone, self._times, group.journal
        ready = 0
        if not alone:
            ready = group.left + int(times.hold * 1000)
            if group.phase is Phase.RETURNING and now >= ready and batch.asks:
                return await self._ask_both(group, batch)
            if now - group.tried > times.recent * 1000:
                ready = max(ready, now + int(times.probe * 1000))
        return journal.decide(batch.asks, batch.seed, now, ready=ready, alone=alone)

    async def _ask_both(self, group: Group, batch: Batch) -> BatchReply:
        """Grant what the store grants and the own share allows."""
        journal = group.journal
        reply = await self._send(group, Batch(asks=batch.asks, seed=batch.seed))
        if reply is None:
            return await self._decide(group, batch)
        now = self._now()
        answers = journal.allowed(batch.asks, reply, now)
        again = Refusal(reply.now + int(self._times.probe * 1000))
        return structs.replace(reply, answers=tuple(answer or again for answer in answers))

    # ── the store goes and comes back ───────────────────────────────────────────────────────────

    def _fail(self, group: Group, sent: int) -> None:
        now = self._now()
        group.tried = max(group.tried, sent)
        if group.phase is Phase.ADRIFT:
            if not group.warned and group.who.processes:
                self._warn(group)
            return
        self._leave(group, Phase.ADRIFT, now)
        self.outages += self._away_since is None
        if self._away_since is None:
            self._away_since = now

    def _leave(self, group: Group, phase: Phase, now: int) -> None:
        group.who = self._standing(group)
        group.phase, group.left = phase, now
        group.journal.leave(group.who, now)

    def _lose(self, group: Group) -> None:
        """The store answers and has forgotten: it is told everything, as it is by the others."""
        now = self._now()
        alone = self._standing(group).alone
        self._leave(group, Phase.ADRIFT if alone else Phase.RETURNING, now)
        group.returned, group.forgot, group.unsettled = now, True, True
        group.journal.restore_all()

    def _return(self, group: Group) -> None:
        now = self._now()
        if group.phase is Phase.TOGETHER:
            self._leave(group, Phase.RETURNING, now)
        group.phase, group.returned, group.unsettled = Phase.RETURNING, now, True

    def _rejoin(self, group: Group) -> None:
        now = self._now()
        group.journal.rejoin(now)
        group.phase, group.forgot, group.unsettled = Phase.TOGETHER, False, False
        away = [each for each in self._groups.values() if each.phase is not Phase.TOGETHER]
        if away or self._away_since is None:
            return
        seconds = (now - self._away_since) / 1000
        self._seconds_away += seconds
        self._away_since = None
        if any(each.warned for each in self._groups.values()):
            _log.info("quota=shared store=back seconds=%.1f outages=%d", seconds, self.outages)
            for each in self._groups.values():
                each.warned = False

    def _warn(self, group: Group) -> None:
        if not any(each.warned for each in self._groups.values()):
            _log.warning("quota=own_share store=away processes=%d", group.who.processes)
        group.warned = True

    async def _visit(self, group: Group) -> None:
        """See whether the store answers, tell it what it does not know, rejoin it when that is safe."""
        before, who = group.reached, self._standing(group)
        if await self._send(group, Batch()) is None and group.phase is Phase.ADRIFT:
            return
        if before is None:
            gone = not self._crowd.original
        else:
            gone = self._now() - before >= self._times.absent * 1000
        if (gone or group.unsettled) and not who.alone and group.phase is not Phase.RETURNING:
            self._return(group)
        if not await self._tell(group):
            return
        if group.phase is Phase.RETURNING:
            await self._meet(Does.REPORT)
            told = self._is_settled(group) and await self._tell(group)
            if told and group.is_returning():  # it may have gone again meanwhile
                self._rejoin(group)
        elif group.phase is Phase.ADRIFT:
            self._rejoin(group)

    async def _tell(self, group: Group) -> bool:
        """Tell the store what it does not know, a call at a time. Whether it knows everything now."""
        while group.journal.owes:
            if await self._send(group, Batch()) is None and group.phase is Phase.ADRIFT:
                return False
        return True

    def _is_settled(self, group: Group) -> bool:
        """Whether all others have told the store what they charged without it."""
        until = group.returned + int(self._times.settle * 1000)
        if group.forgot and self._crowd.incomplete:
            # What the missing one charged nobody can tell: it must end by itself.
            until = max(until, group.returned + group.journal.longest_window)
        if self._now() >= until:
            return True
        return not group.forgot and self._crowd.all_told(group.returned)

    def _standing(self, group: Group) -> Standing:
        """How this process stood when it was left alone, or stands now."""
        return (
            self._crowd.standing(group.journal.since)
            if group.phase is Phase.TOGETHER
            else group.who
        )  # fmt: skip

    # ── the watch ───────────────────────────────────────────────────────────────────────────────

    async def _meet(self, does: Does) -> bool | None:
        """See who else is there. Whether the server is the same, None if nobody can tell."""
        groups = list(self._groups.values())
        if does is Does.REPORT and any(g.phase is Phase.ADRIFT or g.journal.owes for g in groups):
            does = Does.LOOK
        same = await self._crowd.meet(does)
        if same is False:  # another server, or another life of it
            for group in [group for group in groups if group.reached is not None]:
                self._lose(group)
        return same

    async def _same_server(self, group: Group) -> bool:
        """Whether a reply came from the server that was there before: one may be behind the other.

        A server that came up again, or was a replica until now, may have lost the last steps, and goes
        on counting where it was: that alone does not show if others were served in between.
        """
        made = getattr(self._primary, "connections", 0)
        known, group.connections = group.connections, made
        if known in (None, made):
            return True
        same = await self._meet(Does.LOOK)
        if same is None and not self._standing(group).alone:
            self._lose(group)  # it is told more than it may have lost, which is safe
            return False
        return same is not False

    def _keep_watch(self) -> None:
        loop = self._loop
        if self._watch is None or self._watch.done() or loop is None or loop.is_closed():
            self._loop = asyncio.get_running_loop()
            self._watch = self._loop.create_task(self._stand_watch())

    async def _stand_watch(self) -> None:
        times = self._times
        while True:
            together = all(group.phase is Phase.TOGETHER for group in self._groups.values())
            pause = times.beat if together else times.probe
            await self._clock.sleep(pause * (0.8 + 0.2 * self._chance()))
            try:
                for group in list(self._groups.values()):
                    reached = group.reached or 0
                    if group.phase is not Phase.TOGETHER or self._now() - reached > 700 * times.beat:
                        await self._visit(group)
                await self._meet(Does.REPORT)
            except Exception as error:  # noqa: BLE001 - the watch must not end; the next round tries anew
                _log.error("store_watch=failed error=%s", type(error).__name__)
            if together and self._is_idle():
                await self._meet(Does.LEAVE)
                return

    def _is_idle(self) -> bool:
        last = max((group.asked for group in self._groups.values()), default=0)
        if self._now() - last < self._times.idle * 1000:
            return False
        return not any(group.journal.holds_any(self._now()) for group in self._groups.values())

    def _now(self) -> int:
        return int((self._origin + self._clock.monotonic()) * 1000)


def _together(facts: Batch, batch: Batch) -> Batch:
    """What is owed first, then what is new."""
    return Batch(
        facts.settles + batch.settles,
        facts.cancels + batch.cancels,
        facts.renews + batch.renews,
        facts.penalties + batch.penalties,
        batch.asks,
        batch.seed,
    )
