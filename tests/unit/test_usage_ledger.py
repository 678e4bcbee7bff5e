"""S3-05b: the usage ledger keeps every row once, off the path, and says what it may lose."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.usage import UsagePeriod, UsageRow, UsageStore
from headgate.stores.usage_sqlite import SqliteUsage
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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteUsage]:
    store = SqliteUsage(tmp_path / "usage.db")
    yield store
    store.close()


def test_a_row_is_kept_once(store: UsageStore) -> None:
    assert store.write([row(1), row(2), row(1)]) == 2
    assert store.write([row(2), row(2, attempt=2)]) == 1
    assert [(one.request_id, one.attempt) for one in store.newest(9)] == [
        ("r2", 2),
        ("r2", 1),
        ("r1", 1),
    ]


def test_rows_read_back_as_they_were(store: UsageStore) -> None:
    odd = row(1, estimated=True, cost=None, caller="a; DROP TABLE usage", key_name="k'1", model="ü")
    store.write([odd])
    assert store.newest(1) == [odd]


def test_newest_by_model_and_time(store: UsageStore) -> None:
    store.write([row(number, model="ab"[number % 2]) for number in range(10)])
    assert [one.at for one in store.newest(3, model="b")] == [1009.0, 1007.0, 1005.0]
    assert [one.at for one in store.newest(9, since=1002, until=1004)] == [1003.0, 1002.0]


def test_periods_are_sums(store: UsageStore) -> None:
    store.write([row(number, result="success" if number % 2 else "quota") for number in range(130)])
    assert store.periods(60, 0, 9999) == [
        UsagePeriod(960, 1020, 20, 10, 200, 0, 100, 140, 10.0),
        UsagePeriod(1020, 1080, 60, 30, 600, 0, 300, 420, 30.0),
        UsagePeriod(1080, 1140, 50, 25, 500, 0, 250, 350, 25.0),
    ]
    assert store.periods(60, 0, 9999, model="other") == []


def test_old_rows_are_forgotten(store: UsageStore) -> None:
    store.write([row(number) for number in range(10)])
    assert store.forget(1004) == 4
    assert len(store.newest(99)) == 6


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
    assert len(store.newest(999)) == 60
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
    assert [one.request_id for one in store.newest(9)] == ["r1"]
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
        numbers = sorted(int(one.request_id[1:]) for one in store.newest(10**6))
        store.close()
        assert numbers[:flushed] == list(range(flushed)), "a flushed row is missing, or one is double"
