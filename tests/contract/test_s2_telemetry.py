"""S2-18 … S2-22: telemetry is turned on once, traces and counts, and is nothing where it is off."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import StatusCode, get_current_span
from prometheus_client import CollectorRegistry, generate_latest
from tests.support import key
from tests.telemetry import telemetry

from headgate.core.errors import ConfigurationError
from headgate.telemetry import (
    record_gauge,
    record_metric,
    setup_telemetry,
    shutdown_telemetry,
    trace_operation,
    trace_span,
)
from headgate.telemetry.registry import OtelCollector, family_name
from headgate.telemetry.sdk import DURATION_BOUNDS
from headgate.telemetry.setup import traces_url
from headgate.telemetry.spans import NoSpan


def in_a_process(code: str, *, folder: Path, **environment: str) -> dict[str, Any]:
    """What a fresh process prints as JSON in its last line: providers are set once a process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        cwd=folder, capture_output=True, check=False, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"stderr": done.stderr}


# ── S2-18, S2-19: setting up ────────────────────────────────────────────────────────────────────


def test_s2_18_the_accepted_arguments_come_first() -> None:
    parameters = list(inspect.signature(setup_telemetry).parameters.values())
    assert [one.name for one in parameters[:2]] == ["service_name", "jaeger_endpoint"]
    assert parameters[1].default is None
    assert all(one.kind is one.KEYWORD_ONLY for one in parameters[2:])


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://jaeger:4318", "http://jaeger:4318/v1/traces"),
        ("jaeger:4318", "http://jaeger:4318/v1/traces"),
        ("https://collector.example/", "https://collector.example/v1/traces"),
        ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ("https://vendor.example/otlp/v1/traces?x=1", "https://vendor.example/otlp/v1/traces?x=1"),
    ],
)
def test_s2_18_an_endpoint_is_an_otlp_url(given: str, url: str) -> None:
    assert traces_url(given) == url


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("http://jaeger:14268/api/traces", "Thrift"),
        ("jaeger:6831", "Thrift"),
        ("http://jaeger:4317", "gRPC"),
        ("ftp://jaeger", "URL"),
        ("http://", "URL"),
        ("http://host:port", "URL"),
    ],
)
def test_s2_18_what_takes_no_otlp_over_http_is_named(given: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        setup_telemetry("svc", given)
    with pytest.raises(ConfigurationError, match=why):
        setup_telemetry("svc", otlp_endpoint=given)


def test_s2_18_wrong_arguments_turn_nothing_on() -> None:
    with pytest.raises(ConfigurationError, match="two names of one"):
        setup_telemetry("svc", "http://a:4318", otlp_endpoint="http://b:4318")
    for ratio in (-0.1, 1.1, True, "1"):
        with pytest.raises(ConfigurationError, match="sample_ratio"):
            setup_telemetry("svc", sample_ratio=ratio)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="CollectorRegistry"):
        setup_telemetry("svc", registry=object())
    with trace_span("off") as span:
        assert not span.is_recording()


WHOLE = """
import json, logging
logging.basicConfig(level=logging.DEBUG)
from prometheus_client import CollectorRegistry, generate_latest
from headgate.telemetry import *
registry = CollectorRegistry()
first = setup_telemetry("svc", registry=registry, resource_attributes={"deployment": "test"})
again = setup_telemetry("other")
record_metric("requests", 2, attributes={"path": "/a"})
record_metric("latency", 12.5, "ms")
record_gauge("depth", 3)
from headgate.telemetry import of_registry
from headgate.telemetry.metering import REQUEST_DURATION, record_seconds
counts = [of_registry._bridges[registry]()]
record_seconds(REQUEST_DURATION, 0.1, {})
counts += [of_registry._bridges[registry]()]
with trace_span("one") as span:
    resource = dict(span.resource.attributes)
    sampled = span.get_span_context().trace_flags.sampled
text = generate_latest(registry).decode()
shutdown_telemetry()
after = generate_latest(registry).decode()
counts += [registry in of_registry._bridges]
print(json.dumps({"all": [first, again, resource, sampled, text, after, counts]}))
"""


