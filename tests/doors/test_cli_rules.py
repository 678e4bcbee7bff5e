"""What holds for every command: exit codes, help, pipes, terminals, interrupts; and the emulator's."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import openai
import pytest
from typer.testing import CliRunner

from headgate.claude import ResilientClaudeClient
from headgate.cli import main
from headgate.cli.exits import MEANINGS, ExitCode, exit_code
from headgate.cli.main import EXAMPLES, app
from headgate.core.errors import HeadgateError
from headgate.core.outcome import RULES
from headgate.gemini import ResilientGeminiClient
from headgate.wiring.openai import load_openai

REFERENCE = Path(__file__).parents[2] / "docs/reference/cli.md"
COMMANDS = (
    "ask", "embed", "keys", "models list", "models info", "models recommend", "models check",
    "serve", "env", "callers create", "emulator", "demo", "config check",
)  # fmt: skip
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9;]*m")


def environment(**changes: str) -> dict[str, str]:
    """The process environment without settings or keys."""
    dropped = ("GEMINI_", "GOOGLE_", "HEADGATE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}  # noqa: TID251
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        kept.pop(name, None)
    return {**kept, **changes}


def start(*arguments: str, **changes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headgate", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**changes),
    )


def on_terminal(*arguments: str, **changes: str) -> tuple[int, bytes]:
    """Exit code and output of a command whose stdout and stderr are a terminal."""
    return python_on_terminal("-m", "headgate", *arguments, **changes)


def python_on_terminal(*arguments: str, **changes: str) -> tuple[int, bytes]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(TERM="xterm-256color", **changes),
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    return process.wait(), seen


# ── exit codes ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", sorted({rule.public_kind for rule in RULES.values()}))
def test_every_kind_of_error_has_an_exit_code_of_its_own(kind: str) -> None:
    if kind not in ("success", "cancelled"):
        assert exit_code(HeadgateError("x", kind=kind)) is not ExitCode.FAILURE


def error_classes(root: type[HeadgateError]) -> list[type[HeadgateError]]:
    found = [root]
    for cls in root.__subclasses__():
        if cls.__module__.startswith("headgate."):
            found += error_classes(cls)
    return found


@pytest.mark.parametrize("cls", error_classes(HeadgateError)[1:])
def test_every_error_class_has_an_exit_code_of_its_own(cls: type[HeadgateError]) -> None:
    if cls.default_kind not in ("gemini", "claude"):  # bases of doors, never raised themselves
        assert exit_code(HeadgateError("x", kind=cls.default_kind)) is not ExitCode.FAILURE


def test_an_unexpected_failure_ends_with_1_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEYS", "CANARY-key-0000000000")
    monkeypatch.setattr(ResilientGeminiClient, "get_key_metrics", lambda self: 1 / 0)
    result = CliRunner().invoke(app, ["keys"])
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in CliRunner().invoke(app, ["keys", "--verbose"]).stderr


# ── help ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_and_has_examples(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    examples = EXAMPLES[command or "headgate"]
    assert all(example in result.stdout for example in examples)


def test_help_on_a_terminal_of_80_columns_breaks_no_line() -> None:
    """Of all commands in one process, whose imports take far longer than its help."""
    asked = [[*command.split(), "--help"] for command in ("", *COMMANDS)]
    program = (
        "from headgate.cli.main import app\n"
        f"for words in {asked!r}:\n"
        "    print('=====', words)\n"
        "    app(words, prog_name='headgate', standalone_mode=False)\n"
    )
    code, seen = python_on_terminal("-c", program, COLUMNS="80")
    assert code == 0
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).decode()
    helps = text.split("=====")[1:]
    assert len(helps) == len(asked)
    for told in helps:
        assert max(map(len, told.splitlines())) <= 80, told
        assert "Examples" in told


def test_a_misspelt_command_or_option_gets_a_suggestion() -> None:
    wrong_command = CliRunner().invoke(app, ["aks"])
    wrong_option = CliRunner().invoke(app, ["keys", "--chek"])
    assert (wrong_command.exit_code, wrong_option.exit_code) == (2, 2)
    assert "Did you mean 'ask'" in wrong_command.stderr
    assert "--check" in wrong_option.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("headgate 0.")


def test_help_needs_neither_the_http_library_nor_the_client() -> None:
    check = (
        "import sys; from headgate.cli import main; "
        "sys.exit(bool({'aiohttp', 'headgate.gemini', 'headgate.emulator'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_command_that_was_asked_for_is_all_that_is_imported() -> None:
    """Most of what a short command takes is imports."""
    check = (
        "import sys; from headgate.cli.main import application; application(['env']); "
        "sys.exit(bool({'headgate.engine', 'headgate.backend', 'headgate.cli.ask'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize("asked", [["ask"], ["models", "list"], ["config", "check"]])
def test_a_command_alone_has_the_help_that_it_has_among_all(asked: list[str]) -> None:
    alone = CliRunner().invoke(main.application(asked), [*asked, "--help"])
    among = CliRunner().invoke(app, [*asked, "--help"])
    assert (alone.exit_code, alone.stdout) == (0, among.stdout)


def test_the_entry_point_runs_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["headgate", "--version"])
    with pytest.raises(SystemExit) as left:
        main.run()
    assert left.value.code == 0
    assert "headgate" in capsys.readouterr().out


# ── pipes, interrupts, terminals ────────────────────────────────────────────────────────────────────


def test_a_closed_pipe_ends_quietly_with_141() -> None:
    process = start("keys", GEMINI_API_KEYS="CANARY-key-0000000000|one")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    talk = process.stderr.read()
    assert process.wait() == ExitCode.BROKEN_PIPE
    assert "Broken" not in talk
    assert "Traceback" not in talk
    process.stderr.close()


def test_an_interrupt_ends_with_130_without_a_traceback() -> None:
    process = start("demo")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in talk


def test_a_terminal_gets_a_moving_picture_in_colour_no_wider_than_itself() -> None:
    code, seen = on_terminal("demo", "--prompts", "8", COLUMNS="80", LINES="24")
    assert code == 0
    assert COLOUR.search(seen)
    assert b"\x1b[?25h" in seen  # the cursor is shown again
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen).decode()
    assert "8 of 8 prompts answered" in text
    assert max(len(line) for line in re.split(r"[\r\n]+", text)) <= 80


def test_no_color_is_respected_on_a_terminal() -> None:
    code, seen = on_terminal("demo", "--prompts", "4", NO_COLOR="1")
    assert code == 0
    assert not COLOUR.search(seen)


# ── the emulator's command ──────────────────────────────────────────────────────────────────────────


def test_the_emulator_prints_what_to_export_serves_and_reports_at_the_end() -> None:
    process = start("emulator", "--port", "0", "--json")
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    exports = ready["environment"]
    assert exports["HEADGATE_GEMINI_BASE_URL"] == exports["GOOGLE_GEMINI_BASE_URL"] == ready["base_url"]
    assert exports["GEMINI_API_KEYS"].startswith(exports["GOOGLE_API_KEY"])
    asked = subprocess.run(
        [sys.executable, "-m", "headgate", "ask", "Hello"],
        env=environment(**exports),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (asked.returncode, bool(asked.stdout)) == (0, True)
    process.send_signal(signal.SIGTERM)
    out, talk = process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["totals"]["answered"] == 1
    for name in ("HEADGATE_GEMINI_BASE_URL", "GEMINI_API_KEYS", "GOOGLE_GEMINI_BASE_URL"):
        assert f"export {name}='{exports[name]}'" in talk


def test_the_emulator_prints_what_leads_a_claude_client_to_its_organisations() -> None:
    process = start("emulator", "--port", "0", "--json")
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    exports = ready["environment"]
    client = ResilientClaudeClient(environ=exports)
    assert client.message_text_sync("Hello")
    organisations = {key["organisation"] for key in client.get_key_metrics()["keys"]}
    client.close()
    process.send_signal(signal.SIGTERM)
    out, talk = process.communicate()
    report = json.loads(out)["organisations"]
    assert set(report) == organisations
    assert sum(row["totals"]["answered"] for row in report.values()) == 1
    assert "Emulated Claude on" in talk
    assert exports["ANTHROPIC_BASE_URL"] == exports["HEADGATE_ANTHROPIC_BASE_URL"] == ready["base_url"]
    assert exports["ANTHROPIC_API_KEYS"].startswith(exports["ANTHROPIC_API_KEY"])
    for name in ("HEADGATE_ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEYS", "ANTHROPIC_BASE_URL"):
        assert f"export {name}='{exports[name]}'" in talk


def test_the_emulator_prints_what_leads_the_openai_sdk_to_it() -> None:
    process = start("emulator", "--port", "0", "--json")
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    exports = ready["environment"]
    addresses = {exports["OPENAI_BASE_URL"], exports["HEADGATE_OPENAI_BASE_URL"]}
    assert addresses == {f"{ready['base_url']}/v1"}
    with openai.OpenAI(
        api_key=exports["OPENAI_API_KEY"], base_url=exports["OPENAI_BASE_URL"], max_retries=0
    ) as client:
        assert client.models.list().data
    settings = load_openai(environ=exports)
    process.send_signal(signal.SIGTERM)
    out, talk = process.communicate()
    report = json.loads(out)["openai"]
    assert set(report) == {key.domain for key in settings.keys}
    assert sum(row["totals"]["answered"] for row in report.values()) == 1
    assert "Emulated OpenAI on" in talk
    assert f"export OPENAI_API_KEYS='{exports['OPENAI_API_KEYS']}'" in talk


def test_the_emulator_reads_its_file_hides_its_keys_and_writes_the_report(tmp_path: Path) -> None:
    config, report = tmp_path / "e.toml", tmp_path / "r.json"
    config.write_text(
        'minute_seconds = 5.0\n[[projects]]\nname = "p"\n[projects.keys]\nk = "CANARY-key-1"\n'
    )
    process = start("emulator", "--config", str(config), "--port", "0", "--report", str(report))
    assert process.stderr is not None
    first = process.stderr.readline()
    base_url = re.search(r"http://[\d.:]+\d", first)
    assert base_url is not None
    with urllib.request.urlopen(f"{base_url[0]}/emulator/report") as answer:  # noqa: S310
        assert json.load(answer)["minute_seconds"] == 5
    process.send_signal(signal.SIGINT)
    out, talk = process.communicate()
    assert process.returncode == 0
    assert not out
    assert "CANARY" not in talk
    assert "ANTHROPIC" not in talk
    assert json.loads(report.read_text())["projects"]["p"]["keys"]["k"]


def test_an_emulator_that_cannot_start_ends_with_3(tmp_path: Path) -> None:
    config = tmp_path / "e.toml"
    config.write_text("projects = 3\n")
    result = CliRunner().invoke(app, ["emulator", "--config", str(config)])
    assert result.exit_code == 3
    assert "projects" in result.stderr


# ── the reference page ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_has_every_option_of_every_command(command: str) -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    section = page.split(f"## headgate {command}\n")[1].split("\n## ")[0]
    shown = CliRunner().invoke(app, [*command.split(), "--help"]).stdout
    for option in re.findall(r"--[a-z][a-z-]+", shown.split("Examples")[0]):
        if option != "--help":
            assert f"`{option}" in section, option


@pytest.mark.parametrize("code", list(ExitCode))
def test_the_reference_has_every_exit_code_with_its_meaning(code: ExitCode) -> None:
    assert f"| {code.value} | {MEANINGS[code]} |" in REFERENCE.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_the_reference_has_every_example_of_the_help(command: str) -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    assert all(example in page for example in EXAMPLES[command])
