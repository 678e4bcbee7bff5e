"""Sessions in a SQLite file: they survive a restart, and processes of one machine share them.

The file holds what people said. It is made readable to its owner alone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeVar

import msgspec

from headgate.core.errors import ConfigurationError, StoreError
from headgate.core.sessions import Session

__all__ = ["SqliteSessions"]

T = TypeVar("T")

_BUSY_SECONDS = 5.0
"""How long a write waits for another process to finish its own."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE sessions (
    caller TEXT NOT NULL, session_id TEXT NOT NULL, version INTEGER NOT NULL, updated REAL NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (caller, session_id)
);
CREATE INDEX sessions_updated ON sessions (updated);
CREATE TABLE claims (
    caller TEXT NOT NULL, session_id TEXT NOT NULL, holder TEXT NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (caller, session_id)
) WITHOUT ROWID;
"""

_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(Session)


class SqliteSessions:
    """A `SessionStore` in a file, opened by the first call. Threads may share it.

    A call raises `ConfigurationError` where the file holds no sessions, those of a later version, or
    cannot be opened; the next one tries again.

    Args:
        path: of the file; its folder must exist. `:memory:` keeps nothing.

    Raises:
        ConfigurationError: there is no such folder, or the path is one.
    """

    blocks = True

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        if self._path == ":memory:":
            return
        file = Path(self._path)
        if not file.parent.is_dir():
            raise self._unopened("its folder does not exist")
        if file.is_dir():
            raise self._unopened("it is a folder")

    def claim(self, caller: str, session_id: str, holder: str, now: float, seconds: float) -> bool:
        """See `SessionStore.claim`."""
        return self._run(
            lambda connection: (
                connection.execute(
                    "INSERT INTO claims VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
                    "SET holder = excluded.holder, until = excluded.until "
                    "WHERE holder = excluded.holder OR until <= ?",
                    (caller, session_id, holder, now + seconds, now),
                ).rowcount
                == 1
            )
        )

    def renew(self, caller: str, session_id: str, holder: str, now: float, seconds: float) -> bool:
        """See `SessionStore.renew`."""
        statement = "UPDATE claims SET until = ? WHERE caller = ? AND session_id = ? AND holder = ?"
        values = (now + seconds, caller, session_id, holder)
        return self._run(lambda connection: connection.execute(statement, values).rowcount == 1)

    def release(self, caller: str, session_id: str, holder: str) -> None:
        """See `SessionStore.release`."""
        self._run(
            lambda connection: connection.execute(
                "DELETE FROM claims WHERE caller = ? AND session_id = ? AND holder = ?",
                (caller, session_id, holder),
            )
        )

    def load(self, caller: str, session_id: str, since: float) -> Session | None:
        """See `SessionStore.load`."""
        row = self._run(
            lambda connection: connection.execute(
                "SELECT body FROM sessions WHERE caller = ? AND session_id = ? AND updated >= ?",
                (caller, session_id, since),
            ).fetchone()
        )
        if row is None:
            return None
        try:
            return _DECODE.decode(row[0])
        except msgspec.DecodeError as error:
            raise StoreError(f"A session at {self._path} cannot be read: {error}.") from error

    def save(self, session: Session) -> bool:
        """See `SessionStore.save`."""
        values = (
            session.caller,
            session.session_id,
            session.version,
            session.updated,
            _ENCODE.encode(session),
        )
        if session.version == 1:
            statement = "INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, ?)"
        else:
            statement = (
                "UPDATE sessions SET version = ?3, updated = ?4, body = ?5 "
                "WHERE caller = ?1 AND session_id = ?2 AND version = ?3 - 1"
            )
        return self._run(lambda connection: connection.execute(statement, values).rowcount == 1)

    def forget(self, caller: str, session_id: str) -> bool:
        """See `SessionStore.forget`."""
        place = (caller, session_id)
        statement = "DELETE FROM sessions WHERE caller = ? AND session_id = ?"
        return self._run(lambda connection: connection.execute(statement, place).rowcount == 1)

    def expire(self, before: float) -> int:
        """See `SessionStore.expire`."""

        def work(connection: sqlite3.Connection) -> int:
            connection.execute("DELETE FROM claims WHERE until < ?", (before,))
            return connection.execute("DELETE FROM sessions WHERE updated < ?", (before,)).rowcount

        return self._run(work)

    def close(self) -> None:
        """See `SessionStore.close`."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            connection = self._connection = self._connection or self._opened()
            try:
                return work(connection)
            except sqlite3.Error as error:
                raise StoreError(f"The sessions at {self._path} failed: {error}.") from error

    def _opened(self) -> sqlite3.Connection:
        try:
            if self._path != ":memory:":
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as error:
            raise self._unopened(str(error)) from error
        try:
            _prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise StoreError(f"The sessions at {self._path} are busy: {error}.") from error
            raise self._unopened(str(error)) from error
        return connection

    def _unopened(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The sessions at {self._path} cannot be opened: {why}. Name a file in a folder that "
            "exists and may be written, or move the damaged file away."
        )


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # what people said is not left in the file
    connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, this Headgate knows {_VERSION}")
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
