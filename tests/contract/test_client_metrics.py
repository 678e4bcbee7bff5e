"""The metrics of the clients and of the backend, over a registry of whoever builds them."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from tests.metrics import values
from tests.support import MODEL, overloaded, quota, said, stream
from tests.telemetry import telemetry

from headgate.backend import GeminiBackend, GeminiRequest
from headgate.claude import ResilientClaudeClient
from headgate.gemini import GeminiAPICallError, ResilientGeminiClient
from headgate.limits import RateLimiter
from headgate.telemetry.metrics.exposition import exposed
from headgate.testing import ScriptedTransport, VirtualClock
from headgate.wiring.metrics import count_calls

_MODEL = f'model="{MODEL}",provider="gemini"'
KEYS = "AIzaCANARY-client-metrics-1|one|alpha,AIzaCANARY-client-metrics-2|two|beta"
GOOD = 'headgate_calls_total{operation="generate",provider="gemini",result="success"}'
CLAUDE = "sk-ant-CANARY-client-metrics|c"


async def test_a_client_counts_its_calls_and_tells_its_quotas(clock: VirtualClock) -> None:
    transport = ScriptedTransport([quota(), said(), said()], clock)
    registry = CollectorRegistry()
    async with ResilientGeminiClient(
        keys=KEYS, clock=clock, transport=transport, quotas={"rpm": 5}
    ) as client:
        client.export_metrics(registry)
        await client.generate_content("Why?", MODEL)
        await client.generate_content("Why?", MODEL)
        seen = values(registry)
        assert seen[GOOD] == 2
        assert seen[f"headgate_rotations_total{{{_MODEL}}}"] == 1
        assert seen[f'headgate_quota_limit{{limit="rpm",{_MODEL},quota_domain="alpha"}}'] == 5
        used = [seen[f'headgate_quota_used{{limit="rpm",{_MODEL},quota_domain="{name}"}}']
                for name in ("alpha", "beta")]  # fmt: skip
        assert sum(used) == 3
        assert seen[f'headgate_quota_wait_seconds{{{_MODEL},quota_domain="beta"}}'] == 0
        assert seen[f'headgate_quota_wait_seconds{{{_MODEL},quota_domain="alpha"}}'] > 0
        assert seen[f"headgate_cost_usd_total{{{_MODEL}}}"] > 0
        assert seen['headgate_queue_depth{line="quota",provider="gemini"}'] == 0
        assert 'headgate_in_flight{provider="gemini"}' not in seen, "nothing here knows it"
        with pytest.raises(ValueError, match="Duplicated"):
            client.export_metrics(registry)


async def test_clients_of_two_providers_share_a_registry(clock: VirtualClock) -> None:
    registry, silent = CollectorRegistry(), ScriptedTransport([], clock)
    async with (
        ResilientGeminiClient(keys=KEYS, clock=clock, transport=silent) as gemini,
        ResilientClaudeClient(keys=CLAUDE, clock=clock, transport=silent) as claude,
    ):
        gemini.export_metrics(registry)
        claude.export_metrics(registry)
        limiter = RateLimiter(clock=clock, registry=registry)
        await limiter.check_rate_limit("user:1", 5, 60)
        seen = values(registry)
        assert seen['headgate_provider_keys{provider="gemini",state="active"}'] == 2
        assert seen['headgate_provider_keys{provider="anthropic",state="active"}'] == 1
        assert seen['headgate_inbound_checks_total{result="allowed",scope="user"}'] == 1
        await limiter.aclose()


async def test_a_client_that_is_gone_tells_no_state_and_its_counts_stay(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    client = ResilientGeminiClient(keys=KEYS, clock=clock, transport=ScriptedTransport([said()], clock))
    state = count_calls(registry, "gemini", client._engine, clock)
    await client.generate_content("Why?", MODEL)
    assert 'headgate_provider_keys{provider="gemini",state="active"}' in values(registry)
    await client.aclose()
    del state, client
    gc.collect()
    seen = values(registry)
    assert 'headgate_provider_keys{provider="gemini",state="active"}' not in seen
    assert seen[GOOD] == 1


async def test_a_backend_counts_over_configurations(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    script = [said(), overloaded(), overloaded(), said()]
    async with GeminiBackend(
        keys=KEYS, clock=clock, transport=ScriptedTransport(script, clock)
    ) as backend:
        backend.export_metrics(registry)
        assert values(registry)["headgate_workers"] == 1, "nothing is opened for a scrape"
        await backend.execute_gemini_enhanced(GeminiRequest(prompt="Why?", model=MODEL))
        config = await backend.get_gemini_backend_config()
        await backend.update_gemini_backend_config(config)
        await backend.execute_gemini_enhanced(GeminiRequest(prompt="And why else?", model=MODEL))
        seen = values(registry)
        assert seen[GOOD] == 2
        assert seen[f"headgate_retries_total{{{_MODEL}}}"] == 2
        assert seen[f'headgate_breaker_state{{{_MODEL},state="closed"}}'] == 1
        assert seen['headgate_in_flight{provider="gemini"}'] == 0
        assert seen['headgate_provider_keys{provider="gemini",state="active"}'] == 2
        assert "headgate_usage_rows_waiting" in seen
        with pytest.raises(TypeError, match="CollectorRegistry"):
            backend.export_metrics("no registry")


async def test_checks_that_own_buckets_decided_are_counted_as_fail_open(clock: VirtualClock) -> None:
    class Away:
        """A client of a store that does not answer."""

        def register_script(self, text: str) -> object:
            async def run(**_: object) -> None:
                raise ConnectionError("away")

            return run

    registry = CollectorRegistry()
    limiter = RateLimiter(Away(), clock=clock, registry=registry)
    name = 'headgate_fail_open_total{part="inbound"}'
    assert values(registry)[name] == 0
    await limiter.check_rate_limit("user:1", 5, 60)
    assert values(registry)[name] == 1
    await limiter.aclose()


async def test_exemplars_lead_to_the_trace_of_a_call_that_is_traced(clock: VirtualClock) -> None:
    """Of the attempt and of the call; one that is not traced has its own id."""
    registry = CollectorRegistry()
    client = ResilientGeminiClient(
        keys=KEYS, clock=clock, transport=ScriptedTransport([said(), said(delay=30)], clock)
    )
    client.export_metrics(registry)
    with telemetry() as seen:
        await client.generate_content("Why?", MODEL)
    reply = await client.generate_reply("Why?", MODEL)
    traced = {f"{span.context.trace_id:032x}" for span in seen.spans if span.context is not None}
    text = exposed(registry, "application/openmetrics-text")[0].decode()
    told = [
        (name, value, sample.name)
        for family in openmetrics(text)
        for sample in family.samples
        if sample.exemplar is not None
        for name, value in sample.exemplar.labels.items()
    ]
    assert {value for name, value, _ in told if name == "trace_id"} == traced
    assert {value for name, value, _ in told if name == "request_id"} == {reply.request_id}
    assert {name for *_, name in told} == {
        "headgate_call_duration_seconds_bucket",
        "headgate_upstream_duration_seconds_bucket",
    }
    spans = {f"{span.context.span_id:016x}" for span in seen.spans if span.context is not None}
    assert {value for name, value, _ in told if name == "span_id"} <= spans
    assert [name for name, *_ in told].count("span_id") == [name for name, *_ in told].count("trace_id")
    await client.aclose()


async def test_a_stream_tells_when_its_first_piece_came_and_whether_it_was_cut(
    clock: VirtualClock,
) -> None:
    registry = CollectorRegistry()
    whole = stream("a", "b", "c", piece_delay=2.0)
    cut = replace(stream("a", "b", finish=None, piece_delay=1.0), broken=True)
    client = ResilientGeminiClient(
        keys=KEYS, clock=clock, transport=ScriptedTransport([whole, cut], clock)
    )
    client.export_metrics(registry)
    assert [piece async for piece in client.generate_content_stream("Why?", MODEL)] == ["a", "b", "c"]
    with pytest.raises(GeminiAPICallError):
        async for _ in client.generate_content_stream("Why?", MODEL):
            pass
    seen = values(registry)
    for result in ("success", "cut"):
        name = f'headgate_calls_total{{operation="stream",provider="gemini",result="{result}"}}'
        assert seen[name] == 1
    assert seen[f"headgate_first_piece_seconds_sum{{{_MODEL}}}"] == 3.0
    assert seen[f"headgate_upstream_duration_seconds_sum{{{_MODEL}}}"] == 8.0
    await client.aclose()
