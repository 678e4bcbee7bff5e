"""Which domain serves: an index of domains by headroom, four samples, the cheapest of them.

Up to 64 domains the choice is complete: an ask is refused only if no domain has room. Above, a search
of those that only perhaps have room looks at 64 of them and goes on from there with the next ask.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from headgate.core.quota import Ask, Costs, Counts
from headgate.policy.quota.accounts import CLOSED, Account, room_class
from headgate.policy.quota.price import SAMPLES, next_random

__all__ = ["EXACT", "LONGEST_WALK", "REDRAWS", "Choice", "Wish"]

REDRAWS = 8
LONGEST_WALK = 64
EXACT = 64
"""Domains up to which a refusal names the exact instant; above, a lower bound."""


class Wish:
    """What an ask takes of a group's domains: of whatever any of their limits counts, at least 1.

    So a domain of which any limit is full can serve nothing, whatever the ask names.
    """

    __slots__ = ("costs", "dearest", "exclude", "least", "prefer", "rid")

    def __init__(self, ask: Ask, counted: Sequence[Counts], tokens: Sequence[Counts]) -> None:
        named, costs = ask.costs, dict[Counts, int]()
        for counts in counted:
            need = named.get(counts, 0)
            costs[counts] = need if need > 0 else 1
        self.rid = ask.rid
        self.costs: Costs = costs
        self.exclude = ask.exclude
        self.prefer = ask.prefer
        taken = [costs[counts] for counts in tokens]
        self.dearest = max(taken) if taken else 1
        self.least = min(taken) if taken else 1


class Choice:
    """The index of a group's domains, and the choice among them.

    Attributes:
        index: class of headroom and handle, ascending, of all domains that can serve anything.
        turn: how many domains have been searched one by one.
        cut: whether the last choice left domains unexamined that perhaps have room.
        soonest: no later than when paced limits let a domain serve that it examined; None: it met none
            that waits for these.
    """

    __slots__ = ("_accounts", "cut", "index", "soonest", "turn")

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._accounts = accounts
        self.index: list[tuple[int, int]] = []
        self.turn = 0
        self.cut = False
        self.soonest: int | None = None

    def place(self, handle: int, now: int) -> None:
        """The domain's headroom may have changed."""
        account = self._accounts[handle]
        place = account.room(now)
        if place == account.place:
            return
        if account.place != CLOSED:
            del self.index[bisect_left(self.index, (account.place, handle))]
        account.place = place
        if place != CLOSED:
            insort(self.index, (place, handle))

    def choose(self, wish: Wish, now: int, seed: int) -> int | None:
        """A domain with room for all of the wish, or None."""
        self.cut, self.soonest = False, None
        # Of a class above that of the dearest token cost every domain surely has room.
        sure = bisect_left(self.index, (room_class(wish.dearest) + 1, CLOSED))
        found = self._sample(wish, sure, now, seed)
        if not found:
            perhaps = bisect_left(self.index, (room_class(wish.least), CLOSED))
            found = self._walk(wish, perhaps, sure, now)
        if not found:
            return None
        accounts, costs = self._accounts, wish.costs
        chosen = found[0]
        if len(found) > 1:  # of one nobody needs to know the price
            chosen = min([(accounts[h].price(costs), accounts[h].last, h) for h in found])[2]
        preferred = wish.prefer
        if preferred is None or not self._able(wish, preferred, now):
            return chosen
        dear = accounts[preferred].price(costs) > 2 * accounts[chosen].price(costs)
        return chosen if dear else preferred

    def _able(self, wish: Wish, handle: int, now: int) -> bool:
        account = self._accounts[handle]
        if handle in wish.exclude:
            return False
        if account.fits(wish.costs, now):
            return True
        if account.paces:
            at, name = account.pace_chance(wish.costs, now, None)
            if name is not None:
                self.soonest = at if self.soonest is None else min(at, self.soonest)
        return False

    def _sample(self, wish: Wish, start: int, now: int, seed: int) -> list[int]:
        """Up to four distinct domains drawn from those that surely have room."""
        count = len(self.index) - start
        if count <= SAMPLES:
            return [handle for _, handle in self.index[start:] if self._able(wish, handle, now)]
        found: list[int] = []
        for _ in range(SAMPLES + REDRAWS):
            seed = next_random(seed)
            handle = self.index[start + seed % count][1]
            if handle not in found and self._able(wish, handle, now):
                found.append(handle)
                if len(found) == SAMPLES:
                    break
        return found or self._walk(wish, start, len(self.index), now)

    def _walk(self, wish: Wish, start: int, stop: int, now: int) -> list[int]:
        """The first domain that has room among those that perhaps have, from where the last ended."""
        count = stop - start
        if count <= 0:
            return []
        first = self.turn
        for step in range(min(count, LONGEST_WALK)):
            self.turn += 1
            handle = self.index[start + (first + step) % count][1]
            if self._able(wish, handle, now):
                return [handle]
        self.cut = self.cut or count > LONGEST_WALK
        return []
