"""Turns telemetry on: where spans go, where metrics are read, what spans may hold."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from headgate.core.errors import ConfigurationError
from headgate.telemetry.sdk import Plan
from headgate.telemetry.switch import NAME, SWITCH, Setup

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["setup_telemetry", "shutdown_telemetry", "traces_url"]

_log = logging.getLogger("headgate.telemetry")
_lock = Lock()
_said: list[str] = []  # what was said once and need not be said again

_TRACES = "/v1/traces"
_GRPC_PORT = 4317
_THRIFT_PORTS = frozenset((6831, 6832, 14268))
"""Where Jaeger took spans before it took OTLP, which is since 1.35."""

_INSTRUMENTORS = {"aiohttp_client": "AioHttpClientInstrumentor", "httpx": "HTTPXClientInstrumentor"}


def setup_telemetry(
    service_name: str,
    jaeger_endpoint: str | None = None,
    *,
    otlp_endpoint: str | None = None,
    otlp_headers: Mapping[str, str] | None = None,
    service_version: str = "0.1.0",
    resource_attributes: Mapping[str, str] | None = None,
    sample_ratio: float = 1.0,
    registry: object = None,
    capture_content: bool = False,
    propagate_upstream: bool = False,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> bool:
    """Trace and measure from now on (S2-18). The first call counts; later ones change nothing.

    Args:
        service_name: names this service in traces and metrics.
        jaeger_endpoint: another name of `otlp_endpoint`: Jaeger takes OTLP since 1.35.
        otlp_endpoint: where spans go, as OTLP over HTTP: `http://collector:4318`. None: nowhere, unless
            the process has a tracer provider already.
        otlp_headers: sent with every export, such as an authorisation.
        service_version: of this service.
        resource_attributes: more facts about it.
        sample_ratio: which share of traces that begin here is kept, 0 to 1; one that comes from
            elsewhere is kept where it was kept there.
        registry: the `prometheus_client` registry that metrics are read from; None: its default one.
        capture_content: let prompts and whole replies stand in spans, without keys and personal data of
            a checkable form.
        propagate_upstream: let requests to upstreams carry the trace (`traceparent`).
        tracer_provider, meter_provider: of yours, instead of new ones; they stay yours.

    Returns:
        Whether telemetry is on. Without the extra `otel` it is not: then everything else here does
        nothing, and a warning said so, once.

    Raises:
        ConfigurationError: the endpoint is no OTLP/HTTP endpoint, or the ratio is no share.
    """
    resource = {
        **(resource_attributes or {}),
        "service.name": service_name,
        "service.version": service_version,
    }
    url = _endpoint(jaeger_endpoint, otlp_endpoint)
    given = (tracer_provider, meter_provider)
    plan = Plan(resource, url, dict(otlp_headers or {}), sample_ratio, registry, *given)
    with _lock:
        if SWITCH.setup is not None:
            _log.debug("telemetry is set up already: this call changes nothing")
        else:
            SWITCH.setup = _made(plan, capture_content, propagate_upstream)
        return SWITCH.setup is not None


def shutdown_telemetry() -> None:
    """Send what waits, and turn telemetry off. Providers that were given stay as they are."""
    with _lock:
        setup, SWITCH.setup = SWITCH.setup, None
    if setup is not None:
        setup.stop()


def traces_url(endpoint: str) -> str:
    """The URL spans are sent to. Raises `ConfigurationError` for what cannot take OTLP over HTTP."""
    parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise ConfigurationError("otlp_endpoint takes a URL such as http://collector:4318.")
    if port in _THRIFT_PORTS or parts.path.startswith("/api/traces"):
        raise ConfigurationError(
            "otlp_endpoint names Jaeger's old Thrift collector, which took no OTLP. Use its OTLP/HTTP "
            "port, 4318: Jaeger has it since 1.35."
        )
    if port == _GRPC_PORT:
        raise ConfigurationError(
            "otlp_endpoint names port 4317, where OTLP is spoken over gRPC. Use HTTP, on port 4318."
        )
    path = parts.path.rstrip("/") or _TRACES
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _endpoint(jaeger: str | None, otlp: str | None) -> str | None:
    if jaeger is not None and otlp is not None:
        raise ConfigurationError("Give jaeger_endpoint or otlp_endpoint: they are two names of one.")
    given = otlp if jaeger is None else jaeger
    return None if given is None else traces_url(given)


def _made(plan: Plan, capture_content: bool, propagate_upstream: bool) -> Setup | None:
    try:
        made = plan.providers()
    except ImportError as error:
        if not _said:
            _said.append("off")
            _log.warning("telemetry is off: %s is missing; install headgate[otel]", error.name)
        return None
    instrumented = _instrument()
    _log.info(
        "telemetry is on: service_name=%s jaeger_enabled=%s instrumented=%s",
        plan.resource["service.name"], plan.url is not None, ",".join(instrumented) or "none",
    )  # fmt: skip
    return Setup(
        made.tracers.get_tracer(NAME, plan.resource["service.version"]),
        made.meters.get_meter(NAME, plan.resource["service.version"]),
        import_module("opentelemetry.trace"),
        capture_content,
        propagate_upstream,
        made.end,
        made.keeps,
    )


def _instrument() -> list[str]:
    """Let clients of other HTTP libraries make spans, where their instrumentation is installed."""
    done = []
    for module, name in _INSTRUMENTORS.items():
        try:
            instrumentor = getattr(import_module(f"opentelemetry.instrumentation.{module}"), name)()
        except ImportError:
            continue
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument()
        done.append(module)
    return done
