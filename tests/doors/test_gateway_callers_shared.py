"""Limits of callers over processes that share a Valkey: one bucket, and one of each process where the
server dies."""

from __future__ import annotations

import asyncio

import pytest
from tests import valkey
from tests.valkey import Server

from headgate.core.callers import CallerLimitError, CallerLimits
from headgate.gateway.callers import CallersUnavailableError
from headgate.gateway.meters import Meters
from headgate.wiring.callers import open_buckets
from headgate.wiring.clock import SystemClock

valkey_server = valkey.valkey_server

LIMITS = CallerLimits(requests_per_minute=5, requests_per_day=1_000, tokens_per_minute=10_000)


def meters(url: str, *, fail_open: bool = True) -> Meters:
    clock = SystemClock()
    buckets = open_buckets(clock, {"HEADGATE_STORE": url}, fail_open=fail_open)
    made = Meters(buckets, clock)
    made.limit_all(100)
    return made


async def passed(each: list[Meters], caller: str, times: int) -> int:
    """How many of so many calls at once are let in by each of the processes."""

    async def one(of: Meters) -> bool:
        try:
            await of.take(caller, LIMITS, 10)
        except CallerLimitError as error:
            waits.append(error.retry_after or 0.0)
            return False
        return True

    waits: list[float] = []
    answers = await asyncio.gather(*(one(of) for of in each for _ in range(times)))
    assert all(1 <= wait <= 60 for wait in waits)
    return sum(answers)


@pytest.mark.parametrize("option", ["", "?processes=2&protocol=3"])
def test_processes_share_their_callers_buckets(valkey_server: Server, option: str) -> None:
    async def main() -> None:
        each = [meters(valkey_server.url + option) for _ in range(2)]
        assert await passed(each, f"shared{len(option)}", 8) == 5
        for one in each:
            await one.aclose()

    asyncio.run(main())


def test_a_bucket_of_the_process_stands_in_for_a_dead_server() -> None:
    """Rate limits fail open, to a limit of each process: a store that is away stops nobody, unless it
    is to."""
    server = Server().start()

    async def main() -> None:
        each = [meters(server.url) for _ in range(2)]
        assert await passed(each, "c", 3) == 5
        strict = meters(server.url, fail_open=False)
        await strict.take("strict", LIMITS, 20_000)
        server.kill()
        assert await passed(each, "c", 8) == 10
        for tokens in (10, 20_000):  # one that owes, and one that does not
            with pytest.raises(CallersUnavailableError):
                await strict.take("strict" if tokens > 10 else "other", LIMITS, tokens)
        for one in (*each, strict):
            await one.aclose()

    try:
        asyncio.run(main())
    finally:
        server.close()
