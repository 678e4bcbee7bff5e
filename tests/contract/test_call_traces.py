"""Spans of calls: a tree a call, attributes of the pinned conventions, nothing that was said unless
asked."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    use_span,
)
from tests.otlp import OtlpReceiver
from tests.support import MODEL, broken_inside, key, keys, quota, reply, said, scripted, stream
from tests.telemetry import UNSAMPLED, Seen, telemetry

from headgate.backend import BackendConfig, GeminiBackend, GeminiRequest, LoggingConfig
from headgate.core.call import Call, Operation
from headgate.engine.stopwatch import timed
from headgate.gemini import GeminiAPICallError
from headgate.telemetry import trace_span
from headgate.telemetry.call_traces import TRACES, CallTraces
from headgate.telemetry.sampling import EarlyRatio
from headgate.testing import Answer, ScriptedTransport, VirtualClock
from headgate.transport.http import HttpTransport
from headgate.wiring.clock import SystemClock

CALL = "headgate.call generate"
ATTEMPT = f"generate_content {MODEL}"

PINNED = json.loads(
    (Path(__file__).parents[1] / "data" / "semantic-conventions.json").read_text(encoding="utf-8")
)
CONVENTIONS = {*PINNED["gen_ai"], *PINNED["http"]}
"""What is used of the semantic conventions: a name that is not there was not looked up."""


def of(seen: Seen, name: str) -> list[ReadableSpan]:
    return sorted((one for one in seen.spans if one.name == name), key=lambda one: one.start_time or 0)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def seconds(span: ReadableSpan) -> float:
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e9


async def test_a_call_with_a_rotation_and_a_retry_is_a_tree(clock: VirtualClock) -> None:
    script = [quota("Minute", "50s", delay=1.0), broken_inside(delay=2.0), said(delay=3.0)]
    with telemetry() as seen:
        client, _ = scripted(script, clock, 2)
        with trace_span("request"):
            await client.generate_content("hi", MODEL, temperature=0.5, max_output_tokens=9)
    assert seen.tree() == [("request", [CALL])]
    (call,) = of(seen, CALL)
    refused, failed, answered = of(seen, ATTEMPT)
    assert {span.parent.span_id for span in (refused, failed, answered) if span.parent} == {
        call.context.span_id  # type: ignore[union-attr]
    }
    assert call.kind is SpanKind.INTERNAL
    assert {span.kind for span in (refused, failed, answered)} == {SpanKind.CLIENT}
    assert [seconds(span) for span in (refused, failed, answered)] == pytest.approx([1, 2, 3], abs=1e-3)
    assert seconds(call) == pytest.approx(6.0 + facts(call)["headgate.waited_seconds"], abs=1e-3)
    assert [event.name for event in call.events] == ["headgate.wait"]
    assert facts(call)["headgate.attempts"] == 3
    assert (facts(call)["headgate.rotations"], facts(call)["headgate.retries"]) == (1, 1)
    assert call.status.status_code is StatusCode.UNSET
    assert facts(refused)["error.type"] == "quota_minute"
    assert facts(refused)["http.response.status_code"] == 429
    assert refused.status.status_code is StatusCode.ERROR
    assert facts(failed)["error.type"] == "server"
    assert facts(failed)["http.request.resend_count"] == 1
    assert facts(answered) == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 3,
        "headgate.attempt": 3,
        "headgate.key_alias": "k1",
        "headgate.quota_domain": facts(answered)["headgate.quota_domain"],
        "http.request.resend_count": 2,
        "http.response.status_code": 200,
    }
    assert "CANARY" not in repr([facts(span) for span in seen.spans])


async def test_names_of_attributes_are_those_of_the_pinned_conventions_or_ours(
    clock: VirtualClock,
) -> None:
    options = {"temperature": 1, "top_p": 0.5, "top_k": 3, "seed": 1, "stop_sequences": ["a"]}
    with telemetry(capture_content=True) as seen:
        client, _ = scripted([broken_inside(), said()], clock)
        await client.generate_content("hi", MODEL, system_instruction="Be brief.", **options)
        client, _ = scripted([stream("a")], clock)
        assert [piece async for piece in client.generate_content_stream("hi", MODEL)]
    names = {name for span in seen.spans for name in facts(span)}
    assert {name for name in names if not name.startswith("headgate.")} <= CONVENTIONS
    assert {"gen_ai.request.top_k", "gen_ai.request.stream", "gen_ai.system_instructions"} <= names


async def test_input_has_what_came_from_a_cache_and_output_has_thoughts(clock: VirtualClock) -> None:
    """As the conventions count them, whatever a provider does."""
    told = reply()
    told["usageMetadata"] = {
        "promptTokenCount": 50, "cachedContentTokenCount": 20, "toolUsePromptTokenCount": 7,
        "candidatesTokenCount": 3, "thoughtsTokenCount": 11, "totalTokenCount": 71,
    }  # fmt: skip
    with telemetry() as seen:
        client, _ = scripted([Answer(body=json.dumps(told).encode())], clock)
        await client.generate_content("hi", MODEL)
    (attempt,) = of(seen, ATTEMPT)
    used = {name: value for name, value in facts(attempt).items() if ".usage." in name}
    assert used == {
        "gen_ai.usage.input_tokens": 57,
        "gen_ai.usage.output_tokens": 14,
        "gen_ai.usage.cache_read.input_tokens": 20,
        "gen_ai.usage.reasoning.output_tokens": 11,
    }


async def test_a_stream_is_traced_to_its_end(clock: VirtualClock) -> None:
    with telemetry() as seen:
        client, _ = scripted([stream("a", "b", piece_delay=3)], clock)
        pieces = client.generate_content_stream("hi", MODEL)
        async for _ in pieces:
            assert seen.spans == []
    (call,) = of(seen, "headgate.call stream")
    (attempt,) = of(seen, ATTEMPT)
    assert [seconds(call), seconds(attempt)] == pytest.approx([6, 6], abs=1e-3)
    assert facts(attempt)["gen_ai.request.stream"] is True
    assert facts(attempt)["gen_ai.response.time_to_first_chunk"] == pytest.approx(3)
    assert facts(call)["gen_ai.response.finish_reasons"] == ("STOP",)
    assert facts(call)["gen_ai.response.model"] == MODEL
    assert facts(attempt)["gen_ai.usage.output_tokens"] == 3


async def test_a_stream_that_is_left_is_cancelled_and_no_error(clock: VirtualClock) -> None:
    with telemetry() as seen:
        client, _ = scripted([stream("a", "b", piece_delay=3)], clock)
        pieces = client.generate_content_stream("hi", MODEL)
        await anext(pieces)
        await pieces.aclose()
    (call,) = of(seen, "headgate.call stream")
    assert facts(call)["error.type"] == "cancelled"
    assert call.status.status_code is StatusCode.UNSET
    (attempt,) = of(seen, ATTEMPT)
    assert facts(attempt)["error.type"] == "cancelled"
    assert attempt.status.status_code is StatusCode.UNSET
    assert TRACES._open == {}


async def test_a_failed_call_is_an_error_by_its_kind(clock: VirtualClock) -> None:
    with telemetry() as seen:
        client, _ = scripted([broken_inside()], clock, max_retries=0)
        with suppress(GeminiAPICallError):
            await client.generate_content("hi", MODEL)
    (call,) = of(seen, CALL)
    assert facts(call)["error.type"] == "server"
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "server")


async def test_a_kept_answer_has_no_attempt(clock: VirtualClock) -> None:
    config = BackendConfig(model_discovery=False)
    transport = ScriptedTransport([said()], clock)
    made = GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})
    with telemetry() as seen:
        for _ in range(2):
            await made.execute_gemini_enhanced(GeminiRequest("Explain tides", MODEL))
    first, second = of(seen, CALL)
    assert [facts(one)["headgate.cached"] for one in (first, second)] == [False, True]
    assert seen.tree() == [(CALL, [ATTEMPT]), (CALL, [])]


# ── stages ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_stage_that_takes_time_of_its_own_has_a_span(clock: VirtualClock) -> None:
    """What a call waits for its turn is no attempt's time, and no event tells of it."""
    with telemetry() as seen:
        client, _ = scripted([said(delay=2)], clock, quotas={"rpm": 1})
        await client.generate_content("hi", MODEL)
        await client.generate_content("hi", MODEL, max_wait_seconds=90)
    assert [names for _, names in seen.tree()] == [[ATTEMPT], ["headgate.reserve", ATTEMPT]]
    (waited,) = of(seen, "headgate.reserve")
    assert waited.kind is SpanKind.INTERNAL
    assert facts(waited) == {}
    answered = of(seen, ATTEMPT)[1]
    assert 55 < seconds(waited) < 65
    assert seconds(answered) == pytest.approx(2, abs=1e-3)
    assert (waited.end_time or 0) <= (answered.start_time or 0) + 1_000_000


