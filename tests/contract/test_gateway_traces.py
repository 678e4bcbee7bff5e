"""Traces through the gateway: in by `traceparent`, out to the upstream, over OTLP to a collector."""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags
from tests.gateway import CALLER_KEY, CALLERS, GEMINI_KEYS, Client, ask, scripted_gateway
from tests.otlp import OtlpReceiver, Received, tree
from tests.support import MODEL, broken_inside, failure, quota, said, stream
from tests.telemetry import Seen, telemetry

from headgate.gateway import Gateway
from headgate.gateway.incoming import Incoming
from headgate.gateway.templates import OWN_PATHS, TEMPLATES, template
from headgate.telemetry.call_traces import TRACES
from headgate.telemetry.raw_options import LARGEST, options_of
from headgate.telemetry.request_facts import UNMATCHED
from headgate.telemetry.sampling import EarlyRatio
from headgate.telemetry.switch import UNSAMPLED, Unsampled
from headgate.testing import ScriptedTransport, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

PINNED = json.loads(
    (Path(__file__).parents[1] / "data" / "semantic-conventions.json").read_text(encoding="utf-8")
)
ROUTE = "/gemini/{version}/models/{model}:generateContent"
REQUEST, CALL = f"POST {ROUTE}", "headgate.call generate"
ATTEMPT = f"generate_content {MODEL}"
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
BODY = {"contents": [{"parts": [{"text": "Explain tides"}]}]}

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
LEFT_OUT = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


def requests(seen: Seen) -> list[ReadableSpan]:
    return [span for span in seen.spans if span.kind is SpanKind.SERVER]


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def carried(transport: ScriptedTransport) -> list[str | None]:
    return [sent.credential.get("traceparent") for sent in transport.sent]


# ── the whole tree, over the wire ───────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def received() -> tuple[list[Received], list[dict[str, str]], bytes]:
    """What a collector got of two requests for the same: one with a rotation and a retry, one that was
    answered from the cache. And the headers of the answers, and all bytes that were exported."""
    clock = VirtualClock()
    with OtlpReceiver() as receiver, telemetry() as seen:
        exporter = OTLPSpanExporter(endpoint=f"{receiver.endpoint}/v1/traces")
        seen.tracers.add_span_processor(BatchSpanProcessor(exporter))
        script = [quota("Minute", "50s", delay=1.0), broken_inside(delay=2.0), said(delay=3.0)]
        settings = GatewaySettings(callers=CALLERS, cache_seconds=60.0)
        gateway, _ = scripted_gateway(script, clock, settings=settings)
        sent = {"x-goog-api-key": CALLER_KEY, "baggage": f"key={CALLER_KEY}", **SAMPLED}
        got = [clock.run(ask(gateway, "POST", GENERATE, BODY, sent)) for _ in range(2)]
        assert [one.status for one in got] == [200, 200]
        assert seen.tracers.force_flush()
        return receiver.spans, [one.headers for one in got], receiver.raw


def test_a_collector_gets_the_tree_of_a_rotation_a_retry_and_a_hit(
    received: tuple[list[Received], list[dict[str, str]], bytes],
) -> None:
    spans, _, _ = received
    tried: list[Any] = [(ATTEMPT, []), (ATTEMPT, []), ("headgate.attempt", []), (ATTEMPT, [])]
    assert tree(spans) == [(REQUEST, [(CALL, tried)]), (REQUEST, [(CALL, [])])]
    assert {span.trace_id for span in spans} == {TRACE}
    assert {span.parent_id for span in spans if span.name == REQUEST} == {PARENT}
    # kinds as OTLP numbers them: 1 INTERNAL, 2 SERVER, 3 CLIENT
    kinds = {(span.name, span.kind) for span in spans}
    assert kinds == {(REQUEST, 2), (CALL, 1), ("headgate.attempt", 1), (ATTEMPT, 3)}
    # 0 unset, 2 error
    assert [span.status for span in spans if span.name == ATTEMPT] == [2, 2, 0]
    assert {span.status for span in spans if span.name != ATTEMPT} == {0}


