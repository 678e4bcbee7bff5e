"""Was the machine quiet enough for a result to be blessed?

A bench's own work is its process and its children; whatever else used the processors while it ran is
foreign. Figures taken beside foreign work are no figures: they are printed and written, but beside the
results, not over them, and they say so.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["FOREIGN", "Load", "Verdict", "Watch", "await_quiet", "place"]

FOREIGN = 0.10
"""Share of one core that others may use: what `speed.md` voids a row at."""

_QUIET = 0.10
_TICKS = float(os.sysconf("SC_CLK_TCK"))
_STAT = Path("/proc/stat")


class Load(NamedTuple):
    """Seconds of processor time since the machine started, and of this program with its children."""

    at: float
    busy: float
    own: float

    @classmethod
    def now(cls, children: frozenset[int] = frozenset()) -> Load:
        """Read it. `children` are living processes whose time would else count only when they end."""
        return cls(time.monotonic(), _busy(), _own() + sum(map(_of, children)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a result may be blessed, and the sentence that says why not.

    Attributes:
        foreign: cores that other programs used, on average.
        total: share of all processors that was in use, own work included.
    """

    quiet: bool
    sentence: str
    foreign: float
    total: float

    def as_dict(self) -> dict[str, object]:
        return {
            "blessed": self.quiet,
            "foreign_cores": round(self.foreign, 3),
            "machine_busy": round(self.total, 3),
            "said": self.sentence,
        }


class Watch:
    """Looks at the machine from its making on."""

    def __init__(self) -> None:
        self._begun = Load.now()
        self._known = _STAT.exists()

    def verdict(self) -> Verdict:
        """How it was until now. Ask when every child has ended: a living one counts as foreign."""
        if not self._known:
            return Verdict(False, "NOT BLESSED: this system does not tell who uses it.", 0.0, 0.0)
        then, now = self._begun, Load.now()
        took = max(1e-3, now.at - then.at)
        busy, own = now.busy - then.busy, now.own - then.own
        foreign = max(0.0, (busy - own) / took)
        total = busy / took / (os.cpu_count() or 1)
        if foreign > FOREIGN:
            sentence = (
                f"NOT BLESSED: other programs used {foreign:.2f} cores while this ran "
                f"(at most {FOREIGN:.2f}); run it again on a quiet machine."
            )
            return Verdict(False, sentence, foreign, total)
        return Verdict(True, f"quiet: others used {foreign:.2f} cores", foreign, total)


def await_quiet(seconds: float = 60.0) -> bool:
    """Wait until the machine did nothing for a second; False if that did not come in time."""
    end = time.monotonic() + seconds
    while True:
        before = Load.now()
        time.sleep(1.0)
        now = Load.now()
        used = (now.busy - before.busy) / (now.at - before.at)
        if used < _QUIET * (os.cpu_count() or 1):
            return True
        if time.monotonic() >= end:
            return False


def place(folder: Path, name: str, verdict: Verdict, *, own_folder: bool) -> Path:
    """Where a result goes, without its ending.

    One that is not blessed never takes the place of one that is committed: there it gets another name.

    Args:
        own_folder: the folder was asked for, so it is not the one with the committed results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (name if verdict.quiet or own_folder else f"{name}.busy")


def _busy() -> float:
    try:
        first = _STAT.read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = map(int, first.split()[1:])
    return (user + nice + system + irq + softirq + stolen) / _TICKS


def _own() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS
