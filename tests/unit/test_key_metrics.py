"""The Prometheus view on the keys."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headgate.claude import ClaudeCallError, ResilientClaudeClient
from headgate.core.outcome import Kind, Outcome
from headgate.gemini import ResilientGeminiClient
from headgate.testing import Answer, ScriptedTransport, VirtualClock

KEYS = "AIzaCANARY-one|one|alpha,AIzaCANARY-two|two"


@pytest.fixture
def client(clock: VirtualClock) -> ResilientGeminiClient:
    return ResilientGeminiClient(keys=KEYS, clock=clock, transport=ScriptedTransport([Answer()], clock))


def scrape(client: ResilientGeminiClient) -> str:
    registry = CollectorRegistry()
    client.export_metrics(registry)
    return generate_latest(registry).decode()


def test_each_outcome_and_state_is_exported_under_key_names(client: ResilientGeminiClient) -> None:
    one, two = client.key_manager.keys
    client.key_manager.track_metrics(one, None)
    client.key_manager.track_metrics(one, Outcome(Kind.QUOTA_MINUTE, "out"))
    client.key_manager.track_metrics(one, Outcome(Kind.SERVER, "broken"))
    client.key_manager.mark_quota_exceeded(one, 30)
    client.key_manager.disable(two)
    text = scrape(client)
    assert 'headgate_key_requests_total{key="one",outcome="success"} 1.0' in text
    assert 'headgate_key_requests_total{key="one",outcome="quota_error"} 1.0' in text
    assert 'headgate_key_requests_total{key="one",outcome="other_error"} 1.0' in text
    assert 'headgate_key_active{key="one",project="alpha"} 0.0' in text
    assert 'headgate_key_recovers_seconds{key="one",project="alpha"} 30.0' in text
    assert 'headgate_key_disabled{key="two",project=""} 1.0' in text
    assert 'headgate_keys{state="exhausted"} 1.0' in text
    assert 'headgate_keys{state="active"} 0.0' in text
    assert "CANARY" not in text


def test_a_registry_refuses_a_second_client_instead_of_exporting_doubles(
    client: ResilientGeminiClient,
) -> None:
    registry = CollectorRegistry()
    client.export_metrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        client.export_metrics(registry)


def test_what_is_no_registry_is_refused(client: ResilientGeminiClient) -> None:
    with pytest.raises(TypeError, match="CollectorRegistry"):
        client.export_metrics("default")


async def test_one_registry_takes_a_client_of_each_provider(
    client: ResilientGeminiClient, clock: VirtualClock
) -> None:
    """A Claude client's families have names of their own, and its label says organisation."""
    claude = ResilientClaudeClient(
        keys="sk-ant-CANARY-one|one|acme,sk-ant-CANARY-two|two",
        clock=clock,
        transport=ScriptedTransport([Answer(401, b"{}")], clock),
    )
    registry = CollectorRegistry()
    client.export_metrics(registry)
    claude.export_metrics(registry)
    with pytest.raises(ClaudeCallError):
        await claude.messages("hi")
    text = generate_latest(registry).decode()
    assert 'headgate_claude_key_requests_total{key="one",outcome="other_error"} 1.0' in text
    assert 'headgate_claude_key_disabled{key="one",organisation="acme"} 1.0' in text
    assert 'headgate_claude_key_active{key="two",organisation=""} 0.0' in text
    assert 'headgate_claude_keys{state="disabled"} 2.0' in text
    assert 'headgate_keys{state="active"} 2.0' in text
    assert "CANARY" not in text
    with pytest.raises(ValueError, match="headgate_claude_key"):
        claude.export_metrics(registry)
    with pytest.raises(TypeError, match="CollectorRegistry"):
        claude.export_metrics("here")