def test_each_span_says_what_its_conventions_ask_for(
    received: tuple[list[Received], list[dict[str, str]], bytes],
) -> None:
    spans, answers, _ = received
    first, second = (span for span in spans if span.name == REQUEST)
    call, hit = (span for span in spans if span.name == CALL)
    refused, failed, answered = (span for span in spans if span.name == ATTEMPT)
    of_http = {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "http.response.status_code": 200,
        "url.path": GENERATE,
        "url.scheme": "http",
    }
    assert of_http.items() <= first.facts.items()
    of_all = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": MODEL,
    }
    for span in (call, hit, refused, failed, answered):
        assert of_all.items() <= span.facts.items()
    ids = [one["x-headgate-request-id"] for one in answers]
    assert [first.facts["headgate.request_id"], second.facts["headgate.request_id"]] == ids
    assert [call.facts["headgate.request_id"], hit.facts["headgate.request_id"]] == ids
    took = {"headgate.attempts": 3, "headgate.rotations": 1, "headgate.retries": 1}
    assert {**took, "headgate.cached": False}.items() <= call.facts.items()
    assert {"headgate.attempts": 0, "headgate.cached": True}.items() <= hit.facts.items()
    assert call.events == ("headgate.wait",), "before the retry"
    told = [(one.facts.get("error.type"), one.facts["http.response.status_code"])
            for one in (refused, failed, answered)]  # fmt: skip
    assert told == [("quota_minute", 429), ("server", 500), (None, 200)]
    resent = [one.facts.get("http.request.resend_count") for one in (refused, failed, answered)]
    assert resent == [None, 1, 2]
    assert [one.facts["headgate.key_alias"] for one in (refused, failed)] != ["k0", "k0"]
    assert answered.facts["gen_ai.usage.input_tokens"] == 5
    assert answered.facts["gen_ai.usage.output_tokens"] == 3


def test_spans_lie_within_their_parents(
    received: tuple[list[Received], list[dict[str, str]], bytes],
) -> None:
    spans, _, _ = received
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        assert span.start <= span.end
        parent = by_id.get(span.parent_id)
        if parent is not None and parent.name == CALL:  # in virtual time, as its attempts are
            assert parent.start <= span.start <= span.end <= parent.end


def test_names_of_attributes_are_in_the_pinned_snapshot_or_ours(
    received: tuple[list[Received], list[dict[str, str]], bytes],
) -> None:
    spans, _, _ = received
    pinned = {*PINNED["gen_ai"], *PINNED["http"], *PINNED["accepted"]}
    for span in spans:
        strange = {name for name in span.facts if not name.startswith("headgate.")} - pinned
        assert not strange, f"{span.name} says {strange}"


def test_the_snapshot_has_what_opentelemetry_publishes() -> None:
    """The pinned names against the constants of OpenTelemetry's own package of conventions."""
    published = set()
    for module in (
        "opentelemetry.semconv._incubating.attributes.gen_ai_attributes",
        "opentelemetry.semconv.attributes.http_attributes",
        "opentelemetry.semconv.attributes.url_attributes",
        "opentelemetry.semconv.attributes.server_attributes",
        "opentelemetry.semconv.attributes.network_attributes",
        "opentelemetry.semconv.attributes.error_attributes",
    ):
        found = vars(import_module(module))
        published |= {value for value in found.values() if isinstance(value, str)}
    assert {*PINNED["gen_ai"], *PINNED["http"]} <= published


