"""`headgate serve` over a file of callers, which another process writes meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.callers import canary_key, dollars, limits
from tests.gateway import GEMINI_KEYS

from headgate.emulator import Emulator, EmulatorConfig, Project
from headgate.gateway.caller_book import CallerSpec
from headgate.gateway.caller_opening import open_book
from headgate.wiring.clock import SystemClock
from headgate.wiring.gateway_settings import GatewaySettings

MODEL = "gemini-3.5-flash"
BODY = json.dumps({
    "contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 50}
}).encode()  # fmt: skip


def post(url: str, key: str) -> tuple[int, dict[str, str]]:
    headers = {"content-type": "application/json", "x-goog-api-key": key}
    asked = urllib.request.Request(  # noqa: S310 - of the test's own server
        f"{url}/gemini/v1beta/models/{MODEL}:generateContent", BODY, headers, method="POST"
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {name.lower(): value for name, value in error.headers.items()}


def test_callers_are_made_charged_and_ended_while_the_gateway_runs(tmp_path: Path) -> None:
    """Issue 5, item 2: made by one process, known to another; what it spent outlives both."""
    with Emulator(
        EmulatorConfig(projects=[Project("alpha", {"g1": GEMINI_KEYS[0]})])
    ).in_thread() as emulator:
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|g1",
            "HEADGATE_GEMINI_BASE_URL": emulator.base_url,
            "HEADGATE_CALLERS": "callers.db",
            "HEADGATE_GATEWAY_LINGER_SECONDS": "0",
        }
        opened = open_book(
            GatewaySettings(callers_file=str(tmp_path / "callers.db")), SystemClock(), environ
        )
        assert opened is not None
        book, store = opened
        book._new_key = canary_key
        process = subprocess.Popen(
            [sys.executable, "-m", "headgate", "serve", "--port", "0"],
            env=environ, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found is not None, line + process.stderr.read()
            assert post(found[0], "CANARY-nobody")[0] == 401
            spec = CallerSpec("ann", budget=dollars(1), limits=limits(rpm=3))
            key = str(asyncio.run(book.create(spec)).key)
            time.sleep(0.6)  # noqa: TID251 - a process of its own has a clock of its own
            answers = [post(found[0], key) for _ in range(4)]
            assert [status for status, _ in answers] == [200, 200, 200, 429]
            assert answers[0][1]["ratelimit-policy"] == '"requests-per-minute";q=3;w=60'
            asyncio.run(book.revoke("ann"))
            time.sleep(0.6)  # noqa: TID251 - likewise
            assert post(found[0], key)[0] == 401
            process.send_signal(signal.SIGTERM)
            said = line + process.stderr.read()
            assert process.wait(timeout=20) == 0
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
        assert "callers.db" in said
        assert key not in said
        assert "Traceback" not in said
        usage = asyncio.run(book.usage("ann"))
        store.close()
    assert usage.sums is not None
    assert usage.sums.requests == 3
    assert usage.spending.spent == usage.sums.cost > 0
    assert usage.spending.held == 0
