"""`headgate explain`, and the usage ledger that `headgate serve` keeps: from a call to its story."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import CALLER_KEY, GEMINI_KEYS
from tests.unit.test_usage_ledger import row
from typer.testing import CliRunner, Result

from headgate.cli.main import app
from headgate.emulator import Emulator, EmulatorConfig, InThread, Project
from headgate.stores.usage_sqlite import SqliteUsage

MODEL = "gemini-3.5-flash"
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
BODY = json.dumps({"contents": [{"parts": [{"text": "How does a headgate work?"}]}]})
CALLER = {"content-type": "application/json", "x-goog-api-key": CALLER_KEY}
CONFIG = EmulatorConfig(
    projects=[Project("alpha", {"g1": GEMINI_KEYS[0]}), Project("beta", {"g2": GEMINI_KEYS[1]})]
)
NOON = 1_800_000_000.0


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
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "usage.db"
    monkeypatch.setenv("HEADGATE_USAGE", str(path))
    return path


def keep(path: Path, *rows: Any) -> None:
    store = SqliteUsage(path)
    store.write(rows)
    store.close()


def attempt(number: int, **changes: object) -> Any:
    values = {"request_id": "abc", "attempt": number, "model": MODEL, "caller": "ann", "key_name": "g1"}
    return row(1, **{**values, "domain": "alpha", "at": NOON, **changes})


# ── what is shown ───────────────────────────────────────────────────────────────────────────────────


def test_a_call_with_a_refusal_a_wait_and_an_answer(ledger: Path) -> None:
    keep(
        ledger,
        attempt(1, at=NOON + 1, result="quota", error="rate_limit", cost=0, input_tokens=0,
                output_tokens=0),
        attempt(2, at=NOON + 4, key_name="g2", domain="beta", duration=1.0, cost=12_345_000,
                input_tokens=1200, output_tokens=34, call="success", call_seconds=4.0, retries=1),
        row(7, call="success"),
    )  # fmt: skip
    result = run("explain", " abc ")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "Request abc was answered after 4.00 s: 2 attempts, 1 retry."
    assert lines[1] == f"gemini, {MODEL}, generate, caller ann, 2027-01-15 08:00:04"
    assert lines[2:5] == [
        "cache: not asked",
        "cost: $0.012345, for 1,200 tokens in, 34 out",
        "outside of attempts: 2.50 s (waits for a key, a turn or a retry, which are not kept one by one)",  # noqa: E501
    ]
    assert lines[6] == "# began waited key project took result in out $"
    assert lines[7] == "1 08:00:00 0.50 s g1 alpha 0.50 s quota: rate_limit 0"
    assert lines[8] == "2 08:00:03 2.00 s g2 beta 1.00 s success 1,200 34 0.012345"
    assert len(lines) == 9
    assert str(ledger) in result.stderr

    found = asked("explain", "abc")
    assert found["attempts"][0]["waited"] == pytest.approx(0.5)
    assert [one["key_name"] for one in found["attempts"]] == ["g1", "g2"]
    assert (found["result"], found["cache"], found["retries"]) == ("success", "off", 1)
    assert found["cost"] == pytest.approx(0.012345)
    assert found["seconds_outside_attempts"] == pytest.approx(2.5)


def test_a_kept_reply_and_what_it_saved(ledger: Path) -> None:
    keep(
        ledger,
        attempt(0, duration=0.0, call="success", call_seconds=0.002, looked_up=True, from_cache=True,
                saved=2_000_000, cost=0),
    )  # fmt: skip
    shown = run("explain", "abc").stdout
    assert "was answered with a kept reply after 0.00 s: no attempt." in shown
    assert "cache: hit; it saved $0.002000" in shown
    assert "cost: nothing" in shown
    found = asked("explain", "abc")
    assert (found["cache"], found["saved"], found["attempts"]) == ("hit", 0.002, [])


def test_what_is_not_known_is_said(ledger: Path) -> None:
    """No price, tokens that were estimated, two models, attempts side by side, a call under way."""
    keep(
        ledger,
        attempt(1, at=NOON + 2, duration=2.0, cost=None, estimated=True, model="new", domain="key:g1"),
        attempt(2, at=NOON + 2.5, duration=1.0, cost=None, model="newer", domain="key:g1"),
    )
    shown = run("explain", "abc").stdout
    assert "has not ended, or its process was killed before it could say so" in shown
    assert "cost: unknown, for 20 tokens in, 10 out; ~ are estimates" in shown
    assert "outside of attempts" not in shown
    table = [line.split() for line in shown.splitlines()[-3:]]
    assert table[0] == ["#", "began", "waited", "key", "model", "took", "result", "in", "out", "$"]
    assert table[1][-3:] == ["~10", "~5", "?"]
    assert "beside" in table[2]
    found = asked("explain", "abc")
    assert (found["result"], found["seconds"], found["cache"]) == (None, None, None)
    assert (found["unpriced_attempts"], found["attempts"][0]["cost"]) == (2, None)


def test_a_failure_and_a_call_given_up(ledger: Path) -> None:
    keep(
        ledger,
        attempt(1, call="quota", result="quota", error="daily_quota", call_seconds=9.0, retries=2,
                looked_up=True),
        row(3, request_id="gone", call="cancelled", result="cancelled", call_seconds=1.0),
    )  # fmt: skip
    shown = run("explain", "abc").stdout
    assert "failed (quota) after 9.00 s: 1 attempt, 2 retries." in shown
    assert "cache: asked, and nothing fitted" in shown
    assert "was given up by its caller" in run("explain", "gone").stdout


def test_an_id_that_nobody_knows_is_told_in_clear_words(ledger: Path) -> None:
    keep(ledger, attempt(1, call="success"))
    result = run("explain", "ab", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"nothing is known of request 'ab' in {ledger}" in " ".join(result.stderr.split())
    assert "half a second" in result.stderr
    shown = run("explain", "\x1b]0;x\x07%' OR '1'='1").stderr
    assert "\x1b" not in shown
    assert "nothing is known" in shown


def test_to_look_makes_no_ledger_and_where_none_is_kept_that_is_said(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("explain", "abc").exit_code == 2
    assert not ledger.exists()
    monkeypatch.setenv("HEADGATE_USAGE", "off")
    result = run("explain", "abc")
    assert result.exit_code == 3
    assert "No usage ledger is kept (HEADGATE_USAGE)" in " ".join(result.stderr.split())


def test_names_do_not_reach_the_terminal_as_control_characters(ledger: Path) -> None:
    keep(ledger, attempt(1, caller="\x1b]0;owned\x07[bold]x", model="m\x1b[2J", call="success"))
    shown = run("explain", "abc").stdout
    assert "\x1b" not in shown
    assert "[bold]x" in shown


# ── from the gateway ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def upstream() -> Iterator[InThread]:
    with InThread(Emulator(CONFIG)) as emulator:
        yield emulator


@contextmanager
def serving(upstream: InThread, folder: Path, **environ: str) -> Iterator[tuple[Any, str]]:
    """`headgate serve` in a process of its own: the process, and where it is."""
    variables = {
        "PATH": "/usr/bin:/bin",
        "GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|g1|alpha,{GEMINI_KEYS[1]}|g2|beta",
        "HEADGATE_GEMINI_BASE_URL": upstream.base_url,
        "HEADGATE_GATEWAY_LINGER_SECONDS": "0",
        "HEADGATE_CALLER_KEYS": f"{CALLER_KEY}|ann",
        **environ,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "serve", "--port", "0"],
        env=variables, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found is not None, line + process.stderr.read()
        yield process, found[0].removeprefix("http://")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: Any) -> str:
    """What it says after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    said: str = process.stderr.read()
    assert process.wait(20) == 0, said
    assert "CANARY" not in said
    return said


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
def test_the_gateways_calls_are_in_the_ledger_when_it_has_ended(
    upstream: InThread, ledger: Path, tmp_path: Path, transport: str
) -> None:
    """One row an attempt, with caller and cost; nothing is lost by SIGTERM right after the answer."""
    environ = {"HEADGATE_USAGE": str(ledger), "HEADGATE_TRANSPORT": transport}
    with serving(upstream, tmp_path, **environ) as (process, address):
        upstream.script("overload")
        connection = HTTPConnection(address, timeout=20)
        connection.request("POST", GENERATE, BODY, CALLER)
        response = connection.getresponse()
        assert (response.status, response.read()[:1]) == (200, b"{")
        request_id = response.headers["x-headgate-request-id"]
        attempts = int(response.headers["x-headgate-attempts"])
        answered_by = response.headers["x-headgate-key"]
        connection.close()
        said = ended(process)
    assert f"Usage goes to {ledger}." in said

    found = asked("explain", request_id)
    assert (found["result"], found["caller"], found["provider"]) == ("success", "ann", "gemini")
    assert [one["attempt"] for one in found["attempts"]] == [1, 2] == list(range(1, attempts + 1))
    first, last = found["attempts"]
    assert (first["result"], last["result"]) == ("unavailable", "success")
    assert last["key_name"] == answered_by
    assert last["input_tokens"] > 0 < last["cost"] == found["cost"]
    (line,) = asked("usage", "--by", "caller")["lines"]
    assert (line["name"], line["total_requests"], line["failed_requests"]) == ("ann", 1, 0)
    assert line["total_cost"] == pytest.approx(found["cost"])
    shown = run("explain", request_id).stdout
    assert f"Request {request_id} was answered" in shown
    assert "2 attempts, 1 retry" in shown


