"""Nothing is declared: limits are learned from refusals, and from then on none is drawn.

The emulator's books are the judge. Time is virtual, sockets are real.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from headgate.claude import ResilientClaudeClient
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.emulator import (
    Emulator,
    EmulatorConfig,
    Latency,
    Limits,
    Organisation,
    Project,
    TokenLimits,
)
from headgate.gemini import AllKeysExhaustedError, ResilientGeminiClient
from headgate.policy.days import next_reset
from headgate.testing import VirtualClock

MODEL = "gemini-3.8-flash"
PROJECTS, RPM, OVERLOAD = 3, 10, 4
SLOW = Latency(first_byte=0.4, distribution="lognormal", spread=0.5)


def upstream(limits: Callable[[int], Limits] | None = None, **more: Any) -> EmulatorConfig:
    """Three projects of one key each; their windows begin at different moments."""
    made = limits or (lambda number: Limits(rpm=RPM, phase=17.0 * number))
    projects = [
        Project(f"p{number}", {f"k{number}": f"AIzaCANARY-{number}"}, {"*": made(number)})
        for number in range(PROJECTS)
    ]
    return EmulatorConfig(**{"projects": projects, "latency": SLOW, **more})


def client(emulator: Emulator, clock: VirtualClock, **more: Any) -> ResilientGeminiClient:
    keys = ",".join(
        f"{value}|{name}|{project.name}"
        for project in emulator.config.projects
        for name, value in project.keys.items()
    )
    options = {"max_wait_seconds": 60, "environ": {}, **more}
    return ResilientGeminiClient(keys=keys, base_url=emulator.base_url, clock=clock, **options)


@dataclass
class Ear:
    """Remembers when which domain refused."""

    refusals: list[tuple[float, str]] = field(default_factory=list)

    def attempt(self, record: AttemptRecord) -> None:
        if record.outcome.status == 429:
            self.refusals.append((record.ended, record.domain))

    def waiting(self, record: WaitRecord) -> None:
        pass

    def call(self, record: CallRecord) -> None:
        pass

    def events(self, domain: str) -> int:
        """Refusals of a domain; those of one burst are one."""
        moments = [moment for moment, name in self.refusals if name == domain]
        return sum(now - before > 1 for before, now in zip([-9.0, *moments], moments, strict=False))

    def after(self, seconds: float) -> list[tuple[float, str]]:
        return [refusal for refusal in self.refusals if refusal[0] > seconds]


async def overload(
    using: ResilientGeminiClient, clock: VirtualClock, minutes: float, a_minute: float
) -> list[BaseException | str]:
    """Calls at an even rate, whether or not the ones before have ended."""
    calls: list[asyncio.Task[str]] = []
    async with asyncio.TaskGroup() as arrivals:

        async def arrive() -> None:
            for number in range(int(minutes * a_minute)):
                calls.append(asyncio.create_task(using.generate_content(f"{number}", MODEL)))  # noqa: TID251
                await clock.sleep(60 / a_minute)

        arrivals.create_task(arrive())
    return await asyncio.gather(*calls, return_exceptions=True)


def used(emulator: Emulator, seconds: float) -> float:
    """Share of the projects' requests that were answered within so many seconds."""
    return emulator.report().totals.answered / (PROJECTS * RPM * seconds / 60)


@pytest.mark.parametrize(
    ("mechanism", "form", "minutes"),
    [("fixed", "2026", 10), ("sliding_log", "classic", 5), ("token_bucket", "mixed", 5)],
)
async def test_after_the_first_refusals_an_overloaded_pool_draws_none(
    clock: VirtualClock, mechanism: str, form: str, minutes: int
) -> None:
    config = upstream(
        lambda number: Limits(rpm=RPM, phase=17.0 * number, mechanism=mechanism),  # type: ignore[arg-type]
        quota_errors=form,
        retry_delay="down",  # hints that come a little early must not wake the herd
    )
    ear = Ear()
    async with Emulator(config, clock=clock) as emulator:
        async with client(emulator, clock, observers=[ear]) as using:
            results = await overload(using, clock, minutes, OVERLOAD * PROJECTS * RPM)
        totals, share = emulator.report().totals, used(emulator, clock.monotonic())
    figures = f"{totals.refused} refused, {share:.3f} used in {clock.monotonic():.0f} s"
    assert len(ear.refusals) <= PROJECTS, figures
    assert ear.after(60) == [], figures
    assert share >= 0.97, figures
    failed = [result for result in results if not isinstance(result, str)]
    assert all(isinstance(error, AllKeysExhaustedError) for error in failed)


