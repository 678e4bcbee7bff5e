"""S3-05b: no end of a process, a backend or a call loses rows, hangs, or leaves the ledger open."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support import MODEL, keys, said
from tests.unit.test_usage_ledger import Made, row

from headgate.backend import BackendConfig, GeminiBackend, GeminiRequest
from headgate.core.usage import UsageFilter, UsageRow, UsageStore
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry import usage_writer
from headgate.telemetry.usage_writer import UsageWriter
from headgate.testing import ScriptedTransport, VirtualClock


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """All threads that writers start, which end after a round with nothing to do."""
    started: list[threading.Thread] = []

    class Noted(threading.Thread):
        def start(self) -> None:
            started.append(self)
            super().start()

    monkeypatch.setattr(usage_writer, "Thread", Noted)
    monkeypatch.setattr(usage_writer, "_LATE_ROUNDS", 1)
    return started


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(30)


def test_what_is_told_after_the_end_is_written_and_the_ledger_given_back(
    tmp_path: Path, threads: list[threading.Thread]
) -> None:
    """A call that outlives `aclose` of its backend must not leave the ledger open for ever."""
    path = tmp_path / "usage.db"
    writer = UsageWriter(lambda: SqliteUsage(path), flush_seconds=0.001)
    writer.tell(row(1))
    writer.close()
    for number in (2, 3):
        writer.tell(row(number))
        _join(threads)
        assert writer.quiet
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM usage").fetchone() == (3,)
    connection.close()


async def test_a_call_that_outlives_its_backend_leaves_no_ledger_open(
    clock: VirtualClock, tmp_path: Path, threads: list[threading.Thread]
) -> None:
    """It was the first: when the backend was closed, there was nothing to close yet."""
    path = tmp_path / "usage.db"
    transport = ScriptedTransport([said(delay=5.0)], clock)
    config = BackendConfig(usage=str(path), model_discovery=False)
    backend = GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})
    request = GeminiRequest("Hello", MODEL)
    async with asyncio.TaskGroup() as group:
        group.create_task(backend.execute_gemini_enhanced(request))
        await clock.sleep(1)
        await backend.aclose()
        assert not path.exists()
    _join(threads)
    assert not path.with_name("usage.db-wal").exists()  # as long as somebody has it open, it is there
    assert list(_kept(path).values()) == ["success"]


@pytest.mark.parametrize("ending", [1, 2])
def test_a_row_told_while_it_closes_is_written(
    tmp_path: Path, threads: list[threading.Thread], ending: int
) -> None:
    """In the thread's last round, or in the one after it: nobody would have come by for the row."""

    class Late(Made):
        rounds = 0

        def rows(self, *, last: bool) -> list[UsageRow]:
            found = super().rows(last=last)
            self.rounds += last
            if last and self.rounds == ending:
                self.coming = [row(2)]
                writer.wake()
            return found

    path = tmp_path / "usage.db"
    writer = UsageWriter(lambda: SqliteUsage(path), Late(), flush_seconds=0.001)
    writer.tell(row(1))
    writer.close()
    _join(threads)
    assert writer.quiet
    assert set(_kept(path)) == {"r1", "r2"}
    assert writer.dropped == 0


def test_a_question_keeps_the_ledger_open_until_it_is_answered(
    tmp_path: Path, threads: list[threading.Thread]
) -> None:
    path = tmp_path / "usage.db"
    writer = UsageWriter(lambda: SqliteUsage(path), flush_seconds=0.001)
    writer.tell(row(1))

    def slowly(store: UsageStore) -> int:
        writer.close()
        return len(store.newest(9, UsageFilter()))

    assert writer.ask(slowly) == 1
    _join(threads)
    assert writer.quiet


# ── forks and the end of a process ──────────────────────────────────────────────────────────────

