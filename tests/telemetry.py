"""Telemetry that is on for one test: spans and metrics in memory, nothing global left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler

from headgate.telemetry import setup_telemetry, shutdown_telemetry

__all__ = ["UNSAMPLED", "Seen", "telemetry"]

SAMPLED = ParentBased(ALWAYS_ON)
UNSAMPLED = ParentBased(ALWAYS_OFF)


class Seen:
    """What was traced and counted."""

    def __init__(self, sampler: Sampler) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Finished spans, in the order they ended."""
        return list(self.exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        """The one finished span."""
        (span,) = self.spans
        return span

    def tree(self) -> list[tuple[str, list[str]]]:
        """Roots and the names of their children, by when they began."""
        ordered = sorted(self.spans, key=lambda span: span.start_time or 0)
        children: dict[int, list[str]] = {}
        for span in ordered:
            if span.parent is not None:
                children.setdefault(span.parent.span_id, []).append(span.name)
        roots = [span for span in ordered if span.parent is None]
        return [(root.name, children.get(root.context.span_id, [])) for root in roots]  # type: ignore[union-attr]

    def points(self) -> dict[str, list[Any]]:
        """Data points by metric."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def telemetry(sampler: Sampler = SAMPLED, **settings: Any) -> Iterator[Seen]:
    """Telemetry is on within."""
    seen = Seen(sampler)
    assert setup_telemetry(
        "tests", tracer_provider=seen.tracers, meter_provider=seen.meters, **settings
    )
    try:
        yield seen
    finally:
        shutdown_telemetry()
        seen.tracers.shutdown()
        seen.meters.shutdown()