async def test_the_wait_before_a_retry_lies_between_its_attempts(clock: VirtualClock) -> None:
    with telemetry() as seen:
        client, _ = scripted([broken_inside(delay=1), said(delay=1)], clock)
        await client.generate_content("hi", MODEL)
    assert [names for _, names in seen.tree()] == [[ATTEMPT, "headgate.attempt", ATTEMPT]]
    (call,) = of(seen, CALL)
    (wait,) = of(seen, "headgate.attempt")
    assert seconds(wait) == pytest.approx(facts(call)["headgate.waited_seconds"], abs=1e-3)


async def test_a_call_that_waits_for_anothers_answer_says_so(clock: VirtualClock) -> None:
    config = BackendConfig(model_discovery=False)
    transport = ScriptedTransport([said(delay=3)], clock)
    made = GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})
    with telemetry() as seen:
        asked = [made.execute_gemini_enhanced(GeminiRequest("Explain tides", MODEL)) for _ in range(2)]
        await asyncio.gather(*asked)
    assert len(transport.sent) == 1
    assert sorted(names for _, names in seen.tree()) == [[ATTEMPT], ["headgate.recall"]]
    (followed,) = of(seen, "headgate.recall")
    assert seconds(followed) == pytest.approx(3, abs=1e-2)


async def test_calls_that_nobody_traces_take_the_plain_path(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nobody asked for the time")

    monkeypatch.setattr("headgate.engine.pipeline.timed", never)
    client, _ = scripted([said()], clock)
    await client.generate_content("hi", MODEL)
    with telemetry(UNSAMPLED):
        await client.generate_content("hi", MODEL)


async def test_own_time_is_what_does_not_pass_further_down(clock: VirtualClock) -> None:
    """Before, between two times and after; of a failure too. Hedge and send tell by records."""
    heard: list[tuple[str, float, float]] = []

    async def outer(passage: Any, onward: Any) -> Any:
        await clock.sleep(1)
        with suppress(LookupError):
            await onward(passage)
        await clock.sleep(2)
        await onward(passage)
        await clock.sleep(3)

    async def inner(passage: Any, onward: Any) -> Any:
        await clock.sleep(10)
        return await onward(passage)

    async def end(passage: Any) -> Any:
        await clock.sleep(100)
        if len(heard) < 4:
            raise LookupError

    stages: Any = [("outer", outer), ("hedge", inner), ("inner", inner), ("send", inner)]
    path = timed(stages, end, clock, lambda *fact: heard.append(fact))
    await path(None)  # type: ignore[arg-type] # stages look at no passage here
    took = [(name, ended - began) for name, began, ended in heard]
    assert took == [
        ("outer", 1), ("inner", 10), ("inner", 0),
        ("outer", 2), ("inner", 10), ("inner", 0),
        ("outer", 3),
    ]  # fmt: skip


# ── what is not there ───────────────────────────────────────────────────────────────────────────


async def test_nothing_is_traced_that_is_not_sampled(clock: VirtualClock) -> None:
    with telemetry(UNSAMPLED, propagate_upstream=True) as seen:
        client, transport = scripted([said()], clock)
        await client.generate_content("hi", MODEL)
        parent = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0)))
        with use_span(parent):
            await client.generate_content("hi", MODEL)
    assert seen.spans == []
    assert TRACES._open == {}
    carried = [sent.credential.get("traceparent") for sent in transport.sent]
    assert carried == [None, f"00-{1:032x}-{2:016x}-00"], "what was decided elsewhere goes on"


