"""The stand-in over a real Valkey that is killed under calls and comes back empty. In real time."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from random import Random  # noqa: TID251 - seeded

import pytest
from tests.valkey import Server

from headgate.core.errors import StoreError
from headgate.core.quota import Ask, Batch, Counts, Grant, Limit
from headgate.stores.crowd import Times
from headgate.stores.presence import Does
from headgate.stores.sharing import SharedStore
from headgate.stores.valkey import ValkeyStore
from headgate.wiring.clock import SystemClock

GROUP = "group"
ONE = {Counts.REQUESTS: 1}
WINDOW = 1_000
# A loaded machine may come round to noting a grant this much later.
DOMAINS = [[Limit("rpm", Counts.REQUESTS, 20, window=WINDOW, guard=600)] for _ in range(2)]
QUICK = Times(
    beat=0.1, probe=0.05, absent=0.6, recent=0.5, hold=0.8, settle=1.0, known=0.3, newcomer=0.5
)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that may be killed."""
    server = Server().start()
    yield server
    server.close()


class User:
    """A process's store and what it was granted, by domain."""

    def __init__(self, server: Server, member: str, processes: int | None = None) -> None:
        chance = Random(member)
        clock = SystemClock()
        self.primary = ValkeyStore(server.url, clock=clock, chance=chance.random, timeout=0.3)
        self.store = SharedStore(
            self.primary,
            clock=clock, chance=chance.random, processes=processes, member=member, times=QUICK,
        )  # fmt: skip
        self.granted: list[tuple[float, int]] = []
        self.running = True
        self.member = member
        self.asked = 0

    async def call(self) -> None:
        """Take what there is, until told to stop."""
        while self.running:
            self.asked += 1
            ask = Ask(f"{self.member}.{self.asked}", ONE)
            (answer,) = (await self.store.transact(GROUP, Batch(asks=(ask,)))).answers
            if isinstance(answer, Grant):
                self.granted.append((time.monotonic(), answer.domain))  # noqa: TID251
                await pause(0.002)
            else:
                await pause(0.02)


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)  # noqa: TID251 - a real server needs real time


async def until(true: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Wait for something that must come about."""
    async with asyncio.timeout(30):
        while True:
            got = true()
            if got if isinstance(got, bool) else await got:
                return
            await pause(0.02)


def worst(users: list[User], domain: int) -> int:
    """The most that any window saw."""
    times = sorted(at for user in users for at, where in user.granted if where == domain)
    return max(bisect_left(times, at + WINDOW / 1000) - n for n, at in enumerate(times))


def test_a_server_is_killed_under_calls_and_comes_back_empty(server: Server) -> None:
    async def main() -> None:
        user = User(server, "m0", processes=1)
        await user.store.declare(GROUP, DOMAINS)
        calls = [asyncio.ensure_future(user.call()) for _ in range(4)]
        await until(lambda: len(user.granted) >= 41)
        server.kill()
        before = len(user.granted)
        await until(lambda: len(user.granted) >= before + 41)
        assert user.store.outages == 1
        assert user.store.local_grants >= 40
        user.running = False
        await asyncio.gather(*calls)
        await asyncio.to_thread(server.start)
        await until(lambda: user.store._away_since is None)
        assert max(worst([user], 0), worst([user], 1)) <= 20
        await user.store.aclose()

    asyncio.run(main())


def test_what_was_charged_stands_again_on_the_empty_server(server: Server) -> None:
    long = [[Limit("rpm", Counts.REQUESTS, 20, window=600_000)]]

    async def main() -> None:
        user, other = User(server, "m0", processes=1), User(server, "m1")
        await user.store.declare(GROUP, long)
        for number in range(12):
            await user.store.transact(GROUP, Batch(asks=(Ask(f"a{number}", ONE),)))
        server.kill()
        asks = tuple(Ask(f"b{number}", ONE) for number in range(5))
        reply = await user.store.transact(GROUP, Batch(asks=asks))
        assert sum(isinstance(answer, Grant) for answer in reply.answers) == 5
        await asyncio.to_thread(server.start)
        await until(lambda: user.store._away_since is None)
        # Another process sees what is left of twenty.
        await other.primary.declare(GROUP, long)
        asks = tuple(Ask(f"c{number}", ONE) for number in range(9))
        reply = await other.primary.transact(GROUP, Batch(asks=asks))
        assert sum(isinstance(answer, Grant) for answer in reply.answers) == 3
        await user.store.aclose()
        await other.primary.aclose()

    asyncio.run(main())


def test_three_who_share_a_server_that_dies_stay_within_the_limits(server: Server) -> None:
    async def main() -> None:
        users = [User(server, f"m{number}") for number in range(3)]
        for user in users:
            await user.store.declare(GROUP, DOMAINS)
        calls = [asyncio.ensure_future(user.call()) for user in users for _ in range(2)]
        await until(lambda: sum(len(user.granted) for user in users) >= 41)
        server.kill()
        await until(lambda: sum(user.store.local_grants for user in users) >= 6)
        await asyncio.to_thread(server.start)
        await until(lambda: all(user.store._away_since is None for user in users))
        before = sum(len(user.granted) for user in users)
        await until(lambda: sum(len(user.granted) for user in users) >= before + 30)
        for user in users:
            user.running = False
        await asyncio.gather(*calls)
        assert max(worst(users, 0), worst(users, 1)) <= 20
        for user in users:
            await user.store.aclose()

    asyncio.run(main())


def test_members_see_each_other_and_the_life_of_the_server(server: Server) -> None:
    async def main() -> None:
        a, b = User(server, "a").primary, User(server, "b").primary
        first = await a.presence("a", Does.REPORT)
        assert (first.count, first.rank, first.silent) == (1, 0, 0)
        second = await b.presence("b", Does.REPORT)
        assert (second.count, second.rank, second.server) == (2, 1, first.server)
        assert (await b.presence("c", Does.LOOK)).count == 3  # if it reported
        assert (await a.presence("a", Does.REPORT)).count == 2  # which it did not
        assert (await b.presence("b", Does.LEAVE)).count == 2
        assert (await a.presence("a", Does.REPORT)).count == 1
        made = a.connections
        await asyncio.to_thread(restart, server)
        again = await a.presence("a", Does.REPORT)
        assert again.server != first.server
        assert again.server_age < 5_000
        assert a.connections > made
        await a.aclose()
        await b.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("may", [["~{group}*", "+@all"], ["~*", "+@all", "-hgetall"]])
def test_a_user_who_may_not_see_the_others_is_told_so_once(
    server: Server, may: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "shy", "on", ">pw", *may)

    async def main() -> None:
        url = server.url.replace("unix://", "unix://shy:pw@")
        primary = ValkeyStore(url, clock=SystemClock(), chance=lambda: 0.5, timeout=0.5)
        for _ in range(6):  # enough for a breaker to open
            with pytest.raises(StoreError, match="who shares it"):
                await primary.presence("a", Does.REPORT)
        assert primary.connections <= 2
        await primary.declare(GROUP, DOMAINS)
        await primary.transact(GROUP, Batch(asks=(Ask("a", ONE),)))
        await primary.aclose()

    asyncio.run(main())
    lines = [one.getMessage() for one in caplog.records if one.name == "headgate.stores"]
    assert len(lines) == 1
    assert "members=hidden" in lines[0]


def restart(server: Server) -> None:
    server.kill()
    server.start()
