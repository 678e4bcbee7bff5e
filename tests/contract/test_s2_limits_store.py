"""S2-15, S2-17 and F1–F10: what a limiter does while its store is slow, dead, full or elsewhere."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry
from redis.exceptions import ReadOnlyError, RedisError
from tests import valkey
from tests.limits import PATIENT, samples
from tests.valkey import Server

from headgate.core.buckets import Ask
from headgate.core.errors import StoreError
from headgate.limits import RateLimiter, RateLimitExceeded
from headgate.policy.bucket import rule_of
from headgate.stores.buckets import RedisBuckets
from headgate.stores.guard import Breaker
from headgate.stores.line import StoreLine
from headgate.testing import VirtualClock

valkey_server = valkey.valkey_server

PREFIX = re.compile(r"rate_limit:\{(.*)\}:")


class FaultyClient:
    """A client whose scripts fail, or never end, as long as `fault` says so."""

    def __init__(self, fault: Exception | str | None) -> None:
        self.fault = fault
        self.calls = 0

    def register_script(self, _: str) -> Callable[..., Awaitable[list[str]]]:
        async def script(keys: list[str], args: list[str]) -> list[str]:
            del keys
            await self._suffer()
            return ["0", *("1 0 0 0" for _ in args)]

        return script

    async def smembers(self, _: str) -> set[str]:
        await self._suffer()
        return set()

    async def _suffer(self) -> None:
        self.calls += 1
        if self.fault == "hang":
            await asyncio.Event().wait()
        if isinstance(self.fault, Exception):
            raise self.fault


FAULTS = [
    RedisError("any"),
    redis.exceptions.ConnectionError("refused"),
    redis.exceptions.TimeoutError("slow"),
    redis.exceptions.OutOfMemoryError("OOM"),
    ReadOnlyError("READONLY"),
    OSError("no route"),
    RuntimeError("Event loop is closed"),
    TypeError("eval() missing numkeys"),
    "hang",
]


async def count(limiter: RateLimiter, most: int, tries: int, who: str = "user:1") -> int:
    passed = 0
    for _ in range(tries):
        try:
            await limiter.check_rate_limit(who, most, 60)
            passed += 1
        except RateLimitExceeded:
            pass
    return passed


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_s2_15_any_failure_lets_a_local_bucket_stand_in(
    fault: Exception | str, clock: VirtualClock
) -> None:
    registry = CollectorRegistry()
    limiter = RateLimiter(FaultyClient(fault), registry=registry, clock=clock)
    assert await count(limiter, 10, 15) == 10  # open, yet not without a limit
    counts = samples(registry, "cak_rate_limit_checks_total")
    assert counts == {("user", "allowed"): 0, ("user", "exceeded"): 5, ("user", "error"): 10}


async def test_s2_15_fail_closed_refuses_and_says_that_it_was_the_store(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    limiter = RateLimiter(FaultyClient(OSError()), registry=registry, fail_open=False, clock=clock)
    with pytest.raises(RateLimitExceeded) as refused:
        await limiter.check_rate_limit("user:1", 10, 60)
    assert str(refused.value) == "Rate limit exceeded. Retry after 1 seconds"
    assert (refused.value.kind, refused.value.http_status) == ("store", 503)
    assert isinstance(refused.value.__cause__, StoreError)
    assert samples(registry, "cak_rate_limit_checks_total")["user", "error"] == 1


async def test_s2_15_f4_a_store_that_hangs_costs_three_deadlines_then_nothing(
    clock: VirtualClock,
) -> None:
    client = FaultyClient("hang")
    limiter = RateLimiter(client, registry=CollectorRegistry(), clock=clock)
    waits = []
    for _ in range(20):
        before = clock.monotonic()
        await limiter.check_rate_limit("user:1", 100, 60)
        waits.append(clock.monotonic() - before)
    assert max(waits[:3]) == pytest.approx(0.09, abs=0.02)
    assert max(waits[3:]) < 0.01
    assert client.calls == 3


async def test_s2_15_f3_hundreds_who_wait_together_wait_one_deadline(clock: VirtualClock) -> None:
    client = FaultyClient("hang")
    limiter = RateLimiter(client, registry=CollectorRegistry(), clock=clock)
    before = clock.monotonic()
    await asyncio.gather(*(limiter.check_rate_limit("user:1", 1000, 60) for _ in range(500)))
    assert clock.monotonic() - before < 0.15
    assert client.calls == 1  # 64 of them in one call; the others are told with them


async def test_s2_15_the_breaker_probes_and_closes(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = FaultyClient(OSError("down"))
    limiter = RateLimiter(client, registry=CollectorRegistry(), clock=clock)
    with caplog.at_level(logging.DEBUG, "headgate"):
        await count(limiter, 10**6, 100)
        assert client.calls == 3
        await clock.sleep(10)
        for _ in range(100):
            await count(limiter, 10**6, 10)
            await clock.sleep(0.1)
        assert 3 + 6 <= client.calls <= 3 + 20  # once in half to one and a half seconds
        client.fault = None
        await clock.sleep(1.5)
        await count(limiter, 10**6, 10)
        assert client.calls > 12
    shown = [record for record in caplog.records if record.name == "headgate.stores"]
    said = [(record.levelname, record.getMessage().split()[1]) for record in shown]
    assert said == [("ERROR", "error=OSError"), ("WARNING", "breaker=open"), ("INFO", "breaker=closed")]
    assert "down" not in caplog.text  # what a server says may hold anything


def test_s2_15_probes_of_many_processes_are_spread() -> None:
    clock, chance = VirtualClock(), random.Random(1)  # noqa: TID251 - seeded
    moments = set()
    for _ in range(50):
        breaker = Breaker(clock, chance.random)
        for _ in range(3):
            breaker.bad(OSError())
        moments.add(round(breaker._probe_at - clock.monotonic(), 2))
    assert len(moments) > 30
    assert min(moments) >= 0.5
    assert max(moments) <= 1.5


async def test_s2_15_failing_now_and_then_opens_nothing_and_fills_no_log(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = FaultyClient(None)
    limiter = RateLimiter(client, registry=CollectorRegistry(), clock=clock)
    for number in range(100):
        client.fault = OSError() if number % 2 else None
        await count(limiter, 10**6, 1)
    assert client.calls == 100
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


async def test_s2_15_what_is_logged_names_nobody(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RateLimiter(registry=CollectorRegistry(), clock=clock, log_key=b"k")
    with caplog.at_level(logging.DEBUG, "headgate.limits"):
        await count(limiter, 1, 2, who="user:anna@example.org")
        await limiter.reset_limit("user:anna@example.org")
    mine = [record for record in caplog.records if record.name == "headgate.limits"]
    allowed, denied, reset = mine
    assert (allowed.levelname, denied.levelname, reset.levelname) == ("DEBUG", "WARNING", "INFO")
    assert "remaining_tokens=0.000" in allowed.getMessage()
    assert "retry_after=60" in denied.getMessage()
    assert "anna" not in caplog.text
    hashes = {re.search(r"identifier=(\w+)", record.getMessage())[1] for record in mine}  # type: ignore[index]
    assert len(hashes) == 1
    other = RateLimiter(registry=CollectorRegistry(), clock=clock, log_key=b"other")
    with caplog.at_level(logging.DEBUG, "headgate.limits"):
        await count(other, 1, 1, who="user:anna@example.org")
    assert not any(found in caplog.records[-1].getMessage() for found in hashes)


async def test_s2_16_status_of_a_failed_store(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    limiter = RateLimiter(FaultyClient(OSError()), registry=registry, clock=clock)
    assert await limiter.get_limit_status("user:1", 10, 60) == {
        "tokens_remaining": None,
        "reset_time": None,
        "total_limit": 10,
        "error": "The store failed: OSError.",
    }


async def test_s2_17_reset_raises_when_it_could_not(clock: VirtualClock) -> None:
    client = FaultyClient(OSError())
    limiter = RateLimiter(client, registry=CollectorRegistry(), clock=clock)
    assert await count(limiter, 2, 3) == 2
    with pytest.raises(StoreError):
        await limiter.reset_limit("user:1")
    assert await count(limiter, 2, 3) == 2  # the bucket that stands in was reset all the same


async def test_a_caller_who_leaves_before_it_was_asked_takes_nothing(clock: VirtualClock) -> None:
    client = FaultyClient(None)
    limiter = RateLimiter(client, registry=CollectorRegistry(), clock=clock)
    check = asyncio.ensure_future(limiter.check_rate_limit("user:1", 10, 60))
    await asyncio.sleep(0)  # noqa: TID251
    check.cancel()
    await asyncio.gather(check, return_exceptions=True)
    await clock.sleep(0.01)
    assert client.calls == 0


# ── real servers, real time ─────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def limiter_on(server: Server, **options: Any) -> Any:
    async with (
        redis.asyncio.Redis(unix_socket_path=server.path) as client,
        RateLimiter(client, **{"registry": CollectorRegistry(), **options}) as limiter,
    ):
        yield limiter, client


def test_f10_a_storm_of_cancelled_checks_never_mixes_replies(valkey_server: Server) -> None:
    """10,000 checks, two of three cancelled anywhere in flight. Each identifier has a limit of its
    own, so a reply that reached another caller would show another number."""
    chance = random.Random(7)  # noqa: TID251 - seeded

    async def one(limiter: RateLimiter, number: int) -> int | None:
        limit = 1000 + number
        decision = await limiter.decide(f"user:{number}", [(limit, 3600)])
        assert decision.limits[0].tokens == limit - 1, "somebody else's reply"
        return number

    async def main() -> None:
        async with limiter_on(valkey_server, store_timeout=PATIENT) as (limiter, client):
            answered = 0
            for wave in range(20):
                numbers = range(wave * 500, wave * 500 + 500)
                checks = [asyncio.ensure_future(one(limiter, number)) for number in numbers]
                for check in checks:
                    if chance.random() < 0.1:
                        await asyncio.sleep(0)  # noqa: TID251 - cancel at every stage of the way
                    if chance.random() < 0.66:
                        check.cancel()
                results = await asyncio.gather(*checks, return_exceptions=True)
                wrong = [r for r in results if isinstance(r, Exception)]
                assert not wrong
                answered += sum(isinstance(result, int) for result in results)
            assert answered > 2000
            # The caller's own commands on the same client are still answered with their own replies.
            for number in range(100):
                assert await client.echo(f"{number}") == f"{number}".encode()

    asyncio.run(main())


def test_f10_a_command_broken_off_in_mid_reply_leaves_no_reply_behind(valkey_server: Server) -> None:
    """What a deadline does to a command, at every stage of its way: the connection goes with it."""

    async def main() -> None:
        async with redis.asyncio.Redis(unix_socket_path=valkey_server.path) as client:
            line = StoreLine(client, clock=VirtualClock(), chance=lambda: 0.5, timeout=PATIENT)
            buckets = RedisBuckets(line)
            answered = 0
            for number in range(1000):
                ask = Ask(f"user:{number}", (rule_of(1000 + number, 3600),))
                command = line.own(line.bounded(partial(buckets._send, [ask])))
                for _ in range(number % 20):
                    await asyncio.sleep(0)  # noqa: TID251
                if number % 7:
                    command.cancel()
                (result,) = await asyncio.gather(command, return_exceptions=True)
                if not isinstance(result, asyncio.CancelledError):
                    answered += 1
                    assert result[0].levels[0].whole == 999 + number, "somebody else's reply"
            assert 140 < answered < 1000
            assert await client.echo("own") == b"own"

    asyncio.run(main())


@pytest.fixture
def own_server() -> Iterator[Server]:
    server = Server().start()
    yield server
    server.close()


def test_f4_a_server_that_hangs(own_server: Server) -> None:
    async def main() -> None:
        async with limiter_on(own_server) as (limiter, _):
            assert await count(limiter, 100, 1) == 1
            os.kill(own_server.pid, signal.SIGSTOP)
            try:
                assert await count(limiter, 100, 60) == 60  # the bucket of this process
            finally:
                os.kill(own_server.pid, signal.SIGCONT)

    asyncio.run(main())


def test_f1_a_server_that_is_killed_and_comes_back(own_server: Server) -> None:
    async def main() -> None:
        async with limiter_on(own_server) as (limiter, client):
            assert await count(limiter, 5, 6) == 5
            own_server.kill()
            assert await count(limiter, 5, 6) == 5  # the bucket of this process
            own_server.start()
            for _ in range(50):
                await asyncio.sleep(0.1)  # noqa: TID251 - the probe comes in half to one and a half
                await count(limiter, 10**6, 1, who="user:2")
                if await client.exists("rate_limit:{user:2}:1000000:60000"):
                    return
            pytest.fail("the limiter did not come back to its store within 5 s")

    asyncio.run(main())


@pytest.mark.parametrize("setting", [("maxmemory", "1"), ("min-replicas-to-write", "1")])
def test_f5_f6_a_server_that_refuses_to_write(own_server: Server, setting: tuple[str, str]) -> None:
    """Out of memory; not enough replicas: like READONLY an error reply, and nothing was taken."""

    async def main() -> None:
        registry = CollectorRegistry()
        async with limiter_on(own_server, registry=registry) as (limiter, client):
            await client.config_set(*setting)
            assert await count(limiter, 2, 3) == 2
            assert samples(registry, "cak_rate_limit_checks_total")["user", "error"] == 2
            await client.config_set(setting[0], "0")
            assert await client.keys("*") == []

    asyncio.run(main())


def test_f9_a_pool_without_a_connection_left(valkey_server: Server) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(unix_socket_path=valkey_server.path, max_connections=1)
        limiter = RateLimiter(client, registry=CollectorRegistry())
        taken = await client.connection_pool.get_connection()
        assert await count(limiter, 2, 3) == 2  # decided here
        await client.connection_pool.release(taken)
        await client.aclose()

    asyncio.run(main())


def test_x31_an_account_that_may_touch_its_prefix_only_is_enough(own_server: Server) -> None:
    commands = "+evalsha +script|load +time +hmget +hset +pexpire +pttl +sadd +smembers +srem +del"

    async def main() -> None:
        async with redis.asyncio.Redis(unix_socket_path=own_server.path) as admin:
            await admin.execute_command(
                "ACL", "SETUSER", "limits", "on", ">pw", "~rate_limit:*", "-@all", *commands.split(),
                "+client|setinfo", "+hello",
            )  # fmt: skip
        registry = CollectorRegistry()
        async with redis.asyncio.Redis(
            unix_socket_path=own_server.path, username="limits", password="pw"
        ) as client:
            limiter = RateLimiter(client, registry=registry, store_timeout=PATIENT)
            assert await count(limiter, 2, 3) == 2
            await limiter.reset_limit("user:1")
            assert await count(limiter, 2, 3) == 2
        assert samples(registry, "cak_rate_limit_checks_total")["user", "error"] == 0

    asyncio.run(main())


def test_a_limiter_lives_on_in_a_second_event_loop(valkey_server: Server) -> None:
    registry = CollectorRegistry()
    client = redis.asyncio.Redis(unix_socket_path=valkey_server.path)
    limiter = RateLimiter(client, registry=registry, store_timeout=PATIENT)

    async def main(last: bool) -> int:
        passed = await count(limiter, 10, 4)
        await client.connection_pool.disconnect() if not last else await client.aclose()
        return passed

    assert [asyncio.run(main(last=number == 2)) for number in range(3)] == [4, 4, 2]
    assert samples(registry, "cak_rate_limit_checks_total")["user", "error"] == 0


LOOPS_THAT_GO = """
import asyncio, sys
import redis.asyncio
from prometheus_client import CollectorRegistry
from headgate.limits import RateLimiter

