"""Processes that share ledgers, in virtual time: group commit, round trips, servers that take time.

Every process has a lane for each group, as the Valkey store has: while a call of a lane is under way,
what arrives waits and goes with the next. A shard is a server: calls queue before it, and each takes
what the measured server takes. What the ledger answers is the ledger's own doing, at the moment at
which the server would run it.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from headgate.core.quota import Ask, Counts, Grant, Kind, Limit, Mode, Refusal
from headgate.policy.quota.ledger import QuotaLedger

__all__ = [
    "ACTUAL",
    "COSTS",
    "LIMITS",
    "MOST_ASKS",
    "START",
    "Books",
    "Cost",
    "OpenBooks",
    "RealBooks",
    "Seen",
    "World",
]

LIMITS = (
    Limit("rpm", Counts.REQUESTS, 100),
    Limit("tpm", Counts.INPUT, 100_000),
    Limit("otpm", Counts.OUTPUT, 50_000, mode=Mode.ENVELOPE),
    Limit("rpd", Counts.REQUESTS, 1_000_000, Kind.CALENDAR),
)
COSTS = {Counts.REQUESTS: 1, Counts.INPUT: 900, Counts.OUTPUT: 300}
ACTUAL = {Counts.INPUT: 850, Counts.OUTPUT: 200}
MOST_ASKS = 64
"""Asks in one call, as in the Valkey store."""

START = 1_795_262_400_000
_WINDOW = 60.0
_ROUND_TRIP = 0.000_5  # seconds between a process and the server and back, without the server's time
_SERVICE = 1.5  # seconds from a grant to its settlement
_PAUSE = 0.02  # seconds a process waits at least after a refusal
_RETURN, _WAKE = 1, 2


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds a call costs a server: so much, and so much more for each ask with a settlement."""

    call: float
    ask: float

    def admission(self, batch: int) -> float:
        """Seconds an admission costs in batches of so many."""
        return self.call / batch + self.ask

    @classmethod
    def through(cls, singly: float, batched: float, batch: int) -> Cost:
        """The line through two measured costs of an admission, in microseconds."""
        call = max(0.0, (singly - batched) * batch / (batch - 1))
        return cls(call / 1e6, (batched - call / batch) / 1e6)


class Books(Protocol):
    """A group's ledger, as the world sees it. Times in virtual seconds."""

    cpu: float

    def transact(self, asks: int, settles: Sequence[str], now: float) -> list[str | float]:
        """For each ask the id of its reservation, or the time at which there may be room."""


class RealBooks:
    """The ledger. Counts the CPU seconds spent in it and checks every window of every domain."""

    def __init__(self, domains: int) -> None:
        days = [START + 86_400_000 * day for day in (1, 2)]
        self.ledger = QuotaLedger([LIMITS] * domains, days)
        self.cpu = 0.0
        self.over = 0
        self._numbers = count()
        self._chance = random.Random(1)
        self._log: list[deque[float]] = [deque() for _ in range(domains)]

    def transact(self, asks: int, settles: Sequence[str], now: float) -> list[str | float]:
        """As in `Books`."""
        ledger, at = self.ledger, START + int(now * 1000)
        wishes = [Ask(f"{next(self._numbers):x}", COSTS) for _ in range(asks)]
        seed = self._chance.randrange(1, 2**31 - 2)
        begun = time.process_time()
        for rid in settles:
            ledger.settle(rid, ACTUAL, at)
        answers = [ledger.acquire(wish, at, seed + n) for n, wish in enumerate(wishes)]
        self.cpu += time.process_time() - begun
        return [self._noted(answer, now) for answer in answers]

    def _noted(self, answer: Grant | Refusal, now: float) -> str | float:
        if isinstance(answer, Refusal):
            return now + 1.0 if answer.at is None else (answer.at - START) / 1000
        log = self._log[answer.domain]
        while log and log[0] <= now - _WINDOW:
            log.popleft()
        log.append(now)
        self.over += len(log) > LIMITS[0].amount
        return answer.rid


class OpenBooks:
    """Grants everything: for questions about servers and queues alone."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self._numbers = count()

    def transact(self, asks: int, settles: Sequence[str], now: float) -> list[str | float]:  # noqa: ARG002
        """As in `Books`."""
        return [f"{next(self._numbers):x}" for _ in range(asks)]


@dataclass(slots=True)
class Seen:
    """What was counted since `World.forget`. Times in seconds."""

    since: float = 0.0
    until: float = 0.0
    offered: int = 0
    granted: int = 0
    asked: int = 0
    trips: int = 0
    busy: dict[int, float] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.until - self.since

    @property
    def busiest(self) -> float:
        """Share of the time that the busiest shard worked."""
        return max(self.busy.values(), default=0.0) / self.seconds

    def wait(self, share: float) -> float:
        """The time from a call's birth to its grant that this share of calls stays within."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Lane:
    """One process's calls of one group."""

    __slots__ = ("flying", "group", "hold", "settles", "tried", "waiting")

    def __init__(self, group: int) -> None:
        self.group = group
        self.waiting: deque[float] = deque()  # births
        self.settles: deque[tuple[float, str]] = deque()  # due, id
        self.flying: list[float] = []
        self.hold = 0.0
        self.tried = MOST_ASKS


