"""Quota ledgers shared by any number of processes, in Valkey or Redis.

One script call does everything (`lua/ledger.lua`). While a call for a group is under way, what is asked
meanwhile waits and goes as one batch when it returns: one caller pays one round trip, sixty-four share
one. Calls run in tasks of their own, so a caller that leaves disturbs nobody; what was granted to it is
given back in the next call.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from itertools import count
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, RedisError, ResponseError

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.ports import Clock
from headgate.core.quota import Batch, BatchReply, Fill, Limit
from headgate.stores import valkey_wire as wire
from headgate.stores.guard import Guard, deadline
from headgate.stores.presence import KEY, Does, Presence, presence_of
from headgate.stores.valkey_days import resets_around
from headgate.stores.valkey_fills import fills_of, read_counters
from headgate.stores.valkey_lanes import Entry, Lane, Owed, pieces_of
from headgate.stores.valkey_link import Address, Link, forbids, sentence_of

__all__ = ["TIMEOUT", "ValkeyStore"]

TIMEOUT = 0.1
"""Seconds a call may take; beyond that the caller is better served by its own share."""

_FLOORS = {"valkey": (7, 2), "redis": (6, 2)}

_log = logging.getLogger("headgate.stores")


class ValkeyStore:
    """A `QuotaStore` on a server or cluster. Threads and event loops may share it.

    Args:
        url: see `headgate.stores.urls`.
        clock: for the breaker, and to know when days end; the ledger goes by the server's clock.
        chance: uniform in [0, 1): spreads the probes of many processes over a dead server.
        timeout: seconds a call may take. A caller waits at most twice that: for the call under way
            and for its own; once a call fails, nobody waits behind it.
        script: another text of the script, for tests that replace its source of time.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        chance: Callable[[], float],
        timeout: float = TIMEOUT,
        script: str | None = None,
    ) -> None:
        self._address = Address(url)
        self._clock = clock
        self._chance = chance
        self._timeout = timeout
        self._script = script or wire.script_source()
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._declared: dict[str, tuple[bytes, ...]] = {}
        self._owed: dict[str, Owed] = {}
        self._guards: dict[str, Guard] = {}
        self._kept: dict[asyncio.AbstractEventLoop, _Kept] = {}
        self._nonces = count(1)
        self._told: tuple[int, float] | None = None  # the server's time, and ours at that moment
        self._epochs: dict[str, int] = {}  # when the server's books of a group were begun
        self._examined = False
        self._hidden = False  # the user may not touch the key that says who shares the server

    def __repr__(self) -> str:
        return f"ValkeyStore({str(self._address)!r})"

    async def declare(self, group: str, domains: Sequence[Sequence[Limit]]) -> None:
        """Make a group with these limits, if there is none yet.

        Also where it raises `StoreError` the group is known from then on: it is declared with the first
        call that the server answers, and again whenever the server turns out to have lost it.
        Raises `ConfigurationError` for a server that is too old.
        """
        wire.keys_of(group)
        self._declared.setdefault(group, tuple(wire.declarations(domains)))
        self._owed.setdefault(group, Owed())
        here = await self._here()
        await asyncio.shield(here.own(self._declare(here.link, group)))

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        """One atomic step. Raises `KeyError` for a group this store was not told of, else `StoreError`.

        More than 64 asks go as several steps. What cannot be told (settlements, cancellations,
        renewals) is kept and told with the next call. An ask that ends in `StoreError` may have been
        granted: ask again with the same id, or cancel that id and never use it again; else it lapses.
        """
        replies = [await self._transact(group, piece) for piece in pieces_of(batch)]
        if len(replies) == 1:
            return replies[0]
        answers = tuple(answer for reply in replies for answer in reply.answers)
        last = replies[-1]
        return BatchReply(answers, last.now, last.epoch, last.seq)

    async def fills(self, group: str) -> tuple[tuple[Fill, ...], ...]:
        """How full each limit of each domain is now; nothing for a group that is not there. Charges
        nothing. Raises `KeyError` for a group this store was not told of, else `StoreError`."""
        await self.transact(group, Batch())  # what is over by now is let go
        link, key = (await self._here()).link, wire.keys_of(group)[0]
        counters = await self._guard(group).run(lambda: read_counters(link.run, key))
        try:
            return fills_of(counters)
        except ValueError:  # no fault of the server: calls go on
            raise StoreError(f"The ledger at {self._address} is of another version.") from None

    @property
    def connections(self) -> int:
        """See `presence.Present`."""
        return self._address.connections

    async def presence(self, member: str, does: Does) -> Presence:
        """See `presence.Present`."""
        if self._hidden:
            raise StoreError("The shared store's user may not say who shares it.")
        here = await self._here()

        async def ask() -> Presence | None:
            try:
                return await presence_of(here.link.run, member, does)
            except ResponseError as error:
                if not forbids(error):
                    raise
                return None

        seen = await self._guard("").run(ask)
        if seen is None:
            self._hidden = True
            _log.warning("store=%s members=hidden key=%s", self._address, KEY)
            return await self.presence(member, does)
        return seen

    async def aclose(self) -> None:
        """Tell what is owed, wait for calls under way and close the running loop's connections."""
        kept = self._kept.pop(asyncio.get_running_loop(), None)
        if kept is not None:
            for group, lane in kept.here.lanes.items():
                lane.hurry()
                self._start(kept.here, lane, group)
            if kept.here.tasks:
                await asyncio.wait(kept.here.tasks)
            await kept.keeper.aclose()

    # ── one caller ──────────────────────────────────────────────────────────────────────────────

    async def _transact(self, group: str, batch: Batch) -> BatchReply:
        owed = self._owed[group]
        try:
            self._guard(group).refuse_while_open()
        except StoreError:
            owed.keep(batch)
            raise
        here = await self._here()
        lane = here.lanes.get(group)
        if lane is None:
            lane = here.lanes[group] = Lane(owed)
        entry = Entry(batch, here.loop.create_future())
        lane.waiting.append(entry)
        self._start(here, lane, group)
        try:
            return await entry.future
        except asyncio.CancelledError:
            lane.abandon(entry)
            self._start(here, lane, group)
            raise

    def _start(self, here: _Here, lane: Lane, group: str) -> None:
        if not lane.busy and lane.has_work:
            lane.busy = True
            here.own(self._serve(here.link, lane, group))

    async def _serve(self, link: Link, lane: Lane, group: str) -> None:
        """Send what waits, a batch at a time, until nothing does."""
        entries: list[Entry] = []
        try:
            while lane.has_work:
                entries = lane.next()
                try:
                    said = await self._send(link, lane, group, entries)
                except StoreError as error:
                    lane.fail(entries, error)
                    return
                lane.answer(entries, said)
        finally:
            lane.busy = False
            lane.close(entries)

    # ── one call ────────────────────────────────────────────────────────────────────────────────

    async def _send(self, link: Link, lane: Lane, group: str, entries: Sequence[Entry]) -> wire.Answers:
        owed = lane.owed.take()
        batches = [wire.wired(owed)] if owed is not None else []
        batches += [entry.wired for entry in entries]
        nonce = next(self._nonces)
        payload = wire.transaction(nonce, self._resets(), batches)
        try:
            said = await self._guard(group).run(lambda: self._ask(link, group, payload, nonce))
        except BaseException:
            if owed is not None:
                lane.owed.keep(owed)
            raise
        self._note(group, said)
        return said

    async def _ask(self, link: Link, group: str, payload: bytes, nonce: int) -> wire.Answers:
        reply = await self._run(link, group, payload)
        if reply is None:
            for piece in self._declared[group]:
                await self._run(link, group, piece)
            reply = await self._run(link, group, payload)
        said = wire.answers_of(reply)
        if said.nonce != nonce:
            raise ValueError("a reply to another call")
        return said

    async def _run(self, link: Link, group: str, payload: bytes) -> Any:
        keys = wire.keys_of(group)
        try:
            return await link.run("EVALSHA", self._sha, len(keys), *keys, payload)
        except NoScriptError:  # flushed, evicted, or a new server
            return await link.run("EVAL", self._script, len(keys), *keys, payload)

    async def _declare(self, link: Link, group: str) -> None:
        async def calling() -> wire.Answers:
            replies = [await self._run(link, group, piece) for piece in self._declared[group]]
            return wire.answers_of(replies[-1])

        self._note(group, await self._guard(group).run(calling))
        if not self._examined:
            await self._examine(link)

    async def _examine(self, link: Link) -> None:
        """Warn once of a server that may forget charges; refuse one that is too old."""
        try:
            async with deadline(self._timeout):
                facts = await link.facts()
        except (RedisError, OSError):
            self._examined = True
            return  # a restricted user may not ask: nothing is known, nothing is said
        name = "valkey" if facts.get("server_name") == "valkey" else "redis"
        version = facts.get("valkey_version") or facts.get("redis_version") or ""
        floor = _FLOORS[name if facts.get("valkey_version") else "redis"]
        if _version(version) < floor:
            raise ConfigurationError(
                f"The store at {self._address} is {name} {version}; it must be Redis 6.2 or later, or "
                "Valkey 7.2 or later."
            )
        self._examined = True
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            _log.warning("store=%s maxmemory_policy=%s quota_may_be_forgotten", self._address, policy)

    # ── what belongs to the store, and to a loop ────────────────────────────────────────────────

    def _guard(self, group: str) -> Guard:
        # Of a cluster one part may fail alone.
        part = group if self._address.cluster else ""
        guard = self._guards.get(part)
        if guard is None:
            guard = Guard(
                clock=self._clock, chance=self._chance, seconds=self._timeout, explain=self._failure
            )
            guard = self._guards.setdefault(part, guard)  # another thread may have been faster
        return guard

    def _failure(self, error: Exception) -> StoreError:
        # A library's text may hold anything, our sentence holds no credential.
        return StoreError(f"The shared store at {self._address} {sentence_of(error)}.")

    def _note(self, group: str, said: wire.Answers) -> None:
        self._told = said.now, self._clock.monotonic()
        if self._epochs.setdefault(group, said.epoch) != said.epoch:
            self._epochs[group] = said.epoch
            _log.warning("store=lost_state group=%s charges_before_are_forgotten", group)

    def _resets(self) -> tuple[int, ...]:
        """The ends of days around the server's now, as far as we know it."""
        if self._told is None:
            return resets_around(int(self._clock.wall() * 1000))
        now, then = self._told
        return resets_around(now + int((self._clock.monotonic() - then) * 1000))

    async def _here(self) -> _Here:
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is not None:
            return kept.here
        for old in [old for old in list(self._kept) if old.is_closed()]:
            self._kept.pop(old, None)  # another thread may have been here first
        keeper = self._keep(loop)
        here = await anext(keeper)
        self._kept[loop] = _Kept(keeper, here)
        return here

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[_Here]:
        """Holds a loop's connections until they are closed, by hand or by the loop (docs/adr/0007)."""
        here = _Here(loop, self._address.link(self._timeout))
        try:
            yield here
        finally:
            for task in here.tasks:
                task.cancel()
            if here.tasks:
                await asyncio.wait(here.tasks)
            await here.link.aclose()


class _Here:
    """What one event loop has: connections, lanes and the tasks that serve them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        self.loop = loop
        self.link = link
        self.lanes: dict[str, Lane] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that is kept until it ends, whoever waits for it."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # heard: whoever waited for it may have gone


class _Kept(NamedTuple):
    keeper: AsyncGenerator[_Here]
    here: _Here


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
