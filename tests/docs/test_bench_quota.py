"""The scoreboard runs, and its own upstream finds nothing to refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_declared_quotas_are_used_up_and_never_refused(tmp_path: Path) -> None:
    """In virtual time, in overload: fixed windows (aligned and not), a sliding log, a bucket."""
    command = [sys.executable, "-m", "bench.quota", "--tiny", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    content = json.loads((tmp_path / "quota.json").read_text(encoding="utf-8"))
    declared = [s for s in content["scores"] if s["contender"] == "Headgate, declared"]
    assert {s["mechanism"] for s in declared} == {"fixed", "phased", "sliding", "bucket"}
    for score in declared:
        assert score["refused"] == 0, score
        assert score["utilisation"] >= 0.99, score
        assert score["requests"] == score["answered"], score
    baseline = [s for s in content["scores"] if s["contender"] == "round robin"]
    assert all(s["refused"] > 0 for s in baseline), "the upstream enforces nothing"
    for name in ("quota.json", "quota.md"):
        assert str(ROOT) not in (tmp_path / name).read_text(encoding="utf-8")
