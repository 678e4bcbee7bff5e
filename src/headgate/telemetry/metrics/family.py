"""Words of the catalogue: what a family of metrics is called, counts, and may be labelled with.

A label is closed (its values are listed) or bounded (so many values, then `other`): nothing that a
caller sends can make a series of its own.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

__all__ = ["MOST_CHILDREN", "OTHER", "Category", "Family", "Feeder", "Label", "Merge", "Shape"]

OTHER = "other"
"""What stands for a value that has no series of its own."""

MOST_CHILDREN = 1000
"""Label sets of one family in one process; what comes beyond is counted under `other`."""


class Shape(StrEnum):
    """What Prometheus calls the type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Merge(StrEnum):
    """What becomes of the values that several workers of one gateway give for the same series.

    Counters and histograms are always summed, those of workers that ended too. Gauges are taken of
    workers that live.
    """

    SUM = "sum"  # each has its own part: calls under way, calls that wait
    MAX = "max"  # all see the same thing, or the worst counts: the shared ledger, a bound
    MIN = "min"  # the least counts: room that is left, whether a store answers


class Category(StrEnum):
    """What a family is about; the reference has a section for each."""

    CALLS = "calls"
    QUOTA = "quota"
    KEYS = "keys"
    TOKENS = "tokens and cost"
    CACHE = "cache"
    PROTECTION = "protection and queues"
    STORE = "stores and the usage ledger"
    INBOUND = "inbound limits"
    PROCESS = "process"
    HTTP = "HTTP"
    GEMINI = "Gemini API"
    CONTENT = "content and its quality"
    ERRORS = "errors"


class Feeder(StrEnum):
    """Which part says it, and so where it is exported."""

    ENGINE = "engine"  # records of attempts and calls, and what an engine knows at the moment
    GATEWAY = "gateway"  # the server of `headgate serve`
    LIMITS = "limits"  # inbound limits
    CLAUDE = "claude"  # `ClaudeRateLimiter.record_usage`
    CONTENT = "content"  # the content service
    LEDGER = "ledger"  # the usage ledger's store
    OTEL = "otel"  # instruments of OpenTelemetry, while telemetry is on


class Label(Struct, frozen=True):
    """A label of a family.

    Attributes:
        name: of the label.
        values: all it can hold, where that is closed.
        most: how many values it can hold besides `other`, where it is bounded.
        other: what stands for everything else.
    """

    name: str
    values: tuple[str, ...] = ()
    most: int = 0
    other: str = OTHER

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.most):
            raise ValueError(f"label {self.name} is closed or bounded, and not both")

    def hold(self, value: str) -> str:
        """The value if the label lists it, or is only bounded; else what stands for it."""
        return value if not self.values or value in self.values else self.other


class Family(Struct, frozen=True):
    """A family of metrics.

    Attributes:
        name: as Prometheus shows it; a counter's ends in `_total`.
        help: one sentence for whoever meets it on a dashboard.
        labels: in order.
        unit: `seconds`, `bytes`, `usd`, `ratio`, `percent`, or empty for a plain count.
        buckets: upper bounds of a histogram, in the unit, without infinity.
        merge: of a gauge, over workers.
        known: label sets that exist at 0 from the start.
        twin: the canonical family or rule that says it properly, of a name kept for compatibility.
        note: what a reader must know beyond the help.
    """

    name: str
    shape: Shape
    help: str
    category: Category
    feeder: Feeder
    labels: tuple[Label, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM
    known: tuple[tuple[str, ...], ...] = ()
    twin: str = ""
    note: str = ""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of the labels, in order."""
        return tuple(label.name for label in self.labels)

    @property
    def root(self) -> str:
        """The name without the ending that its samples get: `_total` of a counter, `_info`."""
        endings = {Shape.COUNTER: "_total", Shape.INFO: "_info"}
        return self.name.removesuffix(endings.get(self.shape, ""))
