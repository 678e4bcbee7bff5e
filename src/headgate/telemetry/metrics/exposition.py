"""What a scrape gets: Prometheus text 0.0.4, or OpenMetrics 1.0 with exemplars, by what it accepts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client import Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

__all__ = ["OPENMETRICS", "PLAIN", "Readable", "exposed"]

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_CREATED = "_created"


class Readable(Protocol):
    """A registry, or what is collected like one."""

    def collect(self) -> Iterable[Metric]:
        """The families as they stand now."""


class _Shown:
    """Families without the `_created` series, which double what Prometheus stores and say little."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families: Sequence[Metric] = list(families)

    def collect(self) -> Sequence[Metric]:
        for family in self._families:
            family.samples = [s for s in family.samples if s.name != f"{family.name}{_CREATED}"]
        return self._families


def exposed(source: Readable, accept: str = "") -> tuple[bytes, str]:
    """The families as text, and its content type.

    Args:
        accept: as a scrape says it. OpenMetrics is given where it is liked at least as well as text.
    """
    shown = _Shown(source.collect())
    if _likes_openmetrics(accept):
        text: bytes = generate_openmetrics(shown)  # type: ignore[no-untyped-call]
        return text, OPENMETRICS
    text = generate_latest(shown)
    return text, PLAIN


def _likes_openmetrics(accept: str) -> bool:
    likes = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for range_ in accept.split(","):
        kind, *parameters = (part.strip() for part in range_.split(";"))
        if kind in likes:
            likes[kind] = max(likes[kind], _quality(parameters))
    openmetrics, plain = likes.values()
    return openmetrics > 0 and openmetrics >= plain


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
