"""What one process knows of a group's ledger while a store keeps the books of all.

Its own clock is the measure here: wall time at the start plus monotonic time, in milliseconds. Only
what is told to the store is converted, with the upper bound of the difference, so that nothing ends
there before it does here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from threading import RLock
from typing import NamedTuple

from msgspec import structs

from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Grant,
    Kind,
    Limit,
    Penalty,
    Refusal,
    Restore,
)
from headgate.policy.quota.journal import Charge, Journal
from headgate.policy.quota.price import next_seed
from headgate.policy.quota.share import LATE, Standing, Terms, day_terms, most_used, terms
from headgate.policy.quota.windows import bucket_width, expiry
from headgate.stores.memory import apply_penalty
from headgate.stores.valkey_days import resets_around
from headgate.stores.valkey_lanes import Owed
from headgate.stores.valkey_wire import DOMAINS

__all__ = ["GroupJournal", "Mark"]

MOST_RESTORES = 200
"""Charges told in one call."""

SLACK = 50
"""Milliseconds a charge is told to last longer than it does: the store's clock may run ahead of what
was last seen of it."""

AGAIN = 1_000
"""Milliseconds after which asking again is worth while when others may bring the store back."""

_Key = tuple[int, str, int]


class Mark(NamedTuple):
    """How far the books were when a call was sent; nothing was seen of them yet if `epoch` is None."""

    epoch: int | None
    seq: int


class _Left(NamedTuple):
    """What a grant said of a domain's days, and what this process held of them then."""

    at: int
    left: tuple[int, ...]
    held: tuple[int, ...]


