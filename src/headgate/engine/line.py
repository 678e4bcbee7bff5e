"""The line of one ledger: who waits, in what order they are offered, what the ledger is to be told.

Plain state without awaiting: the gate holds a lock around every method, and does the waking.

Offered are the first in order, several at a time, so that a small call may pass a large one that does
not fit yet. A large call is not passed for ever: once it has waited a second for tokens, the roomiest
domain is held for it, and smaller ones go elsewhere until it has gone.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct

from headgate.core.call import Priority
from headgate.core.quota import (
    Ask,
    Batch,
    Costs,
    Counts,
    Kind,
    Limit,
    Mode,
    Penalty,
    Refusal,
    Restore,
    Settlement,
)
from headgate.engine.fresh_ids import fresh_id
from headgate.policy.fairness import ClassQueue
from headgate.policy.leases import Lease
from headgate.policy.quota.outlook import Capacity, capacity, least_wait, roomiest, share
from headgate.policy.quota.sizes import Sizes

__all__ = ["MOST_WAITING", "Line", "News", "Offer", "Turn", "Waiter", "Want"]

MOST_WAITING = 10_000
"""Calls that may wait for one ledger; more are refused at once rather than kept without end."""

KEPT_FOR_CRITICAL = MOST_WAITING // 5
"""Of these places the last fifth takes critical calls alone (quota ledger design, §13)."""

PASSED_FOR = 1.0
"""Seconds for which a call that needs more tokens may be passed by calls that need fewer."""

OFFERED = 8
MOST_OFFERED = 16
LOOKED_AT = 32

MOST_NEWS = 4096
"""Facts of a kind kept while the store does not answer; beyond, reservations lapse by themselves."""


class Want(Struct):
    """What a call wants of the gate.

    Attributes:
        model: the model on the wire.
        costs: what it is expected to use.
        exclude: domains that refused it.
        prefer: the lease whose key it would use again, or None.
        bound: seconds it may wait.
        on_wait: told the seconds of a wait that begins, as far as they are known.
        elastic: those of the costs that it might use but need not: no call is refused for them.
        priority: its class.
        caller: whose it is.
        again: it had its turn, could not use it and gave it back: nobody needs to go before it.
        rid: of a reservation that is held for it; empty: none is.
    """

    model: str
    costs: Costs
    exclude: Collection[int]
    prefer: Lease | None
    bound: float
    on_wait: Callable[[float], None]
    elastic: Collection[Counts] = ()
    priority: Priority = Priority.NORMAL
    caller: str = ""
    again: bool = False
    rid: str = ""

    def ask(self, rid: str, exclude: Collection[int]) -> Ask:
        """What the ledger is asked."""
        return Ask(rid, self.costs, tuple(exclude), None if self.prefer is None else self.prefer.domain)


class Turn(Struct, frozen=True):
    """A lease, and when the send must have begun if it holds a reservation; monotonic seconds."""

    lease: Lease
    not_after: float | None


@dataclass(slots=True, eq=False)
class Waiter:
    """A place in line.

    Attributes:
        until: monotonic seconds at which it gives up.
        rid: of its next reservation.
        asked: whether an ask for it is under way.
        refused: when it was first refused; None: not yet.
        needs: the tokens of whose limit it was refused last, or None.
        held: a domain is held for it, and which one: `domain`.
    """

    want: Want
    until: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Turn]
    rid: str = field(default_factory=fresh_id)
    asked: bool = False
    refused: float | None = None
    needs: Counts | None = None
    held: bool = False
    domain: int | None = None

    def note(self, now: float, needs: Counts | None) -> None:
        """It was refused."""
        self.asked = False
        self.refused = now if self.refused is None else self.refused
        self.needs = needs


class Offer(NamedTuple):
    """An ask for a waiter. `kept_out`: of a domain that is held for another, so room may exist."""

    waiter: Waiter
    ask: Ask
    kept_out: bool


class _Bar(NamedTuple):
    """A refused ask: what needs as much or more has no room either, until `until` if that is firm."""

    costs: Costs
    exclude: Collection[int]
    until: float
    firm: bool

    def stops(self, costs: Costs, exclude: Collection[int]) -> bool:
        return _needs_no_less(costs, exclude, self.costs, self.exclude)


class _Hold(NamedTuple):
    """A domain that is held for a call until it has gone: who needs fewer tokens goes elsewhere."""

    domain: int
    counts: Counts
    tokens: int


_NO_NEWS = Batch()
_SLOTS = Counts.SLOTS  # a member of an enum costs as much as a call to look up


class News:
    """What the ledger is still to be told. Telling it twice is harmless."""

    def __init__(self) -> None:
        self.settles: dict[str, Settlement] = {}
        self.cancels: dict[str, None] = {}
        self.renews: dict[str, None] = {}
        self.penalties: list[Penalty] = []
        self.restores: list[Restore] = []

    def __bool__(self) -> bool:
        return bool(self.settles or self.cancels or self.renews or self.penalties or self.restores)

    def take(self) -> Batch:
        """All of it, as a batch without asks."""
        if not self:
            return _NO_NEWS
        batch = Batch(
            tuple(self.settles.values()),
            tuple(self.cancels),
            tuple(self.renews),
            tuple(self.penalties),
            restores=tuple(self.restores),
        )
        self.settles, self.cancels, self.renews, self.penalties = {}, {}, {}, []
        self.restores = []
        return batch

    def put_back(self, batch: Batch) -> None:
        """It could not be told. What came since is newer."""
        self.settles = {settle.rid: settle for settle in batch.settles} | self.settles
        self.cancels = dict.fromkeys(batch.cancels) | self.cancels
        self.renews = dict.fromkeys(batch.renews) | self.renews
        self.penalties[:0] = batch.penalties
        self.restores[:0] = batch.restores
        for facts in (self.settles, self.cancels, self.renews):
            while len(facts) > MOST_NEWS:
                del facts[next(iter(facts))]
        del self.penalties[:-MOST_NEWS]


class Line:
    """Who waits for one ledger. `declared` once the store knows its group."""

    def __init__(self) -> None:
        self.declared = False
        self.group = ""
        self.capacity: Capacity = {}
        self.sizes = Sizes(())
        self.limits: list[dict[str, Limit]] = []  # of each domain, by name
        self._named: dict[str, Limit] = {}  # of any domain: what a name counts, and how
        self._limited: frozenset[Counts] = frozenset()  # what any of them counts
        self.queue: ClassQueue[Waiter] = ClassQueue(len(Priority))
        self.news = News()
        self.loops: Counter[asyncio.AbstractEventLoop] = Counter()
        self.changes = 0  # times that something became free
        self.tests: set[str] = set()  # calls of ours that test a domain which rested
        self._bars: deque[_Bar] = deque(maxlen=MOST_OFFERED)
        self._hold: _Hold | None = None

    # ── limits ──────────────────────────────────────────────────────────────────────────────────

    def declare(self, group: str, limits: Sequence[Sequence[Limit]]) -> None:
        """These are the limits of each domain, by handle; what was told before counts on top."""
        self.group = group
        self.limits = [{limit.name: limit for limit in row} for row in limits]
        self.sizes = Sizes(limits)
        self._named = {limit.name: limit for row in limits for limit in row}
        self._limited = frozenset(limit.counts for limit in self._named.values())
        self.capacity = capacity(limits)
        self._learn(self.news.penalties)
        self.declared = True

    def tell(self, penalties: Sequence[Penalty]) -> None:
        """What a provider said of domains."""
        self.news.penalties.extend(penalties)
        self._learn(penalties)

    def _learn(self, penalties: Sequence[Penalty]) -> None:
        self.sizes.learn(penalties)
        known = len(self.limits)
        told = [(p.domain, p.limit) for p in penalties if p.limit is not None and p.domain < known]
        for domain, limit in told:
            self.limits[domain][limit.name] = self._named[limit.name] = limit
        if told:
            self._limited = frozenset(limit.counts for limit in self._named.values())
            self.capacity = capacity([list(row.values()) for row in self.limits])

    def frees(self, rid: str, expected: Costs, actual: Costs | None) -> bool:
        """Whether the end of a call makes room for another."""
        if actual is None or rid in self.tests:
            self.tests.discard(rid)
            return True
        limited = self._limited
        if _SLOTS in limited:
            return True
        for counts, cost in expected.items():
            if counts in limited and actual.get(counts, cost) < cost:
                return True
        return False

    # ── who waits ───────────────────────────────────────────────────────────────────────────────

    def join(self, waiter: Waiter) -> None:
        """Take a place."""
        want = waiter.want
        cost = share(self.capacity, want.costs)
        self.queue.push(waiter, want.priority.rank, want.caller, cost, want.costs)
        self.loops[waiter.loop] += 1

    def leave(self, waiter: Waiter, *, served: bool = False) -> None:
        """Give a place up. Nothing happens if it was given up before."""
        if waiter not in self.queue:
            return
        self.queue.serve(waiter) if served else self.queue.remove(waiter)
        self.loops[waiter.loop] -= 1
        if not self.loops[waiter.loop]:
            del self.loops[waiter.loop]

    def has_place(self, priority: Priority) -> bool:
        """Whether one more may wait."""
        kept = 0 if priority is Priority.CRITICAL else KEPT_FOR_CRITICAL
        return len(self.queue) < MOST_WAITING - kept

    def goes_first(self, priority: Priority) -> bool:
        """Whether nobody waits who would go before a call of this class."""
        return not any(self.queue.lengths()[: priority.rank + 1])

    def least_wait(self, want: Want, closed: Collection[int], now: float) -> float:
        """Seconds that a call must wait at the least, were it to join now."""
        ahead = self.queue.ahead(want.priority.rank, want.caller)
        ahead.update(want.costs)
        exclude = self._exclude(want, closed)
        firm = (bar.until - now for bar in self._bars if bar.firm and bar.stops(want.costs, exclude))
        return max(least_wait(self.capacity, ahead), *firm, 0.0)

    def barred(self, want: Want, closed: Collection[int], now: float) -> bool:
        """Whether asking for a call now would be for nothing: one that needs no more was refused."""
        exclude = self._exclude(want, closed)
        return any(bar.until > now and bar.stops(want.costs, exclude) for bar in self._bars)

    def _exclude(self, want: Want, closed: Collection[int]) -> set[int]:
        exclude = {*closed, *want.exclude}
        if self._hold is not None and self._kept_out(want.costs):
            exclude.add(self._hold.domain)
        return exclude

    def _kept_out(self, costs: Costs) -> bool:
        hold = self._hold
        return hold is not None and costs.get(hold.counts, 0) < hold.tokens

    # ── offers ──────────────────────────────────────────────────────────────────────────────────

    def freed(self) -> None:
        """Something became free, or may have: refusals from before mean nothing any more."""
        self.changes += 1
        self._bars.clear()

    def offers(self, closed: Callable[[str], Collection[int]], now: float) -> list[Offer]:
        """Asks for the first in line, in order.

        Args:
            closed: the domains that may not serve a model now.
        """
        self._bars.clear()
        self._hold, held = None, False
        offers: list[Offer] = []
        for waiter in self.queue.first(LOOKED_AT):
            want = waiter.want
            exclude = self._exclude(want, closed(want.model))
            if len(offers) < OFFERED or not any(
                _needs_no_less(want.costs, exclude, each.ask.costs, each.ask.exclude) for each in offers
            ):
                kept_out = self._kept_out(want.costs)
                if kept_out and len(exclude) >= len(self.limits):
                    break  # there is no other domain: who needs more shall not pass it either
                offers.append(Offer(waiter, want.ask(waiter.rid, exclude), kept_out))
                waiter.asked = True
            waiter.held = (
                not held and self._passed_enough(waiter, now) and self._hold_for(waiter, exclude)
            )
            held |= waiter.held
            if len(offers) >= MOST_OFFERED:
                break
        return offers

    def others_may_fit(self, closed: Callable[[str], Collection[int]], now: float) -> bool:
        """Whether, of the first in line, somebody needs less than those that were just refused."""
        return any(
            not self.barred(waiter.want, closed(waiter.want.model), now)
            for waiter in self.queue.first(LOOKED_AT)
        )

    def _hold_for(self, waiter: Waiter, exclude: Collection[int]) -> bool:
        costs, counts = waiter.want.costs, waiter.needs
        if waiter.domain is None or waiter.domain in exclude:
            waiter.domain = roomiest([row.values() for row in self.limits], costs, exclude)
        if waiter.domain is None or counts is None:
            return False
        self._hold = _Hold(waiter.domain, counts, costs.get(counts, 0))
        return True

    @staticmethod
    def _passed_enough(waiter: Waiter, now: float) -> bool:
        return bool(waiter.needs) and waiter.refused is not None and now - waiter.refused >= PASSED_FOR

    def refused(
        self, ask: Ask, answer: Refusal, seconds: float, now: float
    ) -> tuple[bool, Counts | None]:
        """An ask was refused: whether the instant it named is firm, and the tokens it waits for.

        What is in flight is given back when its calls end, which nobody knows; the refusal then names
        when it lapses at the latest.
        """
        limit = None if answer.limit is None else self._named.get(answer.limit)
        if limit is None:
            firm = answer.limit is None or not self.tests
        else:
            firm = limit.kind is not Kind.CONCURRENT and limit.mode is Mode.EARLY
        self._bars.append(_Bar(ask.costs, ask.exclude, now + seconds, firm and seconds < math.inf))
        scarce = limit is not None and limit.counts.is_tokens and limit.kind is Kind.ROLLING
        return firm, limit.counts if limit is not None and scarce else None


def _needs_no_less(
    costs: Costs, exclude: Collection[int], than: Costs, excluded: Collection[int]
) -> bool:
    """Whether one ask fits nowhere where another, refused in the same state, did not fit."""
    return all(costs.get(counts, 0) >= cost for counts, cost in than.items()) and _within(
        excluded, exclude
    )


def _within(few: Iterable[int], many: Collection[int]) -> bool:
    return all(one in many for one in few)
