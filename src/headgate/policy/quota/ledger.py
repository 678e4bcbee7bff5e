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

from heapq import heappush

from headgate.core.quota import Ask, Costs, Grant, Kind, Limit, Mode, Refusal
from headgate.policy.quota.accounts import Flights
from headgate.policy.quota.books import TTL, Books, Reservation
from headgate.policy.quota.choice import EXACT, Wish
from headgate.policy.quota.refusals import exact_refusal, fits_nowhere
from headgate.policy.quota.windows import expiry

__all__ = ["TTL", "QuotaLedger"]

_CONCURRENT, _EARLY = Kind.CONCURRENT, Mode.EARLY  # a member costs as much as a call to look up


class QuotaLedger(Books):
    """The ledger of a group: what calls do to its books.

    Args:
        domains: the limits of each domain, in the order of their handles.
        resets: ascending instants at which calendar days end; `resets` may be replaced at any time.
    """

    # ── acquire ─────────────────────────────────────────────────────────────────────────────────

    def acquire(self, ask: Ask, now: int, seed: int) -> Grant | Refusal:
        """Reserve what a call needs with one domain, or say when that may be possible."""
        now = self.advance(now)
        held = self._held.get(ask.rid)
        if held is not None and self._ask_again(ask.rid, held, now):
            return self._grant(ask.rid, held)
        wish = Wish(ask, self._counted, self._tokens)
        handle = self._choice.choose(wish, now, seed)
        return self._refusal(wish, now) if handle is None else self._charge(wish, handle, now)

    def charge(self, ask: Ask, handle: int, now: int) -> Grant:
        """Reserve with this very domain, whether or not it has room: the call is sent in any case.

        For a caller that learned elsewhere that the domain serves. A reservation of the same id stands
        as it is, whichever domain it is with.
        """
        now = self.advance(now)
        held = self._held.get(ask.rid)
        if held is not None:
            return self._grant(ask.rid, held)
        return self._charge(Wish(ask, self._counted, self._tokens), handle, now)

    def _charge(self, wish: Wish, handle: int, now: int) -> Grant:
        account, costs = self.accounts[handle], wish.costs
        needs = [costs[limit.counts] for limit in account.limits]
        held = Reservation(handle, needs, now + TTL, canary=account.canary)
        used, early = account.used, account.early
        for number, limit in enumerate(account.limits):
            need = needs[number]
            used[number] += need
            if early[number]:
                held.expires[number] = expires = expiry(limit, now, self.resets)
                self._put(handle, number, expires, need)
        if account.paces:
            paces = account.paces.items()
            held.ends = {n: pace.take(account.limits[n], needs[n], now) for n, pace in paces}
            self._pace_out(handle)
        if account.canary:
            account.canary, account.testing = False, wish.rid
        self._order += 1
        account.last = self._order
        self._held[wish.rid] = held
        heappush(self._lapses, (held.lapses, wish.rid))
        self._choice.place(handle, now)
        return self._grant(wish.rid, held)

    def _grant(self, rid: str, held: Reservation) -> Grant:
        return Grant(rid, held.domain, held.canary, self.accounts[held.domain].left())

    def _ask_again(self, rid: str, held: Reservation, now: int) -> bool:
        """The reply was lost and the call not sent yet: the guard runs anew. Whether it can be sent.

        What was charged early moves on to a bucket from now. Nothing is ever taken back: should this be
        an old ask that was long on its way, the call of the newer one keeps its charge. Where a charge
        has ended the limit may be full again: that reservation stands for a call that was sent, and the
        ask is a new one.
        """
        if held.orphan or any(0 < expires <= now for expires in held.expires):
            self.settle(rid, {}, now, served=False)
            return False
        account = self.accounts[held.domain]
        for number, expires in enumerate(held.expires):
            later = expiry(account.limits[number], now, self.resets) if expires else 0
            if later > expires and account.take(number, expires, held.needs[number]):
                account.used[number] += held.needs[number]
                held.expires[number] = later
                self._put(held.domain, number, later, held.needs[number])
        for number, end in held.ends.items():
            if (pace := account.paces.get(number)) is not None:
                limit = account.limits[number]
                held.ends[number] = pace.again(limit, held.needs[number], end, now)
        if held.ends:
            self._pace_out(held.domain)
            self._choice.place(held.domain, now)
        held.lapses = now + TTL
        heappush(self._lapses, (held.lapses, rid))
        return True

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
            used = costs.get(limit.counts, need)
            if used != need or not account.early[number]:  # an early charge that was right stands
                self._settle_one(held, number, limit, used, now)
            if held.ends:
                self._settle_pace(held, number, limit, used)
        if held.ends:
            self._pace_out(held.domain)
        if account.testing == rid:
            account.testing, account.canary = None, not served
        self._choice.place(held.domain, now)

    def _settle_one(self, held: Reservation, number: int, limit: Limit, used: int, now: int) -> None:
        account, need = self.accounts[held.domain], held.needs[number]
        if limit.kind is _CONCURRENT:
            account.used[number] -= 0 if held.orphan else need
        elif limit.mode is _EARLY:
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

    def _settle_pace(self, held: Reservation, number: int, limit: Limit, used: int) -> None:
        pace = self.accounts[held.domain].paces.get(number) if number in held.ends else None
        if pace is not None:
            pace.settle(limit, held.needs[number], used, held.ends[number], self.now)

    def cancel(self, rid: str, now: int) -> None:
        """Give everything back: of this call no byte was sent."""
        now = self.advance(now)
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
            self._settle_pace(held, number, limit, 0)
        if held.ends:
            self._pace_out(held.domain)
        if account.testing == rid:
            account.testing, account.canary = None, True
        self._choice.place(held.domain, now)

    def renew(self, rid: str, now: int) -> None:
        """The owner is alive: its reservation lapses a TTL from now."""
        now = self.advance(now)
        held = self._held.get(rid)
        if held is not None and not held.orphan:
            held.lapses = now + TTL
            heappush(self._lapses, (held.lapses, rid))

    # ── refusals ────────────────────────────────────────────────────────────────────────────────

    def _refusal(self, wish: Wish, now: int) -> Refusal:
        """When the ask may be granted: exact for up to 64 domains, else no later than that."""
        if len(self.accounts) <= EXACT:
            flights = Flights(now, self._next_lapse(), self.resets, self._lapse_of)
            return exact_refusal(self.accounts, wish, flights)
        if fits_nowhere(self.accounts, wish.costs):
            return Refusal(None, never=True)
        if self._choice.cut:  # another ask looks at others
            return Refusal(now + 1)
        event, soonest = self.next_event(), self._choice.soonest
        return Refusal(soonest if event is None or (soonest is not None and soonest < event) else event)

    def _lapse_of(self, rid: str) -> int:
        held = self._held.get(rid)
        return self.now + TTL if held is None else held.lapses
