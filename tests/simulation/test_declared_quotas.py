"""Declared quotas against an upstream that enforces them: used up, and never refused.

The emulator's books are the judge. Time is virtual, sockets are real.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from headgate.core.records import CallRecord, WaitRecord
from headgate.emulator import Emulator, EmulatorConfig, Fault, Latency, Limits, Project
from headgate.gemini import AllKeysExhaustedError, GeminiAPICallError, ResilientGeminiClient
from headgate.testing import VirtualClock

MODEL = "gemini-3.8-flash"
PROJECTS = 3


def upstream(rpm: int | None = None, mechanism: str = "fixed", **more: object) -> EmulatorConfig:
    limits = {
        "rpm": rpm,
        "mechanism": mechanism,
        **{k: more.pop(k) for k in ("tpm", "rpd") if k in more},
    }
    projects = [
        Project(
            f"p{number}",
            keys={f"k{number}-{key}": f"AIzaCANARY-{number}-{key}" for key in range(2)},
            limits={"*": Limits(**limits, phase=17.0 * number)},  # type: ignore[arg-type]
        )
        for number in range(PROJECTS)
    ]
    return EmulatorConfig(projects=projects, **more)  # type: ignore[arg-type]


def client(emulator: Emulator, clock: VirtualClock, **more: object) -> ResilientGeminiClient:
    keys = ",".join(
        f"{value}|{name}|{project.name}"
        for project in emulator.config.projects
        for name, value in project.keys.items()
    )
    options = {"max_wait_seconds": 600, "max_retries": 5, "environ": {}, **more}
    return ResilientGeminiClient(keys=keys, base_url=emulator.base_url, clock=clock, **options)  # type: ignore[arg-type]


async def saturate(
    using: ResilientGeminiClient, clock: VirtualClock, workers: int, until: float
) -> None:
    async def work(name: int) -> None:
        count = 0
        while clock.monotonic() < until:
            count += 1
            await using.generate_content(f"{name} {count}", MODEL)

    await asyncio.gather(*(work(number) for number in range(workers)))


@pytest.mark.parametrize("mechanism", ["fixed", "sliding_log", "token_bucket"])
async def test_a_saturated_pool_is_used_up_and_never_refused(
    clock: VirtualClock, mechanism: str
) -> None:
    slow = Latency(first_byte=0.5, distribution="lognormal", spread=0.6)
    async with Emulator(upstream(20, mechanism, latency=slow), clock=clock) as emulator:
        async with client(emulator, clock, quotas={"rpm": 20}) as using:
            await saturate(using, clock, workers=40, until=720)
        totals = emulator.report().totals
    assert totals.refused == {}
    assert totals.answered / (PROJECTS * 20 * clock.monotonic() / 60) >= 0.99


async def test_token_quotas_are_kept_with_estimates_that_learn(clock: VirtualClock) -> None:
    async with Emulator(upstream(None, "sliding_log", tpm=2_000), clock=clock) as emulator:
        async with client(emulator, clock, quotas={"tpm": 2_000}, max_wait_seconds=3600) as using:
            prompts = ["word " * (5 + 7 * (n % 40)) for n in range(400)]
            await asyncio.gather(*(using.generate_content(prompt, MODEL) for prompt in prompts))
        totals = emulator.report().totals
    assert totals.answered == 400
    assert sum(totals.refused.values()) <= 0.01 * 400


async def test_the_day_is_used_to_its_last_request(clock: VirtualClock) -> None:
    async with Emulator(upstream(None, rpd=4), clock=clock) as emulator:
        async with client(emulator, clock, quotas={"rpd": 4}) as using:
            for number in range(4 * PROJECTS):
                await using.generate_content(f"{number}", MODEL)
            with pytest.raises(AllKeysExhaustedError) as caught:
                await using.generate_content("one too many", MODEL)
        totals = emulator.report().totals
    assert totals.refused == {}
    assert totals.requests == 4 * PROJECTS
    assert caught.value.retry_after == pytest.approx(20 * 3600 + 60, abs=10)  # midnight Pacific


async def test_calls_wait_in_order_of_arrival_and_wake_once(clock: VirtualClock) -> None:
    heard = _Heard()
    async with Emulator(upstream(1), clock=clock) as emulator:
        async with client(emulator, clock, quotas={"rpm": 1}, observers=[heard]) as using:
            done: list[int] = []

            async def ask(number: int) -> None:
                await using.generate_content(f"{number}", MODEL)
                done.append(number)

            async with asyncio.TaskGroup() as group:
                for number in range(9):
                    group.create_task(ask(number))
                    await clock.sleep(0.5)
        assert emulator.report().totals.refused == {}
    assert done == sorted(done)
    assert len(heard.waits) == 6  # the first three went at once
    assert all(call.attempts == 1 and call.retries <= 1 for call in heard.calls)


async def test_the_callers_say_who_goes_first(clock: VirtualClock) -> None:
    async with (
        Emulator(upstream(1), clock=clock) as emulator,
        client(emulator, clock, quotas={"rpm": 1}) as using,
    ):
        for number in range(PROJECTS):
            await using.generate_content(f"{number}", MODEL)
        done: list[str] = []

        async def ask(name: str, **options: object) -> None:
            await using.generate_content(name, MODEL, **options)
            done.append(name)

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(ask(f"greedy {number}", caller="greedy", priority="LOW"))
            for name, options in {
                "modest": {"caller": "modest", "priority": "low"},
                "usual": {"priority": "Medium"},
                "urgent": {"priority": "critical"},
            }.items():
                await clock.sleep(0.5)
                group.create_task(ask(name, **options))
    # Three go in each window; within it they answer in any order.
    assert set(done[:3]) == {"urgent", "usual", "greedy 0"}
    assert set(done[3:6]) == {"modest", "greedy 1", "greedy 2"}


async def test_a_priority_nobody_knows_is_the_callers_mistake(clock: VirtualClock) -> None:
    async with Emulator(upstream(1), clock=clock) as emulator:
        using = client(emulator, clock)
        for calling in (using.generate_content, using.embed_content):
            with pytest.raises(GeminiAPICallError, match="critical, high, normal") as caught:
                await calling("x", priority=1)
            assert caught.value.kind == "invalid"
        assert emulator.report().totals.requests == 0


async def test_a_wait_that_does_not_fit_is_refused_at_once_with_the_time(clock: VirtualClock) -> None:
    async with Emulator(upstream(1), clock=clock) as emulator:
        async with client(emulator, clock, quotas={"rpm": 1}, max_wait_seconds=5) as using:
            for number in range(PROJECTS):
                await using.generate_content(f"{number}", MODEL)
            before = clock.monotonic()
            with pytest.raises(AllKeysExhaustedError) as caught:
                await using.generate_content("late", MODEL)
            assert clock.monotonic() == before
            assert caught.value.retry_after == pytest.approx(60, abs=2)
            await clock.sleep(caught.value.retry_after)
            await using.generate_content("back in time", MODEL, max_wait_seconds=0)
        assert emulator.report().totals.refused == {}


async def test_whoever_cannot_get_a_turn_in_time_is_refused_at_once(clock: VirtualClock) -> None:
    async with Emulator(upstream(2), clock=clock) as emulator:
        async with client(emulator, clock, quotas={"rpm": 2}, max_wait_seconds=130) as using:
            asked = [asyncio.ensure_future(using.generate_content(f"{n}", MODEL)) for n in range(40)]
            await clock.sleep(1)
            refused = [task for task in asked if task.done() and task.exception()]
            # Six go at once and six in each of the three windows a wait of 130 s can reach.
            assert len(refused) == 40 - 6 - 3 * 6
            errors = [task.exception() for task in refused]
            assert all(isinstance(error, AllKeysExhaustedError) for error in errors)
            assert all(error.retry_after >= 180 for error in errors)  # type: ignore[union-attr]
            await asyncio.gather(*asked, return_exceptions=True)
        assert emulator.report().totals.answered >= 6 + 2 * 6
        assert emulator.report().totals.refused == {}


async def test_a_call_that_never_fits_says_so(clock: VirtualClock) -> None:
    async with Emulator(upstream(None), clock=clock) as emulator:
        using = client(emulator, clock, quotas={"tpm": 50})
        with pytest.raises(GeminiAPICallError, match="more than the declared quota") as caught:
            await using.generate_content("word " * 500, MODEL)
    assert caught.value.kind == "invalid"
    assert emulator.report().totals.requests == 0


async def test_a_cancelled_wait_gives_its_place_to_the_next(clock: VirtualClock) -> None:
    async with Emulator(upstream(1), clock=clock) as emulator:
        async with client(emulator, clock, quotas={"rpm": 1}) as using:
            for number in range(PROJECTS):
                await using.generate_content(f"{number}", MODEL)
            waiting = [asyncio.ensure_future(using.generate_content(f"w{n}", MODEL)) for n in range(3)]
            await clock.sleep(1)
            waiting[0].cancel()
            waiting[1].cancel()
            assert await waiting[2]
            await asyncio.gather(*waiting, return_exceptions=True)
        assert clock.monotonic() < 75
        assert emulator.report().totals.answered == PROJECTS + 1


async def test_a_call_that_was_never_sent_gives_its_reservation_back(clock: VirtualClock) -> None:
    using = ResilientGeminiClient(
        keys="AIzaCANARY-lost|k|p", base_url="http://127.0.0.1:9", clock=clock,
        quotas={"rpm": 1}, max_retries=3, environ={},
    )  # fmt: skip
    with pytest.raises(GeminiAPICallError) as caught:
        await using.generate_content("x", MODEL)
    assert caught.value.kind == "network"  # and not quota: each refused connection freed the one place
    await using.aclose()


async def test_faults_and_dead_keys_do_not_unbalance_the_books(clock: VirtualClock) -> None:
    faults = [Fault("overload", probability=0.1), Fault("reset", probability=0.05)]
    config = upstream(15, faults=faults, seed=7)
    config.projects[0].key_states["k0-0"] = "invalid"
    async with Emulator(config, clock=clock) as emulator:
        async with client(emulator, clock, quotas={"rpm": 15}, max_retries=20) as using:
            await asyncio.gather(*(using.generate_content(f"{n}", MODEL) for n in range(200)))
            metrics = using.get_key_metrics()
        report = emulator.report()
    assert report.totals.answered == 200
    assert report.totals.refused.keys() <= {"key", "invalid_key", "400-key-invalid"}
    sent = sum(key["metrics"]["total_requests"] for key in metrics["keys"])
    assert sent == report.totals.requests


def test_threads_share_one_quota() -> None:
    config = upstream(10)
    with Emulator(config).in_thread() as emulator:
        keys = ",".join(
            f"{value}|{name}|{project.name}"
            for project in config.projects
            for name, value in project.keys.items()
        )
        with ResilientGeminiClient(
            keys=keys, base_url=emulator.base_url, quotas={"rpm": 10}, max_wait_seconds=0, environ={}
        ) as using:
            outcomes: list[bool] = []

            def work() -> None:
                try:
                    using.generate_content_sync("x", MODEL)
                    outcomes.append(True)
                except AllKeysExhaustedError:
                    outcomes.append(False)

            threads = [threading.Thread(target=work) for _ in range(40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        report = emulator.report()
    assert outcomes.count(True) == 10 * PROJECTS
    assert report.totals.refused == {}


class _Heard:
    def __init__(self) -> None:
        self.waits: list[WaitRecord] = []
        self.calls: list[CallRecord] = []

    def attempt(self, record: object) -> None:
        pass

    def waiting(self, record: WaitRecord) -> None:
        self.waits.append(record)

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)
