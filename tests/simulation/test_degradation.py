"""S3-04f, g, h against an independent upstream: outages, spent quotas, cut streams, and who answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from tests.support import MODEL, Ear, key

from headgate.backend import (
    BackendConfig,
    FallbackStrategy,
    GeminiBackend,
    GeminiRequest,
    GeminiResponse,
    RetryConfig,
    StreamingChunk,
)
from headgate.core.fallback import INCOMPLETE
from headgate.emulator import Emulator, EmulatorConfig, Fault, Limits, Project
from headgate.testing import VirtualClock

OTHER = "gemini-3.5-flash"
ONCE = RetryConfig(max_attempts=1)


@asynccontextmanager
async def world(
    clock: VirtualClock, config: EmulatorConfig, **own: Any
) -> AsyncIterator[tuple[Emulator, GeminiBackend, Ear]]:
    ear = Ear()
    async with Emulator(config, clock=clock) as emulator:
        made = GeminiBackend(
            BackendConfig(model_discovery=False, **own),
            keys=f"{key(0)}|k0|alpha",
            base_url=emulator.base_url,
            clock=clock,
            observers=[ear],
            environ={},
        )
        async with made:
            yield emulator, made, ear


def project(**limits: Limits) -> list[Project]:
    return [Project("alpha", {"k0": key(0)}, limits=dict(limits))]


async def ask(backend: GeminiBackend, prompt: str, **fields: Any) -> GeminiResponse:
    reply = await backend.execute_gemini_enhanced(GeminiRequest(prompt, MODEL, **fields))
    return cast("GeminiResponse", reply)


async def test_s3_04h_through_an_outage_of_its_model_every_call_is_answered(
    clock: VirtualClock,
) -> None:
    """A minute without the model: another answers, and the first again once it is back."""
    config = EmulatorConfig(
        projects=project(), faults=[Fault("overload", model=MODEL, start=5.0, end=65.0)]
    )
    chain = [FallbackStrategy.SwitchModel(OTHER)]
    async with world(clock, config, fallback=chain, retry_config=ONCE) as (emulator, backend, ear):
        answered: list[tuple[float, str, bool]] = []
        for number in range(60):
            began = clock.monotonic()
            reply = await ask(backend, f"Question {number}", use_cache=False)
            answered.append((began, reply.model, reply.from_fallback))
            await clock.sleep(max(0.0, 4.0 * (number + 1) - clock.monotonic()))
        models = emulator.report().projects["alpha"].totals
    assert models.refused == {}
    assert len(answered) == 60
    assert all(model == MODEL for at, model, _ in answered if at < 5.0)
    outage = [(model, fallback) for at, model, fallback in answered if 5.0 <= at < 64.0]
    assert len(outage) >= 14
    assert set(outage) == {(OTHER, True)}
    assert set(answered[-10:]) == {(at, MODEL, False) for at, _, _ in answered[-10:]}
    assert {record.error for record in ear.calls} == {None}
    assert len(ear.attempts) <= 2 * len(ear.calls), "two engines' worth of attempts at the most"


async def test_s3_04g_a_spent_day_is_bridged_with_earlier_answers(clock: VirtualClock) -> None:
    """What was asked before is answered again, marked with its age; what was not is refused."""
    config = EmulatorConfig(projects=project(**{MODEL: Limits(rpd=2)}))
    chain = [FallbackStrategy.UseCachedResponse()]
    async with world(
        clock, config, fallback=chain, cache_ttl_seconds=60.0, cache_rescue_seconds=86_400.0
    ) as (emulator, backend, ear):
        first = await ask(backend, "What makes the tide?")
        await ask(backend, "And the wind?")
        await clock.sleep(600.0)
        again = await ask(backend, "What makes the tide?")
        request = GeminiRequest("What makes the tide?", MODEL, stream=True)
        pieces = cast("AsyncGenerator[StreamingChunk]", await backend.execute_gemini_enhanced(request))
        streamed = [piece async for piece in pieces]
        charged = emulator.report().projects["alpha"].totals.charged_requests
    assert again.text == first.text
    assert (again.cached, again.from_fallback) == (True, True)
    assert again.age_seconds is not None
    assert 600.0 <= again.age_seconds < 660.0
    assert "stands in" in again.warnings[0]
    assert "".join(piece.delta for piece in streamed) == first.text
    final = streamed[-1].response
    assert final is not None
    assert (final.cached, final.from_fallback) == (True, True)
    assert charged == 2
    record = ear.calls[-1]
    assert (record.cached, record.fallback, record.usage.total) == (True, "UseCachedResponse", 0)
    assert record.saved.total == first.usage.total_tokens


async def test_s3_04f_streams_that_break_end_with_what_came(clock: VirtualClock) -> None:
    config = EmulatorConfig(
        projects=project(),
        faults=[Fault(kind, 0.25, after=2) for kind in ("reset_mid", "silent_eof", "half_event")],
    )
    chain = [FallbackStrategy.PartialResponse()]
    async with world(clock, config, fallback=chain) as (emulator, backend, ear):
        ends: list[tuple[str | None, bool]] = []
        for number in range(24):
            request = GeminiRequest(
                f"Tell me of the moon, part {number}.", MODEL, stream=True, use_cache=False
            )
            pieces = cast(
                "AsyncGenerator[StreamingChunk]", await backend.execute_gemini_enhanced(request)
            )
            final = [piece async for piece in pieces][-1].response
            assert final is not None
            assert final.text
            ends.append((final.finish_reason, final.from_fallback))
        assert emulator.report().projects["alpha"].totals.open == 0
    assert set(ends) == {("STOP", False), (INCOMPLETE, True)}
    assert {record.error for record in ear.calls} == {None}
    broken = [attempt for attempt in ear.attempts if attempt.outcome.kind != "success"]
    assert len(broken) >= ends.count((INCOMPLETE, True))
