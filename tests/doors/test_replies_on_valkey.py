"""Kept answers on a real Valkey: what damages it, slows it or kills it is a miss, never an error."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import valkey
from tests.doors.test_valkey_cluster import nodes
from tests.doors.test_values_on_valkey import look_at_values
from tests.replies import KEY, OTHER, OnValkey, answer, kept
from tests.valkey import Server

from headgate.core.replies import Found
from headgate.emulator import Emulator, EmulatorConfig, Project
from headgate.stores.replies_valkey import SHARDS, ValkeyReplies
from headgate.testing import VirtualClock
from headgate.wiring.clock import SystemClock

valkey_server = valkey.valkey_server
__all__ = ["nodes"]

ENTRIES = b"{headgate:replies:0}e"
NAMES = b"{headgate:replies:0}n"

CLAIM = 0.05


def opened(url: str, **more: Any) -> ValkeyReplies:
    """A process's cache in real time, as patient as a loaded machine wants it."""
    settings: dict[str, Any] = {
        "most_entries": 100, "most_bytes": 10**6, "most_shared_bytes": 10**6, "timeout": 5.0, **more
    }  # fmt: skip
    return ValkeyReplies(url, clock=SystemClock(), chance=lambda: 0.5, **settings)


def run(work: Callable[[], Awaitable[None]], *caches: ValkeyReplies) -> None:
    async def all_of_it() -> None:
        try:
            await work()
        finally:
            for cache in caches:
                await cache.aclose()

    asyncio.run(all_of_it())


async def put(cache: ValkeyReplies, key: str = KEY, text: str = "fine", **more: Any) -> bool:
    found = await cache.look(key)
    return await cache.put(key, kept(VirtualClock(), answer(text), **more), mark=found.mark)


def given(cache: ValkeyReplies, found: Found) -> bool:
    """Whether what was found may be given although nothing has failed yet."""
    return found.kept is not None and cache._clock.wall() < found.kept.revalidate_until


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server hangs: it accepts, and never answers."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


# ── damage ──────────────────────────────────────────────────────────────────────────────────────


def garbled(value: bytes) -> dict[str, bytes]:
    at = len(value) - 3
    return {
        "a flipped byte": value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :],
        "cut": value[:-5],
        "of another version": value.replace(b" \x01\x00", b" \x63\x00", 1),
        "no frame": value.split(b"\x01")[0],
        "garbage": b"\x00\xff garbage",
        "empty": b"",
    }


