"""`python -m bench.quota [setup | run]`: who gets how much out of the same quotas."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.install import MISSING, install, interpreter
from bench.machine import Verdict, Watch, await_quiet, place
from bench.micro.figures import environment
from bench.quota.board import as_json, as_markdown, summary
from bench.quota.contenders import in_process, started
from bench.quota.notes import ALWAYS, REAL, VIRTUAL
from bench.quota.play import Score, play
from bench.quota.upstream import BOARD, BURST, MECHANISMS, SCENES, Scene, born
from bench.quota.waves import Board, bursts, packed, scenes_at_once
from headgate.testing import VirtualClock

RESULTS = Path(__file__).parents[1] / "results"
_VIRTUAL_SCENES = [scene for scene in SCENES if scene.endswith("/small")]
_TOY_MINUTES = 0.05


def main(arguments: list[str]) -> int:
    chosen = _chosen(arguments)
    if chosen.what == "setup":
        return install()
    return _virtual(chosen) if chosen.virtual else asyncio.run(_real(chosen))


def _chosen(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.quota", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "setup"), default="run")
    parser.add_argument("--virtual", action="store_true", help="in virtual time, without programs")
    parser.add_argument("--tiny", action="store_true", help="virtual, 2 minutes, one seed, one load")
    parser.add_argument("--toy", action="store_true", help="real programs for a few seconds")
    parser.add_argument("--minutes", type=float, help="how long calls arrive (2; virtual: 12)")
    parser.add_argument("--seeds", type=int, default=3, help="with --virtual: lists of arrivals")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, help="load/pool")
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, help="with --scenes")
    parser.add_argument(
        "--add", action="store_true", help="keep the results that are not measured anew"
    )
    parser.add_argument("--no-burst", action="store_true", help="without the 500 calls at once")
    parser.add_argument("--no-rivals", action="store_true", help="without LiteLLM")
    # One scene a turn: 11 contenders, 17 programs, a third of two cores. With 44 at once the upstreams
    # were starved until their sockets ran out.
    parser.add_argument("--waves", type=int, default=10, help="in how many turns the scenes are played")
    parser.add_argument("--adapter", action="append", default=[], help="one more: name=command")
    parser.add_argument("--results", type=Path, help="folder for quota.json and quota.md")
    chosen = parser.parse_args(arguments)
    if chosen.tiny:
        chosen.virtual, chosen.no_burst, chosen.seeds = True, True, 1
        chosen.scenes = _VIRTUAL_SCENES[:1]
    if chosen.toy:
        chosen.no_burst, chosen.no_rivals = True, True
        chosen.scenes, chosen.mechanisms = ["over/homo"], ["sliding"]
    if chosen.minutes is None:
        chosen.minutes = 2.0 if chosen.tiny or not chosen.virtual else 12.0
        chosen.minutes = _TOY_MINUTES if chosen.toy else chosen.minutes
    return chosen


def _scenes(chosen: argparse.Namespace) -> list[Scene]:
    if chosen.virtual or chosen.scenes or chosen.mechanisms:
        named = chosen.scenes or (_VIRTUAL_SCENES if chosen.virtual else SCENES[:4])
        pairs = [(scene, how) for scene in named for how in chosen.mechanisms or MECHANISMS]
    else:
        pairs = list(BOARD)
    split = [(*scene.split("/"), how) for scene, how in pairs]
    return [Scene(pool, how, load, chosen.minutes, aligned=not chosen.toy) for load, pool, how in split]


# ── virtual time ──────────────────────────────────────────────────────────────────────────────────


def _virtual(chosen: argparse.Namespace) -> int:
    scenes = _scenes(chosen)
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
        "time": f"virtual, {scenes[0].minutes:g} minutes: no machine is too slow for it",
        "seeds": f"{chosen.seeds}",
    }
    print("\n".join(summary(scores)))
    if chosen.results is not None:
        _write(header, [*VIRTUAL, *ALWAYS], scores, chosen.results / "quota")
    return 0


def _in_virtual_time(pair: tuple[int, Scene]) -> Score:
    contender, scene = in_process()[pair[0]], pair[1]
    clock = VirtualClock()

    async def alone() -> float:
        return born(scene, clock.wall())

    return clock.run(play(contender, scene, clock, alone)).score()


# ── real time ─────────────────────────────────────────────────────────────────────────────────────


async def _real(chosen: argparse.Namespace) -> int:
    begun = time.monotonic()
    rivals = None if chosen.no_rivals else interpreter()
    notes = [*ALWAYS, *REAL]
    if rivals is None:
        notes.insert(0, "LiteLLM was left out." if chosen.no_rivals else MISSING)
        _say(notes[0])
    if not chosen.toy:
        _say("waiting for a quiet machine, a minute at most …")
        await_quiet()
    watch, board, versions = Watch(), Board(), set[str]()
    waves = packed(_scenes(chosen), chosen.waves)
    async with started(versions, rivals, chosen.adapter) as contenders:
        if not chosen.no_burst:
            await bursts(board, contenders)
        for number, scenes in enumerate(waves, 1):
            await scenes_at_once(board, f"wave {number} of {len(waves)}", contenders, scenes)
            _say(f"  {time.monotonic() - begun:.0f} s since the beginning")
    verdict = watch.verdict()
    header = {
        **environment(),
        "machine": verdict.sentence,
        "time": f"real, {chosen.minutes:g} minutes a scene, {len(waves)} waves; "
        f"{time.monotonic() - begun:.0f} s in all",
        "contenders": ", ".join(sorted(versions)),
        "load": "; ".join(board.loads),
        "latest call by the bench itself": _latest(board.scores),
    }
    return _conclude(chosen, header, [*board.lost, *notes], board, verdict)


def _conclude(
    chosen: argparse.Namespace, header: dict[str, str], notes: list[str], board: Board, verdict: Verdict
) -> int:
    scores = board.scores
    print("\n".join([*summary(scores), "", *board.lost]))
    _say(verdict.sentence)
    folder = chosen.results or (None if chosen.toy else RESULTS)
    if folder is not None:
        if chosen.add:
            header, notes, scores = _added(header, notes, scores, _kept(folder))
        _write(header, notes, scores, place(folder, "quota", verdict, own_folder=bool(chosen.results)))
    return 0 if chosen.toy or (verdict.quiet and not board.lost) else 3


def _latest(scores: Sequence[Score]) -> str:
    timed = [score for score in scores if score.pool != "burst"]
    p99 = max((score.late_p99 for score in timed), default=0.0)
    late = max((score.late for score in timed), default=0.0)
    return f"{late:.3f} s too late, 99 of 100 within {p99:.3f} s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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


def _write(header: dict[str, str], notes: Sequence[str], scores: Sequence[Score], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for ending, text in (
        ("json", as_json(header, notes, scores)),
        ("md", as_markdown(header, notes, scores)),
    ):
        target.with_name(f"{target.name}.{ending}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
