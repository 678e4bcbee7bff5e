"""Who goes next: classes in strict order, callers within a class by what they were given.

Within a class this is start-time fair queueing (Goyal, Vin and Cheng, 1996). A caller's *flow* has a
virtual start, at which its first waiting call may go, and each call moves it on by cost ÷ weight; the
smallest start goes next. While two flows both wait, what they were given differs by no more than one
call of each: |W_f/w_f − W_g/w_g| ≤ c_f/w_f + c_g/w_g. A flow that was idle starts at the present
virtual time: it has saved nothing up, and owes what its last calls cost beyond their estimate. Costs
are estimates; `correct` moves a flow by what the truth differs.

Between classes the higher goes first. A lower class that waits is not left to starve: after it was
passed over fifteen times its first call is next, so the top class always keeps at least 80 % of the
turns, whichever three others wait.

Pure. Choosing the first k of n waiting calls costs O(k log flows).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from headgate.core.quota import Costs, Counts

__all__ = ["MOST_FLOWS", "PASSED_OVER", "ClassQueue", "FairQueue"]

T = TypeVar("T", bound=Hashable)

PASSED_OVER = 15
"""Turns a class that waits is passed over before it has one itself."""

MOST_FLOWS = 1000
"""Callers that are remembered while they do not wait; those who owe the least are forgotten first."""


@dataclass(slots=True, eq=False)
class _Place(Generic[T]):
    """One waiting call."""

    item: T
    number: int
    flow: _Flow[T]
    span: float  # virtual time it moves its flow on: cost / weight
    costs: Costs


@dataclass(slots=True, eq=False)
class _Flow(Generic[T]):
    """What one caller waits for. `start` is that of its first call; if none waits, of its next."""

    name: str
    start: float
    waiting: OrderedDict[int, _Place[T]] = field(default_factory=OrderedDict)
    span: float = 0.0
    costs: Counter[Counts] = field(default_factory=Counter)
    version: int = 0  # of its entry among the heads; older ones are out of date

    @property
    def finish(self) -> float:
        """Where its waiting calls end."""
        return self.start + self.span


class FairQueue(Generic[T]):
    """The waiting calls of one class, fair between flows."""

    def __init__(self) -> None:
        self.virtual = 0.0
        self.costs: Counter[Counts] = Counter()
        self._places: dict[T, _Place[T]] = {}
        self._flows: dict[str, _Flow[T]] = {}
        self._heads: list[tuple[float, int, int, _Flow[T]]] = []  # start, number, version, flow
        self._number = 0
        self._tidy_at = MOST_FLOWS

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, item: T) -> bool:
        return item in self._places

    def push(self, item: T, flow: str, cost: float, costs: Costs, weight: float = 1.0) -> None:
        """Let a call wait.

        Args:
            item: the call; each waits once.
            flow: its caller.
            cost: its estimated share of the pool.
            costs: the same by what is counted, for `ahead`.
            weight: of its caller; twice the weight is given twice as much.
        """
        line = self._flow(flow)
        if not line.waiting:
            line.start = max(self.virtual, line.start)
        self._number += 1
        place = _Place(item, self._number, line, cost / weight, costs)
        self._places[item] = line.waiting[place.number] = place
        line.span += place.span
        line.costs.update(costs)
        self.costs.update(costs)
        if len(line.waiting) == 1:
            self._announce(line)

    def serve(self, item: T) -> None:
        """A call has gone, in its turn or before it: its flow is charged."""
        place = self._take(item)
        flow = place.flow
        self.virtual = max(self.virtual, flow.start)
        flow.start += place.span
        self._announce(flow)

    def remove(self, item: T) -> None:
        """A call has left without going: its flow is not charged."""
        self._announce(self._take(item).flow)

    def correct(self, flow: str, difference: float) -> None:
        """The truth about a call that went differs from its estimate by so much cost ÷ weight."""
        line = self._flow(flow)
        line.start += difference
        self._announce(line)

    def first(self, most: int) -> list[T]:
        """The calls that are next, in order; the queue is left as it is."""
        found: list[T] = []
        heads: list[tuple[float, int, int, _Flow[T]]] = []
        runs: list[tuple[float, int, _Place[T], Iterator[_Place[T]]]] = []
        while len(found) < most:
            head = self._first()
            if head is not None and (not runs or head[:2] <= runs[0][:2]):
                heads.append(heappop(self._heads))
                run = iter(head[3].waiting.values())
                place = next(run)
                heappush(runs, (head[0], place.number, place, run))
            elif runs:
                start, _, place, run = heappop(runs)
                found.append(place.item)
                after = next(run, None)
                if after is not None:
                    heappush(runs, (start + place.span, after.number, after, run))
            else:
                break
        for head in heads:
            heappush(self._heads, head)
        return found

    def ahead(self, flow: str) -> tuple[Counter[Counts], int]:
        """What goes before a call that `flow` would add now, and how many calls; rounded down."""
        mine = self._flows.get(flow)
        start = self.virtual if mine is None else max(self.virtual, mine.finish)
        total: Counter[Counts] = Counter()
        calls = 0
        for other in self._flows.values():
            if not other.waiting:
                continue
            part = 1.0 if other is mine else (start - other.start) / (other.span or 1.0)
            part = min(1.0, max(0.0, part))
            calls += int(part * len(other.waiting))
            for counts, amount in other.costs.items():
                total[counts] += int(part * amount)
        return total, calls

    # ── the parts ───────────────────────────────────────────────────────────────────────────────

    def _flow(self, name: str) -> _Flow[T]:
        found = self._flows.get(name)
        if found is None:
            if len(self._flows) >= self._tidy_at:
                self._tidy()
            found = self._flows[name] = _Flow(name, self.virtual)
        return found

    def _take(self, item: T) -> _Place[T]:
        place = self._places.pop(item)
        flow = place.flow
        del flow.waiting[place.number]
        flow.span = flow.span - place.span if flow.waiting else 0.0
        flow.costs.subtract(place.costs)
        self.costs.subtract(place.costs)
        return place

    def _announce(self, flow: _Flow[T]) -> None:
        """The flow's first call is another, or may go at another time."""
        flow.version += 1
        if flow.waiting:
            heappush(self._heads, self._head(flow))
        if len(self._heads) > 2 * len(self._flows) + 64:
            self._heads = [self._head(each) for each in self._flows.values() if each.waiting]
            heapify(self._heads)

    @staticmethod
    def _head(flow: _Flow[T]) -> tuple[float, int, int, _Flow[T]]:
        return flow.start, next(iter(flow.waiting)), flow.version, flow

    def _first(self) -> tuple[float, int, int, _Flow[T]] | None:
        while self._heads and self._heads[0][2] != self._heads[0][3].version:
            heappop(self._heads)
        return self._heads[0] if self._heads else None

    def _tidy(self) -> None:
        """Forget flows that neither wait nor owe, then those that owe the least."""
        idle = [flow for flow in self._flows.values() if not flow.waiting]
        owing = sorted((flow for flow in idle if flow.start > self.virtual), key=lambda f: f.start)
        keep = {flow.name for flow in owing[-(MOST_FLOWS // 2) :]}
        for flow in idle:
            if flow.name not in keep:
                del self._flows[flow.name]
        self._tidy_at = max(MOST_FLOWS, 2 * len(self._flows))


class ClassQueue(Generic[T]):
    """Waiting calls of several classes, 0 the highest."""

    def __init__(self, classes: int) -> None:
        self._queues = [FairQueue[T]() for _ in range(classes)]
        self._passed = [0] * classes
        self._class: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._class)

    def __contains__(self, item: T) -> bool:
        return item in self._class

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._class))

    def push(
        self, item: T, rank: int, flow: str, cost: float, costs: Costs, weight: float = 1.0
    ) -> None:
        """Let a call wait; see `FairQueue.push`."""
        self._queues[rank].push(item, flow, cost, costs, weight)
        self._class[item] = rank

    def serve(self, item: T) -> None:
        """A call has gone: lower classes that wait were passed over once more."""
        rank = self._class.pop(item)
        self._queues[rank].serve(item)
        self._passed[rank] = 0
        for lower in range(rank + 1, len(self._queues)):
            self._passed[lower] = self._passed[lower] + 1 if self._queues[lower] else 0

    def remove(self, item: T) -> None:
        """A call has left without going."""
        rank = self._class.pop(item)
        self._queues[rank].remove(item)
        if not self._queues[rank]:
            self._passed[rank] = 0

    def correct(self, rank: int, flow: str, difference: float) -> None:
        """See `FairQueue.correct`."""
        self._queues[rank].correct(flow, difference)

    def first(self, most: int) -> list[T]:
        """The calls that are next, in order: one of a class whose turn is due, then class by class."""
        found: list[T] = []
        due = self._due()
        if due is not None:
            found += self._queues[due].first(1)
        for queue in self._queues:
            if len(found) >= most:
                break
            found += [item for item in queue.first(most - len(found) + 1) if item not in found[:1]]
        return found[:most]

    def ahead(self, rank: int, flow: str) -> Counter[Counts]:
        """What surely goes before a call that would be added now, by what is counted."""
        total, calls = self._queues[rank].ahead(flow)
        for queue in self._queues[:rank]:
            if not queue:
                continue
            # It is passed over so often at the most until its own turn.
            part = min(1.0, PASSED_OVER * (calls + 1) / len(queue))
            for counts, amount in queue.costs.items():
                total[counts] += int(part * amount)
        return total

    def lengths(self) -> Sequence[int]:
        """How many wait, by class."""
        return [len(queue) for queue in self._queues]

    def _due(self) -> int | None:
        waits = [
            (passed, rank)
            for rank, passed in enumerate(self._passed)
            if passed >= PASSED_OVER and self._queues[rank]
        ]
        return max(waits)[1] if waits else None
