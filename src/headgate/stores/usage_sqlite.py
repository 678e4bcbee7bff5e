"""The usage ledger in a SQLite file: durable, in one place, readable with any SQLite tool.

Write-ahead logging: readers never wait for the writer, several processes may share the file, and a
process that is killed loses only what it had not yet written. What the machine loses with its power is
at most the last second or so (`synchronous=NORMAL`); the file stays whole.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TypeVar

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.usage import By, Place, UsageFilter, UsageRow, UsageSum
from headgate.stores import usage_sql as sql

__all__ = ["SqliteUsage"]

T = TypeVar("T")

_BUSY_SECONDS = 5.0
"""How long a write waits for another process to finish its own."""

_TABLE = "usage"
_PERIOD = "CAST(at / {seconds} AS INTEGER)"

# Each step brings a file from the version of its place to the next; none is ever changed afterwards.
_MIGRATIONS: tuple[str, ...] = (
    """
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
    """,
    # What became of a call was not kept at first: its last attempt stands for it.
    """
    ALTER TABLE usage ADD COLUMN error TEXT NOT NULL DEFAULT '';
    ALTER TABLE usage ADD COLUMN cached_cost INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE usage ADD COLUMN output_cost INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE usage ADD COLUMN reasoning_cost INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE usage ADD COLUMN call TEXT NOT NULL DEFAULT '';
    ALTER TABLE usage ADD COLUMN call_seconds REAL NOT NULL DEFAULT 0;
    ALTER TABLE usage ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE usage ADD COLUMN looked_up INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE usage ADD COLUMN from_cache INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE usage ADD COLUMN saved INTEGER NOT NULL DEFAULT 0;
    UPDATE usage SET error = result WHERE result != 'success';
    UPDATE usage SET call = result, call_seconds = duration WHERE attempt = (
        SELECT MAX(attempt) FROM usage AS other WHERE other.request_id = usage.request_id
    );
    """,
)


class SqliteUsage:
    """A `UsageStore` in a file. Threads may share it, and a process that was forked opens it anew.

    The file tells who asked which model when: it is made readable to its owner alone.

    Args:
        path: of the file; its folder must exist. `:memory:` keeps nothing.

    Raises:
        ConfigurationError: the file is no usage ledger, of a later version, or cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._lock = Lock()
        try:
            if self._path != ":memory:":
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connect()
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(
                f"The usage ledger at {self._path} cannot be opened: {error}. Name a file in a folder "
                "that exists and may be written, or move the damaged file away."
            ) from error

    def write(self, rows: Sequence[UsageRow]) -> int:
        """Keep rows, each once however often it comes. How many were new. Raises `StoreError`."""
        statement, values = sql.insert(_TABLE), [sql.values_of(row) for row in rows]

        def work(connection: sqlite3.Connection) -> int:
            before = connection.total_changes
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(statement, values)
                connection.execute("COMMIT")
            except BaseException:
                # A disk that is full may have rolled it back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return connection.total_changes - before

        return self._run(work)

    def newest(self, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        """Rows by the time they ended, newest first. Raises `StoreError`."""
        found = self._read(*sql.newest(_TABLE, limit, chosen))
        return [sql.row_of(record) for record in found]

    def following(self, after: Place | None, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        """Rows that come after a place, oldest first. Raises `StoreError`."""
        found = self._read(*sql.following(_TABLE, after, limit, chosen))
        return [sql.row_of(record) for record in found]

    def sums(self, by: By, chosen: UsageFilter) -> list[UsageSum]:
        """Sums of periods, the oldest first, or of names, the dearest first. Raises `StoreError`."""
        found = self._read(*sql.sums(_TABLE, by, chosen, _PERIOD))
        return [sql.sum_of(by, record) for record in found]

    def forget(self, before: float) -> int:
        """Drop rows that ended before an instant. How many there were. Raises `StoreError`."""
        statement = "DELETE FROM usage WHERE at < ?"
        return self._run(lambda connection: connection.execute(statement, (before,)).rowcount)

    def close(self) -> None:
        """Write everything into the file itself and close it."""
        with self._lock:
            self._connection.close()

    def _read(self, statement: str, values: Sequence[object]) -> list[Sequence[object]]:
        return self._run(lambda connection: connection.execute(statement, values).fetchall())

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._process != os.getpid():
                    self._connect()  # a connection must not be carried over a fork
                return work(self._connection)
            except sqlite3.Error as error:
                raise StoreError(f"The usage ledger at {self._path} failed: {error}.") from error

    def _connect(self) -> None:
        self._parents = getattr(self, "_connection", None)  # closing it would harm the parent
        self._process = os.getpid()
        self._connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def _prepare(self) -> None:
        connection = self._connection
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(_MIGRATIONS):
                raise sqlite3.DatabaseError(
                    f"it has version {version}, this Headgate knows {len(_MIGRATIONS)}"
                )
            for number, step in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in filter(str.strip, step.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()  # which rolls back what was begun
            raise
