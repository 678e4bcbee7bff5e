"""The breaker and the limit of calls at once, on the path: nothing is sent or spent in vain, and
whatever was taken comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from tests.guarded import Guarded
from tests.simulation.test_cancellation import cancelled_at
from tests.support import (
    MODEL,
    bad_key,
    broken_inside,
    event,
    failure,
    overloaded,
    quota,
    reply,
    said,
    stream,
)

from headgate.core.call import Operation, Priority
from headgate.core.errors import (
    DeadlineExceededError,
    HeadgateError,
    QueueFullError,
    UpstreamError,
)
from headgate.core.outcome import Kind, Outcome
from headgate.engine.protection import ProtectionRules
from headgate.policy.breaker import BreakerRules, BreakerState
from headgate.policy.concurrency import ConcurrencyRules
from headgate.policy.retry_budget import BudgetRules
from headgate.testing import Answer, Sent, VirtualClock

BREAKER = ProtectionRules(breaker=BreakerRules())
ADAPTIVE = ProtectionRules(concurrency=ConcurrencyRules(decrease=0.5))
BOTH = ProtectionRules(breaker=BreakerRules(), concurrency=ConcurrencyRules(decrease=0.5))

BLOCKED = Answer(body=b'{"promptFeedback": {"blockReason": "SAFETY"}}')
FAULT = Outcome(Kind.SERVER, "Internal.", 500)


async def trip(engine: Guarded, failures: int = 5) -> None:
    """Let so many calls fail, each at its only attempt."""
    for _ in range(failures):
        with pytest.raises(UpstreamError):
            await engine.ask()


# ── the breaker ─────────────────────────────────────────────────────────────────────────────────


async def test_s3_04d_an_open_breaker_refuses_at_once_and_sends_nothing(clock: VirtualClock) -> None:
    engine = Guarded(clock, lambda _: broken_inside(), BREAKER, max_retries=0)
    await trip(engine)
    await clock.sleep(21.5)
    before = clock.monotonic()
    with pytest.raises(UpstreamError, match="failed several times in a row") as caught:
        await engine.ask()
    error = caught.value
    assert (error.kind, error.http_status, error.retryable) == ("unavailable", 503, True)
    assert error.retry_after == pytest.approx(38.5)
    assert "Nothing was sent" in error.message
    assert error.outcome.kind is Kind.BREAKER_OPEN
    assert clock.monotonic() == before, "it did not wait"
    assert engine.sends == 5
    record = engine.ear.calls[-1]
    assert (record.attempts, record.retries, record.error) == (0, 0, "unavailable")
    assert len(engine.ear.attempts) == 5
    assert engine.engine.protection.states() == {MODEL: BreakerState.OPEN}


async def test_an_open_breaker_spends_no_quota(clock: VirtualClock) -> None:
    """A minute of six requests a project: five went into the failures, and the sixth is still there."""
    script = [*[broken_inside() for _ in range(5)], said()]
    engine = Guarded(clock, script, BREAKER, domains=1, quotas={"rpd": 6}, max_retries=0)
    await trip(engine)
    for _ in range(20):
        with pytest.raises(UpstreamError):
            await engine.ask()
    await clock.sleep(60)
    assert (await engine.ask()).text == "fine"
    with pytest.raises(HeadgateError) as caught:
        await engine.ask()
    assert caught.value.kind == "quota"


async def test_s3_04e_it_closes_after_two_answers(clock: VirtualClock) -> None:
    script = [*[broken_inside() for _ in range(5)], said()]
    engine = Guarded(clock, script, BREAKER, max_retries=0)
    await trip(engine)
    await clock.sleep(60)
    assert engine.engine.protection.state(MODEL) is BreakerState.HALF_OPEN
    await engine.ask()
    assert engine.engine.protection.state(MODEL) is BreakerState.HALF_OPEN
    await engine.ask()
    assert engine.engine.protection.state(MODEL) is BreakerState.CLOSED


async def test_s3_04e_half_open_three_calls_are_let_through(clock: VirtualClock) -> None:
    script = [*[broken_inside() for _ in range(5)], said(delay=5)]
    engine = Guarded(clock, script, BREAKER, max_retries=0)
    await trip(engine)
    await clock.sleep(60)
    results = await asyncio.gather(*(engine.ask() for _ in range(10)), return_exceptions=True)
    refused = [each for each in results if isinstance(each, UpstreamError)]
    assert len(refused) == 7
    assert {each.retry_after for each in refused} == {1.0}
    assert engine.sends == 8


async def test_what_speaks_for_nobody_neither_opens_nor_closes_it(clock: VirtualClock) -> None:
    says_nothing = [
        BLOCKED,
        failure(400, "Unknown field.", "INVALID_ARGUMENT"),
        failure(404, "models/x is not found.", "NOT_FOUND"),
        quota("Minute", "3s"),
        quota("Day"),
        bad_key(),
    ]
    script = [*says_nothing, *[broken_inside() for _ in range(5)], *says_nothing, said()]
    engine = Guarded(clock, script, BREAKER, domains=20, max_retries=0)
    for _ in range(3):  # each is final; the call after them rotates until the first fault
        with pytest.raises(HeadgateError):
            await engine.ask()
    with pytest.raises(HeadgateError):
        await engine.ask()
    assert engine.engine.protection.state(MODEL) is BreakerState.CLOSED
    await trip(engine, 4)
    assert engine.engine.protection.state(MODEL) is BreakerState.OPEN
    await clock.sleep(60)
    for _ in range(3):
        with pytest.raises(HeadgateError):
            await engine.ask()
        assert engine.engine.protection.state(MODEL) is BreakerState.HALF_OPEN
    assert (await engine.ask()).text == "fine"
    assert engine.engine.protection.state(MODEL) is BreakerState.HALF_OPEN, "one answer of two"


async def test_a_call_that_failed_itself_fails_with_that_and_says_why_no_more(
    clock: VirtualClock,
) -> None:
    """Its second try would be the first to be refused: what it says is what happened to it."""
    rules = ProtectionRules(breaker=BreakerRules(failures=1))
    engine = Guarded(clock, lambda _: broken_inside(), rules)
    with pytest.raises(UpstreamError) as caught:
        await engine.ask()
    error = caught.value
    assert (error.kind, error.outcome.kind, error.key_name) == ("server", Kind.SERVER, "k0")
    assert "is left alone for 60 s more" in error.message
    assert "Nothing was sent" not in error.message
    assert error.retry_after == pytest.approx(59.5), "half a second was spent before the second try"
    assert engine.sends == 1


async def test_calls_that_wait_for_quota_are_not_sent_into_an_outage(clock: VirtualClock) -> None:
    """Let in while it was closed. When their turn comes it is open: the turn is given back."""
    rules = ProtectionRules(breaker=BreakerRules(open_seconds=100))
    outage = [said(), said(), *[broken_inside(delay=1) for _ in range(5)], said()]
    engine = Guarded(clock, outage, rules, domains=1, quotas={"rpm": 7}, max_retries=1)
    for _ in range(2):
        await engine.ask()
    calls = [asyncio.ensure_future(engine.ask(max_wait=100, request_id=f"w{n}")) for n in range(12)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    kinds = [each.outcome.kind for each in results if isinstance(each, UpstreamError)]
    assert kinds.count(Kind.SERVER) == 5
    assert kinds.count(Kind.BREAKER_OPEN) == 7
    assert engine.sends == 7
    assert len(engine.ear.attempts) == 7, "a turn that was given back is no attempt"
    assert 60 <= clock.monotonic() < 62
    await engine.at_rest()
    await clock.sleep(41)
    for _ in range(7):  # nothing of the minute was lost with the turns that were given back
        await engine.ask()


async def test_a_stream_tells_the_breaker_when_it_ends(clock: VirtualClock) -> None:
    breaks = Answer(pieces=(event(reply("a", finish=None)),), broken=True)
    script = [*[breaks] * 5, said(), stream("a", "b")]
    engine = Guarded(clock, script, BREAKER, max_retries=0)
    for number in range(5):
        assert engine.engine.protection.state(MODEL) is BreakerState.CLOSED, number
        with pytest.raises(UpstreamError, match="broke off"):
            await engine.read()
    assert engine.engine.protection.state(MODEL) is BreakerState.OPEN
    with pytest.raises(UpstreamError) as caught:
        await engine.read()
    assert caught.value.outcome.kind is Kind.BREAKER_OPEN
    await clock.sleep(60)
    await engine.ask()
    await engine.read()
    assert engine.engine.protection.state(MODEL) is BreakerState.CLOSED
    await engine.at_rest()


async def test_a_reader_who_leaves_says_nothing_and_gives_the_pass_back(clock: VirtualClock) -> None:
    script = [*[broken_inside() for _ in range(5)], stream("a", "b", "c", piece_delay=1)]
    engine = Guarded(clock, script, BREAKER, max_retries=0)
    await trip(engine)
    await clock.sleep(60)
    for _ in range(10):
        answer = await engine.run(Operation.STREAM)
        await anext(answer)
        await answer.aclose()
    assert engine.engine.protection.state(MODEL) is BreakerState.HALF_OPEN
    await engine.at_rest()


async def test_probes_that_hang_and_are_cancelled_never_shut_it(clock: VirtualClock) -> None:
    """resilience4j 544, 903, 935: then nothing ever came through again."""
    script = [*[broken_inside() for _ in range(5)], *[said(delay=10_000)] * 30, said()]
    engine = Guarded(clock, script, BREAKER, max_retries=0)
    await trip(engine)
    await clock.sleep(60)
    for _ in range(10):
        calls = [asyncio.ensure_future(engine.ask()) for _ in range(3)]
        await clock.sleep(1)
        with pytest.raises(UpstreamError):
            await engine.ask()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    for _ in range(2):
        await engine.ask()
    assert engine.engine.protection.state(MODEL) is BreakerState.CLOSED
    await engine.at_rest()


async def test_probes_that_nobody_cancels_make_room_after_a_while(clock: VirtualClock) -> None:
    script = [*[broken_inside() for _ in range(5)], *[said(delay=500)] * 3, said()]
    engine = Guarded(clock, script, BREAKER, max_retries=0)
    await trip(engine)
    await clock.sleep(60)
    hanging = [asyncio.ensure_future(engine.ask()) for _ in range(3)]
    await clock.sleep(59)
    with pytest.raises(UpstreamError):
        await engine.ask()
    await clock.sleep(1)
    await engine.ask()
    await engine.ask()
    assert engine.engine.protection.state(MODEL) is BreakerState.CLOSED
    assert len(await asyncio.gather(*hanging)) == 3


async def test_the_callers_own_deadline_does_not_trip_it(clock: VirtualClock) -> None:
    engine = Guarded(clock, lambda _: said(delay=100), BOTH, max_retries=0)
    for _ in range(10):
        with pytest.raises(HeadgateError):
            await engine.ask(deadline=clock.monotonic() + 1)
    known = engine.engine.protection
    assert (known.state(MODEL), known.limit(MODEL)) == (BreakerState.CLOSED, None)


async def test_a_fault_of_ours_gives_everything_back(clock: VirtualClock) -> None:
    def raises(_: Sent) -> Answer:
        raise ZeroDivisionError

    engine = Guarded(clock, raises, BOTH)
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            await engine.ask()
    await engine.at_rest()
    assert engine.engine.protection.state(MODEL) is BreakerState.CLOSED


@pytest.mark.parametrize("kind", ["whole", "stream"])
@pytest.mark.parametrize("state", ["closed", "half open", "held to one"])
def test_cancelled_at_any_point_whatever_was_taken_comes_back(kind: str, state: str) -> None:
    points = 0
    while play(kind, state, points + 1):
        points += 1
    assert points >= 1


def play(kind: str, state: str, point: int) -> bool:
    """Play a scene, cut short at one await point. Returns whether it got that far."""
    clock = VirtualClock()
    answer = said(delay=3) if kind == "whole" else stream("a", "b", piece_delay=1)
    script = [answer] if state == "half open" else [broken_inside(delay=1), answer]
    engine = Guarded(clock, script, BOTH)
    ward = engine.engine.protection.ward(MODEL)

    async def scene() -> bool:
        if state == "half open":
            for _ in range(5):
                ward.send(None).ended(FAULT)
            await clock.sleep(60)
        if state == "held to one":
            ward.send(None).ended(Outcome(Kind.CAPACITY))
        cut_short = False
        try:
            ended = await cancelled_at(engine.ask() if kind == "whole" else engine.read(), point)
        except asyncio.CancelledError:
            cut_short, ended = True, False
        await engine.at_rest()
        return cut_short or not ended

    return clock.run(scene())


# ── the limit of calls at once ──────────────────────────────────────────────────────────────────


def knee(capacity: int, seconds: float, engine: list[Guarded]) -> Callable[[Sent], Answer]:
    """An upstream that serves so many at once and refuses the rest."""

    def script(_: Sent) -> Answer:
        on_the_wire = engine[0].engine.protection.in_flight  # with the one that asks
        return said(delay=seconds) if on_the_wire <= capacity else overloaded()

    return script


async def test_a_model_that_was_overloaded_is_asked_by_fewer_at_once(clock: VirtualClock) -> None:
    made: list[Guarded] = []
    engine = Guarded(clock, knee(8, 10.0, made), ADAPTIVE, max_retries=9)
    made.append(engine)
    results = await asyncio.gather(*(engine.ask() for _ in range(40)))
    assert len(results) == 40
    assert engine.engine.protection.limit(MODEL) is not None
    refused = engine.sends - 40
    assert 1 <= refused <= 6, "without a limit thirty-two are refused in the first round alone"
    assert clock.monotonic() <= 120, "and at eight at once it takes fifty seconds"
    await engine.at_rest()


async def test_without_overload_there_is_no_limit_and_no_line(clock: VirtualClock) -> None:
    engine = Guarded(clock, lambda _: said(delay=1), ADAPTIVE)
    await asyncio.gather(*(engine.ask() for _ in range(500)))
    assert clock.monotonic() == pytest.approx(1.0)
    assert engine.engine.protection.limit(MODEL) is None
    assert {record.waited for record in engine.ear.calls} == {0.0}


async def held_to_one(clock: VirtualClock, delay: float, rules: ProtectionRules = ADAPTIVE) -> Guarded:
    engine = Guarded(clock, [overloaded(), said(delay=delay)], rules, max_retries=0)
    with pytest.raises(UpstreamError):
        await engine.ask()
    assert engine.engine.protection.limit(MODEL) == 1
    return engine


async def test_urgent_calls_go_first(clock: VirtualClock) -> None:
    engine = await held_to_one(clock, 1)
    order = [Priority.LOW, Priority.NORMAL, Priority.LOW, Priority.CRITICAL, Priority.HIGH]
    first = asyncio.ensure_future(engine.ask())
    await clock.sleep(0.1)
    await asyncio.gather(*(engine.ask(priority=each, request_id=each) for each in order), first)
    served = [record.request_id for record in engine.ear.calls[2:]]
    assert served == ["critical", "high", "normal", "low", "low"]
    waits = [record.waited for record in engine.ear.calls[2:]]
    assert all(earlier <= later for earlier, later in pairwise(waits))
    assert 0 < waits[0] < waits[-1], "it says how long it waited"


async def test_a_deadline_that_passes_in_line_is_told_as_that(clock: VirtualClock) -> None:
    engine = await held_to_one(clock, 100)
    first = asyncio.ensure_future(engine.ask())
    await clock.sleep(0.1)
    with pytest.raises(DeadlineExceededError, match="no more than 1 calls at once") as caught:
        await engine.ask(deadline=clock.monotonic() + 5, request_id="late")
    assert caught.value.request_id == "late"
    assert caught.value.kind == "busy"
    assert engine.sends == 2
    await first
    await engine.at_rest()


async def test_more_than_may_wait_are_refused_at_once(clock: VirtualClock) -> None:
    rules = ProtectionRules(concurrency=ConcurrencyRules(), most_waiting=2)
    engine = await held_to_one(clock, 10, rules)
    calls = [asyncio.ensure_future(engine.ask()) for _ in range(3)]
    await clock.sleep(0.1)
    with pytest.raises(QueueFullError, match="2 wait already") as caught:
        await engine.ask(request_id="full")
    assert caught.value.request_id == "full"
    assert caught.value.retry_after is not None
    await asyncio.gather(*calls)


async def test_who_waits_for_a_place_hears_at_once_that_the_breaker_opened(clock: VirtualClock) -> None:
    """Instead of waiting for a call that hangs, and not to wait for quota after that."""
    hangs = said(delay=10_000)
    script = [overloaded(), hangs, said()]
    rules = ProtectionRules(breaker=BreakerRules(failures=2), concurrency=ConcurrencyRules())
    engine = Guarded(clock, script, rules, domains=1, quotas={"rpm": 2}, max_retries=0)
    with pytest.raises(UpstreamError):
        await engine.ask()
    hanging = asyncio.ensure_future(engine.ask())
    await clock.sleep(1)
    waiting = [asyncio.ensure_future(engine.ask()) for _ in range(5)]
    await clock.sleep(1)
    assert engine.engine.protection.waiting == 5
    engine.engine.protection.ward(MODEL).send(None).ended(FAULT)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [each.outcome.kind for each in results if isinstance(each, UpstreamError)] == (
        [Kind.BREAKER_OPEN] * 5
    )
    assert clock.monotonic() < 3
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    await engine.at_rest()


async def test_a_stream_keeps_its_place_until_it_ends(clock: VirtualClock) -> None:
    script = [overloaded(), stream("a", "b", piece_delay=5), said()]
    engine = Guarded(clock, script, ADAPTIVE, max_retries=0)
    with pytest.raises(UpstreamError):
        await engine.ask()
    answer = await engine.run(Operation.STREAM)
    waiting = asyncio.ensure_future(engine.ask())
    await clock.sleep(100)
    assert not waiting.done()
    await answer.aclose()
    await waiting
    await engine.at_rest()


# ── the budget of retries ───────────────────────────────────────────────────────────────────────


async def test_retries_beyond_the_budget_are_not_made_and_the_error_says_why(
    clock: VirtualClock,
) -> None:
    rules = ProtectionRules(retries=BudgetRules(share=0.0, floor=3))
    engine = Guarded(clock, lambda _: broken_inside(), rules)
    for _ in range(2):
        with pytest.raises(UpstreamError) as caught:
            await engine.ask()
    error = caught.value
    assert (error.kind, error.outcome.kind) == ("server", Kind.SERVER)
    assert error.key_name in {"k0", "k1"}
    assert "retries are held to a share" in error.message
    assert engine.sends == 2 + 3
    assert engine.ear.calls[-1].retries == 1


async def test_rotations_cost_no_budget(clock: VirtualClock) -> None:
    rules = ProtectionRules(retries=BudgetRules(share=0.0, floor=0))
    engine = Guarded(clock, [*[quota("Minute", "9s")] * 9, said()], rules, domains=10)
    assert (await engine.ask()).text == "fine"
    assert engine.ear.calls[-1].rotations == 9


async def test_a_model_that_fails_does_not_use_up_the_budget_of_another(clock: VirtualClock) -> None:
    rules = ProtectionRules(retries=BudgetRules(share=0.0, floor=1))
    once = [True]

    def script(sent: Sent) -> Answer:
        if MODEL in sent.request.url:
            return broken_inside()
        if once:
            once.pop()
            return broken_inside()
        return said()

    engine = Guarded(clock, script, rules)
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await engine.ask()
    assert (await engine.ask(model="gemini-3.5-flash")).text == "fine"
