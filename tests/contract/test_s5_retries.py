"""What is tried again and what never, when the breaker opens, how connections are used (S5-04c-e)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.codegen import ORG, RUN, TOKEN, USER, emulated, failed, said, scripted

from headgate import codegen
from headgate.codegen import (
    AsyncCodegenClient,
    ClientConfig,
    CodegenAPIError,
    NetworkError,
    RateLimitError,
    RetryConfig,
    ServerError,
    TimeoutError,
)
from headgate.core.outcome import Kind
from headgate.providers.codegen import CODEGEN_ENDPOINTS
from headgate.testing import Answer, Broken, ScriptedTransport, VirtualClock

UNSENT = Broken(Kind.NETWORK, "No connection.", sent=False)
RESET = Broken(Kind.NETWORK, "The connection broke.", sent=True)
LATE = Broken(Kind.TIMEOUT, "The upstream took too long.", sent=True)
TLS = Broken(Kind.TLS, "The certificate is not accepted.", sent=False)
HTML = Answer(200, b"<html>", {})
CUT = Answer(200, b'{"id": 1', broken=True)

STARTS_AN_AGENT = {
    "create": lambda client: client.create_agent_run(ORG, "x"),
    "resume": lambda client: client.resume_agent_run(ORG, 5, "x"),
    "setup": lambda client: client.generate_setup_commands(ORG, 3),
    "analysis": lambda client: client.analyze_sandbox_logs(ORG, 4),
}
ANSWERS = {
    "create": RUN, "resume": RUN, "setup": {"agent_run_id": 1, "status": "x", "url": "u"},
    "analysis": {"agent_run_id": 1, "status": "x", "message": "m"},
}  # fmt: skip


@pytest.mark.parametrize(
    "trouble",
    [failed(status) for status in (429, 500, 502, 503, 504)] + [UNSENT, RESET, LATE, HTML, CUT],
    ids=lambda trouble: str(getattr(trouble, "status", trouble)),
)
async def test_s5_04c_a_read_is_tried_again(trouble: Any, clock: VirtualClock) -> None:
    client, transport = scripted([trouble, trouble, trouble, said(USER)], clock)
    assert (await client.get_current_user()).id == 7
    assert len(transport.sent) == 4
    assert transport.open_exchanges == 0


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 405, 409, 410, 413, 418, 422, 501, 505, 302]
)
async def test_s5_04c_what_trying_again_cannot_mend_is_raised_at_once(
    status: int, clock: VirtualClock
) -> None:
    client, transport = scripted([failed(status)], clock, max_retries=5)
    with pytest.raises(CodegenAPIError) as caught:
        await client.get_current_user()
    assert (len(transport.sent), caught.value.status_code) == (1, status)


async def test_a_tls_failure_is_never_tried_again(clock: VirtualClock) -> None:
    client, transport = scripted([TLS], clock, max_retries=5)
    with pytest.raises(NetworkError):
        await client.get_current_user()
    assert len(transport.sent) == 1


@pytest.mark.parametrize("call", STARTS_AN_AGENT)
@pytest.mark.parametrize(
    "trouble",
    [failed(status) for status in (500, 502, 503, 504)] + [RESET, LATE, HTML, CUT],
    ids=lambda trouble: str(getattr(trouble, "status", trouble)),
)
async def test_s5_04c_what_starts_an_agent_is_never_sent_twice_in_doubt(
    call: str, trouble: Any, clock: VirtualClock
) -> None:
    client, transport = scripted([trouble, said(ANSWERS[call])], clock, max_retries=5)
    with pytest.raises((ServerError, NetworkError, TimeoutError)) as caught:
        await STARTS_AN_AGENT[call](client)
    assert len(transport.sent) == 1
    assert caught.value.sent
    assert "may have been carried out" in caught.value.message or isinstance(trouble, Answer)


def test_s5_04c_which_operations_are_not_repeatable() -> None:
    found = {name for name, endpoint in CODEGEN_ENDPOINTS.items() if not endpoint.repeatable}
    assert found == {
        "create_agent_run", "resume_agent_run", "generate_setup_commands", "analyze_sandbox_logs",
    }  # fmt: skip


@pytest.mark.parametrize("call", STARTS_AN_AGENT)
@pytest.mark.parametrize("trouble", [failed(429), UNSENT], ids=["429", "unsent"])
async def test_s5_04c_what_starts_an_agent_is_tried_again_where_it_cannot_have_begun(
    call: str, trouble: Any, clock: VirtualClock
) -> None:
    client, transport = scripted([trouble, trouble, said(ANSWERS[call])], clock)
    await STARTS_AN_AGENT[call](client)
    assert len(transport.sent) == 3


async def test_s5_04c_delays_grow_and_are_spread(clock: VirtualClock) -> None:
    """Full jitter: with half of all chance, half of 1, 2, 4 s."""
    client, transport = scripted([failed(503), failed(503), failed(503), said(USER)], clock)
    await client.get_current_user()
    assert [sent.at for sent in transport.sent] == [0.0, 0.5, 1.5, 3.5]


async def test_s5_04c_delays_without_jitter_and_of_a_retry_config(clock: VirtualClock) -> None:
    client, transport = scripted(
        [failed(503)] * 3 + [said(USER)],
        clock,
        retry_jitter=False,
        retry_delay=2,
        retry_backoff_factor=3,
    )
    await client.get_current_user()
    assert [sent.at for sent in transport.sent] == [0, 2, 8, 26]
    transport = ScriptedTransport([failed(503)], clock)
    own = RetryConfig(max_attempts=2, base_delay=5, jitter=False)
    config = ClientConfig(environ={}, api_token=TOKEN)
    other = AsyncCodegenClient(config, retry=own, transport=transport, clock=clock)
    with pytest.raises(ServerError):
        await other.get_current_user()
    assert len(transport.sent) == 2
    assert transport.sent[1].at - transport.sent[0].at == 5
    assert RetryConfig().model_dump() == {
        "max_attempts": 3, "base_delay": 1, "max_delay": 60, "backoff_factor": 2, "jitter": True,
        "retryable": frozenset({429, 500, 502, 503, 504}),
    }  # fmt: skip


@pytest.mark.parametrize("status", [429, 503])
async def test_s5_04c_retry_after_comes_first(status: int, clock: VirtualClock) -> None:
    client, transport = scripted([failed(status, retry_after="17"), said(USER)], clock)
    await client.get_current_user()
    assert [sent.at for sent in transport.sent] == [0, 17]


@pytest.mark.parametrize("hint", ["1e9", "-5", "nan", "inf", "soon", "3601", ""])
async def test_an_absurd_hint_never_becomes_a_sleep(hint: str, clock: VirtualClock) -> None:
    client, _ = scripted([failed(429, retry_after=hint)], clock)
    with pytest.raises(RateLimitError) as caught:
        await client.get_current_user()
    assert clock.monotonic() <= 3 * 60
    assert caught.value.retry_after >= 0
    if hint in ("1e9", "3601"):
        assert (clock.monotonic(), caught.value.retry_after) == (0, 3600)


async def test_s5_18_a_429_says_when_to_come_back(clock: VirtualClock) -> None:
    """Without a header by our own reckoning: the class's window."""
    client, _ = scripted([failed(429)], clock, max_retries=0)
    with pytest.raises(RateLimitError) as caught:
        await client.get_current_user()
    assert caught.value.retry_after == 30
    with pytest.raises(RateLimitError) as caught:
        await client.create_agent_run(ORG, "x")
    assert caught.value.retry_after == 60