registry = CollectorRegistry()
client = redis.asyncio.Redis(unix_socket_path=sys.argv[1])
limiter = RateLimiter(client, registry=registry, store_timeout=float(sys.argv[2]))

async def passed(times):
    decisions = [await limiter.decide("user:1", [(10, 60)]) for _ in range(times)]
    return sum(decision.allowed for decision in decisions)

print([asyncio.run(passed(4)) for _ in range(3)], end=' ')
labels = {"identifier": "user", "result": "error"}
print(registry.get_sample_value("cak_rate_limit_checks_total", labels))
"""


def test_connections_left_open_in_a_loop_that_is_gone_are_forgotten(valkey_server: Server) -> None:
    # A process of its own: redis-py warns of sockets whose loop is gone whenever they are collected,
    # and in this process that would be in the middle of some other test.
    program = [sys.executable, "-W", "ignore", "-c", LOOPS_THAT_GO, valkey_server.path, str(PATIENT)]
    said = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "[4, 4, 2] 0\n"


# ── cluster ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cluster() -> Iterator[Server]:
    """One node that holds every slot: enough for it to refuse keys of two slots in one script."""
    server = Server(tcp=True, cluster_enabled="yes", cluster_port=str(valkey.free_port())).start()
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    yield server
    server.close()


async def until_ready(client: Any) -> None:
    for _ in range(100):
        try:
            await client.set("ready", "1")
        except (RedisError, OSError):
            await asyncio.sleep(0.05)  # noqa: TID251 - a real server
        else:
            await client.delete("ready")
            return
    pytest.fail("the cluster did not come up")


def test_s2_14_on_a_cluster_the_buckets_of_an_identifier_share_a_slot(cluster: Server) -> None:
    async def main() -> None:
        async with redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster.port) as client:
            await until_ready(client)
            registry = CollectorRegistry()
            limiter = RateLimiter(client, registry=registry, store_timeout=PATIENT)
            both = [(2, 60), (3, 3600)]
            tries = [limiter.decide(f"user:{n % 40}", both) for n in range(160)]
            decisions = await asyncio.gather(*tries)
            assert sum(decision.allowed for decision in decisions) == 80
            await limiter.reset_limit("user:1")
            assert (await limiter.decide("user:1", both)).allowed
            assert (await limiter.get_limit_status("user:1", 2, 60))["tokens_remaining"] == 1
            assert samples(registry, "cak_rate_limit_checks_total")["user", "error"] == 0
            await limiter.aclose()

    asyncio.run(main())


def test_a_cluster_behind_one_address_is_noticed(cluster: Server) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis(port=cluster.port) as client:
            await until_ready(client)
            registry = CollectorRegistry()
            limiter = RateLimiter(client, registry=registry, store_timeout=PATIENT)
            for _ in range(3):
                tries = [limiter.decide(f"user:{n % 40}", [(2, 60)]) for n in range(160)]
                await asyncio.gather(*tries)
            counts = samples(registry, "cak_rate_limit_checks_total")
            assert counts == {
                ("user", "allowed"): 80,
                ("user", "exceeded"): 400,
                ("user", "error"): 0,
            }
            await limiter.aclose()

    asyncio.run(main())
