"""The operating kit at work: a Prometheus scrapes a gateway with three workers under a short load, and
the content service; each rule and each panel gets an answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from tests.gateway import CALLER_KEY, CLAUDE_KEYS, GEMINI_KEYS, OPENAI_KEYS, listed
from tests.operating_kit import PROMETHEUS, RULES, alerts, names_in, queries, read, rules
from tests.otlp import OtlpReceiver, Received, tree

from headgate.emulator import Emulator, EmulatorConfig, InThread, Project

WORKERS = 3
MODEL = "gemini-3.5-flash"
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
LONGEST = 60.0  # seconds until everything was seen; it takes a dozen on two cores
CONFIG = EmulatorConfig(
    projects=[Project(f"p{number}", {f"k{number}": key}) for number, key in enumerate(GEMINI_KEYS)]
)


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing: `make test` installs it (requirements/system.sh)"
    return found


def until(done: Callable[[], Any], seconds: float = LONGEST) -> Any:
    """What is awaited of another process; looked at again and again."""
    ends = time.monotonic() + seconds  # noqa: TID251 - real processes have no virtual clock
    while not (found := done()):
        if time.monotonic() > ends:  # noqa: TID251
            return found
        time.sleep(0.2)  # noqa: TID251
    return found


# ── what is watched ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def gateway(upstream: str, collector: str, folder: Path) -> Iterator[str]:
    """`headgate serve` with its workers: its address."""
    environ = {
        "PATH": os.defpath, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"),
        "GEMINI_API_KEYS": ",".join(f"{key}|k{n}|p{n}" for n, key in enumerate(GEMINI_KEYS)),
        "ANTHROPIC_API_KEYS": listed(CLAUDE_KEYS), "OPENAI_API_KEYS": listed(OPENAI_KEYS),
        "HEADGATE_GEMINI_BASE_URL": upstream, "HEADGATE_ANTHROPIC_BASE_URL": upstream,
        "HEADGATE_OPENAI_BASE_URL": f"{upstream}/v1",
        "HEADGATE_CALLER_KEYS": f"{CALLER_KEY}|ann",
        "HEADGATE_QUOTA_RPM": "6000", "HEADGATE_QUOTA_RPD": "100000",
        "HEADGATE_GATEWAY_CACHE_SECONDS": "60", "HEADGATE_GATEWAY_LINGER_SECONDS": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_BSP_SCHEDULE_DELAY": "500",
    }  # fmt: skip
    command = [sys.executable, "-m", "headgate", "serve", "--port", "0", "--workers", str(WORKERS)]
    shown = r"The gateway is at http://([\d.:]+)\.(?s:.*)workers take calls"
    with serving(command, environ, folder / "gateway.log", shown) as found:
        yield found[1]


@contextmanager
def serving(
    command: list[str], environ: dict[str, str], said: Path, shown: str
) -> Iterator[re.Match[str]]:
    """A program until it was told to end: what it says of itself once it serves."""
    with said.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environ, cwd=said.parent, stderr=log)
    try:
        found = until(lambda: re.search(shown, said.read_text(encoding="utf-8")) or process.poll())
        assert isinstance(found, re.Match), said.read_text(encoding="utf-8")
        yield found
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    told = said.read_text(encoding="utf-8")
    assert process.returncode == 0, told
    assert "CANARY" not in told


def post(address: str, path: str, body: object, **headers: str) -> tuple[int, bytes]:
    """Over a connection of its own."""
    connection = HTTPConnection(address, timeout=20)
    try:
        sent = {"content-type": "application/json", **headers}
        connection.request("POST", path, json.dumps(body), sent)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Load:
    """Calls of many kinds, each over a connection of its own, so that all workers get some."""

    def __init__(self, address: str, emulator: InThread) -> None:
        self._address = address
        self._emulator = emulator
        self._lock = threading.Lock()
        self.answers: Counter[int] = Counter()

    def run(self) -> None:
        """Eight questions, three times each; two faults; streams; a path that nobody serves."""
        asked = [(GENERATE, f"How many locks has a canal of {miles} miles?") for miles in range(8)]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                list(pool.map(self.ask, *zip(*asked, strict=True)))
            for fault in ("internal", "429-bare"):
                self._emulator.script(fault)
                self.ask(GENERATE, f"What does {fault} mean?")
            list(pool.map(self.ask, [STREAM] * 6, [f"Tell of river {number}" for number in range(6)]))
        self.ask("/gemini/v1beta/models/m:no", "hm?")

    def ask(self, path: str, text: str) -> None:
        headers = {"x-goog-api-key": CALLER_KEY, "traceparent": f"00-{TRACE}-{PARENT}-01"}
        body = {"contents": [{"parts": [{"text": text}]}]}
        status, _ = post(self._address, path, body, **headers)
        with self._lock:
            self.answers[status] += 1


@contextmanager
def content(upstream: str, collector: str, folder: Path) -> Iterator[str]:
    """The content service, after three requests: its address, as Prometheus takes one."""
    environ = {
        "PATH": os.defpath, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"),
        "GEMINI_API_KEY": GEMINI_KEYS[0], "HEADGATE_GEMINI_BASE_URL": upstream,
        "REDIS_ENABLED": "false", "HEADGATE_CONTENT_LINGER_SECONDS": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_SERVICE_NAME": "content",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }  # fmt: skip
    command = [sys.executable, "-m", "headgate.content", "--port", "0"]
    with serving(command, environ, folder / "content.log", r"address=http://([\d.:]+)") as found:
        for body in ({"topic": "Tides"}, {"topic": "Tides"}, {}):
            status, answer = post(found[1], "/api/create_subtopics", body)
            assert status == (200 if body else 400), answer
        yield found[1]


# ── who watches ─────────────────────────────────────────────────────────────────────────────────


class Prometheus:
    """One that runs, with the shipped configuration: only addresses and intervals are others."""

    def __init__(self, folder: Path, targets: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        (folder / "caller-key").write_text(CALLER_KEY, encoding="utf-8")
        config = yaml.safe_load(yaml.safe_dump(read(PROMETHEUS / "prometheus.yml")))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(file) for file in RULES]
        for job in config["scrape_configs"]:
            job |= {
                "scrape_interval": "1s",
                "static_configs": [{"targets": [targets[job["job_name"]]]}],
            }
        config["scrape_configs"][1]["authorization"] = {"credentials_file": str(folder / "caller-key")}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._folder = folder
        self._log = (folder / "prometheus.log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [
                program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn",
            ],
            stderr=self._log, cwd=folder,
        )  # fmt: skip

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._log.close()

    @property
    def said(self) -> str:
        return (self._folder / "prometheus.log").read_text(encoding="utf-8")

    def get(self, path: str, **query: str) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(query)}")
            response = connection.getresponse()
            if response.status == 503:
                raise ConnectionError("it is not ready yet")
            answer = json.loads(response.read())
        finally:
            connection.close()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]

    def ask(self, query: str) -> list[Any]:
        """The series that a query has now; of a board's choice of keys all."""
        found: list[Any] = self.get("query", query=query.replace("$key", ".*"))["result"]
        return found

    def number(self, query: str) -> float:
        """Of a query that has one series."""
        (one,) = self.ask(query)
        return float(one["value"][1])

    def empty(self) -> list[str]:
        """Rules and panels that have nothing to show yet."""
        recorded = [rule["record"] for rule in rules() if "record" in rule]
        # What asks for yesterday has nothing to show in its first minute.
        asked = [query for _, query in queries() if "offset 1d" not in query]
        return [query for query in (*recorded, *asked) if not self.ask(query)]

    def is_up(self) -> bool:
        try:
            return len(self.ask("up == 1")) == 2
        except OSError:
            return False


