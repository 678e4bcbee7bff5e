"""Values on a real server: what damages it, slows it or loses a part costs a value, never a request."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests import valkey
from tests.valkey import Server

from headgate.core.errors import StoreError
from headgate.stores.replies_wire import LARGEST_FRAME
from headgate.stores.values import MemoryValues
from headgate.stores.values_valkey import TIMEOUT, ValkeyValues, script_source
from headgate.wiring.clock import SystemClock

valkey_server = valkey.valkey_server


def opened(url: str, *, timeout: float = 5.0, room: str = "test") -> ValkeyValues:
    """A process in real time, as patient as a loaded machine wants it."""
    clock = SystemClock()
    memory = MemoryValues(clock, most_entries=100, most_bytes=10**8)
    return ValkeyValues(
        url, room=room, memory=memory, most_shared_bytes=10**7, clock=clock, chance=lambda: 0.5,
        timeout=timeout,
    )  # fmt: skip


def run(work: Callable[[], Awaitable[None]], *stores: ValkeyValues) -> None:
    async def all_of_it() -> None:
        try:
            await work()
        finally:
            for store in stores:
                await store.aclose()

    asyncio.run(all_of_it())


def look_at_values(url: str) -> None:
    """Keep, find, claim and forget, many and few; over as many parts as the server has."""
    one, two = opened(url), opened(url)

    async def test() -> None:
        for number in range(40):
            space, key = f"n{number % 2}", f"key {number}"
            found = await one.get(space, key, claim=30)
            assert found.token
            assert (await two.get(space, key, claim=30)).claimed
            assert await one.renew(space, key, found.token, 30)
            assert await one.put(space, key, b"x", 60, mark=found.mark, token=found.token)
            assert await two.touch(space, key, 90)
            assert (await two.get(space, key)).data == b"x"
        assert (await two.share()).entries == 40
        assert await one.drop("n0", "key 0")
        assert await one.invalidate("n1", "key 1*") == 6
        assert await two.invalidate("n1") == 14
        assert await two.invalidate("*") == 19
        assert (await one.share()).entries == 0
        assert (await one.get("n0", "key 2")).data is None
        assert (one.figures().failed, two.figures().failed) == (0, 0)

    run(test, one, two)


@pytest.mark.skipif(
    not valkey.oldest_redis(), reason="after Python 3.11 there is no wheel of Redis 6.2"
)
def test_the_oldest_redis_does_all_of_it() -> None:
    server = Server(valkey.oldest_redis()).start()
    try:
        look_at_values(server.url)
    finally:
        server.close()


@pytest.mark.parametrize("lost", ["e", "x", "t", ""])
def test_what_was_lost_is_a_miss_and_leaves_nothing_behind(valkey_server: Server, lost: str) -> None:
    """One of the parts, or all: no copy is given, the bounds still hold, a lost mark refuses."""
    one, two = opened(valkey_server.url), opened(valkey_server.url)

    async def test() -> None:
        await one.put("n", "k", b"1" * 100, 60)
        assert (await two.get("n", "k")).data
        making = await two.get("n", "other", claim=30)
        with valkey_server.client() as client:
            if lost:
                client.delete(f"{{headgate:values:test:0}}{lost}")
            else:
                client.flushall()
        if lost != "t":
            assert (await two.get("n", "k")).data is None
        kept = await two.put("n", "other", b"1", 60, mark=making.mark, token=making.token or "")
        assert kept == (lost in ("e", "x")), "without its marks nobody knows what was forgotten"
        for number in range(3):
            assert await one.put("n", f"{number}", b"1", 60)
        share = await one.share()
        assert share.entries == 3 + kept
        assert 256 * share.entries < share.bytes < 400 * share.entries
        await one.invalidate("*")
        assert ((await one.share()).entries, (await one.share()).bytes) == (0, 0)

    run(test, one, two)


def test_a_server_without_memory_keeps_nothing_and_raises_nothing() -> None:
    server = Server(maxmemory="1mb", maxmemory_policy="noeviction").start()
    store = opened(server.url)

    async def test() -> None:
        assert await store.put("n", "k", b"x", 60), "in the memory of the process"
        found = await store.get("n", "k")
        assert (found.data, found.alone) == (b"x", True)

    try:
        run(test, store)
    finally:
        server.close()


def test_s4_15_a_server_that_hangs_costs_a_tenth_of_a_second_and_then_nothing() -> None:
    assert 0.05 <= TIMEOUT <= 0.1, "of a look on the way of a request (S4-15)"
    server = Server().start()
    store = opened(server.url, timeout=TIMEOUT)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(50):  # a loaded machine may miss a deadline before it even hangs
            if await store.put("n", "k", b"x", 60) and not (await store.get("n", "k")).alone:
                break
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                assert (await store.get("n", "k")).data == b"x"
            began, looks = loop.time(), 200
            for _ in range(looks):
                assert (await store.get("n", "k")).alone
            # Once a second one look asks; the others do not wait.
            assert loop.time() - began < looks * TIMEOUT / 2
            with pytest.raises(StoreError):
                await store.drop("n", "k")
        finally:
            os.kill(server.pid, signal.SIGCONT)

    try:
        run(test, store)
    finally:
        server.close()


def test_a_user_of_its_own_may_do_what_the_guide_says(valkey_server: Server) -> None:
    """And needs all of it: the rights that the page names are those that the script uses."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "cache-content.md"
    rights = re.search(r"needs `(\+eval[^`]+)` on `(~[^`]+)`", page.read_text(encoding="utf-8"))
    assert rights is not None
    named = {right.removeprefix("+") for right in rights[1].split()}
    used = {command.lower() for command in re.findall(r"call\('(\w+)'", script_source())}
    assert named == used | {"eval", "evalsha"}
    with valkey_server.client() as client:
        client.execute_command("ACL", "SETUSER", "own", "on", ">CANARY", *rights[1].split(), rights[2])
    try:
        look_at_values(valkey_server.url.replace("unix://", "unix://own:CANARY@"))
    finally:
        with valkey_server.client() as client:
            client.execute_command("ACL", "DELUSER", "own")


def test_what_is_too_large_stays_out(valkey_server: Server) -> None:
    one, two = opened(valkey_server.url), opened(valkey_server.url)

    async def test() -> None:
        found = await one.get("n", "k", claim=30)
        large = os.urandom(LARGEST_FRAME)
        assert not await one.put("n", "k", large, 60, mark=found.mark, token=found.token or "")
        assert (await two.get("n", "k", claim=30)).token, "the right was given back"
        squeezable = b"x" * LARGEST_FRAME
        assert await one.put("n", "k", squeezable, 60)
        assert (await two.get("n", "k")).data == squeezable

    run(test, one, two)


def test_many_at_once_in_threads_and_loops(valkey_server: Server) -> None:
    """Each gets its own value back, and all of it over few connections."""
    store = opened(valkey_server.url)

    async def each(number: int) -> None:
        for _ in range(3):
            assert await store.put("n", f"{number}", b"%d" % number, 60)
            assert (await store.get("n", f"{number}")).data == b"%d" % number

    async def many() -> None:
        threads = (asyncio.to_thread(asyncio.run, each(number)) for number in range(100, 108))
        await asyncio.gather(*threads, *(each(number) for number in range(64)))

    run(many, store)
    assert store.figures().failed == 0
