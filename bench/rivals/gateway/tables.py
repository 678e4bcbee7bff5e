"""The result as a page: a table for each scene, and the goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.rivals.gateway.measure import Row

__all__ = ["GOALS", "goals", "table"]

GOALS = {"TensorZero": 1.1, "Portkey": 7.0, "LiteLLM": 70.0, "nginx": 0.2}
"""At least so many times the requests a core, at 32 connections."""

_BASE = "32 connections"
_OWN = "Headgate, OpenAI"
_HEAD = (
    "| contender | requests/s | CPU µs | a core, /s | p50 ms | p99 ms | memory MB | first answer s | |"
)
_RULE = "|---|--:|--:|--:|--:|--:|--:|--:|---|"


def table(rows: Sequence[Row], notes: Sequence[str], told: Mapping[str, str], verdict: str) -> str:
    """The whole page."""
    parts = ["# Gateways beside each other", "Written by `python -m bench.rivals.gateway`."]
    parts.append(
        "\n".join([*(f"- {name}: {value}" for name, value in told.items()), f"- machine: {verdict}"])
    )
    for scene in dict.fromkeys(row.scene for row in rows):
        lines = [_line(row) for row in rows if row.scene == scene]
        parts.append("\n".join([f"## {scene}", "", _HEAD, _RULE, *lines]))
    parts.append("\n".join(["## Goals", "", "| goal | reached |", "|---|--:|", *goals(rows)]))
    if notes:
        parts.append("\n".join(["## Notes", "", *(f"- {note}" for note in notes)]))
    return "\n\n".join(parts) + "\n"


def goals(rows: Sequence[Row]) -> list[str]:
    """What issue and design ask for, and what this run has."""
    found = {(row.contender, row.scene): row for row in rows}
    lines = []
    for rival, least in GOALS.items():
        # nginx stands on the Gemini surface, the others on OpenAI's.
        own = found.get(("Headgate, Gemini" if rival == "nginx" else _OWN, _BASE))
        other = found.get((rival, _BASE))
        if own and other and other.cpu:
            lines.append(f"| ≥ {least} × {rival} per core | {other.cpu / own.cpu:.2f} × |")
    memory, shared = (
        found.get(("Headgate, Gemini", _BASE)),
        found.get(("Headgate, Gemini, Valkey", _BASE)),
    )
    if memory and shared and shared.cpu:
        lines.append(f"| with Valkey ≥ 0.6 × memory | {memory.cpu / shared.cpu:.2f} × |")
    if memory:
        lines.append(f"| memory ≤ 80 MB | {memory.memory:.0f} MB |")
        lines.append(f"| first answer ≤ 0.7 s | {memory.first:.2f} s |")
    if single := found.get(("Headgate, Gemini", "1 connections")):
        lines.append(f"| p99 at one connection ≤ 1 ms above the upstream's own | {single.p99:.2f} ms |")
    return lines


def _line(row: Row) -> str:
    figures = (f"{row.requests:,.0f}", f"{row.cpu:.1f}", f"{row.per_core:,.0f}", f"{row.p50:.2f}",
               f"{row.p99:.2f}", f"{row.memory:.0f}", f"{row.first:.2f}")  # fmt: skip
    return f"| {row.contender} | {' | '.join(figures)} | {row.note} |"
