"""The quota ledger against a model too plain to be wrong, and against what a provider may count.

The model keeps every charge in a list and adds up the list whenever it is asked. Both get the same
history; after each step they must agree on everything that is held. Apart from the model, each
history is judged by a provider that picks the worst moments of counting its mode allows.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random  # noqa: TID251 - seeded

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from headgate.core.quota import Ask, Counts, Grant, Kind, Limit, Mode, Refusal, Restore
from headgate.policy.quota.accounts import CLOSED, OPEN, Account, room_class
from headgate.policy.quota.ledger import TTL, QuotaLedger

DAY = 86_400_000
START = 1_772_000_000_000
SKEW, EARLY, LATE = 100, 5_000, 60_000  # as the design has them, not as the code does
TOKENS = (Counts.INPUT, Counts.OUTPUT, Counts.TOTAL)

RESETS = [START + 30_000]
for _day in range(3_000):
    RESETS.append(RESETS[-1] + (23, 24, 24, 25, 24)[_day % 5] * 3_600_000)


# ── the model ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Piece:
    """An amount held of one limit; in flight while `until` is None."""

    call: Call
    number: int
    amount: int
    until: int | None


@dataclass(eq=False)
class Call:
    """What a caller holds, and what the provider may have counted of it between `lo` and `hi`."""

    rid: str
    domain: int
    needs: list[int]
    admitted: int
    lapses: int
    tests: bool
    orphan: bool = False
    open: bool = True
    sent: bool = True
    counted: list[int] = field(default_factory=list)
    done: int | None = None
    asked: int = 0


def width(limit: Limit) -> int:
    return 300_000 if limit.window >= DAY else max(1, limit.window // 600)


def until(limit: Limit, moment: int, slack: int) -> int:
    last = moment + slack
    if limit.kind is Kind.CALENDAR:
        return next(reset for reset in RESETS if reset > last + EARLY) + LATE
    return last + (-last) % width(limit) + limit.window


def need_of(ask: Ask, limit: Limit) -> int:
    return max(1, ask.costs.get(limit.counts, 0))


class Plain:
    """The ledger's rules, one line each, over a flat list."""

    def __init__(self, domains: list[list[Limit]]) -> None:
        self.limits = [list(limits) for limits in domains]
        self.pieces: list[list[Piece]] = [[] for _ in domains]
        self.calls: dict[str, Call] = {}  # open ones and orphans
        self.resting = [0] * len(domains)
        self.canary = [False] * len(domains)
        self.testing: list[str | None] = [None] * len(domains)
        self.out = [False] * len(domains)
        self.restored: dict[tuple[int, int, int], dict[str, int]] = {}
        self.accounts: list[Account] = []  # the ledger's: how it is paced is judged elsewhere
        self.now = 0

    def advance(self, now: int) -> None:
        self.now = max(self.now, now)
        for call in [call for call in self.calls.values() if call.lapses <= self.now]:
            self.lapse(call)
        for number, pieces in enumerate(self.pieces):
            self.pieces[number] = [p for p in pieces if p.until is None or p.until > self.now]

    def lapse(self, call: Call) -> None:
        if call.orphan:
            del self.calls[call.rid]
            return
        ends = [self.now + TTL]
        for piece in self.of(call):
            limit = self.limits[call.domain][piece.number]
            if limit.kind is Kind.CONCURRENT:
                self.pieces[call.domain].remove(piece)
                continue
            if piece.until is None:
                piece.until = until(limit, self.now, SKEW)
            ends.append(piece.until)
        # The record also outlives charges that have expired by now, if their end is later than that.
        call.orphan, call.lapses = True, max(ends)
        call.done = self.now
        self.end_test(call, served=False)

    def of(self, call: Call) -> list[Piece]:
        return [piece for piece in self.pieces[call.domain] if piece.call is call]

    def used(self, domain: int, number: int, at: int | None = None) -> int:
        at = self.now if at is None else at
        told = sum(
            sum(members.values())
            for (where, which, end), members in self.restored.items()
            if (where, which) == (domain, number) and end > at
        )
        return told + sum(
            p.amount
            for p in self.pieces[domain]
            if p.number == number and (p.until is None or p.until > at)
        )

    def closed(self, domain: int, at: int | None = None) -> bool:
        at = self.now if at is None else at
        return self.out[domain] or self.resting[domain] > at or self.testing[domain] is not None

    def fits(self, ask: Ask, domain: int, at: int | None = None) -> bool:
        return (
            domain not in ask.exclude
            and not self.closed(domain, at)
            and self.paced_out(ask, domain) <= (self.now if at is None else at)
            and all(
                self.used(domain, number, at) + need_of(ask, limit) <= limit.amount
                for number, limit in enumerate(self.limits[domain])
            )
        )

    def paced_out(self, ask: Ask, domain: int) -> int:
        """Until when; a paced limit may change when it is eased."""
        costs = {counts: max(1, ask.costs.get(counts, 0)) for counts in Counts}
        return self.accounts[domain].pace_at(costs)

    def fitting(self, ask: Ask, at: int | None = None) -> list[int]:
        return [domain for domain in range(len(self.limits)) if self.fits(ask, domain, at)]

    def room(self, domain: int) -> int:
        left = [limit.amount - self.used(domain, n) for n, limit in enumerate(self.limits[domain])]
        paced = self.accounts[domain].paced > self.now
        if self.closed(domain) or paced or min(left, default=1) < 1:
            return CLOSED
        tokens = [
            rest
            for rest, limit in zip(left, self.limits[domain], strict=True)
            if limit.counts in TOKENS
        ]
        return room_class(min(tokens)) if tokens else OPEN

    def charge(self, ask: Ask, domain: int) -> Call:
        limits = self.limits[domain]
        needs = [need_of(ask, limit) for limit in limits]
        call = Call(ask.rid, domain, needs, self.now, self.now + TTL, self.canary[domain])
        call.counted, call.asked = list(needs), self.now
        for number, limit in enumerate(limits):
            early = limit.kind is not Kind.CONCURRENT and limit.mode is Mode.EARLY
            end = until(limit, self.now, limit.guard) if early else None
            self.pieces[domain].append(Piece(call, number, needs[number], end))
        if call.tests:
            self.canary[domain], self.testing[domain] = False, ask.rid
        self.calls[ask.rid] = call
        return call

    def settle(self, rid: str, costs: dict[Counts, int], *, served: bool) -> None:
        call = self.calls.pop(rid, None)
        if call is None:
            return
        call.open, call.done = False, self.now if call.done is None else call.done
        kept = {piece.number: piece for piece in self.of(call)}
        for number, need in enumerate(call.needs):
            limit, piece = self.limits[call.domain][number], kept.get(number)
            used = call.counted[number] = costs.get(limit.counts, need)
            if limit.kind is Kind.CONCURRENT:
                if piece is not None:
                    self.pieces[call.domain].remove(piece)
            elif limit.mode is Mode.ENVELOPE:
                if piece is not None:
                    self.pieces[call.domain].remove(piece)
                end = until(limit, self.now, SKEW)
                self.pieces[call.domain].append(Piece(call, number, used, end))
            elif piece is not None:
                piece.amount = used
            elif used > need:
                end = until(limit, self.now, limit.guard)
                self.pieces[call.domain].append(Piece(call, number, used - need, end))
        self.end_test(call, served=served)

    def cancel(self, rid: str) -> None:
        call = self.calls.pop(rid, None)
        if call is None:
            return
        call.open = call.sent = False
        self.pieces[call.domain] = [p for p in self.pieces[call.domain] if p.call is not call]
        self.end_test(call, served=False)

    def end_test(self, call: Call, *, served: bool) -> None:
        if self.testing[call.domain] == call.rid:
            self.testing[call.domain], self.canary[call.domain] = None, not served

    def renew(self, rid: str) -> None:
        call = self.calls.get(rid)
        if call is not None and not call.orphan:
            call.lapses = self.now + TTL

    def charged_early(self, call: Call) -> list[int]:
        limits = self.limits[call.domain][: len(call.needs)]
        return [
            n for n, x in enumerate(limits) if x.kind is not Kind.CONCURRENT and x.mode is Mode.EARLY
        ]

    def stands(self, call: Call) -> bool:
        """Whether all its charges do, so that it may be sent now as if it were granted now."""
        kept = {piece.number for piece in self.of(call)}
        return not call.orphan and kept.issuperset(self.charged_early(call))

    def ask_again(self, call: Call) -> None:
        early = self.charged_early(call)
        for piece in self.of(call):
            if piece.number in early:
                limit = self.limits[call.domain][piece.number]
                piece.until = until(limit, self.now, limit.guard)
        call.asked, call.lapses = self.now, self.now + TTL

    def penalize(self, domain: int, rest: int, *, canary: bool) -> None:
        if rest > self.resting[domain]:
            tested = self.testing[domain] is not None
            self.testing[domain], self.resting[domain] = None, rest
            self.canary[domain] |= canary or tested
        elif self.resting[domain] > self.now:
            self.canary[domain] |= canary

    def fits_before(self, ask: Ask, end: int) -> int | None:
        """The first instant before `end` at which the ask fits if nobody does anything."""
        later = deepcopy(self, {id(self.limits): self.limits, id(self.accounts): self.accounts})
        while True:
            ends = [p.until for pieces in later.pieces for p in pieces if p.until is not None]
            ends += [call.lapses for call in later.calls.values()] + later.resting
            ends += [end for _, _, end in later.restored]
            ends += [self.paced_out(ask, domain) for domain in range(len(self.limits))]
            ends = [moment for moment in ends if moment > later.now]
            if not ends or min(ends) >= end:
                return None
            later.advance(min(ends))
            if later.fitting(ask):
                return later.now


