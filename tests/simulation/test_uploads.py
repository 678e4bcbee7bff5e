"""Files against an upstream that enforces whose they are: random work, faults, and who leaves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support import MODEL, Ear, key

from headgate.backend import (
    BackendConfig,
    FallbackStrategy,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    PreprocessConfig,
    RetryConfig,
)
from headgate.emulator import Emulator, EmulatorConfig, Fault, Limits, Project
from headgate.testing import VirtualClock

PROJECTS = 3
FILMS = [(f"{n}.mp4", "video/mp4", b"\0\0\0\x18ftypisom" + bytes([n]) * (1000 + n)) for n in range(3)]


@asynccontextmanager
async def world(
    clock: VirtualClock, **config: Any
) -> AsyncIterator[tuple[Emulator, GeminiBackend, Ear]]:
    projects = [
        Project(f"p{n}", {f"k{n}": key(n)}, {"*": Limits(rpm=4)}) for n in range(PROJECTS)
    ]  # fmt: skip
    ear = Ear()
    async with Emulator(EmulatorConfig(projects=projects, **config), clock=clock) as emulator:
        made = GeminiBackend(
            BackendConfig(
                model_discovery=False, cache_ttl_seconds=0,
                preprocess_config=PreprocessConfig(enforce_token_limits=False),
                retry_config=RetryConfig(max_attempts=5),
            ),
            keys=",".join(f"{key(n)}|k{n}|p{n}" for n in range(PROJECTS)),
            base_url=emulator.base_url, clock=clock, observers=[ear], environ={},
        )  # fmt: skip
        async with made:
            yield emulator, made, ear


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_call_goes_where_its_files_are(clock: VirtualClock, seed: int) -> None:
    """Forty calls about one or two of three files, some at once, with passing faults: all are answered,
    none names a file to a project that does not have it, and no project gets a file twice."""
    chance = random.Random(seed)  # noqa: TID251 - of a test
    faults = [
        Fault("internal", probability=0.1),
        Fault("reset", probability=0.05, method="files.upload"),
    ]
    async with world(clock, faults=faults, file_seconds=2.0, seed=seed) as (emulator, backend, ear):

        async def ask(number: int) -> str:
            films = chance.sample(FILMS, chance.choice((1, 1, 2)))
            request = GeminiRequest(
                f"Question {number}", MODEL, files=films, upload=True, timeout_seconds=300.0
            )
            reply: Any = await backend.execute_gemini_enhanced(request)
            return str(reply.text)

        answers: list[str] = []
        while len(answers) < 40:
            some = [ask(len(answers) + n) for n in range(chance.choice((1, 2, 4)))]
            answers += await asyncio.gather(*some)
            await clock.sleep(chance.uniform(0.0, 10.0))
        kept = list(emulator._surface.files.room._kept.values())
    assert all(answers)
    generated = [record for record in ear.attempts if record.model == MODEL]
    assert 403 not in {record.outcome.status for record in generated}
    places = [(file.project, file.digest) for file in kept]
    assert len(places) == len(set(places)) <= PROJECTS * len(FILMS)
    assert {record.domain for record in generated} == {"p0", "p1", "p2"}, "every quota is used"
    assert {record.error for record in ear.calls} == {None}


@pytest.mark.parametrize("seed", [1])
async def test_whoever_goes_and_whatever_is_lost_nothing_stays_behind(
    clock: VirtualClock, seed: int
) -> None:
    """Callers who leave, deadlines that end in the middle, files that somebody deletes, faults: no
    place, no upload and no connection is left over, and what files take is counted right."""
    chance = random.Random(seed)  # noqa: TID251 - of a test
    faults = [
        Fault("internal", probability=0.1),
        Fault("reset", probability=0.1, method="files.upload"),
        Fault("reset_mid", probability=0.2, method="streamGenerateContent", after=1),
        Fault("stall", probability=0.03, seconds=20.0),
    ]
    told: list[str] = []
    async with world(clock, faults=faults, file_seconds=2.0, seed=seed) as (emulator, backend, ear):

        async def ask(number: int) -> None:
            request = GeminiRequest(
                f"Question {number}", MODEL, upload=True,
                files=chance.sample(FILMS, chance.choice((1, 2, 3))),
                fallback=chance.choice([None, [FallbackStrategy.PartialResponse()]]),
                timeout_seconds=chance.choice((0.5, 3.0, 30.0, 200.0)),
            )  # fmt: skip
            try:
                await backend.execute_gemini_enhanced(request)
                told.append("answered")
            except GeminiError as error:
                told.append(error.message)

        asked: list[asyncio.Task[None]] = []
        for number in range(60):
            asked.append(asyncio.get_running_loop().create_task(ask(number)))
            if chance.random() < 0.2:
                asyncio.get_running_loop().call_later(chance.uniform(0, 4), asked[-1].cancel)
            if number % 20 == 19:
                emulator._surface.files.room.clear()
            await clock.sleep(chance.uniform(0, 3))
        await asyncio.wait(asked)
        attempts = len(ear.attempts)
        await clock.sleep(120.0)
        assert len(ear.attempts) == attempts
        running = backend._room.started
        assert running is not None
        assert running.engine.upload is not None
        known, flights = running.engine.upload.lodgings, running.engine.upload._uploading._flights
        assert (backend._room.places.used, backend._room.places.waiting) == (0, 0)
        assert flights._flights == {}
        sizes = dict.fromkeys(known._sizes, 0)
        for (domain, _), lodged in known._known.items():
            sizes[domain] += lodged.size
        assert known._sizes == sizes
        assert {one.totals.open for one in emulator.report().projects.values()} == {0}
    assert told.count("answered") >= 10


async def test_who_leaves_while_a_file_is_brought_takes_nothing_away(clock: VirtualClock) -> None:
    """One of two who wait for the same file goes: the other has its answer, from one upload; and when
    the last has gone, nothing is under way any more."""
    async with world(clock, file_seconds=5.0) as (emulator, backend, ear):

        def ask(question: str) -> asyncio.Task[Any]:
            request = GeminiRequest(question, MODEL, files=[FILMS[0]], upload=True)
            return asyncio.get_running_loop().create_task(backend.execute_gemini_enhanced(request))

        first, second = ask("One"), ask("Two")
        await clock.sleep(1.0)
        first.cancel()
        assert (await second).text
        assert first.cancelled()
        assert len(emulator._surface.files.room._kept) == 1
        emulator._surface.files.room.clear()
        alone = ask("Three")
        await clock.sleep(1.0)
        alone.cancel()
        await asyncio.wait([alone])
        attempts = len(ear.attempts)
        await clock.sleep(60.0)
        assert len(ear.attempts) == attempts
        assert [record.error for record in ear.calls].count("cancelled") == 2
