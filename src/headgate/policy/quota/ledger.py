"""The quota ledger of one group: who has used what of which quota, and who may send next.

A *group* is the domains that can serve the same ask; for Gemini all projects, for one model. The ledger
reserves every limit of a domain or none, settles the truth later, and never holds more than a limit:

    acquire   chooses a domain with room in all limits and charges the estimate
    settle    replaces the estimate by what was used
    cancel    gives everything back, for a call of which no byte was sent
    penalize  lets a domain rest after a refusal

What it guarantees, whatever fails: what is held covers what the provider may count, so no window
exceeds its limit; a caller that dies costs capacity until its reservation lapses, never correctness;
every operation is idempotent by reservation id, so a lost reply may be asked for again.

Pure: time is an argument in integer milliseconds and is made monotone here; chance is a seed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush

from msgspec import structs

from headgate.core.quota import Ask, Costs, Grant, Kind, Limit, Mode, Refusal
from headgate.policy.quota.accounts import CLOSED, Account, room_class
from headgate.policy.quota.price import SAMPLES, next_random
from headgate.policy.quota.windows import expiry

__all__ = ["TTL", "QuotaLedger"]

TTL = 90_000
"""Milliseconds after which a reservation nobody renewed counts as abandoned."""

SKEW = 100
"""Milliseconds another server's clock may be ahead after a failover."""

REDRAWS = 8
LONGEST_WALK = 64
EXACT = 64
"""Domains up to which a refusal names the exact instant; above, a lower bound."""

_RELEASE, _LAPSE, _REST = 0, 1, 2


class _Reservation:
    """What one call holds. `expires` names the bucket of each limit that was charged early."""

    __slots__ = ("canary", "domain", "expires", "lapses", "needs", "orphan")

    def __init__(self, domain: int, needs: list[int], lapses: int, *, canary: bool) -> None:
        self.domain = domain
        self.needs = needs
        self.expires = [0] * len(needs)
        self.lapses = lapses
        self.canary = canary
        self.orphan = False