# ── both at once ────────────────────────────────────────────────────────────────────────────────


class Pair:
    """Gives the same history to ledger and model, and compares them."""

    def __init__(self, domains: list[list[Limit]]) -> None:
        self.ledger = QuotaLedger(domains, RESETS)
        self.plain = Plain(domains)
        self.history: list[Call] = []
        self.grants: dict[str, Grant] = {}
        self.asks: dict[str, Ask] = {}
        self.peak = [[limit.amount for limit in limits] for limits in domains]
        self.debt: set[tuple[int, int]] = set()
        self.late: set[tuple[int, int]] = set()
        self.now = START
        self.count = 0
        self.last_wait: tuple[Ask, Refusal] | None = None
        self.plain.accounts = self.ledger.accounts
        self.plain.advance(START)
        self.ledger.advance(START)

    # ── steps ───────────────────────────────────────────────────────────────────────────────────

    def pass_time(self, step: int) -> None:
        self.now = max(self.now, self.now + step)
        self.ledger.advance(self.now)
        self.plain.advance(self.now)
        self.last_wait = None

    def step_back(self, by: int) -> None:
        """Another server's clock is behind: the ledger's time stands still."""
        assert self.ledger.advance(self.now - by) == self.now

    def ask(self, costs: dict[Counts, int], exclude: Iterable[int], prefer: int | None) -> Ask:
        self.count += 1
        return Ask(f"r{self.count}", costs, tuple(exclude), prefer)

    def acquire(self, ask: Ask, seed: int) -> Grant | Refusal:
        fitting = self.plain.fitting(ask)
        answer = self.ledger.acquire(ask, self.now, seed)
        if isinstance(answer, Refusal):
            assert not fitting, f"{ask} was refused although domains {fitting} have room"
            self.check_refusal(ask, answer)
            self.last_wait = (ask, answer)
            return answer
        assert answer.domain in fitting, f"{answer} for {ask}; only {fitting} have room"
        assert answer.canary == self.plain.canary[answer.domain]
        self.last_wait = None
        call = self.plain.charge(ask, answer.domain)
        self.history.append(call)
        self.grants[ask.rid], self.asks[ask.rid] = answer, ask
        assert answer.left == self.left(answer.domain)
        for number, limit in enumerate(self.plain.limits[answer.domain]):
            assert self.plain.used(answer.domain, number) <= limit.amount, "granted beyond the limit"
        return answer

    def repeat(self, rid: str) -> None:
        """The reply was lost and the same call is made again."""
        self.last_wait = None  # something else happened
        call, ask = self.plain.calls[rid], self.asks[rid]
        if self.plain.stands(call):
            answer = self.ledger.acquire(ask, self.now, 7)
            assert structs.replace(answer, left=()) == structs.replace(self.grants[rid], left=())
            assert answer.left == self.left(call.domain)
            self.plain.ask_again(call)
            return
        if any(limit.mode is Mode.ENVELOPE for limit in self.plain.limits[call.domain]):
            self.late |= {(call.domain, number) for number in range(len(call.needs))}
        self.plain.settle(rid, {}, served=False)
        self.acquire(ask, 7)

    def left(self, domain: int) -> tuple[int, ...]:
        limits = self.plain.limits[domain]
        return tuple(
            max(0, limit.amount - self.plain.used(domain, number))
            for number, limit in enumerate(limits)
            if limit.kind is Kind.CALENDAR
        )

    def settle(self, rid: str, costs: dict[Counts, int], *, served: bool = True) -> None:
        self.last_wait = None  # something else happened
        call = self.plain.calls.get(rid)
        if call is not None:
            for number, need in enumerate(call.needs):
                limit = self.plain.limits[call.domain][number]
                if costs.get(limit.counts, need) > need:
                    self.debt.add((call.domain, number))
                if call.orphan and limit.mode is Mode.ENVELOPE:  # charged a second time, from now
                    self.late.add((call.domain, number))
        self.ledger.settle(rid, costs, self.now, served=served)
        self.plain.settle(rid, costs, served=served)

    def cancel(self, rid: str) -> None:
        self.last_wait = None  # something else happened
        self.ledger.cancel(rid, self.now)
        self.plain.cancel(rid)

    def renew(self, rid: str) -> None:
        self.last_wait = None  # something else happened
        self.ledger.renew(rid, self.now)
        self.plain.renew(rid)

    def penalize(self, domain: int, rest: int, *, canary: bool) -> None:
        self.last_wait = None  # something else happened
        self.ledger.penalize(domain, self.now + rest, self.now, canary=canary)
        self.plain.penalize(domain, self.now + rest, canary=canary)

    def tell_again(self, domain: int, *, canary: bool) -> None:
        """A penalty that is told twice, the second time late, changes nothing."""
        rest = self.plain.resting[domain]
        if rest <= self.now:
            self.ledger.penalize(domain, rest, self.now, canary=canary)

    def reopen(self, domain: int) -> None:
        self.last_wait = None  # something else happened
        self.ledger.reopen(domain, self.now)
        self.plain.resting[domain] = 0
        self.plain.canary[domain], self.plain.testing[domain] = False, None

    def shut(self, domain: int, *, shut: bool) -> None:
        self.last_wait = None  # something else happened
        self.ledger.shut(domain, self.now, shut=shut)
        self.plain.out[domain] = shut

    def learn(self, domain: int, number: int, amount: int) -> None:
        self.last_wait = None  # something else happened
        limits = self.plain.limits[domain]
        if number < len(limits):
            known = limits[number]
            told = Limit(known.name, known.counts, amount)
            limits[number] = Limit(
                known.name, known.counts, amount, known.kind, known.window, known.mode, known.guard
            )
            self.peak[domain][number] = max(self.peak[domain][number], amount)
        else:
            told = Limit(f"learned{len(limits)}", Counts.TOTAL, amount)
            limits.append(told)
            self.peak[domain].append(amount)
        self.ledger.learn(domain, told, self.now)

    def pace(self, domain: int, number: int) -> None:
        self.last_wait = None  # something else happened
        limits = self.plain.limits[domain]
        self.ledger.pace(domain, limits[number].name if number < len(limits) else "", self.now)

    def restore(self, domain: int, number: int, member: str, rest: int, amount: int) -> None:
        self.last_wait = None  # something else happened
        limits, end = self.plain.limits[domain], self.now + rest
        name = limits[number].name if number < len(limits) else "nobody's"
        self.ledger.restore(Restore(member, domain, name, end, amount), self.now)
        if number < len(limits) and limits[number].kind is not Kind.CONCURRENT and rest > 0:
            self.plain.restored.setdefault((domain, number, end), {})[member] = amount
            self.debt.add((domain, number))  # what others hold may be any amount

    def eased(self, moment: int) -> bool:
        """Whether a paced limit is eased until then."""
        return any(
            pace.due <= moment for account in self.ledger.accounts for pace in account.paces.values()
        )

    def come_back(self, seed: int) -> None:
        """Ask again one millisecond too early, then on time."""
        assert self.last_wait is not None
        ask, refusal = self.last_wait
        if refusal.at is None or refusal.at > self.now + 400 * DAY:
            return
        flying = self.flying() or self.eased(refusal.at)
        if refusal.at - 1 > self.now:
            self.pass_time(refusal.at - 1 - self.now)
            if not flying:
                assert isinstance(self.acquire(ask, seed), Refusal), f"granted before {refusal.at}"
        self.pass_time(refusal.at - self.now)
        again = self.acquire(ask, seed)
        assert flying or isinstance(again, Grant), f"told to come at {refusal.at}, then refused"

    # ── judgements ──────────────────────────────────────────────────────────────────────────────

    def flying(self) -> bool:
        """Whether anything is held whose end nobody knows yet."""
        return any(piece.until is None for pieces in self.plain.pieces for piece in pieces) or any(
            rid is not None for rid in self.plain.testing
        )

    def check_refusal(self, ask: Ask, refusal: Refusal) -> None:
        limits = self.plain.limits
        small = [
            any(need_of(ask, limit) > limit.amount for limit in limits[domain])
            for domain in range(len(limits))
        ]
        able = [
            domain
            for domain in range(len(limits))
            if not small[domain] and not self.plain.out[domain] and domain not in ask.exclude
        ]
        assert refusal.never == all(small)
        assert (refusal.at is None) == (not able)
        if refusal.at is None:
            return
        assert refusal.at > self.now
        earlier = self.plain.fits_before(ask, refusal.at)
        assert earlier is None, f"room at {earlier}, told to come at {refusal.at}"
        if not self.flying() and not self.eased(refusal.at):
            assert self.plain.fitting(ask, refusal.at), f"nothing fits at {refusal.at}"
            assert not self.plain.fitting(ask, refusal.at - 1), f"room before {refusal.at}"
            names = {limit.name for domain in able for limit in limits[domain]} | {"rest"}
            assert refusal.limit in names

    def check(self) -> None:
        ledger, plain = self.ledger, self.plain
        flying: dict[tuple[int, int], int] = defaultdict(int)
        for call in plain.calls.values():
            for piece in plain.of(call):
                if piece.until is None:
                    flying[call.domain, piece.number] += piece.amount
        for domain, account in enumerate(ledger.accounts):
            for number in range(len(account.limits)):
                used = account.used[number]
                stands = sum(account.buckets[number].values())
                assert used == stands + flying[domain, number], "used = buckets + in flight"
                assert used == plain.used(domain, number), f"domain {domain}, limit {number}"
                assert used >= 0
                assert all(amount >= 0 for amount in account.buckets[number].values())
                assert all(end > ledger.now for end in account.buckets[number])
                assert used <= self.peak[domain][number] or (domain, number) in self.debt | self.late
            assert account.canary == plain.canary[domain]
            assert account.testing == plain.testing[domain]
            assert account.place == plain.room(domain), f"place of domain {domain}"
        rooms = [(plain.room(domain), domain) for domain in range(len(ledger.accounts))]
        assert ledger._choice.index == sorted(entry for entry in rooms if entry[0] != CLOSED)
        assert set(ledger._held) == set(plain.calls)
        due = ledger.next_event()
        assert due is None or due >= ledger.now  # a rest of no length is due at once

    def judge(self) -> None:
        """The provider counts at the worst moments: no window and no day may exceed a limit."""
        for domain, limits in enumerate(self.plain.limits):
            for number, limit in enumerate(limits):
                if (domain, number) in self.debt or limit.kind is Kind.CONCURRENT:
                    continue
                counted = [
                    (*self.span(call, limit), call.counted[number])
                    for call in self.history
                    if call.domain == domain and call.sent and number < len(call.needs)
                ]
                worst = worst_day(counted) if limit.kind is Kind.CALENDAR else worst_window(
                    counted, limit.window
                )  # fmt: skip
                assert worst <= self.peak[domain][number], (
                    f"a provider may count {worst} of {limit} in domain {domain}"
                )

    def span(self, call: Call, limit: Limit) -> tuple[int, int]:
        """First and last moment at which a provider may count a call."""
        if limit.mode is Mode.EARLY:
            return call.admitted, call.asked + limit.guard
        return call.admitted, self.now if call.done is None else call.done

    def drain(self) -> None:
        """Nobody does anything any more: a TTL and the longest window later nothing is held."""
        for domain in range(len(self.ledger.accounts)):
            self.shut(domain, shut=False)
            self.penalize(domain, 0, canary=False)
        longest = max(
            [
                limit.window + limit.guard + width(limit)
                for limits in self.plain.limits
                for limit in limits
            ],
            default=0,
        )
        days = any(limit.kind is Kind.CALENDAR for limits in self.plain.limits for limit in limits)
        end = self.now + TTL + SKEW + max(longest, TTL, 51 * 3_600_000 if days else 0)
        while (due := self.ledger.next_event()) is not None and due <= end:
            self.pass_time(due - self.now)
        self.pass_time(end - self.now)
        assert not self.ledger._held, "a record was never deleted"
        assert not any(any(account.used) for account in self.ledger.accounts), "something leaked"
        assert not any(any(account.buckets) for account in self.ledger.accounts)


