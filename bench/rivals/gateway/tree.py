"""A program and its children: started on a core, weighed, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Tree", "core_busy", "started"]

_TICKS = float(os.sysconf("SC_CLK_TCK"))
_GRACE_SECONDS = 5.0


class Tree:
    """What runs under one process group."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log

    def pids(self) -> list[int]:
        """The process and all below it."""
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    todo += map(int, task.read_text(encoding="ascii").split())
        return found

    def cpu(self) -> float:
        """Seconds of processor time, user and system, of those alive."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                fields = (
                    Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                )
                total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def memory(self) -> float:
        """Megabytes: the sum of the proportional set sizes."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                total += sum(
                    int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")
                )
        return total / 1024

    def alive(self) -> bool:
        """Whether the first process still runs."""
        with suppress(ChildProcessError):
            return os.waitpid(self.pid, os.WNOHANG) == (0, 0)
        return False


@contextmanager
def started(
    command: Sequence[str],
    core: int,
    folder: Path,
    name: str,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Tree]:
    """Run a command on one core, in a group of its own; end all of it with the context."""
    log = folder / f"{name}.log"
    environment = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    environment |= {"HOME": str(folder), **(variables or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield Tree(process.pid, log)
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_SECONDS)
                time.sleep(0.2)  # for children that end after it


def core_busy(core: int) -> float:
    """Seconds a core was not idle, since the machine started."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = map(int, line.split()[1:])
            return (user + nice + system + irq + softirq + stolen) / _TICKS
    return 0.0
