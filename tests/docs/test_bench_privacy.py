"""The measurement of personal data runs, counts rightly, and its gates hold: S3-02g, S3-02h."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from bench.privacy import __main__ as bench
from bench.privacy.negatives import lines
from bench.privacy.scoring import Document, score

from headgate.policy.privacy.recognise import find

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "privacy.json"


def test_lines_without_personal_data_give_no_alarm() -> None:
    assert {line: find(line) for line in lines(20261121, 1000) if find(line)} == {}


def test_a_find_counts_if_it_overlaps_by_half() -> None:
    text = "ada@example.org, 4111111111111111, 192.0.2.1"
    scores = score([Document(text, [(0, 15, "EMAIL"), (17, 25, "CREDIT_CARD"), (35, 44, "PHONE")])])
    shown = scores.as_dict()
    assert shown["kinds"]["EMAIL"] == {"n": 1, "precision": 1.0, "recall": 1.0}
    assert shown["kinds"]["CREDIT_CARD"]["recall"] == 1.0, "half of it was labelled"
    assert shown["kinds"]["PHONE"] == {"n": 1, "precision": 1.0, "recall": 0.0}
    assert shown["kinds"]["IP"] == {"n": 0, "precision": 0.0, "recall": 1.0}


def test_it_runs_without_any_set_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "NEGATIVES", 10)
    monkeypatch.setattr(bench, "HOSTILE", {"dots": "." * 1000})
    arguments = ["--sets", str(tmp_path), "--results", str(tmp_path), "--faker", "/no/python"]
    monkeypatch.setattr(sys, "argv", ["bench.privacy", *arguments])
    assert bench.main() == 0
    assert "held-out, unseen" in capsys.readouterr().out.rpartition("not measured")[2]


def test_the_committed_figures_are_never_below_presidios_by_any_type() -> None:
    """Precision and recall, of each kind in each set; and not by taking longer."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert found["presidio"].startswith("2.")
    compared = 0
    for name, scores in found["sets"].items():
        theirs = scores["presidio"]
        assert scores["f2"] >= theirs["f2"], name
        assert scores["times_presidio"] > 1.0, name
        for kind, row in scores["kinds"].items():
            for figure in ("precision", "recall"):
                assert row[figure] >= theirs["kinds"][kind][figure], (name, kind, figure)
                compared += 1
    assert compared >= 4 * 6 * 2


def test_a_rival_is_scored_by_the_same_rule(tmp_path: Path) -> None:
    """Through a program that stands for Presidio: it finds one piece of two, and a false one."""
    theirs = tmp_path / "theirs.py"
    theirs.write_text(
        "import json, sys\n"
        "texts = json.load(sys.stdin)\n"
        "found = [[[0, 15, 'EMAIL'], [17, 20, 'PHONE']] for _ in texts]\n"
        "json.dump({'version': '2.0', 'seconds': 0.5, 'found': found}, sys.stdout)\n"
    )
    documents = [
        Document("ada@example.org, 4111111111111111", [(0, 15, "EMAIL"), (17, 33, "CREDIT_CARD")])
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "PRESIDIO", theirs)
        told = bench._rival(sys.executable, documents)
    assert told is not None
    version, scores = told
    assert (version, scores["precision"], scores["recall"]) == ("2.0", 0.5, 0.5)
    assert scores["kinds"]["CREDIT_CARD"]["recall"] == 0.0
    assert bench._rival("/no/python", documents) is None


def test_the_committed_figures_keep_what_is_promised() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert found["missing"] == []
    for name, scores in found["sets"].items():
        assert scores["precision"] >= 0.98, name
        assert scores["f2"] >= (0.92 if name == "synth_dataset_v2" else 0.90), name
        speed = scores["mb_per_second"] or scores["mb_per_second_at_least"]
        assert speed >= 1.0, name
    assert found["false_alarms"]["alarms"] == 0
    for name, times in found["hostile_growth"].items():
        assert times < 8.0, f"{name}: four times the text is 4 if linear, 16 if quadratic"
    benign = [row for name, row in found["signals"].items() if name.endswith("(benign)")]
    assert sum(row["signs"] for row in benign) <= 0.005 * sum(row["prompts"] for row in benign)
