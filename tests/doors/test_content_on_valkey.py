"""Two instances of the content service over one Valkey: one quota, one cache (S4-36, S4-38)."""

from __future__ import annotations

import asyncio
from typing import Any

from tests import valkey
from tests.gateway import Client, Got
from tests.support import key

from headgate.content import Outside, app, load_content
from headgate.content.application import ContentApp
from headgate.emulator import Emulator, EmulatorConfig, Limits, Project

valkey_server = valkey.valkey_server


async def post(served: ContentApp, path: str, body: Any) -> Got:
    return await Client(served, "POST", path, body).run()  # type: ignore[arg-type] # an ASGI app


async def get(served: ContentApp, path: str) -> Got:
    return await Client(served, "GET", path).run()  # type: ignore[arg-type] # an ASGI app


def test_s4_36_4_and_5_over_two_instances_that_share_a_store(valkey_server: valkey.Server) -> None:
    environ = {"GEMINI_API_KEYS": f"{key(0)}|k0|alpha", "HEADGATE_STORE": valkey_server.url}
    project = Project("alpha", keys={"k0": key(0)}, limits={"*": Limits(rpm=15)})

    async def two(emulator: Emulator) -> None:
        outside = Outside(environ=environ, base_url=emulator.base_url)
        one, other = (app(load_content(environ=environ), outside) for _ in range(2))
        await asyncio.gather(one.join(), other.join())  # as their servers do before they listen
        try:
            first = await post(one, "/api/create_subtopics", {"topic": "Bees"})
            again = await post(other, "/api/create_subtopics", {"topic": "Bees"})
            assert first.status == 200, first.json
            told = (await get(other, "/metrics")).body.decode()
            assert 'headgate_cache_requests_total{layer="redis",result="hit"} 1.0' in told
            assert again.json == {**first.json, "metadata": {"cache_hit": True, "cached": True}}
            order = {"topic": "Bees", "focus": [f"Part {number}" for number in range(5)]}
            both = await asyncio.gather(
                post(one, "/api/create_presentation", order),
                post(other, "/api/create_presentation", {**order, "topic": "Ants"}),
            )
            assert [got.json.get("success_count") for got in both] == [5, 5]
            rest = [
                await post((one, other)[number % 2], "/api/create_subtopics", {"topic": f"T {number}"})
                for number in range(4)
            ]
            assert sorted(got.status for got in rest) == [200, 429, 429, 429]
            ready = (await get(one, "/api/ready")).json
            assert ready["checks"]["redis"]["status"] == "healthy"
            assert ready["checks"]["redis"]["response_time"].endswith("s")
            place = first.headers["content-location"]
            assert (await get(other, place)).json == first.json
        finally:
            await one.aclose()
            await other.aclose()

    async def main() -> None:
        async with Emulator(EmulatorConfig(projects=[project])) as emulator:
            await two(emulator)
            assert emulator.report().totals.refused == {}
            assert emulator.report().totals.requests == 12

    asyncio.run(main())