FORKING = """
import os, sys, threading
from tests.unit.test_usage_ledger import Made, row
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry import usage_writer
from headgate.telemetry.usage_writer import UsageWriter

usage_writer._FORK_SECONDS = 0.05
source = Made()
source.held = [row(1, call="")]
writer = UsageWriter(lambda: SqliteUsage(sys.argv[1]), source, flush_seconds=60)
writer.tell(row(0))
writer.flush()
locks = writer._opening, writer._draining, writer._changed, writer._store._lock
held, over = threading.Event(), threading.Event()

def hold():
    with locks[0], locks[1], locks[2], locks[3]:
        held.set()
        over.wait()

other = threading.Thread(target=hold)
other.start()
held.wait()
child = os.fork()
if child:
    over.set()
    other.join()
    _, status = os.waitpid(child, 0)
    source.held = [row(1, call="success")]
    writer.close()
    sys.exit(os.waitstatus_to_exitcode(status))
source.held = [row(2)]
writer.tell(row(3))
writer.flush()
writer.tell(row(4))
writer.close()
os._exit(7)
"""


BUSY = """
import os, sys, threading
from tests.unit.test_usage_ledger import row
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry import usage_writer

usage_writer._FORK_SECONDS = 30
inside = threading.Event()

class Open(SqliteUsage):
    "In a transaction until the fork waits for it."

    def write(self, rows):
        if not inside.is_set():
            self._connection.execute("BEGIN IMMEDIATE")
            inside.set()
            while not forking.is_set():
                pass
            self._connection.execute("COMMIT")
        return super().write(rows)

writer = usage_writer.UsageWriter(lambda: Open(sys.argv[1]), flush_seconds=60)
forking = threading.Event()
os.register_at_fork(before=forking.set)  # the last that is registered is called first
writer.tell(row(0))
inside.wait()
closed, tell = os.pipe()
child = os.fork()
if child:
    writer.tell(row(1))
    writer.close()
    os.write(tell, b".")
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
writer.tell(row(2))
writer.flush()
os.read(closed, 1)  # the parent, which closed it as its last reader, has removed its journal
writer.tell(row(3))
writer.close()
os._exit(7)
"""


def _run(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _kept(path: Path) -> dict[str, str]:
    store = SqliteUsage(path)
    found = {one.request_id: one.call for one in store.newest(99, UsageFilter())}
    store.close()
    return found


def test_a_fork_leaves_no_lock_behind_and_each_process_writes_its_own(tmp_path: Path) -> None:
    """A fork within a flush: the child waited for ever for a thread that was no more."""
    path = tmp_path / "usage.db"
    done = _run(FORKING, path)
    assert (done.returncode, done.stderr) == (7, "")
    assert _kept(path) == {"r0": "", "r1": "success", "r2": "", "r3": "", "r4": ""}


def test_a_fork_while_rows_are_written_waits_and_shares_nothing(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    done = _run(BUSY, path)
    assert (done.returncode, done.stderr) == (7, "")
    assert set(_kept(path)) == {"r0", "r1", "r2", "r3"}


ENDING = """
import sys
from tests.unit.test_usage_ledger import Made, row
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry.usage_writer import UsageWriter

source = Made()
source.coming, source.held = [row(1)], [row(2)]
writer = UsageWriter(lambda: SqliteUsage(sys.argv[1]), source, flush_seconds=60)
writer.tell(row(3))
"""


def test_a_process_that_ends_without_closing_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    done = _run(ENDING, path)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(_kept(path)) == {"r1", "r2", "r3"}


STUCK = """
import threading
from tests.unit.test_usage_ledger import Fallible, row
from headgate.telemetry import process_ends, usage_writer

class Never(Fallible):
    def write(self, rows):
        threading.Event().wait()

process_ends.EXIT_SECONDS = 0.1
writers = [usage_writer.UsageWriter(Never()) for _ in range(3)]
for writer in writers:
    writer.tell(row(1))
"""


def test_a_store_that_never_answers_does_not_keep_a_process_from_ending(tmp_path: Path) -> None:
    done = _run(STUCK, tmp_path)
    assert done.returncode == 0
    assert "no_time" in done.stderr
