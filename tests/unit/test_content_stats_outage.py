"""What the content service says of its quota in the moment in which the shared store breaks off."""

from __future__ import annotations

from tests.content import Content

from headgate.core.errors import StoreError
from headgate.core.quota import Fill
from headgate.stores.memory import MemoryStore
from headgate.testing import VirtualClock


class Failing(MemoryStore):
    """It was there a moment ago."""

    broken = False

    async def fills(self, group: str) -> tuple[tuple[Fill, ...], ...]:
        if self.broken:
            raise StoreError("The store broke off.")
        return await super().fills(group)


async def test_s4_38_numbers_that_nobody_can_tell_are_no_failure(clock: VirtualClock) -> None:
    store = Failing(clock)
    content = Content(clock, store=store)
    before = await content.stats()
    assert before["limits"]["rpm"] == 15
    store.broken = True
    during = await content.get("/api/quota/stats")
    assert during.status == 200
    assert during.json["limits"] == before["limits"]
    assert (await content.get("/api/ready")).json["checks"]["quota"]["status"] == "unknown"
    store.broken = False
    assert await content.stats() == before
