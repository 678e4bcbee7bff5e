"""Races of two attempts that no upstream plays on demand: losers that are slow to leave, and callers
who leave while they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from headgate.core.call import Call, Chunk, Key, Operation, Raw, Reply
from headgate.core.outcome import Kind, Outcome
from headgate.engine.hedging import Hedge
from headgate.engine.passage import Answer, AttemptFailed, Passage
from headgate.engine.protection import Protection, ProtectionRules
from headgate.engine.stream import ReplyStream
from headgate.policy.leases import Lease
from headgate.policy.retry_budget import BudgetRules
from headgate.testing import VirtualClock

RULES = ProtectionRules(hedge_after=2.0, hedges=BudgetRules(1.0, 100))


class Exchange:
    """Something to close. Counts how many are open."""

    opened = 0
    status = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never written to

    def __init__(self) -> None:
        Exchange.opened += 1

    async def aclose(self) -> None:
        Exchange.opened -= 1


@pytest.fixture(autouse=True)
def nothing_open() -> None:
    Exchange.opened = 0


async def _nothing() -> AsyncGenerator[Chunk | Outcome]:
    return
    yield


def a_stream() -> ReplyStream:
    return ReplyStream(Chunk("x"), _nothing(), Exchange(), lambda out: out, "r1", "k0")  # type: ignore[arg-type]


class Play:
    """Two attempts as the test wants them: how long each takes, what it ends with, and how long it goes
    on after it was cancelled."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.hedge = Hedge(Protection(RULES, clock), RULES.hedge_after or 0.0)
        self.passage = Passage(Call(Operation.GENERATE, "m", ("hi",)), 0.0, model="m")
        self.seconds = [60.0, 60.0]
        self.ends: list[Answer | Exception] = [Reply("first"), Reply("second")]
        self.lingers = [0.0, 0.0]
        self.begun: list[float] = []
        self.gone: list[float] = []

    async def onward(self, passage: Passage) -> Answer:
        number = 0 if passage is self.passage else 1
        self.begun.append(self.clock.monotonic())
        if passage.wire is not None:
            passage.wire.begun()
        try:
            await self.clock.sleep(self.seconds[number])
        except asyncio.CancelledError:
            if self.lingers[number]:
                await self.clock.sleep(self.lingers[number])
            raise
        finally:
            self.gone.append(self.clock.monotonic())
            if passage.wire is not None:
                passage.wire.ended()
        end = self.ends[number]
        if isinstance(end, Exception):
            raise end
        return end

    async def run(self) -> Answer:
        return await self.hedge(self.passage, self.onward)


async def test_a_loser_that_is_slow_to_leave_is_waited_for(clock: VirtualClock) -> None:
    play = Play(clock)
    play.seconds, play.lingers = [60, 1], [5, 0]
    answer = await play.run()
    assert isinstance(answer, Reply)
    assert answer.text == "second"
    assert play.gone == [3, 8], "nothing of a call is under way once it has ended"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("lingers", [0.0, 5.0])
async def test_a_caller_who_leaves_meanwhile_leaves_no_stream_behind(
    lingers: float, clock: VirtualClock
) -> None:
    play = Play(clock)
    play.seconds, play.lingers = [60, 1], [5, lingers]
    play.ends[1] = a_stream()
    call = asyncio.ensure_future(play.run())
    await clock.sleep(4)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert Exchange.opened == 0, "the stream that had won was closed"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_two_streams_that_begin_in_the_same_moment_leave_the_first(clock: VirtualClock) -> None:
    play = Play(clock)
    play.seconds, play.ends = [3, 1], [a_stream(), a_stream()]
    answer = await play.run()
    assert answer is play.ends[0]
    assert Exchange.opened == 1
    assert isinstance(answer, ReplyStream)
    await answer.aclose()
    assert Exchange.opened == 0


async def test_what_may_not_be_sent_twice_is_not(clock: VirtualClock) -> None:
    play = Play(clock)
    raw = Raw("POST", "/v1/files", "m", repeatable=False)
    play.passage.call = Call(Operation.GENERATE, "m", (), raw=raw)
    assert isinstance(await play.run(), Reply)
    assert play.begun == [0]


