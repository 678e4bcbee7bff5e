"""S3-05, S3-15, S3-17 to S3-19, S3-22, S3-03g, h, S3-04i, j, S3-07g: what a backend tells of itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support import (
    MODEL,
    bad_key,
    broken_inside,
    event,
    failure,
    key,
    keys,
    overloaded,
    quota,
    reply,
    said,
    stream,
)

from headgate import backend as door
from headgate.backend import (
    BackendConfig,
    CircuitState,
    ErrorType,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    HealthState,
    RequestStatus,
    RetryConfig,
    StreamingChunk,
    UsagePeriodName,
)
from headgate.backend.health import RECENT_SECONDS
from headgate.core.errors import ConfigurationError, NoKeysError
from headgate.core.usage import UsageFilter, UsageRow
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock

ONCE = BackendConfig(
    model_discovery=False,
    retry_config=RetryConfig(max_attempts=1),
    circuit_breaker_enabled=False,
    cache_max_entries=0,
)


def made(
    clock: VirtualClock, script: Any, config: BackendConfig = ONCE, count: int = 1, **given: Any
) -> tuple[GeminiBackend, ScriptedTransport]:
    transport = ScriptedTransport(script, clock)
    environ = given.pop("environ", {})
    backend = GeminiBackend(
        config, keys=keys(count), transport=transport, clock=clock, environ=environ, **given
    )
    return backend, transport


def with_ledger(path: Path, **fields: Any) -> BackendConfig:
    from msgspec import structs

    return structs.replace(ONCE, usage=str(path), **fields)


async def ask(backend: GeminiBackend, prompt: str = "Hello", **fields: Any) -> GeminiResponse:
    request = GeminiRequest(prompt, fields.pop("model", MODEL), **fields)
    return cast("GeminiResponse", await backend.execute_gemini_enhanced(request))


async def fail(backend: GeminiBackend, **fields: Any) -> GeminiError:
    with pytest.raises(GeminiError) as caught:
        await ask(backend, **fields)
    return caught.value


def at(clock: VirtualClock, seconds: float = 0.0) -> datetime:
    return datetime.fromtimestamp(clock.wall() + seconds, UTC)


# ── S3-15 ───────────────────────────────────────────────────────────────────────────────────────


async def test_s3_15_s3_03g_each_model_since_the_backend_began(clock: VirtualClock) -> None:
    backend, _ = made(clock, [said(delay=1.0), said(delay=3.0), broken_inside(delay=2.0)])
    await ask(backend)
    await ask(backend)
    await fail(backend)
    metrics = await backend.get_gemini_performance_metrics()
    assert list(metrics) == [MODEL]
    one = metrics[MODEL]
    assert (one.total_requests, one.successful_requests, one.failed_requests) == (3, 2, 1)
    assert one.total_latency_ms == pytest.approx(6000)
    assert (one.min_latency_ms, one.max_latency_ms) == (pytest.approx(1000), pytest.approx(3000))
    assert one.avg_latency_ms == pytest.approx(2000)
    assert one.success_rate == pytest.approx(200 / 3)
    assert (one.total_input_tokens, one.total_output_tokens) == (10, 6)


async def test_s3_15_before_the_first_request_there_is_nothing(clock: VirtualClock) -> None:
    backend, _ = made(clock, [])
    assert await backend.get_gemini_performance_metrics() == {}


async def test_a_request_that_its_caller_gave_up_is_neither_success_nor_failure(
    clock: VirtualClock,
) -> None:
    backend, _ = made(clock, [said(delay=60.0), said()])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await ask(backend)
    await ask(backend)
    one = (await backend.get_gemini_performance_metrics())[MODEL]
    assert (one.total_requests, one.success_rate) == (1, 100.0)
    given_up = (await backend.get_gemini_monitoring_metrics()).request_history[1]
    assert (given_up.status, given_up.error) == (RequestStatus.FAILED, "Cancelled")


# ── S3-17, S3-05a, d, f ─────────────────────────────────────────────────────────────────────────


async def test_s3_17_s3_05a_s3_05f_requests_come_newest_first_with_all_that_is_known(
    clock: VirtualClock,
) -> None:
    backend, _ = made(clock, [said(delay=0.5), quota("Day"), broken_inside(), said()])
    first = await ask(backend)
    refused = await fail(backend, model="gemini-3.5-flash")
    await fail(backend)
    clock.advance(10)
    metrics = await backend.get_gemini_monitoring_metrics()
    assert metrics.usage_metrics is None
    broken, day, good = metrics.request_history
    assert good.request_id == first.request_id  # S3-05f: the same id in reply and record
    assert (good.model, good.status, good.error) == (MODEL, RequestStatus.SUCCESS, None)
    assert good.duration_ms == pytest.approx(500)
    assert (good.input_tokens, good.output_tokens, good.total_tokens) == (5, 3, 8)
    assert good.cost_estimate == first.cost_estimate
    assert (good.cache_hit, good.retry_count) == (False, 0)
    assert day.request_id == refused.request_id
    assert (day.status, day.error) == (RequestStatus.RATE_LIMITED, refused.error_type)
    assert (broken.status, broken.error) == (RequestStatus.FAILED, "InternalServerError")
    assert good.timestamp.tzinfo is UTC
    assert day.timestamp <= broken.timestamp


async def test_s3_17_a_limit_and_a_model_choose(clock: VirtualClock) -> None:
    backend, _ = made(clock, lambda _: said())
    for number in range(6):
        await ask(backend, model=("gemini-3.5-flash", MODEL)[number % 2])
    assert len((await backend.get_gemini_monitoring_metrics(limit=4)).request_history) == 4
    assert (await backend.get_gemini_monitoring_metrics(limit=0)).request_history == ()
    chosen = await backend.get_gemini_monitoring_metrics(MODEL)
    assert {one.model for one in chosen.request_history} == {MODEL}
    assert len(chosen.request_history) == 3
    assert chosen.usage_metrics is not None
    for limit in (-1, True, "all"):
        with pytest.raises(GeminiError, match="limit takes") as caught:
            await backend.get_gemini_monitoring_metrics(limit=limit)  # type: ignore[arg-type]
        assert caught.value.error_type is ErrorType.INVALID_REQUEST


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (failure(404, "no such model", "NOT_FOUND"), RequestStatus.FAILED),
        (quota("Minute"), RequestStatus.RATE_LIMITED),
        (Answer(delay=1000), RequestStatus.TIMEOUT),
        (Answer(body=json.dumps({"promptFeedback": {"blockReason": "SAFETY"}}).encode()),
         RequestStatus.BLOCKED),
        (bad_key(), RequestStatus.FAILED),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
async def test_s3_05a_the_status_says_what_became_of_a_request(
    clock: VirtualClock, answer: Answer, status: RequestStatus
) -> None:
    backend, _ = made(clock, lambda _: answer)
    error = await fail(backend, timeout_seconds=5)
    (one,) = (await backend.get_gemini_monitoring_metrics()).request_history
    assert (one.status, one.error) == (status, error.error_type)


async def test_s3_05a_retries_are_counted_and_tokens_are_never_guessed_where_they_are_told(
    clock: VirtualClock,
) -> None:
    from msgspec import structs

    config = structs.replace(ONCE, retry_config=RetryConfig(max_attempts=3))
    backend, _ = made(clock, [overloaded(), overloaded(), said()], config)
    await ask(backend)
    (one,) = (await backend.get_gemini_monitoring_metrics()).request_history
    assert (one.retry_count, one.status, one.total_tokens) == (2, RequestStatus.SUCCESS, 8)
    metrics = (await backend.get_gemini_performance_metrics())[MODEL]
    assert metrics.total_requests == 1


async def test_s3_05d_s3_05i_the_last_sixty_seconds(clock: VirtualClock) -> None:
    backend, _ = made(clock, [said(delay=2.0), said(delay=4.0), broken_inside(), said(delay=30)])
    await ask(backend)
    await ask(backend)
    await fail(backend)
    running = asyncio.ensure_future(ask(backend))
    await clock.sleep(1)
    now = (await backend.get_gemini_monitoring_metrics()).realtime_metrics
    assert now.requests_per_second == pytest.approx(3 / 60)
    assert now.tokens_per_second == pytest.approx(16 / 60)
    assert now.error_rate == pytest.approx(100 / 3)  # S3-05i: percent
    assert now.avg_latency_ms == pytest.approx(2000)
    assert (now.active_requests, now.queue_depth) == (1, 0)
    assert now.timestamp == at(clock)
    await running
    await clock.sleep(61)
    later = (await backend.get_gemini_monitoring_metrics()).realtime_metrics
    assert (later.requests_per_second, later.error_rate, later.avg_latency_ms) == (0, 0, None)


async def test_s3_05i_requests_that_never_entered_the_path_are_failures_too(
    clock: VirtualClock,
) -> None:
    from msgspec import structs

    config = structs.replace(ONCE, max_concurrent_requests=1, max_queued_requests=0)
    backend, _ = made(clock, lambda _: said(delay=5), config)
    running = asyncio.ensure_future(ask(backend))
    await clock.sleep(1)
    refused = await fail(backend, caller="billing")
    await running
    metrics = await backend.get_gemini_monitoring_metrics()
    answered, full = metrics.request_history
    assert (full.request_id, full.error) == (
        refused.request_id or full.request_id,
        "ServiceUnavailable",
    )
    assert metrics.realtime_metrics.error_rate == 50
    assert answered.status is RequestStatus.SUCCESS
    (report,) = backend.get_gemini_errors()
    assert (report.error_type, report.key_name) == ("ServiceUnavailable", None)


async def test_s3_05d_requests_that_wait_are_a_queue(clock: VirtualClock) -> None:
    from msgspec import structs

    config = structs.replace(ONCE, max_concurrent_requests=1)
    backend, _ = made(clock, lambda _: said(delay=5), config)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask(backend))
        await clock.sleep(1)
        now = (await backend.get_gemini_monitoring_metrics()).realtime_metrics
        assert (now.active_requests, now.queue_depth) == (1, 2)


# ── S3-05b: usage by periods; the ledger ────────────────────────────────────────────────────────


async def test_s3_05b_usage_by_hours_days_weeks_and_months(clock: VirtualClock, tmp_path: Path) -> None:
    for config in (ONCE, with_ledger(tmp_path / "usage.db")):
        backend, _ = made(clock, lambda _: said(delay=1.0), config)
        async with backend:
            for _ in range(3):
                await ask(backend)
                await clock.sleep(3600)
            usage = (await backend.get_gemini_monitoring_metrics(MODEL)).usage_metrics
            assert usage is not None
            assert [one.total_requests for one in usage.hourly] == [1, 1, 1]
            assert [one.start for one in usage.hourly] == sorted(
                (one.start for one in usage.hourly), reverse=True
            )
            assert all(one.period is UsagePeriodName.HOURLY for one in usage.hourly)
            for period in (UsagePeriodName.DAILY, "Weekly", UsagePeriodName.MONTHLY):
                found = await backend.get_gemini_usage_metrics(MODEL, period)
                assert sum(one.total_requests for one in found) == 3
                assert sum(one.total_input_tokens for one in found) == 15
                assert found[0].avg_latency_ms == pytest.approx(1000)
            with pytest.raises(GeminiError, match="Hourly, Daily"):
                await backend.get_gemini_usage_metrics(MODEL, "Yearly")


async def test_s3_05b_what_was_used_by_caller_and_by_model(clock: VirtualClock, tmp_path: Path) -> None:
    told = []
    for config in (ONCE, with_ledger(tmp_path / "usage.db")):
        backend, _ = made(clock, lambda _: said(), config)
        async with backend:
            for number in range(6):
                caller = ("billing", "search", "")[number % 3]
                await ask(backend, caller=caller, model=(MODEL, "gemini-3.5-flash")[number % 2])
            callers = await backend.get_gemini_usage("caller")
            assert {one.name: one.total_requests for one in callers} == {
                "billing": 2,
                "search": 2,
                "": 2,
            }
            models = await backend.get_gemini_usage("model")
            assert {one.name: one.input_tokens for one in models} == {MODEL: 15, "gemini-3.5-flash": 15}
            assert models[0].total_cost >= models[1].total_cost > 0
            (day,) = await backend.get_gemini_usage(caller="billing")
            assert (day.total_requests, day.attempts) == (2, 2)
            told.append((callers, models, day))
    assert told[0] == told[1]  # memory and ledger say the same


async def test_the_ledger_keeps_what_memory_cannot_sum(clock: VirtualClock, tmp_path: Path) -> None:
    backend, _ = made(clock, lambda _: said(), with_ledger(tmp_path / "usage.db"))
    async with backend:
        await ask(backend, caller="billing")
        (key_line,) = await backend.get_gemini_usage("key", model=MODEL, caller="billing")
        assert (key_line.name, key_line.total_requests) == ("k0", 1)
    memory, _ = made(clock, lambda _: said())
    with pytest.raises(GeminiError, match="need a usage ledger: set HEADGATE_USAGE"):
        await memory.get_gemini_usage("key")
    with pytest.raises(GeminiError, match="by takes hour"):
        await memory.get_gemini_usage("colour")


async def test_s3_05b_a_row_per_attempt_is_in_the_ledger_when_the_backend_has_closed(
    clock: VirtualClock, tmp_path: Path
) -> None:
    path = tmp_path / "usage.db"
    backend, _ = made(clock, [quota("Minute", "5s"), said()], with_ledger(path), count=2)
    async with backend:
        answer = await ask(backend, caller="billing")
    store = SqliteUsage(path)
    answered, refused = store.newest(9, UsageFilter())
    store.close()
    assert [refused.attempt, answered.attempt] == [1, 2]
    assert {one.request_id for one in (refused, answered)} == {answer.request_id}
    assert (refused.result, refused.error, refused.call, refused.cost) == (
        "quota", "RateLimitExceeded", "", 0,
    )  # fmt: skip
    assert (answered.call, answered.caller, answered.operation) == ("success", "billing", "generate")
    assert refused.key_name != answered.key_name
    assert answered.cost == round((answer.cost_estimate or 0) * 10**9)


async def test_a_disconnect_in_a_stream_is_billed_as_estimated(
    clock: VirtualClock, tmp_path: Path
) -> None:
    path = tmp_path / "usage.db"
    pieces = tuple(event(reply(text, finish=None)) for text in "abcdef")
    backend, _ = made(clock, [Answer(pieces=pieces, piece_delay=1.0)], with_ledger(path))
    async with backend:
        request = GeminiRequest("Hello", MODEL, stream=True)
        read = cast("AsyncGenerator[StreamingChunk]", await backend.execute_gemini_enhanced(request))
        await anext(read)
        await read.aclose()
    store = SqliteUsage(path)
    (row,) = store.newest(9, UsageFilter())
    store.close()
    assert (row.call, row.estimated, row.input_tokens) == ("cancelled", True, 5)
    assert row.cost is not None
    assert row.cost > 0


@pytest.mark.parametrize("remembered", [0, 10])
async def test_s3_05a_history_and_ledger_say_the_same_of_a_stream_that_was_given_up(
    clock: VirtualClock, tmp_path: Path, remembered: int
) -> None:
    """Where replies are remembered, the call ends before what it sent does."""
    pieces = tuple(event(reply(text, finish=None)) for text in "abcdef")
    config = with_ledger(tmp_path / "usage.db", cache_max_entries=remembered)
    backend, _ = made(clock, [Answer(pieces=pieces, piece_delay=1.0)], config)
    async with backend:
        request = GeminiRequest("Hello", MODEL, stream=True)
        read = cast("AsyncGenerator[StreamingChunk]", await backend.execute_gemini_enhanced(request))
        await anext(read)
        await read.aclose()
        await clock.sleep(1)
        (one,) = (await backend.get_gemini_monitoring_metrics()).request_history
        (line,) = await backend.get_gemini_usage("model")
    assert (one.input_tokens, one.output_tokens) == (line.input_tokens, line.output_tokens)
    assert one.cost_estimate == line.total_cost > 0
    assert (line.cancelled_requests, line.attempts, line.estimated_attempts) == (1, 1, 1)


async def test_a_reply_that_does_not_tell_its_tokens_is_estimated(
    clock: VirtualClock, tmp_path: Path
) -> None:
    body = reply()
    del body["usageMetadata"]
    row = await only_row(clock, tmp_path, Answer(body=json.dumps(body).encode()))
    assert (row.call, row.estimated) == ("success", True)
    assert row.input_tokens > 0


async def only_row(clock: VirtualClock, folder: Path, answer: Any, patience: float = 60.0) -> UsageRow:
    """The row of a request, answered or not, as the ledger has it."""
    backend, _ = made(clock, lambda _: answer, with_ledger(folder / "usage.db"))
    async with backend:
        try:
            async with asyncio.timeout(patience):
                await ask(backend, "one two three four five")
        except (TimeoutError, GeminiError):
            pass
    store = SqliteUsage(folder / "usage.db")
    (row,) = store.newest(9, UsageFilter())
    store.close()
    return row


@pytest.mark.parametrize(
    ("answer", "result", "billed"),
    [
        (said(delay=100), "cancelled", True),
        (Answer(delay=1000), "cancelled", True),
        (Broken(), "network", True),  # it was sent, and nobody knows what became of it
        (Broken(sent=False), "network", False),
        (Answer(body=b"{"), "protocol", True),
        (overloaded(), "unavailable", False),
        (failure(400, "Invalid value", "INVALID_ARGUMENT"), "invalid", False),
    ],
    ids=["given up", "silent", "reset", "not sent", "cut", "overloaded", "wrong"],
)
async def test_s3_05c_what_may_have_been_billed_is_told_as_an_estimate(
    clock: VirtualClock, tmp_path: Path, answer: Any, result: str, billed: bool
) -> None:
    row = await only_row(clock, tmp_path, answer)
    assert (row.result, row.estimated) == (result, billed)
    assert (row.input_tokens > 0) is billed
    assert (row.cost != 0) is billed


async def test_s3_15_a_reply_from_the_cache_is_counted_with_what_it_saved(
    clock: VirtualClock, tmp_path: Path
) -> None:
    from msgspec import structs

    path = tmp_path / "usage.db"
    config = structs.replace(with_ledger(path), cache_max_entries=10)
    backend, transport = made(clock, lambda _: said(delay=1), config)
    start = at(clock)
    async with backend:
        first = await ask(backend, caller="billing")
        again = await ask(backend, caller="billing")
        assert (first.cached, again.cached, len(transport.sent)) == (False, True, 1)
        metrics = (await backend.get_gemini_performance_metrics())[MODEL]
        assert (metrics.cache_hits, metrics.cache_misses, metrics.cache_hit_rate) == (1, 1, 50)
        assert (metrics.total_requests, metrics.total_input_tokens) == (2, 5)
        newest = (await backend.get_gemini_monitoring_metrics(limit=1)).request_history[0]
        assert (newest.cache_hit, newest.total_tokens, newest.cost_estimate) == (True, 0, 0)
        found = await backend.get_gemini_analytics(MODEL, start, at(clock, 1))
        assert found.cost_analysis.cached_savings == pytest.approx(first.cost_estimate)
        assert found.latency_distribution.min == pytest.approx(1000)  # of the upstream, not the cache
        (line,) = await backend.get_gemini_usage("caller")
        assert (line.total_requests, line.cached_requests, line.attempts) == (2, 1, 1)
        assert line.cached_savings == line.total_cost > 0
        status = await backend.get_gemini_backend_status()
        assert (status.cache_stats.total_hits, status.cache_stats.entries) == (1, 1)
    store = SqliteUsage(path)
    hit = next(row for row in store.newest(9, UsageFilter()) if row.from_cache)
    store.close()
    assert (hit.attempt, hit.call, hit.cost, hit.request_id) == (0, "success", 0, again.request_id)


def test_s3_06d_building_a_backend_makes_no_ledger_and_the_first_request_does(tmp_path: Path) -> None:
    clock = VirtualClock()
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    backend, _ = made(clock, [said()], environ=environ)
    assert not (tmp_path / "state").exists()
    clock.run(ask(backend))
    clock.run(backend.aclose())
    path = tmp_path / "state" / "headgate" / "usage.sqlite3"
    assert path.is_file()
    assert (path.stat().st_mode | path.parent.stat().st_mode) & 0o077 == 0


def test_s3_06d_a_default_ledger_that_cannot_be_made_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    clock = VirtualClock()
    backend, _ = made(clock, [said()], environ={"XDG_STATE_HOME": str(blocked)})
    clock.run(ask(backend))
    lines = clock.run(backend.get_gemini_usage("model"))  # out of memory
    assert lines[0].total_requests == 1
    clock.run(backend.aclose())
    told = [one for one in caplog.records if one.name == "headgate.usage"]
    assert [one.levelname for one in told] == ["WARNING"]
    assert "HEADGATE_USAGE" in told[0].getMessage()


async def test_a_ledger_that_was_asked_for_and_cannot_be_opened_harms_no_request(
    clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend, _ = made(clock, [said()], with_ledger(tmp_path / "missing" / "usage.db"))
    assert (await ask(backend)).text == "fine"
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await backend.get_gemini_usage()
    await backend.aclose()
    assert "ERROR" in [one.levelname for one in caplog.records if one.name == "headgate.usage"]


async def test_off_keeps_no_ledger(clock: VirtualClock, tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "HEADGATE_USAGE": "off"}
    backend, _ = made(clock, [said()], environ=environ)
    async with backend:
        await ask(backend)
    assert not (tmp_path / "state").exists()


async def test_monitoring_can_be_switched_off_and_on(clock: VirtualClock) -> None:
    from msgspec import structs

    off = structs.replace(ONCE, monitoring_enabled=False)
    backend, _ = made(clock, lambda _: said(), off)
    await ask(backend)
    assert await backend.get_gemini_performance_metrics() == {}
    await backend.update_gemini_backend_config(ONCE)
    await ask(backend)
    assert (await backend.get_gemini_performance_metrics())[MODEL].total_requests == 1


async def test_the_place_of_the_ledger_is_fixed_and_its_password_masked(clock: VirtualClock) -> None:
    from msgspec import structs

    config = structs.replace(ONCE, usage="postgresql://u:CANARY-pw@host/db")
    assert "CANARY" not in repr(config)
    backend, _ = made(clock, [], config)
    shown = await backend.get_gemini_backend_config()
    assert shown.usage == "postgresql://***@host/db"
    await backend.update_gemini_backend_config(structs.replace(shown, batch_size=9))
    with pytest.raises(ConfigurationError, match="usage is fixed"):
        await backend.update_gemini_backend_config(structs.replace(config, usage="off"))
    with pytest.raises(ConfigurationError, match="usage takes auto, off, the path"):
        BackendConfig(usage="mysql://host/db")


# ── S3-18 ───────────────────────────────────────────────────────────────────────────────────────


async def test_s3_18_s3_03h_s3_05h_a_model_over_a_range_has_real_quantiles_and_peaks(
    clock: VirtualClock,
) -> None:
    delays = [1.0, 2.0, 3.0, 4.0, 100.0]
    script = [*(said(delay=one) for one in delays), broken_inside(), quota("Day")]
    from msgspec import structs

    config = structs.replace(ONCE, request_timeout_seconds=200)
    backend, _ = made(clock, script, config)
    start = at(clock)
    for _ in delays:
        await ask(backend, timeout_seconds=150)
    await fail(backend)
    await fail(backend)
    end = at(clock, 60)
    found = await backend.get_gemini_analytics(MODEL, start.isoformat(), end)
    spread = found.latency_distribution
    assert spread.min == pytest.approx(1000)
    assert spread.max == pytest.approx(100_000)
    assert spread.mean == pytest.approx(22_000)
    assert spread.p50 == spread.median == pytest.approx(3000, rel=0.01)
    assert spread.p75 == pytest.approx(4000, rel=0.01)
    assert found.error_distribution == {"InternalServerError": 1, "QuotaExceeded": 1}
    throughput, costs = found.throughput_metrics, found.cost_analysis
    assert throughput.peak_rpm >= 2
    assert throughput.peak_tpm >= 8
    minutes = (clock.wall() - start.timestamp()) / 60
    assert throughput.requests_per_minute == pytest.approx(7 / minutes)
    assert costs.total_cost == pytest.approx(costs.input_cost + costs.output_cost)
    assert costs.cost_per_request == pytest.approx(costs.total_cost / 7)
    assert costs.cost_per_thousand_tokens == pytest.approx(costs.total_cost / 40 * 1000)
    assert costs.total_cost > 0
    assert (found.model, found.time_range.start, found.time_range.end) == (MODEL, start, end)


async def test_s3_18_the_range_is_kept(clock: VirtualClock) -> None:
    backend, _ = made(clock, lambda _: said(delay=1))
    marks = []
    for _ in range(3):
        await clock.sleep(600)
        marks.append(at(clock))
        await ask(backend)
    one = await backend.get_gemini_analytics(MODEL, marks[1], marks[1] + timedelta(minutes=5))
    assert one.throughput_metrics.requests_per_minute == pytest.approx(1 / 5)
    assert one.latency_distribution.mean == pytest.approx(1000)
    nothing = await backend.get_gemini_analytics(
        MODEL, marks[0] - timedelta(hours=2), marks[0] - timedelta(hours=1)
    )
    assert nothing.latency_distribution.mean is None
    assert nothing.cost_analysis.cost_per_request == 0


@pytest.mark.parametrize(
    ("start", "end", "said_of"),
    [
        ("2026-11-21T12:00:00Z", "2026-11-21T11:00:00Z", "lies before start"),
        ("2026-11-21T12:00:00", "2026-11-21T13:00:00Z", "start takes an instant with its offset"),
        ("yesterday", "2026-11-21T13:00:00Z", "start takes"),
        ("2026-11-21T12:00:00Z", 17, "end takes"),
    ],
)
async def test_s3_18_what_is_no_range_is_an_invalid_request(
    clock: VirtualClock, start: Any, end: Any, said_of: str
) -> None:
    backend, _ = made(clock, [])
    with pytest.raises(GeminiError, match=said_of) as caught:
        await backend.get_gemini_analytics(MODEL, start, end)
    assert (caught.value.error_type, caught.value.http_status) == (ErrorType.INVALID_REQUEST, 400)


async def test_s3_18_what_was_before_this_process_comes_from_the_ledger(
    clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.backend.monitoring._PAGE", 2)  # three rows are two pages
    config, start = with_ledger(tmp_path / "usage.db"), at(clock)
    for delays in ([1.0, 2.0], [3.0, 4.0]):
        backend, _ = made(clock, [*(said(delay=one) for one in delays), quota("Day")], config)
        async with backend:
            for _ in delays:
                await ask(backend)
            await fail(backend)
            await clock.sleep(7200)
            found = await backend.get_gemini_analytics(MODEL, start, at(clock))
    assert found.latency_distribution.mean == pytest.approx(2500)
    assert found.latency_distribution.max == pytest.approx(4000)
    assert found.error_distribution == {"QuotaExceeded": 2}
    whole = await backend.get_gemini_usage("model")
    assert found.cost_analysis.total_cost == pytest.approx(whole[0].total_cost)
    await backend.aclose()


# ── S3-05k: forecasts ───────────────────────────────────────────────────────────────────────────


async def test_s3_05k_what_is_to_be_expected(clock: VirtualClock, tmp_path: Path) -> None:
    backend, _ = made(clock, lambda _: said(), with_ledger(tmp_path / "usage.db"))
    async with backend:
        assert await backend.get_gemini_forecast() is None
        for _ in range(10):
            for _ in range(4):
                await ask(backend)
            await clock.sleep(3600)
        made_of = await backend.get_gemini_forecast("requests", hours=12)
        assert made_of is not None
        assert made_of.trend == "steady"
        assert made_of.total.expected == pytest.approx(48, rel=0.2)
        assert made_of.hours[0].low <= made_of.hours[0].expected <= made_of.hours[0].high
        assert len(made_of.hours) == 12
        tokens = await backend.get_gemini_forecast("tokens", model=MODEL, hours=1)
        assert tokens is not None
        assert tokens.total.expected == pytest.approx(32, rel=0.2)
        for wrong in ({"of": "colours"}, {"hours": 0}, {"hours": 10**6}):
            with pytest.raises(GeminiError):
                await backend.get_gemini_forecast(**wrong)  # type: ignore[arg-type]


async def test_s3_05k_hours_without_requests_count_as_such(clock: VirtualClock) -> None:
    backend, _ = made(clock, lambda _: said())
    for _ in range(12):
        for _ in range(6):
            await ask(backend)
        await clock.sleep(7200)
    made_of = await backend.get_gemini_forecast("requests", hours=10)
    assert made_of is not None
    assert made_of.total.expected == pytest.approx(30, rel=0.25)


# ── S3-04j ──────────────────────────────────────────────────────────────────────────────────────


async def test_s3_04j_failures_are_kept_with_type_model_and_key(clock: VirtualClock) -> None:
    backend, _ = made(clock, [quota("Minute", "5s"), said(), broken_inside()], count=2)
    answer = await ask(backend)
    await fail(backend)
    broken, refused = backend.get_gemini_errors()
    assert (refused.error_type, refused.model, refused.status) == ("RateLimitExceeded", MODEL, 429)
    assert refused.key_name in ("k0", "k1")
    assert (
        refused.request_id == answer.request_id
    )  # a rotation is a failure of the attempt, not the call
    assert "exceeded" in refused.message
    assert (broken.error_type, broken.status) == ("InternalServerError", 500)
    assert backend.get_gemini_errors(1) == (broken,)


async def test_s3_04j_the_last_hundred_are_kept(clock: VirtualClock) -> None:
    backend, _ = made(clock, lambda _: broken_inside())
    for _ in range(120):
        await fail(backend)
    assert len(backend.get_gemini_errors(1000)) == 100


# ── S3-19, S3-04i, S3-07g ───────────────────────────────────────────────────────────────────────

Card = Callable[[Sent], Answer | Broken]


def upstream(card: Any, answers: Any = None) -> Card:
    """What answers checks with one thing, and generations with another."""

    def answer(sent: Sent) -> Answer | Broken:
        chosen = card if sent.request.method == "GET" else answers or said()
        return cast("Answer | Broken", chosen() if callable(chosen) else chosen)

    return answer


def listed() -> Answer:
    return Answer(body=json.dumps({"name": f"models/{MODEL}", "version": "1"}).encode())


async def test_s3_19_s3_04i_a_check_asks_for_the_card_and_generates_nothing(
    clock: VirtualClock,
) -> None:
    backend, transport = made(clock, upstream(listed))
    status = await backend.get_gemini_health_status(MODEL)
    assert (status.model, status.status, status.circuit_state) == (
        MODEL, HealthState.HEALTHY, CircuitState.CLOSED,
    )  # fmt: skip
    assert (status.recent_errors, status.success_rate, status.avg_latency_ms) == (0, None, None)
    assert status.last_check == at(clock)
    (sent,) = transport.sent
    assert (sent.request.method, sent.request.url.endswith(f"/models/{MODEL}")) == ("GET", True)


async def test_s3_19_a_finding_stands_for_the_interval(clock: VirtualClock) -> None:
    backend, transport = made(clock, upstream(listed))
    first = await backend.get_gemini_health_status(MODEL)
    await clock.sleep(299)
    again = await backend.get_gemini_health_status(f"models/{MODEL}")
    assert (len(transport.sent), again.last_check) == (1, first.last_check)
    await clock.sleep(2)
    assert (await backend.get_gemini_health_status(MODEL)).last_check > first.last_check
    assert len(transport.sent) == 2


async def test_s3_19_many_who_ask_at_once_are_one_check(clock: VirtualClock) -> None:
    def slow() -> Answer:
        return Answer(body=listed().body, delay=1.0)

    backend, transport = made(clock, upstream(slow))
    found = await asyncio.gather(*(backend.get_gemini_health_status(MODEL) for _ in range(20)))
    assert len(transport.sent) == 1
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("card", "state"),
    [
        (listed(), HealthState.HEALTHY),
        (failure(503, "down", "UNAVAILABLE"), HealthState.DEGRADED),
        (failure(404, "no such model", "NOT_FOUND"), HealthState.DEGRADED),
        (bad_key(), HealthState.DEGRADED),
        (Broken(), HealthState.UNHEALTHY),
        (Answer(delay=60), HealthState.UNHEALTHY),
    ],
    ids=["card", "503", "404", "key", "network", "silent"],
)
async def test_s3_19_what_the_upstream_says_decides(
    clock: VirtualClock, card: Any, state: HealthState
) -> None:
    backend, _ = made(clock, upstream(card))
    assert (await backend.get_gemini_health_status(MODEL)).status is state


async def test_s3_19_fewer_than_95_per_cent_are_degraded_until_they_are_past(
    clock: VirtualClock,
) -> None:
    answers = iter([*(said(delay=1) for _ in range(18)), broken_inside(), broken_inside()])
    backend, _ = made(clock, upstream(listed, lambda: next(answers)))
    for _ in range(18):
        await ask(backend)
    assert (await backend.get_gemini_health_status(MODEL)).status is HealthState.HEALTHY
    for _ in range(2):
        await fail(backend)
    status = await backend.get_gemini_health_status(MODEL)
    assert (status.status, status.recent_errors, status.success_rate) == (HealthState.DEGRADED, 2, 90.0)
    assert status.avg_latency_ms == pytest.approx(900)
    await clock.sleep(RECENT_SECONDS + 60)
    later = await backend.get_gemini_health_status(MODEL)
    assert (later.status, later.success_rate) == (HealthState.HEALTHY, None)


async def test_s3_19_mistakes_of_callers_say_nothing_about_a_model(clock: VirtualClock) -> None:
    wrong = failure(400, "Invalid value", "INVALID_ARGUMENT")
    backend, _ = made(clock, upstream(listed, wrong))
    for _ in range(3):
        await fail(backend)
    status = await backend.get_gemini_health_status(MODEL)
    assert (status.status, status.recent_errors, status.success_rate) == (HealthState.HEALTHY, 0, None)


async def test_s3_19_an_open_breaker_is_unhealthy_and_half_open_degraded(clock: VirtualClock) -> None:
    from msgspec import structs

    config = structs.replace(ONCE, circuit_breaker_enabled=True)
    backend, _ = made(clock, upstream(listed, overloaded), config)
    for _ in range(5):
        await fail(backend)
    status = await backend.get_gemini_health_status(MODEL)
    assert (status.status, status.circuit_state) == (HealthState.UNHEALTHY, CircuitState.OPEN)
    now = (await backend.get_gemini_monitoring_metrics()).realtime_metrics
    assert now.circuit_breaker_status == {MODEL: CircuitState.OPEN}
    await clock.sleep(61)
    half = await backend.get_gemini_health_status(MODEL)
    assert (half.status, half.circuit_state) == (HealthState.DEGRADED, CircuitState.HALF_OPEN)
    # Its failures are past and the last check was answered: the breaker alone says so.
    await clock.sleep(RECENT_SECONDS)
    later = await backend.get_gemini_health_status(MODEL)
    assert (later.success_rate, later.status) == (None, HealthState.DEGRADED)


async def test_s3_19_a_key_of_the_callers_own_asks_alone(clock: VirtualClock) -> None:
    backend, transport = made(clock, upstream(listed))
    for own in (key(7), key(7), key(8)):
        await backend.get_gemini_health_status(MODEL, api_key=own)
    await backend.get_gemini_health_status(MODEL)
    used = [sent.credential["x-goog-api-key"] for sent in transport.sent]
    assert used == [key(7), key(8), key(0)]


async def test_s3_19_without_a_key_it_says_so(clock: VirtualClock) -> None:
    backend = GeminiBackend(ONCE, clock=clock, environ={})
    with pytest.raises(NoKeysError):
        await backend.get_gemini_health_status(MODEL)


async def test_s3_07g_models_in_use_are_checked_again_and_again(clock: VirtualClock) -> None:
    cards = iter([listed(), Broken(), listed()])
    backend, transport = made(clock, upstream(lambda: next(cards, listed())))
    await ask(backend)
    keeping = asyncio.ensure_future(backend.keep_gemini_health_fresh())
    states = []
    for _ in range(3):
        await clock.sleep(1)
        states.append((await backend.get_gemini_backend_status()).health_statuses[MODEL].status)
        await clock.sleep(300)
    keeping.cancel()
    assert states == [HealthState.HEALTHY, HealthState.UNHEALTHY, HealthState.HEALTHY]
    assert sum(sent.request.method == "GET" for sent in transport.sent) == 4


# ── S3-22, S3-05g, S3-03g ───────────────────────────────────────────────────────────────────────


async def test_s3_22_s3_05g_everything_at_a_glance_asks_nobody_and_is_json(clock: VirtualClock) -> None:
    import msgspec

    backend, transport = made(clock, lambda _: said(delay=1))
    await ask(backend)
    status = await backend.get_gemini_backend_status()
    assert len(transport.sent) == 1
    assert status.performance_metrics[MODEL].total_requests == 1
    assert status.health_statuses[MODEL].status is HealthState.HEALTHY
    assert status.health_statuses[MODEL].success_rate == 100
    assert status.realtime_metrics.requests_per_second > 0
    assert status.config == await backend.get_gemini_backend_config()
    shown = json.loads(msgspec.json.encode(status))
    assert set(shown) == {
        "realtime_metrics", "cache_stats", "performance_metrics", "health_statuses", "config",
    }  # fmt: skip
    assert shown["health_statuses"][MODEL]["last_check"].endswith(("Z", "+00:00"))


async def test_s3_22_of_an_idle_backend(clock: VirtualClock) -> None:
    backend, _ = made(clock, [])
    status = await backend.get_gemini_backend_status()
    assert (status.performance_metrics, status.health_statuses) == ({}, {})
    assert status.realtime_metrics.circuit_breaker_status == {}


# ── clocks, bounds ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("jump", [86_400 * 365.0, -86_400 * 365.0])
async def test_a_wall_clock_that_jumps_loses_nothing(
    clock: VirtualClock, tmp_path: Path, jump: float
) -> None:
    backend, _ = made(clock, lambda _: said(), with_ledger(tmp_path / "usage.db"))
    async with backend:
        start = at(clock, -3600)
        for step in (0.0, jump, -jump):
            clock.step_wall(step)
            for _ in range(4):
                await ask(backend)
            await backend.get_gemini_usage("model")  # its thread has seen this clock before it jumps
            await clock.sleep(400)
        assert (await backend.get_gemini_performance_metrics())[MODEL].total_requests == 12
        found = await backend.get_gemini_analytics(MODEL, start, at(clock, 60))
        assert found.throughput_metrics.requests_per_minute > 0
        lines = await backend.get_gemini_usage("model")
        assert lines[0].total_requests == 12
        assert len((await backend.get_gemini_monitoring_metrics()).request_history) == 12


async def test_s3_05k_memory_is_bounded_in_time_and_number(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msgspec import structs

    config = structs.replace(ONCE, metrics_retention_hours=1)
    backend, _ = made(clock, lambda _: said(), config)
    await ask(backend)
    await clock.sleep(3000)
    await ask(backend)
    assert len((await backend.get_gemini_monitoring_metrics()).request_history) == 2
    await clock.sleep(1000)
    assert len((await backend.get_gemini_monitoring_metrics()).request_history) == 1
    start = at(clock, -7200)
    found = await backend.get_gemini_analytics(MODEL, start, at(clock))
    assert found.latency_distribution.mean is not None
    await clock.sleep(3600)
    found = await backend.get_gemini_analytics(MODEL, start, at(clock))
    assert found.latency_distribution.mean is None  # older than the retention
    assert (await backend.get_gemini_performance_metrics())[MODEL].total_requests == 2  # since it began


def test_the_accepted_commands_are_functions_too() -> None:
    for name in (
        "get_gemini_performance_metrics",
        "get_gemini_monitoring_metrics",
        "get_gemini_analytics",
        "get_gemini_health_status",
        "get_gemini_backend_status",
    ):
        assert asyncio.iscoroutinefunction(getattr(door, name))
        assert asyncio.iscoroutinefunction(getattr(GeminiBackend, name))


async def test_streams_are_requests_as_well(clock: VirtualClock) -> None:
    backend, _ = made(clock, [stream("a", "b", piece_delay=1.0)])
    request = GeminiRequest("Hello", MODEL, stream=True)
    async for _ in cast(
        "AsyncGenerator[StreamingChunk]", await backend.execute_gemini_enhanced(request)
    ):
        pass
    (one,) = (await backend.get_gemini_monitoring_metrics()).request_history
    assert (one.status, one.total_tokens) == (RequestStatus.SUCCESS, 8)
    assert one.duration_ms >= 1000
