"""Health that tells the truth in time, metrics in bounded memory, exports (S5-03, S5-13)."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.codegen import ORG, RUN, TOKEN, USER, failed, said, scripted

from headgate.codegen import AsyncCodegenClient, ClientConfig
from headgate.codegen.measures import Measures
from headgate.core.outcome import Kind
from headgate.core.resource import ResourceRecord
from headgate.testing import Answer, Broken, ScriptedTransport, VirtualClock

STATS = {
    "total_requests", "successful_requests", "failed_requests", "average_response_time_ms",
    "min_response_time_ms", "max_response_time_ms", "p50_response_time_ms", "p95_response_time_ms",
    "p99_response_time_ms", "total_bytes_sent", "total_bytes_received", "error_rate",
    "requests_per_second",
}  # fmt: skip


# ── health ──────────────────────────────────────────────────────────────────────────────────────


async def test_s5_13_healthy(clock: VirtualClock) -> None:
    client, transport = scripted([Answer(200, json.dumps(USER).encode(), delay=0.25)], clock)
    await client.get_current_user()
    health = await client.health_check()
    assert set(health) == {"overall_status", "timestamp", "checks"}
    assert health["overall_status"] == "healthy"
    assert {"api_connectivity", "rate_limiting"} <= set(health["checks"])
    for check in health["checks"].values():
        assert set(check) == {"status", "response_time_ms", "details"}
    assert health["checks"]["api_connectivity"]["response_time_ms"] == pytest.approx(250)
    assert health["timestamp"] == "2026-11-21T12:00:00.500000+00:00"
    assert [sent.request.url.rpartition("/v1")[2] for sent in transport.sent] == ["/users/me"] * 2
    json.dumps(health)


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (failed(500), "unhealthy", "ServerError"),
        (failed(401), "unhealthy", "AuthenticationError"),
        (failed(403), "unhealthy", "PermissionDeniedError"),
        (failed(429), "degraded", "RateLimitError"),
        (Broken(Kind.NETWORK), "unhealthy", "NetworkError"),
        (Answer(200, b"<html>"), "unhealthy", "ServerError"),
        (Answer(200, b"{}"), "unhealthy", "ServerError"),
        (Answer(delay=1e6), "unhealthy", "TimeoutError"),
    ],
)
async def test_s5_13_a_check_that_fails_is_not_counted_as_healthy(
    answer: Any, status: str, error: str, clock: VirtualClock
) -> None:
    """Pitfall: a check that reports trouble, and an overall status that does not look."""
    client, transport = scripted([answer], clock)
    health = await client.health_check()
    check = health["checks"]["api_connectivity"]
    assert (check["status"], check["details"]["error_type"]) == (status, error)
    assert health["overall_status"] == status
    assert len(transport.sent) == 1
    assert clock.monotonic() <= 10


async def test_s5_13_without_a_token_it_says_so(clock: VirtualClock) -> None:
    client, transport = scripted([said(USER)], clock, api_token="")
    health = await client.health_check()
    assert health["overall_status"] == "unhealthy"
    assert not transport.sent


async def test_s5_13_it_ends_in_time_when_the_limit_is_used_up(clock: VirtualClock) -> None:
    client, _ = scripted([failed(429, retry_after="55")], clock, max_retries=0)
    with pytest.raises(Exception, match="get_current_user"):
        await client.get_current_user()
    begun = clock.monotonic()
    health = await client.health_check()
    assert clock.monotonic() - begun == 10
    assert health["overall_status"] == "degraded"
    assert health["checks"]["rate_limiting"]["status"] == "degraded"


async def test_s5_03c_nothing_deadlocks(clock: VirtualClock) -> None:
    """Pitfall: locks within locks, so that statistics and health hang."""
    client, _ = scripted(lambda sent: Answer(200, json.dumps(USER).encode(), delay=0.01), clock)
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            client.get_metrics_summary()
            client.export_metrics("prometheus")

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        async with asyncio.timeout(3600):
            await asyncio.gather(
                *(client.get_current_user(fresh=True) for _ in range(50)),
                *(client.health_check() for _ in range(5)),
            )
    finally:
        done.set()
        thread.join(10)
    assert not thread.is_alive()


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────


async def test_s5_13_the_accepted_summary(clock: VirtualClock) -> None:
    delays = iter([0.1, 0.2, 0.3, 0.4])

    def script(sent: Any) -> Answer:
        status = 404 if sent.request.url.endswith("/4") else 200
        return Answer(status, json.dumps(USER).encode(), delay=next(delays))

    client, _ = scripted(script, clock)
    for number in (1, 2, 3):
        await client.get_user(ORG, number)
    with pytest.raises(Exception, match="get_user"):
        await client.get_user(ORG, 4)
    summary = client.get_metrics_summary()
    assert set(summary) == {"client_config", "enabled_features", "monitoring", "bulk_operations"}
    stats = summary["monitoring"]["performance_stats"]
    assert set(stats) == STATS
    assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (
        4,
        3,
        1,
    )
    assert stats["error_rate"] == 25
    assert 100 - stats["error_rate"] == 75
    assert stats["average_response_time_ms"] == pytest.approx(250)
    assert stats["min_response_time_ms"] == pytest.approx(100)
    assert stats["max_response_time_ms"] == pytest.approx(400)
    assert stats["p50_response_time_ms"] == pytest.approx(200)
    assert stats["p99_response_time_ms"] == pytest.approx(400)
    assert stats["requests_per_second"] == pytest.approx(4)
    assert stats["total_bytes_received"] == 4 * len(json.dumps(USER))
    assert summary["monitoring"]["error_summary"]["error_counts"] == {"http_404": 1}
    assert summary["client_config"]["api_token"].startswith("…")
    assert "bulk_operations" in summary["enabled_features"]
    json.dumps(summary)


async def test_bulk_operations_are_summed_up(clock: VirtualClock) -> None:
    client, _ = scripted([failed(404)], clock)
    await client.bulk_get_users(ORG, [1, 2])
    await client.bulk_get_users(ORG, [3])
    assert client.get_metrics_summary()["bulk_operations"] == {
        "operations": 2, "items": 3, "failed_items": 3,
    }  # fmt: skip


def seen(at: float, kind: Kind = Kind.SUCCESS, status: int | None = 200) -> ResourceRecord:
    return ResourceRecord("id", "get_user", "standard", 1, at - 0.1, at, kind, status)


def test_s5_03c_memory_is_bounded_and_the_window_is_an_hour() -> None:
    """Pitfall: lists that grow for ever."""
    now = [0.0]
    measures = Measures(lambda: now[0], lambda: 1e9 + now[0])
    for number in range(25_000):
        now[0] = number
        measures.attempt(seen(number, Kind.QUOTA_MINUTE, 429))
    assert len(measures._seen) == 10_000
    assert len(measures.rate_limit_events()) == 1000
    assert measures.stats().total_requests == 3600
    now[0] += 3600.2
    assert measures.stats().total_requests == 0
    now[0] += 86_400
    measures.stats()
    assert len(measures._seen) == 0
    assert measures.rate_limit_events() == []


def test_no_requests_no_numbers() -> None:
    stats = Measures(lambda: 0.0, lambda: 0.0).stats()
    assert stats.model_dump() == dict.fromkeys(STATS, 0)


# ── exports ─────────────────────────────────────────────────────────────────────────────────────


async def busy(clock: VirtualClock, **settings: Any) -> AsyncCodegenClient:
    answers = [said(RUN), said(USER), failed(429, retry_after="1"), said(RUN), failed(404)]
    client, _ = scripted(answers, clock, **settings)
    await client.create_agent_run(ORG, "x")
    await client.get_current_user()
    await client.get_current_user()
    await client.get_agent_run(ORG, 1)
    with pytest.raises(Exception, match="get_user"):
        await client.get_user(ORG, 5)
    return client


async def test_s5_03d_json(clock: VirtualClock) -> None:
    client = await busy(clock)
    shown = json.loads(str(client.export_metrics("json")))
    assert set(shown) == {
        "export_timestamp", "performance_stats", "error_summary", "endpoint_stats", "rate_limit_events",
    }  # fmt: skip
    assert set(shown["performance_stats"]) == STATS
    assert shown["error_summary"] == {
        "error_counts": {"http_429": 1, "http_404": 1},
        "endpoint_error_counts": {"get_agent_run": 1, "get_user": 1},
        "total_errors": 2,
        "rate_limit_events": 1,
    }
    assert shown["endpoint_stats"]["get_agent_run"] == {
        "total_requests": 2, "success_rate": 50, "average_response_time_ms": 0, "error_rate": 50,
    }  # fmt: skip
    assert shown["rate_limit_events"][0]["endpoint"] == "get_agent_run"
    assert shown["export_timestamp"].endswith("+00:00")
    assert json.loads(str(client.export_metrics()))["performance_stats"] == shown["performance_stats"]


async def test_s5_03d_prometheus(clock: VirtualClock) -> None:
    client = await busy(clock)
    families = {
        family.name: family
        for family in text_string_to_metric_families(str(client.export_metrics("prometheus")))
    }
    assert all(name.startswith("headgate_codegen_") for name in families)
    totals = {
        (sample.labels["endpoint"], sample.labels["result"]): sample.value
        for sample in families["headgate_codegen_requests"].samples
    }
    assert totals == {
        ("create_agent_run", "success"): 1, ("get_current_user", "success"): 1,
        ("get_agent_run", "http_429"): 1, ("get_agent_run", "success"): 1, ("get_user", "http_404"): 1,
    }  # fmt: skip
    assert families["headgate_codegen_error_ratio"].samples[0].value == pytest.approx(0.4)
    hits = families["headgate_codegen_cache_hits"].samples
    assert [(hit.labels["endpoint"], hit.value) for hit in hits] == [("get_current_user", 1)]
    assert len(families["headgate_codegen_rate_limit"].samples) == 7


async def test_s5_03d_csv(clock: VirtualClock) -> None:
    client = await busy(clock)
    rows = list(csv.DictReader(io.StringIO(str(client.export_metrics("csv")))))
    assert [row["endpoint"] for row in rows] == [
        "*", "create_agent_run", "get_agent_run", "get_current_user", "get_user",
    ]  # fmt: skip
    assert rows[0]["total_requests"] == "5"
    assert float(rows[0]["success_rate"]) == pytest.approx(60)


async def test_s5_03d_another_format_is_a_mistake(clock: VirtualClock) -> None:
    client = await busy(clock)
    with pytest.raises(ValueError, match="json, prometheus, csv"):
        client.export_metrics("xml")


async def test_s5_03d_none_only_where_metrics_are_off(clock: VirtualClock, tmp_path: Any) -> None:
    client = await busy(clock, enable_metrics=False)
    assert client.export_metrics("json") is None
    assert client.get_metrics_summary()["monitoring"] is None
    client.save_metrics(tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    wrong = AsyncCodegenClient(ClientConfig(environ={}, api_token="two words"))
    assert wrong.get_metrics_summary()["monitoring"]["cache"] is None
    wrong.clear_cache()
    idle = AsyncCodegenClient(ClientConfig(environ={}))
    for kind in ("json", "prometheus", "csv"):
        assert isinstance(idle.export_metrics(kind), str), "before a token is known, too"
    idle.save_metrics(tmp_path / "some.json")
    assert json.loads((tmp_path / "some.json").read_text())["performance_stats"]["total_requests"] == 0


async def test_nothing_that_is_exported_holds_the_token(clock: VirtualClock) -> None:
    transport = ScriptedTransport([failed(401, f"bad {TOKEN}")], clock)
    config = ClientConfig(environ={}, api_token=TOKEN)
    client = AsyncCodegenClient(config, transport=transport, clock=clock)
    shown = [json.dumps(await client.health_check()), json.dumps(client.get_metrics_summary())]
    shown += [str(client.export_metrics(kind)) for kind in ("json", "prometheus", "csv")]
    assert not any("CANARY" in text for text in shown)
