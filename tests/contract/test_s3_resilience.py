"""S3-04b, S3-04c, S3-04d, S3-04e, S3-25, C20: the backend's retries, breakers, limits and budgets."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest
from msgspec import structs
from tests.support import (
    MODEL,
    Ear,
    bad_key,
    broken_inside,
    failure,
    keys,
    number_of,
    overloaded,
    quota,
    said,
)

from headgate.backend import (
    BackendConfig,
    CircuitBreakerConfig,
    ErrorType,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    RetryConfig,
)
from headgate.core.errors import ConfigurationError
from headgate.engine.protection import Protection
from headgate.policy.breaker import BreakerState
from headgate.testing import Answer, ScriptedTransport, Sent, VirtualClock

ONCE = RetryConfig(max_attempts=1)
OFFLINE = BackendConfig(model_discovery=False, cache_ttl_seconds=0)
OTHER = "gemini-3.5-flash"


def config(**fields: Any) -> BackendConfig:
    return structs.replace(OFFLINE, **fields)


class Service:
    """A backend over a script."""

    def __init__(
        self, clock: VirtualClock, script: Any, own: BackendConfig = OFFLINE, count: int = 1
    ) -> None:
        self.ear = Ear()
        self.transport = ScriptedTransport(script, clock)
        self.backend = GeminiBackend(
            own,
            keys=keys(count),
            transport=self.transport,
            clock=clock,
            environ={},
            observers=[self.ear],
        )

    async def ask(self, model: str = MODEL, **fields: Any) -> GeminiResponse:
        answer = await self.backend.execute_gemini_enhanced(
            GeminiRequest("Explain tides", model, **fields)
        )
        return cast("GeminiResponse", answer)

    async def fails(self, model: str = MODEL, **fields: Any) -> GeminiError:
        with pytest.raises(GeminiError) as caught:
            await self.ask(model, **fields)
        return caught.value

    @property
    def protection(self) -> Protection:
        return self.backend._room.generation().engine.protection

    @property
    def gaps(self) -> list[float]:
        times = [sent.at for sent in self.transport.sent]
        return [later - earlier for earlier, later in pairwise(times)]


# ── retries ─────────────────────────────────────────────────────────────────────────────────────


async def test_s3_04b_the_upstreams_hint_comes_before_any_back_off(clock: VirtualClock) -> None:
    hint = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]
    service = Service(clock, [failure(503, "The model is overloaded.", "UNAVAILABLE", hint), said()])
    await service.ask()
    assert service.gaps == pytest.approx([7.0])


async def test_s3_04b_without_a_hint_full_jitter_below_a_growing_bound(clock: VirtualClock) -> None:
    off = config(
        retry_config=RetryConfig(max_attempts=4), circuit_breaker_enabled=False, retry_budget=3
    )
    service = Service(clock, lambda _: broken_inside(), off)
    for _ in range(30):
        await service.fails()
        await clock.sleep(1000)
    gaps = [gap for gap in service.gaps if gap < 900]
    assert len(gaps) == 90
    for position, bound in enumerate((1.0, 2.0, 4.0)):
        own = gaps[position::3]
        assert all(0 <= gap <= bound for gap in own)
        assert max(own) > bound / 2
        assert min(own) < bound / 2, "from 0 on, not a jitter on top"


@pytest.mark.parametrize(
    ("answer", "sends"),
    [
        (overloaded(), 3),
        (broken_inside(), 3),
        (failure(400, "Unknown field.", "INVALID_ARGUMENT"), 1),
        (failure(400, "User location is not supported for the API use.", "FAILED_PRECONDITION"), 1),
        (Answer(body=b'{"promptFeedback": {"blockReason": "SAFETY"}}'), 1),
        (bad_key(), 1),
    ],
)
async def test_s3_04c_only_what_may_pass_is_tried_again(
    answer: Answer, sends: int, clock: VirtualClock
) -> None:
    service = Service(clock, lambda _: answer)
    await service.fails()
    assert len(service.transport.sent) == sends


# ── the breaker ─────────────────────────────────────────────────────────────────────────────────


async def test_s3_04e_five_failures_open_it_for_sixty_seconds(clock: VirtualClock) -> None:
    service = Service(clock, [*[broken_inside()] * 5, said()], config(retry_config=ONCE))
    for _ in range(5):
        assert service.protection.state(MODEL) is BreakerState.CLOSED
        assert (await service.fails()).error_type is ErrorType.INTERNAL_SERVER_ERROR
    assert service.protection.states() == {MODEL: BreakerState.OPEN}
    await clock.sleep(20)
    error = await service.fails()
    assert error.error_type is ErrorType.SERVICE_UNAVAILABLE
    assert error.is_retryable
    assert error.retry_after == pytest.approx(40)
    assert "left alone for 40 s" in error.message
    assert len(service.transport.sent) == 5
    await clock.sleep(40)
    for state in (BreakerState.HALF_OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED):
        assert service.protection.state(MODEL) is state
        await service.ask()


async def test_s3_04d_each_model_has_a_breaker_of_its_own(clock: VirtualClock) -> None:
    def script(sent: Sent) -> Answer:
        return broken_inside() if MODEL in sent.request.url else said()

    service = Service(clock, script, config(retry_config=ONCE))
    for _ in range(5):
        await service.fails()
    await service.ask(OTHER)
    assert service.protection.states() == {MODEL: BreakerState.OPEN, OTHER: BreakerState.CLOSED}


async def test_s3_04d_quota_keys_and_callers_mistakes_never_trip_it(clock: VirtualClock) -> None:
    answers = [
        failure(400, "Unknown field.", "INVALID_ARGUMENT"),
        Answer(body=b'{"promptFeedback": {"blockReason": "SAFETY"}}'),
        failure(404, "models/x is not found.", "NOT_FOUND"),
    ]
    service = Service(clock, [*answers * 4, quota("Day")], config(retry_config=ONCE))
    for _ in range(13):
        await service.fails()
    assert service.protection.state(MODEL) is BreakerState.CLOSED
    assert len(service.transport.sent) == 13


async def test_s3_04e_other_thresholds_and_switched_off(clock: VirtualClock) -> None:
    quick = CircuitBreakerConfig(
        failure_threshold=2, success_threshold=1, timeout_seconds=5, half_open_max_requests=1
    )
    own = config(retry_config=ONCE, circuit_breaker=quick)
    service = Service(clock, [*[broken_inside()] * 2, said()], own)
    for _ in range(2):
        await service.fails()
    assert (await service.fails()).retry_after == pytest.approx(5)
    await clock.sleep(5)
    await service.ask()
    assert service.protection.state(MODEL) is BreakerState.CLOSED
    off = Service(
        clock, lambda _: broken_inside(), config(retry_config=ONCE, circuit_breaker_enabled=False)
    )
    for _ in range(20):
        assert (await off.fails()).error_type is ErrorType.INTERNAL_SERVER_ERROR
    assert off.protection.states() == {}


async def test_c20_a_breaker_survives_a_change_of_something_else(clock: VirtualClock) -> None:
    service = Service(clock, [*[broken_inside()] * 5, said()], config(retry_config=ONCE))
    for _ in range(5):
        await service.fails()
    await service.backend.update_gemini_backend_config(config(retry_config=ONCE, batch_size=9))
    assert (await service.fails()).error_type is ErrorType.SERVICE_UNAVAILABLE
    assert len(service.transport.sent) == 5


async def test_c20_new_thresholds_take_effect_at_once(clock: VirtualClock) -> None:
    service = Service(clock, [*[broken_inside()] * 6, said()], config(retry_config=ONCE))
    for _ in range(5):
        await service.fails()
    strict = CircuitBreakerConfig(failure_threshold=1)
    await service.backend.update_gemini_backend_config(
        config(retry_config=ONCE, circuit_breaker=strict)
    )
    assert service.protection.states() == {}
    assert (await service.fails()).error_type is ErrorType.INTERNAL_SERVER_ERROR
    assert service.protection.states() == {MODEL: BreakerState.OPEN}


async def test_a_callers_own_key_neither_opens_the_backends_breaker_nor_meets_it(
    clock: VirtualClock,
) -> None:
    def script(sent: Sent) -> Answer:
        return broken_inside() if number_of(sent) == 7 else said()

    service = Service(clock, script, config(retry_config=ONCE))
    await service.ask()
    request = GeminiRequest("Explain tides", MODEL)
    for _ in range(6):
        with pytest.raises(GeminiError):
            await service.backend.execute_gemini_enhanced(request, api_key=f"AIzaCANARY-007-{'x' * 20}")
    assert service.protection.state(MODEL) is BreakerState.CLOSED
    await service.ask()


# ── ours: the limit of calls at once, the budget, second attempts ───────────────────────────────


async def test_a_model_that_was_overloaded_gets_fewer_calls_at_once(clock: VirtualClock) -> None:
    own = config(max_concurrent_requests=20, circuit_breaker_enabled=False)
    service = Service(clock, [*[said(delay=1)] * 9, overloaded(), said(delay=1)], own)
    await asyncio.gather(*(service.ask() for _ in range(20)))
    limit = service.protection.limit(MODEL)
    assert limit is not None
    assert 7 <= limit <= 9, "0.7 of ten, and then it grew"
    off = structs.replace(own, adaptive_concurrency=False)
    plain = Service(clock, [*[said(delay=1)] * 9, overloaded(), said(delay=1)], off)
    await asyncio.gather(*(plain.ask() for _ in range(20)))
    assert plain.protection.limit(MODEL) is None


async def test_retries_are_held_to_their_budget(clock: VirtualClock) -> None:
    own = config(circuit_breaker_enabled=False, retry_budget=0.1)
    service = Service(clock, lambda _: broken_inside(), own)
    errors = [await service.fails() for _ in range(20)]
    assert len(service.transport.sent) <= 20 + 10 + 2, "the floor, and a tenth of twenty"
    assert "retries are held to a share" in errors[-1].message
    assert errors[-1].error_type is ErrorType.INTERNAL_SERVER_ERROR


async def test_a_slow_answer_is_hedged_on_another_project_where_that_is_asked_for(
    clock: VirtualClock,
) -> None:
    def script(sent: Sent) -> Answer:
        return said("slow", delay=50) if number_of(sent) == 0 else said("quick", delay=1)

    plain = Service(clock, script, OFFLINE, count=2)
    assert (await plain.ask()).text == "slow"
    service = Service(clock, script, config(hedge_after_seconds=3), count=2)
    assert (await service.ask()).text == "quick"
    assert {record.number for record in service.ear.attempts} == {1, 2}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"retry_budget": -0.1}, "retry_budget"),
        ({"retry_budget": "much"}, "retry_budget"),
        ({"hedge_after_seconds": 0}, "hedge_after_seconds"),
        ({"hedge_after_seconds": True}, "hedge_after_seconds"),
        ({"adaptive_concurrency": 1}, "adaptive_concurrency"),
    ],
)
def test_s3_24_wrong_values_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{named}.* takes"):
        BackendConfig(**fields)
