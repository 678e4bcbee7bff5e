"""What the gate does beside letting calls through: heartbeats, news for the ledger, late sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.simulation.test_gate_order import MODEL, Case, refused, rest
from tests.support import MODEL as GEMINI
from tests.support import Ear, key_books, keys, reply, said, scripted, settle, stream

from headgate.core.outcome import Kind
from headgate.core.quota import Batch, BatchReply, Counts
from headgate.engine.pulse import BEAT
from headgate.gemini import GeminiAPICallError, ResilientGeminiClient
from headgate.stores.memory import MemoryStore
from headgate.testing import Answer, VirtualClock


class Spy(MemoryStore):
    """A store of which a test sees the ledger, and which may be slow."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.batches: list[tuple[float, Batch]] = []
        self.delays: list[float] = []

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        self.batches.append((self.clock.monotonic(), batch))
        reply = await super().transact(group, batch)
        if batch.asks and self.delays:
            await self.clock.sleep(self.delays.pop(0))
        return reply

    def told(self, part: str) -> list[float]:
        """When something of a kind was told."""
        return [at for at, batch in self.batches if getattr(batch, part)]

    def used(self, limit: int = 0) -> int:
        """What is held of the first domain's limit of that number."""
        (books,) = self._groups.values()
        return books.ledger.accounts[0].used[limit]


def client_over(
    script: Any, clock: VirtualClock, **quotas: Any
) -> tuple[ResilientGeminiClient, Any, Spy, Ear]:
    store, ear = Spy(clock), Ear()
    client, transport = scripted(
        script, clock, store=store, quotas=quotas, observers=[ear], environ={}, keys=keys(1, "p")
    )
    return client, transport, store, ear


# ── heartbeats and news ─────────────────────────────────────────────────────────────────────────


async def test_a_stream_of_ten_minutes_keeps_its_slot_and_is_charged_once(clock: VirtualClock) -> None:
    pieces = stream(*("abcdefghijklmnopqrst"), piece_delay=30)
    client, transport, store, _ = client_over(
        lambda sent: pieces if sent.request.streaming else said(), clock, concurrency=1, tpm=100_000
    )
    reading = client.generate_content_stream("hi", GEMINI)
    assert await anext(reading) == "a"
    while clock.monotonic() < 590:
        assert store.used(1) == 1, "its slot was given away"
        with pytest.raises(Exception, match="out of quota"):
            await client.generate_content("no room", GEMINI, max_wait_seconds=0)
        await anext(reading)
    async for _ in reading:
        pass
    beats = store.told("renews")
    assert len(beats) == pytest.approx(600 / BEAT, abs=2)
    await clock.sleep(1)
    assert store.used(1) == 0
    # Its window is long over; what it used was charged when it began, and not again.
    assert store.used(0) <= 10
    await client.generate_content("room", GEMINI, max_wait_seconds=0)
    await settle(client, transport)
    await client.aclose()


async def test_a_call_whose_owner_died_is_not_kept_alive(clock: VirtualClock) -> None:
    """Without heartbeats its slot is free after the reservation lapses."""
    case = Case(clock, concurrency=1)
    await case.call("dies")
    case.gate._turnstile(MODEL)._pulses.pop(case.leases["dies"].rid)
    await case.call("next", bound=95)
    assert clock.monotonic() == pytest.approx(90, abs=1.1)


async def test_short_calls_are_never_renewed(clock: VirtualClock) -> None:
    case = Case(clock, rpm=1000)
    for number in range(200):
        await case.call(number)
        await clock.sleep(1)
        case.settle(number)
    assert not any(batch.renews for _, batch in case.store.batches)


async def test_an_idle_process_tells_what_became_of_its_calls_within_50_ms(clock: VirtualClock) -> None:
    case = Case(clock, tpm=100)
    await case.call("first", tokens=90)
    await clock.sleep(10)
    case.settle("first", {Counts.INPUT: 20})
    assert case.line.news
    await clock.sleep(0.051)
    assert not case.line.news
    assert case.store.batches[-1][0] == pytest.approx(10.05)
    assert not case.store.batches[-1][1].asks


