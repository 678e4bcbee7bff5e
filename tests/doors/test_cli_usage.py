"""`headgate usage` and `headgate backend status`, as people and programs meet them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_usage_ledger import row
from typer.testing import CliRunner, Result

from headgate.cli.main import app
from headgate.emulator import Emulator, EmulatorConfig, InThread, Project
from headgate.stores.usage_sqlite import SqliteUsage

KEY = "AIza-CANARY-usage-00000000000"
MODEL = "gemini-3.8-flash"
HOUR = 3600.0


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert "CANARY" not in result.output
    assert "Traceback" not in result.output
    return result


def asked(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A ledger with four calls: two within the last hour, one yesterday, one of last month."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "usage.db"
    monkeypatch.setenv("HEADGATE_USAGE", str(path))
    now = time.time()  # noqa: TID251 - the command asks the machine's clock
    store = SqliteUsage(path)
    store.write([
        row(1, at=now - 40 * 24 * HOUR, model="gemini-old", call="success", call_seconds=1.0),
        row(2, at=now - 25 * HOUR, model=MODEL, caller="search", call="success", cost=2_000_000_000),
        row(3, at=now - 60, model=MODEL, caller="billing", call="success", call_seconds=3.0,
            cost=12_345_678, input_tokens=1234),
        row(4, at=now - 30, model="gemini-x", call="QuotaExceeded", result="quota", cost=None,
            estimated=True),
    ])  # fmt: skip
    store.close()
    return path


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[InThread]:
    config = EmulatorConfig(projects=[Project("alpha", {"primary": KEY})])
    with InThread(Emulator(config)) as emulator:
        monkeypatch.setenv("GEMINI_API_KEYS", f"{KEY}|primary|alpha")
        monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", emulator.base_url)
        yield emulator


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        (("ask", "Why is the sky blue?", "--model", MODEL), MODEL),
        (("ask", "Why is the sky blue?", "--model", MODEL, "--no-stream"), MODEL),
        (("embed", "A text"), "gemini-embedding-001"),
    ],
)
def test_what_a_command_asks_is_in_the_ledger_when_it_ends(
    upstream: InThread,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    model: str,
) -> None:
    monkeypatch.setenv("HEADGATE_USAGE", str(tmp_path / "usage.db"))
    assert run(*arguments).exit_code == 0
    (line,) = asked("usage", "--by", "model")["lines"]
    assert (line["name"], line["total_requests"], line["failed_requests"]) == (model, 1, 0)
    assert line["input_tokens"] > 0


def test_a_question_that_fails_is_in_the_ledger_too(
    upstream: InThread, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADGATE_USAGE", str(tmp_path / "usage.db"))
    assert run("ask", "Hello", "--model", "gemini-of-nobody").exit_code == 5
    (line,) = asked("usage", "--by", "model")["lines"]
    assert (line["name"], line["total_requests"], line["failed_requests"]) == ("gemini-of-nobody", 1, 1)


def test_an_answer_does_not_depend_on_the_ledger(
    upstream: InThread, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody gets an error, or no answer, for a ledger that cannot be written; it is told of."""
    monkeypatch.setenv("HEADGATE_USAGE", str(tmp_path / "no folder" / "usage.db"))
    result = run("ask", "Hello", "--model", MODEL)
    assert result.exit_code == 0
    assert len(result.stdout) > 40
    assert "usage=" in result.stderr
    monkeypatch.setenv("HEADGATE_USAGE", "off")
    assert not run("ask", "Hello", "--model", MODEL).stderr


def test_usage_shows_days_their_sum_and_where_it_comes_from(ledger: Path) -> None:
    result = run("usage")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["day", "requests", "failed", "cached", "in", "out", "$", "seconds"]
    assert len(lines) in (4, 5)  # two days, or one where midnight lies between, and their sum
    assert lines[-1].split()[:3] == ["all", "3", "1"]
    assert "2.0123+?" in lines[-1]
    assert str(ledger) in result.stderr
    assert "+? is what models without a known price cost" in result.stderr
    assert "Tokens of 1 attempt are estimates" in result.stderr


