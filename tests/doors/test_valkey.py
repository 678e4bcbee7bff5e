"""The shared store on real servers: cancelled, slow, dead, empty, full, restricted. In real time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from random import Random  # noqa: TID251 - seeded
from threading import Thread
from typing import Any

import pytest
import redis
from tests import valkey
from tests.valkey import TIMED_SCRIPT, Server, set_time

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.quota import (
    Ask,
    Batch,
    BatchReply,
    Counts,
    Grant,
    Kind,
    Limit,
    Penalty,
    Refusal,
    Settlement,
)
from headgate.stores.valkey import ValkeyStore
from headgate.stores.valkey_link import Address

valkey_server = valkey.valkey_server

SLOTS = [Limit("slots", Counts.SLOTS, 100_000, Kind.CONCURRENT)]
ONE = {Counts.SLOTS: 1}
PATIENT = 10.0
"""Seconds a call may take where a test is not about deadlines: machines of CI are slow."""


class Leaping:
    """The real clock, and leaps over what a test need not wait for."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead  # noqa: TID251

    def wall(self) -> float:
        return time.time() + self.ahead  # noqa: TID251

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251


def store_on(server: Server | str, timeout: float = PATIENT, **more: Any) -> ValkeyStore:
    url = server if isinstance(server, str) else server.url
    more.setdefault("clock", Leaping())
    return ValkeyStore(url, chance=Random(1).random, timeout=timeout, **more)


async def ask(store: ValkeyStore, rid: str, group: str = "g", **more: Any) -> Grant | Refusal:
    reply = await store.transact(group, Batch(asks=(Ask(rid, ONE, **more),)))
    return reply.answers[0]


def settled(*rids: str) -> Batch:
    return Batch(settles=tuple(Settlement(rid, {}) for rid in rids))


async def free_again(store: ValkeyStore, clock: Leaping, group: str = "g") -> BatchReply:
    """Ask until the store answers; the breaker's waits are leapt over."""
    for _ in range(200):
        try:
            return await store.transact(group, Batch())
        except StoreError:
            clock.ahead += 2.0
            await asyncio.sleep(0.02)  # noqa: TID251
    raise AssertionError("the store did not come back")


def counting(store: ValkeyStore, calls: list[str]) -> Callable[[], Awaitable[None]]:
    """Note every command of the running loop."""

    async def begin() -> None:
        link = (await store._here()).link
        run = link.run

        async def noted(*words: str | int | bytes) -> Any:
            calls.append(str(words[0]))
            return await run(*words)

        link.run = noted  # type: ignore[method-assign]

    return begin


# ── nobody gets another's reply ─────────────────────────────────────────────────────────────────


def test_no_reply_reaches_another_caller_in_a_storm_of_cancelled_commands(
    valkey_server: Server,
) -> None:
    chance, got = Random(7), []

    async def main() -> None:
        link = Address(valkey_server.url).link(PATIENT)

        async def one(number: int) -> None:
            text = f"{number}".encode()
            got.append((text, await link.run("ECHO", text)))

        for wave in range(60):
            tasks = [asyncio.ensure_future(one(wave * 100 + step)) for step in range(100)]
            for task in chance.sample(tasks, 90):
                asyncio.get_running_loop().call_later(chance.random() * 0.01, task.cancel)
            await asyncio.wait(tasks)
        await link.aclose()

    asyncio.run(main())
    assert len(got) >= 600
    assert all(sent == reply for sent, reply in got)


def test_callers_that_leave_disturb_nobody_and_give_back_what_they_got(valkey_server: Server) -> None:
    chance, domains, kept = Random(11), 40, []

    async def main() -> None:
        store = store_on(valkey_server)
        await store.declare("g", [SLOTS] * domains)

        async def one(number: int) -> None:
            home = number % domains
            others = [other for other in range(domains) if other != home]
            answer = await ask(store, f"{number:x}", exclude=others)
            assert isinstance(answer, Grant)
            assert (answer.rid, answer.domain) == (f"{number:x}", home)
            kept.append(answer)

        for wave in range(30):
            tasks = [asyncio.ensure_future(one(wave * 100 + step)) for step in range(100)]
            for task in chance.sample(tasks, 80):
                asyncio.get_running_loop().call_later(chance.random() * 0.02, task.cancel)
            done, _ = await asyncio.wait(tasks)
            assert not [task for task in done if not task.cancelled() and task.exception()]
        await store.transact("g", Batch())
        await store.aclose()

    asyncio.run(main())
    with valkey_server.client() as client:
        held = [name for name in client.hkeys("{g}st") if name[:1] == b"r"]
    assert len(held) == len(kept)
    assert {name[1:].decode() for name in held} == {grant.rid for grant in kept}