async def test_the_share_that_is_kept_is_decided_before_a_span_is_begun(clock: VirtualClock) -> None:
    """Half of the calls, and all spans of each; a span around a call decides for it."""
    with telemetry(ParentBased(EarlyRatio(0.5))) as seen:
        client, _ = scripted([said()], clock)
        for _ in range(200):
            await client.generate_content("hi", MODEL)
        calls = of(seen, CALL)
        assert 50 < len(calls) < 150
        assert {len(children) for _, children in seen.tree()} == {1}
        assert not any("kept" in name for span in seen.spans for name in facts(span))
        seen.exporter.clear()
        for _ in range(200):
            with trace_span("around"):
                await client.generate_content("hi", MODEL)
        assert len(of(seen, CALL)) == len(of(seen, "around"))
        assert 50 < len(of(seen, CALL)) < 150
    with telemetry(ParentBased(EarlyRatio(0.0))) as seen:
        await client.generate_content("hi", MODEL)
        assert seen.spans == []


async def test_where_it_is_off_nothing_is_remembered(clock: VirtualClock) -> None:
    client, transport = scripted([said()], clock)
    await client.generate_content("hi", MODEL)
    assert TRACES._open == {}
    assert set(transport.sent[0].credential) == {"x-goog-api-key"}
    assert TRACES.ids("x") is None