class Watched:
    """All of it, once everything was seen."""

    def __init__(
        self, prometheus: Prometheus, load: Load, collector: OtlpReceiver, metrics: bytes
    ) -> None:
        self.prometheus, self.load, self.collector, self.metrics = prometheus, load, collector, metrics


@contextmanager
def watching(folder: Path) -> Iterator[Watched]:
    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator(CONFIG).in_thread())
        collector = stack.enter_context(OtlpReceiver())
        address = stack.enter_context(gateway(emulator.base_url, collector.endpoint, folder))
        targets = {
            "KNOWALLEDGE_backend": stack.enter_context(
                content(emulator.base_url, collector.endpoint, folder)
            ),
            "headgate": address,
        }
        prometheus = Prometheus(folder, targets)
        stack.callback(prometheus.stop)
        load = Load(address, emulator)
        load.run()
        assert until(prometheus.is_up), prometheus.said
        until(lambda: not prometheus.empty())
        yield Watched(prometheus, load, collector, scraped(address))


def scraped(address: str) -> bytes:
    connection = HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/metrics", headers={"authorization": f"Bearer {CALLER_KEY}"})
        return connection.getresponse().read()
    finally:
        connection.close()


# ── what it sees ────────────────────────────────────────────────────────────────────────────────


def every_recording_rule_and_every_panel_returns_data(watched: Watched) -> None:
    """S4-31, and each rule that alerts are made of."""
    assert watched.prometheus.empty() == [], watched.prometheus.said


