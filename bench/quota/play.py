"""One contender against one scene: its own emulator, the calls at their moments, the score."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

from bench.quota.protocol import Ask, Setup
from bench.quota.upstream import BURST, MODEL, PATIENCE, SERVICE, Scene, attainable, born
from headgate.core.ports import Clock
from headgate.emulator import Emulator, Report

__all__ = ["Contender", "Open", "Score", "play", "program"]

Open: TypeAlias = Callable[[Setup, Clock], AbstractAsyncContextManager[Ask]]
ROOT = Path(__file__).parents[2]
_GRACE = 30.0  # beyond the patience of a caller; then the bench gives the call up
_READY_SECONDS = 180.0
_LEAVE_SECONDS = 10.0


class FailedError(Exception):
    """A contender said that a call failed."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured."""

    name: str
    open: Open = field(repr=False)


@dataclass(frozen=True, slots=True)
class Score:
    """What one contender made of one scene; whatever the upstream can know is from its books.

    Attributes:
        offered: calls born.
        answered: calls answered, as the contender's callers saw it.
        attainable: calls a client with every counter before its eyes would have got answered.
        utilisation: admitted while calls arrived, ÷ the sum of limits over that time.
        refused: 429s the upstream sent.
        requests: HTTP requests the upstream saw.
        wait_p50, wait_p99: of answered calls, without the upstream's own time, in seconds.
        errors: what failed calls said.
        tokens: input tokens admitted within half a minute, ÷ the limit; only with `burst`.
        late: the most by which the bench itself was late with a call, in seconds.
    """

    contender: str
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
    requests: int
    wait_p50: float
    wait_p99: float
    errors: dict[str, int]
    tokens: float
    late: float

    @property
    def place(self) -> tuple[str, str, str, int]:
        return self.load, self.pool, self.mechanism, self.seed

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


async def play(
    contender: Contender, scene: Scene, clock: Clock, together: Callable[[], Awaitable[None]]
) -> Score:
    """Measure. `together` returns when every contender of the same wave is ready."""
    async with Emulator(scene.config(), clock=clock) as emulator:
        setup = Setup(emulator.base_url, MODEL, PATIENCE, scene.keys())
        async with contender.open(setup, clock) as ask:
            await together()
            start = born(clock.wall(), scene.delay())
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
    outcomes = [call.result() for call in calls]
    waits = sorted(o.took - SERVICE for o in outcomes if not o.error)
    return Score(
        contender=contender.name,
        pool=scene.pool,
        mechanism=scene.mechanism,
        load=scene.load,
        seed=scene.seed,
        minutes=scene.minutes,
        offered=len(calls),
        answered=len(waits),
        attainable=BURST.limit // (BURST.words + 1) if burst else attainable(scene, start, arrivals),
        utilisation=0.0 if burst else _admitted(at_end) / scene.capacity,
        refused=sum(n for reason, n in report.totals.refused.items() if reason in ("rpm", "tpm")),
        requests=report.totals.requests,
        wait_p50=max(0.0, statistics.median(waits)) if waits else 0.0,
        wait_p99=max(0.0, waits[int(0.99 * (len(waits) - 1))]) if waits else 0.0,
        errors=dict(Counter(o.error for o in outcomes if o.error)),
        tokens=at_end.totals.tokens_in / BURST.limit if burst else 0.0,
        late=max(o.late for o in outcomes),
    )


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


def program(command: Sequence[str], versions: set[str]) -> Open:
    """A contender that is a program speaking the protocol; its version is added to `versions`."""

    @asynccontextmanager
    async def opened(setup: Setup, _clock: Clock) -> AsyncIterator[Ask]:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
            limit=1 << 20,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        sending, reading = process.stdin, process.stdout
        waiting: dict[int, asyncio.Future[None]] = {}

        async def listen() -> None:
            while line := await reading.readline():
                said = json.loads(line)
                answer = waiting.pop(said["id"], None)
                if answer is None or answer.done():
                    continue
                if said["ok"]:
                    answer.set_result(None)
                else:
                    answer.set_exception(FailedError(said["error"]))
            for answer in waiting.values():
                if not answer.done():
                    answer.set_exception(FailedError("adapter ended"))

        def say(line: dict[str, object]) -> None:
            sending.write(json.dumps(line).encode() + b"\n")

        async def ask(prompt: str) -> None:
            number = next(numbers)
            waiting[number] = asyncio.get_running_loop().create_future()
            say({"id": number, "prompt": prompt})
            await waiting[number]

        numbers = iter(range(1 << 40))
        try:
            say(asdict(setup))
            async with asyncio.timeout(_READY_SECONDS):
                first = await reading.readline()
            if not first:
                raise RuntimeError(f"the adapter `{' '.join(command[-2:])}` ended before it was ready")
            versions.add(json.loads(first)["ready"])
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(listen())
                yield ask
                sending.close()
                with contextlib.suppress(TimeoutError):  # what it still waits for is given up
                    async with asyncio.timeout(_LEAVE_SECONDS):
                        await listening
        finally:
            sending.close()
            try:
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    return opened