@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_max_retries_are_extra_tries(retries: int, clock: VirtualClock) -> None:
    client, transport = scripted([failed(500)], clock, max_retries=retries)
    with pytest.raises(ServerError) as caught:
        await client.get_current_user()
    assert len(transport.sent) == caught.value.attempts == retries + 1


async def test_timeout_is_for_each_attempt(clock: VirtualClock) -> None:
    client, transport = scripted([Answer(delay=100)], clock, timeout=10, max_retries=1)
    with pytest.raises(TimeoutError):
        await client.get_current_user()
    assert len(transport.sent) == 2
    assert clock.monotonic() == pytest.approx(20.5)


async def test_an_answer_that_is_not_the_promised_one(clock: VirtualClock) -> None:
    client, _ = scripted([said({"id": "no number", "github_user_id": "1"})], clock)
    with pytest.raises(ServerError, match="github_username") as caught:
        await client.get_current_user()
    assert caught.value.kind == "protocol"
    assert caught.value.__context__ is None, "no pydantic error shows through"


async def test_a_token_that_the_api_echoes_is_not_shown(clock: VirtualClock) -> None:
    client, _ = scripted([failed(401, f"Token {TOKEN} is not valid")], clock)
    with pytest.raises(codegen.AuthenticationError) as caught:
        await client.get_current_user()
    assert "CANARY" not in caught.value.message


# ── breaker ─────────────────────────────────────────────────────────────────────────────────────


async def fails(client: AsyncCodegenClient) -> str:
    with pytest.raises(CodegenAPIError) as caught:
        await client.get_current_user(fresh=True)
    return caught.value.kind