def test_no_key_prompt_or_baggage_is_exported(
    received: tuple[list[Received], list[dict[str, str]], bytes],
) -> None:
    _, _, raw = received
    for secret in (CALLER_KEY, *GEMINI_KEYS, "Explain tides", "baggage", "CANARY"):
        assert secret.encode() not in raw


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (
            GENERATE,
            {**BODY, "generationConfig": {
                "temperature": 0.5, "maxOutputTokens": 9, "topK": 3, "candidateCount": 2,
                "stopSequences": ["ada@example.org"], "responseMimeType": "application/json",
            }},
            {"request.temperature": 0.5, "request.max_tokens": 9, "request.top_k": 3,
             "request.choice.count": 2, "request.stop_sequences": ("[EMAIL]",), "output.type": "json"},
        ),
        (
            GENERATE,
            {**BODY, "generation_config": {"top_p": 0.25, "max_output_tokens": 7, "seed": 4}},
            {"request.top_p": 0.25, "request.max_tokens": 7, "request.seed": 4},
        ),
        (GENERATE, {**BODY, "generationConfig": "none"}, {}),
        (
            "/anthropic/v1/messages",
            {"model": "claude-x", "max_tokens": 5, "temperature": 1, "stop_sequences": ["end"],
             "messages": [{"role": "user", "content": "temperature"}]},
            {"request.max_tokens": 5, "request.temperature": 1, "request.stop_sequences": ("end",)},
        ),
        (
            "/openai/v1/chat/completions",
            {"model": "gpt-x", "max_completion_tokens": 6, "n": 1, "stop": "end", "temperature": True,
             "response_format": {"type": "json_object"}, "frequency_penalty": 0.5,
             "messages": [{"role": "user", "content": "hi"}]},
            {"request.max_tokens": 6, "request.choice.count": 1, "request.stop_sequences": ("end",),
             "output.type": "json", "request.frequency_penalty": 0.5},
        ),
    ],
)  # fmt: skip
async def test_options_are_read_from_the_bodies_of_all_apis(
    clock: VirtualClock, path: str, body: dict[str, Any], told: dict[str, Any]
) -> None:
    gateway, _ = scripted_gateway([broken_inside()], clock)
    with telemetry() as seen:
        await ask(gateway, "POST", path, body, SAMPLED)
    attempt = next(span for span in seen.spans if span.kind is SpanKind.CLIENT)
    ours = ("gen_ai.request.", "gen_ai.output.")
    found = {name: value for name, value in facts(attempt).items() if name.startswith(ours)}
    del found["gen_ai.request.model"]
    assert found == {f"gen_ai.{name}": value for name, value in told.items()}


def test_a_body_that_is_large_or_no_json_has_no_options() -> None:
    large = json.dumps({"temperature": 1, "contents": "x" * LARGEST}).encode()
    for body in (b"", b"{", b"[1]", large, b'{"generationConfig":' + b"[" * 3000):
        assert options_of(body) == {}


# ── context in ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
        "00-" + "é" * 32 + f"-{PARENT}-01",
    ],
)
async def test_what_is_no_trace_context_begins_a_trace_here(clock: VirtualClock, given: str) -> None:
    gateway, _ = scripted_gateway([said()], clock)
    with telemetry() as seen:
        assert (await ask(gateway, "POST", GENERATE, BODY, {"traceparent": given})).status == 200
    (request,) = requests(seen)
    assert request.parent is None
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" != TRACE


@pytest.mark.parametrize("given", [f"00-{TRACE}-{PARENT}-03", f"cc-{TRACE}-{PARENT}-01-what-may-come"])
async def test_further_flags_and_versions_to_come_are_understood(
    clock: VirtualClock, given: str
) -> None:
    gateway, _ = scripted_gateway([said()], clock)
    with telemetry() as seen:
        await ask(gateway, "POST", GENERATE, BODY, {"traceparent": given, "tracestate": "v=1"})
    (request,) = requests(seen)
    assert request.parent is not None
    assert f"{request.parent.trace_id:032x}-{request.parent.span_id:016x}" == f"{TRACE}-{PARENT}"
    assert request.parent.is_remote
    assert request.context is not None
    assert request.context.trace_state.to_header() == "v=1"