def test_waiting_callers_share_a_call(valkey_server: Server) -> None:
    calls: list[str] = []

    async def main() -> list[Grant | Refusal]:
        store = store_on(valkey_server)
        await store.declare("g", [SLOTS])
        await counting(store, calls)()
        answers = await asyncio.gather(*(ask(store, f"{number:x}") for number in range(200)))
        await store.aclose()
        return answers

    answers = asyncio.run(main())
    assert [answer.rid for answer in answers if isinstance(answer, Grant)] == [
        f"{number:x}" for number in range(200)
    ]
    assert len(calls) == 4, "200 asks in calls of at most 64"


def test_loops_and_threads_share_a_store(valkey_server: Server) -> None:
    store = store_on(valkey_server)
    granted: list[Grant | Refusal] = []

    async def main(name: str) -> None:
        await store.declare("g", [SLOTS])
        granted.extend(await asyncio.gather(*(ask(store, f"{name}{turn:x}") for turn in range(50))))

    def loop(name: str) -> None:
        asyncio.run(main(name))  # and it is never closed by hand

    threads = [Thread(target=loop, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop("d")
    assert len({answer.rid for answer in granted if isinstance(answer, Grant)}) == 200


# ── a store that does not answer ────────────────────────────────────────────────────────────────


def test_a_slow_server_is_given_up_within_the_deadline(valkey_server: Server) -> None:
    clock = Leaping()

    def sleep() -> None:
        with valkey_server.client() as client:
            client.execute_command("DEBUG", "SLEEP", "1.5")

    async def main() -> None:
        store = store_on(valkey_server, 0.15, clock=clock)
        await store.declare("g", [SLOTS])
        assert isinstance(await ask(store, "a1"), Grant)
        sleeper = Thread(target=sleep)
        sleeper.start()
        await asyncio.sleep(0.1)  # noqa: TID251
        begun, failures = time.monotonic(), []  # noqa: TID251
        many = (store.transact("g", settled("a1")) for _ in range(50))
        failures += await asyncio.gather(*many, return_exceptions=True)
        assert time.monotonic() - begun < 1.0, "nobody waits for the server"  # noqa: TID251
        assert all(isinstance(failure, StoreError) for failure in failures)
        sleeper.join()
        await free_again(store, clock)
        await store.aclose()

    asyncio.run(main())
    with valkey_server.client() as client:
        assert not client.hexists("{g}st", "ra1"), "the settlement rode along with the next call"


def test_a_dead_server_is_left_alone_and_found_again(caplog: pytest.LogCaptureFixture) -> None:
    server, clock, calls = Server().start(), Leaping(), []

    async def main() -> None:
        store = store_on(server, 0.5, clock=clock)
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
        store = store_on(server, 0.5, clock=clock)
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


# ── what the script is allowed, and what it costs ───────────────────────────────────────────────


def test_a_user_who_may_touch_only_the_groups_keys_is_enough(valkey_server: Server) -> None:
    async def main(url: str) -> None:
        store = store_on(url)
        with pytest.raises(StoreError, match="NOPERM"):
            await store.declare("other", [SLOTS])
        await store.declare("g", [[*SLOTS, Limit("rpm", Counts.REQUESTS, 9)]] * 5)
        both = {**ONE, Counts.REQUESTS: 1}
        asks = tuple(Ask(f"a{turn}", both) for turn in range(60))
        reply = await store.transact("g", Batch(asks=asks))
        assert sum(isinstance(answer, Grant) for answer in reply.answers) == 45
        await store.transact("g", settled("a1", "a2"))
        await store.aclose()

    with valkey_server.client() as client:
        words = "evalsha eval hmget hget hset hdel time zadd zrem zcount zrange zrangebyscore"
        commands = [f"+{word}" for word in (words + " zremrangebyrank del pexpire").split()]
        client.acl_setuser(
            "app", enabled=True, passwords=["+CANARY-store"], keys=["{g}*"], commands=commands
        )
        try:
            asyncio.run(main(f"unix://app:CANARY-store@{valkey_server.path}"))
        finally:
            client.acl_deluser("app")


def test_what_was_not_let_go_in_time_is_not_charged_to_the_past(valkey_server: Server) -> None:
    """A call lets go of 256 things that are due. What is due and still there holds nothing new."""
    start = 1_795_262_400_000
    tokens = Limit("tpm", Counts.INPUT, 100)

    async def main() -> None:
        store = store_on(valkey_server, script=TIMED_SCRIPT)
        set_time(valkey_server, start)
        await store.declare("g", [[tokens]] * 300)
        asks = tuple(Ask(f"{number:x}", {Counts.INPUT: 10}, prefer=number) for number in range(300))
        reply = await store.transact("g", Batch(asks=asks))
        domains = [answer.domain for answer in reply.answers if isinstance(answer, Grant)]
        assert domains == [*range(300)]
        set_time(valkey_server, start + 62_000)
        settle = Settlement(f"{299:x}", {Counts.INPUT: 95})
        await store.transact("g", Batch(settles=(settle,)))
        await store.transact("g", Batch())
        late = Ask("late", {Counts.INPUT: 20}, prefer=299)
        reply = await store.transact("g", Batch(asks=(late,)))
        assert isinstance(reply.answers[0], Grant)
        assert reply.answers[0].domain != 299, "there the 85 on top are held from now on"
        await store.aclose()

    asyncio.run(main())


@pytest.fixture
def counted(valkey_server: Server) -> Callable[[int], float]:
    """Commands within the script per admission, for a number of domains loaded alike."""
    now = 1_795_262_400_000

    def measure(domains: int) -> float:
        nonlocal now
        limits = [
            Limit("rpm", Counts.REQUESTS, 60),
            Limit("tpm", Counts.INPUT, 60_000),
            Limit("rpd", Counts.REQUESTS, 10_000, Kind.CALENDAR),
        ]
        costs = {Counts.REQUESTS: 1, Counts.INPUT: 700}

        async def main(client: redis.Redis) -> float:
            nonlocal now
            store = store_on(valkey_server, script=TIMED_SCRIPT)
            set_time(valkey_server, now)
            await store.declare("g", [limits] * domains)
            grants = 0
            for turn in range(700):
                if turn == 350:
                    client.config_resetstat()
                    grants = 0
                now += max(1, 2000 // domains)  # half a request per domain and second
                set_time(valkey_server, now)
                settles = (Settlement(f"{turn - 3:x}", costs),) if turn > 2 else ()
                batch = Batch(settles, asks=(Ask(f"{turn:x}", costs),), seed=turn + 1)
                grants += isinstance((await store.transact("g", batch)).answers[0], Grant)
            await store.aclose()
            stats = client.info("commandstats")
            skip = ("cmdstat_evalsha", "cmdstat_set", "cmdstat_get", "cmdstat_info", "cmdstat_config")
            calls = sum(stat["calls"] for name, stat in stats.items() if not name.startswith(skip))
            return float(calls / grants)

        with valkey_server.client() as client:
            client.flushall()
            return asyncio.run(main(client))

    return measure


def test_an_admission_costs_the_same_in_a_large_group(counted: Callable[[int], float]) -> None:
    small, large = counted(10), counted(2000)
    assert large <= 1.2 * small
    assert large < 30


# ── what it connects to ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "shown", "cluster"),
    [
        ("redis://:CANARY@host:7000/2", "host:7000", False),
        ("valkey://user:CANARY@host", "host", False),
        ("rediss://host?ssl_cert_reqs=none&protocol=3", "host", False),
        ("valkeys://host", "host", False),
        ("unix://user:CANARY@/run/s?db=1", "/run/s", False),
        ("valkey+unix:///run/s", "/run/s", False),
        ("redis+cluster://user:CANARY@a:1,b:2", "a:1,b:2", True),
        ("rediss+cluster://a", "a", True),
    ],
)
def test_addresses_are_read_and_show_no_credential(url: str, shown: str, cluster: bool) -> None:
    address = Address(url)
    assert address.cluster == cluster
    assert shown in str(address)
    assert "CANARY" not in str(address) + repr(store_on(url))

    async def main() -> None:
        link = address.link(0.1)
        await link.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["", "host", "http://host", "redis+x://h", "unix+cluster:///s",
                                 "redis://CANARY@host:no", "redis://host?db=CANARY"])  # fmt: skip
def test_other_addresses_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        store_on(url)
    assert "CANARY" not in str(failure.value)


class Told:
    """A link to a server that says what a test tells it to say."""

    def __init__(self, **facts: str) -> None:
        self._facts = facts

    async def facts(self) -> dict[str, str]:
        return self._facts

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("facts", "fits"),
    [
        ({"redis_version": "6.2.0"}, True),
        ({"redis_version": "6.0.16"}, False),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}, True),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.1.9"}, False),
        ({"redis_version": "255.255.255"}, True),
    ],
)
def test_a_server_that_is_too_old_is_refused(facts: dict[str, str], fits: bool) -> None:
    store = store_on("redis://host")
    if fits:
        asyncio.run(store._examine(Told(**facts)))
    else:
        with pytest.raises(ConfigurationError, match=r"must be Redis 6\.2"):
            asyncio.run(store._examine(Told(**facts)))


def test_a_server_that_may_forget_is_warned_of_once(
    valkey_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store = store_on(valkey_server)
        for group in "abc":
            await store.declare(group, [SLOTS])
        await store.aclose()

    with valkey_server.client() as client, caplog.at_level(logging.WARNING):
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            asyncio.run(main())
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    warnings = [record for record in caplog.records if "maxmemory_policy=allkeys-lru" in record.message]
    assert len(warnings) == 1


def test_penalties_of_unknown_domains_are_ignored(valkey_server: Server) -> None:
    async def main() -> None:
        store = store_on(valkey_server)
        await store.declare("g", [SLOTS])
        await store.transact("g", Batch(penalties=(Penalty(7, shut=True),)))
        assert isinstance(await ask(store, "a1", prefer=7), Grant)
        await store.aclose()

    asyncio.run(main())