def every_rule_is_healthy_and_every_alert_reads_what_is_there(watched: Watched) -> None:
    groups = watched.prometheus.get("rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in found} == {
        rule.get("record", rule.get("alert")) for rule in rules()
    }
    assert [(rule["name"], rule["lastError"]) for rule in found if rule["health"] != "ok"] == []
    missing = {
        (alert, name)
        for alert, rule in alerts().items()
        for name in names_in(rule["expr"])
        if not watched.prometheus.ask(name)
    }
    assert missing == set()


def counts_of_three_workers_are_those_of_one_gateway(watched: Watched) -> None:
    """Each scrape meets another worker, and each tells of all: nothing is lost or counted twice."""
    number = watched.prometheus.number
    ended = 'sum(headgate_calls_total{job="headgate",provider="gemini",result="success"})'
    answered = watched.load.answers[200]
    until(lambda: number(ended) == answered)  # workers publish what they count every few seconds
    assert number(ended) == answered
    sent = number('sum(headgate_admitted_requests_total{job="headgate"})')
    used = number('sum(headgate_quota_used{job="headgate",limit="rpd"})')
    assert 0 < used <= sent, "what all workers read of one ledger is told once"
    assert number('headgate_workers{job="headgate"}') == WORKERS


def promtool_finds_fault_with_accepted_names_only(watched: Watched) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=watched.metrics, capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr.decode()  # 3: it could read all of it, and advises
    found = {line.partition(" ")[0] for line in done.stderr.decode().splitlines() if line}
    assert not {name for name in found if name.startswith("headgate")}, done.stderr.decode()


def no_key_is_in_what_is_scraped(watched: Watched) -> None:
    assert b"CANARY" not in watched.metrics
    assert watched.metrics


def spans_of_all_workers_go_on_with_their_clients_trace(watched: Watched) -> None:
    """`headgate serve` sets telemetry up by OpenTelemetry's variables, in each worker."""

    def served() -> list[Received]:
        return [span for span in watched.collector.spans if span.parent_id == PARENT]

    asked = sum(watched.load.answers.values())
    until(lambda: len(served()) == asked)
    assert len(served()) == asked
    assert len({span.resource["service.instance.id"] for span in served()}) == WORKERS
    assert {span.resource["service.name"] for span in served()} == {"headgate"}
    spans = [span for span in watched.collector.spans if span.trace_id == TRACE]
    name = "POST /gemini/{version}/models/{model}:generateContent"
    calls = [child for root, children in tree(spans) if root == name for child in children]
    assert {call for call, _ in calls} == {"headgate.call generate"}
    # Stages that took their time have spans, too; how many did is the machine's business.
    tried = [[one for one, _ in below if not one.startswith("headgate.")] for _, below in calls]
    assert [f"generate_content {MODEL}"] in tried
    assert [] in tried, "one that was answered from the cache"
    of_content = [
        span for span in watched.collector.spans if span.resource["service.name"] == "content"
    ]
    assert {span.name for span in of_content if not span.parent_id} >= {"POST /api/create_subtopics"}
    assert b"CANARY" not in watched.collector.raw


def test_the_kit_sees_a_gateway_with_three_workers(tmp_path: Path) -> None:
    """All in one, so that however tests are shared out there is one start."""
    with watching(tmp_path) as watched:
        every_recording_rule_and_every_panel_returns_data(watched)
        every_rule_is_healthy_and_every_alert_reads_what_is_there(watched)
        counts_of_three_workers_are_those_of_one_gateway(watched)
        promtool_finds_fault_with_accepted_names_only(watched)
        no_key_is_in_what_is_scraped(watched)
        spans_of_all_workers_go_on_with_their_clients_trace(watched)
