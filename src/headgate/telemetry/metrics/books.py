"""The counts themselves. A child is looked up once for its labels and kept: counting is then adding.

Nothing here needs prometheus-client: it reads these books when somebody asks.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import Lock
from typing import Any, Generic, TypeVar

from headgate.telemetry.metrics.family import MOST_CHILDREN, Family, Label, Merge, Shape

__all__ = ["Book", "Cell", "Labels", "Mark", "Sheet", "Shelf", "Spread", "mark_of"]

Labels = tuple[str, ...]

Mark = tuple[tuple[tuple[str, str], ...], float, float]
"""What an exemplar holds: its labels, the value, and Unix seconds (0: unknown)."""

LONGEST_ID = 64
"""Characters of a request's id in an exemplar: OpenMetrics gives all its labels 128 together."""


def mark_of(ids: tuple[int, int] | None, request_id: str, value: float, at: float) -> Mark | None:
    """What leads to a request: its trace and span, else its id; None where that is missing or long.

    Args:
        ids: of a trace and a span that are kept.
        at: Unix seconds.
    """
    if ids is not None:
        return (("trace_id", f"{ids[0]:032x}"), ("span_id", f"{ids[1]:016x}")), value, at
    fits = 0 < len(request_id) <= LONGEST_ID
    return ((("request_id", request_id),), value, at) if fits else None


class Cell:
    """One number. Add to `value` while holding the lock of whoever owns it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Spread:
    """One histogram. `see` is called while holding the lock of whoever owns it.

    Attributes:
        bounds: upper bounds of the buckets.
        counts: observations in each bucket alone; the last is beyond every bound.
        total: the sum of what was observed.
        latest: the last observation in each bucket that had something to tell it by.
    """

    __slots__ = ("bounds", "counts", "latest", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.latest: list[Any] = [None] * (len(bounds) + 1)
        self.total = 0.0

    def see(self, value: float, mark: object = None) -> None:
        """Count an observation.

        Args:
            mark: what to tell it by; what has not become a `Mark` by the time of `buckets` is not told.
        """
        place = bisect_left(self.bounds, value)
        self.counts[place] += 1
        self.total += value
        if mark is not None:
            self.latest[place] = mark

    def buckets(self) -> Iterator[tuple[str, int, Mark | None]]:
        """Upper bound, observations up to it, and an exemplar, of each bucket."""
        reached = 0
        bounds = [*map(_shown, self.bounds), "+Inf"]
        for bound, inside, mark in zip(bounds, self.counts, self.latest, strict=True):
            reached += inside
            yield bound, reached, mark if isinstance(mark, tuple) else None


C = TypeVar("C", Cell, Spread)


class Book(Generic[C]):
    """The children of one family, at most `MOST_CHILDREN`. Threads may share it.

    Args:
        family: of the catalogue.
        make: a child.
        lock: held while children are added; whoever counts may use the same.
    """

    def __init__(self, family: Family, make: Callable[[], C], lock: Lock) -> None:
        self.family = family
        self._make: Callable[[], C] = make
        self._lock = lock
        self._children: dict[Labels, C] = {}
        self._seen: list[set[str]] = [set() for _ in family.labels]
        bare = not family.labels and family.shape in (Shape.COUNTER, Shape.HISTOGRAM)
        for labels in family.known or (((),) if bare else ()):
            self._children[labels] = make()

    def __len__(self) -> int:
        return len(self._children)

    def child(self, *labels: str) -> C:
        """The child with these labels, made the first time; values that have no room are `other`.

        Raises:
            ValueError: the family has more labels, or fewer.
        """
        if len(labels) != len(self._seen):
            raise ValueError(f"{self.family.name} takes {self.family.label_names}; got {len(labels)}")
        found = self._children.get(labels)
        if found is not None:
            return found
        with self._lock:
            held = tuple(map(self._hold, self.family.labels, self._seen, labels))
            if held not in self._children and len(self._children) >= MOST_CHILDREN:
                held = tuple(map(_folded, self.family.labels, held))
            found = self._children.get(held)
            if found is None:
                found = self._children[held] = self._make()
            return found

    def children(self) -> list[tuple[Labels, C]]:
        """All of them, sorted by their labels."""
        with self._lock:
            return sorted(self._children.items(), key=lambda item: item[0])

    @staticmethod
    def _hold(label: Label, seen: set[str], value: str) -> str:
        if label.values or value in seen:
            return label.hold(value)
        if len(seen) >= label.most or not value:
            return label.other
        seen.add(value)
        return value


def _folded(label: Label, value: str) -> str:
    """The family is full: what is only bounded becomes `other`, what is closed stays."""
    return value if label.values else label.other


class Shelf:
    """The books of all families. Threads may share it."""

    def __init__(self, families: Iterable[Family]) -> None:
        making = Lock()  # held while children are made, never while something is counted
        self._cells: dict[str, Book[Cell]] = {}
        self._spreads: dict[str, Book[Spread]] = {}
        for family in families:
            if family.shape is Shape.HISTOGRAM:
                make = partial(Spread, family.buckets)
                self._spreads[family.name] = Book(family, make, making)
            else:
                self._cells[family.name] = Book(family, Cell, making)

    def cell(self, name: str, *labels: str) -> Cell:
        """The number of a counter or gauge with these labels. Raises `KeyError` for no family of it."""
        return self._cells[name].child(*labels)

    def spread(self, name: str, *labels: str) -> Spread:
        """The histogram with these labels. Raises `KeyError` for no family of it."""
        return self._spreads[name].child(*labels)

    def cells(self, name: str) -> list[tuple[Labels, Cell]]:
        """All numbers of a family, sorted by their labels."""
        return self._cells[name].children()

    def spreads(self, name: str) -> list[tuple[Labels, Spread]]:
        """All histograms of a family, sorted by their labels."""
        return self._spreads[name].children()


_MERGES: dict[Merge, Callable[[float, float], float]] = {
    Merge.SUM: lambda a, b: a + b,
    Merge.MAX: max,
    Merge.MIN: min,
}


_OF_SHAPE = {Shape.COUNTER: Merge.SUM, Shape.INFO: Merge.MAX}


class Sheet:
    """What is read at a scrape, of state that others keep. Values told twice become one, as the family
    says: two engines of one provider are one to whoever looks."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = {family.name: family for family in families}
        self._values: dict[str, dict[Labels, float]] = {}

    def put(self, name: str, value: float, *labels: str) -> None:
        """A value of a family. Raises `KeyError` for one that the catalogue does not have."""
        family = self._families[name]
        rows = self._values.setdefault(name, {})
        held = tuple(label.hold(text) for label, text in zip(family.labels, labels, strict=True))
        if held not in rows and len(rows) >= MOST_CHILDREN:
            held = tuple(map(_folded, family.labels, held))
        before = rows.get(held)
        merge = _OF_SHAPE.get(family.shape, family.merge)
        rows[held] = value if before is None else _MERGES[merge](before, value)

    def rows(self, name: str) -> list[tuple[Labels, float]]:
        """What was told of a family, sorted by its labels."""
        return sorted(self._values.get(name, {}).items())

    def values(self, name: str) -> list[float]:
        """The values alone."""
        return list(self._values.get(name, {}).values())


def _shown(bound: float) -> str:
    """As Prometheus writes a bound: always as a float."""
    return "+Inf" if math.isinf(bound) else repr(float(bound))
