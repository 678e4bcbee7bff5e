"""The metrics of several workers behind one port, of which any may be asked for all.

Each worker writes a snapshot of its own counts into a folder they share, every few seconds and before
it answers a scrape; whoever is asked reads all of them. Who lives holds a lock on a file of its own,
which the system lets go however the process ends: nobody has to notice a death, or to tell of it.

    <name>.alive      locked as long as the worker lives
    <name>.metrics    its snapshot; when it is gone, counters and histograms of it still count
    ended.metrics     the sum of workers that are gone, so that many restarts leave one file
    folder.lock       shared while the folder is read, held alone while the gone are summed

What was shown once is in a file, so no counter ever falls: Prometheus would take that for a restart. A
worker that is killed loses what it counted since it last wrote.

prometheus-client's own multi-process mode maps a file for each metric, reads no collectors, keeps no
exemplars and has to be told of each death; see docs/adr/0070.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from threading import Lock

import msgspec

from headgate.telemetry.metrics.exposition import Readable, exposed
from headgate.telemetry.metrics.snapshots import Snapshot, merged, taken

__all__ = ["EVERY_SECONDS", "Publication"]

EVERY_SECONDS = 5.0
"""How often a worker should publish: a third of the usual 15 s between two scrapes."""

_ALIVE, _METRICS = ".alive", ".metrics"
_ENDED = "ended"


class Publication:
    """One worker's part. Threads may share it; a fork needs one of its own.

    Args:
        folder: that all workers of a gateway share and nobody else, empty when the first begins.
        name: of this worker, unlike that of any other there has been; letters and digits.
        source: the registry whose metrics they are.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str, source: Readable) -> None:
        self._folder = folder
        self._name = name
        self._source = source
        self._writing = Lock()
        self._alive: BufferedRandom | None = _locked(folder / f"{name}{_ALIVE}")
        with self._holding(fcntl.LOCK_EX):
            self._sum_up()

    def publish(self) -> None:
        """Write down what is counted now. It blocks for some milliseconds."""
        with self._writing:
            if self._alive is not None:
                self._write(self._name, taken(self._source))

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics of all workers as text, and its content type. It blocks as `publish` does.

        Args:
            accept: as a scrape says it.
        """
        self.publish()
        with self._holding(fcntl.LOCK_SH):
            snapshots = [
                found if _lives(self._folder / f"{name}{_ALIVE}") else found.lasting()
                for name in self._unsummed()
                if (found := self._read(name)) is not None
            ]
        return exposed(merged(snapshots), accept)

    def close(self) -> None:
        """Write a last time, if that is possible. From then on this worker is gone."""
        with suppress(OSError):
            self.publish()
        with self._writing:
            alive, self._alive = self._alive, None
        if alive is not None:
            alive.close()

    # ── files ───────────────────────────────────────────────────────────────────────────────────

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob(f"*{_METRICS}"))

    def _unsummed(self) -> list[str]:
        """Those that count, each once: whoever summed the gone may have been killed before it had taken
        all their files away."""
        ended = self._read(_ENDED)
        summed = () if ended is None else ended.of
        return [name for name in self._names() if name not in summed]

    def _read(self, name: str) -> Snapshot | None:
        try:
            return Snapshot.decoded((self._folder / f"{name}{_METRICS}").read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None  # of another version of Headgate, or summed up meanwhile

    def _write(self, name: str, snapshot: Snapshot) -> None:
        """Whole or not at all: a reader never meets half a file."""
        beside = self._folder / f"{name}.{self._name}.new"
        beside.write_bytes(snapshot.encoded())
        beside.replace(self._folder / f"{name}{_METRICS}")

    def _sum_up(self) -> None:
        """Make one of the files of those that are gone. Nobody reads meanwhile."""
        for name in set(self._names()).difference(self._unsummed()):
            self._forget(name)
        gone = [name for name in self._names() if not _lives(self._folder / f"{name}{_ALIVE}")]
        ended = tuple(name for name in gone if name != _ENDED)
        if not ended:
            return
        found = [snapshot for name in gone if (snapshot := self._read(name)) is not None]
        summed = merged(one.lasting() for one in found).snapshot()
        self._write(_ENDED, Snapshot(summed.families, ended))
        for name in ended:
            self._forget(name)

    def _forget(self, name: str) -> None:
        (self._folder / f"{name}{_METRICS}").unlink()
        (self._folder / f"{name}{_ALIVE}").unlink(missing_ok=True)

    @contextmanager
    def _holding(self, how: int) -> Iterator[None]:
        with (self._folder / "folder.lock").open("a+b") as lock:
            fcntl.flock(lock, how)
            yield


def _locked(path: Path) -> BufferedRandom:
    """A file that is locked until it is closed, or its process ends."""
    file = path.open("a+b")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _lives(path: Path) -> bool:
    """Whether somebody holds the lock. Those who ask share it, so that they do not take each other for
    the owner."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
