"""`python -m bench.micro [--tiny] [--only NAME] [--results DIR]`: measure, print, write down."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.micro import bridge, choice, imports, overhead
from bench.micro.figures import FULL, TINY, as_json, as_table
from bench.micro.summary import with_summary

ALL = {"choice": choice, "overhead": overhead, "bridge": bridge, "imports": imports}
BENCH = Path(__file__).parents[1]
RESULTS = BENCH / "results"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="only show that it runs; writes nothing")
    parser.add_argument("--only", choices=ALL, help="one group; writes nothing")
    parser.add_argument("--results", type=Path, help="where to write micro.json and micro.md")
    chosen = parser.parse_args(arguments)
    scale = TINY if chosen.tiny else FULL
    figures = []
    for name, module in ALL.items():
        if chosen.only in (None, name):
            print(f"measuring {name} …", file=sys.stderr)
            figures += module.measure(scale)
    notes = imports.dominating() if chosen.only in (None, "imports") else []
    table = as_table(figures, notes)
    print(table)
    folder = chosen.results or (None if chosen.tiny or chosen.only else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "micro.json").write_text(as_json(figures, notes), encoding="utf-8")
        (folder / "micro.md").write_text(table, encoding="utf-8")
    if folder == RESULTS:
        readme = BENCH / "README.md"
        readme.write_text(with_summary(readme.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
