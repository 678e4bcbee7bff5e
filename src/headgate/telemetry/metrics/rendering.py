"""Families of the catalogue as prometheus-client has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from headgate.telemetry.metrics.books import Labels, Mark, Spread
from headgate.telemetry.metrics.family import Family, Shape

__all__ = ["empty", "with_spreads", "with_values"]

_KINDS: dict[Shape, Any] = {
    Shape.COUNTER: CounterMetricFamily,
    Shape.GAUGE: GaugeMetricFamily,
    Shape.HISTOGRAM: HistogramMetricFamily,
    Shape.INFO: InfoMetricFamily,
}


def empty(family: Family) -> Any:
    """The family without samples. Its unit is told where the name ends in it, as OpenMetrics asks."""
    kind = _KINDS[family.shape]
    told = {"unit": family.unit} if family.unit and family.root.endswith(f"_{family.unit}") else {}
    return kind(family.root, family.help, labels=family.label_names, **told)


def with_values(family: Family, rows: Iterable[tuple[Labels, float]]) -> Metric:
    """A counter, gauge or info with samples; of an info the labels are what it tells."""
    made = empty(family)
    for labels, value in rows:
        if family.shape is Shape.INFO:
            made.add_sample(family.name, dict(zip(family.label_names, labels, strict=True)), value)
        else:
            made.add_metric(labels, value)
    found: Metric = made
    return found


def with_spreads(family: Family, rows: Iterable[tuple[Labels, Spread]]) -> Metric:
    """A histogram with samples, and with exemplars where there are any."""
    made = empty(family)
    for labels, spread in rows:
        buckets = [
            (bound, count) if mark is None else (bound, count, _exemplar(mark))
            for bound, count, mark in spread.buckets()
        ]
        made.add_metric(labels, buckets, spread.total)
    found: Metric = made
    return found


def _exemplar(mark: Mark) -> Exemplar:
    labels, value, at = mark
    return Exemplar(dict(labels), value, round(at, 3) if at else None)
