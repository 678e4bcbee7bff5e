"""OpenTelemetry's metrics in a Prometheus registry, under the names its specification gives them.

    counter cak.requests              →  cak_requests_total
    histogram cak.duration in ms      →  cak_duration_milliseconds_bucket, _sum, _count
    gauge cak.depth                   →  cak_depth

Read at scrape time. Two instruments whose names become one are one family, which is printed once: the
second is left out, and the log says so. OpenTelemetry's own exporter prints both, which Prometheus
refuses to read, and is a beta (0.66b); that is why this is here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

__all__ = ["OtelCollector", "family_name"]

_log = logging.getLogger("headgate.telemetry")

# As the specification translates units ("Prometheus and OpenMetrics compatibility", 1.44).
_UNITS = {
    "ms": "milliseconds", "s": "seconds", "us": "microseconds", "ns": "nanoseconds", "min": "minutes",
    "h": "hours", "d": "days", "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "%": "percent",
}  # fmt: skip
_ODD = re.compile(r"[^a-zA-Z0-9_:]+")
_ANNOTATION = re.compile(r"\{[^}]*\}")


class OtelCollector:
    """A Prometheus collector over what a meter provider has counted.

    Args:
        read: `InMemoryMetricReader.get_metrics_data`.
    """

    def __init__(self, read: Callable[[], MetricsData | None]) -> None:
        self._read = read
        self._refused: set[str] = set()

    def describe(self) -> Iterator[Metric]:
        """Nothing: which instruments there will be is not known before they are used."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every family as it stands now."""
        data = self._read()
        families: dict[str, tuple[str, Any]] = {}
        for metric in _metrics(data):
            name = family_name(metric.name, metric.unit)
            made = families.get(name)
            if made is not None and made[0] != metric.name:
                self._refuse(metric.name, made[0], name)
                continue
            points = list(metric.data.data_points)
            labels = sorted({str(key) for point in points for key in point.attributes or ()})
            family = _family(name, metric, labels) if made is None else made[1]
            if family is None:
                continue
            families[name] = (metric.name, family)
            for point in points:
                _add(family, point, labels)
        return iter([family for _, family in families.values()])

    def _refuse(self, name: str, other: str, family: str) -> None:
        if name not in self._refused:
            self._refused.add(name)
            _log.warning("metric %s is not shown: %s is %s already", name, other, family)


def family_name(name: str, unit: str) -> str:
    """The name of a metric in Prometheus, without the `_total` that a counter's gets."""
    word = _UNITS.get(_ANNOTATION.sub("", unit), "")
    plain = _ODD.sub("_", name).strip("_")
    if plain[:1].isdigit():
        plain = f"_{plain}"
    plain = plain.removesuffix("_total")
    return plain if not word or plain.endswith(f"_{word}") else f"{plain}_{word}"


def _metrics(data: MetricsData | None) -> Iterable[Any]:
    for resource in () if data is None else data.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def _family(name: str, metric: Any, labels: list[str]) -> Any:
    """A family of the metric's kind; None for a kind that Prometheus has no word for."""
    text = metric.description or metric.name
    names = [_ODD.sub("_", label) for label in labels]
    kind = type(metric.data).__name__
    if kind == "Histogram":
        return HistogramMetricFamily(name, text, labels=names)
    if kind == "Sum" and metric.data.is_monotonic:
        return CounterMetricFamily(name, text, labels=names)
    return GaugeMetricFamily(name, text, labels=names) if kind in ("Sum", "Gauge") else None


def _add(family: Any, point: Any, labels: list[str]) -> None:
    attributes: Mapping[str, Any] = point.attributes or {}
    values = [_text(attributes.get(label)) for label in labels]
    if not isinstance(family, HistogramMetricFamily):
        family.add_metric(values, point.value)
        return
    buckets, count = [], 0
    bounds = [*(f"{float(bound):g}" for bound in point.explicit_bounds), "+Inf"]
    for bound, inside in zip(bounds, point.bucket_counts, strict=True):
        count += inside
        buckets.append((bound, count))
    family.add_metric(values, buckets, point.sum)


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
