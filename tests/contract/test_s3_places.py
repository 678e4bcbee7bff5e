"""S3-02f, S3-03b, S3-03c, S3-04g: places are for calls that go upstream, and for nothing else."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from msgspec import structs
from tests.support import MODEL, key, keys, overloaded, said, stream

from headgate.backend import (
    BackendConfig,
    DefaultResponse,
    ErrorType,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    PreprocessConfig,
    RetryConfig,
    SwitchModel,
)
from headgate.engine.places import Places
from headgate.testing import ScriptedTransport, VirtualClock

ONE = BackendConfig(
    model_discovery=False,
    preprocess_config=PreprocessConfig(enforce_token_limits=False),
    max_concurrent_requests=1,
)


class Crowded:
    """A backend with few places, over a scripted transport."""

    def __init__(self, clock: VirtualClock, script: Any, **config: Any) -> None:
        self.clock = clock
        self.transport = ScriptedTransport(script, clock)
        self.backend = GeminiBackend(
            structs.replace(ONE, **config), keys=keys(1), transport=self.transport, clock=clock,
            environ={},
        )  # fmt: skip

    @property
    def places(self) -> Places:
        return self.backend._room.places

    async def ask(self, prompt: str, api_key: str | None = None, **fields: Any) -> GeminiResponse:
        request = GeminiRequest(prompt, MODEL, **fields)
        answer = await self.backend.execute_gemini_enhanced(request, api_key=api_key)
        return cast("GeminiResponse", answer)

    async def begin(self, prompt: str, **fields: Any) -> asyncio.Task[GeminiResponse]:
        """A request that has its place."""
        task = asyncio.ensure_future(self.ask(prompt, **fields))
        await self.clock.sleep(0.1)
        assert self.places.used == 1
        return task


async def test_s3_03b_a_remembered_reply_waits_for_no_place(clock: VirtualClock) -> None:
    it = Crowded(clock, [said("known"), said("slow", delay=10.0)])
    await it.ask("warm")
    slow = await it.begin("another")
    begun = clock.monotonic()
    answer = await it.ask("warm")
    assert (answer.text, answer.cached) == ("known", True)
    assert clock.monotonic() == begun
    assert (await slow).text == "slow"
    assert it.places.used == it.places.waiting == 0


async def test_s3_03c_who_asks_what_is_under_way_takes_no_place(clock: VirtualClock) -> None:
    it = Crowded(
        clock, lambda _: said("same", delay=2.0), max_concurrent_requests=2, max_queued_requests=0
    )
    calls = [asyncio.ensure_future(it.ask("same")) for _ in range(1_100)]
    await clock.sleep(0.1)
    assert (it.places.used, it.places.waiting) == (1, 0)
    assert (await it.ask("another")).text == "same"  # there is a place for it
    assert {answer.text for answer in await asyncio.gather(*calls)} == {"same"}
    assert len(it.transport.sent) == 2


async def test_s3_02f_a_stream_holds_its_place_to_its_end(clock: VirtualClock) -> None:
    it = Crowded(clock, [stream("one ", "two", piece_delay=1.0), said("next")])
    request = GeminiRequest("p", MODEL, stream=True)
    pieces: Any = await it.backend.execute_gemini_enhanced(request)
    await anext(pieces)
    assert it.places.used == 1
    waiting = asyncio.ensure_future(it.ask("next"))
    await clock.sleep(0.1)
    assert it.places.waiting == 1
    async for _ in pieces:
        pass
    assert (await waiting).text == "next"
    assert it.places.used == it.places.waiting == 0


@pytest.mark.parametrize("queued", [0, 5])
async def test_s3_04g_a_line_that_is_full_or_too_slow_falls_back(
    clock: VirtualClock, queued: int
) -> None:
    it = Crowded(
        clock, lambda _: said("slow", delay=10.0), max_queued_requests=queued,
        fallback=(SwitchModel("gemini-2.5-flash"), DefaultResponse("Please ask again.")),
    )  # fmt: skip
    slow = await it.begin("slow")
    answer = await it.ask("another", timeout_seconds=2)
    assert (answer.text, answer.from_fallback) == ("Please ask again.", True)
    assert "busy" in answer.warnings[0]
    await slow
    assert len(it.transport.sent) == 1
    assert it.places.used == it.places.waiting == 0


async def test_s3_04g_another_model_is_asked_where_there_is_one_place(clock: VirtualClock) -> None:
    """The place of the first is free again before the second asks for its own."""
    it = Crowded(
        clock, [overloaded(), said("from the other")], retry_config=RetryConfig(max_attempts=1),
        fallback=(SwitchModel("gemini-2.5-flash"),),
    )  # fmt: skip
    answer = await it.ask("p")
    assert (answer.text, answer.from_fallback) == ("from the other", True)
    assert it.places.used == 0


async def test_s3_03f_an_old_reply_is_given_while_its_successor_waits_in_line(
    clock: VirtualClock,
) -> None:
    it = Crowded(
        clock, [said("old"), said("slow", delay=10.0), said("new")], cache_ttl_seconds=60,
        cache_stale_seconds=600,
    )  # fmt: skip
    await it.ask("p")
    await clock.sleep(61)
    slow = await it.begin("slow")
    assert (await it.ask("p")).text == "old"
    await clock.sleep(0.1)
    assert (it.places.used, it.places.waiting) == (1, 1)
    await slow
    await clock.sleep(1)
    assert (await it.ask("p")).text == "new"
    assert it.places.used == it.places.waiting == 0


async def test_a_refusal_of_the_line_is_told_once_and_counted_once(clock: VirtualClock) -> None:
    it = Crowded(clock, lambda _: said("slow", delay=10.0), max_queued_requests=0)
    slow = await it.begin("slow")
    with pytest.raises(GeminiError, match="0 calls wait for one of 1 places") as caught:
        await it.ask("another")
    assert (caught.value.error_type, caught.value.kind) == (ErrorType.SERVICE_UNAVAILABLE, "busy")
    assert caught.value.request_id is not None
    history = (await it.backend.get_gemini_monitoring_metrics()).request_history
    assert [one.error for one in history] == ["ServiceUnavailable"]
    assert len(it.backend.get_gemini_errors()) == 1
    await slow


async def test_places_count_over_generations_and_keys(clock: VirtualClock) -> None:
    it = Crowded(clock, lambda _: said(delay=1.0))
    begun = clock.monotonic()
    first = await it.begin("first")
    await it.backend.update_gemini_backend_config(structs.replace(ONE, batch_size=7))
    second = asyncio.ensure_future(it.ask("second"))
    third = asyncio.ensure_future(it.ask("third", api_key=key(7)))
    await asyncio.gather(first, second, third)
    assert clock.monotonic() - begun == pytest.approx(3.0)
    assert it.places.used == it.places.waiting == 0


async def test_who_leaves_the_line_leaves_nothing_behind(clock: VirtualClock) -> None:
    it = Crowded(clock, lambda _: said(delay=5.0))
    slow = await it.begin("slow")
    waiting = asyncio.ensure_future(it.ask("waiting"))
    await clock.sleep(0.1)
    assert it.places.waiting == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await slow
    await clock.sleep(0.1)
    assert it.places.used == it.places.waiting == 0
    assert len(it.transport.sent) == 1


async def test_the_wait_for_a_place_is_told_and_no_speed_of_the_model(clock: VirtualClock) -> None:
    it = Crowded(clock, lambda _: said(delay=1.0))
    await asyncio.gather(*(it.ask(f"question {number}") for number in range(5)))
    card = await it.backend.get_gemini_model_info(MODEL)
    assert card.performance.avg_latency_ms == pytest.approx(1000)
