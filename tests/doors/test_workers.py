"""`headgate serve --workers 3`, as whoever runs it meets it: one start, with a store of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import GEMINI_KEYS

from headgate.emulator import Emulator, EmulatorConfig, InThread, Limits, Project

MODEL = "gemini-3.5-flash"
GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
BODY = json.dumps({"contents": [{"parts": [{"text": "How does a headgate work?"}]}]}).encode()
RPM = 20
SUCCESSES = r'headgate_key_requests_total\{[^}]*outcome="success"[^}]*\} ([\d.]+)'


def until(done: Callable[[], object]) -> None:
    """Another process gets there: looked at again and again, for twenty seconds."""
    for _ in range(1000):
        if done():
            return
        time.sleep(0.02)  # noqa: TID251 - real processes have no virtual clock
    raise AssertionError("it did not happen")


def children(pid: int) -> dict[int, str]:
    """The processes that one started, by their number, with their command."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(one): Path(f"/proc/{one}/cmdline").read_text().replace("\0", " ") for one in found}
    except OSError:
        return {}


def gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True


class Served:
    """A gateway of several workers, and what it said."""

    def __init__(self, upstream: InThread, folder: Path, count: int = 3, **environ: str) -> None:
        self.ledger = folder / "usage.sqlite3"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headgate", "serve", "--port", "0", "--workers", str(count)],
            env={
                "PATH": "/usr/bin:/bin",
                "TMPDIR": str(folder),
                "GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|g1|alpha,{GEMINI_KEYS[1]}|g2|beta",
                "HEADGATE_GEMINI_BASE_URL": upstream.base_url,
                "HEADGATE_USAGE": str(self.ledger),
                "HEADGATE_GATEWAY_LINGER_SECONDS": "0.5",
                "HEADGATE_GATEWAY_CACHE_SECONDS": "60",
                "HEADGATE_GATEWAY_DRAIN_SECONDS": "10",
                **environ,
            },
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()
        until(lambda: f"{count} workers take calls" in self.text or self.process.poll() is not None)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.text)
        if found is None:
            self.close()
            raise AssertionError(self.text)
        self.port = int(found[1])

    @property
    def text(self) -> str:
        return "".join(self.said)

    def _hear(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    @property
    def workers(self) -> list[int]:
        found = children(self.process.pid)
        return sorted(pid for pid, command in found.items() if "--as-worker" in command)

    @property
    def store(self) -> int | None:
        """The Valkey, which stands behind a shell."""
        for shell in children(self.process.pid):
            for pid, command in children(shell).items():
                if "valkey-server" in command and "unixsocket:" in command:
                    return pid
        return None

    def get(self, path: str) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text.startswith(b"{") else text.decode()
        finally:
            connection.close()

    def fetch(self, path: str) -> str:
        status, text = self.get(path)
        assert status == 200
        return str(text)

    def post(self, path: str = GENERATE, **headers: str) -> tuple[int, dict[str, str]]:
        """A call over a connection of its own: whichever worker takes it. Its answer is not kept."""
        headers = {"cache-control": "no-store", **headers}
        body = b"{}" if path.startswith("/manage") else BODY
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, body, {"content-type": "application/json", **headers})
            response = connection.getresponse()
            response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()

    def join(self) -> int:
        code = self.process.wait(timeout=30)
        self._hearing.join(timeout=10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.join()


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    limits = {"*": Limits(rpm=RPM)}
    projects = [
        Project("alpha", {"g1": GEMINI_KEYS[0]}, limits),
        Project("beta", {"g2": GEMINI_KEYS[1]}, limits),
    ]
    with Emulator(EmulatorConfig(projects=projects)).in_thread() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def served(upstream: InThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    gateway = Served(upstream, tmp_path_factory.mktemp("w"), HEADGATE_QUOTA_RPM=str(RPM))
    yield gateway
    gateway.close()


def test_the_quota_is_kept_over_all_workers(served: Served, upstream: InThread) -> None:
    """Sixty calls at once over as many connections, quota for forty: forty are answered, and the
    upstream had to refuse none. Books and metrics hold each, whichever worker served it."""
    # Its first call: the quota is shared at once, for nobody can have used any of it before. And its
    # answer is kept for the client at whichever worker it asks again.
    answers = [served.post(**{"cache-control": "max-age=60"}) for _ in range(12)]
    waited = re.search(r"wait;dur=([\d.]+)", answers[0][1]["server-timing"])
    assert waited is None or float(waited[1]) < 2000, "a newcomer waits two and a half seconds"
    assert {status for status, _ in answers} == {200}
    assert [headers["x-headgate-cache"] for _, headers in answers] == ["miss", *["hit"] * 11]
    status, body = served.get("/readyz")
    assert (status, body["workers"]) == (200, {"ready": 3, "of": 3})
    assert len(served.workers) == 3
    with ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(served.post, **{"x-headgate-timeout": "6"}) for _ in range(60)]
        answers = [one.result() for one in asked]
    statuses = [status for status, _ in answers]
    totals = upstream.report().totals
    assert (statuses.count(200), statuses.count(429)) == (2 * RPM - 1, 61 - 2 * RPM)
    assert totals.requests == 2 * RPM, "what had no room was not sent"
    ids = {headers["x-headgate-request-id"] for status, headers in answers if status == 200}

    def kept() -> set[str]:
        with closing(sqlite3.connect(served.ledger)) as ledger:
            return {row[0] for row in ledger.execute("SELECT request_id FROM usage")}

    until(lambda: ids <= kept())

    def counted() -> float:
        shown = served.fetch("/metrics")
        return sum(map(float, re.findall(SUCCESSES, shown)))

    until(lambda: counted() == 2 * RPM)  # within five seconds: so often each worker publishes
    chosen = min(ids)
    told = subprocess.run(
        [sys.executable, "-m", "headgate", "explain", chosen, "--json"],
        env={"PATH": "/usr/bin:/bin", "HEADGATE_USAGE": str(served.ledger)},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert chosen in told.stdout
    assert "CANARY" not in served.text + told.stdout


def test_the_store_is_theirs_alone(served: Served) -> None:
    """A socket in a folder of its user, no port, and no secret in its environment."""
    store = served.store
    assert store is not None
    (folder,) = served.ledger.parent.glob("headgate-*")
    title = Path(f"/proc/{store}/cmdline").read_text()
    assert f"unixsocket:{folder}/store.sock" in title, "a port would stand there instead"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "store.sock").stat().st_mode & 0o077 == 0
    assert "CANARY" not in Path(f"/proc/{store}/environ").read_text()


def states(served: Served) -> list[str]:
    """What ten connections, at whichever workers, are told of the first key."""
    path = "/manage/v1/keys/gemini/g1"
    return [served.get(path)[1]["state"] for _ in range(10)]


def test_what_one_worker_is_ordered_all_do_and_the_next_too(served: Served) -> None:
    status, _ = served.post("/manage/v1/keys/gemini/g1/drain")
    assert status == 200
    until(lambda: set(states(served)) == {"drained"})
    before = served.workers
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(set(served.workers) - set(before)) == 1 and served.get("/readyz")[0] == 200)
    assert set(states(served)) == {"drained"}, "who came later was told as well"
    assert served.post("/manage/v1/keys/gemini/g1/resume")[0] == 200
    until(lambda: "drained" not in states(served))


