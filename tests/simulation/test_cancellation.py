"""A call cancelled at any of its await points leaves nothing behind."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from typing import Any

import pytest
from tests.support import (
    MODEL,
    Ear,
    broken_inside,
    key_books,
    keys,
    quota,
    said,
    scripted,
    settle,
    stream,
    vector,
)

from headgate.core.quota import Batch, BatchReply
from headgate.gemini import GeminiAPICallError, ResilientGeminiClient
from headgate.stores.memory import MemoryStore
from headgate.testing import Answer, Broken, VirtualClock


@types.coroutine
def cancelled_at(work: Coroutine[Any, Any, object], point: int) -> Generator[object, object, bool]:
    """Run a coroutine, cancelling its task at the await point of that number.

    Returns whether it ended before it got there. This is what `Task.cancel` does from outside at that
    very moment, without depending on how the loop happens to schedule.
    """
    step: Callable[[], object] = lambda: work.send(None)  # noqa: E731
    seen = 0
    while True:
        try:
            waited_for = step()
        except StopIteration:
            return True
        seen += 1
        if seen == point:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            yield waited_for
            step = lambda: work.send(None)  # noqa: E731
        except BaseException as error:
            step = lambda error=error: work.throw(error)  # noqa: E731


async def generate(client: ResilientGeminiClient) -> object:
    return await client.generate_content("hi", MODEL)


async def embed(client: ResilientGeminiClient) -> object:
    return await client.embed_content("hi")


async def read_stream(client: ResilientGeminiClient) -> object:
    pieces = client.generate_content_stream("hi", MODEL)
    try:
        return [piece async for piece in pieces]
    finally:
        await pieces.aclose()


SITUATIONS: dict[str, tuple[Callable[[ResilientGeminiClient], Awaitable[object]], list[Any]]] = {
    "generate": (generate, [said(delay=3)]),
    "embed": (embed, [Answer(body=vector(1.0).body, delay=3)]),
    "stream": (
        read_stream,
        [Answer(pieces=stream("a", "b", "c").pieces, piece_delay=1, delay=2)],
    ),
    "waiting for a key": (
        generate,
        [quota("Minute", "30s", delay=1), quota("Minute", "20s", delay=1), said(delay=1)],
    ),
    "before a retry": (
        generate,
        [broken_inside(delay=1), Broken(delay=1), Answer(200, b"<html>", delay=1), said(delay=1)],
    ),
    "a stream that waits and retries": (
        read_stream,
        [
            quota("Minute", "30s", delay=1),
            broken_inside(delay=1),
            Answer(pieces=stream("a", "b").pieces, piece_delay=1, delay=1),
        ],
    ),
    "a stream that fails": (
        read_stream,
        [Answer(pieces=stream("a", "b", finish=None).pieces, piece_delay=1, broken=True)],
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_cancelled_at_every_await_point_nothing_stays_behind(name: str) -> None:
    points = 0
    while play(name, points + 1):
        points += 1
    assert points >= 1, "the scene has an await point"
    if name in ("waiting for a key", "before a retry"):
        assert points >= len(SITUATIONS[name][1]) + 1, "the waits themselves were reached"


def play(name: str, point: int) -> bool:
    """Play a scene, cut short at one await point. Returns whether it got that far."""
    work, script = SITUATIONS[name]
    clock, ear = VirtualClock(), Ear()
    client, transport = scripted(script, clock, 2, observers=[ear])

    async def scene() -> bool:
        cut_short = False
        try:
            cut_short = not await asyncio.ensure_future(_as_task(cancelled_at(work(client), point)))
        except asyncio.CancelledError:
            cut_short = True
        except GeminiAPICallError:
            assert name == "a stream that fails"
        await settle(client, transport)
        check_books(client, transport, ear)
        for config in client.key_manager.keys:
            client.key_manager.enable(config)
        transport._answers = [said()]
        assert await client.generate_content("hi", MODEL) == "fine"
        return cut_short

    return clock.run(scene())


async def _as_task(awaitable: Any) -> bool:
    done: bool = await awaitable
    return done


def check_books(client: ResilientGeminiClient, transport: Any, ear: Ear) -> None:
    assert len(ear.attempts) == len(transport.sent), "every lease is settled exactly once"
    assert len(ear.calls) == 1, "one call, one record"
    booked = [record for record in ear.attempts if record.outcome.kind.value != "cancelled"]
    assert sum(total for total, *_ in key_books(client)) == len(booked)
    if ear.attempts and ear.attempts[-1].outcome.kind.value == "cancelled":
        assert ear.calls[0].error == "cancelled"


@pytest.mark.parametrize("pieces", range(5))
async def test_a_reader_who_stops_after_any_piece_leaves_nothing_behind(
    pieces: int, clock: VirtualClock
) -> None:
    ear = Ear()
    client, transport = scripted([stream("a", "b", "c")], clock, observers=[ear])
    reading = client.generate_content_stream("hi", MODEL)
    seen = []
    for _ in range(pieces):
        try:
            seen.append(await anext(reading))
        except StopAsyncIteration:
            break
    await reading.aclose()
    await settle(client, transport)
    assert seen == ["a", "b", "c"][:pieces]
    assert len(ear.attempts) == len(transport.sent) == min(1, pieces)


async def test_a_timeout_around_a_call_is_a_cancellation(clock: VirtualClock) -> None:
    ear = Ear()
    client, transport = scripted([said(delay=100)], clock, observers=[ear])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await client.generate_content("hi", MODEL)
    assert clock.monotonic() == pytest.approx(10)
    await settle(client, transport)
    check_books(client, transport, ear)


async def test_a_failing_neighbour_in_a_task_group_cancels_cleanly(clock: VirtualClock) -> None:
    ear = Ear()
    client, transport = scripted([said(delay=100)], clock, 5, observers=[ear])

    async def fail() -> None:
        await clock.sleep(5)
        raise RuntimeError("neighbour")

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(client.generate_content("hi", MODEL))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await together()
    await settle(client, transport)
    assert len(ear.attempts) == len(ear.calls) == len(transport.sent) == 20
    assert {call.error for call in ear.calls} == {"cancelled"}
    assert sum(total for total, *_ in key_books(client)) == 0


# ── at the gate ─────────────────────────────────────────────────────────────────────────────────


class SlowStore(MemoryStore):
    """A store whose answer takes a while to come, and sometimes too long for the send guard."""

    def __init__(self, clock: VirtualClock, delays: Iterable[float]) -> None:
        super().__init__(clock)
        self._time = clock
        self._delays = iter(delays)

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        await self._time.sleep(0.01)
        reply = await super().transact(group, batch)
        await self._time.sleep(next(self._delays, 0.01))
        return reply


AT_THE_GATE: dict[str, tuple[list[float], list[Any]]] = {
    "goes at once": ([], [said(delay=1)]),
    "is late twice": ([0.01, 0.3, 0.3], [said(delay=1)]),
    "is refused by the upstream": ([], [quota("Minute", "5s", delay=1), said(delay=1)]),
    "fails and is retried": ([], [Broken(delay=1), broken_inside(delay=1), said(delay=1)]),
}


@pytest.mark.parametrize("taken", [0, 1], ids=["room", "a call before it"])
@pytest.mark.parametrize("name", AT_THE_GATE)
def test_cancelled_at_every_await_point_of_the_gate_everything_is_given_back(
    name: str, taken: int
) -> None:
    points = 0
    while play_at_the_gate(name, taken, points + 1):
        points += 1
    assert points >= 3 + taken, "the ask, the wait and the send were reached"


def play_at_the_gate(name: str, taken: int, point: int) -> bool:
    """As `play`, with one slot and two requests a minute; `taken` calls are under way before."""
    delays, script = AT_THE_GATE[name]
    clock, ear = VirtualClock(), Ear()
    store = SlowStore(clock, [])
    client, transport = scripted(
        [said(delay=20)] * taken + script, clock, keys=keys(1, "p"), store=store, environ={},
        quotas={"concurrency": 1, "rpm": 2, "tpm": 10_000}, observers=[ear], max_wait_seconds=300,
    )  # fmt: skip

    async def scene() -> bool:
        cut_short = False
        before = [asyncio.ensure_future(client.generate_content("x", MODEL)) for _ in range(taken)]
        await clock.sleep(1)
        store._delays = iter(delays)
        behind = asyncio.ensure_future(_later(clock, client))
        try:
            cut_short = not await asyncio.ensure_future(_as_task(cancelled_at(generate(client), point)))
        except asyncio.CancelledError:
            cut_short = True
        transport._answers = [said()]
        await asyncio.gather(*before)
        assert await behind == "fine", "who stood behind it got its turn"
        await clock.sleep(1)
        assert sorted(record.outcome.kind.value for record in ear.attempts).count("late") == 0
        assert len(ear.attempts) == len(transport.sent)
        # The reservation of a call that was cancelled lapses for nobody: its slot is free.
        slots, requests, tokens = _held(store)
        assert (slots, tokens < 200) == (0, True)
        assert requests <= 2
        await clock.sleep(130)
        assert await client.generate_content("hi", MODEL, max_wait_seconds=0) == "fine"
        await client.aclose()
        await clock.sleep(61)
        await settle(client, transport)
        return cut_short

    return clock.run(scene())


async def _later(clock: VirtualClock, client: ResilientGeminiClient) -> str:
    await clock.sleep(0.005)  # so that it stands behind, or asks right after
    return await client.generate_content("behind", MODEL)


def _held(store: SlowStore) -> tuple[int, int, int]:
    (books,) = store._groups.values()
    account = books.ledger.accounts[0]
    by_name = {limit.name: used for limit, used in zip(account.limits, account.used, strict=True)}
    return by_name["concurrency"], by_name["rpm"], by_name["tpm"]
