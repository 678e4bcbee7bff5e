"""Many calls, many threads, many loops over one client."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter

import pytest
from tests.support import (
    MODEL,
    Ear,
    bad_key,
    broken_inside,
    key_books,
    number_of,
    quota,
    said,
    scripted,
    settle,
    stream,
)

from headgate.gemini import AllKeysExhaustedError, GeminiKeyRotationError
from headgate.testing import Answer, Sent, VirtualClock


class Upstream:
    """A quota of `limit` requests a minute for each key, and now and then a fault; keeps books."""

    def __init__(self, clock: VirtualClock, limit: int, fault_every: int = 0) -> None:
        self._clock = clock
        self._limit = limit
        self._fault_every = fault_every
        self._windows: Counter[tuple[int, int]] = Counter()
        self._numbers = itertools.count(1)
        self.answered: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self.failed: Counter[int] = Counter()

    def __call__(self, sent: Sent) -> Answer:
        key = number_of(sent)
        minute, second = divmod(self._clock.monotonic(), 60)
        if self._windows[key, int(minute)] >= self._limit:
            self.refused[key] += 1
            return quota("Minute", f"{60 - second:.3f}s", value=str(self._limit))
        self._windows[key, int(minute)] += 1
        if self._fault_every and next(self._numbers) % self._fault_every == 0:
            self.failed[key] += 1
            return broken_inside()
        self.answered[key] += 1
        return said(delay=1)


async def test_a_thousand_calls_at_once_use_every_quota_to_its_end(clock: VirtualClock) -> None:
    """No call is refused that a key had room for, and the books are the upstream's own."""
    upstream = Upstream(clock, limit=100)
    client, transport = scripted(upstream, clock, 10)
    answers = await asyncio.gather(
        *(client.generate_content(f"{number}", MODEL) for number in range(1000))
    )
    assert answers == ["fine"] * 1000
    assert clock.monotonic() == pytest.approx(1), "there was room for all of them in one minute"
    assert sum(upstream.refused.values()) == 0
    await settle(client, transport)


async def test_a_thousand_calls_for_five_hundred_places_wait_for_the_next_minute(
    clock: VirtualClock,
) -> None:
    ear = Ear()
    upstream = Upstream(clock, limit=50, fault_every=97)
    client, transport = scripted(
        upstream, clock, 10, max_wait_seconds=150, max_retries=6, observers=[ear]
    )
    results = await asyncio.gather(
        *(client.generate_content(f"{number}", MODEL) for number in range(1000)),
        return_exceptions=True,
    )
    failed = [result for result in results if result != "fine"]
    assert all(isinstance(error, GeminiKeyRotationError) for error in failed)
    assert failed == []
    assert len(ear.calls) == 1000
    assert len(ear.attempts) == len(transport.sent)
    for number, (total, successes, failures, quotas) in enumerate(key_books(client)):
        assert successes == upstream.answered[number]
        assert quotas == upstream.refused[number]
        assert failures == upstream.refused[number] + upstream.failed[number]
        assert total == successes + failures
    await settle(client, transport)


async def test_when_every_key_dies_each_call_ends_with_the_same_typed_error(
    clock: VirtualClock,
) -> None:
    client, transport = scripted(lambda sent: bad_key(), clock, 20)
    results = await asyncio.gather(
        *(client.generate_content("hi", MODEL) for _ in range(200)), return_exceptions=True
    )
    assert {getattr(error, "kind", None) for error in results} == {"auth"}
    assert len(transport.sent) <= 200 * 20
    assert client.get_key_metrics()["active_keys"] == 0
    await settle(client, transport)


async def test_a_daily_refusal_on_all_keys_ends_every_call_at_once(clock: VirtualClock) -> None:
    client, transport = scripted(lambda sent: quota("Day", "22s"), clock, 20)
    results = await asyncio.gather(
        *(client.generate_content("hi", MODEL) for _ in range(200)), return_exceptions=True
    )
    assert {type(error) for error in results} == {AllKeysExhaustedError}
    assert clock.monotonic() == 0
    await settle(client, transport)


def run_threads(count: int, work) -> None:  # type: ignore[no-untyped-def]
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def guarded(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_sixteen_threads_share_one_client_through_the_sync_twins() -> None:
    clock = VirtualClock()
    ear = Ear()
    client, transport = scripted(
        lambda sent: stream("a", "b") if "stream" in sent.request.url else said(),
        clock,
        4,
        observers=[ear],
    )

    def work(number: int) -> None:
        for turn in range(20):
            if (number + turn) % 2:
                assert client.generate_content_sync("hi", MODEL) == "fine"
            else:
                assert list(client.generate_content_stream_sync("hi", MODEL)) == ["a", "b"]
            client.get_key_metrics()
            client.get_status_summary()

    run_threads(16, work)
    client.close()
    books = key_books(client)
    assert [total for total, *_ in books] == [80] * 4
    assert sum(successes for _, successes, _, _ in books) == 320
    assert len(transport.sent) == len(ear.attempts) == len(ear.calls) == 320
    assert transport.open_exchanges == 0


def test_loops_in_threads_share_one_client_with_faults_and_rotations() -> None:
    clock = VirtualClock()
    lock, numbers = threading.Lock(), itertools.count()

    def answer(sent: Sent) -> Answer:
        with lock:
            turn = next(numbers)
        if turn % 50 == 7 and number_of(sent) in (0, 1):
            return quota("Minute", "30s")
        return said()

    client, transport = scripted(answer, clock, 6)

    def work(_: int) -> None:
        async def many() -> None:
            got = await asyncio.gather(*(client.generate_content("hi", MODEL) for _ in range(100)))
            assert got == ["fine"] * 100

        asyncio.run(many())

    run_threads(2, work)
    books = key_books(client)
    assert sum(successes for _, successes, _, _ in books) == 200
    assert sum(total for total, *_ in books) == len(transport.sent)
    assert sum(quotas for *_, quotas in books) == len(transport.sent) - 200