async def test_prompts_are_not_in_spans_unless_that_is_asked_for(clock: VirtualClock) -> None:
    prompt = f"Tell ada@example.org about {key(3)} and tides"
    for capture in (False, True):
        with telemetry(capture_content=capture) as seen:
            client, _ = scripted([said(f"the answer for bob@example.org is {key(5)}")], clock)
            await client.generate_content(prompt, MODEL, system_instruction=f"Never say {key(4)}")
        whole = repr([facts(span) for span in seen.spans])
        assert "CANARY" not in whole
        assert "@example" not in whole
        assert ("tides" in whole) is capture
        assert ("the answer" in whole) is capture
    (call,) = of(seen, CALL)
    messages = json.loads(facts(call)["gen_ai.input.messages"])
    content = "Tell [EMAIL] about [key] and tides"
    assert messages == [{"role": "user", "parts": [{"type": "text", "content": content}]}]
    (answer,) = json.loads(facts(call)["gen_ai.output.messages"])
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "STOP")
    assert answer["parts"][0]["content"] == "the answer for [EMAIL] is [key]"
    assert json.loads(facts(call)["gen_ai.system_instructions"]) == [
        {"type": "text", "content": "Never say [key]"}
    ]


# ── context in and out ──────────────────────────────────────────────────────────────────────────


async def test_upstream_requests_carry_the_trace_only_where_that_is_wanted(clock: VirtualClock) -> None:
    for wanted in (False, True):
        with telemetry(propagate_upstream=wanted) as seen:
            client, transport = scripted([broken_inside(), said()], clock)
            await client.generate_content("hi", MODEL)
        (call,) = of(seen, CALL)
        context = call.context
        assert context is not None
        flags = int(context.trace_flags)
        assert flags & 1, "sampled"
        header = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
        carried = [sent.credential.get("traceparent") for sent in transport.sent]
        assert carried == ([header] * 2 if wanted else [None] * 2)


