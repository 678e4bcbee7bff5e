"""`python -m bench.privacy`: recall and precision by kind, false alarms, speed; writes bench/results.

    python -m bench.privacy --sets DIR            # the public sets, as files of their own names in DIR
    python -m bench.privacy --fetch               # fetches Presidio's two sets first
    python -m bench.privacy --faker PYTHON        # a Python with Faker, for the held-out sets
    python -m bench.privacy --presidio PYTHON     # a Python with presidio-analyzer, to compare with

Sets that are not there are left out, and the report says so. Nothing of them is kept in this tree.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.machine import Watch, place
from bench.micro.figures import environment
from bench.privacy.negatives import lines
from bench.privacy.scoring import Document, score, score_found
from headgate.policy.privacy.recognise import find
from headgate.policy.screening.signals import signals

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
HELD_OUT = Path(__file__).with_name("held_out.py")
PRESIDIO = Path(__file__).with_name("presidio.py")
SEEDS = (1, 2, 3)  # none of them is the one that faults were looked at under
DOCUMENTS = 1500
NEGATIVES = 1000

# data/synth_dataset_v2.json and tests/data/generated_large.json of microsoft/presidio-research (MIT).
PUBLIC = ("synth_dataset_v2", "generated_large")
SOURCE = "https://raw.githubusercontent.com/microsoft/presidio-research/master/"
PATHS = {
    "synth_dataset_v2": "data/synth_dataset_v2.json",
    "generated_large": "tests/data/generated_large.json",
}
KINDS = {
    "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "US_SSN": "SSN", "CREDIT_CARD": "CREDIT_CARD",
    "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP",
}  # fmt: skip

# datasets/ of PIGuard (MIT) and the benchmark of BIPIA (MIT), each a list of objects with "prompt".
BENIGN = ("NotInject_one", "NotInject_two", "NotInject_three", "wildguard")
ATTACKS = ("BIPIA_text", "BIPIA_code")
MIXED = "valid"  # with a label: 1 is an attack

HOSTILE = {
    "dots": "." * 100_000,
    "digits": "1" * 100_000,
    "digits apart": "1 " * 50_000,
    "at signs": "a@" * 50_000,
    "brackets": "(1" * 50_000,
    "halves of IBANs": "DE12 " * 20_000,
    "halves of cards": "4111 " * 20_000,
    "halves of phones": "call 212-555-" * 7_700,
    "one word": "a" * 100_000,
}


def main() -> int:
    arguments = _arguments()
    if arguments.fetch:
        arguments.sets.mkdir(parents=True, exist_ok=True)
        _fetch(arguments.sets)
    watch = Watch()
    found: dict[str, Any] = {"environment": environment(), "sets": {}, "missing": []}
    found["presidio"] = None
    for name, documents in _sets(arguments.sets, arguments.faker, found["missing"]):
        found["sets"][name] = score(documents).as_dict()
        rival = _rival(arguments.presidio, documents)
        if rival is not None:
            found["presidio"], theirs = rival
            ours = found["sets"][name]
            ours["presidio"] = theirs
            ours["times_presidio"] = round(ours["mb_per_second"] / theirs.pop("mb_per_second"), 1)
    if found["presidio"] is None:
        found["missing"].append("Presidio")
    alarms = {seed: sum(bool(find(line)) for line in lines(seed, NEGATIVES)) for seed in SEEDS}
    found["false_alarms"] = {"lines": NEGATIVES * len(SEEDS), "alarms": sum(alarms.values())}
    found["hostile_ms"] = {name: _milliseconds(text) for name, text in HOSTILE.items()}
    found["hostile_growth"] = {
        name: round(_milliseconds(4 * text) / max(0.1, found["hostile_ms"][name]), 1)
        for name, text in HOSTILE.items()
    }
    found["signals"] = _signals(arguments.sets, found["missing"])
    verdict = watch.verdict()
    found["speed"] = verdict.as_dict()
    print(_report(found))
    if not verdict.quiet:  # counts hold on any machine, speeds do not
        _write(found, place(arguments.results, "privacy", verdict, own_folder=False))
        _forget_speeds(found)
    _write(found, arguments.results / "privacy")
    return 0


def _write(found: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    body = json.dumps(found, indent=1) + "\n"
    path.with_name(f"{path.name}.json").write_text(body, encoding="utf-8")
    path.with_name(f"{path.name}.md").write_text(_report(found), encoding="utf-8")


def _forget_speeds(found: dict[str, Any]) -> None:
    found["speed"] = None
    found["hostile_ms"] = {}
    for scores in found["sets"].values():
        # Seconds are those of the processor: what else ran can only have made them more.
        scores["mb_per_second_at_least"] = scores["mb_per_second"]
        scores["mb_per_second"] = None  # the ratio to Presidio stays: both had the same machine


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.privacy", description=__doc__)
    parser.add_argument("--sets", type=Path, default=ROOT / ".bench-sets")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--fetch", action="store_true")
    parser.add_argument("--faker", default=str(ROOT / ".venv-bench" / "bin" / "python"))
    parser.add_argument("--presidio", default=str(ROOT / ".venv-bench" / "bin" / "python"))
    return parser.parse_args()


def _fetch(folder: Path) -> None:
    for name, path in PATHS.items():
        target = folder / f"{name}.json"
        if not target.exists():
            with urllib.request.urlopen(SOURCE + path, timeout=60) as answer:  # noqa: S310 - a constant
                target.write_bytes(answer.read())


def _sets(folder: Path, faker: str, missing: list[str]) -> Iterator[tuple[str, list[Document]]]:
    for name in PUBLIC:
        path = folder / f"{name}.json"
        if not path.exists():
            missing.append(name)
            continue
        yield name, [_public(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    for which in ("seen", "unseen"):
        documents: list[Document] = []
        for seed in SEEDS:
            command = [faker, str(HELD_OUT), which, str(seed), str(DOCUMENTS)]
            try:
                made = subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                missing.append(f"held-out, {which}")
                break
            documents += [
                Document(row["text"], [tuple(span) for span in row["spans"]])
                for row in json.loads(made.stdout)
            ]
        else:
            yield f"held-out, {which}", documents


def _rival(python: str, documents: Sequence[Document]) -> tuple[str, dict[str, Any]] | None:
    """Presidio's version and scores over the same documents; None where it is not installed."""
    texts = json.dumps([document.text for document in documents]).encode()
    command = [python, str(PRESIDIO)]
    try:
        made = subprocess.run(command, check=True, capture_output=True, input=texts)
    except (OSError, subprocess.CalledProcessError):
        return None
    told = json.loads(made.stdout)
    spans = [[(start, stop, kind) for start, stop, kind in found] for found in told["found"]]
    scores = score_found(documents, spans, told["seconds"]).as_dict()
    return told["version"], scores


