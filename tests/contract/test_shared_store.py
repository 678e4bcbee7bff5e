"""The stand-in answers as the store behind it, also when that is away and nobody shares it."""

from __future__ import annotations

from headgate.core.errors import StoreError
from headgate.core.ports import Clock, QuotaStore
from headgate.core.quota import Batch, BatchReply
from headgate.stores.memory import MemoryStore
from headgate.stores.sharing import SharedStore
from headgate.testing import VirtualClock
from headgate.testing.store_contract import StoreContract


class Mortal(MemoryStore):
    """One that answers once for each group and then no more."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.answered: set[str] = set()

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        if group in self.answered:
            raise StoreError("The store is away.")
        self.answered.add(group)
        return await super().transact(group, batch)


class TestSharedStore(StoreContract):
    primary: type[MemoryStore] = MemoryStore

    # What others tell of lost books it tells in its own name, in a coarser grain.
    test_what_a_member_restores_is_held_until_it_expires = None
    test_restores_of_many_buckets_come_in_any_order = None

    async def make(self) -> QuotaStore:
        self.clock = VirtualClock()
        return SharedStore(
            self.primary(self.clock), clock=self.clock, chance=lambda: 0.5, processes=1, member="m"
        )

    async def pass_time(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds / 1000)


class TestSharedStoreAdrift(TestSharedStore):
    primary = Mortal

    # Of books that are out of reach nobody can say these.
    test_what_is_left_of_a_day_comes_with_the_grant = None
    test_a_reply_tells_when_the_books_were_begun = None
