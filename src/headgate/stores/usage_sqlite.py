"""The usage ledger in a SQLite file: durable, in one place, readable with any SQLite tool.

Write-ahead logging: readers never wait for the writer, several processes may share the file, and a
process that is killed loses only what it had not yet written. What the machine loses with its power is
at most the last second or so (`synchronous=NORMAL`); the file stays whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.usage import UsagePeriod, UsageRow

__all__ = ["SqliteUsage"]

T = TypeVar("T")

_BUSY_SECONDS = 5.0
"""How long a write waits for another process to finish its own."""

_COLUMNS = tuple(field.name for field in structs.fields(UsageRow))

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
)


class SqliteUsage:
    """A `UsageStore` in a file. Threads may share it.

    Args:
        path: of the file; its folder must exist. `:memory:` keeps nothing.

    Raises:
        ConfigurationError: the file is no usage ledger, of a later version, or cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._lock = Lock()
        try:
            self._connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"The usage ledger at {self._path} cannot be opened: {error}. Name a file in a folder "
                "that exists and may be written, or move the damaged file away."
            ) from error

    def write(self, rows: Sequence[UsageRow]) -> int:
        """Keep rows, each once however often it comes. How many were new. Raises `StoreError`."""
        places = ", ".join("?" * len(_COLUMNS))
        statement = f"INSERT OR IGNORE INTO usage ({', '.join(_COLUMNS)}) VALUES ({places})"  # noqa: S608
        values = [structs.astuple(row) for row in rows]

        def work(connection: sqlite3.Connection) -> int:
            before = connection.total_changes
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(statement, values)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            return connection.total_changes - before

        return self._run(work)

    def newest(
        self, limit: int, *, model: str | None = None, since: float = 0.0, until: float | None = None
    ) -> list[UsageRow]:
        """Rows by the time they ended, newest first. Raises `StoreError`."""
        where, values = _where(model, since, until)
        statement = f"SELECT {', '.join(_COLUMNS)} FROM usage WHERE {where} ORDER BY at DESC LIMIT ?"  # noqa: S608
        found = self._run(lambda connection: connection.execute(statement, (*values, limit)).fetchall())
        return [_row(record) for record in found]

    def periods(
        self, seconds: int, since: float, until: float, *, model: str | None = None
    ) -> list[UsagePeriod]:
        """Sums by periods of so many seconds since the epoch, oldest first, empty ones left out."""
        where, values = _where(model, since, until)
        statement = f"""
            SELECT CAST(at / ? AS INTEGER) AS period, COUNT(*), SUM(result = 'success'),
                SUM(input_tokens), SUM(cached_tokens), SUM(output_tokens), SUM(COALESCE(cost, 0)),
                SUM(duration)
            FROM usage WHERE {where} GROUP BY period ORDER BY period
        """  # noqa: S608 - `where` holds no value, only places for them
        found = self._run(
            lambda connection: connection.execute(statement, (seconds, *values)).fetchall()
        )
        return [UsagePeriod(row[0] * seconds, (row[0] + 1) * seconds, *row[1:]) for row in found]

    def forget(self, before: float) -> int:
        """Drop rows that ended before an instant. How many there were. Raises `StoreError`."""
        return self._run(
            lambda connection: connection.execute("DELETE FROM usage WHERE at < ?", (before,)).rowcount
        )

    def close(self) -> None:
        """Write everything into the file itself and close it."""
        with self._lock:
            self._connection.close()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._connection)
            except sqlite3.Error as error:
                raise StoreError(f"The usage ledger at {self._path} failed: {error}.") from error

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(_MIGRATIONS):
                raise sqlite3.DatabaseError(
                    f"it has version {version}, this Headgate knows {len(_MIGRATIONS)}"
                )
            for number, step in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in filter(str.strip, step.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
        except BaseException:
            connection.execute("ROLLBACK")
            connection.close()
            raise
        connection.execute("COMMIT")


def _where(model: str | None, since: float, until: float | None) -> tuple[str, list[object]]:
    clauses, values = ["at >= ?"], [since]
    found: list[object] = list(values)
    if until is not None:
        clauses.append("at < ?")
        found.append(until)
    if model is not None:
        clauses.append("model = ?")
        found.append(model)
    return " AND ".join(clauses), found


def _row(record: Sequence[Any]) -> UsageRow:
    return msgspec.convert(dict(zip(_COLUMNS, record, strict=True)), UsageRow, strict=False)
