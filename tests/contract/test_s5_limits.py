"""How fast a client sends: a bucket per class, bursts, what refusals teach (S5-02c-d, S5-20, C18)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.codegen import ORG, RUN, USER, counts, emulated, failed, said, scripted

from headgate.codegen import AsyncCodegenClient, RateLimitError
from headgate.emulator.codegen_api import LIMITS, codegen_operations
from headgate.testing import Answer, ScriptedTransport, Sent, VirtualClock
from headgate.wiring.codegen_options import codegen_data


def per_path(sent: Sent) -> Answer:
    return said(RUN if "/agent/" in sent.request.url else USER)


async def many(clock: VirtualClock, client: AsyncCodegenClient, count: int) -> None:
    await asyncio.gather(*(client.get_current_user(fresh=True) for _ in range(count)))


def moments(transport: ScriptedTransport) -> list[float]:
    return [round(sent.at, 6) for sent in transport.sent]


def view(client: AsyncCodegenClient, group: str = "standard") -> Any:
    return client._caller.path().limits.views()[group]


def test_c18_the_shipped_limits_are_the_documented_ones() -> None:
    """Written down twice, by client and emulator, and they agree."""
    assert {name: tuple(limit) for name, limit in codegen_data().limits.items()} == dict(LIMITS)
    assert {operation.group for operation in codegen_operations()} == set(LIMITS)


async def test_s5_02d_a_burst_of_the_whole_bucket_then_its_rate(clock: VirtualClock) -> None:
    """60 a minute by default: 60 at once, then one a second."""
    client, transport = scripted(per_path, clock)
    await many(clock, client, 63)
    assert moments(transport) == [0.0] * 60 + [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("requests", "period", "at_once", "then"),
    [(30, 60, 30, 2.0), (120, 60, 60, 0.5), (500, 60, 60, 0.5), (10, 1, 10, 0.1), (60, 30, 60, 0.5)],
)
async def test_c18_the_configured_value_caps_the_standard_class_and_never_exceeds_the_documented(
    requests: int, period: float, at_once: int, then: float, clock: VirtualClock
) -> None:
    """Documented are 60 in 30 s: never more than 60 at once, never faster than 2 a second after."""
    client, transport = scripted(
        per_path, clock, rate_limit_requests_per_period=requests, rate_limit_period_seconds=period
    )
    await many(clock, client, at_once + 3)
    sent = moments(transport)
    assert sent[at_once - 1] == 0
    assert sent[at_once:] == pytest.approx([then, 2 * then, 3 * then], abs=2e-6)


async def test_c18_each_class_has_a_bucket_of_its_own(clock: VirtualClock) -> None:
    """10 creates a minute, whatever else is asked; and the standard class goes on meanwhile."""
    client, transport = scripted(per_path, clock)
    creates = [client.create_agent_run(ORG, f"p{number}") for number in range(12)]
    await asyncio.gather(*creates, many(clock, client, 20))
    created = [round(s.at, 6) for s in transport.sent if s.request.method == "POST"]
    asked = [s.at for s in transport.sent if s.request.method == "GET"]
    assert created == [0.0] * 10 + [6.0, 12.0]
    assert asked == [0.0] * 20


async def test_rate_limit_buffer_leaves_a_share_free(clock: VirtualClock) -> None:
    client, transport = scripted(per_path, clock, rate_limit_buffer=0.1)
    await many(clock, client, 60)
    assert moments(transport).count(0.0) == 54
    assert view(client, "create").limit == 9
    assert scripted(per_path, clock, rate_limit_buffer=1)[0]


async def test_s5_20_a_refusal_halves_and_successes_raise_by_a_tenth(clock: VirtualClock) -> None:
    answers = [failed(429, retry_after="1")] + [said(USER)] * 1000
    client, _ = scripted(answers, clock)
    assert view(client).limit == 60
    await client.get_current_user(fresh=True)
    assert view(client).limit == 30
    limits = []
    for _ in range(10):
        await many(clock, client, 10)
        limits.append(view(client).limit)
    assert limits[:6] == [33, 36, 39, 42, 46, 50]
    assert max(limits) == 60, "never above what is configured"


async def test_s5_20_floor_and_ceiling(clock: VirtualClock) -> None:
    client, _ = scripted([failed(429, retry_after="0")], clock, max_retries=0)
    for _ in range(9):
        with pytest.raises(RateLimitError):
            await client.get_current_user(fresh=True)
        await clock.sleep(40)
    assert (view(client).limit, view(client).floor) == (10, 10)
    wide, _ = scripted(
        per_path, clock, rate_limit_requests_per_period=1000, rate_limit_period_seconds=600
    )
    assert view(wide).limit == 200


async def test_s5_20_an_adapted_limit_remembers_what_was_sent(clock: VirtualClock) -> None:
    """Pitfall: a new limiter in place of the old one grants a second burst."""
    answers: list[Any] = [said(USER)] * 50 + [failed(429, retry_after="0")] + [said(USER)] * 100
    client, transport = scripted(answers, clock)
    await many(clock, client, 51)
    before = len(transport.sent)
    await many(clock, client, 60)
    assert sum(sent.at == 0 for sent in transport.sent[before:]) <= 60 - before


async def test_s5_20_a_smaller_limit_starts_with_what_was_left(clock: VirtualClock) -> None:
    answers: list[Any] = [said(USER)] * 80 + [failed(429, retry_after="0")] + [said(USER)] * 100
    client, transport = scripted(answers, clock)
    await many(clock, client, 60)
    await clock.sleep(31)  # 31 of 60 are back
    await many(clock, client, 20)
    begun = len(transport.sent)
    await many(clock, client, 40)  # the first is refused; of 30 a minute ten are left
    assert view(client).limit < 60
    assert sum(sent.at == 31 for sent in transport.sent[begun:]) <= 12


async def test_a_pause_of_years_neither_hangs_nor_lasts(clock: VirtualClock) -> None:
    """Calls are told at once; after an hour the upstream is asked again."""
    client, transport = scripted([failed(429, retry_after="1e9"), said(USER)], clock)
    for _ in range(3):
        with pytest.raises(RateLimitError) as caught:
            await client.get_current_user(fresh=True)
    assert len(transport.sent) == 1
    assert clock.monotonic() == 0
    assert not caught.value.sent
    assert caught.value.retry_after == 3600
    assert (await client.health_check())["overall_status"] == "degraded"
    await clock.sleep(3600)
    assert (await client.get_current_user(fresh=True)).id == 7


async def test_whoever_waits_when_a_long_pause_begins_is_told_too(clock: VirtualClock) -> None:
    late = Answer(429, b"{}", {"retry-after": "1800"}, delay=0.5)
    client, _ = scripted(lambda sent: late if sent.at else said(USER), clock)
    results = await asyncio.gather(
        *(client.get_current_user(fresh=True) for _ in range(70)), return_exceptions=True
    )
    assert sum(isinstance(result, RateLimitError) for result in results) == 10
    assert clock.monotonic() < 10


async def test_c20_changing_the_limit_grants_no_second_burst(clock: VirtualClock) -> None:
    client, transport = scripted(per_path, clock)
    await many(clock, client, 60)
    client.update_config(rate_limit_requests_per_period=59)
    await many(clock, client, 2)
    client.update_config(timeout=9)
    await many(clock, client, 2)
    assert moments(transport)[60] > 0.9


async def test_s5_20_refusals_of_one_burst_count_once(clock: VirtualClock) -> None:
    """What was sent before the change says nothing about what is allowed after it."""
    client, _ = scripted([Answer(429, b"{}", {"retry-after": "1"}, delay=1)], clock, max_retries=0)
    results = await asyncio.gather(
        *(client.get_current_user(fresh=True) for _ in range(20)), return_exceptions=True
    )
    assert all(isinstance(result, RateLimitError) for result in results)
    assert view(client).limit == 30


@pytest.mark.parametrize("mechanism", ["sliding_log", "fixed", "token_bucket", "sliding_counter"])
async def test_s5_02c_it_adapts_to_however_the_upstream_counts(
    mechanism: str, clock: VirtualClock
) -> None:
    """All get through; an upstream that counts windows refuses once or twice, then never again."""
    settings = {"rate_limit_requests_per_period": 120, "enable_caching": False}
    async with emulated(clock, mechanism=mechanism, users=300, settings=settings) as (client, emulator):
        result = await client.bulk_get_users(ORG, range(1, 301))
        assert (result.success_rate, len(result.results)) == (100.0, 300)
        refused = emulator.report().totals.refused.get("rate_limit", 0)
        # An upstream that only estimates its windows refuses what an exact one would let through.
        most, slack = {"token_bucket": (0, 1.01), "sliding_counter": (15, 1.8)}.get(
            mechanism, (5, 1.12)
        )
        assert refused <= most
        # 300 at 60 per 30 s: 60 at once and then 120 s, or four more windows.
        assert result.duration_seconds <= 120 * slack


async def test_calls_of_a_class_leave_in_the_order_they_came(clock: VirtualClock) -> None:
    client, transport = scripted(per_path, clock)
    await asyncio.gather(*(client.create_agent_run(ORG, str(number)) for number in range(30)))
    assert [json.loads(sent.request.body)["prompt"] for sent in transport.sent] == [
        str(number) for number in range(30)
    ]


async def test_a_caller_that_leaves_while_it_waits_takes_nothing(clock: VirtualClock) -> None:
    client, transport = scripted(per_path, clock)
    await many(clock, client, 60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await client.get_current_user(fresh=True)
    await client.get_current_user(fresh=True)
    assert moments(transport)[-1] == 1.0


async def test_two_tokens_do_not_share_a_bucket(clock: VirtualClock) -> None:
    client, transport = scripted(per_path, clock)
    await many(clock, client, 60)
    client.config.api_token = "CANARY-another-token-9876543210"
    await many(clock, client, 60)
    assert set(moments(transport)) == {0.0}


def test_a_client_used_from_two_loops_keeps_one_limit(clock: VirtualClock) -> None:
    client, transport = scripted(per_path, clock)
    for _ in range(4):
        clock.run(many(clock, client, 20))
    assert moments(transport).count(0.0) == 60
    assert len(client._caller.path().limits._queues) == 1, "loops that are closed are let go"


async def test_the_create_limit_holds_against_the_emulator(clock: VirtualClock) -> None:
    async with emulated(clock, mechanism="token_bucket") as (client, emulator):
        result = await client.bulk_create_agent_runs(ORG, [{"prompt": str(n)} for n in range(30)])
        assert result.success_rate == 100
        assert result.duration_seconds == pytest.approx(120, abs=0.1)
        assert counts(emulator)["create_agent_run"] == 30
