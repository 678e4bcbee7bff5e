"""A shared store that fails in every way, processes that use it, and a provider that counts.

All in virtual time. The provider is a plain log; whether it ever counted more than a limit is found by
looking at every window of it.
"""

from __future__ import annotations

import asyncio
import copy
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from random import Random  # noqa: TID251 - seeded
from typing import NamedTuple

import pytest

from headgate.core.errors import StoreError
from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Counts,
    Grant,
    Kind,
    Limit,
    Mode,
    Settlement,
)
from headgate.policy.days import day_start
from headgate.stores.memory import MemoryStore
from headgate.stores.presence import Does, Presence
from headgate.stores.sharing import SharedStore
from headgate.testing import VirtualClock
from headgate.testing import clock as virtual

GROUP = "group"
DEADLINE = 0.1
TRIP = 0.001
GUARD = 0.35
DAY = 86_400_000


@contextmanager
def quick_loops() -> Iterator[None]:
    """Virtual loops without sockets need not look for what arrives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virtual, "_SETTLE_SECONDS", 0.0)
        yield


class Fault(NamedTuple):
    """What happens to the store.

    Attributes:
        start, end: in seconds of the run.
        kind: `refuse`, `timeout`, `lost` (reply after the effect), `slow` (the effect is late, too).
        after: what it remembers then: `all`, `nothing` (it begins empty), `some` (as `lag` seconds
            before the start).
        early, late: for which seconds more it fails for single members, by their number.
        lag: see `after`.
    """

    start: float
    end: float
    kind: str
    after: str = "all"
    early: Sequence[float] = ()
    late: Sequence[float] = ()
    lag: float = 0.0

    def hits(self, member: int, now: float) -> bool:
        """Whether it concerns a member at an instant."""
        early = self.early[member % len(self.early)] if self.early else 0.0
        late = self.late[member % len(self.late)] if self.late else 0.0
        return self.start - early <= now < self.end + late


class Server:
    """A `MemoryStore` that lives and dies as faults say. Lines to it belong to members."""

    def __init__(self, clock: VirtualClock, domains: Sequence[Sequence[Limit]]) -> None:
        self.clock = clock
        self.domains = domains
        self.memory = MemoryStore(clock)
        self.lives = 1
        self.members: dict[str, tuple[float, float]] = {}
        self.since = self.heard = self.back = clock.monotonic()
        self.faults: list[Fault] = []
        self.calls = 0

    async def live(self, faults: Sequence[Fault]) -> None:
        """Let the faults happen."""
        self.faults = list(faults)
        for fault in faults:
            await self._until(fault.start - fault.lag)
            remembered = copy.deepcopy(self.memory._groups, {id(self.clock): self.clock})
            await self._until(fault.end)
            if fault.after == "all":
                continue
            self.memory = MemoryStore(self.clock)
            self.lives += 1
            self.since = self.clock.monotonic()
            if fault.after == "some":
                self.memory._groups = remembered
            else:
                self.members.clear()

    async def _until(self, instant: float) -> None:
        await self.clock.sleep(instant - self.clock.monotonic())

    def line(self, number: int, *, counts_members: bool) -> Line:
        """A line of one member."""
        return CountedLine(self, number) if counts_members else Line(self, number)

    async def call(self, number: int, effect: Callable[[], object]) -> object:
        """What a member gets for a call. Raises `StoreError`."""
        self.calls += 1
        now = self.clock.monotonic()
        kind = next((fault.kind for fault in self.faults if fault.hits(number, now)), "")
        await self.clock.sleep(TRIP)
        if not kind:
            said = effect()
            await self.clock.sleep(TRIP)
            return said
        if kind == "lost":
            effect()
        if kind == "slow":
            asyncio.get_running_loop().call_later(0.25, effect)
        if kind != "refuse":
            await self.clock.sleep(DEADLINE)
        raise StoreError("The store is away.")

    def declare(self, group: str) -> None:
        """Make a group, where the server is well."""
        finished(self.memory.declare(group, self.domains))

    def transact(self, group: str, batch: Batch) -> BatchReply:
        """One step, where the server is well."""
        self.declare(group)  # as a line does that finds it gone
        reply = finished(self.memory.transact(group, batch))
        assert isinstance(reply, BatchReply)
        return reply

    def presence(self, member: str, does: Does) -> Presence:
        """As `stores/presence.py` has it."""
        now = self.clock.monotonic()
        if now - self.heard > 2.0:
            self.back = now
        self.heard = now
        known = self.members
        joined = known.get(member, (now, now))[0]
        self.members = {
            name: seen
            for name, seen in self.members.items()
            if now - max(seen[1], self.back) <= 60 and name != member
        }
        others = dict(self.members)
        if does is Does.REPORT:
            self.members[member] = joined, now
        elif does is Does.LOOK and member in known:
            self.members[member] = known[member]
        return Presence(
            len(others) + 1,
            sum(name < member for name in others),
            sum(now - last > 2.0 for _, last in others.values()),
            int((now - self.since) * 1000),
            int((now - joined) * 1000),
            f"life {self.lives}",
        )


def finished(coroutine: Coroutine[object, object, object]) -> object:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


class Line:
    """A `QuotaStore`: one member's line to the server."""

    def __init__(self, server: Server, number: int) -> None:
        self.server = server
        self.number = number
        self.connections = 0
        self._life = 0

    async def declare(self, group: str, domains: Sequence[Sequence[Limit]]) -> None:
        await self.server.call(self.number, lambda: self.server.declare(group))

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        reply = await self.server.call(self.number, lambda: self._effect(group, batch))
        assert isinstance(reply, BatchReply)
        return reply

    def _effect(self, group: str, batch: Batch) -> BatchReply:
        if self._life != self.server.lives:  # the old connection broke with the server
            self._life = self.server.lives
            self.connections += 1
        return self.server.transact(group, batch)

    async def aclose(self) -> None:
        pass


