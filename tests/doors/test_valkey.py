"""The shared store on real servers: cancelled, slow, dead, empty, full, restricted. In real time."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random  # noqa: TID251 - seeded
from threading import Thread
from typing import Any, TypeVar

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

T = TypeVar("T")

SLOTS = [Limit("slots", Counts.SLOTS, 100_000, Kind.CONCURRENT)]
ONE = {Counts.SLOTS: 1}
CANCELLED = 10_000
"""Commands a storm breaks off (issue 3, "When the store is slow …")."""

PATIENT = 10.0
"""Seconds a call may take where a test is not about deadlines: machines of CI are slow."""


@pytest.fixture(autouse=True)
def no_socket_left() -> Iterator[None]:
    """What a test leaves open is found in that test, not in whichever makes the most garbage next.

    These storms do: they were red, every other run, for sockets that others had left behind.
    """
    yield
    gc.collect()


class Leaping:
    """A clock that stands still and leaps over what a test need not wait for: no load hurries it."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._began = time.time()  # noqa: TID251 - the server's days are the real ones

    def monotonic(self) -> float:
        return self.ahead

    def wall(self) -> float:
        return self._began + self.ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251


def store_on(server: Server | str, timeout: float = PATIENT, **more: Any) -> ValkeyStore:
    url = server if isinstance(server, str) else server.url
    more.setdefault("clock", Leaping())
    return ValkeyStore(url, chance=Random(1).random, timeout=timeout, **more)


async def ask(store: ValkeyStore, rid: str, group: str = "g", **more: Any) -> Grant | Refusal:
    reply = await store.transact(group, Batch(asks=(Ask(rid, ONE, **more),)))
    return reply.answers[0]


async def free_again(store: ValkeyStore, clock: Leaping) -> BatchReply:
    """As soon as the store answers."""
    return await patiently(clock, lambda: store.transact("g", Batch()))


def settled(*rids: str) -> Batch:
    return Batch(settles=tuple(Settlement(rid, {}) for rid in rids))


async def patiently(clock: Leaping, command: Callable[[], Awaitable[T]]) -> T:
    """Ask until the store answers; the breaker's waits are leapt over."""
    for _ in range(200):
        try:
            return await command()
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
    """Broken off at every stage: before it is sent, while it is, before the reply and within it.

    Stages are rounds of the event loop, not moments, so that a slow machine breaks off as many.
    """
    chance, fates, rounds = Random(7), Counter[str](), 12
    share = 90 // rounds + 1

    async def main() -> None:
        link = Address(valkey_server.url).link(PATIENT)

        async def one(number: int) -> None:
            text = b"%d." % number * (1 + number % 50)
            fates["right" if await link.run("ECHO", text) == text else "wrong"] += 1

        while fates["broken off"] < CANCELLED:
            fates["staying"] += 10
            tasks = [asyncio.ensure_future(one(fates.total() + step)) for step in range(100)]
            leaving = chance.sample(tasks, 90)
            for _ in range(rounds):
                for task in leaving[:share]:
                    fates["broken off"] += task.cancel()
                del leaving[:share]
                await asyncio.sleep(chance.choice([0, 0, 0.0002]))  # noqa: TID251 - a round
            done, _ = await asyncio.wait(tasks)
            assert not [task for task in done if not task.cancelled() and task.exception()]
        await link.aclose()

    asyncio.run(main())
    assert fates["wrong"] == 0
    assert fates["right"] >= fates["staying"], "who stays is answered"


def test_a_server_that_hangs_in_mid_command_keeps_no_socket_open(valkey_server: Server) -> None:
    """What is not yet written when a call is broken off is dropped: closing would wait for it."""

    async def main() -> None:
        link = Address(valkey_server.url).link(PATIENT)
        assert await link.run("ECHO", b"before") == b"before"
        for size in (10, 20_000_000):  # the latter is more than a socket takes
            os.kill(valkey_server.pid, signal.SIGSTOP)
            try:
                call = asyncio.ensure_future(link.run("ECHO", b"x" * size))
                await asyncio.sleep(0.02)  # noqa: TID251
                call.cancel()
                await asyncio.wait([call])
            finally:
                os.kill(valkey_server.pid, signal.SIGCONT)
        await link.aclose()

    asyncio.run(main())
    gc.collect()  # an open socket warns, and a warning is an error


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