class QuotaLedger:
    """The ledger of a group.

    Args:
        domains: the limits of each domain, in the order of their handles.
        resets: ascending instants at which calendar days end; `resets` may be replaced at any time.
    """

    def __init__(self, domains: Sequence[Sequence[Limit]], resets: Sequence[int] = ()) -> None:
        self.accounts = [Account(limits) for limits in domains]
        self.resets = list(resets)
        self.now = 0
        self._turn = 0
        self._order = 0
        self._held: dict[str, _Reservation] = {}
        self._index: list[tuple[int, int]] = []  # (class, handle), without the closed ones
        self._wheel: list[tuple[int, int, int, int, str]] = []  # due, event, handle, limit, rid
        for handle in range(len(self.accounts)):
            self._place(handle)

    # ── acquire ─────────────────────────────────────────────────────────────────────────────────

    def acquire(self, ask: Ask, now: int, seed: int) -> Grant | Refusal:
        """Reserve what a call needs with one domain, or say when that may be possible."""
        now = self.advance(now)
        if (held := self._held.get(ask.rid)) is not None:  # asked again, after a lost reply
            return Grant(ask.rid, held.domain, held.canary)
        handle = self._choose(ask, seed)
        return self._refusal(ask, now) if handle is None else self._charge(ask, handle, now)

    def _choose(self, ask: Ask, seed: int) -> int | None:
        tokens = [max(1, cost) for counts, cost in ask.costs.items() if counts.is_tokens]
        # Of a class above that of the dearest token cost every domain surely has room.
        sure = bisect_left(self._index, (room_class(max(tokens, default=1)) + 1, CLOSED))
        found = self._sample(ask, sure, seed)
        if not found:
            perhaps = bisect_left(self._index, (room_class(min(tokens, default=1)), CLOSED))
            found = self._walk(ask, perhaps, sure)
        if not found:
            return None
        _, _, chosen = min((self._price(ask, h), self.accounts[h].last, h) for h in found)
        wish = ask.prefer
        if wish is None or not self._able(ask, wish):
            return chosen
        return wish if self._price(ask, wish) <= 2 * self._price(ask, chosen) else chosen

    def _price(self, ask: Ask, handle: int) -> int:
        return self.accounts[handle].price(ask.costs)

    def _able(self, ask: Ask, handle: int) -> bool:
        return handle not in ask.exclude and self.accounts[handle].fits(ask.costs, self.now)

    def _sample(self, ask: Ask, start: int, seed: int) -> list[int]:
        """Up to four distinct domains drawn from those that surely have room."""
        count = len(self._index) - start
        if count <= SAMPLES:
            return [handle for _, handle in self._index[start:] if self._able(ask, handle)]
        found: list[int] = []
        for _ in range(SAMPLES + REDRAWS):
            seed = next_random(seed)
            handle = self._index[start + seed % count][1]
            if handle not in found and self._able(ask, handle):
                found.append(handle)
                if len(found) == SAMPLES:
                    break
        return found or self._walk(ask, start, len(self._index))

    def _walk(self, ask: Ask, start: int, stop: int) -> list[int]:
        """The first domain that has room among those that perhaps have, from a turning offset."""
        count = stop - start
        if count <= 0:
            return []
        self._turn += 1
        for step in range(min(count, LONGEST_WALK)):
            handle = self._index[start + (self._turn + step) % count][1]
            if self._able(ask, handle):
                return [handle]
        return []

    def _charge(self, ask: Ask, handle: int, now: int) -> Grant:
        account = self.accounts[handle]
        needs = [ask.costs.get(limit.counts, 0) for limit in account.limits]
        held = _Reservation(handle, needs, now + TTL, canary=account.canary)
        for number, limit in enumerate(account.limits):
            account.used[number] += needs[number]
            if limit.kind is not Kind.CONCURRENT and limit.mode is Mode.EARLY:
                held.expires[number] = expiry(limit, now, self.resets)
                self._put(handle, number, held.expires[number], needs[number])
        if account.canary:
            account.canary, account.testing = False, ask.rid
        self._order += 1
        account.last = self._order
        self._held[ask.rid] = held
        heappush(self._wheel, (held.lapses, _LAPSE, 0, 0, ask.rid))
        self._place(handle)
        return Grant(ask.rid, handle, held.canary)

    # ── after the call ──────────────────────────────────────────────────────────────────────────

    def settle(self, rid: str, costs: Costs, now: int, *, served: bool = True) -> None:
        """Replace what was reserved by what was used.

        Args:
            costs: what was used; what is not named stays as it was estimated.
            served: for a test of a domain that rested: whether it serves again.
        """
        now = self.advance(now)
        held = self._held.pop(rid, None)
        if held is None:
            return
        account = self.accounts[held.domain]
        for number, limit in enumerate(account.limits[: len(held.needs)]):
            need = held.needs[number]
            self._settle_one(held, number, limit, costs.get(limit.counts, need), now)
        if account.testing == rid:
            account.testing, account.canary = None, not served
        self._place(held.domain)

    def _settle_one(self, held: _Reservation, number: int, limit: Limit, used: int, now: int) -> None:
        account, need = self.accounts[held.domain], held.needs[number]
        if limit.kind is Kind.CONCURRENT:
            account.used[number] -= 0 if held.orphan else need
        elif limit.mode is Mode.EARLY:
            # The charge stands in its own bucket; what came on top after that expired is charged now.
            if not account.take(number, held.expires[number], need - used) and used > need:
                account.used[number] += used - need
                self._put(held.domain, number, expiry(limit, now, self.resets), used - need)
        else:
            if held.orphan:
                account.take(number, held.expires[number], need)
            else:
                account.used[number] -= need
            account.used[number] += used
            self._put(held.domain, number, self._from_now(limit), used)

    def cancel(self, rid: str, now: int) -> None:
        """Give everything back: of this call no byte was sent."""
        self.advance(now)
        held = self._held.pop(rid, None)
        if held is None:
            return
        account = self.accounts[held.domain]
        for number, limit in enumerate(account.limits[: len(held.needs)]):
            in_bucket = limit.kind is not Kind.CONCURRENT and (limit.mode is Mode.EARLY or held.orphan)
            if in_bucket:
                account.take(number, held.expires[number], held.needs[number])
            elif not held.orphan:
                account.used[number] -= held.needs[number]
        if account.testing == rid:
            account.testing, account.canary = None, True
        self._place(held.domain)

    def renew(self, rid: str, now: int) -> None:
        """The owner is alive: its reservation lapses a TTL from now."""
        now = self.advance(now)
        held = self._held.get(rid)
        if held is not None and not held.orphan:
            held.lapses = now + TTL
            heappush(self._wheel, (held.lapses, _LAPSE, 0, 0, rid))

    # ── what the provider says of a domain ──────────────────────────────────────────────────────

    def penalize(self, handle: int, until: int, now: int, *, canary: bool = False) -> None:
        """Let a domain rest until an instant; with `canary` it then opens to one call that tests it."""
        self.advance(now)
        account = self.accounts[handle]
        account.testing = None
        account.canary = canary or account.canary
        if until > account.resting:
            account.resting = until
            heappush(self._wheel, (until, _REST, handle, 0, ""))
        self._place(handle)

    def reopen(self, handle: int, now: int) -> None:
        """End a rest before its time."""
        self.advance(now)
        account = self.accounts[handle]
        account.resting, account.canary, account.testing = 0, False, None
        self._place(handle)

    def shut(self, handle: int, now: int, *, shut: bool = True) -> None:
        """Take a domain out because no key of it may serve, or in again."""
        self.advance(now)
        self.accounts[handle].shut = shut
        self._place(handle)

    def learn(self, handle: int, limit: Limit, now: int) -> None:
        """The provider has told a limit. What is held counts against the new amount at once."""
        self.advance(now)
        account = self.accounts[handle]
        names = [known.name for known in account.limits]
        if limit.name in names:
            number = names.index(limit.name)
            amount = structs.replace(account.limits[number], amount=limit.amount)
            account.limits = (*account.limits[:number], amount, *account.limits[number + 1 :])
        else:
            account.limits = (*account.limits, limit)
            account.used.append(0)
            account.buckets.append({})
        self._place(handle)

    # ── time ────────────────────────────────────────────────────────────────────────────────────

    def advance(self, now: int) -> int:
        """Make time monotone and let happen what is due. Returns the time the ledger goes by."""
        self.now = max(self.now, now)
        touched: set[int] = set()
        while self._wheel and self._wheel[0][0] <= self.now:
            due, event, handle, number, rid = heappop(self._wheel)
            if event == _RELEASE:
                self.accounts[handle].release(number, due)
                touched.add(handle)
            elif event == _REST:
                touched.add(handle)
            elif (held := self._held.get(rid)) is not None and held.lapses <= self.now:
                self._lapse(rid, held)
                touched.add(held.domain)
        for handle in touched:
            self._place(handle)
        return self.now

    def _lapse(self, rid: str, held: _Reservation) -> None:
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
        heappush(self._wheel, (held.lapses, _LAPSE, 0, 0, rid))

    def next_event(self) -> int | None:
        """The first instant at which anything changes by itself."""
        while self._wheel:
            due, event, _, _, rid = self._wheel[0]
            held = self._held.get(rid)
            if event != _LAPSE or (held is not None and held.lapses == due):
                return due
            heappop(self._wheel)  # of a reservation that was settled, or renewed since
        return None

    def _put(self, handle: int, number: int, expires: int, amount: int) -> None:
        if self.accounts[handle].put(number, expires, amount):
            heappush(self._wheel, (expires, _RELEASE, handle, number, ""))

    def _from_now(self, limit: Limit) -> int:
        return expiry(limit, self.now, self.resets, counted_by=SKEW)

    def _place(self, handle: int) -> None:
        account = self.accounts[handle]
        place = account.room(self.now)
        if place == account.place:
            return
        if account.place != CLOSED:
            del self._index[bisect_left(self._index, (account.place, handle))]
        account.place = place
        if place != CLOSED:
            insort(self._index, (place, handle))

    # ── refusals ────────────────────────────────────────────────────────────────────────────────

    def _refusal(self, ask: Ask, now: int) -> Refusal:
        """When the ask may be granted: exact for up to 64 domains, else no later than that."""
        if len(self.accounts) > EXACT:
            if self._too_large(ask):
                return Refusal(None, never=True)
            return Refusal(max(now + 1, self.next_event() or now + 1))
        times = [
            found
            for handle, account in enumerate(self.accounts)
            if not account.shut and handle not in ask.exclude
            if (found := account.room_at(ask.costs, now, self._lapse_of(account))) is not None
        ]
        if not times:
            return Refusal(None, never=self._too_large(ask))
        at, name = min(times, key=lambda found: found[0])
        return Refusal(max(now + 1, at), name)

    def _lapse_of(self, account: Account) -> int:
        held = self._held.get(account.testing) if account.testing is not None else None
        return self.now + TTL if held is None else held.lapses

    def _too_large(self, ask: Ask) -> bool:
        """Whether the ask exceeds a limit of every domain: no waiting helps."""
        costs = ask.costs
        return bool(self.accounts) and all(
            any(costs.get(limit.counts, 0) > limit.amount for limit in account.limits)
            for account in self.accounts
        )
