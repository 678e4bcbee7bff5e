"""S3-05b: the usage ledger keeps every row once, off the path, and says what it may lose."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.usage import By, UsageFilter, UsageRow
from headgate.stores import usage_sqlite
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry import usage_writer
from headgate.telemetry.usage_writer import UsageWriter


def row(number: int, **changes: object) -> UsageRow:
    values: dict[str, object] = {
        "request_id": f"r{number}",
        "attempt": 1,
        "at": 1000.0 + number,
        "duration": 0.5,
        "provider": "gemini",
        "model": "m",
        "operation": "generate",
        "result": "success",
        "input_tokens": 10,
        "output_tokens": 5,
        "cost": 7,
    }
    return UsageRow(**{**values, **changes})  # type: ignore[arg-type]


def test_what_is_no_ledger_is_refused_with_advice(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database at all, and long enough to be read as one " * 40)
    with pytest.raises(ConfigurationError, match=r"text\.db cannot be opened: .*move the damaged file"):
        SqliteUsage(text)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        SqliteUsage(tmp_path / "missing" / "usage.db")


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    SqliteUsage(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="version 99"):
        SqliteUsage(path)


OLDER = """
CREATE TABLE usage (
    request_id TEXT NOT NULL, attempt INTEGER NOT NULL, at REAL NOT NULL, duration REAL NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, operation TEXT NOT NULL, result TEXT NOT NULL,
    caller TEXT NOT NULL, domain TEXT NOT NULL, key_name TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
    cost INTEGER, estimated INTEGER NOT NULL,
    PRIMARY KEY (request_id, attempt)
) WITHOUT ROWID;
CREATE INDEX usage_at ON usage (at);
CREATE INDEX usage_model_at ON usage (model, at);
INSERT INTO usage VALUES
    ('r1', 1, 1001, 0.5, 'gemini', 'm', 'generate', 'quota', 'c', 'd', 'k1', 0, 0, 0, 0, 0, 0),
    ('r1', 2, 1002, 0.7, 'gemini', 'm', 'generate', 'success', 'c', 'd', 'k2', 10, 2, 5, 1, 7, 0),
    ('r2', 1, 1003, 0.1, 'gemini', 'm', 'stream', 'timeout', 'c', 'd', 'k1', 9, 0, 0, 0, NULL, 1);
