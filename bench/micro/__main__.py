"""`python -m bench.micro [--tiny] [--only NAME [--add]] [--results DIR]`: measure and write down."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench.machine import Verdict, Watch, await_quiet, place
from bench.micro import (
    admission,
    bridge,
    cache,
    choice,
    codegen,
    decisions,
    imports,
    metrics,
    overhead,
    stages,
    telemetry,
    transport,
    usage,
)
from bench.micro.adding import with_before
from bench.micro.figures import FULL, TINY, Figure, Scale, as_json, as_table
from bench.micro.summary import with_summary

ALL = {
    "choice": choice,
    "decisions": decisions,
    "admission": admission,
    "overhead": overhead,
    "stages": stages,
    "transport": transport,
    "bridge": bridge,
    "cache": cache,
    "codegen": codegen,
    "telemetry": telemetry,
    "metrics": metrics,
    "usage": usage,
    "imports": imports,
}
BENCH = Path(__file__).parents[1]
RESULTS = BENCH / "results"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="only show that it runs; writes nothing")
    parser.add_argument("--only", choices=ALL, nargs="+", help="some groups; writes nothing")
    parser.add_argument("--add", action="store_true", help="writes them beside the groups of before")
    parser.add_argument("--no-rivals", action="store_true", help="without other people's limiters")
    parser.add_argument("--results", type=Path, help="where to write micro.json and micro.md")
    chosen = parser.parse_args(arguments)
    scale = TINY if chosen.tiny else FULL
    if chosen.no_rivals:
        scale = replace(scale, rivals=False)
    if not chosen.tiny:
        print("waiting for a quiet machine, a minute at most …", file=sys.stderr)
        await_quiet()
    watch = Watch()
    figures = _measured(chosen.only or list(ALL), scale)
    verdict = watch.verdict()
    print(as_table(figures, {}, verdict.sentence))
    print(verdict.sentence, file=sys.stderr)
    notes = _notes(chosen.only or list(ALL))
    if chosen.add:
        figures, notes = with_before((chosen.results or RESULTS) / "micro.json", figures, notes)
    if chosen.add or chosen.results or not (chosen.tiny or chosen.only):
        _write(figures, notes, verdict, chosen.results)
    return 0 if verdict.quiet or chosen.tiny else 3


def _measured(names: list[str], scale: Scale) -> list[Figure]:
    figures: list[Figure] = []
    for name in names:
        print(f"measuring {name} …", file=sys.stderr, end="", flush=True)
        begun = time.perf_counter()
        figures += ALL[name].measure(scale)
        print(f" {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    return figures


def _notes(names: list[str]) -> dict[str, list[str]]:
    notes = {}
    if "decisions" in names:
        notes["Limiters"] = decisions.notes()
    if "admission" in names:
        notes["Servers of the admissions"] = admission.notes()
    if "imports" in names:
        notes["What dominates the import"] = imports.dominating()
    return notes


def _write(
    figures: list[Figure], notes: dict[str, list[str]], verdict: Verdict, folder: Path | None
) -> None:
    target = place(folder or RESULTS, "micro", verdict, own_folder=folder is not None)
    table = as_table(figures, notes, verdict.sentence)
    target.with_name(f"{target.name}.json").write_text(
        as_json(figures, notes, verdict.as_dict()), encoding="utf-8"
    )
    target.with_name(f"{target.name}.md").write_text(table, encoding="utf-8")
    if folder is None and verdict.quiet:
        readme = BENCH / "README.md"
        readme.write_text(with_summary(readme.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