def test_s2_18_s2_19_one_setup_a_process_with_one_registry(tmp_path: Path) -> None:
    said = in_a_process(WHOLE, folder=tmp_path)
    first, again, resource, sampled, text, after, counts = said["all"]
    assert counts == [False, True, False], "of requests the bridge tells from the first until the end"
    assert "http_server_request_duration_seconds_count 1.0" in text
    assert (first, again, sampled) == (True, True, True)
    assert resource["service.name"] == "svc"
    assert resource["service.version"] == "0.1.0"
    assert resource["deployment"] == "test"
    assert "telemetry is set up already" in said["stderr"]
    assert "telemetry is on: service_name=svc jaeger_enabled=False" in said["stderr"]
    assert 'cak_requests_total{path="/a"} 2.0' in text
    assert 'cak_latency_milliseconds_bucket{le="25"} 1.0' in text
    assert 'cak_latency_milliseconds_bucket{le="160000"} 1.0' in text
    assert "cak_latency_milliseconds_sum 12.5" in text
    assert "cak_depth 3.0" in text
    assert "otel_scope" not in text
    assert after == "", "what was registered is taken out at the end"


def test_s2_18_a_process_with_a_provider_of_its_own_keeps_it(tmp_path: Path) -> None:
    code = """
import json
from opentelemetry import trace, metrics
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.metrics import MeterProvider
own, meters = TracerProvider(), MeterProvider()
trace.set_tracer_provider(own)
metrics.set_meter_provider(meters)
from headgate.telemetry import setup_telemetry, shutdown_telemetry, trace_span
setup_telemetry("svc")
with trace_span("x") as span:
    mine = span.resource is own.resource
shutdown_telemetry()
print(json.dumps({"mine": mine, "alive": own.get_tracer("x").start_span("y").is_recording()}))
"""
    said = in_a_process(code, folder=tmp_path)
    assert (said["mine"], said["alive"]) == (True, True)


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry" and (name.startswith("opentelemetry.sdk") or {all}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
import asyncio, json, logging
from headgate.telemetry import *
from headgate.gemini import ResilientGeminiClient
from headgate.testing import Answer, ScriptedTransport
first = setup_telemetry("svc", "http://jaeger:4318")
again = setup_telemetry("svc")

@trace_operation("op")
async def work():
    with trace_span("inner", {{"a": 1}}) as span:
        span.set_attribute("b", 2)
        span.add_event("c")
        span.record_exception(ValueError("x"))
        span.set_status("OK")
        context = span.get_span_context()
        record_metric("n", 1)
        record_metric("d", 1.5, "ms")
        record_gauge("g", -1)
        return [span.is_recording(), context.is_valid, context.trace_id]

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 204, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})

async def main():
    sent = []
    async def send(message):
        sent.append(message["type"])
    scope = {{"type": "http", "method": "GET", "path": "/", "headers": []}}
    await TelemetryMiddleware(app)(scope, None, send)
    content = {{"parts": [{{"text": "fine"}}]}}
    body = json.dumps({{"candidates": [{{"content": content, "finishReason": "STOP"}}]}}).encode()
    transport = ScriptedTransport([Answer(body=body)])
    client = ResilientGeminiClient(keys="AIzaCANARY-0123456789", transport=transport)
    text = await client.generate_content("hi", "gemini-3.8-flash")
    return [await work(), sent, text]

