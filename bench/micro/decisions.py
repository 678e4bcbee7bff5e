"""Decisions a second against other limiters: the same work, in turns, theirs in their environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.install import MISSING, interpreter
from bench.micro.figures import Figure, Scale, in_turn, ratio
from bench.server import running

__all__ = ["BUCKET", "IN_MEMORY", "LARGE", "LARGE_COST", "ON_STORE", "measure", "notes"]

IN_MEMORY = "Decisions in memory, unit cost, one key"
ON_STORE = "Decisions on Valkey, unit cost, one key"
LARGE = "A request of 30,000 tokens to a request of one"
LARGE_COST = 30_000
AT_ONCE = 32
BUCKET = {"memory": "headgate token bucket", "store": "headgate token bucket, Redis"}
_LOG = {"memory": "limits, moving window", "store": "limits, moving window, Redis"}
_LEDGER = {"memory": "headgate ledger", "store": "headgate ledger, ValkeyStore"}
ROOT = Path(__file__).parents[2]


class _Taken(NamedTuple):
    cpu: float
    wall: float


class _Limiter(NamedTuple):
    """One limiter of one worker process."""

    name: str
    home: str
    worker: subprocess.Popen[str]

    def take(self, url: str | None, cost: int, at_once: int, seconds: float) -> _Taken:
        """Raises `RuntimeError` where the limiter failed, or refused what it must admit."""
        sending, reading = self.worker.stdin, self.worker.stdout
        assert sending is not None
        assert reading is not None
        asked = {"name": self.name, "url": url, "cost": cost, "at_once": at_once, "seconds": seconds}
        sending.write(json.dumps(asked) + "\n")
        sending.flush()
        said = json.loads(reading.readline())
        if "error" in said or said["share"] < 1:
            raise RuntimeError(f"{self.name}: {said.get('error', 'refused what has room')}")
        return _Taken(said["cpu"], said["wall"])


_said: list[str] = []


def notes() -> list[str]:
    """What a reader of the figures must know; filled by `measure`."""
    return list(_said)


def measure(scale: Scale) -> list[Figure]:
    _said.clear()
    with ExitStack() as stack:
        limiters = list(stack.enter_context(_worker(sys.executable, "ours")))
        python = interpreter() if scale.rivals else None
        if python is None:
            _said.append(MISSING if scale.rivals else "Rivals were left out.")
        else:
            limiters += stack.enter_context(_worker(str(python), "rivals"))
        url = stack.enter_context(running())
        inside = [limiter for limiter in limiters if limiter.home == "memory"]
        shared = [limiter for limiter in limiters if limiter.home == "store"]
        figures = _decisions(IN_MEMORY, inside, None, 1, scale)
        for at_once in (1, AT_ONCE):
            figures += _decisions(f"{ON_STORE}, {at_once} at a time", shared, url, at_once, scale)
        return figures + _large(limiters, url, scale)


@contextmanager
def _worker(python: str, module: str) -> Iterator[list[_Limiter]]:
    name = "bench.micro.limiters"
    process = subprocess.Popen(
        [python, "-m", f"{name}.worker", f"{name}.{module}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None
        if module == "ours"
        else subprocess.DEVNULL,  # some leave tasks behind that complain
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        packages = ", ".join(f"{package} {number}" for package, number in said["ready"].items())
        _said.append(f"{module}: {packages}")
        yield [_Limiter(name, home, process) for name, home in said["names"]]
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _decisions(
    group: str, limiters: Sequence[_Limiter], url: str | None, at_once: int, scale: Scale
) -> list[Figure]:
    takings = [partial(one.take, url, 1, at_once, scale.seconds) for one in limiters]
    taken = in_turn(min(5, scale.repeats), takings)
    home = "memory" if url is None else "store"
    costs = {
        one.name: Figure(group, f"{one.name}, CPU", "µs", tuple(value.cpu for value in values))
        for one, values in zip(limiters, taken, strict=True)
    }
    figures = list(costs.values())
    figures += [
        Figure(group, f"{one.name}, decisions", "/s", tuple(1e6 / value.wall for value in values))
        for one, values in zip(limiters, taken, strict=True)
    ]
    ours = costs[BUCKET[home]]
    figures += [
        ratio(group, f"{name} to our token bucket, CPU", cost, ours)
        for name, cost in costs.items()
        if not name.startswith("headgate")
    ]
    if _LOG[home] in costs:
        ledger, log = costs[_LEDGER[home]], costs[_LOG[home]]
        figures.append(ratio(group, f"our ledger to {_LOG[home]}, CPU", ledger, log))
    return figures


def _large(limiters: Sequence[_Limiter], url: str, scale: Scale) -> list[Figure]:
    """Wall time, so that what a server does for it counts."""
    figures = []
    for one in limiters:
        place = url if one.home == "store" else None
        takings = [partial(one.take, place, cost, 1, scale.seconds) for cost in (1, LARGE_COST)]
        taken = in_turn(min(3, scale.repeats), takings)
        small, large = (
            Figure(LARGE, f"{one.name}, {cost:,}", "µs", tuple(value.wall for value in values))
            for cost, values in zip((1, LARGE_COST), taken, strict=True)
        )
        figures.append(ratio(LARGE, one.name, large, small))
    return figures
