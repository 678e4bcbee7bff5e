"""The benchmarks run. How fast they are is measured by `make bench` and never asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench.machine import Verdict, place
from bench.micro.adding import APART, with_before
from bench.micro.figures import Figure, as_json

ROOT = Path(__file__).parents[2]


def run(module: str, folder: Path) -> None:
    command = [sys.executable, "-m", module, "--tiny", "--results", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)


def results(folder: Path, name: str) -> dict[str, object]:
    """What a bench wrote as JSON; neither of its files may hold a path of this machine."""
    for ending in ("json", "md"):
        text = (folder / f"{name}.{ending}").read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert sys.prefix not in text
    content: dict[str, object] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    assert {"date", "cpu", "cores", "python"} <= set(content["environment"])
    assert set(content["machine"]) == {"blessed", "foreign_cores", "machine_busy", "said"}
    return content


def test_the_micro_benchmarks_run(tmp_path: Path) -> None:
    """In a tiny mode they take every figure and write both files."""
    run("bench.micro", tmp_path)
    figures = results(tmp_path, "micro")["figures"]
    groups = {figure["group"] for figure in figures}
    assert {
        "Choosing a key (lease and settle)",
        "Decisions in memory, unit cost, one key",
        "Decisions on Valkey, unit cost, one key, 32 at a time",
        "A request of 30,000 tokens to a request of one",
        "An admission in memory (acquire and settle)",
        "An admission on Redis, time at the server",
        "An admission on Valkey, time at the server",
        "Round trips on Valkey",
        "A call through its stages, without a socket, 32 at a time",
        "A stream of 50 pieces over a bare transport",
        "A call without a socket, by what is traced",
        "Pieces of telemetry",
        "Metrics on the path of a call",
        "The blocking bridge",
        "The key of a question",
        "A kept reply of 1 KB",
        "Small replies in memory",
        "Usage of a call",
        "Import, in a fresh interpreter",
    } <= groups
    assert all(
        value > 0 for figure in figures for value in figure["values"] if "added" not in figure["name"]
    )


def test_callers_at_once_share_round_trips(tmp_path: Path) -> None:
    """A count, not a time: one caller takes one round trip an admission, sixty-four far fewer."""
    command = [sys.executable, "-m", "bench.micro", "--tiny", "--only", "admission"]
    subprocess.run(
        [*command, "--results", str(tmp_path)], cwd=ROOT, check=True, capture_output=True, timeout=120
    )
    trips = {
        int(found[1]): figure["median"]
        for figure in results(tmp_path, "micro")["figures"]
        if (found := re.match(r"round trips an admission, (\d+) coroutines", figure["name"]))
    }
    assert trips[1] == 1
    assert trips[1] > trips[8] > trips[64]


def test_the_ledger_at_scale_runs(tmp_path: Path) -> None:
    """At toy size: nothing above a limit, and a second shard carries what the first cannot."""
    run("bench.scale", tmp_path)
    rows = {row["name"]: row["value"] for row in results(tmp_path, "scale")["figures"]}
    assert rows["admissions above a limit, in any window of any domain"] == 0
    assert rows["share of the summed limits that was used"] > 0.9
    one, two = (
        rows[f"two groups on {shards}, as much as goes: admissions a minute"]
        for shards in ("one shard", "two shards")
    )
    assert two > 1.9 * one


def test_a_result_of_a_busy_machine_takes_no_place(tmp_path: Path) -> None:
    """It is written beside the committed one, and git ignores it."""
    busy, quiet = Verdict(False, "NOT BLESSED", 1.0, 0.9), Verdict(True, "quiet", 0.0, 0.5)
    assert place(tmp_path, "micro", busy, own_folder=False) == tmp_path / "micro.busy"
    assert place(tmp_path, "micro", quiet, own_folder=False) == tmp_path / "micro"
    assert place(tmp_path, "micro", busy, own_folder=True) == tmp_path / "micro"
    ignored = (ROOT / "bench" / "results" / ".gitignore").read_text(encoding="utf-8")
    assert "*.busy.*" in ignored.splitlines()


def test_the_committed_results_are_whole() -> None:
    """The table in the repository is that of the values beside it."""
    folder = ROOT / "bench" / "results"
    content = json.loads((folder / "micro.json").read_text(encoding="utf-8"))
    table = (folder / "micro.md").read_text(encoding="utf-8")
    assert all(f"| {figure['name']} |" in table for figure in content["figures"])
    assert content["environment"]["date"] in table
    readme = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert f"{content['environment']['date']}, " in readme, "run `make bench`: it writes all three"


def test_what_is_committed_was_blessed() -> None:
    """No result of a busy machine stands in the repository."""
    for path in (ROOT / "bench" / "results").glob("*.json"):
        if path.stem.endswith(".busy"):
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        assert content.get("machine", {}).get("blessed", True), path.name
        assert "NOT BLESSED" not in content["environment"].get("machine", ""), path.name


def test_rivals_are_locked_without_a_registry() -> None:
    """Exact versions with hashes; the LiteLLM release reported as compromised is kept out."""
    lock = (ROOT / "requirements" / "bench.txt").read_text(encoding="utf-8")
    wanted = ("limits==", "pyrate-limiter==", "throttled-py==", "aiolimiter==", "litellm==")
    assert all(f"\n{name}" in lock for name in wanted)
    assert "litellm==1.107.0" not in lock
    assert "http" not in re.sub(r"\bhttp(x|core)|aiohttp", "", lock)
    packages = re.findall(r"^[a-z][\w.-]*==.*(?:\n    --hash.*)*", lock, re.MULTILINE)
    assert packages
    assert all("--hash=sha256:" in package for package in packages)


def test_groups_taken_apart_stand_beside_those_of_before(tmp_path: Path) -> None:
    """And only beside those of the same machine: else they are not to be compared."""
    file = tmp_path / "micro.json"
    before = [Figure("a", "x", "µs", (1.0,)), Figure("b", "y", "µs", (2.0,))]
    file.write_text(
        as_json(before, {"Limiters": ["l"], APART: ["b: 2026-01-01"]}, {}), encoding="utf-8"
    )
    figures, notes = with_before(
        file, [Figure("b", "y", "µs", (3.0,)), Figure("c", "z", "µs", (4.0,))], {}
    )
    assert [(figure.group, figure.median) for figure in figures] == [("a", 1.0), ("b", 3.0), ("c", 4.0)]
    assert notes["Limiters"] == ["l"]
    assert [line.partition(":")[0] for line in notes[APART]] == ["b", "c"]
    other = json.loads(file.read_text(encoding="utf-8"))
    other["environment"]["cpu"] = "another"
    file.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(ValueError, match="run it whole"):
        with_before(file, before, {})
    with pytest.raises(ValueError, match="there is no"):
        with_before(tmp_path / "none" / "micro.json", before, {})