async def test_a_call_goes_on_with_the_trace_it_is_in(clock: VirtualClock) -> None:
    parent = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
    with telemetry() as seen, use_span(NonRecordingSpan(parent)):
        client, _ = scripted([said()], clock)
        await client.generate_content("hi", MODEL)
    assert {span.context.trace_id for span in seen.spans if span.context} == {0xABC}


async def test_log_lines_of_a_call_can_name_its_trace_without_a_span_around_it(
    clock: VirtualClock,
) -> None:
    config = BackendConfig(model_discovery=False, logging_config=LoggingConfig())
    transport = ScriptedTransport([said()], clock)
    made = GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})
    found = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = getattr(record, "headgate", None)
            if fields is not None:
                found.append(TRACES.ids(fields["request_id"]))

    logger, handler = logging.getLogger("headgate.backend"), Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with telemetry() as seen:
            await made.execute_gemini_enhanced(GeminiRequest("Explain tides", MODEL))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    (call,) = of(seen, CALL)
    assert call.context is not None
    assert found[1:] == [(call.context.trace_id, call.context.span_id)] * 2


def test_what_is_remembered_of_calls_is_bounded() -> None:
    with telemetry() as seen:
        traces = CallTraces()
        for number in range(10_005):
            traces.begun(Call(Operation.GENERATE, "m", ("hi",), request_id=str(number)))
        assert len(traces._open) == 10_000
        assert len(seen.spans) == 5
        traces.begun(Call(Operation.GENERATE, "m", ("hi",), request_id="10004"))
        assert len(seen.spans) == 6, "of an id that comes twice the older ends"


# ── over OTLP ───────────────────────────────────────────────────────────────────────────────────


def test_an_otlp_receiver_gets_the_tree() -> None:
    clock = VirtualClock()
    with OtlpReceiver() as receiver, telemetry() as seen:
        url = f"{receiver.endpoint}/v1/traces"
        exporter = OTLPSpanExporter(endpoint=url, headers={"x-tenant": "t1"})
        seen.tracers.add_span_processor(BatchSpanProcessor(exporter))
        transport = ScriptedTransport([quota("Minute", "50s"), broken_inside(), said()], clock)
        config = BackendConfig(model_discovery=False)
        made = GeminiBackend(config, keys=keys(2), transport=transport, clock=clock, environ={})
        for _ in range(2):
            clock.run(made.execute_gemini_enhanced(GeminiRequest("Explain tides", MODEL)))
        assert seen.tracers.force_flush()
    assert {(path, headers["x-tenant"]) for path, headers in receiver.heads} == {("/v1/traces", "t1")}
    spans = receiver.spans
    call, kept = [span for span in spans if not span.parent_id]
    assert [one.name for one in (call, kept)] == [CALL, CALL]
    assert call.events == ("headgate.wait",)
    below = [span for span in spans if span.parent_id == call.span_id]
    assert [span.name for span in below] == [ATTEMPT, ATTEMPT, "headgate.attempt", ATTEMPT]
    attempts = [span for span in below if span.name == ATTEMPT]
    assert [span.status for span in attempts] == [2, 2, 0]
    assert {span.trace_id for span in attempts} == {call.trace_id}
    assert kept.facts["headgate.cached"] is True
    assert not [span for span in spans if span.parent_id == kept.span_id]


def test_our_own_connections_are_not_traced_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrumentation of aiohttp adds its own to every session of the process."""
    made = aiohttp.ClientSession.__init__

    def instrumented(self: aiohttp.ClientSession, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **{**kwargs, "trace_configs": [aiohttp.TraceConfig()]})

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", instrumented)

    async def main() -> list[aiohttp.TraceConfig[Any]]:
        transport = HttpTransport(SystemClock())
        session = await transport._session()
        await transport.aclose()
        return list(session.trace_configs)

    assert asyncio.run(main()) == []
