"""The books of a group: what is held of each domain, what happens by itself, what providers say.

What calls do to them is the ledger's, `ledger.py`. Pure: time is an argument in integer milliseconds
and is made monotone here.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from msgspec import structs

from headgate.core.quota import Counts, Kind, Limit, Mode, Restore
from headgate.policy.quota.accounts import Account
from headgate.policy.quota.choice import Choice
from headgate.policy.quota.pacing import Pace, may_pace
from headgate.policy.quota.windows import SKEW, expiry

__all__ = ["TTL", "Books", "Reservation"]

TTL = 90_000
"""Milliseconds after which a reservation nobody renewed counts as abandoned."""

_RELEASE, _REST, _EASE, _FORGET = 0, 2, 3, 4

_NOTHING: dict[int, int] = {}
"""What every reservation without paced limits shares; never written to."""


class Reservation:
    """What one call holds.

    Attributes:
        expires: names the bucket of each limit that was charged early.
        ends: of paced limits, by their number: when its part of the burst has been given back.
    """

    __slots__ = ("canary", "domain", "ends", "expires", "lapses", "needs", "orphan")

    def __init__(self, domain: int, needs: list[int], lapses: int, *, canary: bool) -> None:
        self.domain = domain
        self.needs = needs
        self.expires = [0] * len(needs)
        self.lapses = lapses
        self.canary = canary
        self.orphan = False
        self.ends = _NOTHING


class Books:
    """The books of a group.

    Args:
        domains: the limits of each domain, in the order of their handles.
        resets: ascending instants at which calendar days end; `resets` may be replaced at any time.
    """

    def __init__(self, domains: Sequence[Sequence[Limit]], resets: Sequence[int] = ()) -> None:
        self.accounts = [Account(limits) for limits in domains]
        self.resets = list(resets)
        self.now = 0
        self._order = 0
        self._held: dict[str, Reservation] = {}
        self._choice = Choice(self.accounts)
        self._counted: list[Counts] = []  # what any limit counts
        self._tokens: list[Counts] = []  # and is tokens
        self._wheel: list[tuple[int, int, int, int]] = []  # due, event, handle, limit
        self._lapses: list[tuple[int, str]] = []  # due, rid; may have been settled or renewed since
        self._restored: dict[tuple[int, int, int], dict[str, int]] = {}
        for handle, account in enumerate(self.accounts):
            self._count(account.limits)
            self._choice.place(handle, 0)

    def _count(self, limits: Sequence[Limit]) -> None:
        for limit in limits:
            if limit.counts not in self._counted:
                self._counted.append(limit.counts)
                if limit.counts.is_tokens:
                    self._tokens.append(limit.counts)

    # ── what the provider says of a domain ──────────────────────────────────────────────────────

    def penalize(self, handle: int, until: int, now: int, *, canary: bool = False) -> None:
        """Let a domain rest until an instant; with `canary` it then opens to one call that tests it.

        Told again it does nothing: a test that began after that rest goes on.
        """
        now = self.advance(now)
        account = self.accounts[handle]
        if until > account.resting:
            account.canary = canary or account.canary or account.testing is not None
            account.testing = None
            account.resting = until
            heappush(self._wheel, (until, _REST, handle, 0))
            self._choice.place(handle, now)
        elif account.resting > now:
            account.canary = canary or account.canary

    def reopen(self, handle: int, now: int) -> None:
        """End a rest before its time."""
        now = self.advance(now)
        account = self.accounts[handle]
        account.resting, account.canary, account.testing = 0, False, None
        self._choice.place(handle, now)

    def shut(self, handle: int, now: int, *, shut: bool = True) -> None:
        """Take a domain out because no key of it may serve, or in again."""
        now = self.advance(now)
        self.accounts[handle].shut = shut
        self._choice.place(handle, now)

    def pace(self, handle: int, name: str, now: int) -> None:
        """A refusal nobody can explain: spread calls evenly over this rolling limit, "" for each."""
        now = self.advance(now)
        account = self.accounts[handle]
        for number, limit in enumerate(account.limits):
            if name not in ("", limit.name) or not may_pace(limit):
                continue
            pace = account.paces.get(number)
            if pace is None:
                pace = account.paces[number] = Pace(limit, now)
            elif not pace.refused(limit, now):
                continue
            heappush(self._wheel, (pace.due, _EASE, handle, number))
        self._pace_out(handle)
        self._choice.place(handle, now)

    def _ease(self, handle: int, number: int, due: int, now: int) -> None:
        account = self.accounts[handle]
        pace = account.paces.get(number)
        if pace is None or pace.due != due:
            return  # refused again since
        if pace.ease(account.limits[number], now):
            heappush(self._wheel, (pace.due, _EASE, handle, number))
        else:
            del account.paces[number]
        self._pace_out(handle)

    def _pace_out(self, handle: int) -> None:
        account = self.accounts[handle]
        if account.pace_out() and account.paced > self.now:
            heappush(self._wheel, (account.paced, _REST, handle, 0))

    def learn(self, handle: int, limit: Limit, now: int) -> None:
        """The provider has told a limit. What is held counts against the new amount at once."""
        now = self.advance(now)
        account = self.accounts[handle]
        names = [known.name for known in account.limits]
        if limit.name in names:
            number = names.index(limit.name)
            old = account.limits[number]
            new = structs.replace(old, amount=limit.amount)
            account.limits = (*account.limits[:number], new, *account.limits[number + 1 :])
            if not may_pace(new):
                account.paces.pop(number, None)
            elif (pace := account.paces.get(number)) is not None:
                pace.resize(old, new, now)
            self._pace_out(handle)
        else:
            account.add(limit)
            self._count([limit])
        self._choice.place(handle, now)

    def restore(self, told: Restore, now: int) -> None:
        """A member tells what it holds in a bucket of books that were lost; told again, it replaces."""
        now, handle = self.advance(now), told.domain
        if told.expires <= now or not 0 <= handle < len(self.accounts):
            return
        account = self.accounts[handle]
        names = [limit.name if limit.kind is not Kind.CONCURRENT else "" for limit in account.limits]
        if not told.limit or told.limit not in names:
            return
        number = names.index(told.limit)
        place, amount = (handle, number, told.expires), max(0, told.amount)
        members = self._restored.get(place, {})
        change = amount - members.get(told.member, 0)
        if change == 0:
            return
        if not members:
            self._restored[place] = members
            heappush(self._wheel, (told.expires, _FORGET, handle, number))
        members[told.member] = amount
        account.used[number] += change
        self._put(handle, number, told.expires, change)
        self._choice.place(handle, now)

    # ── time ────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now: int) -> int:
        """Make time monotone and let happen what is due. Returns the time the ledger goes by."""
        self.now = now = max(self.now, now)
        wheel, lapses = self._wheel, self._lapses
        if (not wheel or wheel[0][0] > now) and (not lapses or lapses[0][0] > now):
            return now  # nearly always: it is asked three times a call
        self._happen(now)
        return now

    def _happen(self, now: int) -> None:
        """Let everything happen that is due."""
        touched: set[int] = set()
        while self._wheel and self._wheel[0][0] <= now:
            due, event, handle, number = heappop(self._wheel)
            if event == _RELEASE:
                self.accounts[handle].release(number, due)
            elif event == _EASE:
                self._ease(handle, number, due, now)
            elif event == _FORGET:
                del self._restored[handle, number, due]
            touched.add(handle)
        while self._lapses and self._lapses[0][0] <= now:
            _, rid = heappop(self._lapses)
            held = self._held.get(rid)
            if held is not None and held.lapses <= now:
                self._lapse(rid, held)
                touched.add(held.domain)
        for handle in touched:
            self._choice.place(handle, now)

    def _lapse(self, rid: str, held: Reservation) -> None:
        """The owner is presumed dead: what it held is charged in full, from now on."""
        if held.orphan:
            del self._held[rid]
            return
        account = self.accounts[held.domain]
        for number, limit in enumerate(account.limits[: len(held.needs)]):
            if limit.kind is Kind.CONCURRENT:
                account.used[number] -= held.needs[number]
            elif limit.mode is Mode.ENVELOPE:
                held.expires[number] = self._from_now(limit)
                self._put(held.domain, number, held.expires[number], held.needs[number])
        held.orphan = True
        if account.testing == rid:
            account.testing, account.canary = None, True
        held.lapses = max([self.now + TTL, *held.expires])
        heappush(self._lapses, (held.lapses, rid))

    def next_event(self) -> int | None:
        """The first instant at which anything changes by itself; None: nothing will."""
        lapse = self._next_lapse()
        due = self._wheel[0][0] if self._wheel else None
        return due if lapse is None or (due is not None and due < lapse) else lapse

    def _next_lapse(self) -> int | None:
        while self._lapses:
            due, rid = self._lapses[0]
            held = self._held.get(rid)
            if held is not None and held.lapses == due:
                return due
            heappop(self._lapses)  # of a reservation that was settled, or renewed since
        return None

    def _put(self, handle: int, number: int, expires: int, amount: int) -> None:
        if self.accounts[handle].put(number, expires, amount):
            heappush(self._wheel, (expires, _RELEASE, handle, number))

    def _from_now(self, limit: Limit) -> int:
        return expiry(limit, self.now, self.resets, counted_by=SKEW)
