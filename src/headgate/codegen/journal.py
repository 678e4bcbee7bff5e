"""What a bulk creation remembers on disk, so that a crash never creates a run twice.

One JSON object a line, appended and synchronised before what it announces happens:

    {"journal": 1, "id": "…", "org_id": 123, "at": 1795262400.0}
    {"item": 0, "hash": "…", "state": "sending"}      written right before the request leaves
    {"item": 0, "state": "created", "run": {…}}
    {"item": 1, "state": "refused"}                   the API cannot have acted on it
    {"item": 2, "state": "unknown"}                   it may have: no answer came

After a crash an item whose last line is `sending` or `unknown` may have been created. Each run carries
`<id>:<item>` in its metadata, so the list of runs tells.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, BinaryIO, Self

from headgate.codegen.errors import ValidationError
from headgate.core.errors import ConfigurationError

__all__ = ["MARK", "Journal"]

MARK = "headgate_bulk"
"""The key under which a run's metadata names its journal and item."""

_VERSION = 1


class Journal:
    """One file, for one list of items of one organisation. A context manager: it holds a lock.

    Attributes:
        id: of the journal.
        created: item to the run's JSON.
        uncertain: items that may have been created.
        begun: Unix time of the first line.

    Raises:
        ConfigurationError: another process has it, it belongs to another organisation, or it is no
            journal.
    """

    def __init__(self, path: str | Path, org_id: int, at: float) -> None:
        self._path = Path(path)
        self._org_id = org_id
        self.id = ""
        self.begun = at
        self.created: dict[int, dict[str, Any]] = {}
        self.uncertain: set[int] = set()
        self._hashes: dict[int, str] = {}
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        file = self._path.open("a+b")
        try:
            _lock(file)
            self._read(file)
        except BlockingIOError:
            file.close()
            raise ConfigurationError(
                f"The journal {self._path} is in use by another process."
            ) from None
        except BaseException:
            file.close()
            raise
        self._file = file
        if not self.id:
            self.id = token_hex(8)
            head = {"journal": _VERSION, "id": self.id, "org_id": self._org_id, "at": self.begun}
            self._append(head)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()  # and with it the lock
            self._file = None

    def mark(self, index: int) -> str:
        """What the metadata of an item's run says."""
        return f"{self.id}:{index}"

    def check(self, index: int, item: Mapping[str, Any]) -> None:
        """Raises `ValidationError` if this item is not the one the journal knows."""
        known = self._hashes.get(index)
        if known is not None and known != _hash(item):
            said = (
                f"the journal {self._path} knows another item {index}; give each list its own journal"
            )
            raise ValidationError(f"Nothing was sent. {said}.", {"run_configs": [said]})

    def sending(self, index: int, item: Mapping[str, Any]) -> None:
        """The request is about to leave."""
        self._hashes[index] = _hash(item)
        self.uncertain.add(index)
        self._append({"item": index, "hash": self._hashes[index], "state": "sending"})

    def made(self, index: int, run: Mapping[str, Any]) -> None:
        """The run exists."""
        self.uncertain.discard(index)
        self.created[index] = dict(run)
        self._append({"item": index, "state": "created", "run": self.created[index]})

    def refused(self, index: int) -> None:
        """It does not exist."""
        self.uncertain.discard(index)
        self._append({"item": index, "state": "refused"})

    def unknown(self, index: int) -> None:
        """Nobody knows."""
        self._append({"item": index, "state": "unknown"})

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None  # noqa: S101 - within the context only
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, file: BinaryIO) -> None:
        file.seek(0)
        lines = file.read().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                self._take(json.loads(line), number)
            except (ValueError, KeyError, TypeError):
                raise ConfigurationError(
                    f"{self._path}, line {number}, is no line of a journal."
                ) from None
        if lines[-1]:  # a line that a crash cut off: it announces nothing that happened
            with contextlib.suppress(OSError):
                file.truncate(file.seek(0, os.SEEK_END) - len(lines[-1]))
        file.seek(0, os.SEEK_END)

    def _take(self, entry: Any, number: int) -> None:
        if not isinstance(entry, dict):
            raise TypeError
        if number == 1:
            if entry.get("journal") != _VERSION:
                raise ConfigurationError(f"{self._path} is no journal of a bulk creation.")
            if entry.get("org_id") != self._org_id:
                raise ConfigurationError(f"{self._path} belongs to organisation {entry.get('org_id')}.")
            self.id, self.begun = str(entry["id"]), float(entry["at"])
            return
        index = int(entry["item"])
        match entry.get("state"):
            case "sending":
                self._hashes[index] = str(entry["hash"])
                self.uncertain.add(index)
            case "created":
                self.uncertain.discard(index)
                self.created[index] = entry["run"]
            case "refused":
                self.uncertain.discard(index)


def _lock(file: BinaryIO) -> None:
    """Raises `BlockingIOError` if another process holds it. Where files cannot be locked, none does."""
    with contextlib.suppress(ImportError):
        import fcntl  # noqa: PLC0415 - not on every system

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _hash(item: Mapping[str, Any]) -> str:
    text = json.dumps(item, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
