"""`headgate callers`, as an operator types it."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from headgate.cli.main import app
from headgate.stores.callers_sqlite import SqliteCallers

KEY = "hgk_CANARY-cli-0123456789-abcdefghijklmnopqrstu{}"


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["callers", *arguments])
    assert "Traceback" not in result.output
    assert result.exit_code == code, result.output
    return result


def told(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of callers; keys that are issued are canaries."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "callers.db"
    monkeypatch.setenv("HEADGATE_CALLERS", f"sqlite://{made}")
    numbers = iter("123456789")
    monkeypatch.setattr(
        "headgate.gateway.caller_opening.secrets.token_hex",
        lambda size: KEY.format(next(numbers))[4:] if size == 24 else f"{id(object()):016x}",
    )
    return made


def test_a_caller_from_its_making_to_its_end(path: Path) -> None:
    result = run("create", "search", "--rpm", "120", "--budget", "25", "--tag", "team=search")
    assert result.stdout == KEY.format(1) + "\n"
    assert "shown this once" in result.stderr
    head, row = run("list").stdout.splitlines()
    assert head.split()[:3] == ["caller", "state", "key"]
    assert row.split()[:3] == ["search", "active", "…stu1"]
    assert "120" in row
    assert "$25.00 a month" in row
    rotated = told("rotate", "search", "--grace", "7d")
    assert rotated["key"] == KEY.format(2)
    assert [key["ending"] for key in rotated["keys"]] == ["stu2", "stu1"]
    assert rotated["keys"][1]["until"] is not None
    changed = told("set-limits", "search", "--rpm", "none", "--tpm", "5000", "--window", "day",
                   "--model", "gemini-3*", "--surface", "gemini", "--priority", "low")  # fmt: skip
    assert changed["limits"] == {
        "requests_per_minute": 0, "tokens_per_minute": 5000, "requests_per_day": None,
        "concurrent": None,
    }  # fmt: skip
    assert changed["budget"] == {"amount": 25 * 10**9, "dollars": 25.0, "window": "day"}
    assert (changed["models"], changed["surfaces"]) == (["gemini-3*"], ["gemini"])
    assert (changed["priority"], changed["tags"]) == ("low", {"team": "search"})
    lifted = told("set-limits", changed["id"], "--budget", "none", "--model", "all", "--tpm", "default")
    assert (lifted["budget"], lifted["models"], lifted["surfaces"]) == (None, [], ["gemini"])
    assert lifted["limits"]["tokens_per_minute"] is None
    assert "may not call any more" in run("revoke", "search").stderr
    assert told("show", "search")["state"] == "revoked"


def test_no_key_is_kept_anywhere(path: Path) -> None:
    """X-7: neither the file, nor what lies beside it, nor any answer but the first has the key."""
    key = run("create", "ann").stdout.strip()
    run("rotate", "ann")
    said = "".join(run(*words).output for words in (("list",), ("show", "ann"), ("list", "--json")))
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for form in (key, key[4:], key[:16], key[-12:]):
        assert form not in said
        assert form.encode() not in held
    digest = sha256(key.encode()).hexdigest()
    assert digest.encode() in held
    assert digest not in said


def test_what_was_used_is_told(path: Path) -> None:
    told("create", "ann", "--budget", "0.5", "--window", "day")
    usage = told("show", "ann")["usage"]
    assert (usage["budget"], usage["left"], usage["window"]) == (500_000_000, 500_000_000, "day")
    assert "Of $0.50 (day)" in run("show", "ann").stderr
    told("create", "bob")
    assert told("show", "bob")["usage"]["budget"] is None


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--rpm", "0"), "--rpm takes a whole number"),
        (("--concurrent", "many"), "--concurrent takes"),
        (("--budget", "-1"), "--budget takes an amount in dollars above 0"),
        (("--budget", "much"), "--budget takes an amount in dollars, such as"),
        (("--budget", "1", "--window", "year"), "--window takes day, month, total"),
        (("--priority", "urgent"), "--priority takes critical"),
        (("--expires", "soon"), "--expires takes how long"),
        (("--tag", "team"), "--tag takes NAME=VALUE"),
    ],
)
def test_a_wrong_option_says_what_it_takes(path: Path, words: tuple[str, ...], hint: str) -> None:
    assert hint in " ".join(run("create", "ann", *words, code=2).stderr.split())
    assert run("list", "--json").stdout.count('"name"') == 0


def test_what_cannot_be_says_why(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("create", "ann")
    assert "names are not used again" in run("create", "ann", code=5).stderr
    assert "no caller 'bob'" in run("show", "bob", code=5).stderr
    assert "name takes 1 to 64" in run("create", "|", code=5).stderr
    assert "such as *-flash*" in run("create", "x", "--model", "a b", code=5).stderr
    assert "gemini, anthropic, openai" in run("create", "x", "--surface", "azure", code=5).stderr
    assert "still to come" in run("create", "x", "--expires", "2020-01-01", code=5).stderr
    assert "90 days" in run("rotate", "ann", "--grace", "52w", code=5).stderr
    assert "give --budget" in run("set-limits", "ann", "--window", "day", code=2).stderr
    run("revoke", "ann")
    assert "for good" in run("rotate", "ann", code=5).stderr
    monkeypatch.setenv("HEADGATE_CALLERS", str(tmp_path / "nowhere" / "callers.db"))
    assert "folder does not exist" in run("list", code=3).stderr
    monkeypatch.setenv("HEADGATE_CALLERS", "postgresql://host/database")
    assert "sqlite:///var/lib" in run("list", code=3).stderr
    monkeypatch.delenv("HEADGATE_CALLERS")
    assert "names no file" in run("list", code=3).stderr


def test_callers_of_the_environment_are_named_and_their_names_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_CALLER_KEYS", "CANARY-key-of-the-environment|fixed")
    assert "HEADGATE_CALLER_KEYS has besides: fixed" in run("list").stderr
    assert told("list") == {"callers": [], "fixed": ["fixed"]}
    assert "Choose another name" in run("create", "fixed", code=5).stderr


def test_an_expiry_is_an_instant_or_a_while(path: Path) -> None:
    assert told("create", "a", "--expires", "2100-01-01")["expires"] == "2100-01-01T00:00:00+00:00"
    assert told("create", "b", "--expires", "30d")["expires"] is not None
    assert told("set-limits", "b", "--expires", "never")["expires"] is None
    store = SqliteCallers(path)
    assert [one.name for one in store.page("", 9)] == ["a", "b"]
    store.close()
