"""Callers in a SQLite file that the processes of one machine share: changes, holds and sums.

One transaction decides about a batch of calls, so no two processes can hold the same money. A process
that is killed loses nothing of it; a machine that loses its power may lose what was booked in the last
second or so (`synchronous=NORMAL`), and the file stays whole.

No key is in the file, only hashes. Whoever may write it may let himself in: it is made for its owner
alone, and refused where others may read or write it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TypeVar

import msgspec
from msgspec import structs

from headgate.core.callers import BudgetWindow, Caller, Denied, Held, Hold, Settled, Spending
from headgate.core.errors import ConfigurationError, StoreError
from headgate.policy.budget import HOLD_SECONDS, decide, period_of
from headgate.stores.callers import changed_meanwhile, name_is_taken

__all__ = ["SqliteCallers"]

T = TypeVar("T")

_BUSY_SECONDS = 2.0
"""How long a step waits for another process to finish its own: a call waits with it."""

_FORGOTTEN_SECONDS = 86_400.0
"""After which a hold nobody settled is booked as spent, so that such holds do not pile up."""

_OURS = 0x68676361
"""Marks the file as one of callers: `hgca`, in ASCII."""

# Each step brings a file from the version of its place to the next; none is ever changed afterwards.
_MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE callers (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL UNIQUE,
        body BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE spent (
        caller TEXT NOT NULL, period TEXT NOT NULL, amount INTEGER NOT NULL,
        unpriced INTEGER NOT NULL, PRIMARY KEY (caller, period)
    ) WITHOUT ROWID;
    CREATE TABLE holds (
        id TEXT PRIMARY KEY, caller TEXT NOT NULL, period TEXT NOT NULL, amount INTEGER NOT NULL,
        until REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX holds_caller ON holds (caller);
    """,
)

_BOOK = (
    "INSERT INTO spent SELECT caller, period, ?2, ?3 FROM holds WHERE id = ?1 AND period != '' "
    "ON CONFLICT DO UPDATE SET amount = amount + excluded.amount, "
    "unpriced = unpriced + excluded.unpriced"
)
_SUMS = (
    "SELECT COALESCE((SELECT amount FROM spent WHERE caller = ?1 AND period = ?2), 0), "
    "COALESCE((SELECT unpriced FROM spent WHERE caller = ?1 AND period = ?2), 0), "
    "COALESCE(SUM(CASE WHEN period = ?2 THEN amount END), 0), "
    "COALESCE(SUM(until > ?3), 0) FROM holds WHERE caller = ?1"
)

_ENCODE = msgspec.json.Encoder()
_DECODE = msgspec.json.Decoder(Caller)


