"""Two sets of books on one run, the client's and the upstream's. They must agree key by key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headgate.emulator import Counts, Report

__all__ = ["Books", "Row", "compare"]

_QUOTAS = ("rpm", "tpm", "rpd")


@dataclass(frozen=True, slots=True)
class Row:
    """What one side says of a key, or of all of them."""

    requests: int
    answered: int
    refused_for_quota: int

    def __add__(self, other: Row) -> Row:
        return Row(
            self.requests + other.requests,
            self.answered + other.answered,
            self.refused_for_quota + other.refused_for_quota,
        )

    def to_dict(self) -> dict[str, int]:
        """JSON-able."""
        return {
            "requests": self.requests,
            "answered": self.answered,
            "refused_for_quota": self.refused_for_quota,
        }


@dataclass(frozen=True, slots=True)
class Books:
    """Both sides' sums, and a sentence for each difference."""

    client: Row
    upstream: Row
    differences: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Whether they say the same of every key."""
        return not self.differences

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "agree": self.agree,
            "client": self.client.to_dict(),
            "emulator": self.upstream.to_dict(),
            "differences": list(self.differences),
        }


def compare(metrics: dict[str, Any], report: Report) -> Books:
    """The client's metrics against the upstream's report."""
    ours = {key["name"]: _our_row(key["metrics"]) for key in metrics["keys"]}
    theirs = {
        name: _their_row(key.totals)
        for project in report.projects.values()
        for name, key in project.keys.items()
    }
    nothing = Row(0, 0, 0)
    differences = [
        f"{name}: the client says {ours.get(name, nothing)}, the emulator {theirs.get(name, nothing)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name, nothing) != theirs.get(name, nothing)
    ]
    if report.unknown.requests:
        differences.append(f"{report.unknown.requests} requests came with a key nobody knows")
    return Books(sum(ours.values(), nothing), sum(theirs.values(), nothing), tuple(differences))


def _our_row(metrics: dict[str, Any]) -> Row:
    return Row(metrics["total_requests"], metrics["successful_requests"], metrics["quota_errors"])


def _their_row(counts: Counts) -> Row:
    quota = sum(counts.refused.get(name, 0) for name in _QUOTAS)
    return Row(counts.requests, counts.answered, quota)
