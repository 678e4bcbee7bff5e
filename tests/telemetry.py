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
from headgate.telemetry.span_catalogue import entry_of

__all__ = ["UNSAMPLED", "Seen", "telemetry", "uncatalogued"]

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


def uncatalogued(span: ReadableSpan) -> list[str]:
    """What a span of ours has that its entry of the catalogue has not; nothing, if all is written
    down."""
    scope = span.instrumentation_scope
    if scope is None or scope.name != "headgate":
        return []
    entry = entry_of(span.name, span.kind.name)
    if entry is None:
        return [span.name]
    events = {event.name: {one.name for one in event.attributes} for event in entry.events}
    odd = [event.name for event in span.events if event.name not in events and not entry.is_open]
    for event in span.events:
        if event.name in events:
            odd += sorted(set(event.attributes or {}) - events[event.name])
    if not entry.is_open:
        odd += sorted(set(span.attributes or {}) - {one.name for one in entry.attributes})
    return [f"{span.name}: {name}" for name in odd]


@contextmanager
def telemetry(sampler: Sampler = SAMPLED, **settings: Any) -> Iterator[Seen]:
    """Telemetry is on within. All that was exported stands in the catalogue of spans."""
    seen = Seen(sampler)
    assert setup_telemetry(
        "tests", tracer_provider=seen.tracers, meter_provider=seen.meters, **settings
    )
    try:
        yield seen
        assert [odd for span in seen.spans for odd in uncatalogued(span)] == []
    finally:
        shutdown_telemetry()
        seen.tracers.shutdown()
        seen.meters.shutdown()