def worst_window(counted: list[tuple[int, int, int]], window: int) -> int:
    """The most that one half-open window can see; it may begin at any last moment of a call."""
    return max(
        (
            sum(amount for lo, hi, amount in counted if lo < start + window and hi >= start)
            for start in {hi for _, hi, _ in counted}
        ),
        default=0,
    )


def worst_day(counted: list[tuple[int, int, int]]) -> int:
    """The most that one day can see when each reset comes up to 5 s early or 60 s late."""
    ends = [START - DAY, *RESETS]
    last = max((hi for _, hi, _ in counted), default=0)
    return max(
        (
            sum(amount for lo, hi, amount in counted if lo < end + LATE and hi >= start - EARLY)
            for start, end in pairwise(ends)
            if start - EARLY <= last
        ),
        default=0,
    )


# ── random histories, many and fast ─────────────────────────────────────────────────────────────

WINDOWS = (1, 7, 600, 6_000, 60_000, 3_600_000, DAY)
GUARDS = (0, 1, 99, 350, 2_000)


def random_limit(chance: Random, number: int) -> Limit:
    kind = chance.choice((Kind.ROLLING, Kind.ROLLING, Kind.ROLLING, Kind.CALENDAR, Kind.CONCURRENT))
    return Limit(
        f"limit{number}",
        Counts.SLOTS if kind is Kind.CONCURRENT else chance.choice((Counts.REQUESTS, *TOKENS)),
        chance.choice((1, 2, 3, 6, 15)),
        kind,
        chance.choice(WINDOWS),
        chance.choice((Mode.EARLY, Mode.EARLY, Mode.ENVELOPE)),
        chance.choice(GUARDS),
    )


