"""The board in real time: scenes in waves, every contender of a scene in the same wave."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence

from bench.machine import Load
from bench.quota.play import Contender, Played, Score, play
from bench.quota.upstream import BURST, Scene, born
from headgate.wiring.clock import SystemClock

__all__ = ["Board", "burst_start", "bursts", "packed", "scenes_at_once"]

_STARTING = 8  # contenders that start at the same time
_APART = 3.0  # seconds from one contender's burst to the next's
_LATEST = 40.0  # second of a minute at which a burst may begin, so that it stays within the minute
_SATURATED = 0.9  # share of all processors


class Board:
    """Collects scores, and what is to be said of them."""

    def __init__(self) -> None:
        self.scores: list[Score] = []
        self.lost: list[str] = []
        self.loads: list[str] = []

    async def wave(self, name: str, cells: Sequence[tuple[Contender, Scene]], begin: _Begin) -> None:
        """Measure these at the same time; each begins when all are ready, so no start disturbs."""
        print(f"{name}: {len(cells)} contenders get ready …", file=sys.stderr, flush=True)
        ready = _Ready(len(cells), name, begin)
        starting = asyncio.Semaphore(_STARTING)

        async def one(number: int) -> Played:
            contender, scene = cells[number]
            arrived = False

            async def together() -> float:
                nonlocal arrived
                arrived = True
                starting.release()
                return await ready.wait(number, scene)

            await starting.acquire()
            try:
                return await play(contender, scene, SystemClock(), together)
            finally:
                if not arrived:  # it failed to start; the others must not wait for it
                    starting.release()
                    ready.miss()

        played = await asyncio.gather(*map(one, range(len(cells))), return_exceptions=True)
        timed = any(scene.pool != "burst" for _, scene in cells)  # 500 calls at once need everything
        self._note(name, ready.load(), judged=timed)
        for (contender, scene), result in zip(cells, played, strict=True):
            if isinstance(result, Played):
                self._keep(result.score())
            else:
                where = f"{scene.load} {scene.pool} {scene.mechanism}"
                self.lost.append(f"**Not measured**: {contender.name}, {where}: {result!r}.")

    def _keep(self, score: Score) -> None:
        self.scores.append(score)
        if not score.trusted:
            where = " ".join(map(str, score.place))
            self.lost.append(
                f"**Do not trust** {score.contender}, {where}: of the bench's own calls one in a "
                f"hundred was {score.late_p99:.2f} s late or more, one {score.late:.2f} s."
            )

    def _note(self, name: str, load: tuple[float, float], *, judged: bool) -> None:
        total, own = load
        said = f"{name}: {total:.0%} of the processors in use, {own:.2f} cores by the bench itself"
        print(said, file=sys.stderr, flush=True)
        self.loads.append(said)
        if total > _SATURATED and judged:
            self.lost.append(
                f"**Do not trust** {name}: the processors were in use {total:.0%} of the time, so "
                "contenders waited for them."
            )


class _Begin:
    """When each cell of a wave begins, once all are ready."""

    def at(self, number: int, scene: Scene, wall: float) -> float:  # noqa: ARG002
        """The Unix time; `wall` is that at which all were ready."""
        return born(scene, wall)


class _OneByOne(_Begin):
    """Bursts apart from each other, and never across the end of a minute."""

    def at(self, number: int, scene: Scene, wall: float) -> float:  # noqa: ARG002
        """As in `_Begin`."""
        return burst_start(number, wall)


def burst_start(number: int, wall: float) -> float:
    """When the contender of this number makes its burst, if all were ready at `wall`. Unix times."""
    at = wall
    for turn in range(number + 1):
        at += _APART if turn else 0.5
        if at % 60 > _LATEST:
            at += 60 - at % 60 + 0.5
    return at


class _Ready:
    """Everybody waits here for the last; from then on the processors are watched."""

    def __init__(self, left: int, name: str, begin: _Begin) -> None:
        self._left = left
        self._name = name
        self._begin = begin
        self._all = asyncio.Event()
        self._wall = 0.0
        self._load = Load.now()
        self._worked = time.process_time()

    async def wait(self, number: int, scene: Scene) -> float:
        self.miss()
        await self._all.wait()
        return self._begin.at(number, scene, self._wall)

    def miss(self) -> None:
        """One fewer to wait for."""
        self._left -= 1
        if self._left == 0:
            self._wall = time.time()
            self._load, self._worked = Load.now(), time.process_time()
            print(f"{self._name}: all are ready", file=sys.stderr, flush=True)
            self._all.set()

    def load(self) -> tuple[float, float]:
        """Share of all processors in use since, and cores this process used."""
        now = Load.now()
        took = max(1e-3, now.at - self._load.at)
        cores = os.cpu_count() or 1
        worked = time.process_time() - self._worked
        return (now.busy - self._load.busy) / took / cores, worked / took


async def bursts(board: Board, contenders: Sequence[Contender]) -> None:
    """500 calls at once for each, one contender after the other."""
    await board.wave("bursts", [(contender, BURST.scene) for contender in contenders], _OneByOne())


async def scenes_at_once(
    board: Board, name: str, contenders: Sequence[Contender], scenes: Sequence[Scene]
) -> None:
    """Every contender in every one of these scenes, all at the same time."""
    cells = [(contender, scene) for scene in scenes for contender in contenders]
    await board.wave(name, cells, _Begin())


def packed(scenes: Sequence[Scene], waves: int) -> list[list[Scene]]:
    """The scenes in so many waves, with about as many calls in each."""
    bins: list[list[Scene]] = [[] for _ in range(max(1, min(waves, len(scenes))))]
    for scene in sorted(scenes, key=lambda scene: -scene.rate):
        min(bins, key=lambda held: sum(other.rate for other in held)).append(scene)
    return bins
