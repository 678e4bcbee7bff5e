"""The shared store on a real cluster of three nodes, and on the oldest Redis that is promised."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator
from random import Random  # noqa: TID251 - seeded

import pytest
import redis
from tests import valkey
from tests.valkey import TIMED_SCRIPT, Server, set_time

from headgate.core.errors import StoreError
from headgate.core.ports import QuotaStore
from headgate.core.quota import Ask, Batch, Counts, Grant, Kind, Limit, Settlement
from headgate.stores.valkey import ValkeyStore
from headgate.stores.valkey_link import Address
from headgate.testing.store_contract import StoreContract
from headgate.wiring.clock import SystemClock

PATIENT = 10.0
SLOTS = [[Limit("slots", Counts.SLOTS, 1000, Kind.CONCURRENT)]]
GROUPS = [f"provider/model-{number}" for number in range(24)]
ALL = 16384


@pytest.fixture
def nodes() -> Iterator[list[Server]]:
    servers = [Server(tcp=True, cluster_enabled="yes", cluster_node_timeout="1000") for _ in range(3)]
    try:
        form([server.start() for server in servers])
        yield servers
    finally:
        for server in servers:
            server.close()


def form(servers: list[Server]) -> None:
    """Slots first, then they meet; it stands when each knows all slots served."""
    clients = [server.client() for server in servers]
    edges = [ALL * number // len(servers) for number in range(len(servers) + 1)]
    for client, first, after in zip(clients, edges[:-1], edges[1:], strict=True):
        client.execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
        client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port)
    end = time.monotonic() + 20  # noqa: TID251 - real servers need real time
    while not all(stands(client, len(servers)) for client in clients):
        assert time.monotonic() < end, "the cluster did not form"  # noqa: TID251
        time.sleep(0.02)  # noqa: TID251
    for client in clients:
        client.close()


def stands(client: redis.Redis, size: int) -> bool:
    said = client.execute_command("CLUSTER INFO")
    text = said.decode() if isinstance(said, bytes) else str(said)
    facts = (
        said
        if isinstance(said, dict)
        else dict(line.split(":") for line in text.split("\r\n") if ":" in line)
    )
    return facts["cluster_state"] == "ok" and int(facts["cluster_known_nodes"]) == size


def url_of(nodes: list[Server]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def store_on(nodes: list[Server], timeout: float = PATIENT) -> ValkeyStore:
    return ValkeyStore(url_of(nodes), clock=SystemClock(), chance=Random(1).random, timeout=timeout)


async def ask(store: ValkeyStore, group: str, rid: str) -> Grant:
    reply = await store.transact(group, Batch(asks=(Ask(rid, {Counts.SLOTS: 1}),)))
    assert isinstance(reply.answers[0], Grant)
    return reply.answers[0]


def groups_on(node: Server) -> set[str]:
    with node.client() as client:
        return {name.decode()[1:-3] for name in client.scan_iter(match="*}st", count=1000)}


def test_groups_spread_over_a_cluster_and_survive_what_befalls_it(nodes: list[Server]) -> None:
    async def main() -> None:
        store = store_on(nodes)
        for group in GROUPS:
            await store.declare(group, SLOTS)
        grants = await asyncio.gather(
            *(ask(store, group, f"{number:x}") for group in GROUPS for number in range(20))
        )
        assert len(grants) == 20 * len(GROUPS)
        homes = [groups_on(node) for node in nodes]
        assert all(homes), "every node has groups"
        assert sorted(group for home in homes for group in home) == sorted(GROUPS)
        await move(store, nodes, homes)
        await store.aclose()

    asyncio.run(main())


def test_no_reply_of_a_cluster_reaches_another_caller(nodes: list[Server]) -> None:
    """The storm of test_valkey.py, over connections that redis-py chooses and keeps."""
    chance, fates, rounds = Random(7), Counter[str](), 10

    async def main() -> None:
        link = Address(url_of(nodes)).link(PATIENT)

        async def one(number: int) -> None:
            text = b"%d." % number * (1 + number % 50)
            said = await link.run("EVAL", "return ARGV[1]", 1, f"key-{number}", text)
            fates["right" if said == text else "wrong"] += 1

        while fates["broken off"] < 1500:
            fates["staying"] += 10
            tasks = [asyncio.ensure_future(one(fates.total() + step)) for step in range(60)]
            leaving = chance.sample(tasks, 50)
            for _ in range(rounds):
                for task in leaving[:5]:
                    fates["broken off"] += task.cancel()
                del leaving[:5]
                await asyncio.sleep(chance.choice([0, 0, 0.0005]))  # noqa: TID251 - a round
            done, _ = await asyncio.wait(tasks)
            assert not [task for task in done if not task.cancelled() and task.exception()]
        await link.aclose()

    asyncio.run(main())
    gc.collect()  # an open socket warns, and a warning is an error
    assert fates["wrong"] == 0
    assert fates["right"] >= fates["staying"], "who stays is answered"


async def move(store: ValkeyStore, nodes: list[Server], homes: list[set[str]]) -> None:
    """A slot changes hands: the old node answers MOVED, and the group goes on at the new one."""
    group = min(homes[0])
    clients = [node.client() for node in nodes]
    slot = clients[0].execute_command("CLUSTER KEYSLOT", f"{{{group}}}st")
    keys = clients[0].execute_command("CLUSTER GETKEYSINSLOT", slot, 10)
    new = clients[1].execute_command("CLUSTER MYID")
    clients[0].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new)
    clients[1].execute_command(
        "CLUSTER SETSLOT", slot, "IMPORTING", clients[0].execute_command("CLUSTER MYID")
    )
    clients[0].execute_command("MIGRATE", "127.0.0.1", nodes[1].port, "", 0, 5000, "KEYS", *keys)
    for client in clients[1::-1]:
        client.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
    await ask(store, group, "moved")
    await store.transact(group, Batch(settles=(Settlement("0", {}), Settlement("moved", {}))))
    assert group in groups_on(nodes[1])
    assert group not in groups_on(nodes[0])
    assert clients[1].hexists(f"{{{group}}}st", "r1"), "what was reserved before has moved along"
    assert not clients[1].hexists(f"{{{group}}}st", "r0")
    for client in clients:
        client.close()


def test_a_dead_node_takes_only_its_own_groups_along(nodes: list[Server]) -> None:
    async def main() -> None:
        store = store_on(nodes, 1.0)
        for group in GROUPS:
            await store.declare(group, SLOTS)
        homes = [groups_on(node) for node in nodes]
        with nodes[0].client() as client:
            client.config_set("cluster-require-full-coverage", "no")
        with nodes[1].client() as client:
            client.config_set("cluster-require-full-coverage", "no")
        nodes[2].kill()
        for turn in range(3):
            for group in sorted(homes[2])[:2]:
                with pytest.raises(StoreError):
                    await ask(store, group, f"d{turn}")
            for group in sorted(homes[0] | homes[1])[:6]:
                await ask(store, group, f"a{turn}")
        await store.aclose()

    asyncio.run(main())


@pytest.mark.skipif(
    not valkey.oldest_redis(), reason="after Python 3.11 there is no wheel of Redis 6.2"
)
def test_the_oldest_redis_passes_the_contract() -> None:
    server = Server(valkey.oldest_redis()).start()

    class Contract(StoreContract):
        now = 1_795_262_400_000

        async def make(self) -> QuotaStore:
            with server.client() as client:
                client.flushall()
            set_time(server, self.now)
            return ValkeyStore(
                server.url,
                clock=SystemClock(),
                chance=Random(1).random,
                timeout=PATIENT,
                script=TIMED_SCRIPT,
            )

        async def pass_time(self, milliseconds: int) -> None:
            self.now += milliseconds
            set_time(server, self.now)

    try:
        for test in [name for name in dir(Contract) if name.startswith("test_")]:
            getattr(Contract(), test)()
    finally:
        server.close()


assert valkey.Server is Server
