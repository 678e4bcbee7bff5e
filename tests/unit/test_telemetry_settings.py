"""OpenTelemetry's variables: what turns telemetry of a program on, and what is told as wrong."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from headgate.core.errors import ConfigurationError
from headgate.telemetry import sdk
from headgate.telemetry.switch import SWITCH
from headgate.wiring import telemetry
from headgate.wiring.telemetry import TelemetrySettings, load_telemetry, start_telemetry

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def loaded(**given: str) -> TelemetrySettings:
    settings = load_telemetry({**ENDPOINT, **given})
    assert settings is not None
    return settings


@pytest.fixture(autouse=True)
def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this process may have set one."""
    monkeypatch.setattr(telemetry, "provider_is_set", lambda: False)


def test_without_an_endpoint_nothing_is_turned_on() -> None:
    assert load_telemetry({}) is None
    assert load_telemetry({"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_ENDPOINT": " "}) is None
    before = SWITCH.setup
    start_telemetry(environ={})()
    assert SWITCH.setup is before


def test_an_endpoint_is_enough() -> None:
    settings = loaded()
    assert settings.url == "http://collector:4318/v1/traces"
    assert (settings.service_name, settings.ratio) == ("headgate", 1.0)
    assert settings.propagate_upstream
    assert settings.headers == settings.resource == {}


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://vendor/otlp/"}, "https://vendor/otlp/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:4318/v1/traces"}, "http://t:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:9/mine"}, "http://t:9/mine"),
    ],
)
def test_the_general_endpoint_gets_a_path_and_that_of_traces_is_taken_as_it_is(
    given: dict[str, str], url: str
) -> None:
    assert loaded(**given).url == url


def test_an_exporter_that_is_asked_for_has_the_usual_endpoint() -> None:
    settings = load_telemetry({"OTEL_TRACES_EXPORTER": "otlp"})
    assert settings is not None
    assert settings.url == "http://localhost:4318/v1/traces"


@pytest.mark.parametrize(
    "given",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "always_off"},
    ],
)
def test_it_can_be_turned_off(given: dict[str, str]) -> None:
    assert load_telemetry({**ENDPOINT, **given}) is None


def test_a_provider_of_the_process_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "provider_is_set", lambda: True)
    settings = load_telemetry({})
    assert settings is not None
    assert settings.url is None, "spans go where the provider sends them"


def test_names_and_pairs_are_read_as_the_specification_writes_them() -> None:
    settings = loaded(
        OTEL_RESOURCE_ATTRIBUTES="service.name=from-resource, deployment.environment=a%2Cb",
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=t1,authorization=Bearer%20CANARY-token",
    )
    assert settings.service_name == "from-resource"
    assert settings.resource["deployment.environment"] == "a,b"
    assert settings.headers == {"x-tenant": "t1", "authorization": "Bearer CANARY-token"}
    assert "CANARY" not in repr(settings)
    named = loaded(OTEL_SERVICE_NAME="mine", OTEL_RESOURCE_ATTRIBUTES="service.name=other")
    assert named.service_name == "mine"
    of_traces = loaded(OTEL_EXPORTER_OTLP_HEADERS="a=1", OTEL_EXPORTER_OTLP_TRACES_HEADERS="b=2")
    assert of_traces.headers == {"b": "2"}


@pytest.mark.parametrize(
    ("sampler", "share", "ratio"),
    [
        ("parentbased_traceidratio", "0.25", 0.25),
        ("traceidratio", "0.5", 0.5),
        ("parentbased_traceidratio", "", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("always_on", "0.1", 1.0),
    ],
)
def test_samplers_are_shares(sampler: str, share: str, ratio: float) -> None:
    assert loaded(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=share).ratio == ratio


@pytest.mark.parametrize(
    ("asked", "goes_on"),
    [("tracecontext,baggage", True), ("baggage", False), ("none", False), ("b3, tracecontext", True)],
)
def test_propagators_say_whether_the_trace_goes_on_upstream(asked: str, goes_on: bool) -> None:
    assert loaded(OTEL_PROPAGATORS=asked).propagate_upstream is goes_on


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://jaeger:14268/api/traces"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_SDK_DISABLED", "maybe"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization CANARY-token"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=CANARY-value"),
    ],
)
def test_what_is_wrong_is_named_and_not_repeated(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=variable) as caught:
        load_telemetry({**ENDPOINT, variable: value})
    assert "CANARY" not in caught.value.message


@pytest.mark.parametrize("share", ["2", "-0.1", "half", "nan"])
def test_a_share_is_between_0_and_1(share: str) -> None:
    given = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_SAMPLER_ARG"):
        load_telemetry({**ENDPOINT, **given})


def test_telemetry_is_set_up_once_with_what_the_variables_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[dict[str, Any]] = []

    def noted(name: str, **given: Any) -> bool:
        calls.append({"name": name, **given})
        return True

    monkeypatch.setattr(telemetry, "setup_telemetry", noted)
    given = {
        **ENDPOINT, "OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "service.version=9,zone=a",
        "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5",
    }  # fmt: skip
    first, second = (start_telemetry(environ=given, registry="r") for _ in range(2))
    assert first is second is telemetry.shutdown_telemetry
    one, other = calls
    assert (one["name"], one["otlp_endpoint"]) == ("mine", "http://collector:4318/v1/traces")
    assert (one["service_version"], one["sample_ratio"], one["registry"]) == ("9", 0.5, "r")
    assert one["propagate_upstream"] is True
    assert one["resource_attributes"]["zone"] == "a"
    instances = {call["resource_attributes"]["service.instance.id"] for call in (one, other)}
    assert len(instances) == 2, "each process has one of its own"
    monkeypatch.setattr(SWITCH, "setup", object())
    start_telemetry(environ=given)()
    assert len(calls) == 2, "it is on already, and whoever turned it on ends it"


def test_without_the_sdk_a_program_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "setup_telemetry", lambda *_, **__: False)
    start_telemetry(environ=ENDPOINT)()
    assert SWITCH.setup is None


class _Hangs(SpanExporter):
    """Tries a collector that is gone: until it is told to stop, or longer than that."""

    def __init__(self, *, listens: bool) -> None:
        self.told, self.freed = threading.Event(), threading.Event()
        self._until = self.told if listens else self.freed
        self.ended = False

    def export(self, spans: Any) -> SpanExportResult:
        self.ended = self._until.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.told.set()


@pytest.mark.parametrize("listens", [True, False])
def test_a_collector_that_is_gone_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    """Not between two tries, and not where it hangs in the middle of one."""
    monkeypatch.setattr(sdk, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(sdk, "_CUT_SECONDS", 20.0 if listens else 0.05)
    exporter, provider = _Hangs(listens=listens), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    provider.get_tracer("tests").start_span("one").end()
    sdk._flushed(provider, exporter)
    assert exporter.told.is_set()
    assert exporter.ended is listens
    exporter.freed.set()
