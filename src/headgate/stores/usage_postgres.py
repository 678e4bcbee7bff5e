"""The usage ledger in Postgres: durable, for many hosts. Needs the `postgres` extra.

Tables are made when a ledger is first opened, in the first schema of the user's search path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.usage import By, Place, UsageFilter, UsageRow, UsageSum
from headgate.policy.redaction import redact
from headgate.stores import usage_sql as sql

__all__ = ["PostgresUsage"]

T = TypeVar("T")

_CONNECT_SECONDS = 5
_STATEMENT_MS = 30_000
"""The longest a statement may take: a sum over a large table, or a write behind a lock."""

_MIGRATION_LOCK = 4_806_275_121
"""A number of ours for Postgres's advisory locks: two processes may make the tables at once."""

_TABLE = "headgate_usage"
_PERIOD = "FLOOR(at / {seconds})"

# Each step brings the tables from the version of its place to the next; none is changed afterwards.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE headgate_usage (
            request_id TEXT NOT NULL, attempt INTEGER NOT NULL,
            at DOUBLE PRECISION NOT NULL, duration DOUBLE PRECISION NOT NULL,
            provider TEXT NOT NULL, model TEXT NOT NULL, operation TEXT NOT NULL, result TEXT NOT NULL,
            caller TEXT NOT NULL, domain TEXT NOT NULL, key_name TEXT NOT NULL,
            input_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL,
            output_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL,
            cost BIGINT, estimated SMALLINT NOT NULL,
            error TEXT NOT NULL, cached_cost BIGINT NOT NULL,
            output_cost BIGINT NOT NULL, reasoning_cost BIGINT NOT NULL,
            call TEXT NOT NULL, call_seconds DOUBLE PRECISION NOT NULL, retries INTEGER NOT NULL,
            looked_up SMALLINT NOT NULL, from_cache SMALLINT NOT NULL, saved BIGINT NOT NULL,
            PRIMARY KEY (request_id, attempt)
        )
        """,
        "CREATE INDEX headgate_usage_at ON headgate_usage (at)",
        "CREATE INDEX headgate_usage_model_at ON headgate_usage (model, at)",
    ),
)


class PostgresUsage:
    """A `UsageStore` in a Postgres database. Threads may share it; it has one connection, which is made
    anew when it broke.

    Args:
        url: `postgresql://user:password@host/database`, as libpq takes it.

    Raises:
        ConfigurationError: the extra is not installed, the database cannot be reached, or its tables
            are of a later version.
    """

    def __init__(self, url: str) -> None:
        try:
            import psycopg  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigurationError(
                "A usage ledger in Postgres needs psycopg: pip install 'headgate[postgres]'."
            ) from None
        self._driver = psycopg
        self._url = url
        self._lock = Lock()
        self._connection: Any = None
        self._process = 0
        try:
            with self._lock:
                self._prepare(self._connected())
        except psycopg.Error as error:
            self.close()
            raise ConfigurationError(
                f"The usage ledger in Postgres cannot be opened: {self._said(error)}. Check its URL, "
                "and that the user may create tables."
            ) from None
        except BaseException:
            self.close()
            raise

    def write(self, rows: Sequence[UsageRow]) -> int:
        """Keep rows, each once however often it comes. How many were new. Raises `StoreError`."""
        statement, values = _places(sql.insert(_TABLE)), [sql.values_of(row) for row in rows]

        def work(connection: Any) -> int:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(statement, values)
                return int(cursor.rowcount)

        return self._run(work) if rows else 0

    def newest(self, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        """Rows by the time they ended, newest first. Raises `StoreError`."""
        return [sql.row_of(record) for record in self._read(*sql.newest(_TABLE, limit, chosen))]

    def following(self, after: Place | None, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        """Rows that come after a place, oldest first. Raises `StoreError`."""
        found = self._read(*sql.following(_TABLE, after, limit, chosen))
        return [sql.row_of(record) for record in found]

    def sums(self, by: By, chosen: UsageFilter) -> list[UsageSum]:
        """Sums of periods, the oldest first, or of names, the dearest first. Raises `StoreError`."""
        return [sql.sum_of(by, record) for record in self._read(*sql.sums(_TABLE, by, chosen, _PERIOD))]

    def forget(self, before: float) -> int:
        """Drop rows that ended before an instant. How many there were. Raises `StoreError`."""
        statement = "DELETE FROM headgate_usage WHERE at < %s"
        return self._run(lambda connection: int(connection.execute(statement, (before,)).rowcount))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _read(self, statement: str, values: Sequence[object]) -> list[Sequence[Any]]:
        asked = _places(statement)
        return self._run(lambda connection: list(connection.execute(asked, values).fetchall()))

    def _run(self, work: Callable[[Any], T]) -> T:
        with self._lock:
            try:
                return work(self._connected())
            except self._driver.Error as error:
                raise StoreError(f"The usage ledger in Postgres failed: {self._said(error)}.") from None

    def _connected(self) -> Any:
        """The connection, made anew where it broke, or where this process was forked from its maker."""
        connection = self._connection
        if connection is not None and self._process == os.getpid() and not connection.broken:
            return connection
        self._parents, self._process = connection, os.getpid()  # closing it would harm the parent
        self._connection = self._driver.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            application_name="headgate",
            options=f"-c statement_timeout={_STATEMENT_MS}",
        )
        return self._connection

    def _prepare(self, connection: Any) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            connection.execute(
                "CREATE TABLE IF NOT EXISTS headgate_usage_version (version INTEGER NOT NULL)"
            )
            found = connection.execute("SELECT MAX(version) FROM headgate_usage_version").fetchone()
            version = found[0] or 0
            if version > len(_MIGRATIONS):
                raise ConfigurationError(
                    f"The usage ledger in Postgres has version {version}, this Headgate knows "
                    f"{len(_MIGRATIONS)}: update Headgate, or name another database."
                )
            for number, step in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in step:
                    connection.execute(statement)
                connection.execute("INSERT INTO headgate_usage_version VALUES (%s)", (number,))

    def _said(self, error: Exception) -> str:
        """The first line of what the database says, without the password."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        password = urlsplit(self._url).password
        secrets = [] if not password else [password, unquote(password)]
        return redact(lines[0], *secrets, limit=300).rstrip(".")


def _places(statement: str) -> str:
    """A statement with places as psycopg writes them; no statement has a `?` or `%` of its own."""
    return statement.replace("?", "%s")
