"""What one process has counted, as it is written down for others; and many of these made into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from prometheus_client import Metric
from prometheus_client.core import Exemplar

from headgate.telemetry.metrics.catalogue import BY_NAME
from headgate.telemetry.metrics.exposition import Readable
from headgate.telemetry.metrics.family import Merge

__all__ = ["Snapshot", "merged", "taken"]

_GAUGES = ("gauge", "unknown", "stateset")
_MERGES: dict[Merge, Callable[[float, float], float]] = {
    Merge.SUM: lambda a, b: a + b,
    Merge.MAX: max,
    Merge.MIN: min,
}

_Labels = tuple[tuple[str, str], ...]


class _Sample(msgspec.Struct, frozen=True, array_like=True):
    """Of an exemplar: its labels, value and time."""

    name: str
    labels: _Labels
    value: float
    exemplar: tuple[_Labels, float, float | None] | None = None


class _Family(msgspec.Struct, frozen=True, array_like=True):
    name: str
    kind: str
    help: str
    unit: str
    samples: tuple[_Sample, ...]


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """All families of a process at a moment.

    Attributes:
        of: the processes whose sum it is, where it is one: their own snapshots count no more.
    """

    families: tuple[_Family, ...] = ()
    of: tuple[str, ...] = ()

    def encoded(self) -> bytes:
        """As it is written down."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decoded(cls, written: bytes) -> Snapshot:
        """Raises `msgspec.MsgspecError` for what is no snapshot."""
        return msgspec.msgpack.decode(written, type=cls)

    def lasting(self) -> Snapshot:
        """What stays when its process ends: all but gauges."""
        return Snapshot(tuple(one for one in self.families if one.kind not in _GAUGES))


def taken(source: Readable) -> Snapshot:
    """What a registry has now."""
    return Snapshot(tuple(map(_family, source.collect())))


def merged(snapshots: Iterable[Snapshot]) -> Merged:
    """Several processes as one: counters and histograms summed, gauges as the catalogue says of each;
    of a gauge that is in no catalogue the largest."""
    sums: dict[str, _Sum] = {}
    for snapshot in snapshots:
        for family in snapshot.families:
            found = sums.get(family.name)
            if found is None:
                found = sums[family.name] = _Sum(family)
            if found.first.kind == family.kind:  # of another version, if not
                found.add(family.samples)
    return Merged([one.metric() for one in sums.values()])


class Merged:
    """Families of several processes; read like a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """The families."""
        return self._families

    def snapshot(self) -> Snapshot:
        """As one process would have written it."""
        return taken(self)


class _Sum:
    """One family over processes."""

    def __init__(self, first: _Family) -> None:
        self.first = first
        self._values: dict[tuple[str, _Labels], float] = {}
        self._exemplars: dict[tuple[str, _Labels], Any] = {}
        self._merge = _MERGES[_merge_of(first)]

    def add(self, samples: Iterable[_Sample]) -> None:
        for sample in samples:
            key = (sample.name, sample.labels)
            before = self._values.get(key)
            value = sample.value
            self._values[key] = value if before is None else self._merge(before, value)
            if sample.exemplar is not None:
                self._exemplars[key] = _newer(self._exemplars.get(key), sample.exemplar)

    def metric(self) -> Metric:
        first = self.first
        made = Metric(first.name, first.help, first.kind, first.unit)
        for key, value in self._values.items():
            name, labels = key
            exemplar = self._exemplars.get(key)
            shown = None if exemplar is None else Exemplar(dict(exemplar[0]), *exemplar[1:])
            made.add_sample(name, dict(labels), value, exemplar=shown)
        return made


def _merge_of(family: _Family) -> Merge:
    if family.kind == "info":
        return Merge.MAX  # each says 1
    if family.kind not in _GAUGES:
        return Merge.SUM
    known = BY_NAME.get(family.name)
    return Merge.MAX if known is None else known.merge


def _newer(one: Any, other: Any) -> Any:
    return other if one is None or (other[2] or 0.0) >= (one[2] or 0.0) else one


def _family(metric: Metric) -> _Family:
    samples = (
        _Sample(
            sample.name,
            tuple(sample.labels.items()),
            sample.value,
            None if sample.exemplar is None else _written(sample.exemplar),
        )
        for sample in metric.samples
    )
    return _Family(metric.name, metric.type, metric.documentation, metric.unit, tuple(samples))


def _written(exemplar: Exemplar) -> tuple[_Labels, float, float | None]:
    at = exemplar.timestamp
    return tuple(exemplar.labels.items()), exemplar.value, None if at is None else float(at)
