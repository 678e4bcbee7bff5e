"""Telemetry of a program of ours, as OpenTelemetry's own variables ask for it.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 headgate serve

Names and meanings are those of OpenTelemetry's specification of environment variables (1.44). What says
how spans are sent (`OTEL_BSP_*`, `OTEL_EXPORTER_OTLP_TIMEOUT`, `_COMPRESSION`, …) the SDK reads by
itself; what says whether, where and how many of them stands here, so that a mistake is told
when the program begins. Values are not repeated: headers hold credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import unquote
from uuid import uuid4

from headgate.core.errors import ConfigurationError
from headgate.telemetry.sdk import provider_is_set
from headgate.telemetry.setup import setup_telemetry, shutdown_telemetry, traces_url
from headgate.telemetry.switch import SWITCH
from headgate.wiring.options import boolean
from headgate.wiring.settings import process_environment

__all__ = ["SERVICE", "TelemetrySettings", "load_telemetry", "start_telemetry"]

SERVICE = "headgate"
"""`service.name` of a program that was given none."""

_DISABLED = "OTEL_SDK_DISABLED"
_EXPORTER = "OTEL_TRACES_EXPORTER"
_BASE, _TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_NAME, _RESOURCE = "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"
_SAMPLER, _SHARE = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
_PROPAGATORS = "OTEL_PROPAGATORS"

_INSTANCE = "service.instance.id"  # tells workers apart, as the specification asks
_HTTP = "http/protobuf"
_DEFAULT_ENDPOINT = "http://localhost:4318"  # of the specification, where an exporter is asked for
_PATH = "/v1/traces"
_ALL = 1.0

_SAMPLERS = {
    "parentbased_always_on": _ALL,
    "parentbased_always_off": 0.0,
    "parentbased_traceidratio": None,
    "always_on": _ALL,
    "traceidratio": None,
}
"""The share each keeps of the traces that begin here; None: as the argument says. What a client decided
for its trace is followed by all of them."""

_NEVER = "always_off"


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What telemetry is set up with.

    Attributes:
        url: where spans go; None: where the process's own provider sends them.
        headers: sent with every export.
        ratio: share of the traces that begin here that is kept.
        propagate_upstream: requests to upstreams carry the trace.
    """

    service_name: str
    url: str | None
    headers: Mapping[str, str] = field(repr=False)
    resource: Mapping[str, str]
    ratio: float
    propagate_upstream: bool


def load_telemetry(environ: Mapping[str, str] | None = None) -> TelemetrySettings | None:
    """What the variables ask for; None where they ask for nothing.

    Args:
        environ: instead of the process environment.

    Raises:
        ConfigurationError: a variable holds what cannot be done; it is named.
    """
    given = _Given(process_environment(environ))
    if given.is_off:
        return None
    url = given.url()
    if url is None and not provider_is_set():
        return None
    resource = given.pairs(_RESOURCE)
    name = given[_NAME] or resource.get("service.name") or SERVICE
    headers = given.pairs(*_HEADERS)
    return TelemetrySettings(name, url, headers, resource, given.ratio(), given.propagates)


def start_telemetry(
    *, registry: object = None, environ: Mapping[str, str] | None = None
) -> Callable[[], None]:
    """Turn telemetry on where the variables ask for it. The first call of a process counts.

    Args:
        registry: the `prometheus_client` registry its own metrics are read from.
        environ: instead of the process environment.

    Returns:
        What sends the last spans and turns it off, where this call turned it on. Without the extra
        `otel` it does not, and a warning says so.

    Raises:
        ConfigurationError: see `load_telemetry`.
    """
    settings = load_telemetry(environ)
    if settings is None or SWITCH.setup is not None:
        return _nothing  # whoever was first ends it
    on = setup_telemetry(
        settings.service_name,
        otlp_endpoint=settings.url,
        otlp_headers=settings.headers,
        service_version=settings.resource.get("service.version") or version("headgate"),
        resource_attributes={_INSTANCE: str(uuid4()), **settings.resource},
        sample_ratio=settings.ratio,
        registry=registry,
        propagate_upstream=settings.propagate_upstream,
    )
    return shutdown_telemetry if on else _nothing


def _nothing() -> None:
    """There is nothing to end."""


class _Given:
    """The variables that are set: an empty one is not, by the specification."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    @property
    def is_off(self) -> bool:
        """Whether somebody says that nothing is to be traced."""
        disabled = self[_DISABLED]
        try:
            off = bool(disabled) and boolean(disabled)
        except ValueError as allowed:
            raise _wrong(_DISABLED, str(allowed)) from None
        exporter = self[_EXPORTER].lower() or "otlp"
        if exporter not in ("otlp", "none"):
            raise _wrong(_EXPORTER, "otlp or none")
        return off or exporter == "none" or self[_SAMPLER].lower() == _NEVER

    def url(self) -> str | None:
        """Where spans go, if the variables say it."""
        for name in _PROTOCOLS:
            if self[name].lower() not in ("", _HTTP):
                raise _wrong(name, f"{_HTTP} alone; of a collector that is its port 4318")
        if self[_TRACES]:
            return self._checked(_TRACES, self[_TRACES])
        if self[_BASE]:
            return self._checked(_BASE, self[_BASE].rstrip("/") + _PATH)
        return _DEFAULT_ENDPOINT + _PATH if self[_EXPORTER] else None

    def ratio(self) -> float:
        """The share of traces that is kept."""
        sampler = self[_SAMPLER].lower() or "parentbased_always_on"
        if sampler not in _SAMPLERS:
            raise _wrong(_SAMPLER, f"{', '.join(_SAMPLERS)} or {_NEVER}")
        share = _SAMPLERS[sampler]
        if share is not None:
            return share
        try:
            asked = float(self[_SHARE] or _ALL)
        except ValueError:
            asked = -1.0
        if not 0 <= asked <= 1:
            raise _wrong(_SHARE, "a number from 0 to 1")
        return asked

    @property
    def propagates(self) -> bool:
        """Whether requests to upstreams carry the trace: unless other propagators are asked for."""
        asked = self[_PROPAGATORS].lower()
        return not asked or "tracecontext" in [one.strip() for one in asked.split(",")]

    def pairs(self, *names: str) -> dict[str, str]:
        """The first variable that is set, read as `name=value` pairs, percent-encoded."""
        for name in names:
            if not self[name]:
                continue
            found = {}
            for pair in filter(None, (one.strip() for one in self[name].split(","))):
                key, equals, value = pair.partition("=")
                if not equals or not key.strip():
                    raise _wrong(name, "pairs such as name=value,other=value")
                found[unquote(key.strip())] = unquote(value.strip())
            return found
        return {}

    @staticmethod
    def _checked(name: str, url: str) -> str:
        try:
            return traces_url(url)
        except ConfigurationError as error:
            reason = error.message.replace("otlp_endpoint", name)
            raise ConfigurationError(reason) from None


def _wrong(variable: str, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{variable} takes {allowed}.")
