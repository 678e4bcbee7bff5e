"""One contender against one scene: its own emulator, the calls at their moments, the score."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from bench.quota.protocol import Ask, Setup
from bench.quota.upstream import BURST, MODEL, PATIENCE, SERVICE, Scene, attainable
from bench.quota.witness import Witness
from headgate.core.ports import Clock
from headgate.emulator import Emulator, Report

__all__ = ["LATE", "LATE_P99", "Contender", "FailedError", "Open", "Played", "Score", "play"]

Open: TypeAlias = Callable[[Setup, Clock], AbstractAsyncContextManager[Ask]]
LATE_P99, LATE = 0.1, 1.0  # seconds; beyond, a row is not trusted
_GRACE = 10.0  # beyond the patience of a caller; then the bench gives the call up


class FailedError(Exception):
    """A contender said that a call failed."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured."""

    name: str
    open: Open = field(repr=False)
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Score:
    """What one contender made of one scene; whatever the upstream can know is from its books.

    Attributes:
        offered: calls born.
        answered: calls answered, as the contender's callers saw it.
        attainable: calls a client with every counter before its eyes would have got answered.
        utilisation: admitted while calls arrived, ÷ the sum of limits over that time.
        refused: 429s the upstream sent.
        foreseeable: those of them that declared limits and own past sends predicted: see `Witness`.
        requests: HTTP requests the upstream saw.
        wait_p50, wait_p99: of answered calls, without the upstream's own time, in seconds.
        errors: what failed calls said.
        tokens: input tokens admitted within half a minute, ÷ the limit; only with `burst`.
        late_p99, late: by how much the bench itself was late with its calls, in seconds; 99 of 100
            calls were no later, and none.
    """

    contender: str
    processes: int
    pool: str
    mechanism: str
    load: str
    seed: int
    minutes: float
    offered: int
    answered: int
    attainable: int
    utilisation: float
    refused: int
    foreseeable: int
    requests: int
    wait_p50: float
    wait_p99: float
    errors: dict[str, int]
    tokens: float
    late_p99: float
    late: float

    @property
    def place(self) -> tuple[str, str, str, int]:
        return self.load, self.pool, self.mechanism, self.seed

    @property
    def trusted(self) -> bool:
        """Whether the calls were made when they were born: nearly all at once, and none much later.

        A tenth of a second is a six-hundredth of a window. The burst is late by design: 500 calls.
        """
        return self.pool == "burst" or (self.late_p99 <= LATE_P99 and self.late <= LATE)

    @property
    def failed(self) -> int:
        return self.offered - self.answered

    @property
    def avoidable(self) -> int:
        """Calls that failed although they need not have."""
        return max(0, self.attainable - self.answered)

    def as_dict(self) -> dict[str, object]:
        raw = asdict(self)
        return {n: round(v, 4) if isinstance(v, float) else v for n, v in raw.items()}


@dataclass(frozen=True, slots=True)
class Played:
    """What happened; `score` makes sense of it, later, when nobody is timed any more."""

    contender: Contender
    scene: Scene
    start: float
    arrivals: tuple[float, ...]
    outcomes: tuple[_Outcome, ...]
    at_end: Report
    report: Report
    foreseeable: int

    def score(self) -> Score:
        scene, report, outcomes = self.scene, self.report, self.outcomes
        burst = scene.pool == "burst"
        fits = (
            BURST.limit // (BURST.words + 1) if burst else attainable(scene, self.start, self.arrivals)
        )
        waits = sorted(o.took - SERVICE for o in outcomes if not o.error)
        late = sorted(o.late for o in outcomes)
        refused = report.totals.refused
        return Score(
            contender=self.contender.name,
            processes=self.contender.processes,
            pool=scene.pool,
            mechanism=scene.mechanism,
            load=scene.load,
            seed=scene.seed,
            minutes=scene.minutes,
            offered=len(outcomes),
            answered=len(waits),
            attainable=fits,
            utilisation=0.0 if burst else _admitted(self.at_end) / scene.capacity,
            refused=sum(n for reason, n in refused.items() if reason in ("rpm", "tpm")),
            foreseeable=self.foreseeable,
            requests=report.totals.requests,
            wait_p50=max(0.0, _at(waits, 0.5)),
            wait_p99=max(0.0, _at(waits, 0.99)),
            errors=dict(Counter(o.error for o in outcomes if o.error)),
            tokens=self.at_end.totals.tokens_in / BURST.limit if burst else 0.0,
            late_p99=_at(late, 0.99),
            late=late[-1] if late else 0.0,
        )


async def play(
    contender: Contender, scene: Scene, clock: Clock, together: Callable[[], Awaitable[float]]
) -> Played:
    """Measure. `together` returns when every contender of the same wave is ready: the Unix time to
    begin at.
    """
    witness = Witness(scene.config(), clock=clock)
    async with witness as emulator:
        setup = Setup(emulator.base_url, MODEL, PATIENCE, scene.keys())
        async with contender.open(setup, clock) as ask:
            start = await together()
            offset = start - clock.wall() + clock.monotonic()
            burst = scene.pool == "burst"
            arrivals = [0.0] * BURST.calls if burst else scene.arrivals()
            prompts = [BURST.prompt(n) if burst else f"Say {n}." for n in range(len(arrivals))]
            async with asyncio.TaskGroup() as tasks:
                books = tasks.create_task(_books(emulator, clock, offset + scene.minutes * 60))
                calls = [
                    tasks.create_task(_call(ask, prompt, clock, offset + at))
                    for at, prompt in zip(arrivals, prompts, strict=True)
                ]
        report, at_end = emulator.report(), books.result()
    outcomes = tuple(call.result() for call in calls)
    return Played(
        contender, scene, start, tuple(arrivals), outcomes, at_end, report, witness.foreseeable
    )


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    took: float
    late: float
    error: str = ""


async def _call(ask: Ask, prompt: str, clock: Clock, at: float) -> _Outcome:
    await clock.sleep(at - clock.monotonic())
    begun = clock.monotonic()
    error = ""
    try:
        async with asyncio.timeout(PATIENCE + _GRACE):
            await ask(prompt)
    except FailedError as failure:
        error = str(failure)
    except Exception as failure:  # noqa: BLE001 - whatever reaches a caller is an outcome
        error = type(failure).__name__
    return _Outcome(clock.monotonic() - begun, begun - at, error)


async def _books(emulator: Emulator, clock: Clock, at: float) -> Report:
    await clock.sleep(at - clock.monotonic())
    return emulator.report()


def _admitted(report: Report) -> int:
    return sum(
        quota.admitted
        for project in report.projects.values()
        for model in project.models.values()
        for name, quota in model.quotas.items()
        if name == "rpm"
    )