def test_what_is_owed_is_told_when_the_store_is_closed(valkey_server: Server) -> None:
    """A caller who left got a grant; the process ends, and nobody has to wait until it lapses."""

    async def main() -> None:
        store = store_on(valkey_server)
        await store.declare("g", [SLOTS])
        assert isinstance(await ask(store, "a1"), Grant)
        store._owed["g"].keep(Batch(cancels=("a1",)))
        await store.aclose()

    asyncio.run(main())
    with valkey_server.client() as client:
        assert not client.hexists("{g}st", "ra1")


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


def test_a_loop_that_is_busy_for_longer_than_the_deadline_does_not_blame_the_store(
    valkey_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """At every call the loop is away for two deadlines, as the reply comes in: none is given up."""

    async def main() -> None:
        store = store_on(valkey_server, 0.3)
        await store.declare("g", [SLOTS])
        for turn in range(3):
            call = asyncio.ensure_future(ask(store, f"{turn:x}"))
            for _ in range(turn):  # ever later in the call
                await asyncio.sleep(0)  # noqa: TID251
            time.sleep(0.6)  # noqa: TID251, ASYNC251 - the loop is held up: that is the point
            assert isinstance(await call, Grant)
        await store.aclose()

    asyncio.run(main())
    assert not [record for record in caplog.records if record.name == "headgate.stores"]


def test_a_loop_that_ends_while_a_connection_is_being_opened_leaves_no_socket(
    valkey_server: Server,
) -> None:
    async def main(url: str) -> None:
        link = Address(url).link(PATIENT)
        call = asyncio.ensure_future(link.run("ECHO", b"x"))
        await asyncio.sleep(0.02)  # noqa: TID251
        call.cancel()  # and the connection goes on being opened, until the loop ends

    with valkey_server.client() as client:
        client.acl_setuser("late", enabled=True, passwords=["+CANARY-late"], commands=["+echo"])
    os.kill(valkey_server.pid, signal.SIGSTOP)
    try:
        asyncio.run(main(f"unix://late:CANARY-late@{valkey_server.path}"))
        gc.collect()
    finally:
        os.kill(valkey_server.pid, signal.SIGCONT)
    with valkey_server.client() as client:
        client.acl_deluser("late")


# ── a store that does not answer ────────────────────────────────────────────────────────────────


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


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    finally:
        writer.transport.abort()


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl on PATH")
def test_over_tls_it_answers_and_what_is_broken_off_is_cut(
    valkey_server: Server, tmp_path: Path
) -> None:
    """TLS ends at a proxy beside the server, as it does before many a managed one."""
    subject = ["-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    where = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*make, *subject, *where], check=True, capture_output=True)
    secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secured.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner = await asyncio.open_unix_connection(valkey_server.path)
            ways = (carry(reader, inner[1]), carry(inner[0], writer))
            await asyncio.gather(*ways, return_exceptions=True)

        proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secured)
        place = f"rediss://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        store = store_on(f"{place}?ssl_ca_certs={tmp_path / 'cert.pem'}")
        await store.declare("g", [SLOTS])
        assert isinstance(await ask(store, "a1"), Grant)
        link = (await store._here()).link
        for _ in range(8):
            call = asyncio.ensure_future(link.run("ECHO", b"x" * 1_000_000))
            await asyncio.sleep(0.001)  # noqa: TID251
            call.cancel()
            await asyncio.wait([call])
            assert await link.run("ECHO", b"after") == b"after"
        with pytest.raises(StoreError):
            await store_on(place).declare("g", [SLOTS])  # nobody it knows vouches for it
        await store.aclose()
        proxy.close()
        await proxy.wait_closed()

    asyncio.run(main())


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
