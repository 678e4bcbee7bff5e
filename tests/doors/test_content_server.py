"""`python -m headgate.content` as its users meet it: one process, from its first line to its end."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.content import form, ordered, picture
from tests.support import key

from headgate.emulator import Emulator, EmulatorConfig, InThread, Latency, Project

PATIENCE = 20.0


class Served:
    """The process, its log and its address."""

    def __init__(self, upstream: str, ledger: Path) -> None:
        environ = {
            "HEADGATE_USAGE": str(ledger),
            "GEMINI_API_KEY": key(0),
            "HEADGATE_GEMINI_BASE_URL": upstream,
            "REDIS_ENABLED": "false",
            "HEADGATE_CONTENT_LINGER_SECONDS": "1",
        }
        command = [sys.executable, "-m", "headgate.content", "--port", "0"]
        self.process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict[str, Any]] = []
        self.found: Queue[str] = Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.host, self.port = "", 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for text in log:
                line = json.loads(text)
                self.lines.append(line)
                if line["message"].startswith("serving address="):
                    self.found.put(line["message"].split()[1].removeprefix("address="))

    def wait(self) -> None:
        parts = urlsplit(self.found.get(timeout=PATIENCE))
        self.host, self.port = str(parts.hostname), int(parts.port or 0)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> tuple[int, Any]:
        connection = self.connection()
        sent = json.dumps(body) if isinstance(body, dict) else body
        given = headers or ({"content-type": "application/json"} if body else {})
        connection.request(method, path, sent, given)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        kind = answer.headers.get("content-type", "")
        return answer.status, json.loads(text) if kind == "application/json" else text.decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = Project("alpha", keys={"k0": key(0)})
    config = EmulatorConfig(projects=[project], latency=Latency(first_byte=0.4))
    with InThread(Emulator(config)) as emulator:
        one = Served(emulator.base_url, tmp_path_factory.mktemp("ledger") / "usage.sqlite3")
        try:
            one.wait()
            yield one
        finally:
            one.process.kill()
            one.process.wait()
            one.reader.join()


def test_s4_20_the_accepted_calls_run_and_s4_21_the_log_says_what_is_there(served: Served) -> None:
    said = [line["message"] for line in served.lines]
    for text in (
        "Quota tracker loaded successfully",
        "Prometheus metrics loaded successfully",
        "Prometheus metrics initialized - available at /metrics",
    ):
        assert text in said
    for path in ("/api/health", "/api/ready", "/api/quota/stats", "/metrics"):
        assert served.ask("GET", path)[0] == 200, path
    status, subtopics = served.ask("POST", "/api/create_subtopics", {"topic": "Python Programming"})
    assert (status, subtopics["count"]) == (200, 15)
    none = 'db_query_duration_seconds_count{query_type="write"} 0.0'
    for _ in range(50):  # the usage ledger is written by a thread of its own
        text = str(served.ask("GET", "/metrics")[1])
        if none not in text:
            break
        threading.Event().wait(0.1)
    assert 'db_query_duration_seconds_count{query_type="write"}' in text, "S4-28"
    assert none not in text
    body, headers = form(picture("PNG"))
    status, topic = served.ask("POST", "/api/image2topic", body, headers)
    assert status == 200
    assert topic["generated_topic"]


def test_s4_21_the_accepted_command_has_the_bounds_of_the_other(served: Served) -> None:
    connection = served.connection()
    connection.request("GET", "/api/ready", headers={"x-large": "x" * 70_000})
    assert connection.getresponse().status == 431
    connection.close()


def test_an_end_lets_what_is_under_way_go_on_and_says_so_first(served: Served) -> None:
    connection = served.connection()
    order = json.dumps(ordered(focus=[f"Part {number}" for number in range(6)]))
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    connection.request("POST", "/api/create_presentation", order, headers)
    answer = connection.getresponse()
    assert answer.readline() == b": begun\n"
    served.process.send_signal(signal.SIGTERM)
    status, ready = 200, {}
    while status == 200:  # it ends with an error when the port closes, a second after the signal
        status, ready = served.ask("GET", "/api/ready")
    assert (status, ready["draining"]) == (503, True)
    events = answer.read().decode()
    answer.close()
    connection.close()
    assert events.count("event: progress") == 6
    assert '"success_count":6' in events.rpartition("event: done")[2]
    assert served.process.wait(timeout=PATIENCE) == 0
    assert not [line for line in served.lines if line["level"] in ("error", "critical")]
