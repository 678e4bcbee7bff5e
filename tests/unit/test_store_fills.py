"""How full the limits of a group are, as each store tells it, without charging anything."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - seeded

import pytest
from tests import valkey
from tests.valkey import TIMED_SCRIPT, set_time

from headgate.core.errors import StoreError
from headgate.core.ports import QuotaStore
from headgate.core.quota import Ask, Batch, Counts, Fill, Kind, Limit, Mode, Penalty, Settlement
from headgate.stores.memory import MemoryStore
from headgate.stores.sharing import SharedStore
from headgate.stores.valkey import ValkeyStore
from headgate.stores.valkey_fills import Counters, fills_of
from headgate.testing import VirtualClock
from headgate.wiring.clock import SystemClock

valkey_server = valkey.valkey_server

START = 1_795_262_400_000

RPM = Limit("rpm", Counts.REQUESTS, 10)
TPM = Limit("tpm", Counts.INPUT, 1000, mode=Mode.ENVELOPE, guard=200)
RPD = Limit("rpd", Counts.REQUESTS, 500, Kind.CALENDAR, 86_400_000)
SLOTS = Limit("concurrency", Counts.SLOTS, 2, Kind.CONCURRENT)

Told = tuple[tuple[Fill, ...], ...]
Fills = Callable[[str], Awaitable[Told]]


def used(told: Told) -> list[dict[str, int]]:
    return [{fill.limit.name: fill.used for fill in domain} for domain in told]


async def tells(store: QuotaStore, fills: Fills) -> None:
    """One history, told alike by every store."""
    assert await fills("never heard of") == ()
    await store.declare("g", [[RPM, TPM, RPD], [RPM, SLOTS]])
    assert used(await fills("g")) == [{"rpm": 0, "tpm": 0, "rpd": 0}, {"rpm": 0, "concurrency": 0}]
    first = Ask("a", {Counts.REQUESTS: 1, Counts.INPUT: 300, Counts.SLOTS: 1}, exclude={1})
    second = Ask("b", {Counts.REQUESTS: 1, Counts.INPUT: 50, Counts.SLOTS: 1}, exclude={0})
    await store.transact("g", Batch(asks=(first, second)))
    assert used(await fills("g")) == [{"rpm": 1, "tpm": 300, "rpd": 1}, {"rpm": 1, "concurrency": 1}]
    told = Limit("tpm", Counts.INPUT, 400)
    news = Batch(settles=(Settlement("a", {Counts.INPUT: 120}),), penalties=(Penalty(1, limit=told),))
    await store.transact("g", news)
    seen = await fills("g")
    assert used(seen) == [{"rpm": 1, "tpm": 120, "rpd": 1}, {"rpm": 1, "concurrency": 1, "tpm": 0}]
    assert [fill.limit for fill in seen[0]] == [RPM, TPM, RPD]
    assert seen[1][2].limit == told
    assert await fills("g") == seen, "to read charges nothing"


async def test_a_store_in_memory_tells_and_lets_go_of_what_is_over(clock: VirtualClock) -> None:
    store = MemoryStore(clock)
    await tells(store, store.fills)
    clock.advance(62)
    seen = used(await store.fills("g"))
    assert seen[0] == {"rpm": 0, "tpm": 0, "rpd": 1}


def test_valkey_tells_the_same(valkey_server: valkey.Server) -> None:
    async def main() -> None:
        set_time(valkey_server, START)
        store = ValkeyStore(
            valkey_server.url,
            clock=SystemClock(),
            chance=Random(1).random,
            timeout=5.0,
            script=TIMED_SCRIPT,
        )

        async def fills(group: str) -> Told:
            try:
                return await store.fills(group)
            except KeyError:  # it was not told of the group
                return ()

        try:
            await tells(store, fills)
            shared = SharedStore(
                store, clock=SystemClock(), chance=Random(1).random, processes=1, member="m"
            )
            await shared.declare("g", [[RPM, TPM, RPD], [RPM, SLOTS]])
            assert used(await shared.fills("g"))[0]["tpm"] == 120
            assert await shared.fills("never heard of") == ()
            await shared.aclose()
            set_time(valkey_server, START + 62_000)
            assert used(await store.fills("g"))[0] == {"rpm": 0, "tpm": 0, "rpd": 1}
        finally:
            await store.aclose()

    asyncio.run(main())


async def test_while_the_shared_store_is_away_nothing_is_said(clock: VirtualClock) -> None:
    class Gone(MemoryStore):
        async def transact(self, group: str, batch: Batch) -> object:  # type: ignore[override]
            raise StoreError("away")

    store = SharedStore(Gone(clock), clock=clock, chance=Random(1).random, processes=1, member="m")
    await store.declare("g", [[RPM]])
    assert not store.away
    assert used(await store.fills("g")) == [{"rpm": 0}]
    await store.transact("g", Batch(asks=(Ask("a", {Counts.REQUESTS: 1}),)))
    assert store.away
    assert await store.fills("g") == ()
    await store.aclose()


@pytest.mark.parametrize(
    "counters",
    [
        Counters([b"\x93"], [bytes(57)]),
        Counters([], [struct.pack("<B7d5d", 1, 1, 0, 0, 0, 0, 0, 0, 10, 1, 0, 0, 0)]),
        Counters([b"\x90"], [b"short"]),
    ],
)
def test_a_ledger_of_another_version_is_told_as_such(counters: Counters) -> None:
    """Not as a fault of the server, which would close it to calls."""
    with pytest.raises(ValueError, match="laid out otherwise"):
        fills_of(counters)
