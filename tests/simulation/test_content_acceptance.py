"""The five acceptance tests of S4-36 against an upstream that enforces its own quota. Time is virtual,
sockets are real; the emulator's books are the judge."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.content import Content, form, good_model, ordered, picture
from tests.gateway import Client, Got
from tests.support import key

from headgate.content import Outside, app, load_content
from headgate.content.application import ContentApp
from headgate.core.ports import QuotaStore
from headgate.emulator import Emulator, EmulatorConfig, Limits, Project
from headgate.stores.memory import MemoryStore
from headgate.testing import VirtualClock


def upstream(rpm: int = 15) -> EmulatorConfig:
    project = Project(
        "alpha", keys={"k0": key(0)}, limits={"*": Limits(rpm=rpm, mechanism="sliding_log")}
    )
    return EmulatorConfig(projects=[project])


@asynccontextmanager
async def service(
    emulator: Emulator,
    clock: VirtualClock,
    environ: Mapping[str, str] | None = None,
    store: QuotaStore | None = None,
) -> AsyncGenerator[ContentApp]:
    given = {"GEMINI_API_KEYS": f"{key(0)}|k0|alpha", "REDIS_ENABLED": "false", **(environ or {})}
    outside = Outside(clock=clock, environ=given, base_url=emulator.base_url, store=store)
    served = app(load_content(environ=given), outside)
    try:
        yield served
    finally:
        await served.aclose()


async def post(
    served: ContentApp, path: str, body: Any, headers: Mapping[str, str] | None = None
) -> Got:
    return await Client(served, "POST", path, body, headers).run()  # type: ignore[arg-type] # an ASGI app


async def get(served: ContentApp, path: str) -> Got:
    return await Client(served, "GET", path).run()  # type: ignore[arg-type] # an ASGI app


async def test_s4_36_1_and_2_every_endpoint_is_reached_and_its_calls_are_counted(
    clock: VirtualClock,
) -> None:
    async with Emulator(upstream(), clock=clock) as emulator, service(emulator, clock) as served:
        for path in ("/api/health", "/api/ready", "/api/quota/stats", "/metrics"):
            assert (await get(served, path)).status == 200
        topic = {"topic": "Python Programming"}
        subtopics = await post(served, "/api/create_subtopics", topic)
        assert (subtopics.status, subtopics.json["count"]) == (200, 15)
        presentation = await post(served, "/api/create_presentation", ordered())
        assert (presentation.status, presentation.json["success_count"]) == (200, 3)
        body, headers = form(picture("JPEG"))
        read = await post(served, "/api/image2topic", body, headers)
        assert read.json["generated_topic"]
        made = await post(served, "/api/generate_image", {"prompt": "A lighthouse in fog"})
        assert made.json["format"] == "base64_png"
        stats = (await get(served, "/api/quota/stats")).json
        assert stats["current_minute"]["requests"] == 5  # of the model for texts
        assert stats["statistics"]["total_requests"] == 6
        assert 0 < stats["current_minute"]["tokens"] < 5 * 1500 + 2000  # the truth, not the estimates
        totals = emulator.report().totals
        assert (totals.requests, totals.refused) == (6, {})


async def test_s4_36_3_metrics_tell_one_call_and_its_1500_tokens(clock: VirtualClock) -> None:
    content = Content(clock, lambda body: good_model(body, tokens=1500))
    await content.post("/api/create_subtopics", {"topic": "Python Programming"})
    lines = (await content.get("/metrics")).body.decode().splitlines()
    labels = 'endpoint="create_subtopics",model="gemini-3.8-flash"'
    assert f'gemini_api_calls_total{{{labels},status="success"}} 1.0' in lines
    assert f"gemini_api_tokens_total{{{labels}}} 1500.0" in lines
    assert "quota_tokens_current_minute 1500.0" in lines
    assert "quota_rpm_remaining 11.0" in lines
    assert "subtopics_generated_total 15.0" in lines
    counted = 'http_requests_total{endpoint="create_subtopics",method="POST",status="200"} 1.0'
    assert counted in lines


async def test_s4_36_4_twenty_calls_at_half_a_second_and_the_quota_says_stop(
    clock: VirtualClock,
) -> None:
    for margin, passes in (("0.8", 12), ("1.0", 15)):
        async with (
            Emulator(upstream(), clock=clock) as emulator,
            service(emulator, clock, {"QUOTA_SAFETY_MARGIN": margin}) as served,
        ):
            statuses = []
            for number in range(20):
                got = await post(served, "/api/create_subtopics", {"topic": f"Topic {number}"})
                statuses.append(got.status)
                await clock.sleep(0.5)
            assert statuses == [200] * passes + [429] * (20 - passes)
            assert emulator.report().totals.refused == {}  # the upstream never had to say no


async def test_s4_36_4_over_two_instances_that_share_a_ledger(clock: VirtualClock) -> None:
    store = MemoryStore(clock)
    async with (
        Emulator(upstream(), clock=clock) as emulator,
        service(emulator, clock, store=store) as one,
        service(emulator, clock, store=store) as other,
    ):
        statuses = []
        for number in range(20):
            served = (one, other)[number % 2]
            got = await post(served, "/api/create_subtopics", {"topic": f"Topic {number}"})
            statuses.append(got.status)
            await clock.sleep(0.5)
        assert statuses.count(200) == 12
        seen = [(await get(each, "/api/quota/stats")).json["current_minute"] for each in (one, other)]
        assert seen[0] == seen[1]
        assert seen[0]["requests"] == 12


async def test_s4_36_5_a_second_identical_call_is_a_hit_and_moves_the_hit_rate(
    clock: VirtualClock,
) -> None:
    async with Emulator(upstream(), clock=clock) as emulator, service(emulator, clock) as served:
        topic = {"topic": "Python Programming"}
        await post(served, "/api/create_subtopics", topic)
        assert "cache_hit_rate 0.0" in (await get(served, "/metrics")).body.decode().splitlines()
        again = await post(served, "/api/create_subtopics", topic)
        assert again.json["metadata"]["cache_hit"] is True
        assert "cache_hit_rate 50.0" in (await get(served, "/metrics")).body.decode().splitlines()
        assert emulator.report().totals.requests == 1