async def test_a_strange_tracestate_is_left_out_and_the_trace_goes_on(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([said()], clock)
    for state in ("x" * 513, "not a list member", "clé=1"):
        with telemetry() as seen:
            await ask(gateway, "POST", GENERATE, BODY, {**SAMPLED, "tracestate": state})
        (request,) = requests(seen)
        assert request.context is not None
        assert request.context.trace_state.to_header() == ""
        assert request.parent is not None


async def test_headers_that_come_twice(clock: VirtualClock) -> None:
    """Of two parents none is right; states are one list, whatever they are spread over."""
    gateway, _ = scripted_gateway([said()], clock)
    once, other = SAMPLED["traceparent"], f"00-{TRACE[::-1]}-{PARENT}-01"
    for further, parents in (
        ([("traceparent", other)], [None]),
        ([("tracestate", "a=1"), ("tracestate", "b=2")], [(TRACE, "a=1,b=2")]),
    ):
        client = Client(gateway, "POST", GENERATE, BODY, {"traceparent": once})
        client._scope["headers"] += [(name.encode(), value.encode()) for name, value in further]
        with telemetry() as seen:
            await client.run()
        found = [
            span.parent and (f"{span.parent.trace_id:032x}", span.parent.trace_state.to_header())
            for span in requests(seen)
        ]
        assert found == parents


async def test_what_the_client_does_not_sample_is_not_traced(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([said()], clock)
    with telemetry(propagate_upstream=True) as seen:
        got = await ask(gateway, "POST", GENERATE, BODY, {**LEFT_OUT, "tracestate": "v=1"})
    assert got.status == 200
    assert seen.spans == []
    assert TRACES._open == {}
    assert carried(transport) == [LEFT_OUT["traceparent"]], "its decision goes on"
    assert transport.sent[0].credential["tracestate"] == "v=1"


async def test_a_share_of_the_traces_that_begin_here_is_kept_whole(clock: VirtualClock) -> None:
    """A request that is not kept begins no trace further in."""
    gateway, transport = scripted_gateway([said()], clock)
    with telemetry(ParentBased(EarlyRatio(0.5)), propagate_upstream=True) as seen:
        for _ in range(200):
            await ask(gateway, "POST", GENERATE, BODY)
        kept = requests(seen)
        assert 50 < len(kept) < 150
        assert len(seen.spans) == 3 * len(kept), "a request, its call, its attempt"
        assert len([one for one in carried(transport) if one is not None]) == len(kept)
        assert not any("kept" in name for span in seen.spans for name in facts(span))
    with telemetry(ParentBased(EarlyRatio(0.0))) as seen:
        await ask(gateway, "POST", GENERATE, BODY)
        assert seen.spans == []
        await ask(gateway, "POST", GENERATE, BODY, SAMPLED)
        assert len(seen.spans) == 3, "the client's own sampling is followed"
    assert UNSAMPLED.get() is None


async def test_log_lines_name_the_trace_of_the_client_though_it_is_not_sampled(
    clock: VirtualClock,
) -> None:
    found = []

    class Heard:
        def attempt(self, record: object) -> None:
            found.append(TRACES.ids(None))

        def waiting(self, record: object) -> None: ...

        def call(self, record: object) -> None: ...

    gateway, _ = scripted_gateway([said()], clock, observers=[Heard()])
    with telemetry(ParentBased(EarlyRatio(0.0))):
        await ask(gateway, "POST", GENERATE, BODY, LEFT_OUT)
        await ask(gateway, "POST", GENERATE, BODY)
    assert found == [(int(TRACE, 16), int(PARENT, 16)), None]
    assert Unsampled().carried() is None


# ── context out ─────────────────────────────────────────────────────────────────────────────────


async def test_upstream_requests_carry_the_trace_and_nothing_else_of_the_caller(
    clock: VirtualClock,
) -> None:
    script = [quota("Minute", "50s"), said()]
    settings = GatewaySettings(callers=CALLERS)
    gateway, transport = scripted_gateway(script, clock, settings=settings)
    sent = {"x-goog-api-key": CALLER_KEY, "baggage": f"user=xenia,key={CALLER_KEY}", **SAMPLED}
    with telemetry(propagate_upstream=True) as seen:
        await ask(gateway, "POST", GENERATE, BODY, sent)
    (call,) = (span for span in seen.spans if span.name == CALL)
    assert call.context is not None
    flags = TraceFlags(call.context.trace_flags)
    expected = f"00-{TRACE}-{call.context.span_id:016x}-{int(flags):02x}"
    assert carried(transport) == [expected] * 2
    for one in transport.sent:
        headers = {**one.request.headers, **one.credential}
        assert "baggage" not in {name.lower() for name in headers}
        assert CALLER_KEY not in repr(headers)
        assert "xenia" not in repr(headers)  # no hexadecimal digits: ids are random


async def test_without_propagation_or_without_telemetry_nothing_is_carried(
    clock: VirtualClock,
) -> None:
    gateway, transport = scripted_gateway([said()], clock)
    with telemetry():
        await ask(gateway, "POST", GENERATE, BODY, SAMPLED)
        await ask(gateway, "POST", GENERATE, BODY, LEFT_OUT)
    await ask(gateway, "POST", GENERATE, BODY, SAMPLED)
    assert carried(transport) == [None] * 3


# ── how requests end ────────────────────────────────────────────────────────────────────────────


async def test_a_stream_is_traced_to_its_end(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([stream("a", "b", piece_delay=3)], clock)
    with telemetry() as seen:
        await ask(gateway, "POST", STREAM, BODY, SAMPLED)
    assert [span.name for span in seen.spans] == [
        ATTEMPT, "headgate.call stream", "POST /gemini/{version}/models/{model}:streamGenerateContent",
    ]  # fmt: skip


async def test_a_client_that_goes_away_leaves_a_cancelled_request(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([said(delay=60)], clock)
    with telemetry() as seen:
        client = Client(gateway, "POST", GENERATE, BODY, SAMPLED)
        served = asyncio.ensure_future(client.run())
        await clock.sleep(1)
        client.go_away()
        await served
    (request,) = requests(seen)
    assert facts(request)["error.type"] == "cancelled"
    assert request.status.status_code is StatusCode.UNSET


async def test_a_failure_is_an_error_by_its_status(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([broken_inside()], clock)
    with telemetry() as seen:
        got = await ask(gateway, "POST", GENERATE, BODY, SAMPLED)
    assert got.status >= 500
    (request,) = requests(seen)
    assert facts(request)["error.type"] == str(got.status)
    assert request.status.status_code is StatusCode.ERROR


async def test_what_the_caller_did_wrong_is_no_error_of_the_server(clock: VirtualClock) -> None:
    """OpenTelemetry's conventions for HTTP: a SERVER span of a 4xx has no error status."""
    refused = failure(400, "No such field.", "INVALID_ARGUMENT")
    gateway, _ = scripted_gateway([refused], clock)
    with telemetry() as seen:
        got = await ask(gateway, "POST", GENERATE, BODY, SAMPLED)
    assert got.status == 400
    (request,) = requests(seen)
    assert facts(request)["http.response.status_code"] == 400
    assert "error.type" not in facts(request)
    assert request.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/livez", "GET /livez"),
        ("GET", f"/secret-{'x' * 30}", "GET _unmatched"),
        ("BREW", "/gemini/v1beta/models", "_OTHER /gemini/{version}/models"),
        ("GET", "/gemini/v1beta/models?key=CANARY-in-a-query", "GET /gemini/{version}/models"),
        ("POST", "/gemini/v1beta/models/m:inventVerb", "POST _unmatched"),
    ],
)
async def test_spans_are_named_by_templates(
    clock: VirtualClock, method: str, path: str, name: str
) -> None:
    gateway, _ = scripted_gateway([said()], clock, settings=GatewaySettings(callers=CALLERS))
    with telemetry() as seen:
        await ask(gateway, method, path)
    (request,) = requests(seen)
    assert request.name == name
    assert "CANARY" not in repr(facts(request))


async def test_a_fault_of_tracing_costs_no_request(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("tracing broke")

    gateway, _ = scripted_gateway([said()], clock)
    for piece in ("_begun", "_ended"):
        with telemetry(), monkeypatch.context() as patched:
            patched.setattr(f"headgate.telemetry.request_traces.{piece}", broken)
            assert (await ask(gateway, "POST", GENERATE, BODY)).status == 200


# ── templates ───────────────────────────────────────────────────────────────────────────────────


def served_by(gateway: Gateway, surface: str, method: str, path: str) -> bool:
    scope = {"method": method, "path": path, "query_string": b"", "headers": []}
    return gateway._served[surface].surface.route(Incoming(scope)) is not None


@lru_cache(maxsize=1)
def routed() -> Gateway:
    return scripted_gateway([said()], VirtualClock())[0]


PIECES = st.sampled_from(
    ["", "v1", "v1beta", "v1alpha", "v2", "upload", "models", "files", "cachedContents", "messages",
     "count_tokens", "chat", "completions", "embeddings", "m:generateContent", "m:countTokens", "a-b.c",
     "m:embedContent", "m:batchEmbedContents", "m:streamGenerateContent", "m:x", "m\n", "ü", "x" * 200]
)  # fmt: skip


@given(
    surface=st.sampled_from(["gemini", "anthropic", "openai", "", "made-up"]),
    pieces=st.lists(PIECES, max_size=5),
    method=st.sampled_from(["GET", "POST", "DELETE", "PATCH"]),
)
def test_every_path_has_one_of_the_templates_and_every_route_one_of_its_own(
    surface: str, pieces: list[str], method: str
) -> None:
    path = "/" + "/".join(pieces)
    shown = template(surface, path)
    assert shown in TEMPLATES
    gateway = routed()
    if surface in gateway._served and served_by(gateway, surface, method, path):
        assert shown.startswith(f"/{surface}/")


def test_templates_are_few_and_name_what_is_the_gateways_own() -> None:
    assert len(TEMPLATES) < 40
    assert {template("", path) for path in OWN_PATHS} == set(OWN_PATHS)
    assert template("", "/livez/") == UNMATCHED