def test_usage_by_model_is_the_dearest_first(ledger: Path) -> None:
    found = asked("usage", "--by", "model")
    assert [one["name"] for one in found["lines"]] == [MODEL, "gemini-old", "gemini-x"]
    assert found["ledger"] == str(ledger)
    dear = found["lines"][0]
    assert (dear["total_requests"], dear["total_cost"], dear["start"]) == (2, 2.012345678, None)
    assert found["lines"][2]["unpriced_attempts"] == 1


def test_usage_of_a_caller_or_model_since_a_time(ledger: Path) -> None:
    assert [one["name"] for one in asked("usage", "--by", "caller", "--since", "1h")["lines"]] == [
        "billing",
        "",
    ]
    (one,) = asked("usage", "--caller", "search", "--by", "month")["lines"]
    assert len(one["name"]) == 7
    assert one["start"].endswith("+00:00")
    assert asked("usage", "--model", "gemini-x", "--since", "2d", "--until", "30m")["lines"] == []
    (whole,) = asked("usage", "--by", "provider", "--since", "2020-01-01")["lines"]
    assert whole["total_requests"] == 4


def test_an_alias_means_its_model(ledger: Path) -> None:
    lines = asked("usage", "--by", "key", "--model", f"models/{MODEL}")["lines"]
    assert sum(one["total_requests"] for one in lines) == 2


def test_a_time_that_is_none_is_a_wrong_argument(ledger: Path) -> None:
    result = run("usage", "--since", "soon")
    assert result.exit_code == 2
    assert "such as 24h or 7d" in result.stderr
    assert run("usage", "--by", "colour").exit_code == 2


def test_without_a_ledger_nothing_is_made_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    result = run("usage")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no usage ledger at" in result.stderr
    assert not (tmp_path / "state").exists()
    assert asked("usage")["lines"] == []
    monkeypatch.setenv("HEADGATE_USAGE", "off")
    assert "No usage ledger is kept (HEADGATE_USAGE)" in run("usage").stderr


def test_a_ledger_that_is_none_ends_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "text.db"
    path.write_text("no database at all, and long enough to be read as one " * 40)
    monkeypatch.setenv("HEADGATE_USAGE", str(path))
    result = run("usage")
    assert result.exit_code == 3
    assert "move the damaged file away" in result.stderr


def test_control_characters_of_a_callers_name_do_not_reach_the_screen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADGATE_USAGE", str(tmp_path / "usage.db"))
    store = SqliteUsage(tmp_path / "usage.db")
    store.write([row(1, caller="\x1b]0;owned\x07[bold]x", call="success")])
    store.close()
    shown = run("usage", "--by", "caller").stdout
    assert "\x1b" not in shown
    assert "[bold]x" in shown


def test_status_asks_the_upstream_and_tells_the_last_day(ledger: Path, upstream: InThread) -> None:
    result = run("backend", "status")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith(MODEL))
    assert line.split()[1:3] == ["healthy", "1"]
    assert "degraded" in next(one for one in result.stdout.splitlines() if one.startswith("gemini-x"))
    assert "1, of 1 project" in result.stdout
    assert "belong to the process that runs" in result.stderr
    found = asked("backend", "status")
    first = found["models"][0]
    assert (first["model"], first["health"], first["requests_24h"]) == (MODEL, "healthy", 1)
    assert (found["keys"], found["ledger"]) == (1, str(ledger))


def test_status_offline_asks_nobody(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEYS", f"{KEY}|primary|alpha")
    monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", "http://127.0.0.1:1")
    found = asked("backend", "status", "--offline")
    assert {one["health"] for one in found["models"]} == {None}
    result = run("backend", "status")
    assert result.exit_code == 6  # nobody answers there
    assert "unhealthy" in result.stdout


def test_status_without_a_key_says_where_keys_come_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("backend", "status")
    assert result.exit_code == 3
    assert "GEMINI_API_KEYS" in result.stderr