def random_pool(chance: Random) -> list[list[Limit]]:
    return [
        [random_limit(chance, number) for number in range(chance.randint(1, 4))]
        for _ in range(chance.randint(1, 5))
    ]


def moments(pair: Pair) -> list[int]:
    """Steps of time that end at, just before and just after anything of interest."""
    steps = [0, 1, 37, TTL - 1, TTL]
    for account in pair.ledger.accounts:
        if account.paced > pair.now:
            steps += [account.paced - pair.now + by for by in (-1, 0, 1)]
    for limits in pair.plain.limits:
        for limit in limits:
            steps += [width(limit) - 1, width(limit), limit.guard]
            steps += [limit.window - 1, limit.window]
    if (due := pair.ledger.next_event()) is not None:
        steps += [due - pair.now - 1, due - pair.now] * 4
    reset = next(reset for reset in RESETS if reset > pair.now) - pair.now
    for guard in GUARDS:
        steps += [reset - EARLY - guard + by for by in (-1, 0, 1)]
    steps += [reset + by for by in (-EARLY, -1, 0, 1, LATE - 1, LATE, LATE + 1)]
    return [step for step in steps if step >= 0]


def random_costs(chance: Random, most: int) -> dict[Counts, int]:
    costs = {counts: chance.randint(0, most) for counts in TOKENS if chance.random() < 0.9}
    named = {Counts.REQUESTS: chance.choice((1, 1, 1, 2)), Counts.SLOTS: 1}
    return {**(named if chance.random() < 0.9 else {}), **costs}