async def test_news_ride_on_an_ask_that_comes_first(clock: VirtualClock) -> None:
    case = Case(clock, tpm=100)
    await case.call("first", tokens=90)
    case.settle("first", {Counts.INPUT: 20})
    await case.call("second", tokens=70, bound=0)
    await clock.sleep(1)
    assert [(len(batch.settles), len(batch.asks)) for _, batch in case.store.batches] == [
        (0, 1),
        (1, 1),
    ]


async def test_what_is_not_told_yet_is_told_when_the_client_closes(clock: VirtualClock) -> None:
    client, _, store, _ = client_over([said()], clock, tpm=1000)
    await client.generate_content("hi " * 200, GEMINI)
    assert store.used() > 100
    await client.aclose()
    assert store.used() == 5


async def test_everything_is_quiet_when_nothing_is_left_to_do(clock: VirtualClock) -> None:
    case = Case(clock, rpm=10)
    await case.call("first")
    case.settle("first")
    await clock.sleep(1)
    seen = len(case.store.batches)
    await clock.sleep(7200)
    assert len(case.store.batches) == seen
    assert asyncio.all_tasks() == {asyncio.current_task()}


# ── the send guard ──────────────────────────────────────────────────────────────────────────────


async def test_a_send_that_comes_late_is_reserved_again_and_is_no_attempt(clock: VirtualClock) -> None:
    slow_once = iter([0.3, 0.15])
    script: Callable[[Any], Answer] = lambda _: Answer(  # noqa: E731
        body=json.dumps(reply()).encode(), connect=next(slow_once, 0.0)
    )
    client, transport, store, ear = client_over(script, clock, rpm=1)
    answer = await client.generate_reply("hi", GEMINI)
    assert len(transport.sent) == 1
    assert (answer.attempts, answer.retries, answer.rotations) == (1, 0, 0)
    assert [record.outcome.kind for record in ear.attempts] == [Kind.SUCCESS]
    assert ear.waits == []
    assert key_books(client) == [(1, 1, 0, 0)]
    # The one request a minute was charged, given back and charged again.
    assert store.used() == 1
    rids = [ask.rid for _, batch in store.batches for ask in batch.asks]
    cancels = [rid for _, batch in store.batches for rid in batch.cancels]
    assert len(set(rids)) == 3
    assert cancels == rids[:2]
    # A cancel and the ask that follows it share a round trip.
    assert len(store.batches) == 3
    await client.aclose()


async def test_the_guard_begins_when_the_store_is_asked(clock: VirtualClock) -> None:
    client, transport, store, _ = client_over([said()], clock, rpm=1)
    store.delays = [0.09, 0.11]
    await client.generate_content("in time", GEMINI)
    assert len(store.told("cancels")) == 0
    await clock.sleep(61)
    store.delays = [0.11]
    await client.generate_content("late", GEMINI)
    assert len(store.told("cancels")) == 1
    assert len(transport.sent) == 2
    await client.aclose()


async def test_a_process_that_hangs_gives_up_with_a_reason(clock: VirtualClock) -> None:
    client, transport, store, ear = client_over(
        [Answer(body=b"{}", connect=1.0)], clock, rpm=1
    )  # fmt: skip
    with pytest.raises(GeminiAPICallError, match="too busy") as caught:
        await client.generate_content("hi", GEMINI)
    assert caught.value.kind == "busy"
    assert transport.sent == []
    assert ear.attempts == []
    assert key_books(client) == [(0, 0, 0, 0)]
    assert ear.calls[0].attempts == 0
    await client.aclose()
    assert store.used() == 0


async def test_without_a_reservation_nothing_is_late(clock: VirtualClock) -> None:
    answer = Answer(body=json.dumps(reply()).encode(), connect=5.0)
    client, _ = scripted([answer], clock, environ={})
    assert await client.generate_content("hi", GEMINI) == "fine"
    await client.aclose()


async def test_who_is_late_keeps_its_turn_before_those_who_wait(clock: VirtualClock) -> None:
    connects = iter([0.2])
    client, transport, _, _ = client_over(
        lambda _: Answer(body=json.dumps(reply()).encode(), connect=next(connects, 0.0)), clock, rpm=1
    )
    first = asyncio.ensure_future(client.generate_content("first", GEMINI))
    await rest()
    second = asyncio.ensure_future(client.generate_content("second", GEMINI, max_wait_seconds=100))
    await asyncio.gather(first, second)
    assert [b"first" in sent.request.body for sent in transport.sent] == [True, False]
    await client.aclose()