class CountedLine(Line):
    """One that knows who shares the server."""

    async def presence(self, member: str, does: Does) -> Presence:
        seen = await self.server.call(self.number, lambda: self.server.presence(member, does))
        assert isinstance(seen, Presence)
        return seen


class Provider:
    """What is counted, by domain: when, how much of what."""

    def __init__(self, domains: Sequence[Sequence[Limit]], clock: VirtualClock) -> None:
        self.domains = domains
        self.clock = clock
        self.log: list[list[tuple[float, dict[Counts, int]]]] = [[] for _ in domains]
        self.flights: list[list[tuple[float, float]]] = [[] for _ in domains]

    def count(self, domain: int, instant: float, costs: dict[Counts, int]) -> None:
        """A call arrives."""
        self.log[domain].append((instant, costs))

    def used(self, domain: int, counts: Counts, start: float = 0.0, end: float = 1e12) -> int:
        """What was used of something from one instant to before another."""
        return sum(c.get(counts, 0) for x, c in self.log[domain] if start <= x < end)

    def check(self) -> None:
        """Fail where any window or day holds more than a limit."""
        for domain, limits in enumerate(self.domains):
            self.log[domain].sort(key=lambda entry: entry[0])
            for limit in limits:
                worst = self.worst(domain, limit)
                assert worst <= limit.amount, f"{worst} of {limit.amount} {limit.name} of {domain}"

    def worst(self, domain: int, limit: Limit) -> int:
        """The most that any window, or any day, of a limit holds."""
        log = self.log[domain]
        if limit.kind is Kind.CONCURRENT:
            flights = self.flights[domain]
            return max((sum(a <= start < b for a, b in flights) for start, _ in flights), default=0)
        if limit.kind is Kind.CALENDAR:
            days: dict[float, int] = {}
            for instant, costs in log:
                day = day_start(self.clock._start + instant)
                days[day] = days.get(day, 0) + costs.get(limit.counts, 0)
            return max(days.values(), default=0)
        times = [round(x, 9) for x, _ in log]
        sums = [0]
        for _, costs in log:
            sums.append(sums[-1] + costs.get(limit.counts, 0))
        return max(
            (
                sums[bisect_left(times, round(x + limit.window / 1000, 9))] - sums[i]
                for i, x in enumerate(times)
            ),
            default=0,
        )


class Process:
    """One process with a store of its own and callers who want as much as they can get.

    Args:
        pause: seconds between a caller's calls, on average; a greedy one asks again at once.
    """

    def __init__(
        self,
        server: Server,
        provider: Provider,
        number: int,
        seed: int,
        *,
        processes: int | None,
        pause: float,
        counts_members: bool = False,
        born: str | None = None,
    ) -> None:
        self.chance = Random(seed * 1000 + number)
        self.server, self.provider, self.clock = server, provider, server.clock
        self.pause = pause
        self.number = number
        self.store = SharedStore(
            server.line(number, counts_members=counts_members),
            clock=server.clock,
            chance=self.chance.random,
            processes=processes,
            member=f"m{number:03d}",
            born=born,
        )
        self.granted: list[float] = []
        self.asked = 0

    async def live(self, start: float, end: float, callers: int = 3, **costs: int) -> None:
        """Call from one instant to another."""
        await self.clock.sleep(start - self.clock.monotonic())
        await self.store.declare(GROUP, self.server.domains)
        wanted = {Counts(name): amount for name, amount in costs.items()} or {Counts.REQUESTS: 1}
        await asyncio.gather(*(self._call(end, n, wanted) for n in range(callers)))

    async def _call(self, end: float, caller: int, costs: dict[Counts, int]) -> None:
        facts = Batch()
        while (now := self.clock.monotonic()) < end:
            self.asked += 1
            rid = f"{self.number}.{caller}.{self.asked}"
            seed = self.chance.randrange(1, 2**31 - 1)
            batch = Batch(facts.settles, facts.cancels, asks=(Ask(rid, costs),), seed=seed)
            reply = await self.store.transact(GROUP, batch)
            facts = Batch()
            (answer,) = reply.answers
            if isinstance(answer, Grant):
                facts = await self._use(answer, costs)
            else:
                wait = 1.0 if answer.at is None else (answer.at - reply.now) / 1000
                await self.clock.sleep(min(max(wait, 0.001), 1.0, max(end - now, 0.001)))
            if self.pause:
                await self.clock.sleep(self.chance.expovariate(1 / self.pause))

    async def _use(self, grant: Grant, costs: dict[Counts, int]) -> Batch:
        now, chance = self.clock.monotonic(), self.chance
        if chance.random() < 0.05:
            return Batch(cancels=(grant.rid,))  # no byte was sent
        self.granted.append(now)
        instant = now + chance.choice([0.0, chance.random()]) * (GUARD - 0.05)
        used = {counts: chance.randint(0, cost) for counts, cost in costs.items() if counts.is_tokens}
        self.provider.count(grant.domain, instant, {Counts.REQUESTS: costs[Counts.REQUESTS], **used})
        await self.clock.sleep(chance.choice([0.05, 0.5, 3.0]) if self.pause else 0.3)
        self.provider.flights[grant.domain].append((now, self.clock.monotonic()))
        return Batch(settles=(Settlement(grant.rid, used),))


