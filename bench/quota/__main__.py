"""`python -m bench.quota [setup | run]`: who gets how much out of the same quotas."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.micro.figures import environment
from bench.quota.board import as_json, as_markdown, summary
from bench.quota.contenders import added, in_process, programs
from bench.quota.install import WANTED, install, interpreter
from bench.quota.notes import ALWAYS, REAL, VIRTUAL
from bench.quota.play import Contender, Score, play
from bench.quota.upstream import BURST, MECHANISMS, POOLS, Scene
from headgate.testing import VirtualClock
from headgate.wiring.clock import SystemClock

RESULTS = Path(__file__).parents[1] / "results"
SCENES = [f"{load}/{pool}" for pool in POOLS for load in ("over", "below")]
FULL = [scene for scene in SCENES if not scene.endswith("/small")]
QUICK = [scene for scene in SCENES if scene.endswith("/small")]
_TOO_LATE = 1.0  # seconds
_STARTING = 4  # programs that start at the same time


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quota", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "setup"), default="run")
    parser.add_argument("--litellm", default=WANTED, help="with setup: the requirement to install")
    parser.add_argument("--virtual", action="store_true", help="in virtual time, without programs")
    parser.add_argument("--tiny", action="store_true", help="virtual, 2 minutes, one seed, one load")
    parser.add_argument("--minutes", type=float, help="how long calls arrive (3; virtual: 12)")
    parser.add_argument("--seeds", type=int, default=3, help="with --virtual: lists of arrivals")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, help="load/pool")
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=list(MECHANISMS))
    parser.add_argument(
        "--add", action="store_true", help="keep the results that are not measured anew"
    )
    parser.add_argument("--no-burst", action="store_true", help="without the 500 calls at once")
    parser.add_argument("--at-once", type=int, default=12, help="contenders that run at the same time")
    parser.add_argument("--adapter", action="append", default=[], help="one more: name=command")
    parser.add_argument("--results", type=Path, help="folder for quota.json and quota.md")
    chosen = parser.parse_args(arguments)
    if chosen.what == "setup":
        return install(chosen.litellm)
    if chosen.tiny:
        chosen.virtual, chosen.no_burst, chosen.scenes, chosen.seeds = True, True, QUICK[:1], 1
    minutes = chosen.minutes or (2.0 if chosen.tiny else 12.0 if chosen.virtual else 3.0)
    scenes = _scenes(chosen, minutes)
    measure = _virtual if chosen.virtual else _real
    measure(scenes, chosen)
    return 0


def _scenes(chosen: argparse.Namespace, minutes: float) -> list[Scene]:
    named = chosen.scenes or (QUICK if chosen.virtual else FULL)
    return [
        Scene(pool, mechanism, load, minutes)
        for load, _, pool in (scene.partition("/") for scene in named)
        for mechanism in chosen.mechanisms
    ]


def _virtual(scenes: Sequence[Scene], chosen: argparse.Namespace) -> None:
    seeded = [scene.seeded(seed) for scene in scenes for seed in range(1, chosen.seeds + 1)]
    if not chosen.no_burst:
        seeded.append(BURST.scene)
    pairs = [(number, scene) for scene in seeded for number in range(len(in_process()))]
    if chosen.tiny:  # declared and the baseline
        pairs = [(number, scene) for number, scene in pairs if number != 1]
        scores = [_in_virtual_time(pair) for pair in pairs]
    else:
        with ProcessPoolExecutor() as workers:
            scores = list(workers.map(_in_virtual_time, pairs))
    header = {
        **environment(),
        "time": f"virtual, {scenes[0].minutes:g} minutes",
        "seeds": f"{chosen.seeds}",
    }
    _write(header, [*VIRTUAL, *ALWAYS], scores, chosen.results)


def _in_virtual_time(pair: tuple[int, Scene]) -> Score:
    contender, scene = in_process()[pair[0]], pair[1]
    clock = VirtualClock()
    return clock.run(play(contender, scene, clock, _at_once))


def _real(scenes: Sequence[Scene], chosen: argparse.Namespace) -> None:
    versions: set[str] = set()
    litellm = interpreter()
    notes = [*ALWAYS, *REAL]
    if litellm is None:
        notes.insert(0, "**LiteLLM is missing**: `python -m bench.quota setup` did not run or failed.")
        print(notes[0], file=sys.stderr)
    contenders = [*programs(versions, litellm), *(added(text, versions) for text in chosen.adapter)]
    everything = [(c, scene) for scene in scenes for c in contenders]
    waves = [] if chosen.no_burst else [[(c, BURST.scene) for c in contenders]]
    waves += [everything[n : n + chosen.at_once] for n in range(0, len(everything), chosen.at_once)]
    scores: list[Score] = []
    lost: list[str] = []
    done = 0
    kept = _kept(chosen.results or RESULTS) if chosen.add else None
    most = max(map(len, waves))
    for number, wave in enumerate(waves, 1):
        print(f"wave {number} of {len(waves)}: {len(wave)} contenders …", file=sys.stderr)
        for (contender, scene), score in zip(wave, asyncio.run(_wave(wave)), strict=True):
            if isinstance(score, Score):
                scores.append(score)
            else:
                where = f"{scene.load} {scene.pool} {scene.mechanism}"
                lost.append(f"**Not measured**: {contender.name}, {where}: {score!r}.")
        lost += [
            f"**Do not trust** {s.contender}, {' '.join(map(str, s.place))}: "
            f"the bench made a call {s.late:.1f} s too late; the machine was too busy."
            for s in scores[done:]
            if s.late > _TOO_LATE and s.pool != "burst"
        ]
        done = len(scores)
        late = max((s.late for s in scores), default=0.0)
        header = {
            **environment(),
            "time": f"real, {scenes[0].minutes:g} minutes each" if scenes else "real",
            "at the same time": f"up to {most} contenders, each with its own upstream",
            "contenders": ", ".join(sorted(versions)),
            "latest call by the bench itself": f"{late:.2f} s too late",
        }
        folder = chosen.results or RESULTS
        if kept is None:
            _write(header, [*lost, *notes], scores, folder)
        else:
            _write(*_added(header, [*lost, *notes], scores, kept), folder)


async def _wave(wave: Sequence[tuple[Contender, Scene]]) -> list[Score | BaseException]:
    """All of them at the same time; each starts when all are ready, so that no start disturbs."""
    left, ready = len(wave), asyncio.Event()
    starting = asyncio.Semaphore(_STARTING)

    def started() -> None:
        nonlocal left
        starting.release()
        left -= 1
        if not left:
            ready.set()

    async def one(contender: Contender, scene: Scene) -> Score:
        arrived = False

        async def together() -> None:
            nonlocal arrived
            arrived = True
            started()
            await ready.wait()

        await starting.acquire()
        try:
            return await play(contender, scene, SystemClock(), together)
        finally:
            if not arrived:  # it failed to start; the others must not wait for it
                started()

    return await asyncio.gather(*(one(c, scene) for c, scene in wave), return_exceptions=True)


async def _at_once() -> None:
    """Alone: there is nobody to wait for."""


def _kept(folder: Path) -> tuple[dict[str, str], list[Score]]:
    content = json.loads((folder / "quota.json").read_text(encoding="utf-8"))
    return content["environment"], [Score(**raw) for raw in content["scores"]]


def _added(
    header: dict[str, str],
    notes: Sequence[str],
    scores: Sequence[Score],
    kept: tuple[dict[str, str], list[Score]],
) -> tuple[dict[str, str], list[str], list[Score]]:
    """New scores in the place of old ones; what else the old run had stays."""
    environment_then, old = kept
    places = {(s.contender, *s.place): s for s in [*old, *scores]}
    both = {*environment_then["contenders"].split(", "), *header["contenders"].split(", ")}
    header = {**header, "contenders": ", ".join(sorted(both))}
    said = f"Put together from several runs (`--add`); the first was on {environment_then['date']}."
    return header, [*notes, said], list(places.values())


def _write(
    header: dict[str, str], notes: Sequence[str], scores: Sequence[Score], folder: Path | None
) -> None:
    print("\n".join(summary(scores)))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "quota.json").write_text(as_json(header, notes, scores), encoding="utf-8")
        (folder / "quota.md").write_text(as_markdown(header, notes, scores), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
