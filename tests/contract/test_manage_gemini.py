"""The fifteen commands of the backend over HTTP (S3-08 to S3-22): beside the gateway, over its keys."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

from tests.gateway import ENVIRON, GEMINI_KEYS, ask
from tests.managing import ADMIN, Managed
from tests.support import MODEL, bad_key, overloaded, quota, said

from headgate.testing import Answer, Sent, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}
CARD = (
    b'{"name": "models/%s", "displayName": "Flash", "supportedGenerationMethods": ["generateContent"]}'
)


def upstream(sent: Sent) -> Answer:
    if sent.request.method == "GET" and "pageSize" in sent.request.url:
        return Answer(body=b'{"models": [' + CARD % MODEL.encode() + b"]}")
    return said() if sent.request.method == "POST" else Answer(body=CARD % MODEL.encode())


async def test_s3_08_09_10_models_are_asked(clock: VirtualClock, tmp_path: Path) -> None:
    settings = GatewaySettings(admin=ADMIN, project_roots=(str(tmp_path),))
    managed = Managed(upstream, clock, settings=settings)
    image = ["image/png", base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 20).decode()]
    got = await managed.ask(
        "POST", "/gemini/execute", {"prompt": "what?", "model": MODEL, "images": [image]}
    )
    assert (got.status, got.json["text"], got.json["usage"]["completion_tokens"]) == (200, "fine", 3)
    got = await managed.ask("POST", "/gemini/process", {"prompt": "hi", "model": MODEL})
    assert b'"maxOutputTokens":8192' in managed.transport.sent[-1].request.body
    project = tmp_path / "canal"
    project.mkdir()
    code = {"prompt": "where?", "model": MODEL, "project_path": str(project)}
    assert (await managed.ask("POST", "/gemini/code", code)).json["cwd"] == str(project)
    for outside in ("/etc", str(tmp_path / ".." / "x"), "\0"):
        got = await managed.ask("POST", "/gemini/code", {**code, "project_path": outside})
        assert (got.status, got.json["type"]) == (400, "/docs#problem-invalid")
    await managed.aclose()


async def test_s3_11_to_14_models_are_told_of(clock: VirtualClock) -> None:
    managed = Managed(upstream, clock)
    seen, cursor = [], ""
    while cursor is not None:
        page = await managed.get(f"/gemini/models?limit=20&cursor={cursor}")
        seen += [model["id"] for model in page["items"]]
        cursor = page["next"]
    assert MODEL in seen
    assert len(seen) == len(set(seen)) > 20
    assert (await managed.get(f"/gemini/models/{MODEL}"))["id"] == MODEL
    got = await managed.ask("GET", "/gemini/models/gemini-3.8-flush")
    assert (got.status, got.json["type"]) == (404, "/docs#problem-not-found")
    assert MODEL in got.json["detail"]
    models = (await managed.get("/gemini/recommendations?use_case=summarise%20reports"))["models"]
    assert models[0]["reasons"]
    got = await managed.ask("POST", f"/gemini/models/{MODEL}/validate")
    assert got.json == {"model": MODEL, "valid": True}
    await managed.aclose()


async def test_s3_15_to_19_and_22_figures_know_what_the_gateways_callers_did(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """Pitfall: statistics read from an empty object of their own."""
    managed = Managed(upstream, clock, folder=tmp_path)
    assert await managed.get("/gemini/performance") == {}  # from here on it hears
    for _ in range(3):
        assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200
    await managed.ask("POST", "/gemini/execute", {"prompt": "hi", "model": MODEL})
    await clock.sleep(1)
    assert (await managed.get("/gemini/performance"))[MODEL]["successful_requests"] == 4
    lines = (await managed.get("/usage?by=model"))["lines"]
    assert [line["total_requests"] for line in lines] == [4]  # each has one row, whoever wrote it
    metrics = await managed.get(f"/gemini/metrics?model={MODEL}&limit=2")
    assert len(metrics["request_history"]) == 2
    assert metrics["usage_metrics"]["daily"][0]["total_requests"] == 4
    assert metrics["request_history"][0]["timestamp"].endswith("+00:00")
    now = clock.wall()
    span = f"start={iso(now - 60)}&end={iso(now + 60)}"
    analytics = await managed.get(f"/gemini/analytics?model={MODEL}&{span}")
    assert analytics["throughput_metrics"]["peak_rpm"] == 4.0
    got = await managed.ask(
        "GET", f"/gemini/analytics?model={MODEL}&start={iso(now)}&end={iso(now - 9)}"
    )
    assert got.status == 400
    assert (await managed.get(f"/gemini/health/{MODEL}"))["status"] == "healthy"
    status = await managed.get("/gemini/status")
    assert status["performance_metrics"][MODEL]["total_requests"] == 4
    assert (await managed.get("/gemini/cache"))["entries"] == 1
    assert (await managed.ask("GET", "/gemini/forecast")).status == 409
    await managed.aclose()


def iso(seconds: float) -> str:
    from datetime import UTC, datetime
    from urllib.parse import quote

    return quote(datetime.fromtimestamp(seconds, UTC).isoformat())


async def test_sessions_and_the_list_of_models(clock: VirtualClock) -> None:
    managed = Managed(upstream, clock)
    body = {"prompt": "hi", "model": MODEL, "session_id": "s 1/2", "caller": "ann"}
    assert (await managed.ask("POST", "/gemini/execute", body)).status == 200
    session = await managed.get("/gemini/sessions/s 1/2?caller=ann")
    assert [message["role"] for message in session["messages"]] == ["user", "model"]
    assert (await managed.ask("GET", "/gemini/sessions/s 1/2")).status == 404  # another caller's
    got = await managed.client("DELETE", "/gemini/sessions/s 1/2?caller=ann").run()
    assert got.json == {"forgotten": True}
    got = await managed.client("DELETE", "/gemini/sessions/s 1/2?caller=ann").run()
    assert got.json == {"forgotten": False}
    got = await managed.ask("POST", "/gemini/models/refresh")
    assert (got.status, got.json["discovered_at"][-6:]) == (200, "+00:00")
    await managed.aclose()


async def test_failures_and_alerts_of_callers_are_told(clock: VirtualClock) -> None:
    managed = Managed([overloaded()], clock)
    await managed.get("/status")
    for _ in range(12):
        await ask(managed.gateway, "POST", GENERATE, BODY)
    errors = await managed.get("/gemini/errors?limit=5")
    assert len(errors) == 5
    assert errors[0]["error_type"] == "ServiceUnavailable"
    alerts = (await managed.get("/alerts"))["alerts"]
    assert ("gemini", "breaker_open", MODEL) in [
        (alert["provider"], alert["rule"], alert["subject"]) for alert in alerts
    ]
    body = {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(12):
        await ask(managed.gateway, "POST", "/anthropic/v1/messages", body)
    alerts = (await managed.get("/alerts"))["alerts"]
    assert "anthropic" in {alert["provider"] for alert in alerts}
    await managed.aclose()


async def test_s3_20_21_the_backend_is_configured_while_it_runs(clock: VirtualClock) -> None:
    environ = {**ENVIRON, "HEADGATE_STORE": "memory"}
    managed = Managed(upstream, clock, environ=environ)
    before = await managed.get("/gemini/config")
    assert before["batch_size"] == 5
    await managed.ask("POST", "/gemini/execute", {"prompt": "hi", "model": MODEL})
    got = await managed.ask("PUT", "/gemini/config", {**before, "batch_size": 9})
    assert got.json["batch_size"] == 9
    assert (await managed.get("/gemini/config"))["batch_size"] == 9
    (change,) = await managed.get("/gemini/config/history")
    assert change["changed"] == ["batch_size"]
    got = await managed.ask("PUT", "/gemini/config", {"retry_config": {"max_attempts": 0}})
    assert (got.status, got.json["type"]) == (400, "/docs#problem-configuration")
    assert (await managed.get("/gemini/config"))["batch_size"] == 9
    await managed.aclose()


async def test_keys_and_quotas_are_those_of_the_gateway(clock: VirtualClock) -> None:
    """Two engines with the same keys and books of their own would use each quota twice."""
    environ = {**ENVIRON, "HEADGATE_QUOTA_RPM": "2"}
    managed = Managed(upstream, clock, environ=environ)
    for _ in range(2):
        assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 200
        got = await managed.ask(
            "POST", "/gemini/execute", {"prompt": "hi", "model": MODEL, "use_cache": False}
        )
        assert got.status == 200
    got = await ask(managed.gateway, "POST", GENERATE, BODY)
    assert got.status == 429  # both keys had their two
    await managed.ask("POST", "/keys/gemini/k0/drain")
    await clock.sleep(120)
    body: Any = {"prompt": "hi", "model": MODEL, "use_cache": False}
    for _ in range(2):
        await managed.ask("POST", "/gemini/execute", body)
        assert managed.transport.sent[-1].credential["x-goog-api-key"] == GEMINI_KEYS[1]
    await managed.aclose()


async def test_what_the_backend_learns_of_a_key_the_gateway_knows(clock: VirtualClock) -> None:
    managed = Managed([bad_key(), quota("Day"), said()], clock)
    body = {"prompt": "hi", "model": MODEL}
    task = asyncio.ensure_future(managed.ask("POST", "/gemini/execute", body))
    await clock.sleep(1)
    states = {
        key["name"]: key["state"] for key in (await managed.get("/keys?provider=gemini"))["items"]
    }
    assert states == {"k0": "refused", "k1": "cooling"}
    assert (await ask(managed.gateway, "POST", GENERATE, BODY)).status == 429
    await task
    await managed.aclose()
