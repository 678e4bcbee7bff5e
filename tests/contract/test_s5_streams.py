"""Lists item by item, in little memory, while the list moves (S5-02g, S5-11)."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.codegen import ORG, counts, emulated, failed, page, said, scripted

from headgate.codegen import AsyncCodegenClient, Page, ServerError
from headgate.codegen.pagination import paged
from headgate.testing import Answer, Sent, VirtualClock


async def test_s5_11_users_and_runs(clock: VirtualClock) -> None:
    async with emulated(clock, users=250, runs=120) as (client, emulator):
        users = [user.id async for user in client.get_users_stream("123")]
        runs = [run.id async for run in client.get_all_agent_runs(123)]
        repos = [repo.id async for repo in client.get_repositories_stream(123)]
        assert users == list(range(1, 251))
        assert runs == sorted(runs, reverse=True)
        assert (len(runs), repos) == (120, [1, 2])
        assert counts(emulator) == {"get_users": 3, "list_agent_runs": 2, "get_repositories": 1}


async def test_s5_11_filters_are_passed_on(clock: VirtualClock) -> None:
    client, transport = scripted([said(page([]))], clock)
    assert [run async for run in client.get_all_agent_runs(ORG, user_id=7, source_type="SLACK")] == []
    query = parse_qs(urlsplit(transport.sent[0].request.url).query)
    assert (query["user_id"], query["source_type"]) == (["7"], ["SLACK"])


async def test_s5_02g_one_page_ahead_at_most(clock: VirtualClock) -> None:
    """The next page is asked for before this one is read, and no other."""
    async with emulated(clock, users=500) as (client, emulator):
        stream = client.get_users_stream(ORG)
        asked = []
        for _ in range(201):
            await anext(stream)
            await clock.sleep(0.01)
            asked.append(counts(emulator)["get_users"])
        assert (asked[0], asked[99], asked[100], asked[199], asked[200]) == (2, 2, 3, 3, 4)
        await stream.aclose()
        assert counts(emulator)["get_users"] == 4


async def test_s5_02g_leaving_early_leaves_nothing_behind(clock: VirtualClock) -> None:
    user = {"id": 1, "github_user_id": "1", "github_username": "a"}

    def script(sent: Sent) -> Answer:
        slow = "skip=0" not in sent.request.url
        return Answer(200, said(page([user], 900)).body, delay=50 if slow else 0)

    client, transport = scripted(script, clock)
    stream = client.get_users_stream(ORG)
    await anext(stream)
    await stream.aclose()
    assert transport.open_exchanges == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_s5_02g_what_is_added_in_front_comes_once(clock: VirtualClock) -> None:
    """Runs come newest first: what starts meanwhile pushes the rest onto later pages."""
    async with emulated(clock, runs=450) as (client, emulator):
        world = emulator.codegen.desk.worlds["acme"]
        before = sorted(world.runs, reverse=True)
        seen = []
        async for run in client.get_all_agent_runs(ORG):
            seen.append(run.id)
            if len(seen) % 10 == 0 and len(world.runs) < 700:
                for _ in range(7):
                    world.add_run("meanwhile", clock.wall())
        assert [number for number in seen if number in before] == before
        assert len(set(seen)) == len(seen)


async def test_s5_02g_what_is_removed_loses_nothing_else(clock: VirtualClock) -> None:
    async with emulated(clock, runs=450) as (client, emulator):
        world = emulator.codegen.desk.worlds["acme"]
        everything = sorted(world.runs, reverse=True)
        removed, seen = set(), []
        async for run in client.get_all_agent_runs(ORG):
            seen.append(run.id)
            if len(seen) in (150, 151, 290):
                for number in everything[len(removed) : len(removed) + 20]:
                    del world.runs[number]
                    removed.add(number)
        assert len(set(seen)) == len(seen)
        assert set(everything) - removed <= set(seen)


async def test_an_error_ends_the_stream_after_what_came(clock: VirtualClock) -> None:
    items = [{"id": number, "organization_id": ORG} for number in range(100)]
    client, _ = scripted([said(page(items, 250)), failed(500)], clock, max_retries=0)
    stream = client.get_all_agent_runs(ORG)
    seen = [(await anext(stream)).id for _ in range(100)]
    with pytest.raises(ServerError):
        await anext(stream)
    assert seen == list(range(100))


async def test_the_same_stream_is_fresh_each_time(clock: VirtualClock) -> None:
    async with emulated(clock, runs=1) as (client, emulator):
        assert len([run async for run in client.get_all_agent_runs(ORG)]) == 1
        emulator.codegen.desk.worlds["acme"].add_run("new", clock.wall())
        assert len([run async for run in client.get_all_agent_runs(ORG)]) == 2


async def test_s5_02g_memory_does_not_grow_with_the_list(clock: VirtualClock) -> None:
    import tracemalloc

    def fetch_of(total: int) -> Any:
        async def fetch(skip: int, limit: int) -> Page[Any]:
            items = list(range(skip, min(total, skip + limit)))
            return Page.model_construct(items=items, total=total, page=1, size=limit, pages=1)

        return fetch

    async def peak(total: int) -> int:
        tracemalloc.start()
        count = 0
        async for _ in paged(fetch_of(total), lambda item: item):
            count += 1
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == total
        return used

    assert await peak(200_000) < await peak(50_000) + 100_000


async def test_a_stream_pushes_nothing_out_of_the_cache(clock: VirtualClock) -> None:
    async with emulated(clock, users=500, settings={"cache_max_size": 2}) as (client, emulator):
        await client.get_current_user()
        assert len([user async for user in client.get_users_stream(ORG)]) == 500
        await client.get_current_user()
        assert counts(emulator)["get_current_user_info"] == 1


def test_streams_exist_without_an_event_loop() -> None:
    """Asking for one does nothing yet."""
    client = AsyncCodegenClient(api_token="CANARY-x")
    assert client.get_users_stream(ORG).__aiter__()