def _public(row: dict[str, Any]) -> Document:
    spans = [
        (span["start_position"], span["end_position"], KINDS[span["entity_type"]])
        for span in row["spans"]
        if span["entity_type"] in KINDS
    ]
    return Document(row["full_text"], spans)


def _milliseconds(text: str) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        find(text)
        best = min(best, time.process_time() - began)
    return round(best * 1000, 1)


def _signals(folder: Path, missing: list[str]) -> dict[str, dict[str, float]]:
    """Share of prompts that show any sign, of benign ones and of attacks."""
    shares: dict[str, dict[str, float]] = {}
    for kind, names in (("benign", (*BENIGN, MIXED)), ("attack", (*ATTACKS, MIXED))):
        for name in names:
            path = folder / f"{name}.json"
            if not path.exists():
                missing.append(name)
                continue
            prompts = _prompts(json.loads(path.read_text(encoding="utf-8")), kind)
            shown = sum(signals(prompt).score > 0 for prompt in prompts)
            shares[f"{name} ({kind})"] = {"prompts": len(prompts), "signs": shown}
    return shares


def _prompts(content: Any, kind: str) -> list[str]:
    """The texts of a set, however it nests them; of a labelled one those of the kind."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, dict):
        if isinstance(content.get("prompt"), str):
            fits = content.get("label", kind == "attack") == (kind == "attack")
            return [content["prompt"]] if fits else []
        return [text for value in content.values() for text in _prompts(value, kind)]
    if isinstance(content, list):
        return [text for value in content for text in _prompts(value, kind)]
    return []


def _report(found: dict[str, Any]) -> str:
    machine = " · ".join(str(value) for value in found["environment"].values())
    rows = ["# Personal data and signs of injection", "", machine, ""]
    rival = "Presidio" if found["presidio"] is None else f"Presidio {found['presidio']}"
    rows += [
        f"| set | kind | n | precision | recall | {rival}: precision | recall |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, scores in found["sets"].items():
        theirs = scores.get("presidio")
        for kind, row in scores["kinds"].items():
            rows.append(_line(name, kind, row, None if theirs is None else theirs["kinds"].get(kind)))
        rows.append(_line(name, "**all**", scores, theirs))
    rows += ["", f"| set | micro-F2 | {rival} | MB/s of one core | times Presidio's |"]
    rows.append("|---|--:|--:|--:|--:|")
    for name, scores in found["sets"].items():
        theirs, speed = scores.get("presidio"), scores["mb_per_second"]
        cells = [name, f"{scores['f2']:.3f}", "–" if theirs is None else f"{theirs['f2']:.3f}"]
        least = scores.get("mb_per_second_at_least")
        cells.append(f"{speed:.2f}" if speed is not None else f"{least:.2f} at least")
        times = scores.get("times_presidio")
        cells.append("–" if times is None else f"{times:.1f}")
        rows.append(f"| {' | '.join(cells)} |")
    alarms = found["false_alarms"]
    told = f"{alarms['alarms']} of {alarms['lines']}"
    rows += ["", f"False alarms on lines without personal data: {told}.", ""]
    if found["speed"] is None:
        rows.append("The machine was busy: of speeds only the least is told.")
    else:
        rows += [f"Of the speeds: {found['speed']['said']}", "", "| 100 KB of | ms |", "|---|--:|"]
        rows += [f"| {name} | {ms:.1f} |" for name, ms in found["hostile_ms"].items()]
    rows += ["", "| 400 KB of | times as long as 100 KB; 4 is linear |", "|---|--:|"]
    rows += [f"| {name} | {times:.1f} |" for name, times in found["hostile_growth"].items()]
    rows += ["", "| prompts | n | with a sign of injection |", "|---|--:|--:|"]
    rows += [
        f"| {name} | {row['prompts']} | {row['signs']} ({row['signs'] / max(1, row['prompts']):.1%}) |"
        for name, row in found["signals"].items()
    ]
    if found["missing"]:
        rows += ["", f"Not there, so not measured: {', '.join(found['missing'])}."]
    return "\n".join(rows) + "\n"


def _line(name: str, kind: str, ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    cells = [name, kind, str(ours["n"]), f"{ours['precision']:.3f}", f"{ours['recall']:.3f}"]
    figures = ("precision", "recall")
    cells += ["–" if theirs is None else f"{theirs[figure]:.3f}" for figure in figures]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
