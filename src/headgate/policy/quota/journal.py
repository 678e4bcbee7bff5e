"""The ledger a process keeps of its own charges: to go on without the store, and to tell it afterwards.

In normal times it only writes down what the store granted. While the store is away each limit of a
domain gets two bounds (`share.Terms`). Both are expressed in the ledger's own words, so choice, waiting
times and refusals stay exact:

    the cap     a filler that takes up the limit but for the cap, and ends when the cap does
    the share   a second limit, which only counts what is charged from then on
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify
from typing import NamedTuple

from msgspec import structs

from headgate.core.quota import Ask, Grant, Kind, Limit, Mode, Refusal
from headgate.policy.quota.ledger import QuotaLedger
from headgate.policy.quota.share import LATE, Terms

__all__ = ["FAR", "Charge", "Journal"]

FAR = 2**48
"""An instant nobody lives to see: the end of a filler that does not end by itself."""

_SHARE = "share of "

_Picture = list[dict[int, int]]


class Charge(NamedTuple):
    """An amount of a limit of a domain that is held until an instant."""

    domain: int
    limit: Limit
    expires: int
    amount: int


class Journal(QuotaLedger):
    """A `QuotaLedger` of what one process holds."""

    def __init__(self, domains: Sequence[Sequence[Limit]], resets: Sequence[int] = ()) -> None:
        super().__init__(domains, resets)
        self._sizes: list[int] = []  # limits per domain without shares, while there are shares
        self._fillers: dict[tuple[int, int], tuple[int, int]] = {}  # expires, amount
        self._touched: set[int] = set()  # domains that may hold something

    @property
    def bounded(self) -> bool:
        """Whether bounds are set: it decides by itself."""
        return bool(self._sizes)

    # ── what is held ────────────────────────────────────────────────────────────────────────────

    def held(self, handle: int, number: int, beyond: int = 0) -> int:
        """What the process holds of a limit and will still hold at the instant `beyond`."""
        account = self.accounts[handle]
        buckets = account.buckets[number]
        gone = sum(amount for expires, amount in buckets.items() if expires <= beyond)
        expires, filler = self._fillers.get((handle, number), (0, 0))
        if expires in buckets and expires > beyond:
            gone += filler
        return account.used[number] - gone

    def holds_any(self) -> bool:
        """Whether anything at all is held."""
        for handle in list(self._touched):
            if any(self.held(handle, number) for number in range(self._size(handle))):
                return True
            self._touched.discard(handle)
        return False

    def charges(self) -> Iterator[Charge]:
        """Everything that is held."""
        for handle in sorted(self._touched):
            yield from self._charges(handle, self._picture(handle, list(self._held)))

    def in_flight(self) -> set[str]:
        """Ids of the reservations that are not settled."""
        return set(self._held)

    def changes(self, rid: str, now: int, change: Callable[[], object]) -> list[Charge]:
        """Do something about a reservation, and say what that changes of what is held.

        Amounts may be negative, but not for a reservation that lapsed: of that one it was told that it
        is in flight, which holds at least as much.
        """
        self.advance(now)
        held = self._held.get(rid)
        before = [] if held is None else self._picture(held.domain, [rid])
        change()
        if held is None:
            made = self._held.get(rid)
            return [] if made is None else list(self._charges(made.domain, self._footprint(rid)))
        lapsed, handle = held.orphan, held.domain
        differences: _Picture = []
        for old, new in zip(before, self._picture(handle, [rid]), strict=True):
            ends = old.keys() | new.keys()
            differences.append({end: new.get(end, 0) - old.get(end, 0) for end in ends})
        return [c for c in self._charges(handle, differences) if c.amount > 0 or not lapsed]

    def _footprint(self, rid: str) -> _Picture:
        """What one reservation holds that was just made."""
        held = self._held[rid]
        handle = held.domain
        picture: _Picture = [{} for _ in range(self._size(handle))]
        for number, picked in enumerate(picture):
            if number < len(held.needs) and held.expires[number]:
                picked[held.expires[number]] = held.needs[number]
        return self._with_flights(handle, picture, [rid])

    def _picture(self, handle: int, rids: Sequence[str]) -> _Picture:
        """Per limit: all buckets but fillers, and what is in flight of these reservations."""
        account = self.accounts[handle]
        picture = [dict(buckets) for buckets in account.buckets[: self._size(handle)]]
        for number, buckets in enumerate(picture):
            expires, filler = self._fillers.get((handle, number), (0, 0))
            if expires in buckets:
                buckets[expires] -= filler
        return self._with_flights(handle, picture, rids)

    def _with_flights(self, handle: int, picture: _Picture, rids: Sequence[str]) -> _Picture:
        """What is in flight counts until it would lapse, and its window."""
        limits = self.accounts[handle].limits
        for rid in rids:
            held = self._held.get(rid)
            if held is None or held.domain != handle or held.orphan:
                continue
            for number, buckets in enumerate(picture[: len(held.needs)]):
                limit = limits[number]
                if limit.kind is Kind.CONCURRENT or limit.mode is Mode.ENVELOPE:
                    expires = held.lapses + LATE
                    expires += 0 if limit.kind is Kind.CONCURRENT else limit.window
                    buckets[expires] = buckets.get(expires, 0) + held.needs[number]
        return picture

    def _charges(self, handle: int, picture: _Picture) -> Iterator[Charge]:
        limits = self.accounts[handle].limits
        for number, buckets in enumerate(picture):
            for expires, amount in buckets.items():
                if amount:
                    yield Charge(handle, limits[number], expires, amount)

    # ── bounds ──────────────────────────────────────────────────────────────────────────────────

    def bound(self, terms_of: Callable[[int, int], Terms], now: int) -> None:
        """Set the bounds. Where there are bounds already, a cap is only lowered; shares stay.

        Args:
            terms_of: the terms of a domain's limit, by handle and number.
        """
        now = self.advance(now)
        fresh = not self._sizes
        if fresh:
            self._sizes = [len(account.limits) for account in self.accounts]
        for handle, size in enumerate(self._sizes):
            for number in range(size):
                terms = terms_of(handle, number)
                self._set_cap(handle, number, terms, now)
                if fresh:
                    self._add_share(handle, number, terms.share)
            self._choice.place(handle, now)

    def unbound(self, now: int) -> None:
        """Take the bounds away; what was charged meanwhile stays."""
        now = self.advance(now)
        for handle, number in list(self._fillers):
            self._drop_filler(handle, number)
        sizes, self._sizes = self._sizes, []
        self._wheel = [event for event in self._wheel if event[3] < sizes[event[2]]]
        heapify(self._wheel)
        for handle, size in enumerate(sizes):
            self.accounts[handle].keep(size)
            self._choice.place(handle, now)
        for held in self._held.values():
            del held.needs[sizes[held.domain] :]
            del held.expires[sizes[held.domain] :]

    def acquire(self, ask: Ask, now: int, seed: int) -> Grant | Refusal:
        """As the ledger's, but a limit is called by its own name where its share refuses."""
        answer = super().acquire(ask, now, seed)
        if isinstance(answer, Grant):
            self._touched.add(answer.domain)
            # What is left of the day among all, nobody can say.
            return Grant(answer.rid, answer.domain, answer.canary)
        name = None if answer.limit is None else answer.limit.removeprefix(_SHARE)
        return Refusal(answer.at, name, answer.never)

    def charge(self, ask: Ask, handle: int, now: int) -> Grant:
        """As the ledger's."""
        self._touched.add(handle)
        return super().charge(ask, handle, now)

    def allows(self, ask: Ask, handle: int) -> bool:
        """Whether the bounds of a domain leave room for an ask, whoever else says what."""
        account = self.accounts[handle]
        return all(
            used + ask.costs.get(limit.counts, 0) <= limit.amount
            for limit, used in zip(account.limits, account.used, strict=True)
        )

    def add(self, handle: int, name: str, expires: int, amount: int, now: int) -> Charge | None:
        """Write down a charge made before; None if it has ended, or if the domain has no such limit."""
        now = self.advance(now)
        limits = self.accounts[handle].limits[: self._size(handle)]
        number = next((n for n, limit in enumerate(limits) if limit.name == name), None)
        if number is None or expires <= now:
            return None
        self._touched.add(handle)
        self.accounts[handle].used[number] += amount
        self._put(handle, number, expires, amount)
        self._choice.place(handle, now)
        return Charge(handle, limits[number], expires, amount)

    def _size(self, handle: int) -> int:
        return self._sizes[handle] if self._sizes else len(self.accounts[handle].limits)

    def _set_cap(self, handle: int, number: int, terms: Terms, now: int) -> None:
        amount = self.accounts[handle].limits[number].amount
        filler = amount - terms.cap if terms.until > now else 0
        filler = max(filler, self._drop_filler(handle, number))
        if filler > 0:
            self._fill(handle, number, max(terms.until, now + 1), filler)

    def _add_share(self, handle: int, number: int, share: int) -> None:
        account = self.accounts[handle]
        limit = account.limits[number]
        account.add(structs.replace(limit, name=_SHARE + limit.name))
        if share < limit.amount:
            self._fill(handle, len(account.limits) - 1, FAR, limit.amount - share)

    def _fill(self, handle: int, number: int, expires: int, amount: int) -> None:
        self._fillers[handle, number] = expires, amount
        self.accounts[handle].used[number] += amount
        self._put(handle, number, expires, amount)

    def _drop_filler(self, handle: int, number: int) -> int:
        """Take a filler away. What it took up; 0 if it had ended."""
        expires, amount = self._fillers.pop((handle, number), (0, 0))
        return amount if amount and self.accounts[handle].take(number, expires, amount) else 0
