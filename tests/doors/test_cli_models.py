"""`headgate models`: list, info, recommend and check, as people and programs meet them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from headgate.cli.main import app
from headgate.emulator import Emulator, EmulatorConfig, InThread, Project
from headgate.emulator import Model as Rude

KEY = "AIza-CANARY-models-0000000000"
MODEL = "gemini-3.8-flash"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert "CANARY" not in result.output
    assert "Traceback" not in result.output
    return result


def asked(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[InThread]:
    config = EmulatorConfig(projects=[Project("alpha", {"primary": KEY})])
    with InThread(Emulator(config)) as emulator:
        monkeypatch.setenv("GEMINI_API_KEYS", f"{KEY}|primary|alpha")
        monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", emulator.base_url)
        yield emulator


def test_list_shows_living_models_newest_first_and_says_how_old_the_data_is() -> None:
    result = run("list", "--offline")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["model", "released"]
    names = [line.split()[0] for line in lines[1:]]
    assert names.index("gemini-3.8-flash") < names.index("gemini-3.5-flash")
    assert "gemini-2.0-flash" not in names
    assert "From the package alone, of 2026-" in result.stderr
    assert "shut down: see --all." in result.stderr


def test_list_all_shows_the_dead_with_their_successors() -> None:
    result = run("list", "--offline", "--all")
    line = next(line for line in result.stdout.splitlines() if line.startswith("gemini-2.0-flash-exp"))
    assert "shut down 2026-06-01 → gemini-3.5-flash-lite" in line


def test_list_as_json_has_sources_and_whole_cards() -> None:
    found = asked("list", "--offline")
    assert found["sources"]["discovered_at"] is None
    card = next(card for card in found["models"] if card["id"] == MODEL)
    assert card["release_date"] == "2026-09-02"
    assert card["pricing"]["input_per_million"] > 0
    assert card["provenance"]["release_date"] == "shipped"


def test_list_without_a_key_works_from_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEYS", raising=False)
    result = run("list")
    assert result.exit_code == 0
    assert MODEL in result.stdout


def test_list_asks_the_upstream_where_it_can(upstream: InThread) -> None:
    found = asked("list")
    assert found["sources"]["discovered"] > 10
    assert found["sources"]["discovered_at"].endswith("+00:00")
    card = next(card for card in found["models"] if card["id"] == MODEL)
    assert card["provenance"]["version"] == "discovered"


def test_info_shows_who_told_what() -> None:
    result = run("info", "gemini-flash-latest", "--offline")
    assert result.exit_code == 0
    assert "gemini-3.8-flash" in result.stdout
    assert "shipped" in result.stdout
    assert "temperature" in result.stdout
    assert asked("info", MODEL, "--offline")["model"]["capabilities"]["supports_temperature"] is False


def test_what_an_upstream_says_neither_marks_up_nor_moves_the_cursor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rude = Rude(id="gemini-9-rude", display_name="[/red]\x1b[2Jhello [bold]\u009b0m")
    config = EmulatorConfig(projects=[Project("alpha", {"primary": KEY})], models=[rude])
    with InThread(Emulator(config)) as emulator:
        monkeypatch.setenv("GEMINI_API_KEYS", KEY)
        monkeypatch.setenv("HEADGATE_GEMINI_BASE_URL", emulator.base_url)
        result = run("info", "gemini-9-rude")
    assert result.exit_code == 0, result.output
    assert "[/red]" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\u009b" not in result.stdout


def test_info_of_an_unknown_model_names_the_nearest() -> None:
    result = run("info", "gemini-3.8-flahs", "--offline")
    assert result.exit_code == 5
    assert result.stdout == ""
    assert f"Did you mean {MODEL}" in result.stderr


def test_recommend_ranks_with_reasons() -> None:
    result = run("recommend", "translate", "menus", "--offline")
    assert result.exit_code == 0
    assert "for translation" in result.stdout
    ranked = asked(
        "recommend", "coding", "--needs", "function_calling", "--budget", "0.003", "--offline"
    )
    assert ranked[0]["reasons"][0].startswith("for coding")
    assert all(one["cost_per_call"] <= 0.003 for one in ranked)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("zebra",), 5, "Use cases that are known: "),
        (("coding", "--budget", "0"), 5, "within these limits"),
        (("coding", "--needs", "telepathy"), 5, "telepathy is no capability"),
        (("the",), 5, "says nothing"),
        (("coding", "--budget", "-1"), 2, "-1.0 is not"),
        ((), 2, "Missing argument"),
    ],
)
def test_recommend_says_what_is_wrong(arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run("recommend", *arguments, "--offline")
    assert result.exit_code == code
    assert said in result.stderr


def test_check_asks_without_spending_and_fails_if_one_is_missing(upstream: InThread) -> None:
    result = run("check", MODEL, "gemini-flash-latest")
    assert result.exit_code == 0, result.output
    assert f"means {MODEL}" in result.stdout
    assert upstream.report().projects["alpha"].totals.charged_requests == 0
    missing = run("check", MODEL, "gemini-3.8-flahs", "--json")
    assert missing.exit_code == 5
    assert [one["available"] for one in json.loads(missing.stdout)] == [True, False]
    assert MODEL in json.loads(missing.stdout)[1]["remark"]
    assert "not there" in run("validate", "gemini-3.8-flahs").stdout


def test_check_with_probe_generates_a_token(upstream: InThread) -> None:
    assert run("check", MODEL, "--probe").exit_code == 0
    assert upstream.report().projects["alpha"].totals.charged_requests == 1


def test_check_without_a_key_says_where_one_may_stand() -> None:
    result = run("check", MODEL)
    assert result.exit_code == 3
    assert "GEMINI_API_KEYS" in result.stderr