class GroupJournal:
    """The journal of one group and all that is still to be told. Threads may share it.

    Args:
        name: of the group.
        domains: its limits, as they are declared.
        member: who tells.
    """

    def __init__(self, name: str, domains: Sequence[Sequence[Limit]], member: str) -> None:
        self.name = name
        self.domains = [tuple(limits) for limits in domains]
        self.mark = Mark(None, 0)
        self.since: int | None = None  # when the journal began to be complete
        self.owed = Owed()
        self.local_grants = 0
        self._slots = any(each.kind is Kind.CONCURRENT for row in self.domains for each in row)
        self._member = member
        self._lock = RLock()
        self._journal = Journal(domains)
        self._left: dict[int, _Left] = {}
        self._penalties: list[Penalty] = []  # not told yet
        self._learned: list[Penalty] = []  # limits that were told to us while bounds stood
        self._who = Standing(0)  # when bounds were set
        self._lead = 0  # the store's clock is so far ahead of ours, at least
        self._most_lead: int | None = None  # and as far as what is told is concerned
        self._latest_lead = 0
        self._days: tuple[int, int] | None = None  # hour and lead the resets were computed for
        self._wanted: dict[_Key, int] = {}  # what the store shall know of us by restoring
        self._changed: dict[_Key, None] = {}  # and does not know yet
        self._foreign: dict[tuple[str, int, str, int], int] = {}  # charges others told, by bucket
        self._strange: list[Restore] = []  # charges of limits this journal does not know
        self._unknown: set[str] = set()  # reservations the store does not know

    # ── in normal times ─────────────────────────────────────────────────────────────────────────

    def apply(self, batch: Batch, now: int) -> None:
        """Write down what a batch says of reservations and domains."""
        with self._lock:
            journal = self._journal
            self._renew_resets(now)
            for told in batch.settles:
                settle = partial(journal.settle, told.rid, told.costs, now, served=told.served)
                self._change(told.rid, now, settle)
                self._unknown.discard(told.rid)
            for rid in batch.cancels:
                self._change(rid, now, partial(journal.cancel, rid, now))
                self._unknown.discard(rid)
            for rid in batch.renews:
                self._change(rid, now, partial(journal.renew, rid, now))
            for penalty in batch.penalties:
                self._penalize(penalty, now)
            for one in batch.restores:
                self._add(one, now)

    def granted(self, asks: Sequence[Ask], reply: BatchReply, now: int) -> None:
        """Write down what the store granted."""
        with self._lock:
            self._renew_resets(now)
            for ask, answer in zip(asks, reply.answers, strict=True):
                if not isinstance(answer, Grant):
                    continue
                if reply.epoch == self.mark.epoch:
                    self._journal.charge(ask, answer.domain, now)
                else:  # by books that are lost meanwhile
                    self._charge_unknown(ask, answer.domain, now)
                if answer.left:
                    held = tuple(self._journal.held(answer.domain, n) for n in self._day_limits(answer))
                    self._left[answer.domain] = _Left(now, answer.left, held)

    def allowed(self, asks: Sequence[Ask], reply: BatchReply, now: int) -> list[Grant | Refusal | None]:
        """Of what the store granted, write down what the bounds allow; the rest is given back: None."""
        answers: list[Grant | Refusal | None] = []
        with self._lock:
            self._renew_resets(now)
            self._journal.advance(now)
            for ask, answer in zip(asks, reply.answers, strict=True):
                if isinstance(answer, Refusal):
                    answers.append(answer)
                elif self._journal.allows(ask, answer.domain):
                    self._journal.charge(ask, answer.domain, now)
                    answers.append(answer)
                else:
                    self.forsake([ask])
                    answers.append(None)
        return answers

    def contact(self, reply: BatchReply, mark: Mark, sent: int, received: int) -> bool:
        """Note how far the books are. Whether they were lost since the call was sent, or before."""
        with self._lock:
            lead = reply.now - received
            if abs(lead - self._lead) > SLACK:
                self._lead = lead
            self._latest_lead = reply.now - sent + SLACK
            if self.since is None:
                # Books nobody has written in but us are in our journal from the first line on.
                begun = len(range(0, max(1, len(self.domains)), DOMAINS)) + 1
                self.since = 0 if reply.epoch and reply.seq <= begun else sent
            counted = bool(reply.epoch) and mark.epoch is not None
            lost = counted and (reply.epoch != mark.epoch or reply.seq <= mark.seq)
            first = self.mark.epoch is None
            newest = self.mark.epoch == mark.epoch and (lost or reply.seq > self.mark.seq)
            if first or newest:  # else something newer was seen meanwhile
                self.mark = Mark(reply.epoch, reply.seq)
            return lost

    def holds_any(self, now: int) -> bool:
        """Whether this process holds anything that a store may have to be told again."""
        with self._lock:
            self._journal.advance(now)
            return self._journal.holds_any()

    # ── without the store ───────────────────────────────────────────────────────────────────────

    def leave(self, who: Standing, now: int) -> None:
        """From now on decide by oneself; where that is so already, by the narrower bounds."""
        with self._lock:
            self._renew_resets(now)
            self._prune(now)
            self._who = who
            self._journal.bound(lambda handle, number: self._terms(handle, number, who, now), now)

    def rejoin(self, now: int) -> None:
        """From now on the store decides."""
        with self._lock:
            self._journal.unbound(now)
            learned, self._learned = self._learned, []
            for penalty in learned:
                self._penalize(penalty, now)
            self._prune(now)

    def decide(
        self, asks: Sequence[Ask], seed: int, now: int, *, ready: int, alone: bool
    ) -> BatchReply:
        """Answer asks from the own share.

        Args:
            ready: nothing is granted before this instant.
            alone: nobody else can bring the store back, so waits are told as they are.
        """
        answers: list[Grant | Refusal] = []
        with self._lock:
            self._renew_resets(now)
            for ask in asks:
                answer = Refusal(ready) if now < ready else self._acquire(ask, seed, now)
                seed = next_seed(seed)
                if isinstance(answer, Refusal) and answer.at is not None:
                    at = answer.at if alone else min(answer.at, now + AGAIN)
                    answer = Refusal(at + self._lead, answer.limit)
                answers.append(answer)
        epoch, seq = self.mark
        return BatchReply(tuple(answers), now + self._lead, epoch or 0, seq)

    def forsake(self, asks: Iterable[Ask]) -> None:
        """The store may have granted these, and nobody will use that."""
        self.owed.keep(Batch(cancels=tuple(ask.rid for ask in asks)))

    def keep(self, batch: Batch) -> None:
        """Tell the store later what a batch says."""
        self.owed.keep(batch)
        with self._lock:
            self._penalties += batch.penalties

    # ── what is to be told ──────────────────────────────────────────────────────────────────────

    def restore_all(self) -> None:
        """The store knows nothing of us any more."""
        with self._lock:
            self._most_lead = self._latest_lead
            self._wanted.clear()
            self._changed.clear()
            self._unknown = self._journal.in_flight()
            self._want(self._journal.charges())

    @property
    def strained(self) -> bool:
        """Whether calls are under way whose slots the store does not know: slots cannot be restored."""
        return self._slots and bool(self._unknown)

    @property
    def owes(self) -> bool:
        """Whether there is anything the store does not know."""
        return bool(self._changed or self._strange or self._penalties or len(self.owed))

    def untold(self) -> tuple[Restore, ...]:
        """Charges the store does not know, as many as one call carries."""
        if not self._changed and not self._strange:
            return ()
        with self._lock:
            keys = list(self._changed)[:MOST_RESTORES]
            own = (Restore(self._member, *key, max(0, self._wanted[key])) for key in keys)
            return *self._strange[:MOST_RESTORES], *own

    def told(self, restores: Collection[Restore]) -> None:
        """The store has confirmed them."""
        with self._lock:
            for one in restores:
                if one.member != self._member:
                    self._strange = [each for each in self._strange if each != one]
                    continue
                key = one.domain, one.limit, one.expires
                if max(0, self._wanted.get(key, 0)) == one.amount:
                    self._changed.pop(key, None)

    def facts(self) -> Batch | None:
        """What else the store was not told, as much as one call carries; `keep` it if that fails."""
        if not self._penalties and not len(self.owed):
            return None
        with self._lock:
            owed, penalties = self.owed.take() or Batch(), tuple(self._penalties)
            self._penalties = []
            # An ask whose reply was lost may have been repeated, and its grant be in use by now.
            in_use = self._journal.in_flight() - self._unknown
        cancels = tuple(rid for rid in owed.cancels if rid not in in_use)
        return structs.replace(owed, cancels=cancels, penalties=penalties)

    @property
    def longest_window(self) -> int:
        """Milliseconds until charges nobody told the store have ended, days aside."""
        limits = {each for row in self.domains for each in row if each.kind is Kind.ROLLING}
        ends = (each.window + each.guard + bucket_width(each) for each in limits)
        return LATE + max(ends, default=0)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────

    def _acquire(self, ask: Ask, seed: int, now: int) -> Grant | Refusal:
        found: list[Grant | Refusal] = []
        changes = self._journal.changes(
            ask.rid, now, lambda: found.append(self._journal.acquire(ask, now, seed))
        )
        (answer,) = found
        if isinstance(answer, Grant):
            self.local_grants += 1
            self._unknown.add(ask.rid)
            self._want(changes)
        return answer

    def _charge_unknown(self, ask: Ask, handle: int, now: int) -> None:
        journal = self._journal
        self._want(journal.changes(ask.rid, now, lambda: journal.charge(ask, handle, now)))
        self._unknown.add(ask.rid)

    def _change(self, rid: str, now: int, change: Callable[[], object]) -> None:
        if rid in self._unknown:
            self._want(self._journal.changes(rid, now, change))
        else:
            change()

    def _want(self, changes: Iterable[Charge]) -> None:
        if self._most_lead is None:
            self._most_lead = self._latest_lead
        for domain, limit, expires, amount in changes:
            # A coarser grain than the ledger's keeps the list short, and later is safe.
            grain = max(1, limit.window // 60) if limit.kind is Kind.ROLLING else 1_000
            key = domain, limit.name, -(-(expires + self._most_lead) // grain) * grain
            self._wanted[key] = self._wanted.get(key, 0) + amount
            self._changed[key] = None

    def _prune(self, now: int) -> None:
        for key in [key for key in self._wanted if key[2] <= now + self._lead]:
            del self._wanted[key]
            self._changed.pop(key, None)
        for told in [told for told in self._foreign if told[3] <= now + self._lead]:
            del self._foreign[told]
        self._unknown &= self._journal.in_flight()
        if not self._wanted and not self._unknown:
            self._most_lead = None  # what is told next goes by the latest difference

    def _add(self, one: Restore, now: int) -> None:
        """A charge from before this journal began: told as one of its own from now on."""
        if one.limit not in [limit.name for limit in self._journal.accounts[one.domain].limits]:
            self._strange.append(one)
            return
        key = one.member, one.domain, one.limit, one.expires
        change = one.amount - self._foreign.get(key, 0)
        charge = self._journal.add(one.domain, one.limit, one.expires - self._lead, change, now)
        if charge is not None:
            self._foreign[key] = one.amount
            self._want([charge])

    def _penalize(self, penalty: Penalty, now: int) -> None:
        if penalty.limit is not None and self._journal.bounded:
            limit = Penalty(penalty.domain, limit=penalty.limit)
            penalty = structs.replace(penalty, limit=None)
            if self._who.alone:
                self._journal.unbound(now)
                apply_penalty(self._journal, limit, now)
                self.leave(self._who, now)
            else:
                self._learned.append(limit)  # the bounds of all were set by the limits as they were
        if penalty.until:
            penalty = structs.replace(penalty, until=max(1, penalty.until - self._lead))
        apply_penalty(self._journal, penalty, now)

    def _renew_resets(self, now: int) -> None:
        hour = (now + self._lead) // 3_600_000
        if self._days != (hour, self._lead):
            self._days = hour, self._lead
            resets = resets_around(now + self._lead)
            self._journal.resets = [reset - self._lead for reset in resets]

    def _day_limits(self, grant: Grant) -> list[int]:
        limits = self._journal.accounts[grant.domain].limits
        return [n for n, limit in enumerate(limits) if limit.kind is Kind.CALENDAR][: len(grant.left)]

    def _terms(self, handle: int, number: int, who: Standing, now: int) -> Terms:
        journal = self._journal
        limit, resets = journal.accounts[handle].limits[number], journal.resets
        if limit.kind is Kind.CALENDAR:
            held, allowance = self._allowance(handle, number, who, now)
            return day_terms(limit, held, allowance, who, now, resets)
        beyond = 0 if who.alone else now + who.hold + LATE + bucket_width(limit)
        return terms(limit, journal.held(handle, number, beyond), who, now, resets)

    def _allowance(self, handle: int, number: int, who: Standing, now: int) -> tuple[int, int]:
        """What was held of a day at the last grant or now, and what may be used beyond."""
        journal = self._journal
        limits, resets = self.domains[handle], journal.resets
        held = journal.held(handle, number)
        seen = self._left.get(handle)
        limit = journal.accounts[handle].limits[number]
        last = now + who.hold
        if seen is None or expiry(limit, seen.at, resets) != expiry(limit, last, resets):
            return held, 0
        days = [n for n, each in enumerate(limits) if each.kind is Kind.CALENDAR]
        if number not in days or len(days) != len(seen.left):
            return held, 0
        left, then = seen.left[days.index(number)], seen.held[days.index(number)]
        if who.alone:
            return min(held, then), left
        others = most_used(limits, limit.counts, last + LATE - seen.at)
        if others is None or who.processes < 1:
            return min(held, then), 0
        return min(held, then), max(0, left - others) // who.processes