class World:
    """The processes, the groups and the shards.

    Args:
        groups: the ledger of each group.
        shard_of: which shard a group lives on.
        processes: how many.
        cost: what calls cost a shard.
        rate: calls a second of all processes and groups, evenly spread; None: every caller of
            `callers` a process asks again as soon as it was served.
    """

    def __init__(
        self,
        groups: Sequence[Books],
        shard_of: Mapping[int, int],
        *,
        processes: int,
        cost: Cost,
        rate: float | None,
        callers: int = 64,
        seed: int = 1,
    ) -> None:
        self._groups = groups
        self._shard_of = shard_of
        self._cost = cost
        self._closed = rate is None
        self._lanes = [[_Lane(group) for group in range(len(groups))] for _ in range(processes)]
        self._free = dict.fromkeys(shard_of.values(), 0.0)
        self._heap: list[tuple[float, int, int, _Lane]] = []
        self._order = count()
        self._chance = random.Random(seed)
        self._births = self._arrivals(rate) if rate else iter(())
        self.now = 0.0
        self.seen = Seen()
        for lanes in self._lanes if self._closed else []:
            for number in range(callers):
                lanes[number % len(groups)].waiting.append(0.0)
        for lanes in self._lanes if self._closed else []:
            for lane in lanes:
                self._send(lane)
        self._next = next(self._births, float("inf"))

    def forget(self) -> None:
        """Count anew from now."""
        self.seen = Seen(since=self.now, until=self.now)

    def run(self, until: float) -> None:
        """Let everything happen up to a moment."""
        heap = self._heap
        while True:
            if self._next <= (heap[0][0] if heap else float("inf")):
                if self._next > until:
                    break
                self.now = self._next
                self._born()
                self._next = next(self._births, float("inf"))
            else:
                if heap[0][0] > until:
                    break
                self.now, _, what, lane = heappop(heap)
                if what == _RETURN:
                    self._returned(lane)
                elif not lane.flying:
                    self._send(lane)
        self.now = self.seen.until = until

    def _arrivals(self, rate: float) -> Iterator[float]:
        at = 0.0
        while True:
            at += self._chance.expovariate(rate)
            yield at

    def _born(self) -> None:
        lanes = self._lanes[self._chance.randrange(len(self._lanes))]
        lane = lanes[self._chance.randrange(len(lanes))]
        lane.waiting.append(self.now)
        self.seen.offered += 1
        if not lane.flying and lane.hold <= self.now:
            self._send(lane)

    def _send(self, lane: _Lane) -> None:
        """Everything that waits, up to what a call carries; the server runs it when it is free."""
        if not lane.waiting:
            return
        many = min(lane.tried, len(lane.waiting))
        lane.flying = [lane.waiting.popleft() for _ in range(many)]
        told: list[str] = []
        while lane.settles and lane.settles[0][0] <= self.now and len(told) < 256:
            told.append(lane.settles.popleft()[1])
        shard = self._shard_of[lane.group]
        begins = max(self.now + _ROUND_TRIP / 2, self._free[shard])
        took = self._cost.call + self._cost.ask * many
        self._free[shard] = begins + took
        seen = self.seen
        seen.trips += 1
        seen.asked += many
        seen.busy[shard] = seen.busy.get(shard, 0.0) + took
        answers = self._groups[lane.group].transact(many, told, begins)
        back = begins + took + _ROUND_TRIP / 2
        again: list[float] = []
        for birth, answer in zip(lane.flying, answers, strict=True):
            if isinstance(answer, str):
                lane.settles.append((back + _SERVICE, answer))
                seen.granted += 1
                seen.waits.append(back - birth)
                if self._closed:
                    again.append(back)
            else:
                again.append(birth)
                lane.hold = max(back + _PAUSE, answer)
        # After a refusal as many asks as were granted, else twice as many: few asks are in vain.
        refused = sum(not isinstance(answer, str) for answer in answers)
        lane.tried = max(1, many - refused) if refused else min(MOST_ASKS, 2 * lane.tried)
        lane.waiting.extendleft(reversed(again))
        heappush(self._heap, (back, next(self._order), _RETURN, lane))

    def _returned(self, lane: _Lane) -> None:
        lane.flying = []
        if lane.hold <= self.now:
            self._send(lane)
        else:
            heappush(self._heap, (lane.hold, next(self._order), _WAKE, lane))
