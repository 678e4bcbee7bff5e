"""What `/metrics` of a gateway shows of the calls it served, and of what it knows at the moment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from tests.gateway import ENVIRON, Client, ask, scripted_gateway
from tests.metrics import attempt, values
from tests.metrics import call as record
from tests.support import MODEL, broken_inside, quota, said, stream
from tests.telemetry import telemetry

from headgate.core.call import Operation, Usage
from headgate.core.errors import StoreError
from headgate.core.outcome import Kind
from headgate.gateway import Gateway
from headgate.policy.quota.table import Quota, QuotaTable
from headgate.policy.tally import Use
from headgate.telemetry.metrics.exposition import exposed
from headgate.telemetry.metrics.family import Feeder
from headgate.telemetry.metrics.metrics import Metrics
from headgate.telemetry.of_registry import bridge, one_of
from headgate.testing import Answer, VirtualClock
from headgate.wiring.gateway_metrics import GatewayMetrics
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.gateway_usage import open_usage
from headgate.wiring.metrics import _Sent

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
BODY = {"contents": [{"parts": [{"text": "Why?"}]}]}
_MODEL = f'model="{MODEL}",provider="gemini"'
ROUTE = 'endpoint="/gemini/{version}/models/{model}:generateContent",method="POST"'

ONE_PROJECT = {**ENVIRON, "GEMINI_API_KEYS": "AIzaCANARY-metrics-1-xxxxxxxxxx|one|alpha"}


async def scrape(gateway: Gateway) -> dict[str, float]:
    got = await ask(gateway, "GET", "/metrics")
    assert got.status == 200
    return values(got.body.decode())


async def call(gateway: Gateway, **headers: str) -> Any:
    return await ask(gateway, "POST", GENERATE, BODY, headers)


async def test_calls_are_counted_where_they_were_answered(clock: VirtualClock) -> None:
    script = [quota(), said(), Answer(status=500), said()]
    gateway, _ = scripted_gateway(script, clock)
    await call(gateway)
    await call(gateway)
    await ask(gateway, "POST", "/gemini/v1beta/models/made-up/what", BODY)
    seen = await scrape(gateway)
    assert seen['headgate_calls_total{operation="generate",provider="gemini",result="success"}'] == 2
    assert seen[f"headgate_rotations_total{{{_MODEL}}}"] == 1
    assert seen[f"headgate_retries_total{{{_MODEL}}}"] == 1
    assert seen[f'headgate_upstream_requests_total{{code="500",{_MODEL}}}'] == 1
    assert seen[f'headgate_quota_refusals_total{{avoidable="false",{_MODEL}}}'] == 1
    assert seen['headgate_provider_keys{provider="gemini",state="exhausted"}'] == 1
    assert seen['headgate_provider_keys{provider="anthropic",state="active"}'] == 2
    assert seen[f'http_requests_total{{{ROUTE},status="200"}}'] == 2
    assert seen['http_requests_total{endpoint="_unmatched",method="POST",status="404"}'] == 1
    assert seen['http_requests_in_progress{endpoint="/metrics",method="GET"}'] == 1
    assert seen[f"http_requests_in_progress{{{ROUTE}}}"] == 0
    assert seen[f"http_request_duration_seconds_count{{{ROUTE}}}"] == 2
    assert seen["headgate_workers"] == 1
    assert [name for name in seen if name.startswith("headgate_build_info{")]
    closed = f'headgate_breaker_state{{{_MODEL},state="closed"}}'
    assert seen[closed] == 1
    assert not [name for name in seen if "CANARY" in name or "made-up" in name]


async def test_a_client_that_goes_away_is_499(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([said(delay=60)], clock)
    client = Client(gateway, "POST", GENERATE, BODY)
    going = asyncio.ensure_future(client.run())
    await clock.sleep(1)
    assert transport.sent
    client.go_away()
    await going
    seen = await scrape(gateway)
    assert seen[f'http_requests_total{{{ROUTE},status="499"}}'] == 1
    assert seen['headgate_calls_total{operation="generate",provider="gemini",result="cancelled"}'] == 1


async def test_quotas_are_read_from_the_ledger_at_the_scrape(clock: VirtualClock) -> None:
    """B.2: `headgate_quota_used` and `_limit` by domain, model and limit; never a key."""
    environ = {**ONE_PROJECT, "HEADGATE_QUOTA_RPM": "10", "HEADGATE_QUOTA_MARGIN": "0.8"}
    gateway, _ = scripted_gateway(lambda _: said(), clock, environ=environ)
    for _ in range(3):
        await call(gateway)
    seen = await scrape(gateway)
    labels = f'limit="rpm",{_MODEL},quota_domain="alpha"'
    assert seen[f"headgate_quota_used{{{labels}}}"] == 3
    assert seen[f"headgate_quota_limit{{{labels}}}"] == 8
    assert seen['headgate_queue_depth{line="quota",provider="gemini"}'] == 0
    clock.advance(61)
    assert (await scrape(gateway))[f"headgate_quota_used{{{labels}}}"] == 0


async def test_calls_that_wait_for_quota_are_counted_while_they_wait(clock: VirtualClock) -> None:
    environ = {**ONE_PROJECT, "HEADGATE_QUOTA_RPM": "1"}
    gateway, transport = scripted_gateway(lambda _: said(), clock, environ=environ)
    await call(gateway)
    waiting = asyncio.ensure_future(call(gateway, **{"x-headgate-timeout": "100"}))
    await clock.sleep(1)
    assert (await scrape(gateway))['headgate_queue_depth{line="quota",provider="gemini"}'] == 1
    await waiting
    seen = await scrape(gateway)
    assert seen['headgate_queue_depth{line="quota",provider="gemini"}'] == 0
    assert seen[f"headgate_call_wait_seconds_sum{{{_MODEL}}}"] > 50
    assert seen['headgate_waits_total{reason="key"}'] == 1
    assert len(transport.sent) == 2


async def test_a_refusal_that_our_own_sends_foretold_is_avoidable(clock: VirtualClock) -> None:
    """Where the quota is declared and another part of the process has used it up, that is our doing;
    where somebody else has, it is not."""
    environ = {**ONE_PROJECT, "HEADGATE_QUOTA_RPM": "3"}
    gateway, _ = scripted_gateway([said(), quota(), *[said()] * 9], clock, environ=environ)
    engine = gateway.upstreams[0].engine
    await call(gateway)
    await call(gateway)
    avoidable = f'headgate_quota_refusals_total{{avoidable="true",{_MODEL}}}'
    seen = await scrape(gateway)
    assert seen[avoidable] == 0
    assert seen[f'headgate_quota_refusals_total{{avoidable="false",{_MODEL}}}'] == 1
    assert engine.learner is not None
    lease = engine.pool.lease(MODEL)
    for _ in range(4):  # as a part of the process would that does not ask the ledger
        engine.learner.leased(lease)  # type: ignore[arg-type]
    gateway.metrics.observer.attempt(attempt(Kind.QUOTA_MINUTE, status=429, model=MODEL))
    assert (await scrape(gateway))[avoidable] == 1


async def test_a_kept_answer_is_a_hit_and_saves_tokens(clock: VirtualClock) -> None:
    settings = GatewaySettings(cache_seconds=60.0)
    gateway, _ = scripted_gateway([said()], clock, settings=settings)
    await call(gateway)
    await call(gateway)
    seen = await scrape(gateway)
    assert seen['headgate_cache_requests_total{layer="replies",result="hit"}'] == 1
    assert seen['headgate_cache_requests_total{layer="replies",result="miss"}'] == 1
    assert seen['headgate_cache_items{layer="replies"}'] == 1
    assert seen['headgate_cache_bytes{layer="replies"}'] > 600
    assert seen[f"headgate_cache_saved_tokens_total{{{_MODEL}}}"] == 8


async def test_openmetrics_is_given_to_who_asks_for_it(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([said()], clock)
    await call(gateway)
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    got = await ask(gateway, "GET", "/metrics", b"", {"accept": accept})
    assert got.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = list(openmetrics(got.body.decode()))
    assert any(sample.exemplar for family in families for sample in family.samples)


async def test_another_configuration_goes_on_with_the_same_counts(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([said()], clock)
    await call(gateway)
    other, _ = scripted_gateway([said()], clock, environ=ONE_PROJECT)
    await gateway.take_over(other.settings, other.upstreams, None)
    seen = await scrape(gateway)
    assert seen['headgate_calls_total{operation="generate",provider="gemini",result="success"}'] == 1
    assert seen['headgate_provider_keys{provider="gemini",state="active"}'] == 1
    assert 'headgate_key_active{key="one",project="alpha"}' in seen
    assert 'headgate_key_active{key="k0",project=""}' not in seen


async def test_a_late_event_loop_is_seen(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([], clock)
    tended = asyncio.ensure_future(gateway.metrics.tend())
    await clock.sleep(0.7)
    clock.advance(0.4)  # the loop was away
    await clock.sleep(2)
    tended.cancel()
    seen = await scrape(gateway)
    assert seen["headgate_event_loop_lag_seconds_count"] >= 3
    assert seen['headgate_event_loop_lag_seconds_bucket{le="0.001"}'] >= 2


async def test_the_usage_ledger_is_watched(clock: VirtualClock, tmp_path: Path) -> None:
    """S4-28: `db_*`; and how many of its rows were written, wait, or are lost."""
    metrics = GatewayMetrics(clock)
    environ = {"HEADGATE_USAGE": f"sqlite:///{tmp_path}/usage.sqlite3"}
    usage = open_usage(clock, kept_days=1, environ=environ, watched=metrics.metrics.ledger.opened)
    assert usage is not None
    metrics.watch_usage(usage)
    usage.observer.attempt(attempt(usage=Usage(1, 1), request_id="r"))
    usage.observer.call(record(request_id="r"))
    usage.close()
    seen = values((await metrics.exposition())[0].decode())
    assert seen['headgate_usage_rows_total{result="written"}'] == 1
    assert seen['headgate_usage_rows_total{result="lost"}'] == 0
    assert seen["headgate_usage_rows_waiting"] == 0
    assert seen['db_query_duration_seconds_count{query_type="write"}'] >= 1
    assert seen['db_errors_total{error_type="store"}'] == 0
    assert (
        seen["db_pool_size"] == seen["db_connections_in_use"] == seen["db_pool_overflow"] == 0
    )  # closed


async def test_a_usage_ledger_that_fails_is_counted(clock: VirtualClock) -> None:
    class Broken:
        def write(self, rows: object) -> int:
            raise StoreError("the disk is full")

        def close(self) -> None:
            pass

    metrics = GatewayMetrics(clock)
    metrics.metrics.feed(Feeder.LEDGER)
    store = metrics.metrics.ledger.opened(Broken())  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        store.write([])
    seen = values((await metrics.exposition())[0].decode())
    assert seen['db_errors_total{error_type="store"}'] == 1
    assert seen["db_pool_size"] == 1
    store.close()
    assert values((await metrics.exposition())[0].decode())["db_pool_size"] == 0


async def test_models_that_callers_make_up_cost_a_scrape_nothing(clock: VirtualClock) -> None:
    """Each name has a ledger of its own; a scrape asks for those of models that are there."""
    script = [said(), *[Answer(status=404)] * 300]
    environ = {**ONE_PROJECT, "HEADGATE_QUOTA_RPM": "1000"}
    gateway, _ = scripted_gateway(script, clock, environ=environ)
    await call(gateway)
    for number in range(300):
        path = f"/gemini/v1beta/models/made-up-{number}:generateContent"
        assert (await ask(gateway, "POST", path, BODY)).status == 404
    gate = gateway.upstreams[0].engine.gate
    assert gate is not None
    assert len(gate.models) > 100
    asked = []
    tells = gate.store.fills  # type: ignore[attr-defined]

    async def fills(group: str) -> Any:
        asked.append(group)
        return await tells(group)

    gate.store.fills = fills  # type: ignore[attr-defined]
    seen = await scrape(gateway)
    assert {group.rsplit(":", 1)[1] for group in asked} == {MODEL}
    assert [name for name in seen if name.startswith("headgate_quota_used{")] == [
        f'headgate_quota_used{{limit="rpm",{_MODEL},quota_domain="alpha"}}'
    ]


async def test_models_that_are_counted_together_are_shown_by_their_class(clock: VirtualClock) -> None:
    """Anthropic counts Opus 4.1 and 4.5 together, and Sonnet apart: as many ledgers, as many series."""
    environ = {"ANTHROPIC_API_KEYS": "sk-ant-CANARY-metrics-1-xxxxxxxxxx|one|acme",
               "HEADGATE_CLAUDE_QUOTA_RPM": "50"}  # fmt: skip
    told = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "Yes."}],
            "usage": {"input_tokens": 3, "output_tokens": 2}}  # fmt: skip
    answer = Answer(body=json.dumps(told).encode())
    gateway, _ = scripted_gateway(lambda _: answer, clock, environ=environ)
    for model in ("claude-opus-4-1", "claude-opus-4-5", "claude-sonnet-4-5"):
        body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Well?"}]}
        got = await ask(gateway, "POST", "/anthropic/v1/messages", body)
        assert got.status == 200, got.body
    used = {
        name.partition('model="')[2].partition('"')[0]: value
        for name, value in (await scrape(gateway)).items()
        if name.startswith("headgate_quota_used{") and 'limit="rpm"' in name
    }
    assert used == {"claude-opus-4": 2, "claude-sonnet-4": 1}


async def test_a_domain_whose_keys_were_refused_is_not_one_that_may_be_asked_now(
    clock: VirtualClock,
) -> None:
    """0 would say so, and an alert on the least wait of all domains would never fire."""
    script = [said(), said(), Answer(status=401), quota(), *[quota()] * 20]
    keys = "AIzaCANARY-metrics-1-xxxxxxxxxx|one|alpha,AIzaCANARY-metrics-2-xxxxxxxxxx|two|beta"
    gateway, _ = scripted_gateway(script, clock, environ={"GEMINI_API_KEYS": keys})
    for _ in range(2):
        assert (await call(gateway)).status == 200
    assert sorted(waits(await scrape(gateway)).values()) == [0, 0]
    await call(gateway, **{"x-headgate-timeout": "1"})
    seen = await scrape(gateway)
    assert seen['headgate_provider_keys{provider="gemini",state="disabled"}'] == 1
    (wait,) = waits(seen).values()
    assert wait > 0


async def test_no_counter_falls_where_another_store_and_cache_take_over(clock: VirtualClock) -> None:
    """A reload may name others, which begin at 0; Prometheus would take that for a restart."""
    settings = GatewaySettings(cache_seconds=60.0)
    gateway, _ = scripted_gateway(lambda _: said(), clock, settings=settings)
    store, cache = _SharedStore(), gateway.cache
    assert cache is not None
    await call(gateway)
    _share(gateway, store)
    gateway.metrics.meet(gateway.upstreams, cache)
    clock.advance(61)
    await call(gateway)  # the first answer has expired
    store.outages, store.local_grants, store.seconds_away = 2, 30, 4.5
    counted = {
        'headgate_store_outages_total{provider="gemini",store="quota"}': 2,
        'headgate_store_away_seconds_total{provider="gemini",store="quota"}': 4.5,
        'headgate_fail_open_total{part="quota"}': 30,
        'headgate_cache_dropped_total{layer="replies",reason="expired"}': 1,
    }
    assert {name: (await scrape(gateway))[name] for name in counted} == counted
    gateway.metrics.meet(gateway.upstreams, cache)  # the same once more: nothing counts twice
    assert {name: (await scrape(gateway))[name] for name in counted} == counted
    _share(gateway, _SharedStore())
    other, _ = scripted_gateway([], clock, settings=settings)
    gateway.metrics.meet(gateway.upstreams, other.cache)
    assert {name: (await scrape(gateway))[name] for name in counted} == counted
    store.outages = 3  # of a call that goes on with the old one: nobody looks any more
    assert {name: (await scrape(gateway))[name] for name in counted} == counted


class _SharedStore:
    """A store that may be away, without ledgers."""

    def __init__(self) -> None:
        self.outages = self.local_grants = 0
        self.seconds_away = 0.0
        self.away = False


def _share(gateway: Gateway, store: _SharedStore) -> None:
    gate = gateway.upstreams[0].engine.gate
    assert gate is not None
    gate._store = store  # type: ignore[assignment] # its lines have theirs


async def test_a_worker_is_known_to_the_others_as_soon_as_it_serves(
    clock: VirtualClock, tmp_path: Path
) -> None:
    first, second = GatewayMetrics(clock, tmp_path), GatewayMetrics(clock, tmp_path)
    assert values((await first.exposition())[0].decode())["headgate_workers"] == 1
    tended = asyncio.ensure_future(second.tend())
    await clock.sleep(0.1)
    assert values((await first.exposition())[0].decode())["headgate_workers"] == 2
    tended.cancel()
    first.close()
    second.close()


async def test_every_end_that_a_call_may_have_is_there_before_the_first(clock: VirtualClock) -> None:
    """`rate()` sees nothing of a series that begins at 1: the first cut stream would be lost."""
    gateway, _ = scripted_gateway([], clock)
    seen = await scrape(gateway)
    for operation in ("generate", "stream"):
        for result in ("success", "cut", "gateway", "upstream", "quota"):
            labels = f'operation="{operation}",provider="gemini",result="{result}"'
            assert seen[f"headgate_calls_total{{{labels}}}"] == 0
    gateway.metrics.observer.call(record(error="server", operation=Operation.EMBED))
    seen = await scrape(gateway)
    assert seen['headgate_calls_total{operation="embed",provider="gemini",result="upstream"}'] == 1
    assert seen['headgate_calls_total{operation="embed",provider="gemini",result="gateway"}'] == 0


async def test_a_breaker_is_in_one_state_at_a_time(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway(lambda _: broken_inside(), clock, environ=ONE_PROJECT)
    observer = gateway.metrics.observer
    observer.attempt(attempt(model=MODEL))  # the model is there
    for _ in range(30):
        await call(gateway)
    seen = await scrape(gateway)
    states = ("closed", "open", "half_open")
    shown = {state: seen[f'headgate_breaker_state{{{_MODEL},state="{state}"}}'] for state in states}
    assert sorted(shown.values()) == [0, 0, 1]
    assert shown["closed"] == 0


async def test_a_cool_down_is_shown_in_the_seconds_that_are_left_of_it(clock: VirtualClock) -> None:
    clock.advance(1000)  # what is told counts from now, whenever now is
    keys = "AIzaCANARY-metrics-1-xxxxxxxxxx|one|alpha,AIzaCANARY-metrics-2-xxxxxxxxxx|two|beta"
    script = [said(), said(), quota("Minute", "50s"), said()]
    gateway, _ = scripted_gateway(script, clock, environ={"GEMINI_API_KEYS": keys})
    for _ in range(3):
        assert (await call(gateway)).status == 200
    shown = waits(await scrape(gateway))
    assert sorted(shown) == [("alpha", MODEL), ("beta", MODEL)]
    assert sorted(shown.values()) == pytest.approx([0, 50], abs=6)
    clock.advance(20)
    assert max(waits(await scrape(gateway)).values()) == pytest.approx(max(shown.values()) - 20)


async def test_a_domain_that_rests_for_all_models_is_shown_so_for_each(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([said()], clock, environ=ONE_PROJECT)
    await call(gateway)
    gateway.metrics.observer.attempt(attempt(model="gemini-3-pro"))
    gateway.upstreams[0].engine.pool.park(0, 90)
    assert waits(await scrape(gateway)) == {("alpha", MODEL): 90, ("alpha", "gemini-3-pro"): 90}


def waits(seen: dict[str, float]) -> dict[tuple[str, str], float]:
    """What `headgate_quota_wait_seconds` says, by domain and model."""
    found = {}
    for name, value in seen.items():
        if name.startswith("headgate_quota_wait_seconds{"):
            told = dict(pair.split("=") for pair in name.partition("{")[2].rstrip("}").split(","))
            found[told["quota_domain"].strip('"'), told["model"].strip('"')] = value
    return found


@pytest.mark.parametrize(
    ("declared", "use", "avoidable"),
    [
        ({"rpm": 3}, Use(requests=3), True),
        ({"rpm": 3}, Use(requests=2, day_requests=50), False),
        ({"tpm": 90}, Use(tokens=90), True),
        ({"tpm": 90}, Use(tokens=89, requests=500), False),
        ({"rpd": 50}, Use(day_requests=50), True),
        ({"rpd": 50}, Use(requests=60, day_requests=49), False),
        ({"concurrency": 1}, Use(requests=9, tokens=9, day_requests=9), False),  # nobody counts places
        ({}, Use(requests=10**6), False),
    ],
)
def test_a_refusal_is_avoidable_where_a_declared_limit_was_used_up(
    declared: dict[str, int], use: Use, avoidable: bool
) -> None:
    class Sent:
        def sent(self, domain: str, model: str) -> Use:
            return use

    foresight = _Sent(Sent(), QuotaTable(default=Quota(**declared)))  # type: ignore[arg-type]
    assert foresight.predicted(attempt(Kind.QUOTA_MINUTE, status=429)) is avoidable


# ── requests as the conventions have them, and what leads to one ─────────────────────────────────


def exemplars(metrics: GatewayMetrics, *names: str) -> dict[str, list[dict[str, str]]]:
    """Labels of the exemplars of families, as a scrape of OpenMetrics reads them."""
    text = exposed(metrics.registry, "application/openmetrics-text")[0].decode()
    found: dict[str, list[dict[str, str]]] = {name: [] for name in names}
    for family in openmetrics(text):
        if family.name in found:
            marks = (one.exemplar for one in family.samples if one.exemplar is not None)
            found[family.name] = [dict(mark.labels) for mark in marks]
    return found


async def test_requests_are_counted_as_the_http_conventions_have_it(clock: VirtualClock) -> None:
    """Appendix B.2, trust.md 4.1: by method, route and status."""
    gateway, _ = scripted_gateway([said(delay=0.06)], clock)
    await call(gateway)
    await ask(gateway, "BREW", "/gemini/v1beta/models/made-up/what", BODY)
    seen = await scrape(gateway)
    name = "http_server_request_duration_seconds"
    route = 'http_request_method="POST",http_response_status_code="200",http_route='
    served = f'{route}"/gemini/{{version}}/models/{{model}}:generateContent"'
    assert seen[f"{name}_count{{{served}}}"] == 1
    assert seen[f"{name}_sum{{{served}}}"] == pytest.approx(0.06)
    assert seen[f'{name}_bucket{{{served},le="0.05"}}'] == 0
    assert seen[f'{name}_bucket{{{served},le="0.075"}}'] == 1
    odd = 'http_request_method="_OTHER",http_response_status_code="404",http_route="_unmatched"'
    assert seen[f"{name}_count{{{odd}}}"] == 1


async def test_exemplars_of_requests_lead_to_their_spans_or_ids(clock: VirtualClock) -> None:
    """trust.md 4.3: trace and span of what is kept, the id of the answer of anything else."""
    durations = ("http_request_duration_seconds", "http_server_request_duration_seconds")
    gateway, _ = scripted_gateway([said()], clock)
    got = await call(gateway)
    metrics = gateway.metrics
    assert isinstance(metrics, GatewayMetrics)
    plain = exemplars(metrics, *durations)
    assert plain == {name: [{"request_id": got.headers["x-headgate-request-id"]}] for name in durations}
    gateway, _ = scripted_gateway([said()], clock)
    metrics = gateway.metrics
    with telemetry() as seen:
        await call(gateway)
        left_out = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}
        await ask(gateway, "POST", "/nowhere", BODY, left_out)
    (request,) = [
        {"trace_id": f"{span.context.trace_id:032x}", "span_id": f"{span.context.span_id:016x}"}
        for span in seen.spans
        if span.kind is SpanKind.SERVER and span.context is not None
    ]
    for told in exemplars(metrics, *durations).values():
        assert request in told
        assert "ab" * 16 not in repr(told)


async def test_first_pieces_and_waits_lead_to_their_call(clock: VirtualClock) -> None:
    names = ("headgate_first_piece_seconds", "headgate_call_wait_seconds")
    script = [broken_inside(), stream("a", "b", piece_delay=1.0)]
    path = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
    gateway, _ = scripted_gateway(script, clock)
    got = await ask(gateway, "POST", path, BODY)
    mine = {"request_id": got.headers["x-headgate-request-id"]}
    assert exemplars(gateway.metrics, *names) == {name: [mine] for name in names}
    gateway, _ = scripted_gateway(script, clock)
    with telemetry() as seen:
        await ask(gateway, "POST", path, BODY)
    traces = {f"{span.context.trace_id:032x}" for span in seen.spans if span.context is not None}
    for told in exemplars(gateway.metrics, *names).values():
        assert {mark["trace_id"] for mark in told} == traces
        assert all(len(mark["span_id"]) == 16 for mark in told)


def test_what_opentelemetry_counts_into_the_same_registry_is_not_counted_twice() -> None:
    """The family stands once in a scrape, from whoever sees more: the middleware around everything."""
    registry = CollectorRegistry()
    clock = VirtualClock()
    metrics = one_of(registry, Metrics, clock)
    with metrics.http.visit("GET", "/mine"):
        pass
    family = "http_server_request_duration_seconds"
    counted: list[bool] = []
    bridge(registry, lambda: bool(counted))
    try:
        assert [one.name for one in registry.collect()].count(family) == 1, (
            "nothing is counted there yet"
        )
        counted.append(True)
        assert family not in [one.name for one in registry.collect()]
    finally:
        bridge(registry, None)
    assert [one.name for one in registry.collect()].count(family) == 1
