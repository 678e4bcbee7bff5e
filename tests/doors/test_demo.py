"""`headgate demo`: what `make demo` promises, on the whole run."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest
from rich.console import Console

from headgate.cli.demo import view
from headgate.cli.demo.books import compare
from headgate.cli.demo.watch import Watch
from headgate.emulator import KeyReport, ProjectReport, Report
from headgate.testing import VirtualClock


def run_demo(base_url: str) -> subprocess.CompletedProcess[str]:
    """One whole run, in the environment of a person with keys, a base URL and settings of their own."""
    own = {
        "GEMINI_API_KEYS": "AIza-CANARY-a-persons-own-key-0000000|mine",
        "HEADGATE_GEMINI_BASE_URL": base_url,
        "GEMINI_API_KEY_ROTATION_ENABLED": "false",
        "GEMINI_API_KEY_ROTATION_MAX_RETRIES": "0",
        "GEMINI_DEFAULT_MODEL": "gemini-1.5-flash",
        "HEADGATE_MODEL_POLICY": "strict",
    }
    return subprocess.run(
        [sys.executable, "-m", "headgate", "demo", "--json"],
        env={**os.environ, **own},  # noqa: TID251
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_demo_answers_all_shows_every_trouble_keeps_true_books_and_stays_on_this_machine() -> None:
    """One test, because the one run it looks at takes twenty seconds."""
    with socket.socket() as tripwire:  # hears whether anybody goes where the person's settings point
        tripwire.bind(("127.0.0.1", 0))
        tripwire.listen()
        tripwire.setblocking(False)
        host, port = tripwire.getsockname()
        done = run_demo(f"http://{host}:{port}")
        with pytest.raises(BlockingIOError):
            tripwire.accept()
    assert done.returncode == 0, done.stderr
    assert "CANARY" not in done.stdout + done.stderr
    result = json.loads(done.stdout)
    ends_well(result)
    shows_every_trouble(result)
    uses_quota_to_the_last(result)
    keeps_true_books(result)
    prints_plain_lines(done)


def ends_well(result: dict[str, Any]) -> None:
    assert result["prompts"] == result["answered"] == 120
    assert result["elapsed"] < 40
    assert result["usage"]["total"] > 1000


def shows_every_trouble(result: dict[str, Any]) -> None:
    assert result["rotations"] >= 5
    assert result["waits"] >= 5
    assert result["retries"] >= 3
    told = [f"{one['who']} {one['what']}" for one in result["happenings"]]
    for trouble in (
        "alder quota of the day used up",
        "birch quota of the minute used up",
        "cedar quota of the minute used up",
        "cedar-2 switched off",
        "the model is overloaded",
        "the connection broke",
        "all keys no project has room",
    ):
        assert any(trouble in line for line in told), trouble


def uses_quota_to_the_last(result: dict[str, Any]) -> None:
    keys = {key["name"]: key for key in result["keys"]}
    assert keys["cedar-2"]["status"] == "DISABLED"
    assert keys["cedar-2"]["metrics"]["total_requests"] == 1
    assert sum(keys[name]["metrics"]["successful_requests"] for name in ("alder-1", "alder-2")) == 14


def keeps_true_books(result: dict[str, Any]) -> None:
    books = result["books"]
    assert books["agree"] is True
    assert books["client"] == books["emulator"]
    assert books["client"]["answered"] == 120
    assert books["client"]["requests"] == result["requests"]


def prints_plain_lines(done: subprocess.CompletedProcess[str]) -> None:
    assert "\x1b" not in done.stdout + done.stderr
    assert "A minute lasts 8 seconds here" in done.stderr
    assert "120/120 answered" in done.stderr


def test_its_prompts_are_120_different_lines() -> None:
    text = files("headgate.cli").joinpath("data/demo-prompts.txt").read_text(encoding="utf-8")
    prompts = text.splitlines()
    assert len(prompts) == len(set(prompts)) == 120
    assert all(20 <= len(prompt.strip()) == len(prompt) for prompt in prompts)


def test_books_that_differ_are_named_by_key() -> None:
    report = Report(projects={"p": ProjectReport(keys={"k": KeyReport()})})
    report.projects["p"].keys["k"].totals.requests = 2
    report.unknown.requests = 1
    numbers = {"total_requests": 1, "successful_requests": 1, "quota_errors": 0}
    books = compare({"keys": [{"name": "k", "metrics": numbers}]}, report)
    assert not books.agree
    assert books.differences[0].startswith("k:")
    assert "nobody knows" in books.differences[1]


def test_a_line_with_combining_characters_keeps_away_from_the_edge() -> None:
    clock = VirtualClock()
    watch = Watch(clock, clock.monotonic())
    watch.latest = "“मुहावरे का अर्थ समझाइए”" * 9
    console = Console(width=80, file=io.StringIO())
    picture = view.frame(watch, {"timestamp": "", "keys": []}, 120, 80)
    (line,) = [line for line in console.render_lines(picture, pad=False) if "समझ" in line[0].text]
    assert sum(segment.cell_length for segment in line) <= 60
