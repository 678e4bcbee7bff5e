"""`headgate codegen …`, against an emulator in a thread and in a terminal."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pty
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.codegen import ORG, SECRET, TOKEN, team
from typer.testing import CliRunner, Result

from headgate.cli.main import app
from headgate.emulator import Emulator, EmulatorConfig, InThread


def run(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, ["codegen", *arguments], input=stdin)
    assert "CANARY" not in result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[InThread]:
    config = EmulatorConfig(codegen=[team(run_seconds=0.0, runs=3, limited=False)])
    with Emulator(config).in_thread() as running:
        monkeypatch.setenv("CODEGEN_API_TOKEN", TOKEN)
        monkeypatch.setenv("CODEGEN_ORG_ID", str(ORG))
        monkeypatch.setenv("CODEGEN_BASE_URL", f"{running.base_url}/v1")
        monkeypatch.chdir(tmp_path)
        yield running


def test_run_prints_one_line(upstream: InThread) -> None:
    result = run("run", "Fix", "it", "--repo", "1", "--metadata", "a=b=c", "--agent", "codegen")
    assert result.exit_code == 0
    assert result.stdout.split()[0] == "1004"
    shown = json.loads(run("list", "--limit", "1", "--json").stdout)
    assert (shown[0]["id"], shown[0]["metadata"]) == (1004, {"a": "b=c"})


def test_run_waits_and_shows_the_log(upstream: InThread) -> None:
    result = run("run", "Fix it", "--wait", "--logs")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("1004  COMPLETE")
    assert "ready for review" in result.stdout
    assert "USER_MESSAGE  Fix it" in result.stderr
    assert "FINAL_ANSWER" in result.stderr


def test_run_takes_its_prompt_from_stdin(upstream: InThread) -> None:
    result = run("run", "-", "--json", stdin="Do what stands here")
    assert json.loads(result.stdout)["organization_id"] == ORG
    assert "Do what stands here" in run("logs", "1004").stdout


def test_a_run_that_failed_has_an_exit_code_of_its_own(upstream: InThread) -> None:
    made = run("run", "x", "--metadata", "a=1")
    assert made.exit_code == 0
    emulated: Any = upstream._emulator
    emulated.codegen.desk.worlds["acme"].add_run("y", 1_795_000_000.0, seconds=0, ending="FAILED")
    result = run("wait", "1005", "--json")
    assert result.exit_code == 8
    assert json.loads(result.stdout)["status"] == "FAILED"
    assert "without success" in result.stderr


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_logs_as_json_lines(follow: tuple[str, ...], upstream: InThread) -> None:
    run("run", "Fix it", "--wait")
    lines = run("logs", "1004", "--json", *follow).stdout.splitlines()
    kinds = [json.loads(line)["message_type"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("USER_MESSAGE", "FINAL_ANSWER")


def test_list_is_a_table_newest_first(upstream: InThread) -> None:
    lines = run("list", "--limit", "2").stdout.splitlines()
    assert lines[0].split() == ["run", "status", "created", "source", "address"]
    assert [line.split()[0] for line in lines[1:]] == ["1003", "1002"]
    assert json.loads(run("list", "--source", "SLACK", "--json").stdout) == []


def test_bulk_from_a_file_and_again(upstream: InThread, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.write_text('One\n\n{"prompt": "Two", "metadata": {"x": 1}}\nThree\n')
    first = run("bulk", "tasks", "--journal", "j", "--workers", "1")
    assert (first.exit_code, [line.split()[0] for line in first.stdout.splitlines()]) == (
        0, ["1004", "1005", "1006"],
    )  # fmt: skip
    again = run("bulk", "tasks", "--journal", "j", "--json")
    assert [entry["id"] for entry in json.loads(again.stdout)["results"]] == [1004, 1005, 1006]
    assert len(json.loads(run("list", "--json").stdout)) == 6


def test_bulk_tells_what_failed(upstream: InThread) -> None:
    result = run("bulk", "-", stdin='One\n{"prompt": ""}\n')
    assert result.exit_code == 8
    assert "line 2: ValidationError" in result.stderr
    assert "1 of 2 runs created" in result.stderr
    fast = run("bulk", "-", "--fail-fast", "--workers", "1", "--json", stdin='{"prompt": ""}\nTwo\n')
    assert fast.exit_code == 8
    assert json.loads(fast.stdout)["successful_items"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run",), 2, "nothing to do"),
        (("run", "x", "--metadata", "novalue"), 2, "NAME=VALUE"),
        (("run", "x", "--agent", "human"), 5, "agent_type"),
        (("run", "x", "--org", "acme"), 5, "org_id"),
        (("wait", "99"), 5, "not found"),
        (("bulk", "missing"), 2, "cannot read"),
        (("bulk", "-"), 2, "no line"),
        (("list", "--limit", "0"), 2, "1 or more"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], code: int, said: str, upstream: InThread) -> None:
    result = run(*arguments, stdin="")
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


def test_settings_that_are_missing(upstream: InThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODEGEN_ORG_ID")
    assert run("list").exit_code == 3
    assert run("list", "--org", str(ORG)).exit_code == 0
    monkeypatch.delenv("CODEGEN_API_TOKEN")
    assert run("list", "--org", "1").exit_code == 7
    monkeypatch.setenv("CODEGEN_TIMEOUT", "soon")
    result = run("list")
    assert (result.exit_code, "CODEGEN_TIMEOUT" in result.stderr) == (3, True)
    assert run("webhook-listen").exit_code == 3


def test_an_upstream_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEGEN_API_TOKEN", TOKEN)
    monkeypatch.setenv("CODEGEN_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("CODEGEN_MAX_RETRIES", "0")
    result = run("list", "--org", "1")
    assert result.exit_code == 6
    assert "127.0.0.1:9" in result.stderr


def environment(**changes: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251
    return {**kept, "PYTHONUTF8": "1", **changes}


def test_a_bar_in_a_terminal(upstream: InThread, tmp_path: Path) -> None:
    """Only there: what is piped holds data alone."""
    (tmp_path / "tasks").write_text("One\nTwo\n")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "codegen", "bulk", "tasks"],
        stdin=slave, stdout=subprocess.PIPE, stderr=slave, cwd=tmp_path,
        env=environment(
            TERM="xterm-256color", CODEGEN_API_TOKEN=TOKEN, CODEGEN_ORG_ID=str(ORG),
            CODEGEN_BASE_URL=f"{upstream.base_url}/v1",
        ),
    )  # fmt: skip
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert b"2/2" in seen
    assert len(out.splitlines()) == 2


def post(url: str, body: bytes, **headers: str) -> int:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    request = urllib.request.Request(url, body, named, method="POST")  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_webhook_listen_prints_each_event_once() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "codegen", "webhook-listen", "--port", "0", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(CODEGEN_WEBHOOK_SECRET=SECRET),
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        url = next(word for word in said.split() if word.startswith("http")).rstrip(";")
        moment = datetime.now(UTC).isoformat()  # noqa: TID251 - another process reads a real clock
        body = json.dumps(
            {"event_type": "agent_run.completed", "timestamp": moment, "data": {"id": 5}}
        ).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        statuses = [post(url, body, X_Hub_Signature_256=f"sha256={signature}") for _ in range(2)]
        assert [*statuses, post(url, body), post(url + "/other", body)] == [200, 200, 401, 404]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    (line,) = out.splitlines()
    assert json.loads(line)["data"] == {"id": 5}
    assert "1 event, 1 repeated, 1 refused." in err
    assert "CANARY" not in out + err


def test_help_does_not_wait_for_pydantic() -> None:
    code = "import sys, headgate.cli.main; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_emulator_says_what_to_export() -> None:
    """And what it says works."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "emulator", "--port", "0", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        exports = json.loads(process.stdout.readline())["environment"]
        done = subprocess.run(
            [sys.executable, "-m", "headgate", "codegen", "run", "Fix it", "--json"],
            capture_output=True, text=True, check=False, env=environment(**exports),
        )  # fmt: skip
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=20)
    finally:
        process.kill()
    assert json.loads(done.stdout)["organization_id"] == 1
    assert f"export CODEGEN_BASE_URL='{exports['CODEGEN_BASE_URL']}'" in talk
