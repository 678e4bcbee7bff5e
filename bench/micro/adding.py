"""Some groups taken anew, beside those that were taken before on the same machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.micro.figures import Figure, environment

__all__ = ["APART", "with_before"]

APART = "Taken apart"
"""The note that says which groups were taken in a run of their own, and when."""


def with_before(
    file: Path, figures: Sequence[Figure], notes: Mapping[str, Sequence[str]]
) -> tuple[list[Figure], dict[str, list[str]]]:
    """All figures and notes: those of the file with these in their groups' places, new groups last.

    Raises:
        ValueError: there is no such file, or it was taken on another machine or another Python.
    """
    if not file.exists():
        raise ValueError(f"there is no {file.name} to add to: run it whole first")
    content = json.loads(file.read_text(encoding="utf-8"))
    here, there = environment(), dict(content["environment"])
    date = here.pop("date")
    there.pop("date", None)
    if here != there:
        raise ValueError(f"{file.name} was taken elsewhere ({there}): run it whole")
    fresh = {figure.group for figure in figures}
    kept = [
        Figure(row["group"], row["name"], row["unit"], tuple(row["values"]))
        for row in content["figures"]
        if row["group"] not in fresh
    ]
    said = {head: list(lines) for head, lines in content["notes"].items()}
    apart = [line for line in said.pop(APART, []) if line.rpartition(": ")[0] not in fresh]
    apart += [f"{group}: {date}" for group in dict.fromkeys(figure.group for figure in figures)]
    told = {head: list(lines) for head, lines in notes.items()}
    return [*kept, *figures], said | told | {APART: apart}
