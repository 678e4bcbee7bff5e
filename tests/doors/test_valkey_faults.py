"""The shared store on a server that is slow, dead, empty, full. In real time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis
from tests import valkey, valkey_callers
from tests.valkey import Server
from tests.valkey_callers import (
    ONE,
    SLOTS,
    Leaping,
    ask,
    counting,
    free_again,
    patiently,
    settled,
    store_on,
)

from headgate.core.errors import StoreError
from headgate.core.quota import (
    Ask,
    Batch,
    Counts,
    Grant,
    Limit,
)

valkey_server = valkey.valkey_server
no_socket_left = valkey_callers.no_socket_left


def test_a_slow_server_is_given_up_within_the_deadline(valkey_server: Server) -> None:
    """It answers nobody until all have given up; if one waited for it, this would never end."""
    clock = Leaping()

    async def main() -> None:
        store = store_on(valkey_server, 0.15, clock=clock)
        await patiently(clock, lambda: store.declare("g", [SLOTS]))
        assert isinstance(await patiently(clock, lambda: ask(store, "a1")), Grant)
        os.kill(valkey_server.pid, signal.SIGSTOP)
        try:
            many = (store.transact("g", settled("a1")) for _ in range(50))
            failures = await asyncio.gather(*many, return_exceptions=True)
        finally:
            os.kill(valkey_server.pid, signal.SIGCONT)
        assert all(isinstance(failure, StoreError) for failure in failures)
        await free_again(store, clock)
        await store.aclose()

    asyncio.run(main())
    with valkey_server.client() as client:
        assert not client.hexists("{g}st", "ra1"), "the settlement rode along with the next call"


def test_a_dead_server_is_left_alone_and_found_again(caplog: pytest.LogCaptureFixture) -> None:
    server, clock, calls = Server().start(), Leaping(), []

    async def main() -> None:
        store = store_on(server, clock=clock)
        await store.declare("g", [SLOTS])
        await counting(store, calls)()
        assert isinstance(await ask(store, "a1"), Grant)
        server.kill()
        calls.clear()
        for _ in range(20):
            with pytest.raises(StoreError):
                await ask(store, "a2")
        assert len(calls) <= 4, "after three failures nothing is sent"
        server.start()
        await free_again(store, clock)
        assert isinstance(await ask(store, "a3"), Grant)
        await store.aclose()

    try:
        asyncio.run(main())
    finally:
        server.close()
    said = [record.getMessage() for record in caplog.records if record.name == "headgate.stores"]
    assert sum("breaker=open" in line for line in said) == 1
    assert sum("breaker=closed" in line for line in said) == 1
    assert sum("lost_state" in line for line in said) == 1


def test_a_server_that_was_never_there_is_found_when_it_comes() -> None:
    server, clock = Server(), Leaping()

    async def main() -> None:
        store = store_on(server, clock=clock)
        with pytest.raises(StoreError):
            await store.declare("g", [SLOTS])
        server.start()
        await free_again(store, clock)
        assert isinstance(await ask(store, "a1"), Grant)
        await store.aclose()

    try:
        asyncio.run(main())
    finally:
        server.close()


def refuse_writes(client: redis.Redis) -> Callable[[], Any]:
    client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)


def follow_nobody(client: redis.Redis) -> Callable[[], Any]:
    client.replicaof("127.0.0.1", 1)
    return lambda: client.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("fault", "code"), [(refuse_writes, "OOM"), (follow_nobody, "READONLY")], ids=["full", "replica"]
)
def test_a_server_that_may_not_write_is_a_store_error(
    fault: Callable[[redis.Redis], Callable[[], Any]], code: str, valkey_server: Server
) -> None:
    clock = Leaping()

    async def main(client: redis.Redis) -> None:
        store = store_on(valkey_server, clock=clock)
        await store.declare("g", [SLOTS])
        assert isinstance(await ask(store, "a1"), Grant)
        mend = fault(client)
        try:
            with pytest.raises(StoreError, match=code):
                await store.transact("g", Batch(settled("a1").settles, asks=(Ask("a2", ONE),)))
        finally:
            mend()
        await free_again(store, clock)
        assert not client.hexists("{g}st", "ra1")
        await store.aclose()

    with valkey_server.client() as client:
        asyncio.run(main(client))


def test_a_connection_the_server_closed_while_idle_is_no_failure(valkey_server: Server) -> None:
    async def main(client: redis.Redis) -> None:
        store = store_on(valkey_server)
        await store.declare("g", [SLOTS])
        for turn in range(3):
            client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.02)  # noqa: TID251
            assert isinstance(await ask(store, f"a{turn}"), Grant)
        await store.aclose()

    with valkey_server.client() as client:
        asyncio.run(main(client))


def test_an_emptied_server_is_told_the_limits_again(
    valkey_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(client: redis.Redis) -> None:
        store = store_on(valkey_server)
        await store.declare("g", [[Limit("rpm", Counts.SLOTS, 1)]] * 3)
        for turn in range(5):
            client.flushall()
            client.script_flush()
            assert isinstance(await ask(store, f"a{turn}"), Grant)
        await store.aclose()

    with valkey_server.client() as client:
        asyncio.run(main(client))
    assert sum("lost_state" in record.getMessage() for record in caplog.records) == 5
