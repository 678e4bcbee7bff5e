"""The shared store on real servers: cancelled callers, loops, threads, costs. In real time."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from random import Random  # noqa: TID251 - seeded
from threading import Thread

import pytest
import redis
from tests import valkey, valkey_callers
from tests.valkey import TIMED_SCRIPT, Server, set_time
from tests.valkey_callers import CANCELLED, PATIENT, SLOTS, ask, counting, store_on

from headgate.core.quota import (
    Ask,
    Batch,
    Counts,
    Grant,
    Kind,
    Limit,
    Refusal,
    Settlement,
)
from headgate.stores.valkey_link import Address

valkey_server = valkey.valkey_server
no_socket_left = valkey_callers.no_socket_left

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
