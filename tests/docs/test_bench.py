"""The benchmarks run. How fast they are is measured by `make bench` and never asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_micro_benchmarks_run(tmp_path: Path) -> None:
    """In a tiny mode they take every figure and write both files, without a path of this machine."""
    command = [sys.executable, "-m", "bench.micro", "--tiny", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    content = json.loads((tmp_path / "micro.json").read_text(encoding="utf-8"))
    groups = {figure["group"].partition(",")[0] for figure in content["figures"]}
    assert {"Choosing a key (lease and settle)", "The blocking bridge", "Import"} <= groups
    assert {"date", "cpu", "cores", "python"} <= set(content["environment"])
    for name in ("micro.json", "micro.md"):
        assert str(ROOT) not in (tmp_path / name).read_text(encoding="utf-8")
        assert sys.prefix not in (tmp_path / name).read_text(encoding="utf-8")


def test_the_committed_results_are_whole() -> None:
    """The table in the repository is that of the values beside it."""
    results = ROOT / "bench" / "results"
    content = json.loads((results / "micro.json").read_text(encoding="utf-8"))
    table = (results / "micro.md").read_text(encoding="utf-8")
    assert all(f"| {figure['name']} |" in table for figure in content["figures"])
    assert content["environment"]["date"] in table
    readme = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert f"{content['environment']['date']}, " in readme, "run `make bench`: it writes all three"
