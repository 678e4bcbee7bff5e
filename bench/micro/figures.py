"""Figures: a value measured several times, and the table and JSON they end up in."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

__all__ = [
    "FULL",
    "TINY",
    "Figure",
    "Scale",
    "as_json",
    "as_table",
    "environment",
    "in_turn",
    "per_call",
    "ratio",
]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure.

    Attributes:
        repeats: how often each figure is taken.
        calls: calls within one taking.
        sizes: numbers of keys to choose from.
        seconds: how long one taking of a limiter lasts.
        domains: numbers of domains a ledger has.
        admissions: in one taking of a ledger.
        rivals: whether other people's limiters take part.
    """

    repeats: int
    calls: int
    sizes: tuple[int, ...]
    seconds: float = 0.3
    domains: tuple[int, ...] = (10, 100, 1_000, 10_000)
    admissions: int = 3_200
    rivals: bool = True


FULL = Scale(repeats=9, calls=2_000, sizes=(10, 1_000, 100_000))
TINY = Scale(
    repeats=1, calls=5, sizes=(2, 5), seconds=0.01, domains=(2, 5), admissions=64, rivals=False
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its group, its name, its unit, and every value that was taken."""

    group: str
    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def ratio(group: str, name: str, of: Figure, to: Figure) -> Figure:
    """The ratio of two figures taken in turn, repeat by repeat."""
    pairs = zip(of.values, to.values, strict=True)
    return Figure(group, name, "×", tuple(above / below for above, below in pairs))


def per_call(seconds: float, calls: int) -> float:
    """Microseconds a call."""
    return seconds / calls * 1e6


def environment() -> dict[str, str]:
    """What the figures depend on. No host name and no path."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "headgate": version("headgate"),
        "aiohttp": version("aiohttp"),
        "msgspec": version("msgspec"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def as_json(
    figures: Sequence[Figure], notes: Mapping[str, Sequence[str]], machine: Mapping[str, object]
) -> str:
    """Every value. `machine` says whether the result is blessed."""
    rows = [
        {
            "group": figure.group,
            "name": figure.name,
            "unit": figure.unit,
            "median": round(figure.median, 3),
            "values": [round(value, 3) for value in figure.values],
        }
        for figure in figures
    ]
    content = {
        "environment": environment(),
        "machine": dict(machine),
        "figures": rows,
        "notes": {head: list(lines) for head, lines in notes.items()},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_table(figures: Sequence[Figure], notes: Mapping[str, Sequence[str]], machine: str) -> str:
    """The same as Markdown, a table a group."""
    lines = ["# Micro benchmarks", "", "Written by `make bench`; [how to read it](../README.md).", ""]
    lines += [f"- {name}: {value}" for name, value in environment().items()]
    lines.append(f"- machine: {machine}")
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            lines += [
                "",
                f"## {group}",
                "",
                "| figure | median | lowest | highest |",
                "|---|--:|--:|--:|",
            ]
        shown = [_shown(value, figure.unit) for value in (min(figure.values), max(figure.values))]
        lines.append(f"| {figure.name} | {_shown(figure.median, figure.unit)} | {' | '.join(shown)} |")
    for head, said in notes.items():
        lines += ["", f"## {head}", "", "```text", *said, "```"]
    return "\n".join(lines) + "\n"


def _shown(value: float, unit: str) -> str:
    digits = 0 if unit == "/s" else 2 if unit == "×" or value < 10 else 1
    return f"{value:,.{digits}f} {unit}".rstrip()


T = TypeVar("T")


def in_turn(repeats: int, takings: Sequence[Callable[[], T]]) -> list[tuple[T, ...]]:
    """The values of each taking. They take turns, so that a slow moment hits all of them."""
    rounds = [[taking() for taking in takings] for _ in range(repeats)]
    return [tuple(values) for values in zip(*rounds, strict=True)]
