"""The bench of the content service runs. How fast it is, is measured and never asserted."""

from __future__ import annotations

from pathlib import Path

from tests.docs.test_bench import results, run


def test_the_load_bench_runs(tmp_path: Path) -> None:
    """In a tiny mode it takes every figure; what the cache can save, it saves."""
    run("bench.load", tmp_path)
    found = {
        figure["name"]: figure["values"][0]  # type: ignore[index]
        for figure in results(tmp_path, "load")["figures"]  # type: ignore[attr-defined]
    }
    assert len(found) == 8
    assert all(value > 0 for value in found.values())
    saved = found["frequent and rare: answered from the cache"]
    assert saved == found["frequent and rare: the most that can be"], "one call for each topic"