@pytest.mark.parametrize(
    "kind", ["a flipped byte", "cut", "of another version", "no frame", "garbage", "empty"]
)
def test_a_damaged_entry_is_a_miss_and_goes(
    valkey_server: Server, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F37, X-22. Counted, told once, and the right to ask is free."""
    writer, reader = opened(valkey_server.url), opened(valkey_server.url)

    async def test() -> None:
        for key in (KEY, OTHER):
            assert await put(writer, key)
            with valkey_server.client() as client:
                (field,) = [name for name in client.hkeys(ENTRIES) if name.endswith(key.encode())]
                client.hset(ENTRIES, field, garbled(client.hget(ENTRIES, field))[kind])
                found = await reader.look(key, claim=30)
                assert found.kept is None
                assert not client.hexists(ENTRIES, field)
            again = found if found.token else await reader.look(key, claim=30)
            assert again.token
            assert await reader.put(key, kept(VirtualClock()), mark=again.mark, token=again.token)
            assert (await reader.look(key)).kept is not None

    with caplog.at_level(logging.WARNING, "headgate.stores"):
        run(test, writer, reader)
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert reader.figures().corrupt == 2 * len(said)
    assert len(said) <= 1


def test_an_answer_in_the_place_of_another_is_none(valkey_server: Server) -> None:
    writer, reader = opened(valkey_server.url), opened(valkey_server.url)

    async def test() -> None:
        await put(writer, KEY, "mine")
        await put(writer, OTHER, "theirs")
        with valkey_server.client() as client:
            fields = client.hkeys(ENTRIES)
            values = client.hmget(ENTRIES, fields)
            client.hset(ENTRIES, mapping=dict(zip(fields, reversed(values), strict=True)))
        assert (await reader.look(KEY)).kept is None
        assert (await reader.look(OTHER)).kept is None

    run(test, writer, reader)


def test_no_prompt_and_no_namespace_of_a_caller_is_part_of_a_key(valkey_server: Server) -> None:
    cache = opened(valkey_server.url)

    async def test() -> None:
        found = await cache.look(KEY, "of «ada»:\x00 {x}", claim=30)
        assert await cache.put(
            KEY, kept(VirtualClock()), namespace="of «ada»:\x00 {x}", mark=found.mark
        )
        with valkey_server.client() as client:
            said = b" ".join([*client.keys("*"), *client.hkeys(ENTRIES)])
        assert b"ada" not in said

    run(test, cache)


# ── away, slow, empty ───────────────────────────────────────────────────────────────────────────


def test_a_server_that_is_away_is_a_miss(caplog: pytest.LogCaptureFixture) -> None:
    """F1. Counted, told once; a copy in memory serves for a rescue and nothing else."""
    server = Server().start()
    cache = opened(server.url, timeout=0.5)

    async def test() -> None:
        assert await put(cache, fresh=60, rescue=60)
        assert (await cache.look(KEY)).kept is not None
        server.kill()
        for number in range(20):
            found = await cache.look(KEY, claim=30)
            assert found.kept is not None
            now = cache._clock.wall()
            assert found.kept.revalidate_until <= now < found.kept.rescue_until
            assert found.token == "", "nobody can be asked for the right: it is free"
            assert not given(cache, await cache.look(OTHER))
            stored = await cache.put(OTHER, kept(VirtualClock()), mark=found.mark)
            assert not stored, number
            await cache.release(KEY, "x")
        figures = cache.figures()
        assert figures.failed >= 40
        assert (figures.hits, figures.misses) == (1, 1 + 40)

    try:
        with caplog.at_level(logging.INFO, "headgate.stores"):
            run(test, cache)
    finally:
        server.close()
    said = [record for record in caplog.records if record.name == "headgate.stores"]
    assert 1 <= len(said) <= 6, "a line for the failure, one for the breaker, no more a second"


def test_a_server_that_hangs_costs_a_tenth_of_a_second_and_then_nothing(valkey_server: Server) -> None:
    """F3, F4: the breaker opens after three."""
    cache = opened(valkey_server.url, timeout=0.1)

    async def test() -> None:
        while not await put(cache):  # on a loaded machine it may take a while to connect in time
            pass
        with stopped(valkey_server):
            begun = time.monotonic()  # noqa: TID251 - a server that hangs takes real time
            for _ in range(50):
                assert not given(cache, await cache.look(KEY))
            taken = time.monotonic() - begun  # noqa: TID251
            assert cache.figures().failed >= 50
        assert taken < 50 * 0.1, "every look waited for its deadline"

    run(test, cache)


def test_a_flushed_server_is_a_miss_also_for_copies_in_memory(valkey_server: Server) -> None:
    """F7. What was kept, or under way, before the flush is not found after it."""
    cache, other = opened(valkey_server.url), opened(valkey_server.url)

    async def test() -> None:
        under_way = await cache.look(OTHER)
        for one in (cache, other):
            await put(one)
            assert (await one.look(KEY)).kept is not None
        with valkey_server.client() as client:
            client.flushall()
        assert (await cache.look(KEY)).kept is None
        assert (await other.look(KEY)).kept is None
        assert not await cache.put(OTHER, kept(VirtualClock()), mark=under_way.mark)
        assert await put(cache)
        assert (await other.look(KEY)).kept is not None

    run(test, cache, other)


@pytest.mark.parametrize("lost", [ENTRIES, NAMES], ids=["entries", "names"])
def test_a_part_of_the_state_that_was_evicted_is_a_miss(valkey_server: Server, lost: bytes) -> None:
    cache, other = opened(valkey_server.url), opened(valkey_server.url)

    async def test() -> None:
        await put(cache)
        with valkey_server.client() as client:
            client.delete(lost)
        assert (await other.look(KEY)).kept is None
        for number in range(5):
            assert await put(cache, f"{number:064x}")
        figures = await other.shared_figures()
        assert figures.entries == 5
        assert figures.bytes > 5 * 256
        assert await cache.clear() == 5
        assert await other.shared_figures() == (0, 0, 0)

    run(test, cache, other)


def test_a_server_without_memory_keeps_nothing_and_raises_nothing() -> None:
    """F5."""
    server = Server(maxmemory="1mb", maxmemory_policy="noeviction").start()
    cache = opened(server.url)

    async def test() -> None:
        assert not await put(cache, text="x" * 1000)
        assert not given(cache, await cache.look(KEY))
        assert cache.figures().failed > 0

    try:
        run(test, cache)
    finally:
        server.close()


def test_an_answer_that_is_too_large_is_not_sent(valkey_server: Server) -> None:
    cache = opened(valkey_server.url, most_bytes=10**9, most_shared_bytes=10**9)

    async def test() -> None:
        assert await put(cache, text=os.urandom(1_500_000).hex())
        assert not await put(cache, OTHER, text=os.urandom(4_000_000).hex())
        assert (await cache.look(OTHER)).kept is None

    run(test, cache)


# ── bounds, rights, what travels ────────────────────────────────────────────────────────────────


def test_the_server_holds_no_more_than_it_may(valkey_server: Server) -> None:
    """What would leave next goes first; the books of bytes agree with what is there."""
    place = OnValkey(valkey_server)
    cache = place.opened(most_shared_bytes=50_000)

    async def test() -> None:
        for number in range(200):
            found = await cache.look(f"{number:064x}")
            text = os.urandom(100 + number).hex()
            fresh = 1000.0 if number == 7 else 100.0 + number
            await cache.put(
                f"{number:064x}", kept(place.clock, answer(text), fresh=fresh), mark=found.mark
            )
        figures = await cache.shared_figures()
        with valkey_server.client() as client:
            values = client.hvals(ENTRIES)
            assert figures.entries == len(values) == client.zcard(b"{headgate:replies:0}x")
        assert figures.bytes == sum(map(len, values)) + 256 * len(values) <= 50_000
        fresh = place.opened()
        assert (await fresh.look(f"{7:064x}")).kept is not None
        assert (await fresh.look(f"{8:064x}")).kept is None
        assert (await fresh.look(f"{199:064x}")).kept is not None
        place.pass_time(500)
        for number in range(40):  # what has expired leaves a few at a time
            await put(cache, f"{1000 + number:064x}", fresh=10)
        assert (await cache.shared_figures()).entries == 41
        await fresh.aclose()

    place.run(test())


def test_a_right_to_ask_lapses_and_one_takes_over(valkey_server: Server) -> None:
    caches = [opened(valkey_server.url) for _ in range(5)]

    async def test() -> None:
        first = await caches[0].look(KEY, claim=CLAIM)
        assert first.token
        found: list[Found] = []
        while not any(one.token for one in found):
            found = await asyncio.gather(*(cache.look(KEY, claim=30) for cache in caches))
        assert sum(one.token is not None for one in found) == 1
        assert not await caches[0].renew(KEY, first.token, 30)

    run(test, *caches)


def test_a_copy_in_memory_is_given_without_the_answer_travelling(valkey_server: Server) -> None:
    cache = opened(valkey_server.url)

    async def test() -> None:
        await put(cache, text="x" * 5000)
        with valkey_server.client() as client:
            before = client.info("stats")["total_net_output_bytes"]
            for _ in range(20):
                found = await cache.look(KEY)
                assert found.kept is not None
                assert len(found.kept.reply.text) == 5000
            sent = client.info("stats")["total_net_output_bytes"] - before
        assert sent < 20 * 1000

    run(test, cache)


def test_many_looks_at_once_share_few_connections(valkey_server: Server) -> None:
    cache = opened(valkey_server.url)

    async def test() -> None:
        await asyncio.gather(*(cache.look(f"{number:064x}") for number in range(500)))
        with valkey_server.client() as client:
            assert client.info("clients")["connected_clients"] <= 33
        assert cache.figures().failed == 0

    run(test, cache)


def test_no_answer_reaches_another_in_a_storm_of_cancelled_looks(valkey_server: Server) -> None:
    """F10."""
    cache = opened(valkey_server.url, most_entries=0)
    keys = [f"{number:064x}" for number in range(20)]

    async def look(number: int) -> None:
        found = await cache.look(keys[number % 20])
        assert found.kept is not None
        assert found.kept.reply.text == f"answer {number % 20}"

    async def test() -> None:
        for number, key in enumerate(keys):
            await put(cache, key, f"answer {number}")
        for turn in range(10):
            tasks = [asyncio.ensure_future(look(number)) for number in range(60)]
            for _ in range(turn):
                await asyncio.sleep(0)  # noqa: TID251 - yields to the loop
            for task in tasks[::3]:
                task.cancel()
            said = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [one for one in said if isinstance(one, Exception)]
        assert cache.figures().corrupt == 0

    run(test, cache)


def test_threads_and_loops_share_a_cache(valkey_server: Server) -> None:
    cache = opened(valkey_server.url)

    async def once(number: int) -> None:
        key = f"{number % 4:064x}"
        found = await cache.look(key, claim=30)
        if found.kept is None:
            await cache.put(key, kept(VirtualClock()), mark=found.mark, token=found.token or "")

    async def many() -> None:
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, once(number)) for number in range(24)))

    run(many, cache)
    assert cache.figures().failed == 0


def test_on_a_cluster_its_parts_spread_over_the_nodes(nodes: list[Server]) -> None:
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    cache, other = opened(url), opened(url)
    keys = [f"{number:02x}".ljust(64, "0") for number in range(2 * SHARDS)]

    async def test() -> None:
        for number, key in enumerate(keys):
            found = await cache.look(key, f"n{number % 2}", claim=30)
            assert found.token
            stored = await cache.put(
                key, kept(VirtualClock()), namespace=f"n{number % 2}", mark=found.mark,
                token=found.token,
            )  # fmt: skip
            assert stored
            assert (await other.look(key, f"n{number % 2}")).kept is not None
        assert (await other.shared_figures())[::2] == (2 * SHARDS, 2)
        assert await cache.invalidate("n1") == SHARDS
        for number, key in enumerate(keys):
            assert ((await other.look(key, f"n{number % 2}")).kept is None) == (number % 2 == 1)
        assert await other.clear() == SHARDS

    run(test, cache, other)
    look_at_values(url)  # here, because a cluster takes long to stand
    held = []
    for node in nodes:
        with node.client() as client:
            held.append(client.dbsize())
    assert len(held) == 3


# ── two processes ───────────────────────────────────────────────────────────────────────────────

PROCESS = """
import asyncio, sys
from headgate.backend import BackendConfig, GeminiBackend, GeminiRequest

REQUEST = GeminiRequest("Explain tides", "gemini-3.8-flash")

async def main():
    config = BackendConfig(model_discovery=False, max_concurrent_requests=500, connection_pool_size=500)
    async with GeminiBackend(config) as backend:
        print("ready", flush=True)
        sys.stdin.readline()
        ask = backend.execute_gemini_enhanced
        answers = await asyncio.gather(*(ask(REQUEST) for _ in range(500)))
        assert len({answer.text for answer in answers}) == 1
        print(sum(not answer.cached for answer in answers), answers[0].text, flush=True)

asyncio.run(main())
"""


def test_a_thousand_identical_calls_of_two_processes_are_one(
    valkey_server: Server, tmp_path: Path
) -> None:
    """S3-28a, S3-03f, F36: one upstream call, one bill, the same answer a thousand times."""
    key = "AIzaCANARY-recall-0"
    config = EmulatorConfig(projects=[Project("alpha", {"k": key})])
    with Emulator(config).in_thread() as emulator:
        environ = {
            **os.environ,  # noqa: TID251 - what a process of its own gets
            "GEMINI_API_KEYS": f"{key}|k|alpha",
            "HEADGATE_GEMINI_BASE_URL": emulator.base_url,
            "HEADGATE_STORE": valkey_server.url,
            "HEADGATE_QUOTA_LEARNING": "false",
        }
        said = _together(environ, tmp_path)
        report = emulator.report()
    assert sum(int(line.split(" ", 1)[0]) for line in said) == 1
    assert len({line.split(" ", 1)[1] for line in said}) == 1
    assert report.totals.answered == 1


def _together(environ: dict[str, str], folder: Path) -> list[str]:
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=folder, env=environ, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for process in running:
            assert process.stdout is not None
            ready = process.stdout.readline()
            if ready != "ready\n":
                pytest.fail(f"a process did not begin: {process.communicate()[1]}")
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = []
        for process in running:
            out, problems = process.communicate(timeout=60)
            assert process.returncode == 0, problems
            said.append(out.strip())
        return said
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.skipif(
    not valkey.oldest_redis(), reason="after Python 3.11 there is no wheel of Redis 6.2"
)
def test_the_oldest_redis_does_all_of_it() -> None:
    server = Server(valkey.oldest_redis()).start()
    cache, other = opened(server.url), opened(server.url)

    async def test() -> None:
        for number in range(3):
            key, name = f"{number:064x}", f"n{number}"
            found = await cache.look(key, name, claim=30)
            assert found.token
            assert (await other.look(key, name, claim=30)).claimed
            assert await cache.renew(key, found.token, 30)
            assert await cache.put(
                key, kept(VirtualClock()), namespace=name, mark=found.mark, token=found.token
            )
            assert (await other.look(key, name)).kept is not None
        assert await other.invalidate("n1") == 1
        assert (await cache.look(f"{1:064x}", "n1")).kept is None
        assert (await other.shared_figures()).entries == 2
        assert await cache.clear() == 2
        assert (cache.figures().failed, other.figures().failed) == (0, 0)

    try:
        run(test, cache, other)
    finally:
        server.close()
