"""What a soak found: whether anything grew."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Rest", "grown"]

_TASKS, _FILES, _THREADS = 2, 8, 2
"""More of them than at the first rest are no leak yet: a pool keeps some connections, a library some
threads. A leak of one in a thousand requests is far beyond after a minute."""

_FIXED_KIB = 4 * 1024


class Rest(NamedTuple):
    """What a process holds while nothing is asked of it.

    Attributes:
        at: seconds since the start.
        asked: requests until then.
        memory: resident, in KiB.
        files: that are open, sockets among them.
    """

    at: float
    asked: int
    tasks: int
    files: int
    threads: int
    memory: int


def grown(rests: Sequence[Rest], *, share: float) -> list[str]:
    """A sentence for each thing that grew. The first rest is left out where there are enough: until
    then everything is made for the first time.

    Args:
        share: of the memory that it may grow by, between the first half and the last quarter.
    """
    if len(rests) < 2:
        return ["there were not enough rests to compare"]
    settled = rests[1:] if len(rests) > 3 else rests
    first, last = settled[0], settled[-1]
    said = [
        f"{name} grew from {getattr(first, name)} to {getattr(last, name)}"
        for name, most in (("tasks", _TASKS), ("files", _FILES), ("threads", _THREADS))
        if getattr(last, name) > getattr(first, name) + most
    ]
    early = statistics.median(rest.memory for rest in settled[: max(1, len(settled) // 2)])
    late = statistics.median(rest.memory for rest in settled[-max(1, len(settled) // 4) :])
    if late > early * (1 + share) + _FIXED_KIB:
        said.append(f"memory grew from {early:.0f} to {late:.0f} KiB")
    return said