# ── estimates ───────────────────────────────────────────────────────────────────────────────────


async def reserved(clock: VirtualClock, text: str, quotas: Any, **options: Any) -> dict[str, int]:
    """What one call reserves."""
    client, _, store, _ = client_over([said()], clock, **quotas)
    await client.generate_content(text, GEMINI, **options)
    await client.aclose()
    (ask,) = [ask for _, batch in store.batches for ask in batch.asks]
    return {counts.value: amount for counts, amount in ask.costs.items()}


async def test_an_exact_reservation_covers_the_most_a_call_can_use(clock: VirtualClock) -> None:
    text = "a1b2 " * 100
    usual = await reserved(clock, text, {"tpm": 10_000})
    exact = await reserved(clock, text, {"tpm": 10_000, "exact": True})
    assert usual["input"] < len(text) <= exact["input"]
    assert exact["requests"] == 1


async def test_an_exact_call_that_is_billed_more_says_so(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    usage = {"promptTokenCount": 500, "candidatesTokenCount": 1, "totalTokenCount": 501}
    answer = {**reply(), "usageMetadata": usage}
    client, _, _, _ = client_over(
        [Answer(body=json.dumps(answer).encode())], clock, tpm=1000, exact=True
    )
    await client.generate_content("short", GEMINI)
    assert "quota=exceeds_exact" in caplog.text
    await client.aclose()


async def test_long_answers_teach_what_to_reserve(clock: VirtualClock) -> None:
    """Output is limited for Claude; the shortest way to see it is the reserve stage's own estimate."""
    client, _, _, _ = client_over([said()], clock, rpm=1000)
    stage = client._engine.pipeline.order[2]
    for _ in range(200):
        await client.generate_content("hi", GEMINI)
    count = stage._estimator.count(("hi",))  # type: ignore[attr-defined]
    assert stage._estimator.output(GEMINI, count, None) <= 6  # type: ignore[attr-defined] # 3 were used
    await client.aclose()


# ── the bound of a call ─────────────────────────────────────────────────────────────────────────


async def test_max_wait_bounds_all_waits_of_a_call_together(clock: VirtualClock) -> None:
    """A call that is refused after its wait has only what is left of its bound, not the whole again."""
    from tests.support import quota

    answers = [quota("Minute", "25s") for _ in range(5)]
    client, transport = scripted(answers, clock, max_retries=5, environ={}, quotas={"rpm": 60})
    with pytest.raises(Exception, match="out of quota"):
        await client.generate_content("hi", GEMINI, max_wait_seconds=40)
    assert clock.monotonic() <= 40.1
    assert 1 <= len(transport.sent) <= 2
    await client.aclose()


async def test_waits_at_the_gate_count_as_well(clock: VirtualClock) -> None:
    client, transport, _, ear = client_over(
        [said(), *(Answer(500, b"{}") for _ in range(9))], clock, rpm=1
    )
    await client.generate_content("first", GEMINI)
    with pytest.raises(Exception, match=r"out of quota|failed"):
        await client.generate_content("second", GEMINI, max_wait_seconds=90)
    # It waited a minute, the upstream failed, and another minute would be beyond its bound.
    assert clock.monotonic() <= 90.1
    assert len(transport.sent) == 2
    assert ear.calls[-1].waited <= 90.1
    await client.aclose()


async def test_the_wait_that_is_reported_is_the_one_that_comes(clock: VirtualClock) -> None:
    client, _, _, ear = client_over([said()], clock, rpm=1)
    await client.generate_content("first", GEMINI)
    calling = asyncio.ensure_future(client.generate_reply("second", GEMINI, max_wait_seconds=100))
    await rest()
    (wait,) = ear.waits
    answer = await calling
    assert wait.seconds == pytest.approx(answer.waited, abs=0.01)
    await client.aclose()


async def test_a_refused_call_may_come_back_when_it_was_told(clock: VirtualClock) -> None:
    case = Case(clock, rpm=2, tpm=100)
    await case.call(tokens=80)
    await case.call(tokens=20)
    for tokens in (10, 90):
        error = await refused(case.call(tokens=tokens, bound=5))
        assert error.wait is not None
        assert error.wait > 5
    await clock.sleep(error.wait or 0)
    await case.call(tokens=90, bound=0)
