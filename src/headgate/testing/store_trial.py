"""How a `QuotaStore` is tried: what the parts of the contract share."""
# ruff: noqa: S101

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from headgate.core.ports import QuotaStore
from headgate.core.quota import Ask, Batch, BatchReply, Costs, Counts, Grant, Limit, Refusal, Settlement

__all__ = ["GROUP", "MINUTE", "ONE", "RPM", "TPM", "StoreTrial", "Tried"]

MINUTE = 60_000
GROUP = "contract {with} odd: name %"
ONE: Costs = {Counts.REQUESTS: 1}
RPM = Limit("rpm", Counts.REQUESTS, 2)
TPM = Limit("tpm", Counts.INPUT, 1000)


class Tried:
    """A store with one group, and short words for what is done to it."""

    def __init__(
        self, store: QuotaStore, pass_time: Callable[[int], Coroutine[Any, Any, None]]
    ) -> None:
        self.store = store
        self.pass_time = pass_time

    async def declare(self, *domains: Sequence[Limit]) -> None:
        """Make the group."""
        await self.store.declare(GROUP, domains)

    async def do(self, **parts: Any) -> BatchReply:
        """One transaction."""
        return await self.store.transact(GROUP, Batch(**parts))

    async def ask(self, rid: str, costs: Costs = ONE, **more: Any) -> Grant | Refusal:
        """The answer to one ask."""
        (answer,) = (await self.do(asks=(Ask(rid, costs, **more),))).answers
        return answer

    async def granted(self, rid: str, costs: Costs = ONE, **more: Any) -> Grant:
        """The grant that must come."""
        answer = await self.ask(rid, costs, **more)
        assert isinstance(answer, Grant), answer
        assert answer.rid == rid
        return answer

    async def refused(self, rid: str, costs: Costs = ONE, **more: Any) -> Refusal:
        """The refusal that must come."""
        answer = await self.ask(rid, costs, **more)
        assert isinstance(answer, Refusal), answer
        return answer

    async def settle(self, rid: str, costs: Costs, *, served: bool = True) -> None:
        """Settle one reservation."""
        await self.do(settles=(Settlement(rid, costs, served),))

    async def until(self, instant: int) -> None:
        """Let time pass until an instant of the store's clock."""
        await self.pass_time(instant - (await self.do()).now)


class StoreTrial(ABC):
    """Say how a store is made and how its time passes."""

    @abstractmethod
    async def make(self) -> QuotaStore:
        """A new store without groups."""

    @abstractmethod
    async def pass_time(self, milliseconds: int) -> None:
        """Let so much time of the store's clock pass."""

    def run(self, test: Callable[[Tried], Coroutine[Any, Any, None]]) -> None:
        """Run one test."""

        async def main() -> None:
            store = await self.make()
            try:
                await test(Tried(store, self.pass_time))
            finally:
                await store.aclose()

        asyncio.run(main())