told = asyncio.run(main())
shutdown_telemetry()
loaded = [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
print(json.dumps({{"on": [first, again], "told": told, "loaded": loaded}}))
"""


@pytest.mark.parametrize("everything", [False, True], ids=["without the SDK", "without the API too"])
def test_s2_18_without_the_packages_everything_works_and_does_nothing(
    everything: bool, tmp_path: Path
) -> None:
    said = in_a_process(BLOCKED.format(all=everything), folder=tmp_path)
    assert said["on"] == [False, False]
    assert said["told"] == [
        [False, False, 0],
        ["http.response.start", "http.response.body"],
        "fine",
    ]
    assert said["loaded"] == []
    assert said["stderr"].count("telemetry is off") == 1


def test_importing_telemetry_imports_no_vendor(tmp_path: Path) -> None:
    code = """
import json, sys
import headgate.telemetry, headgate.telemetry.spans, headgate.telemetry.middleware
heavy = ("opentelemetry", "structlog", "prometheus_client")
print(json.dumps({"loaded": [name for name in sys.modules if name.split(".")[0] in heavy]}))
"""
    assert in_a_process(code, folder=tmp_path)["loaded"] == []


def test_s2_18_http_libraries_are_instrumented_where_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from types import ModuleType

    done = []

    class Instrumentor:
        is_instrumented_by_opentelemetry = False

        def instrument(self) -> None:
            done.append("httpx")

    module = ModuleType("opentelemetry.instrumentation.httpx")
    module.HTTPXClientInstrumentor = Instrumentor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation", ModuleType("none"))
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.httpx", module)
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.aiohttp_client", None)
    with caplog.at_level(logging.INFO, "headgate.telemetry"), telemetry():
        assert done == ["httpx"]
    assert "instrumented=httpx" in caplog.text


def test_s2_19_names_in_prometheus_follow_the_specification() -> None:
    assert family_name("cak.http_request_duration", "ms") == "cak_http_request_duration_milliseconds"
    assert family_name("http.server.request.duration", "s") == "http_server_request_duration_seconds"
    assert family_name("gen_ai.client.token.usage", "{token}") == "gen_ai_client_token_usage"
    assert family_name("cak.requests", "1") == "cak_requests"
    assert family_name("cak.size_bytes", "By") == "cak_size_bytes"
    assert family_name("9 lives-total", "1") == "_9_lives", "a counter gets its own"


def test_s2_19_two_instruments_of_one_name_are_printed_once(caplog: pytest.LogCaptureFixture) -> None:
    """Prometheus refuses a page with a family twice."""
    with telemetry() as seen:
        record_metric("a.b", 1)
        record_metric("a_b", 2)
        record_metric("a.b", 4, attributes={"flag": True, "none": "x"})
        registry = CollectorRegistry()
        registry.register(OtelCollector(seen.reader.get_metrics_data))
        with caplog.at_level(logging.WARNING, "headgate.telemetry"):
            text = generate_latest(registry).decode()
            assert generate_latest(registry).decode() == text
    assert text.count("# TYPE cak_a_b_total counter") == 1
    assert 'cak_a_b_total{flag="true",none="x"} 4.0' in text
    assert 'cak_a_b_total{flag="",none=""} 1.0' in text
    assert caplog.text.count("metric cak.a_b is not shown") == 1


def test_s2_19_durations_have_bounds_for_answers_of_models() -> None:
    assert DURATION_BOUNDS["ms"][-4:] == (20_000, 40_000, 80_000, 160_000)
    assert DURATION_BOUNDS["s"][0] == 0.005
    assert DURATION_BOUNDS["s"][-1] == 160.0


# ── S2-20, S2-21: spans ─────────────────────────────────────────────────────────────────────────


async def test_s2_20_a_coroutine_function_is_traced() -> None:
    current: list[bool] = []

    @trace_operation("work")
    async def work(value: int) -> int:
        """Doc."""
        current.append(get_current_span().is_recording())
        return value + 1

    assert (work.__name__, work.__doc__) == ("work", "Doc.")
    assert inspect.iscoroutinefunction(work)
    assert await work(1) == 2
    with telemetry() as seen:
        assert await work(1) == 2
    assert current == [False, True]
    assert seen.span.name == "work"
    assert seen.span.status.status_code is StatusCode.OK
    assert seen.span.attributes == {
        "function.name": "test_s2_20_a_coroutine_function_is_traced.<locals>.work",
        "function.module": __name__,
    }


def test_s2_20_what_fails_is_recorded_once_cleaned_and_raised() -> None:
    @trace_operation("work")
    def work() -> None:
        raise ValueError(f"no {key(1)} for ada@example.org")

    with pytest.raises(ValueError, match="CANARY"):
        work()
    with telemetry() as seen, pytest.raises(ValueError, match="CANARY"):
        work()
    assert seen.span.status.status_code is StatusCode.ERROR
    assert seen.span.status.description == "ValueError: no [key] for [EMAIL]"
    (event,) = seen.span.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "builtins.ValueError"
    assert event.attributes["exception.message"] == "no [key] for [EMAIL]"
    trace = str(event.attributes["exception.stacktrace"])
    assert "in work" in trace
    assert "CANARY" not in trace
    assert "ada@" not in trace


@pytest.mark.parametrize("on", [False, True])
def test_s2_20_a_generator_is_what_it_was(on: bool) -> None:
    """Sent values, thrown errors and the value it returns pass; the span lasts until it ends."""

    @trace_operation("pieces")
    def pieces() -> Generator[int, int, str]:
        got = yield 1
        try:
            yield got
        except KeyError:
            yield -1
        return "over"

    def drive() -> None:
        made = pieces()
        assert next(made) == 1
        assert get_current_span().get_span_context().is_valid is False, "not current between"
        assert made.send(5) == 5
        assert made.throw(KeyError("x")) == -1
        with pytest.raises(StopIteration) as end:
            next(made)
        assert end.value.value == "over"

    if not on:
        drive()
        return
    with telemetry() as seen:
        drive()
        left = pieces()
        next(left)
        assert len(seen.spans) == 1
        left.close()
    assert [span.status.status_code for span in seen.spans] == [StatusCode.OK, StatusCode.OK]


@pytest.mark.parametrize("on", [False, True])
async def test_s2_20_an_async_generator_is_what_it_was(on: bool) -> None:
    inside: list[bool] = []

    @trace_operation("pieces")
    async def pieces() -> AsyncGenerator[int, int]:
        inside.append(get_current_span().is_recording())
        got = yield 1
        inside.append(get_current_span().is_recording())
        try:
            yield got
        except KeyError:
            yield -1
        raise ValueError("broken")

    async def drive() -> None:
        made = pieces()
        assert await anext(made) == 1
        assert get_current_span().get_span_context().is_valid is False, "not current between"
        assert await made.asend(5) == 5
        assert await made.athrow(KeyError("x")) == -1
        with pytest.raises(ValueError, match="broken"):
            await anext(made)

    if not on:
        await drive()
        return
    with telemetry() as seen:
        await drive()
        left = pieces()
        await anext(left)
        await left.aclose()
        assert [piece async for piece in _few(pieces)] == [1]
    assert inside == [True, True, True, True]
    codes = [span.status.status_code for span in seen.spans]
    assert codes == [StatusCode.ERROR, StatusCode.OK, StatusCode.OK]
    assert len(seen.spans[0].events) == 1


async def _few(make: Any) -> AsyncGenerator[int]:
    made = make()
    async for piece in made:
        yield piece
        break
    await made.aclose()


def test_s2_21_a_span_is_current_and_nests() -> None:
    with telemetry() as seen, trace_span("outer", {"a": 1}) as outer, trace_span("inner") as inner:
        assert get_current_span() is inner
        outer.set_attribute("b", [1, 2])
    assert seen.tree() == [("outer", ["inner"])]
    assert seen.spans[1].attributes == {"a": 1, "b": (1, 2)}
    assert [span.status.status_code for span in seen.spans] == [StatusCode.OK] * 2


def test_s2_21_a_failed_block_is_recorded_once_and_raised() -> None:
    with telemetry() as seen, pytest.raises(RuntimeError), trace_span("block"):
        raise RuntimeError("no")
    assert len(seen.span.events) == 1
    assert seen.span.status.status_code is StatusCode.ERROR


def test_s2_21_where_it_is_off_a_span_records_nothing_and_takes_everything() -> None:
    with trace_span("off") as span:
        assert isinstance(span, NoSpan)
        span.set_attribute("a", 1)
        span.set_attributes({"a": 1})
        span.add_event("a", {"b": 1})
        span.add_link(span.get_span_context())
        span.update_name("b")
        span.set_status(StatusCode.ERROR, "c")
        span.record_exception(ValueError("d"))
        span.end()
        assert span.is_recording() is False
        assert span.get_span_context().is_valid is False


# ── S2-22: metrics ──────────────────────────────────────────────────────────────────────────────


def test_s2_22_milliseconds_are_a_histogram_and_all_else_a_counter() -> None:
    record_metric("nobody", 1)
    with telemetry() as seen:
        record_metric("latency", 7.5, "ms", {"path": "/a"})
        record_metric("requests", 1)
        record_metric("requests", 2)
        record_metric("bytes", 10, "By")
        record_gauge("depth", 5)
        record_gauge("depth", -2)
        points = seen.points()
    assert set(points) == {"cak.latency", "cak.requests", "cak.bytes", "cak.depth"}
    assert points["cak.latency"][0].sum == 7.5
    assert points["cak.latency"][0].attributes == {"path": "/a"}
    assert points["cak.requests"][0].value == 3
    assert points["cak.depth"][0].value == -2


def test_s2_22_a_counter_takes_nothing_below_zero() -> None:
    with telemetry() as seen:
        with pytest.raises(ValueError, match="record_gauge"):
            record_metric("requests", -1)
        record_metric("offset", -5.0, "ms")
        assert "cak.requests" not in seen.points()


def test_s2_22_an_instrument_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with telemetry() as seen:
        from headgate.telemetry.switch import SWITCH

        assert SWITCH.setup is not None
        made = []
        meter = type(SWITCH.setup.meter)
        create = meter.create_counter

        def counted(self: Any, name: str, **settings: Any) -> Any:
            made.append(name)
            return create(self, name, **settings)

        monkeypatch.setattr(meter, "create_counter", counted)
        for _ in range(100):
            record_metric("requests", 1)
        assert made == ["cak.requests"]
        assert seen.points()["cak.requests"][0].value == 100


def test_shutting_down_twice_is_harmless() -> None:
    with telemetry():
        shutdown_telemetry()
        shutdown_telemetry()
    with trace_span("off") as span:
        assert not span.is_recording()
