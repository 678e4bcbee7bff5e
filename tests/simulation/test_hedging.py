"""A second attempt beside a slow one: it may only help, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.guarded import Guarded
from tests.simulation.test_cancellation import cancelled_at
from tests.support import MODEL, bad_key, broken_inside, failure, number_of, quota, said, stream

from headgate.core.call import Operation, Reply
from headgate.core.errors import UpstreamError
from headgate.core.outcome import Kind
from headgate.engine.protection import ProtectionRules
from headgate.policy.breaker import BreakerRules
from headgate.policy.concurrency import ConcurrencyRules
from headgate.policy.retry_budget import BudgetRules
from headgate.testing import Answer, Broken, Sent, VirtualClock

AFTER = 2.0
FREELY = BudgetRules(share=1.0, floor=100)
HEDGED = ProtectionRules(
    breaker=BreakerRules(), concurrency=ConcurrencyRules(), hedge_after=AFTER, hedges=FREELY
)


def by_key(*answers: Answer | Broken) -> Callable[[Sent], Answer | Broken]:
    """What each key is answered, whenever it asks."""
    return lambda sent: answers[number_of(sent)]


def told(engine: Guarded) -> list[tuple[int, str, str]]:
    """Number, key and outcome of every attempt, by number."""
    records = sorted(engine.ear.attempts, key=lambda record: record.number)
    return [(each.number, each.key_name, each.outcome.kind.value) for each in records]


async def test_without_being_asked_for_there_is_none(clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(said(delay=100), said()), ProtectionRules(breaker=BreakerRules()))
    await engine.ask()
    assert engine.sends == 1


async def test_a_quick_answer_needs_none(clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(said(delay=AFTER - 0.1), said()), HEDGED)
    await engine.ask()
    assert engine.sends == 1
    await engine.at_rest()


async def test_a_slow_one_is_overtaken_on_another_domain(clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(said("slow", delay=60), said("quick", delay=1)), HEDGED)
    answer = await engine.ask()
    assert answer.text == "quick"
    assert clock.monotonic() == pytest.approx(AFTER + 1)
    assert [number_of(sent) for sent in engine.transport.sent] == [0, 1]
    assert engine.transport.sent[1].at == pytest.approx(AFTER)
    assert told(engine) == [(1, "k0", "cancelled"), (2, "k1", "success")]
    (call,) = engine.ear.calls
    assert (call.attempts, call.rotations, call.retries, call.key_name, call.error) == (
        2,
        0,
        0,
        "k1",
        None,
    )
    await engine.at_rest()


async def test_the_first_may_still_win(clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(said("first", delay=3), said("second", delay=3)), HEDGED)
    assert (await engine.ask()).text == "first"
    assert clock.monotonic() == pytest.approx(3)
    assert told(engine) == [(1, "k0", "success"), (2, "k1", "cancelled")]
    (call,) = engine.ear.calls
    assert (call.attempts, call.key_name) == (2, "k0")
    await engine.at_rest()


@pytest.mark.parametrize(
    "fails",
    [
        broken_inside(),
        quota("Minute", "9s"),
        quota("Day"),
        bad_key(),
        Answer(body=b'{"promptFeedback": {"blockReason": "SAFETY"}}'),
        failure(400, "Unknown field.", "INVALID_ARGUMENT"),
        Broken(),
        Answer(body=b"<html>"),
    ],
)
async def test_one_that_fails_does_not_fail_the_call(fails: Any, clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(said("first", delay=5), fails), HEDGED)
    assert (await engine.ask()).text == "first"
    assert clock.monotonic() == pytest.approx(5)
    assert engine.sends == 2
    assert told(engine)[0] == (1, "k0", "success")
    await engine.at_rest()


@pytest.mark.parametrize(
    "fails", [broken_inside(delay=3), quota("Minute", "9s", delay=3), Broken(delay=3)]
)
async def test_where_the_first_fails_the_second_is_waited_for(fails: Any, clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(fails, said("second", delay=10)), HEDGED)
    assert (await engine.ask()).text == "second"
    assert clock.monotonic() == pytest.approx(AFTER + 10)
    assert engine.sends == 2
    (call,) = engine.ear.calls
    assert (call.key_name, call.retries, call.rotations) == ("k1", 0, 0)
    await engine.at_rest()


async def test_what_is_final_is_told_at_once(clock: VirtualClock) -> None:
    blocked = Answer(body=b'{"promptFeedback": {"blockReason": "SAFETY"}}', delay=3)
    engine = Guarded(clock, by_key(blocked, said(delay=10)), HEDGED)
    with pytest.raises(UpstreamError) as caught:
        await engine.ask()
    assert caught.value.kind == "blocked"
    assert clock.monotonic() == pytest.approx(3)
    assert told(engine)[1] == (2, "k1", "cancelled")
    await engine.at_rest()


async def test_where_both_fail_the_call_goes_on_with_what_the_first_said(clock: VirtualClock) -> None:
    seen: list[int] = []

    def script(sent: Sent) -> Answer:
        seen.append(number_of(sent))
        if len(seen) == 1:
            return broken_inside(delay=3)
        return quota("Minute", "50s", delay=3) if len(seen) == 2 else said("again", delay=1)

    engine = Guarded(clock, script, HEDGED)
    assert (await engine.ask()).text == "again"
    assert seen == [0, 1, 0], "a retry goes to the same key"
    (call,) = engine.ear.calls
    assert (call.attempts, call.retries, call.rotations) == (3, 1, 0)
    assert [record.number for record in engine.ear.attempts] == [1, 2, 3]
    await engine.at_rest()


async def test_with_one_domain_there_is_none_and_nothing_fails(clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(said(delay=60)), HEDGED, domains=1)
    await engine.ask()
    assert engine.sends == 1
    assert told(engine) == [(1, "k0", "success")]
    await engine.at_rest()


async def test_an_exhausted_budget_fails_nothing(clock: VirtualClock) -> None:
    """Five of a hundred, and one in any case: the others wait for their only attempt."""
    rules = ProtectionRules(hedge_after=AFTER)
    engine = Guarded(clock, by_key(*[said(delay=10)] * 3), rules, domains=3)
    await asyncio.gather(*(engine.ask() for _ in range(100)))
    assert engine.sends == 106
    await engine.at_rest()


async def test_a_model_in_trouble_is_not_asked_twice(clock: VirtualClock) -> None:
    rules = ProtectionRules(
        breaker=BreakerRules(failures=1, probes=9), hedge_after=AFTER, hedges=FREELY
    )
    engine = Guarded(clock, [broken_inside(), said(delay=10)], rules, max_retries=0)
    with pytest.raises(UpstreamError):
        await engine.ask()
    await clock.sleep(60)
    await asyncio.gather(engine.ask(), engine.ask())
    assert engine.sends == 3


async def test_counting_is_not_hedged(clock: VirtualClock) -> None:
    counts = Answer(body=b'{"totalTokens": 7}', delay=60)
    engine = Guarded(clock, by_key(counts, counts), HEDGED)
    await engine.run(Operation.COUNT)
    assert engine.sends == 1


# ── streams ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_is_hedged_until_its_first_piece(clock: VirtualClock) -> None:
    slow, quick = stream("slow", piece_delay=60), stream("a", "b", piece_delay=1)
    engine = Guarded(clock, by_key(slow, quick), HEDGED)
    assert [chunk.text for chunk in await engine.read()] == ["a", "b"]
    assert told(engine) == [(1, "k0", "cancelled"), (2, "k1", "success")]
    (call,) = engine.ear.calls
    assert (call.key_name, call.attempts) == ("k1", 2)
    await engine.at_rest()


async def test_a_stream_that_has_begun_is_never_hedged(clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(stream("a", "b", "c", piece_delay=1.5), said()), HEDGED)
    assert len(await engine.read()) == 3
    assert engine.sends == 1
    await engine.at_rest()


async def test_two_streams_that_begin_together_leave_one(clock: VirtualClock) -> None:
    first, second = stream("first", "x", piece_delay=AFTER + 1), stream("second", "x", piece_delay=1)
    engine = Guarded(clock, by_key(first, second), HEDGED)
    texts = [chunk.text for chunk in await engine.read()]
    assert texts[0] in {"first", "second"}
    assert engine.sends == 2
    kinds = sorted(kind for _, _, kind in told(engine))
    assert kinds == ["cancelled", "success"]
    await engine.at_rest()


# ── quota ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_loser_is_charged_at_the_estimate(clock: VirtualClock) -> None:
    """Two requests a day and project. The first attempt, of k0, was cancelled and may have been
    counted: one of its two is gone."""
    answers = [said(delay=60), said("quick"), said("a"), said("b"), said("c")]
    engine = Guarded(clock, answers, HEDGED, quotas={"rpd": 2})
    assert (await engine.ask()).text == "quick"
    for _ in range(2):
        await engine.ask()
    with pytest.raises(Exception, match="out of quota"):
        await engine.ask()
    assert engine.sends == 4
    await engine.at_rest()


async def test_without_room_for_it_there_is_none(clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(said(delay=10), said()), HEDGED, quotas={"rpm": 1})
    await engine.ask()  # hedged: both projects have sent their one request
    assert engine.sends == 2
    await clock.sleep(61)
    held = asyncio.ensure_future(engine.ask(request_id="holds k1"))
    await clock.sleep(0.5)
    assert engine.sends == 3
    engine.engine.pool.park(1, 3600)
    engine.engine.pool.park(0, 3600)
    await held
    assert engine.sends == 3
    await engine.at_rest()


async def test_waiting_for_quota_is_not_being_slow(clock: VirtualClock) -> None:
    """The seconds count from the send, not from the wait for a turn before it."""
    engine = Guarded(clock, lambda _: said(delay=1), HEDGED, quotas={"rpm": 1})
    await asyncio.gather(engine.ask(), engine.ask())
    await asyncio.gather(engine.ask(max_wait=100), engine.ask(max_wait=100))
    assert clock.monotonic() > 60
    assert engine.sends == 4
    await engine.at_rest()


async def test_a_send_that_is_made_anew_begins_its_seconds_anew(clock: VirtualClock) -> None:
    """The connection came too late for the reservation: nothing was on the wire until then."""
    answers = [
        Answer(body=said().body, connect=1.5),
        Answer(body=said("first").body, connect=0.0, delay=1.8),
        said("second"),
    ]
    engine = Guarded(clock, answers, HEDGED, quotas={"rpm": 10})
    assert (await engine.ask()).text == "first"
    assert engine.sends == 1
    assert [record.number for record in engine.ear.attempts] == [1]
    await engine.at_rest()


# ── races ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delay", [AFTER - 1e-9, AFTER, AFTER + 1e-9])
async def test_the_timer_against_the_answer(delay: float, clock: VirtualClock) -> None:
    engine = Guarded(clock, by_key(said("first", delay=delay), said("second", delay=50)), HEDGED)
    assert (await engine.ask()).text == "first"
    assert clock.monotonic() == pytest.approx(delay)
    assert engine.sends <= 2
    await engine.at_rest()


@pytest.mark.parametrize("leaves", [0.0, 1.0, AFTER - 1e-9, AFTER, AFTER + 1e-9, AFTER + 1, 59.0])
@pytest.mark.parametrize("kind", ["whole", "stream"])
async def test_the_timer_against_the_caller_who_leaves(
    kind: str, leaves: float, clock: VirtualClock
) -> None:
    slow = said(delay=60) if kind == "whole" else stream("a", piece_delay=60)
    engine = Guarded(clock, by_key(slow, slow), HEDGED)
    call = asyncio.ensure_future(engine.ask() if kind == "whole" else engine.read())
    await clock.sleep(leaves)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    sends = engine.sends
    await clock.sleep(100)
    assert engine.sends == sends, "nothing is launched after the end"
    assert [each.outcome.kind for each in engine.ear.attempts] == [Kind.CANCELLED] * sends
    (record,) = engine.ear.calls
    assert (record.error, record.attempts) == ("cancelled", sends)
    await engine.at_rest()


@pytest.mark.parametrize("winner", ["first", "second", "neither"])
@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_cancelled_at_any_point_nothing_stays_behind(kind: str, winner: str) -> None:
    points = 0
    while play(kind, winner, points + 1):
        points += 1
    assert points >= 2, "the timer, and the race"


def play(kind: str, winner: str, point: int) -> bool:
    """Play a scene, cut short at one await point. Returns whether it got that far."""
    clock = VirtualClock()
    late, soon = (5.0, 9.0) if winner == "first" else (9.0, 1.0)
    make = (
        (lambda wait: said(delay=wait))
        if kind == "whole"
        else (lambda wait: stream("a", "b", piece_delay=wait))
    )
    answers = [make(late), make(soon)]
    if winner == "neither":
        answers = [broken_inside(delay=4), Broken(delay=4)]  # type: ignore[list-item]
    engine = Guarded(clock, by_key(*answers), HEDGED, max_retries=1)

    async def scene() -> bool:
        cut_short = False
        try:
            ended = await cancelled_at(engine.ask() if kind == "whole" else engine.read(), point)
        except asyncio.CancelledError:
            cut_short, ended = True, False
        except UpstreamError:
            ended = True
        await engine.at_rest()
        return cut_short or not ended

    return clock.run(scene())


async def test_a_fault_of_ours_in_the_second_is_logged_and_fails_nothing(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def script(sent: Sent) -> Answer:
        if number_of(sent) == 1:
            raise ZeroDivisionError
        return said("first", delay=5)

    engine = Guarded(clock, script, HEDGED)
    with caplog.at_level(logging.ERROR):
        assert (await engine.ask()).text == "first"
    assert "hedge=fault error=ZeroDivisionError" in caplog.text
    await engine.at_rest()


async def test_a_fault_of_ours_in_the_first_is_raised(clock: VirtualClock) -> None:
    def script(_: Sent) -> Answer:
        raise ZeroDivisionError

    engine = Guarded(clock, script, HEDGED)
    with pytest.raises(ZeroDivisionError):
        await engine.ask()
    await engine.at_rest()


async def test_many_at_once_each_have_their_own_answer(clock: VirtualClock) -> None:
    """A load of hedged calls under cancellation: every book is at zero afterwards."""

    def script(sent: Sent) -> Answer:
        return said("x", delay=1 + (sent.at * 7 + number_of(sent) * 3) % 9)

    engine = Guarded(clock, script, HEDGED, domains=4)

    async def one(number: int) -> str:
        await clock.sleep(number / 10)
        try:
            async with asyncio.timeout(1 + number % 11):
                return (await engine.ask()).text
        except TimeoutError:
            return "left"

    answers = await asyncio.gather(*(one(number) for number in range(200)))
    assert set(answers) == {"x", "left"}
    assert len(engine.ear.calls) == 200
    assert len({(each.request_id, each.number) for each in engine.ear.attempts}) == len(
        engine.ear.attempts
    )
    assert isinstance(await engine.ask(model=MODEL), Reply)
    await engine.at_rest()