async def test_both_fail_in_the_same_moment(clock: VirtualClock) -> None:
    play = Play(clock)
    first, second = AttemptFailed(Outcome(Kind.SERVER)), AttemptFailed(Outcome(Kind.NETWORK))
    play.seconds, play.ends = [3, 1], [first, second]
    with pytest.raises(AttemptFailed) as caught:
        await play.run()
    assert caught.value is first


async def test_a_fault_while_it_leaves_is_not_the_callers(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    play = Play(clock)
    play.seconds = [60, 1]

    async def onward(passage: Passage) -> Answer:
        try:
            return await play.onward(passage)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    answer = await play.hedge(play.passage, onward)
    assert isinstance(answer, Reply)
    assert answer.text == "second"
    assert "hedge=fault error=ZeroDivisionError" in caplog.text


async def test_nothing_is_launched_for_a_call_that_left_as_the_timer_rang(clock: VirtualClock) -> None:
    play = Play(clock)
    call = asyncio.ensure_future(play.run())
    await clock.sleep(2)  # this timer was set first, and rings first
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await clock.sleep(100)
    assert len(play.begun) <= 2
    assert len(play.gone) == len(play.begun)


async def test_the_seconds_begin_with_the_send(clock: VirtualClock) -> None:
    """What waits for a place or for quota is not slow."""
    play = Play(clock)

    async def onward(passage: Passage) -> Answer:
        if passage is play.passage:
            await clock.sleep(50)
        return await play.onward(passage)

    play.seconds = [10, 1]
    answer = await play.hedge(play.passage, onward)
    assert isinstance(answer, Reply)
    assert answer.text == "second"
    assert play.begun == [50, 52]


async def test_a_timer_that_rang_for_a_send_that_was_taken_back_launches_nothing(
    clock: VirtualClock,
) -> None:
    """The connection came too late for its reservation, in the very moment in which the timer rang."""
    play = Play(clock)

    others: list[Passage] = []

    async def onward(passage: Passage) -> Answer:
        if passage is not play.passage:
            others.append(passage)
            return Reply("second")
        wire = passage.wire
        assert wire is not None
        wire.begun()
        await clock.sleep(2)
        wire.ended()
        await clock.sleep(30)  # waits for its turn again
        wire.begun()
        await clock.sleep(1)
        wire.ended()
        return Reply("first")

    answer = await play.hedge(play.passage, onward)
    assert isinstance(answer, Reply)
    assert answer.text == "first"
    assert not others


async def test_a_quick_answer_costs_nothing_of_the_budget(clock: VirtualClock) -> None:
    play = Play(clock)
    rules = ProtectionRules(hedge_after=2.0, hedges=BudgetRules(0.0, 1))
    play.hedge = Hedge(Protection(rules, clock), 2.0)
    play.seconds = [1, 1]
    for _ in range(5):
        await play.run()
    assert len(play.begun) == 5
    play.seconds = [10, 1]
    await play.run()
    assert len(play.begun) == 7, "the one that is allowed was left for the one that was slow"


@pytest.mark.parametrize(
    ("kind", "kept_away"),
    [(Kind.QUOTA_MINUTE, True), (Kind.TOO_LARGE, True), (Kind.BAD_KEY, False), (Kind.SERVER, False)],
)
async def test_where_both_fail_the_domain_that_refused_is_not_asked_again(
    kind: Kind, kept_away: bool, clock: VirtualClock
) -> None:
    play = Play(clock)
    play.seconds = [3, 1]
    play.ends = [AttemptFailed(Outcome(Kind.SERVER)), AttemptFailed(Outcome(kind))]

    async def onward(passage: Passage) -> Answer:
        if passage is not play.passage:
            passage.lease = Lease(Key("k1", "CANARY-1", "p1"), 1, 7, "m", 0.0)
        return await play.onward(passage)

    with pytest.raises(AttemptFailed):
        await play.hedge(play.passage, onward)
    assert play.passage.refused_by == ({7} if kept_away else set())
