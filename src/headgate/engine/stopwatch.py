"""Where the time of a call goes: each stage's own, told to whoever traces the call.

A stage's own time is what passes in it and not further down the path: before it goes on, between two
times that it goes on, and after the last. Only calls that somebody traces take this way down.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from headgate.core.ports import Clock, StageTimes
from headgate.engine.passage import Answer, Onward, Passage, Stage

__all__ = ["timed"]

_UNTIMED = ("hedge", "send")
"""What hedge does, it does twice at once; what send does is the attempt, of which records tell."""


def timed(stages: Sequence[tuple[str, Stage]], end: Onward, clock: Clock, heard: StageTimes) -> Onward:
    """The path through these stages, each under a stopwatch.

    Args:
        stages: with their names, in the order of the path.
        heard: is told a name, and the monotonic seconds at which the stage began and ceased to be busy.
    """
    path = end
    for name, stage in reversed(stages):
        if name in _UNTIMED:
            path = partial(stage, onward=path)
        else:
            path = partial(_own_time, stage, partial(heard, name), clock, path)
    return path


async def _own_time(
    stage: Stage, heard: partial[None], clock: Clock, onward: Onward, passage: Passage
) -> Answer:
    since = clock.monotonic()

    async def went_on(inner: Passage) -> Answer:
        nonlocal since
        heard(since, clock.monotonic())
        try:
            return await onward(inner)
        finally:
            since = clock.monotonic()

    try:
        return await stage(passage, went_on)
    finally:
        heard(since, clock.monotonic())