PRAGMA user_version = 1;
"""


def test_a_file_of_the_first_version_is_carried_over_in_place(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(OLDER)
    connection.close()
    for _ in range(2):  # the second opening finds nothing to do
        store = SqliteUsage(path)
        timed_out, answered, refused = store.newest(9, UsageFilter())
        assert (refused.error, refused.call) == ("quota", "")
        assert (answered.error, answered.call, answered.call_seconds) == ("", "success", 0.7)
        assert (timed_out.error, timed_out.call, timed_out.cost) == ("timeout", "timeout", None)
        assert (answered.cost, answered.cached_tokens, answered.saved) == (7, 2, 0)
        (whole,) = store.sums(By.MODEL, UsageFilter())
        assert (whole.attempts, whole.requests, whole.successes, whole.cost) == (3, 2, 1, 7)
        store.close()


def test_a_carry_over_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "usage.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(OLDER)
    connection.close()
    steps = usage_sqlite._MIGRATIONS
    broken = (steps[0], steps[1] + "; DROP TABLE nowhere")
    monkeypatch.setattr(usage_sqlite, "_MIGRATIONS", broken)
    with pytest.raises(ConfigurationError, match="nowhere"):
        SqliteUsage(path)
    monkeypatch.setattr(usage_sqlite, "_MIGRATIONS", steps)
    store = SqliteUsage(path)
    assert len(store.newest(9, UsageFilter())) == 3
    store.close()


def test_the_file_is_readable_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    SqliteUsage(path).close()
    assert path.stat().st_mode & 0o077 == 0


def test_a_forked_process_opens_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = SqliteUsage(path)
    store.write([row(1)])
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            store.write([row(2)])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    store.write([row(3)])
    assert {one.request_id for one in store.newest(9, UsageFilter())} == {"r1", "r2", "r3"}
    store.close()


def _fill(path: Path, who: int) -> None:
    store = SqliteUsage(path)
    for number in range(20):
        store.write([row(number, request_id=f"{who}:{number}")])
    store.close()


def test_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(path, who)) for who in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = SqliteUsage(path)
    assert len(store.newest(999, UsageFilter())) == 60
    store.close()


def test_a_locked_file_fails_as_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.stores.usage_sqlite._BUSY_SECONDS", 0.01)
    path = tmp_path / "usage.db"
    store = SqliteUsage(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.write([row(1)])
    other.execute("ROLLBACK")
    other.close()
    assert store.write([row(1)]) == 1
    store.close()


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = SqliteUsage(path)
    store.write([row(1)])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")  # as full as a disk can be
    with pytest.raises(StoreError, match="full"):
        store.write([row(number) for number in range(2, 5000)])
    assert [one.request_id for one in store.newest(9, UsageFilter())] == ["r1"]
    store.close()


# ── the writer ──────────────────────────────────────────────────────────────────────────────────


class Fallible:
    """A store that fails as long as it is told to."""

    def __init__(self) -> None:
        self.rows: list[UsageRow] = []
        self.fails = False
        self.closed = False

    def write(self, rows: Sequence[UsageRow]) -> int:
        if self.fails:
            raise StoreError("disk full")
        self.rows += rows
        return len(rows)

    def close(self) -> None:
        self.closed = True


def test_what_was_told_is_written_before_close_returns() -> None:
    store = Fallible()
    writer = UsageWriter(store, flush_seconds=60)  # type: ignore[arg-type]
    rows = [row(number) for number in range(2500)]
    for one in rows:
        writer.tell(one)
    writer.close()
    assert (store.rows, store.closed, writer.written, writer.dropped) == (rows, True, 2500, 0)


def test_flush_waits_for_what_was_told() -> None:
    store = Fallible()
    writer = UsageWriter(store, flush_seconds=60)  # type: ignore[arg-type]
    assert writer.flush()
    for number in range(5):
        writer.tell(row(number))
        assert writer.flush(10)
        assert len(store.rows) == number + 1
    writer.close()


def test_rows_wait_for_a_store_that_fails_and_the_oldest_go_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Fallible()
    store.fails = True
    writer = UsageWriter(store, flush_seconds=0.01, most_waiting=10)  # type: ignore[arg-type]
    writer.tell(row(0))
    assert not writer.flush(10)
    for number in range(1, 15):
        writer.tell(row(number))
    store.fails = False
    writer.close()
    kept = [one.request_id for one in store.rows]
    assert kept == [f"r{number}" for number in range(5, 15)]
    assert writer.dropped == 5
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_what_a_store_never_takes_is_counted_as_dropped() -> None:
    store = Fallible()
    store.fails = True
    writer = UsageWriter(store)  # type: ignore[arg-type]
    for number in range(3):
        writer.tell(row(number))
    writer.close()
    assert (writer.written, writer.dropped, store.closed) == (0, 3, True)


class Made:
    """A source that makes a row each time it is asked, as long as it is told to."""

    def __init__(self) -> None:
        self.coming: list[UsageRow] = []
        self.held: list[UsageRow] = []
        self.asked = 0

    def rows(self, *, last: bool) -> list[UsageRow]:
        self.asked += 1
        found, self.coming = self.coming, []
        if last:
            found, self.held = [*found, *self.held], []
        return found

    def forked(self) -> None:
        self.coming, self.held = [], []


def test_rows_wait_for_a_full_disk_or_a_lock_and_are_written_once_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("headgate.stores.usage_sqlite._BUSY_SECONDS", 0.01)
    path = tmp_path / "usage.db"
    store = SqliteUsage(path)
    store.write([row(0)])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")  # as full as a disk can be
    writer = UsageWriter(store)
    for number in range(1, 3001):
        writer.tell(row(number))
    assert not writer.flush(30)
    assert writer.waiting >= 2000  # what fitted in before it was full may be there
    store._connection.execute("PRAGMA max_page_count = 100000")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not writer.flush(30)
    other.execute("ROLLBACK")
    other.close()
    writer.close()
    again = SqliteUsage(path)
    numbers = sorted(int(one.request_id[1:]) for one in again.newest(10**6, UsageFilter()))
    again.close()
    assert numbers == list(range(3001))
    assert writer.dropped == 0
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]  # told once


def test_a_source_is_asked_and_at_the_end_gives_what_it_held_back() -> None:
    store, source = Fallible(), Made()
    writer = UsageWriter(store, source, flush_seconds=60)  # type: ignore[arg-type]
    source.coming, source.held = [row(1)], [row(2)]
    writer.wake()
    assert writer.flush(10)
    assert store.rows == [row(1)]
    writer.close()
    assert store.rows == [row(1), row(2)]


def test_a_store_is_opened_with_the_first_row_and_anew_after_the_end(tmp_path: Path) -> None:
    opened: list[SqliteUsage] = []

    def opener() -> SqliteUsage:
        opened.append(SqliteUsage(tmp_path / "usage.db"))
        return opened[-1]

    writer = UsageWriter(opener, flush_seconds=0.01)
    assert not opened
    for number in (1, 2):
        writer.tell(row(number))
        assert writer.flush(10)
        assert len(opened) == number
        writer.close()
    store = SqliteUsage(tmp_path / "usage.db")
    assert len(store.newest(9, UsageFilter())) == 2
    store.close()


def test_a_ledger_that_cannot_be_opened_keeps_rows_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"
    writer = UsageWriter(lambda: SqliteUsage(folder / "usage.db"))
    writer.tell(row(1))
    assert not writer.flush(10)
    assert writer.failing
    assert writer.waiting == 1
    folder.mkdir()
    writer.close()
    assert (writer.written, writer.dropped) == (1, 0)
    assert caplog.records[0].levelname == "ERROR"


def test_a_thread_without_work_ends_and_the_next_row_starts_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage_writer, "_IDLE_ROUNDS", 2)
    store = Fallible()
    writer = UsageWriter(store, flush_seconds=0.001)  # type: ignore[arg-type]
    for number in range(3):
        writer.tell(row(number))
        thread = writer._thread
        if thread is not None:
            thread.join(10)
            assert not thread.is_alive()
    writer.close()
    assert [one.request_id for one in store.rows] == ["r0", "r1", "r2"]


def test_a_row_told_while_the_thread_ends_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store, source = Fallible(), Made()
    writer = UsageWriter(store, source)  # type: ignore[arg-type]
    writer._thread = threading.current_thread()
    source.coming = [row(1)]  # told after the last round, by somebody who saw the thread alive
    assert not writer._retires()
    assert writer._thread is threading.current_thread()
    assert store.rows == [row(1)]
    assert writer._retires()
    assert writer._thread is None


def test_many_threads_tell_while_the_writer_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_writer, "_IDLE_ROUNDS", 1)
    store = Fallible()
    writer = UsageWriter(store, flush_seconds=0.0)  # type: ignore[arg-type]

    def tell(first: int) -> None:
        for number in range(first, first + 500):
            writer.tell(row(number))

    threads = [threading.Thread(target=tell, args=(500 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(int(one.request_id[1:]) for one in store.rows) == list(range(2000))


class Old(Fallible):
    """A store with rows of the seconds 100 and 5000 that notes what it is told to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.newest_at = 5000.0
        self.forgotten: list[float] = []

    def newest(self, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        return [row(0, at=self.newest_at)]

    def forget(self, before: float) -> int:
        self.forgotten.append(before)
        return 1


def test_old_rows_go_at_the_start_and_once_an_hour_but_not_where_the_clock_jumped() -> None:
    store, day = Old(), 86_400.0
    times = [(day + 1000.0, 0.0)]
    writer = UsageWriter(
        store,  # type: ignore[arg-type]
        times=lambda: times[0],
        kept_days=lambda: 1.0,
    )
    for at, monotonic, forgotten in (
        (day + 1000, 0, [1000.0]),  # at the start
        (day + 2000, 1000, [1000.0]),  # not an hour later
        (day + 4700, 3700, [1000.0, 4700.0]),
        (9 * day, 8000, [1000.0, 4700.0]),  # the clock jumped: nothing is too old by it
        (9 * day + 3600, 11_600, [1000.0, 4700.0, 8 * day + 3600]),  # it stayed there
    ):
        times[0] = (at, float(monotonic))
        writer._forget()
        assert store.forgotten == forgotten


def test_a_clock_by_which_everything_is_too_old_is_not_believed() -> None:
    store = Old()
    times = [(1e9, 0.0)]
    writer = UsageWriter(
        store,  # type: ignore[arg-type]
        times=lambda: times[0],
        kept_days=lambda: 1.0,
    )
    writer._forget()
    times[0] = (1e9 + 7200, 7200.0)
    writer._forget()
    assert not store.forgotten


KILLED = """
import sys
from tests.unit.test_usage_ledger import row
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry.usage_writer import UsageWriter

writer = UsageWriter(SqliteUsage(sys.argv[1]), flush_seconds=0.02)
number = 0
while True:
    writer.tell(row(number))
    number += 1
    if number % 100 == 0:
        writer.flush()
        print(number, flush=True)
"""


def test_kill_9_loses_no_row_that_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    chance = random.Random(9)  # noqa: TID251 - the same moments in every run
    flushed = 0
    for _ in range(3):
        program = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(3, 12)):
                flushed = max(flushed, int(process.stdout.readline()))
            os.kill(process.pid, signal.SIGKILL)
        store = SqliteUsage(path)
        numbers = sorted(int(one.request_id[1:]) for one in store.newest(10**6, UsageFilter()))
        store.close()
        assert numbers[:flushed] == list(range(flushed)), "a flushed row is missing, or one is double"


