"""Quantiles of any number of values in little memory, with a bounded relative error, mergeable.

A value falls into a bucket of a geometric series, so a quantile read back is within one per cent of the
true one whatever the distribution (Masson, Rim, Lee: "DDSketch", VLDB 2019). Two sketches of parts are
the sketch of the whole; inserting costs one logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

__all__ = ["ACCURACY", "Sketch"]

ACCURACY = 0.01
"""Largest relative error of a quantile."""

MOST_BUCKETS = 2048
"""Beyond that the lowest are merged: 2048 buckets of one per cent span more than seventeen decades."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_PER_E = 1 / math.log(_GAMMA)
_NO_MORE = 1 - 1e-12
"""Takes off what a product of floats is too large by: 0.07 of 100 values is the 7th, not the 8th."""


class Sketch:
    """Counts by magnitude. Values are zero or above."""

    __slots__ = ("_counts", "_zeros", "count", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._zeros = 0
        self.count = 0
        self.total = 0.0
        self.minimum = math.inf
        self.maximum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value. Raises `ValueError` for one below zero or not finite."""
        if not 0 <= value < math.inf:
            raise ValueError(f"a sketch takes finite values from 0 on, not {value}")
        self.count += times
        self.total += value * times
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)
        if value < 1e-9:
            self._zeros += times
            return
        bucket = math.ceil(math.log(value) * _PER_E)
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0) + times
        if len(counts) > MOST_BUCKETS:
            self._merge_lowest()

    def merge(self, other: Sketch) -> None:
        """Add everything another sketch has counted."""
        for bucket, times in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + times
        while len(self._counts) > MOST_BUCKETS:
            self._merge_lowest()
        self._zeros += other._zeros
        self.count += other.count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least a share of all values does not exceed; None without values.

        That is the nearest rank: of few values a high quantile is the largest, not one below it.

        Raises:
            ValueError: `share` is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a quantile's share lies between 0 and 1, not at {share}")
        if self.count == 0:
            return None
        rank = max(1, math.ceil(share * self.count * _NO_MORE))
        if rank >= self.count:
            return self.maximum
        seen = self._zeros
        if rank <= seen:
            return self.minimum
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if rank <= seen:
                value = 2 * _GAMMA**bucket / (_GAMMA + 1)
                return min(max(value, self.minimum), self.maximum)
        return self.maximum

    @property
    def mean(self) -> float | None:
        """The exact mean; None without values."""
        return self.total / self.count if self.count else None

    def dump(self) -> dict[str, object]:
        """As JSON may hold it; `load` reads it back."""
        return {
            "count": self.count,
            "total": self.total,
            "minimum": None if self.count == 0 else self.minimum,
            "maximum": self.maximum,
            "zeros": self._zeros,
            "counts": {str(bucket): times for bucket, times in self._counts.items()},
        }

    @classmethod
    def load(cls, dumped: Mapping[str, object]) -> Sketch:
        """A sketch that was dumped. Raises `ValueError` or `TypeError` for anything else."""
        counts = dumped["counts"]
        if not isinstance(counts, Mapping):
            raise TypeError("a dumped sketch holds its counts by bucket")
        sketch = cls()
        sketch._counts = {int(bucket): int(times) for bucket, times in counts.items()}
        sketch._zeros = int(str(dumped["zeros"]))
        sketch.count = int(str(dumped["count"]))
        sketch.total = float(str(dumped["total"]))
        minimum = dumped["minimum"]
        sketch.minimum = math.inf if minimum is None else float(str(minimum))
        sketch.maximum = float(str(dumped["maximum"]))
        return sketch

    @classmethod
    def of(cls, values: Iterable[float]) -> Sketch:
        """A sketch of some values."""
        sketch = cls()
        for value in values:
            sketch.add(value)
        return sketch

    def _merge_lowest(self) -> None:
        lowest, next_lowest = sorted(self._counts)[:2]
        self._counts[next_lowest] += self._counts.pop(lowest)
