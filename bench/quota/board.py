"""The scoreboard: scores as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.quota.play import Score
from bench.quota.upstream import MECHANISMS, POOLS, Scene

__all__ = ["as_json", "as_markdown", "summary"]

_HEAD = "| " + " | ".join(
    ("upstream", "contender", "processes", "utilisation", "429s", "avoidable 429s",
     "answered of offered", "failed", "avoidable", "wait p50", "p99", "requests an answer")
) + " |"  # fmt: skip
_SUMMARY = "| " + " | ".join(
    ("contender", "processes", "overload: utilisation, lowest · mean", "429s", "avoidable failures",
     "below capacity: failed", "429s", "wait p50 · p99", "500 at once: tokens ÷ limit")
) + " |"  # fmt: skip
_HEADS = {"over": "Overload", "below": "Below capacity"}


def as_json(header: dict[str, str], notes: Sequence[str], scores: Sequence[Score]) -> str:
    content = {"environment": header, "notes": list(notes), "scores": [s.as_dict() for s in scores]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_markdown(header: dict[str, str], notes: Sequence[str], scores: Sequence[Score]) -> str:
    lines = [
        "# Quota scoreboard",
        "",
        "Written by `python -m bench.quota`; [how to read it](../README.md).",
    ]
    lines += ["", *(f"- {name}: {value}" for name, value in header.items())]
    lines += ["", "## In short", "", *summary(scores)]
    for load, head in _HEADS.items():
        for pool in POOLS:
            chosen = [s for s in scores if (s.load, s.pool) == (load, pool)]
            if chosen:
                rate = Scene(pool, "fixed", load, 1).rate
                lines += ["", f"## {head}: {rate:g} calls a minute on `{pool}`", "", *_table(chosen)]
    burst = [s for s in scores if s.pool == "burst"]
    if burst:
        lines += ["", f"## {burst[0].offered} calls at once on one key with a token limit", ""]
        lines += ["| contender | processes | answered | tokens admitted ÷ limit |", "|---|--:|--:|--:|"]
        lines += [f"| {s.contender} | {s.processes} | {s.answered} | {s.tokens:.2f} |" for s in burst]
    lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _table(scores: Sequence[Score]) -> list[str]:
    lines = [_HEAD, "|---|---" + "|--:" * 10 + "|"]
    for mechanism in MECHANISMS:
        rows = _merged([s for s in scores if s.mechanism == mechanism])
        lines += [f"| {mechanism} | {row.contender} | {row.cells()} |" for row in rows]
    return lines


def _merged(scores: Sequence[Score]) -> list[_Row]:
    """A row a contender; several seeds are added up, of waits and shares the mean is shown."""
    rows: dict[str, list[Score]] = {}
    for score in scores:
        rows.setdefault(score.contender, []).append(score)
    return [_Row(name, of) for name, of in rows.items()]


class _Row:
    def __init__(self, contender: str, scores: Sequence[Score]) -> None:
        self.contender = contender
        self.processes = max((s.processes for s in scores), default=1)
        self.offered = sum(s.offered for s in scores)
        self.answered = sum(s.answered for s in scores)
        self.failed = sum(s.failed for s in scores)
        self.avoidable = sum(s.avoidable for s in scores)
        self.refused = sum(s.refused for s in scores)
        self.foreseeable = sum(s.foreseeable for s in scores)
        self.requests = sum(s.requests for s in scores)
        self.utilisation = sum(s.utilisation for s in scores) / max(1, len(scores))
        self.lowest = min((s.utilisation for s in scores), default=0.0)
        self.wait_p50 = sum(s.wait_p50 for s in scores) / max(1, len(scores))
        self.wait_p99 = max((s.wait_p99 for s in scores), default=0.0)

    def cells(self) -> str:
        return (
            f"{self.processes} | {self.utilisation:.1%} | {self.refused} | {self.foreseeable} "
            f"| {self.answered} of {self.offered} | {self.failed} | {self.avoidable} "
            f"| {self.wait_p50:.1f} s | {self.wait_p99:.1f} s "
            f"| {self.requests / max(1, self.answered):.2f}"
        )


def summary(scores: Sequence[Score]) -> list[str]:
    """One row a contender, over all pools and mechanisms."""
    lines = [_SUMMARY, "|---" + "|--:" * 8 + "|"]
    for name in dict.fromkeys(s.contender for s in scores):
        own = [s for s in scores if s.contender == name]
        over, below = (_Row(name, [s for s in own if s.load == load]) for load in ("over", "below"))
        burst = [s.tokens for s in own if s.pool == "burst"]
        cells = [str(max(s.processes for s in own))]
        cells += (
            [
                f"{over.lowest:.1%} · {over.utilisation:.1%}",
                f"{over.refused} / {over.offered}",
                str(over.avoidable),
            ]
            if over.offered
            else ["–"] * 3
        )
        cells += (
            [
                f"{below.failed} of {below.offered}",
                str(below.refused),
                f"{below.wait_p50:.1f} · {below.wait_p99:.1f} s",
            ]
            if below.offered
            else ["–"] * 3
        )
        cells.append(f"{burst[0]:.2f}" if burst else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