def wander(seed: int, steps: int) -> Pair:
    chance = Random(seed)
    pair = Pair(random_pool(chance))
    domains = len(pair.plain.limits)
    in_debt = seed % 3 == 0
    paced, lost = 6 if seed % 2 else 0, 6 if seed % 5 == 0 else 0
    for _ in range(steps):
        rids = list(pair.plain.calls) or ["nobody"]
        rid, domain = chance.choice(rids), chance.randrange(domains)
        match chance.choices(range(13), (40, 24, 20, 5, 5, 4, 4, 2, 2, 2, paced, lost, 8))[0]:
            case 0:
                exclude = [chance.randrange(domains)] if chance.random() < 0.1 else ()
                prefer = chance.randrange(domains) if chance.random() < 0.2 else None
                costs = random_costs(chance, chance.choice((1, 3, 16)))
                pair.acquire(pair.ask(costs, exclude, prefer), chance.randint(1, 2**31 - 2))
            case 1:
                pair.pass_time(chance.choice(moments(pair)))
            case 2:
                settle_somehow(pair, chance, rid, in_debt)
            case 3:
                pair.cancel(rid)
                pair.cancel(rid)
            case 4:
                pair.renew(rid)
            case 5:
                if rid in pair.grants:
                    pair.repeat(rid)
            case 6:
                pair.penalize(domain, chance.choice((0, 1, 500, 60_000)), canary=chance.random() < 0.5)
                pair.tell_again(domain, canary=chance.random() < 0.5)
            case 7:
                pair.reopen(domain)
            case 8:
                pair.shut(domain, shut=chance.random() < 0.4)
            case 9:
                pair.learn(domain, chance.randint(0, 4), chance.choice((1, 4, 20)))
            case 10:
                pair.pace(domain, chance.randint(0, 4))
            case 11:
                rest = chance.choice((-1, 0, 1, 1, 400, 61_000))
                member, amount = chance.choice("ab"), chance.randint(0, 4)
                pair.restore(domain, chance.randint(0, 4), member, rest, amount)
            case _:
                if pair.last_wait is not None:
                    pair.come_back(chance.randint(1, 2**31 - 2))
                else:
                    pair.step_back(chance.choice((1, 5_000)))
        pair.check()
    pair.judge()
    pair.drain()
    return pair