# ── random scenarios ────────────────────────────────────────────────────────────────────────────


def random_limits(chance: Random, window: int, *, slots: bool) -> list[Limit]:
    """Limits of a domain: small ones, so that they bite."""
    limits = [Limit("rpm", Counts.REQUESTS, chance.choice([3, 12, 12, 40]), window=window)]
    if chance.random() < 0.3:
        limits.append(Limit("tpm", Counts.INPUT, chance.choice([60, 300]), window=window))
    if chance.random() < 0.15:
        most = chance.choice([60, 300])
        limits.append(Limit("otpm", Counts.OUTPUT, most, window=window, mode=Mode.ENVELOPE))
    if slots and chance.random() < 0.4:
        limits.append(Limit("slots", Counts.SLOTS, chance.choice([2, 6]), Kind.CONCURRENT))
    if chance.random() < 0.3:
        limits.append(Limit("rpd", Counts.REQUESTS, chance.choice([40, 200]), Kind.CALENDAR, DAY))
    return limits


def random_faults(chance: Random, members: int, end: float) -> list[Fault]:
    """Faults of any length, seen by each member a little earlier or later."""

    def spread(most: float) -> list[float]:
        return [chance.choice([0.0, 0.0, chance.uniform(0, most)]) for _ in range(members)]

    faults, start = [], chance.uniform(5, 40)
    while start < end - 40:
        seconds = chance.choice([0.05, 0.3, 1.0, 1.9, 2.5, 4.0, 5.5, 8.0, 20.0, 45.0, 75.0])
        kind = chance.choice(["refuse", "timeout", "lost", "slow"])
        after = chance.choice(["all", "all", "nothing", "some"])
        late = spread(2.0) if seconds > 3 else ()
        lag = chance.choice([0.0, 0.2, 1.0])
        faults.append(Fault(start, start + seconds, kind, after, spread(2.0), late, lag))
        start += seconds + chance.uniform(3, 60)
    return faults


def random_run(
    seed: int, members: int, end: float = 200.0, born: str | None = None
) -> tuple[Provider, list[Process]]:
    """A random pool, random processes and random faults, played to the end."""
    chance, clock = Random(seed), VirtualClock()
    window = chance.choice([8_000, 20_000, 20_000, 40_000])
    # Slots of calls under way cannot be restored: only a process alone can make up for that.
    slots = members == 1
    limits = random_limits(chance, window, slots=slots)
    domains = [
        limits if chance.random() < 0.7 else random_limits(chance, window, slots=slots)
        for _ in range(chance.choice([1, 2, 3]))
    ]
    faults = random_faults(chance, members, end)
    server, provider = Server(clock, domains), Provider(domains, clock)
    counts_members = chance.random() < 0.6
    processes = [
        Process(
            server, provider, number, seed,
            processes=None if counts_members else members,
            pause=chance.choice([0.0, 0.0, 0.5, 5.0, 30.0]),
            counts_members=counts_members,
            born=born,
        )
        for number in range(members)
    ]  # fmt: skip
    lives = [
        (chance.choice([0.0] * 4 + [chance.uniform(0, 100)]), end - chance.choice([0.0, 0.0, 60.0]))
        for _ in processes
    ]
    play(clock, server, faults, processes, lives, requests=1, input=10, output=10, slots=1)
    return provider, processes


def play(
    clock: VirtualClock,
    server: Server,
    faults: Sequence[Fault],
    processes: Sequence[Process],
    lives: Sequence[tuple[float, float]],
    **costs: int,
) -> None:
    """Let processes live from one instant to another, and the faults happen."""

    async def main() -> None:
        fate = asyncio.ensure_future(server.live(faults))
        try:
            spans = zip(processes, lives, strict=True)
            await asyncio.gather(*(one.live(start, end, **costs) for one, (start, end) in spans))
        finally:
            fate.cancel()

    with quick_loops():
        clock.run(main())