async def test_s5_04e_the_breaker_opens_and_recovers(clock: VirtualClock) -> None:
    """5 failures; 60 s; 2 successes."""
    answers = [failed(500)] * 5 + [failed(500)] + [said(USER)] * 9
    client, transport = scripted(answers, clock, max_retries=0)
    assert [await fails(client) for _ in range(6)] == ["server"] * 5 + ["unavailable"]
    assert len(transport.sent) == 5
    health = await client.health_check()
    assert health["checks"]["circuit_breaker"]["status"] == health["overall_status"] == "unhealthy"
    assert "headgate_codegen_breaker_open 1" in str(client.export_metrics("prometheus"))
    await clock.sleep(60)
    assert await fails(client) == "server", "the probe failed: open again"
    assert await fails(client) == "unavailable"
    await clock.sleep(59.9)
    assert await fails(client) == "unavailable"
    await clock.sleep(0.1)
    await client.get_current_user(fresh=True)
    assert (await client.health_check())["checks"]["circuit_breaker"]["details"]["state"] == "closed"


async def test_s5_04e_three_probes_at_once(clock: VirtualClock) -> None:
    script: list[Any] = [failed(500)] * 5 + [said(USER)]
    client, transport = scripted(script, clock, max_retries=0)
    for _ in range(5):
        await fails(client)
    await clock.sleep(60)
    transport._answers[:] = [Answer(200, json.dumps(USER).encode(), delay=1)]
    results = await asyncio.gather(
        *(client.get_user(ORG, number) for number in range(10)), return_exceptions=True
    )
    assert sum(isinstance(result, ServerError) for result in results) == 7
    assert len(transport.sent) == 8


async def test_s5_04e_a_probe_that_is_cancelled_is_no_answer(clock: VirtualClock) -> None:
    """Nor does it take the place of another for ever."""
    client, transport = scripted([failed(500)] * 5 + [said(USER)], clock, max_retries=0)
    for _ in range(5):
        await fails(client)
    await clock.sleep(60)
    transport._answers[:] = [Answer(200, json.dumps(USER).encode(), delay=9)]
    for _ in range(7):
        task = asyncio.ensure_future(client.get_current_user(fresh=True))
        await clock.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert transport.open_exchanges == 0
    assert (await client.get_current_user(fresh=True)).id == 7


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422, 429])
async def test_s5_04e_refusals_leave_the_breaker_alone(status: int, clock: VirtualClock) -> None:
    client, transport = scripted([failed(status, retry_after="0")], clock, max_retries=0)
    for _ in range(12):
        await fails(client)
    assert len(transport.sent) == 12


async def test_s5_04e_a_success_starts_the_count_anew(clock: VirtualClock) -> None:
    client, transport = scripted(([failed(500)] * 4 + [said(USER)]) * 3, clock, max_retries=0)
    for _ in range(3):
        for _ in range(4):
            await fails(client)
        await client.get_current_user(fresh=True)
    assert len(transport.sent) == 15


# ── connections ─────────────────────────────────────────────────────────────────────────────────


async def test_s5_04d_connections_are_pooled(clock: VirtualClock) -> None:
    async with emulated(clock, users=30) as (client, emulator):
        ports = set()
        serve = emulator.codegen.serve

        async def noting(request: Any, delivery: Any) -> Any:
            ports.add(request.transport.get_extra_info("peername")[1])
            return await serve(request, delivery)

        emulator.codegen.serve = noting  # type: ignore[method-assign]
        for number in range(1, 31):
            await client.get_user(ORG, number)
        assert len(ports) == 1


FAULTS = [
    {"kind": "overload"}, {"kind": "internal"}, {"kind": "bad_gateway"}, {"kind": "deadline"},
    {"kind": "rate_limit"}, {"kind": "reset"}, {"kind": "close"}, {"kind": "html"},
    {"kind": "reset_mid"}, {"kind": "wrong_length"}, {"kind": "broken_json"}, {"kind": "stall"},
    {"kind": "stall_mid"}, {"kind": "slow", "seconds": 2},
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault["kind"]))
async def test_a_read_survives_every_fault_of_the_emulator(
    fault: dict[str, Any], clock: VirtualClock
) -> None:
    async with emulated(clock, settings={"timeout": 5}) as (client, emulator):
        emulator.script(times=2, **fault)
        assert (await client.get_current_user()).github_username == "acme-user-1"
        assert emulator.report().totals.open == 0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault["kind"]))
async def test_s5_04c_no_fault_creates_a_run_twice(fault: dict[str, Any], clock: VirtualClock) -> None:
    """Whether the call succeeds or not, there is at most one run; if it succeeds, exactly that one."""
    async with emulated(clock, settings={"timeout": 5}) as (client, emulator):
        emulator.script(**fault)
        made, sent = None, True
        try:
            made = (await client.create_agent_run(ORG, "once")).id
        except CodegenAPIError as error:
            sent = error.sent
        assert sent
        runs = emulator.codegen.desk.worlds["acme"].runs
        assert set(runs) == {made} if made else len(runs) <= 1