def test_a_worker_that_dies_comes_back_and_so_does_the_store(served: Served) -> None:
    """Until it is there again the gateway says that it is not ready; the others serve on."""
    before = served.workers
    os.kill(before[1], signal.SIGKILL)
    until(lambda: "was killed by SIGKILL. It is started again at once." in served.text)
    assert served.get("/livez")[0] == 200
    until(lambda: len(served.workers) == 3 and served.get("/readyz")[0] == 200)
    assert len(set(before) & set(served.workers)) == 2
    store = served.store
    assert store is not None
    os.kill(store, signal.SIGKILL)
    until(lambda: served.store not in (None, store))
    assert "The workers' own store ended with status 137. It is started again." in served.text
    assert served.get("/readyz")[0] == 200


def test_no_call_fails_while_it_ends(served: Served, upstream: InThread) -> None:
    """SIGTERM among calls of clients that heed `connection: close`, and with one under way that takes
    longer than new ones are taken: all are answered, then everything is gone (F43 over workers)."""
    store, workers = served.store, served.workers
    upstream.reset()
    upstream.script("slow", seconds=1.5)
    began, failures, answered = threading.Barrier(7), [], []

    def call() -> None:
        connection = HTTPConnection("127.0.0.1", served.port, timeout=20)
        began.wait()
        try:
            while True:
                connection.request("GET", "/gemini/v1beta/models")
                response = connection.getresponse()
                response.read()
                answered.append(response.status)
                if response.getheader("connection") == "close":
                    return
                time.sleep(0.01)  # noqa: TID251 - or it would have the processors to itself
        except (OSError, HTTPException) as error:
            failures.append(error)
        finally:
            connection.close()

    with ThreadPoolExecutor(7) as pool:
        slow = pool.submit(served.get, "/gemini/v1beta/models/" + MODEL)
        until(lambda: "slow" in upstream.report().totals.faults)
        calls = [pool.submit(call) for _ in range(6)]
        began.wait()
        until(lambda: len(answered) > 20)
        served.process.send_signal(signal.SIGTERM)
        for one in calls:
            one.result()
        assert slow.result()[0] == 200
    assert served.join() == 0
    assert not failures
    assert set(answered) == {200}
    assert store is not None
    until(lambda: all(gone(pid) for pid in (store, *workers)))
    assert not list(served.ledger.parent.glob("headgate-*")), "the store's folder went with it"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", served.port)):
        pass
    assert "CANARY" not in served.text


def test_a_parent_that_is_killed_takes_everything_with_it(
    upstream: InThread, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("k")
    with closing(Served(upstream, folder, 2, HEADGATE_GATEWAY_LINGER_SECONDS="0")) as served:
        workers, store = served.workers, served.store
        assert store is not None
        assert len(list(folder.glob("headgate-*"))) == 1
    until(lambda: all(gone(pid) for pid in (store, *workers)))
    until(lambda: not list(folder.glob("headgate-*")))
