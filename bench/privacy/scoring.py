"""Precision and recall by kind: a find counts if it overlaps a labelled piece of its kind by half."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from headgate.policy.privacy.recognise import find

__all__ = ["Document", "Scores", "score", "score_found"]

_OVERLAP = 0.5
"""Of the longer of the two."""


class Document(NamedTuple):
    """A text and its labels: start, stop, kind."""

    text: str
    spans: Sequence[tuple[int, int, str]]


class Scores:
    """Hits, false alarms and misses by kind."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.alarms: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        self.bytes = 0
        self.seconds = 0.0

    def add(self, document: Document) -> None:
        """Look through one document."""
        began = time.process_time()
        found = find(document.text)
        self.seconds += time.process_time() - began
        self.count(document, [(piece.start, piece.stop, piece.kind) for piece in found])

    def count(self, document: Document, found: Sequence[tuple[int, int, str]]) -> None:
        """Compare what was found in a document with its labels."""
        self.bytes += len(document.text.encode())
        met: set[int] = set()
        for begin, end, what in found:
            hit = None
            for number, (start, stop, kind) in enumerate(document.spans):
                longer = max(stop - start, end - begin)
                shared = min(stop, end) - max(start, begin)
                if kind == what and shared >= _OVERLAP * longer:
                    hit = number
            if hit is None:
                self.alarms[what] += 1
            else:
                self.hits[what] += 1
                met.add(hit)
        for number, (_, _, kind) in enumerate(document.spans):
            self.misses[kind] += number not in met

    def as_dict(self) -> dict[str, Any]:
        """The figures of a report."""
        kinds = sorted({*self.hits, *self.alarms, *self.misses})
        rows = {
            str(kind): _row(self.hits[kind], self.alarms[kind], self.misses[kind]) for kind in kinds
        }
        total = _row(self.hits.total(), self.alarms.total(), self.misses.total())
        precision, recall = total["precision"], total["recall"]
        f2 = 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0
        speed = self.bytes / max(self.seconds, 1e-9) / 1e6
        return {"kinds": rows, **total, "f2": f2, "mb_per_second": round(speed, 2)}


def score(documents: Sequence[Document]) -> Scores:
    """Look through all of them."""
    scores = Scores()
    for document in documents:
        scores.add(document)
    return scores


def score_found(
    documents: Sequence[Document], found: Sequence[Sequence[tuple[int, int, str]]], seconds: float
) -> Scores:
    """Compare what somebody else found, in so many seconds of CPU."""
    scores = Scores()
    for document, pieces in zip(documents, found, strict=True):
        scores.count(document, pieces)
    scores.seconds = seconds
    return scores


def _row(hits: int, alarms: int, misses: int) -> dict[str, float]:
    return {
        "n": hits + misses,
        "precision": hits / (hits + alarms) if hits + alarms else 1.0,
        "recall": hits / (hits + misses) if hits + misses else 1.0,
    }
