"""The OpenTelemetry SDK: providers of tracers and meters, made as `setup_telemetry` was told."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.core.errors import ConfigurationError
from headgate.telemetry.metering import counts_requests
from headgate.telemetry.of_registry import bridge

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["DURATION_BOUNDS", "Plan", "Providers", "provider_is_set"]

_log = logging.getLogger("headgate.telemetry")

_MILLISECONDS = (5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000,
                 20_000, 40_000, 80_000, 160_000)  # fmt: skip

DURATION_BOUNDS = {"ms": _MILLISECONDS, "s": tuple(bound / 1000 for bound in _MILLISECONDS)}
"""Upper bounds of durations by their unit. Those that OpenTelemetry advises for HTTP (semantic
conventions 1.44) end at 10 s; answers of models take longer."""

FLUSH_SECONDS = 3.0
"""How long the last spans may take to be sent."""

_CUT_SECONDS = 0.5


class Providers(NamedTuple):
    """Where spans and metrics go.

    Attributes:
        end: ends what was made here.
        keeps: whether a trace that begins now is sampled; None: only the tracer knows.
    """

    tracers: TracerProvider
    meters: MeterProvider
    end: Callable[[], None]
    keeps: Callable[[], bool] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What providers are made from.

    Attributes:
        resource: facts about the service.
        url: where spans go; None: nowhere.
        ratio: which share of the traces that begin here is kept.
        registry: where metrics are read; None: the default one of prometheus_client.
        tracers, meters: to use instead of new ones.

    Raises:
        ConfigurationError: the ratio is no share.
    """

    resource: Mapping[str, str]
    url: str | None
    headers: Mapping[str, str] = field(repr=False)
    ratio: float
    registry: object
    tracers: TracerProvider | None = None
    meters: MeterProvider | None = None

    def __post_init__(self) -> None:
        ratio: object = self.ratio  # of a user's own making
        good = isinstance(ratio, int | float) and not isinstance(ratio, bool) and 0 <= ratio <= 1
        if not good:
            raise ConfigurationError(f"sample_ratio takes a number from 0 to 1; got {ratio!r}.")

    def providers(self) -> Providers:
        """Providers, and what ends those that were made here.

        The process's own are used where it has some, for they can be set only once; new ones become the
        process's. Raises `ImportError` without the SDK, and `ConfigurationError`.
        """
        ends: list[Callable[[], object]] = []
        target = None if self.meters is not None else _registry(self.registry)
        tracers = self.tracers or self._tracers(ends)
        meters = self.meters or self._meters(ends, target)

        def end() -> None:
            while ends:
                ends.pop()()

        sampler = getattr(getattr(tracers, "sampler", None), "_root", None)
        return Providers(tracers, meters, end, getattr(sampler, "keeps", None))

    def _tracers(self, ends: list[Callable[[], object]]) -> TracerProvider:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider as Provider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased  # noqa: PLC0415

        from headgate.telemetry.sampling import EarlyRatio  # noqa: PLC0415

        existing = trace.get_tracer_provider()
        if isinstance(existing, Provider):
            _log.debug("the process has a tracer provider: spans go where it sends them")
            return existing
        sampler = ParentBased(EarlyRatio(self.ratio))
        made = Provider(resource=Resource.create(dict(self.resource)), sampler=sampler)
        if self.url is not None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )

            exporter = OTLPSpanExporter(endpoint=self.url, headers=dict(self.headers))
            made.add_span_processor(BatchSpanProcessor(exporter))
            ends.append(lambda: _flushed(made, exporter))
        else:
            ends.append(made.shutdown)
        trace.set_tracer_provider(made)
        return made

    def _meters(self, ends: list[Callable[[], object]], target: Any) -> MeterProvider:
        from opentelemetry import metrics  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.metrics import Histogram  # noqa: PLC0415
        from opentelemetry.sdk.metrics import MeterProvider as Provider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415
        from opentelemetry.sdk.metrics.view import (  # noqa: PLC0415
            ExplicitBucketHistogramAggregation,
            View,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

        existing = metrics.get_meter_provider()
        if isinstance(existing, Provider):
            _log.debug("the process has a meter provider: metrics are read where it says")
            return existing
        readers = []
        if target is not None:
            from headgate.telemetry.registry import OtelCollector  # noqa: PLC0415 - an extra

            reader = InMemoryMetricReader()
            collector = OtelCollector(reader.get_metrics_data)
            target.register(collector)
            bridge(target, counts_requests)
            ends.append(lambda: target.unregister(collector))
            ends.append(lambda: bridge(target, None))
            readers.append(reader)
        views = [
            View(
                instrument_type=Histogram,
                instrument_unit=unit,
                aggregation=ExplicitBucketHistogramAggregation(boundaries=bounds),
            )
            for unit, bounds in DURATION_BOUNDS.items()
        ]
        made = Provider(readers, resource=Resource.create(dict(self.resource)), views=views)
        ends.append(made.shutdown)
        metrics.set_meter_provider(made)
        return made


def provider_is_set() -> bool:
    """Whether the process has a tracer provider, as `opentelemetry-instrument` gives it one."""
    module = sys.modules.get("opentelemetry.sdk.trace")  # nobody has one who has not imported it
    if module is None:
        return False
    from opentelemetry import trace  # noqa: PLC0415 - only where it is there anyway

    return isinstance(trace.get_tracer_provider(), module.TracerProvider)


def _flushed(provider: Any, exporter: Any) -> None:
    """Send what waits, within bounds: left to itself, an exporter tries a collector that is gone for
    ten seconds with each batch, and whoever ended the process would kill it meanwhile."""
    ending = Thread(target=provider.shutdown, name="headgate-last-spans", daemon=True)
    ending.start()
    ending.join(FLUSH_SECONDS)
    if ending.is_alive():
        exporter.shutdown()  # ends its waits between tries; a connection that hangs is left behind
        ending.join(_CUT_SECONDS)


def _registry(given: object) -> Any:
    """Where metrics are read; None without the extra `metrics`, when they count for nobody."""
    try:
        from prometheus_client import REGISTRY, CollectorRegistry  # noqa: PLC0415 - an extra
    except ImportError:
        _log.warning("metrics are not shown: prometheus_client is missing; install headgate[metrics]")
        return None
    if given is None:
        return REGISTRY
    if not isinstance(given, CollectorRegistry):
        raise ConfigurationError(f"registry takes a CollectorRegistry; got {type(given).__name__}.")
    return given
