"""Puts each fault of the table into a copy of the source and runs the ledger's fast tests on it.

    python -m tests.mutants.run [part of a name …]

Fails if a mutant survives or if its text does not stand exactly once in its file. What a mutant does
to the rest of the program is not asked: only the ledger's own tests must notice it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.table import MUTANTS, Mutant

__all__ = ["TESTS", "places", "run", "survives"]

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
TESTS = (
    "tests/unit/test_quota_ledger.py",
    "tests/unit/test_quota_ledger_edges.py",
    "tests/unit/test_quota_pacing.py",
    "tests/property/test_quota_days.py",
    "tests/property/test_quota_ledger.py",
)
SCRIPT_TESTS = ("tests/contract/test_quota_stores.py", "tests/property/test_store_traces.py")
"""Of faults in the script: the two stores must agree."""

PATIENCE = 300.0  # seconds; whoever hangs has been noticed


def places(mutant: Mutant) -> int:
    """How often the mutant's text stands in its file."""
    return (SOURCE / mutant.file).read_text(encoding="utf-8").count(mutant.text)


def survives(mutant: Mutant | None, tests: Sequence[str] = ()) -> tuple[bool, str]:
    """Whether the tests pass with this fault (or with none), and what the first one said.

    Args:
        tests: what to run; default: all that are to notice it.
    """
    of_script = mutant is not None and mutant.file.endswith(".lua")
    tests = tests or (SCRIPT_TESTS if of_script else TESTS)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "src"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            path = copy / mutant.file
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(mutant.text, mutant.replacement), encoding="utf-8")
        inherited = os.environ  # noqa: TID251 - handed on to the child
        environment = {**inherited, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "no:xdist", "--tb=line", "-W", "error", *tests]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, check=False, text=True,
                timeout=PATIENCE, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, "it never ended"
        if done.returncode not in (0, 1):  # not a failed test: the run itself is broken
            raise RuntimeError(f"{mutant.name if mutant else 'no mutant'}:\n{done.stdout}{done.stderr}")
        said = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return done.returncode == 0, said[0].partition("::")[2][:90] if said else ""


def run(mutants: Sequence[Mutant], workers: int) -> list[str]:
    """Faults of the table: what survived or has lost its place."""
    faults = [
        f"{mutant.name}: its text stands {places(mutant)} times in {mutant.file}"
        for mutant in mutants
        if places(mutant) != 1
    ]
    if faults:
        return faults
    if not survives(None)[0]:
        return ["the tests fail without any mutant"]
    with ThreadPoolExecutor(workers) as pool:
        for mutant, (alive, said) in zip(mutants, pool.map(survives, mutants), strict=True):
            print(f"{'SURVIVED' if alive else 'caught'}  {mutant.name}: {said}", flush=True)
            if alive:
                faults.append(f"{mutant.name} survived")
    return faults


def main(wanted: Sequence[str]) -> int:
    chosen = [m for m in MUTANTS if not wanted or any(part in m.name for part in wanted)]
    faults = run(chosen, os.cpu_count() or 1)
    print(f"{len(chosen) - len(faults)} of {len(chosen)} mutants caught")
    print(*faults, sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
