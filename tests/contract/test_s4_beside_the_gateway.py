"""The content service on a gateway's address (S4-21): its own paths and quotas, one process."""

from __future__ import annotations

from typing import Any

from tests.content import body_of, good_model
from tests.gateway import ENVIRON, Client, ask, gateway_over
from tests.support import said

from headgate.cli.serve_content import ContentBeside
from headgate.content import Outside, app, load_content
from headgate.gateway import Gateway
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock
from headgate.wiring.gateway_settings import load_gateway


def upstream(sent: Sent) -> Answer | Broken:
    """Answers what the content service asks, and what the gateway passes on."""
    return good_model(body_of(sent)) if b"systemInstruction" in sent.request.body else said("Hello.")


def together(clock: VirtualClock) -> Gateway:
    transport = ScriptedTransport(upstream, clock)
    gateway = gateway_over(clock, transport=transport)
    environ = {**ENVIRON, "REDIS_ENABLED": "false"}
    metrics = gateway.metrics
    outside = Outside(
        clock=clock, environ=environ, transport=transport, registry=metrics.registry,
        scraped=metrics.further.append,
    )  # fmt: skip
    gateway.beside = ContentBeside(app(load_content(environ=environ), outside))
    return gateway


async def test_s4_21_both_answer_on_one_address_and_one_scrape_tells_of_both(
    clock: VirtualClock,
) -> None:
    gateway = together(clock)
    made = await ask(gateway, "POST", "/api/create_subtopics", {"topic": "Bees"})
    assert (made.status, made.json["count"]) == (200, 15)
    body: dict[str, Any] = {"contents": [{"parts": [{"text": "Hi"}]}]}
    path = "/gemini/v1beta/models/gemini-3.8-flash:generateContent"
    passed_on = await ask(gateway, "POST", path, body)
    assert passed_on.status == 200
    stats = await ask(gateway, "GET", "/api/quota/stats")
    assert stats.json["current_minute"]["requests"] == 1  # the gateway's calls are none of its own
    assert (await ask(gateway, "GET", "/livez")).json == {"status": "live"}
    metrics = (await ask(gateway, "GET", "/metrics")).body.decode()
    assert "quota_rpm_remaining 11.0" in metrics.splitlines()  # of the key with the fewest left
    assert 'http_requests_total{endpoint="create_subtopics",method="POST",status="200"} 1.0' in metrics
    assert (
        'headgate_calls_total{operation="generate",provider="gemini",result="success"} 2.0' in metrics
    )
    gateway.drain()
    assert (await ask(gateway, "GET", "/api/ready")).status == 503
    await gateway.aclose()


async def test_a_client_that_goes_away_ends_its_work_as_with_any_request(clock: VirtualClock) -> None:
    gateway = together(clock)
    client = Client(gateway, "GET", "/api/health")

    class Connection:
        on_gone: Any = None

    connection = Connection()
    client._scope["headgate.connection"] = connection
    got = await client.run()
    assert got.status == 200
    assert connection.on_gone is None
    assert len(gateway.visits) == 0
    await gateway.aclose()


def test_it_is_off_until_it_is_switched_on() -> None:
    assert load_gateway({}).content is False
    assert load_gateway({"HEADGATE_GATEWAY_CONTENT": "yes"}).content is True