class SqliteCallers:
    """A `CallerStore` in a file, opened by the first call. Threads may share it, and a process that was
    forked opens it anew.

    A call raises `ConfigurationError` where the file holds no callers, those of a later version, or
    cannot be opened; the next one tries again.

    Args:
        path: of the file; its folder must exist.

    Raises:
        ConfigurationError: there is no such folder, or the path is one.
    """

    blocks = True

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._tidied = False
        if not Path(self._path).parent.is_dir():
            raise self._unopened("its folder does not exist")
        if Path(self._path).is_dir():
            raise self._unopened("it is a folder")

    # ── the callers ─────────────────────────────────────────────────────────────────────────────

    def changed(self, since: int) -> list[Caller]:
        """See `CallerStore.changed`."""
        statement = "SELECT body FROM callers WHERE version > ? ORDER BY version"
        return self._read(statement, (since,))

    def put(self, caller: Caller) -> Caller:
        """See `CallerStore.put`."""

        def work(connection: sqlite3.Connection) -> Caller:
            row = connection.execute(
                "SELECT version FROM callers WHERE id = ?", (caller.id,)
            ).fetchone()
            if (0 if row is None else row[0]) != caller.version:
                raise changed_meanwhile(caller)
            taken = "SELECT 1 FROM callers WHERE name = ? AND id != ?"
            if connection.execute(taken, (caller.name, caller.id)).fetchone():
                raise name_is_taken(caller)
            (last,) = connection.execute("SELECT COALESCE(MAX(version), 0) FROM callers").fetchone()
            kept = structs.replace(caller, version=last + 1)
            values = (kept.id, kept.name, kept.version, _ENCODE.encode(kept))
            connection.execute("INSERT OR REPLACE INTO callers VALUES (?, ?, ?, ?)", values)
            return kept

        return self._step(work)

    def find(self, name: str) -> Caller | None:
        """See `CallerStore.find`."""
        found = self._read("SELECT body FROM callers WHERE id = ?1 OR name = ?1", (name,))
        return next((one for one in found if one.id == name), found[0] if found else None)

    def page(self, after: str, limit: int) -> list[Caller]:
        """See `CallerStore.page`."""
        statement = "SELECT body FROM callers WHERE name > ? ORDER BY name LIMIT ?"
        return self._read(statement, (after, limit))

    def _read(self, statement: str, values: Sequence[object]) -> list[Caller]:
        rows = self._run(lambda connection: connection.execute(statement, values).fetchall())
        try:
            return [_DECODE.decode(body) for (body,) in rows]
        except msgspec.DecodeError as error:
            raise StoreError(f"A caller at {self._path} cannot be read: {error}.") from error

    # ── what calls hold ─────────────────────────────────────────────────────────────────────────

    def hold(
        self, settled: Sequence[Settled], renewed: Sequence[str], asked: Sequence[Hold], now: float
    ) -> list[Held | Denied]:
        """See `CallerStore.hold`."""

        def work(connection: sqlite3.Connection) -> list[Held | Denied]:
            if not self._tidied:
                _tidy(connection, now - _FORGOTTEN_SECONDS)
            for ended in settled:
                _settle(connection, ended.id, ended.amount, unpriced=ended.unpriced)
            if renewed:
                values = [(now + HOLD_SECONDS, name) for name in renewed]
                connection.executemany("UPDATE holds SET until = ? WHERE id = ?", values)
            seen: dict[tuple[str, str], Spending] = {}
            return [_ask(connection, ask, now, seen) for ask in asked]

        verdicts = self._step(work)
        self._tidied = True
        return verdicts

    def spending(self, caller: str, window: BudgetWindow, now: float) -> Spending:
        """See `CallerStore.spending`."""
        period = period_of(window, now)
        return self._run(lambda connection: _found(connection, caller, period, now))

    def close(self) -> None:
        """See `CallerStore.close`."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._process == os.getpid():
                connection.close()

    # ── the file ────────────────────────────────────────────────────────────────────────────────

    def _step(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work as one transaction: all of it or nothing."""

        def whole(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                done = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                # A disk that is full may have rolled it back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return done

        return self._run(whole)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._connection is None or self._process != os.getpid():
                    self._parents = self._connection  # closing it would harm the parent
                    self._connection = self._opened()
                    self._process = os.getpid()
                return work(self._connection)
            except sqlite3.Error as error:
                raise StoreError(f"The callers at {self._path} failed: {error}.") from error

    def _opened(self) -> sqlite3.Connection:
        try:
            number = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                open_to_all = os.fstat(number).st_mode & (stat.S_IROTH | stat.S_IWOTH)
            finally:
                os.close(number)
            if open_to_all:
                raise self._unopened(
                    f"every user of this machine may use it: `chmod o-rwx {self._path}`"
                )
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
                raise StoreError(f"The callers at {self._path} are busy: {error}.") from error
            raise self._unopened(str(error)) from error
        return connection

    def _unopened(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The callers at {self._path} cannot be opened: {why}. Set HEADGATE_CALLERS to a file in a "
            "folder that exists and may be written, or move the damaged file away."
        )


def _settle(connection: sqlite3.Connection, name: str, amount: int, *, unpriced: bool) -> None:
    connection.execute(_BOOK, (name, amount, int(unpriced)))
    connection.execute("DELETE FROM holds WHERE id = ?", (name,))


def _ask(
    connection: sqlite3.Connection, ask: Hold, now: float, seen: dict[tuple[str, str], Spending]
) -> Held | Denied:
    """Args: `seen`: sums that were read in this step, kept up to date."""
    period = "" if ask.budget is None else period_of(ask.budget.window, now)
    place = (ask.caller, period)
    found = seen.get(place) or _found(connection, ask.caller, period, now)
    verdict = decide(ask, spent=found.spent, held=found.held, under_way=found.under_way)
    if isinstance(verdict, Held):
        values = (ask.id, ask.caller, period, verdict.amount, now + HOLD_SECONDS)
        connection.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?)", values)
        seen.clear()  # of other windows of the caller, too: a place is a place in each
        found = structs.replace(found, held=found.held + verdict.amount, under_way=found.under_way + 1)
    seen[place] = found
    return verdict


def _found(connection: sqlite3.Connection, caller: str, period: str, now: float) -> Spending:
    spent, unpriced, held, under_way = connection.execute(_SUMS, (caller, period, now)).fetchone()
    return Spending(spent, held, under_way, unpriced)


def _tidy(connection: sqlite3.Connection, before: float) -> None:
    """Book at their worst what processes held that died long ago."""
    forgotten = "SELECT id, amount FROM holds WHERE until < ?"
    for name, amount in connection.execute(forgotten, (before,)).fetchall():
        _settle(connection, name, amount, unpriced=False)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        if owner != _OURS and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise sqlite3.DatabaseError("it holds something else")
        if version > len(_MIGRATIONS):
            raise sqlite3.DatabaseError(
                f"it has version {version}, this Headgate knows {len(_MIGRATIONS)}"
            )
        connection.execute(f"PRAGMA application_id = {_OURS}")
        for number, step in enumerate(_MIGRATIONS[version:], version + 1):
            for statement in filter(str.strip, step.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