@pytest.mark.parametrize(
    ("mechanism", "form", "events"),
    [("fixed", "help_only", 4), ("sliding_log", "no_value", 4), ("token_bucket", "bare", 6)],
)
async def test_refusals_without_amounts_are_few_and_little_is_left_unused(
    clock: VirtualClock, mechanism: str, form: str, events: int
) -> None:
    config = upstream(
        lambda number: Limits(rpm=RPM, phase=17.0 * number, mechanism=mechanism),  # type: ignore[arg-type]
        quota_errors=form,
    )
    ear, minutes = Ear(), 20
    async with Emulator(config, clock=clock) as emulator:
        async with client(emulator, clock, observers=[ear]) as using:
            await overload(using, clock, minutes, 1.5 * PROJECTS * RPM)
        share = used(emulator, clock.monotonic())
    figures = f"{ear.refusals} refused, {share:.3f} used in {clock.monotonic():.0f} s"
    # The first, one that corrects a minute that lay across two of theirs, and one each time the quiet
    # time is over: after five minutes and after ten more. Bare ones, which may mean anything, are
    # believed at the third: two more.
    assert all(ear.events(f"p{number}") <= events for number in range(PROJECTS)), figures
    assert len(ear.refusals) <= 4 * PROJECTS + RPM, figures
    assert share >= 0.85, figures


async def test_a_burst_of_calls_at_once_is_refused_once_and_then_waits(clock: VirtualClock) -> None:
    """What is in flight when the first refusal comes cannot be called back; nothing else is refused."""
    ear, calls = Ear(), 60
    async with Emulator(upstream(), clock=clock) as emulator:
        async with client(emulator, clock, observers=[ear], max_wait_seconds=600) as using:
            answers = await asyncio.gather(
                *(using.generate_content(f"{number}", MODEL) for number in range(calls))
            )
        totals = emulator.report().totals
    assert len(answers) == totals.answered == calls
    assert ear.after(1) == []
    assert len(ear.refusals) <= calls


async def test_an_amount_declared_too_large_gives_way_at_the_first_refusal(clock: VirtualClock) -> None:
    ear = Ear()
    async with Emulator(upstream(), clock=clock) as emulator:
        quotas = {"rpm": 3 * RPM}
        async with client(emulator, clock, observers=[ear], quotas=quotas) as using:
            await overload(using, clock, 5, 2 * PROJECTS * RPM)
        share = used(emulator, clock.monotonic())
    figures = f"{ear.refusals} refused, {share:.3f} used"
    assert len(ear.refusals) <= PROJECTS, figures
    assert share >= 0.95, figures


async def test_a_counter_that_punishes_bursts_is_paced(clock: VirtualClock) -> None:
    config = upstream(lambda number: Limits(rpm=RPM, phase=17.0 * number, mechanism="sliding_counter"))
    ear, minutes = Ear(), 20
    async with Emulator(config, clock=clock) as emulator:
        async with client(emulator, clock, observers=[ear]) as using:
            await overload(using, clock, minutes, 2 * PROJECTS * RPM)
        share = used(emulator, clock.monotonic())
    figures = f"{ear.refusals} refused, {share:.3f} used in {clock.monotonic():.0f} s"
    assert ear.after(5 * 60) == [], figures
    assert share >= 0.6, figures


async def test_without_learning_the_herd_comes_back(clock: VirtualClock) -> None:
    """That the load of these tests does draw refusals where nothing is learned."""
    ear = Ear()
    environ = {"HEADGATE_QUOTA_LEARNING": "off"}
    async with (
        Emulator(upstream(), clock=clock) as emulator,
        client(emulator, clock, observers=[ear], environ=environ) as using,
    ):
        await overload(using, clock, 3, OVERLOAD * PROJECTS * RPM)
    assert len(ear.refusals) > 100


async def test_the_day_that_a_refusal_names_is_kept_on_the_next(clock: VirtualClock) -> None:
    ear = Ear()
    config = upstream(lambda number: Limits(rpd=4))
    async with Emulator(config, clock=clock) as emulator:
        async with client(emulator, clock, observers=[ear]) as using:
            for _ in range(3):
                for number in range(4 * PROJECTS + 5):
                    with contextlib.suppress(AllKeysExhaustedError):
                        await using.generate_content(f"{number}", MODEL)
                clock.advance(next_reset(clock.wall()) - clock.wall() + 120)
        totals = emulator.report().totals
    assert totals.answered == 3 * 4 * PROJECTS
    assert len(ear.refusals) == PROJECTS


async def test_headers_tell_a_claude_client_its_limits_with_the_first_answer(
    clock: VirtualClock,
) -> None:
    config = EmulatorConfig(
        organisations=[Organisation("o", {"k": "sk-ant-CANARY-1"}, {"*": TokenLimits(rpm=20)})],
        latency=SLOW,
    )
    ear = Ear()
    async with Emulator(config, clock=clock) as emulator:
        async with ResilientClaudeClient(
            keys="sk-ant-CANARY-1|k|o", base_url=emulator.base_url, clock=clock, observers=[ear],
            max_wait_seconds=120, environ={},
        ) as using:  # fmt: skip
            await using.message_text("first")
            answers = await asyncio.gather(*(using.message_text(f"{n}") for n in range(30)))
        totals = emulator.report().totals
    assert len(answers) == 30
    assert ear.refusals == []
    assert totals.refused == {}
