"""Workers as the process keeps them that starts them: in virtual time, with processes that are none."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from itertools import pairwise

from headgate.gateway.worker_link import Crew, Heard, Link, Order, Report, Told, pair
from headgate.gateway.workers import FAILED, Workers, manner
from headgate.policy.restarts import MOST
from headgate.testing import VirtualClock

USAGE, CONFIGURATION = 2, 3
MANY = 500


class FakeWorker:
    """Obeys SIGTERM after `drains` seconds, SIGKILL at once, and ends when the test says so."""

    def __init__(self, crew: Crew, clock: VirtualClock, drains: float) -> None:
        self.crew = crew
        self.told: list[Crew] = []
        self.orders: list[Order] = []
        self.signals: list[int] = []
        self._clock = clock
        self._drains = drains
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def ended(self) -> int:
        return await self._code

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.end(-9)
        elif number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().call_later(self._drains, self.end, 0)

    def tell(self, message: Told) -> None:
        if isinstance(message, Order):
            self.orders.append(message)
        else:
            self.told.append(message)

    def end(self, code: int) -> None:
        if not self._code.done():
            self._code.set_result(code)


class Yard:
    """Starts fake workers, and says what became of it.

    Args:
        code: with which workers end at once, before they are ready; None: they live.
    """

    def __init__(self, clock: VirtualClock, *, code: int | None = None, drains: float = 1.0) -> None:
        self.clock = clock
        self.started: list[tuple[float, FakeWorker]] = []
        self.said: list[str] = []
        self.hears: list[Callable[[Heard], None]] = []
        self.closed = 0
        self.code = code
        self.drains = drains
        self.workers = Workers(
            self.start, 3, clock, seal="CANARY-seal", end_seconds=20.0,
            hopeless=(USAGE, CONFIGURATION), say=self.said.append, on_end=self.close,
        )  # fmt: skip

    def close(self) -> None:
        self.closed += 1

    async def start(self, crew: Crew, hear: Callable[[Heard], None]) -> FakeWorker:
        worker = FakeWorker(crew, self.clock, self.drains)
        self.hears.append(hear)
        self.started.append((self.clock.monotonic(), worker))
        if self.code is None:
            asyncio.get_running_loop().call_later(0.6, hear, Report(ready=True))
        else:
            asyncio.get_running_loop().call_later(0.6, worker.end, self.code)
        return worker

    def worker(self, index: int) -> FakeWorker:
        return self.started[index][1]


async def test_all_are_started_and_told_when_all_are_there(clock: VirtualClock) -> None:
    yard = Yard(clock)
    running = asyncio.ensure_future(yard.workers.run())
    await clock.sleep(0.5)
    assert [worker.crew.number for _, worker in yard.started] == [1, 2, 3]
    assert not any(crew.whole for _, worker in yard.started for crew in worker.told)
    await clock.sleep(0.2)
    for _, worker in yard.started:
        assert worker.told[-1].whole
        assert worker.crew.seal == "CANARY-seal"
    assert [worker.told[-1].introduces for _, worker in yard.started] == [True, False, False]
    yard.workers.stop()
    assert await running == 0
    assert not yard.said


async def test_a_worker_that_dies_is_started_again_and_the_others_know(clock: VirtualClock) -> None:
    yard = Yard(clock)
    running = asyncio.ensure_future(yard.workers.run())
    await clock.sleep(100)
    yard.worker(1).end(-signal.SIGKILL)
    await clock.sleep(0.1)
    assert not yard.worker(0).told[-1].whole
    at, again = yard.started[3]
    assert (at, again.crew.number, again.crew.introduces) == (100.0, 2, False)
    assert yard.said == ["Worker 2 was killed by SIGKILL. It is started again at once."]
    await clock.sleep(1)
    assert yard.worker(0).told[-1].whole
    assert not yard.worker(0).told[-1].introduces, "it has introduced them already"
    yard.workers.stop()
    assert await running == 0
    assert len(yard.started) == 4, "none is started again at the end"


async def test_one_that_dies_again_and_again_ends_the_gateway(clock: VirtualClock) -> None:
    yard = Yard(clock)
    running = asyncio.ensure_future(yard.workers.run())
    await clock.sleep(1)
    yard.code = 17
    yard.worker(2).end(17)
    assert await running == 17
    own = [at for at, worker in yard.started if worker.crew.number == 3]
    assert len(own) == 1 + MOST
    assert [round(after - before, 1) for before, after in pairwise(own[1:])] == [
        1.1, 1.6, 2.6, 4.6,
    ]  # fmt: skip
    assert yard.said[-1].startswith("Worker 3 ended with status 17, again soon after its start.")
    assert yard.worker(0).signals == yard.worker(1).signals == [signal.SIGTERM]
    assert yard.closed == 1


async def test_one_that_was_killed_again_and_again_ends_it_as_a_failure(clock: VirtualClock) -> None:
    yard = Yard(clock, code=-signal.SIGSEGV)
    assert await yard.workers.run() == FAILED


async def test_settings_that_no_worker_can_start_with_end_it_at_once(clock: VirtualClock) -> None:
    yard = Yard(clock, code=CONFIGURATION)
    assert await yard.workers.run() == CONFIGURATION
    assert clock.monotonic() < 3
    assert len(yard.started) == 3
    assert len(yard.said) == 1


async def test_signals_are_handed_on_and_all_are_waited_for(clock: VirtualClock) -> None:
    """trust.md 1.5, over workers."""
    yard = Yard(clock, drains=5.0)
    running = asyncio.ensure_future(yard.workers.run())
    await clock.sleep(1)
    yard.workers.forward(signal.SIGHUP)
    yard.workers.stop(signal.SIGTERM)
    await clock.sleep(1)
    yard.workers.stop(signal.SIGTERM)
    assert not running.done()
    assert await running == 0
    assert clock.monotonic() == 6.0
    for _, worker in yard.started:
        assert worker.signals == [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM]
    assert yard.closed == 1


async def test_one_that_does_not_end_is_killed(clock: VirtualClock) -> None:
    yard = Yard(clock, drains=3600.0)
    running = asyncio.ensure_future(yard.workers.run())
    await clock.sleep(1)
    yard.workers.stop()
    assert await running == 0
    assert clock.monotonic() == 21.0
    assert [sentence for sentence in yard.said if "is killed" in sentence] == yard.said
    assert len(yard.said) == 3


async def test_one_that_is_just_being_started_is_told_to_end_as_well(clock: VirtualClock) -> None:
    yard = Yard(clock)
    start = yard.start

    async def slowly(crew: Crew, hear: Callable[[Heard], None]) -> FakeWorker:
        await clock.sleep(0.1)
        return await start(crew, hear)

    yard.workers._start = slowly
    running = asyncio.ensure_future(yard.workers.run())
    await clock.sleep(0.05)
    yard.workers.stop(signal.SIGINT)
    assert await running == 0
    assert [worker.signals for _, worker in yard.started] == [[signal.SIGINT]] * 3


async def test_an_order_reaches_all_others_and_those_that_come_later(clock: VirtualClock) -> None:
    yard = Yard(clock)
    running = asyncio.ensure_future(yard.workers.run())
    await clock.sleep(1)
    first, second = Order("drain k1"), Order("clear")
    yard.hears[0](first)
    yard.hears[2](second)
    assert [worker.orders for _, worker in yard.started] == [[second], [first, second], [first]]
    yard.worker(1).end(-9)
    await clock.sleep(0.1)
    assert yard.worker(3).orders == [first, second]
    yard.workers.stop()
    assert await running == 0


async def test_a_pause_before_a_restart_ends_with_the_end(clock: VirtualClock) -> None:
    yard = Yard(clock, code=9)
    running = asyncio.ensure_future(yard.workers.run())
    await clock.sleep(6.0)  # between the third restart and the fourth, two seconds later
    yard.workers.stop()
    assert await running == 0
    assert clock.monotonic() < 7.0


def test_how_a_process_ended_is_said_in_words() -> None:
    assert manner(3) == "ended with status 3"
    assert manner(-15) == "was killed by SIGTERM"
    assert manner(-200) == "was killed by signal 200"


# ── the link ────────────────────────────────────────────────────────────────────────────────────


def test_what_workers_are_told_arrives_whole_and_in_order() -> None:
    crews = [Crew(1, ready, 3, "CANARY-seal") for ready in range(4)]
    heard: list[Told] = []

    async def main() -> None:
        ours, theirs = pair()
        up: Link[Heard] = Link(ours, Heard)
        down: Link[Told] = Link(theirs, Told)
        reported, ended, whole = asyncio.Event(), asyncio.Event(), asyncio.Event()

        def hear(message: Told) -> None:
            heard.append(message)
            if len(heard) == len(crews) - 1 + MANY:
                whole.set()

        up.tell(crews[0])
        up.tell(crews[1])
        assert down.first() == crews[0]
        down.attend(hear, ended.set)
        up.attend(lambda _: reported.set(), lambda: None)
        for crew in crews[2:]:
            up.tell(crew)
        ours.send(b'{"type":"of another version"}\n')
        for number in range(MANY):
            up.tell(Order(f"{number} " + "x" * 3000))  # more than the system takes at once
        down.tell(Report(ready=True))
        await reported.wait()
        await whole.wait()
        up.close()
        await ended.wait()
        down.tell(Report(ready=True))  # nobody is there any more: nothing happens
        down.close()

    asyncio.run(main())
    assert heard[:3] == crews[1:]
    assert [int(str(one.text).split()[0]) for one in heard[3:] if isinstance(one, Order)] == list(
        range(MANY)
    )
    assert "CANARY" not in repr(heard)