def test_a_stream_that_is_cut_by_the_drain_is_in_the_ledger_too(
    upstream: InThread, ledger: Path, tmp_path: Path
) -> None:
    environ = {"HEADGATE_USAGE": str(ledger), "HEADGATE_GATEWAY_DRAIN_SECONDS": "0.2"}
    with serving(upstream, tmp_path, **environ) as (process, address):
        upstream.script("stall_mid", after=1)
        connection = HTTPConnection(address, timeout=20)
        connection.request("POST", STREAM, BODY, CALLER)
        response = connection.getresponse()
        assert response.readline().startswith(b"data:")
        ended(process)
        response.close()
        connection.close()
    found = asked("explain", response.headers["x-headgate-request-id"])
    assert (found["result"], found["operation"]) == ("cancelled", "stream")
    assert [one["estimated"] for one in found["attempts"]] == [True]
    assert found["attempts"][0]["input_tokens"] > 0


def test_rows_are_written_while_the_gateway_serves(
    upstream: InThread, ledger: Path, tmp_path: Path
) -> None:
    with serving(upstream, tmp_path, HEADGATE_USAGE=str(ledger)) as (process, address):
        connection = HTTPConnection(address, timeout=20)
        connection.request("POST", GENERATE, BODY, CALLER)
        request_id = connection.getresponse().headers["x-headgate-request-id"]
        connection.close()
        for _ in range(2000):
            if run("explain", request_id).exit_code == 0:
                break
            time.sleep(0.01)  # noqa: TID251 - another process has no virtual clock
        assert asked("explain", request_id)["result"] == "success"
        ended(process)


def test_a_ledger_that_cannot_be_opened_stops_no_call(upstream: InThread, tmp_path: Path) -> None:
    wrong = tmp_path / "no-such-folder" / "usage.db"
    with serving(upstream, tmp_path, HEADGATE_USAGE=str(wrong)) as (process, address):
        connection = HTTPConnection(address, timeout=20)
        connection.request("POST", GENERATE, BODY, CALLER)
        assert connection.getresponse().status == 200
        connection.close()
        said = ended(process)
    assert "cannot be opened" in said
    assert "usage=lost rows=1" in said


def test_without_a_ledger_it_says_so(upstream: InThread, tmp_path: Path) -> None:
    with serving(upstream, tmp_path, HEADGATE_USAGE="off") as (process, address):
        connection = HTTPConnection(address, timeout=20)
        connection.request("POST", GENERATE, BODY, CALLER)
        assert connection.getresponse().status == 200
        connection.close()
        assert "No usage ledger is kept." in ended(process)