def settle_somehow(pair: Pair, chance: Random, rid: str, in_debt: bool) -> None:
    call = pair.plain.calls.get(rid)
    costs: dict[Counts, int] = {}
    if call is not None:
        for number, need in enumerate(call.needs):
            counts = pair.plain.limits[call.domain][number].counts
            most = need + 5 if in_debt else need
            costs[counts] = min(chance.choice((0, need // 2, need, most)), costs.get(counts, most))
    costs = {counts: used for counts, used in costs.items() if chance.random() < 0.9}
    served = chance.random() < 0.6
    pair.settle(rid, costs, served=served)
    if chance.random() < 0.3:
        pair.settle(rid, {Counts.TOTAL: 99}, served=not served)  # told twice


WALKS = int(os.environ.get("QUOTA_WALKS", "240"))  # noqa: TID251 - a longer run at night
SLICES = 8


@pytest.mark.parametrize("part", range(SLICES))
def test_random_histories_agree_with_the_model(part: int) -> None:
    grants = 0
    for seed in range(part, WALKS, SLICES):
        try:
            grants += len(wander(seed, 100).history)
        except (AssertionError, LookupError, ValueError) as fault:
            raise AssertionError(f"history with seed {seed}: {fault}") from fault
    assert grants >= WALKS / SLICES * 10, "the histories hardly admit anything"


# ── the same by Hypothesis, which shrinks what fails ────────────────────────────────────────────

limit_shapes = st.builds(
    lambda kind, counts, amount, window, mode, guard: (kind, counts, amount, window, mode, guard),
    st.sampled_from((Kind.ROLLING, Kind.ROLLING, Kind.CALENDAR, Kind.CONCURRENT)),
    st.sampled_from((Counts.REQUESTS, *TOKENS)),
    st.integers(1, 15),
    st.sampled_from(WINDOWS),
    st.sampled_from(Mode),
    st.sampled_from(GUARDS),
)


def as_limit(number: int, shape: tuple[Kind, Counts, int, int, Mode, int]) -> Limit:
    kind, counts, amount, window, mode, guard = shape
    counts = Counts.SLOTS if kind is Kind.CONCURRENT else counts
    return Limit(f"limit{number}", counts, amount, kind, window, mode, guard)


pools = st.lists(
    st.lists(limit_shapes, min_size=1, max_size=4).map(
        lambda shapes: [as_limit(number, shape) for number, shape in enumerate(shapes)]
    ),
    min_size=1,
    max_size=5,
)
picks = st.integers(0, 10_000)
amounts = st.integers(1, 16)
seeds = st.integers(1, 2**31 - 2)


class Histories(RuleBasedStateMachine):
    """Callers that ask, settle, cancel, renew, die and come late; a provider that penalizes."""

    pair: Pair

    @initialize(pool=pools)
    def begin(self, pool: list[list[Limit]]) -> None:
        self.pair = Pair(pool)

    def rid(self, pick: int) -> str:
        rids = list(self.pair.plain.calls)
        return rids[pick % len(rids)] if rids else "nobody"

    def domain(self, pick: int) -> int:
        return pick % len(self.pair.plain.limits)

    @rule(
        tokens=st.tuples(amounts, amounts, amounts),
        requests=st.sampled_from((1, 1, 2)),
        exclude=st.none() | picks,
        prefer=st.none() | picks,
        seed=seeds,
    )
    def acquire(
        self,
        tokens: tuple[int, int, int],
        requests: int,
        exclude: int | None,
        prefer: int | None,
        seed: int,
    ) -> None:
        costs = dict(zip(TOKENS, tokens, strict=True))
        out = () if exclude is None else (self.domain(exclude),)
        wish = None if prefer is None else self.domain(prefer)
        ask = self.pair.ask({Counts.REQUESTS: requests, Counts.SLOTS: 1, **costs}, out, wish)
        self.pair.acquire(ask, seed)

    @rule(pick=picks)
    def pass_time(self, pick: int) -> None:
        steps = sorted(set(moments(self.pair)))
        self.pair.pass_time(steps[pick % len(steps)])

    @rule(by=st.integers(1, 10_000))
    def step_back(self, by: int) -> None:
        self.pair.step_back(by)

    @precondition(lambda self: self.pair.last_wait is not None)
    @rule(seed=seeds)
    def come_back(self, seed: int) -> None:
        self.pair.come_back(seed)

    @rule(
        pick=picks,
        costs=st.dictionaries(st.sampled_from((Counts.REQUESTS, *TOKENS)), st.integers(0, 20)),
        served=st.booleans(),
        twice=st.booleans(),
    )
    def settle(self, pick: int, costs: dict[Counts, int], served: bool, twice: bool) -> None:
        rid = self.rid(pick)
        for _ in range(1 + twice):
            self.pair.settle(rid, costs, served=served)

    @rule(pick=picks)
    def settle_exactly(self, pick: int) -> None:
        self.pair.settle(self.rid(pick), {})

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        rid = self.rid(pick)
        self.pair.cancel(rid)
        self.pair.cancel(rid)

    @rule(pick=picks)
    def renew(self, pick: int) -> None:
        self.pair.renew(self.rid(pick))

    @precondition(lambda self: self.pair.plain.calls)
    @rule(pick=picks)
    def repeat(self, pick: int) -> None:
        self.pair.repeat(self.rid(pick))

    @rule(pick=picks, rest=st.sampled_from((0, 1, 500, 60_000)), canary=st.booleans())
    def penalize(self, pick: int, rest: int, canary: bool) -> None:
        self.pair.penalize(self.domain(pick), rest, canary=canary)

    @rule(pick=picks, canary=st.booleans())
    def tell_again(self, pick: int, canary: bool) -> None:
        self.pair.tell_again(self.domain(pick), canary=canary)

    @rule(pick=picks)
    def reopen(self, pick: int) -> None:
        self.pair.reopen(self.domain(pick))

    @rule(pick=picks, shut=st.booleans())
    def shut(self, pick: int, shut: bool) -> None:
        self.pair.shut(self.domain(pick), shut=shut)

    @rule(pick=picks, number=st.integers(0, 4), amount=st.integers(1, 20))
    def learn(self, pick: int, number: int, amount: int) -> None:
        self.pair.learn(self.domain(pick), number, amount)

    @rule(pick=picks, number=st.integers(0, 4))
    def pace(self, pick: int, number: int) -> None:
        self.pair.pace(self.domain(pick), number)

    @rule(
        pick=picks,
        number=st.integers(0, 4),
        member=st.sampled_from("ab"),
        rest=st.sampled_from((0, 1, 500, 60_000)),
        amount=st.integers(0, 5),
    )
    def restore(self, pick: int, number: int, member: str, rest: int, amount: int) -> None:
        self.pair.restore(self.domain(pick), number, member, rest, amount)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "pair"):
            self.pair.check()

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.judge()
            self.pair.drain()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
