"""The scoreboard runs, and its own upstream finds nothing to refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from bench.quota.play import LATE, LATE_P99, Score
from bench.quota.upstream import BOARD, BURST, Scene
from bench.quota.waves import burst_start, packed

ROOT = Path(__file__).parents[2]


def test_declared_quotas_are_used_up_and_never_refused(tmp_path: Path) -> None:
    """In virtual time, in overload: fixed windows (aligned and not), a sliding log, a bucket."""
    command = [sys.executable, "-m", "bench.quota", "--tiny", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    content = json.loads((tmp_path / "quota.json").read_text(encoding="utf-8"))
    declared = [s for s in content["scores"] if s["contender"] == "Headgate"]
    assert {s["mechanism"] for s in declared} == {"fixed", "phased", "sliding", "bucket", "counter"}
    for score in declared:
        assert score["foreseeable"] == 0, score
        if score["mechanism"] == "counter":  # it estimates: it may refuse what a log would let in
            continue
        assert score["refused"] == 0, score
        assert score["utilisation"] >= 0.99, score
        assert score["requests"] == score["answered"], score
    baseline = [s for s in content["scores"] if s["contender"] == "round robin"]
    assert all(s["refused"] >= s["foreseeable"] > 0 for s in baseline), "the upstream enforces nothing"
    for name in ("quota.json", "quota.md"):
        assert str(ROOT) not in (tmp_path / name).read_text(encoding="utf-8")


def test_real_programs_take_part(tmp_path: Path) -> None:
    """Forked adapters over sockets, three processes on one Valkey, for some seconds of real time."""
    command = [sys.executable, "-m", "bench.quota", "--toy", "--results", str(tmp_path)]
    foreign = f"mine={sys.executable} -m bench.quota.adapters.round_robin"
    subprocess.run(
        [*command, "--adapter", foreign], cwd=ROOT, check=True, capture_output=True, timeout=120
    )
    scores = json.loads((tmp_path / "quota.json").read_text(encoding="utf-8"))["scores"]
    processes = {score["contender"]: score["processes"] for score in scores}
    assert processes == {
        "Headgate": 1,
        "Headgate, Valkey": 3,
        "Headgate, told nothing": 1,
        "round robin": 1,
        "mine": 1,
    }
    for score in scores:
        assert 0 < score["answered"] <= score["offered"], score  # a store may be slow beside other work
        assert score["refused"] == 0, score


def test_the_board_is_the_same_for_everybody() -> None:
    """Arrivals depend on the load and the seed alone."""
    scenes = [Scene(load.split("/")[1], how, load.split("/")[0], 1.0) for load, how in BOARD]
    for load in ("over", "below"):
        lists = {tuple(scene.arrivals()) for scene in scenes if scene.load == load}
        assert len(lists) == 1


def test_scenes_are_spread_over_waves_by_their_calls() -> None:
    """None is lost, and no wave has much more to do than another."""
    scenes = [Scene("homo", "fixed", load, 1.0) for load in ["over"] * 6 + ["below"] * 4]
    waves = packed(scenes, 3)
    assert sorted(s.load for wave in waves for s in wave) == sorted(s.load for s in scenes)
    rates = [sum(scene.rate for scene in wave) for wave in waves]
    assert max(rates) - min(rates) <= max(scene.rate for scene in scenes)
    assert len(packed(scenes[:1], 3)) == 1


@pytest.mark.parametrize("second", [0.0, 12.3, 38.0, 41.0, 59.9])
def test_no_burst_crosses_a_minute(second: float) -> None:
    """They come one after the other, in the first forty seconds: a router that counts minutes of the
    clock must not get two of them.
    """
    starts = [burst_start(number, 1_800_000_000 + second) for number in range(20)]
    assert all(start % 60 <= 40 for start in starts)
    assert all(later - earlier >= 2.4 for earlier, later in pairwise(starts))
    assert BURST.scene.pool == "burst"


def test_a_row_is_trusted_only_if_the_bench_was_on_time() -> None:
    row = Score(
        contender="x", processes=1, pool="homo", mechanism="fixed", load="over", seed=1, minutes=2.0,
        offered=1, answered=1, attainable=1, utilisation=1.0, refused=0, foreseeable=0, requests=1,
        wait_p50=0.0, wait_p99=0.0, errors={}, tokens=0.0, late_p99=0.0, late=0.0,
    )  # fmt: skip
    assert row.trusted
    assert not replace(row, late_p99=2 * LATE_P99, late=2 * LATE_P99).trusted
    assert not replace(row, late=2 * LATE).trusted
    assert replace(row, pool="burst", late=2 * LATE).trusted