WORKING = """
import itertools, sys
from tests.unit.test_usage_rows import attempt, call, WORDS
from headgate.core.outcome import Kind
from headgate.stores.usage_sqlite import SqliteUsage
from headgate.telemetry.usage_book import UsageBook
from headgate.telemetry.usage_writer import UsageWriter
from headgate.testing import VirtualClock
from headgate.wiring.model_data import gemini_prices
from headgate.wiring.usage import costs_of

book = UsageBook(VirtualClock(), costs_of(gemini_prices), WORDS, lambda: 3600.0)
writer = UsageWriter(SqliteUsage(sys.argv[1]), book, flush_seconds=0.01)
book.wake = writer.wake
for number in itertools.count():
    name = f"{sys.argv[2]}-{number}"
    book.attempt(attempt(1, Kind.QUOTA_MINUTE, request_id=name))
    book.attempt(attempt(2, request_id=name))
    book.call(call(request_id=name))
    if number % 50 == 49:
        writer.flush()
        print(number + 1, flush=True)
"""


def test_kill_9_in_the_middle_of_calls_loses_none_that_was_flushed_and_doubles_none(
    tmp_path: Path,
) -> None:
    path, chance = tmp_path / "usage.db", random.Random(7)  # noqa: TID251 - as above
    for turn in range(3):
        program = [sys.executable, "-c", WORKING, str(path), str(turn)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(2, 9)):
                flushed = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
        store = SqliteUsage(path)
        rows = [
            one for one in store.newest(10**6, UsageFilter()) if one.request_id.startswith(f"{turn}-")
        ]
        store.close()
        ended = {one.request_id for one in rows if one.call == "success" and one.attempt == 2}
        rotated = {one.request_id for one in rows if not one.call and one.attempt == 1}
        first = {f"{turn}-{number}" for number in range(flushed)}
        assert first <= ended
        assert first <= rotated
        assert len(rows) == len({(one.request_id, one.attempt) for one in rows})
        assert sum(one.call != "" for one in rows) == len(ended)  # each call ended once
