"""S3-02k, S3-03f: items travel together, nobody waits for nothing, each hears their own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headgate.core.errors import DeadlineExceededError, InvalidCallError, QueueFullError
from headgate.engine.batching import Aggregator
from headgate.testing import VirtualClock


class Upstream:
    """Answers batches with their items in capitals, one second each, and remembers them."""

    def __init__(self, clock: VirtualClock, seconds: float = 1.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.batches: list[tuple[float, str, tuple[str, ...]]] = []
        self.deadlines: list[float | None] = []
        self.cancelled = 0
        self.failure: Exception | None = None

    async def __call__(
        self, group: str, items: Sequence[str], deadline: float | None
    ) -> list[str | Exception]:
        self.batches.append((self.clock.monotonic(), group, tuple(items)))
        self.deadlines.append(deadline)
        try:
            await self.clock.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return [InvalidCallError("bad") if item == "bad" else item.upper() for item in items]

    @property
    def sent(self) -> list[tuple[str, ...]]:
        return [items for _, _, items in self.batches]


def made(
    upstream: Upstream, *, size: int = 3, window: float = 5.0, most: int = 1000, most_weight: int = 1000
) -> Aggregator[str, str, str]:
    return Aggregator(
        upstream,
        upstream.clock,
        size=lambda: size,
        window=lambda: window,
        most=lambda: most,
        most_weight=most_weight,
    )


async def test_s3_03f_a_lone_item_goes_at_once(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    assert await made(upstream).ask("g", "a") == "A"
    assert upstream.batches == [(0.0, "g", ("a",))]
    assert clock.monotonic() == 1.0


async def test_s3_03f_what_comes_in_one_turn_travels_together(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream)
    got = await asyncio.gather(*(batches.ask("g", item) for item in "abcdefg"))
    assert got == list("ABCDEFG")
    assert upstream.sent == [("a", "b", "c"), ("d", "e", "f"), ("g",)]
    assert clock.monotonic() == 1.0, "nobody waited for anybody"


async def test_s3_03f_while_one_is_under_way_items_collect_until_then(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream)
    first = asyncio.ensure_future(batches.ask("g", "a"))
    await clock.sleep(0.1)
    rest = [asyncio.ensure_future(batches.ask("g", "b"))]
    await clock.sleep(0.1)
    rest.append(asyncio.ensure_future(batches.ask("g", "c")))
    assert [await first, *await asyncio.gather(*rest)] == ["A", "B", "C"]
    assert [at for at, _, _ in upstream.batches] == [0.0, 1.0]
    assert upstream.sent == [("a",), ("b", "c")]


async def test_s3_24_a_full_batch_waits_for_nobody(clock: VirtualClock) -> None:
    upstream = Upstream(clock, seconds=60.0)
    batches = made(upstream, size=2)
    tasks = [asyncio.ensure_future(batches.ask("g", "a"))]
    await clock.sleep(1.0)
    tasks += [asyncio.ensure_future(batches.ask("g", item)) for item in "bc"]
    await asyncio.gather(*tasks)
    assert [(at, items) for at, _, items in upstream.batches] == [(0.0, ("a",)), (1.0, ("b", "c"))]


async def test_s3_24_no_item_waits_longer_than_the_window(clock: VirtualClock) -> None:
    upstream = Upstream(clock, seconds=60.0)
    batches = made(upstream, window=5.0)
    tasks = [asyncio.ensure_future(batches.ask("g", "a"))]
    await clock.sleep(1.0)
    tasks.append(asyncio.ensure_future(batches.ask("g", "b")))
    await clock.sleep(3.0)
    tasks.append(asyncio.ensure_future(batches.ask("g", "c")))
    await asyncio.gather(*tasks)
    assert [(at, items) for at, _, items in upstream.batches] == [(0.0, ("a",)), (6.0, ("b", "c"))]


async def test_an_item_with_a_deadline_waits_a_tenth_of_its_time(clock: VirtualClock) -> None:
    upstream = Upstream(clock, seconds=3.0)
    batches = made(upstream)
    first = asyncio.ensure_future(batches.ask("g", "a"))
    await clock.sleep(0.5)
    assert await batches.ask("g", "b", deadline=10.5) == "B"
    assert upstream.batches[1][0] == pytest.approx(1.5)
    assert upstream.deadlines == [None, 10.5]
    assert await first == "A"


async def test_an_urgent_item_takes_along_what_there_is(clock: VirtualClock) -> None:
    upstream = Upstream(clock, seconds=60.0)
    batches = made(upstream)
    tasks = [asyncio.ensure_future(batches.ask("g", "a"))]
    await clock.sleep(1.0)
    tasks.append(asyncio.ensure_future(batches.ask("g", "b")))
    await clock.sleep(1.0)
    tasks.append(asyncio.ensure_future(batches.ask("g", "c", urgent=True)))
    await asyncio.gather(*tasks)
    assert [(at, items) for at, _, items in upstream.batches] == [(0.0, ("a",)), (2.0, ("b", "c"))]


async def test_groups_never_mix(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream)
    await asyncio.gather(
        *(batches.ask(group, item) for item, group in zip("abcd", "xyxy", strict=True))
    )
    assert [(group, items) for _, group, items in upstream.batches] == [
        ("x", ("a", "c")),
        ("y", ("b", "d")),
    ]


async def test_a_batch_goes_before_it_grows_too_heavy(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream, most_weight=10)
    await asyncio.gather(
        *(batches.ask("g", item, weight=weight) for item, weight in [("a", 99), ("b", 6), ("c", 6)])
    )
    assert upstream.sent == [("a",), ("b",), ("c",)]


# ── outcomes ────────────────────────────────────────────────────────────────────────────────────


async def test_s3_02k_each_item_has_its_own_outcome(clock: VirtualClock) -> None:
    batches = made(Upstream(clock))
    got = await asyncio.gather(
        *(batches.ask("g", item) for item in ("a", "bad", "c")), return_exceptions=True
    )
    assert [got[0], got[2]] == ["A", "C"]
    assert isinstance(got[1], InvalidCallError)


async def test_what_a_batch_raises_everybody_hears_with_an_error_of_their_own(
    clock: VirtualClock,
) -> None:
    upstream = Upstream(clock)
    upstream.failure = QueueFullError("full", retry_after=3.0)
    batches = made(upstream)
    got = await asyncio.gather(*(batches.ask("g", item) for item in "abc"), return_exceptions=True)
    assert all(isinstance(error, QueueFullError) and error.retry_after == 3.0 for error in got)
    assert len({id(error) for error in got}) == 3


async def test_too_few_outcomes_are_a_fault_and_not_a_silence(clock: VirtualClock) -> None:
    async def short(group: str, items: Sequence[str], deadline: float | None) -> list[str]:
        return ["A"]

    batches: Aggregator[str, str, str] = Aggregator(
        short, clock, size=lambda: 2, window=lambda: 1.0, most=lambda: 9, most_weight=9
    )
    got = await asyncio.gather(*(batches.ask("g", item) for item in "ab"), return_exceptions=True)
    assert all(isinstance(error, AssertionError) for error in got)


async def test_too_many_items_are_refused_at_once(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream, most=2)
    tasks = [asyncio.ensure_future(batches.ask("g", item)) for item in "abc"]
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert got[:2] == ["A", "B"]
    assert isinstance(got[2], QueueFullError)
    assert got[2].retry_after == 1.0
    assert batches.here == 0


async def test_a_deadline_is_the_items_own(clock: VirtualClock) -> None:
    upstream = Upstream(clock, seconds=10.0)
    batches = made(upstream)
    got = await asyncio.gather(
        batches.ask("g", "a", deadline=2.0),
        batches.ask("g", "b", deadline=30.0),
        return_exceptions=True,
    )
    assert isinstance(got[0], DeadlineExceededError)
    assert got[1] == "B"
    assert upstream.deadlines == [30.0], "the batch is bounded by the last of them"


# ── leaving ─────────────────────────────────────────────────────────────────────────────────────


async def test_who_leaves_before_the_batch_goes_takes_the_item_along(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream)
    first = asyncio.ensure_future(batches.ask("g", "a"))
    await clock.sleep(0.1)
    second, third = (asyncio.ensure_future(batches.ask("g", item)) for item in "bc")
    await clock.sleep(0.1)
    second.cancel()
    assert [await first, await third] == ["A", "C"]
    assert upstream.sent == [("a",), ("c",)]
    assert batches.here == 0


async def test_who_left_does_not_fill_a_batch(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream, size=3)
    tasks = [asyncio.ensure_future(batches.ask("g", "a"))]
    await clock.sleep(0.1)
    left = asyncio.ensure_future(batches.ask("g", "b"))
    await clock.sleep(0.1)
    left.cancel()
    await clock.sleep(0.1)
    tasks += [asyncio.ensure_future(batches.ask("g", item)) for item in "cd"]
    assert await asyncio.gather(*tasks) == ["A", "C", "D"]
    assert [(at, items) for at, _, items in upstream.batches] == [(0.0, ("a",)), (1.0, ("c", "d"))]


async def test_who_leaves_a_batch_under_way_takes_nothing_from_the_others(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream)
    first, second = (asyncio.ensure_future(batches.ask("g", item)) for item in "ab")
    await clock.sleep(0.5)
    first.cancel()
    assert await second == "B"
    assert upstream.cancelled == 0


async def test_when_the_last_has_left_the_batch_is_cancelled_and_over(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream)
    tasks = [asyncio.ensure_future(batches.ask("g", item)) for item in "ab"]
    await clock.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (upstream.cancelled, batches.here) == (1, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_sends_off_what_was_collected(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream)
    tasks = [asyncio.ensure_future(batches.ask("g", "a"))]
    await clock.sleep(0.1)
    tasks.append(asyncio.ensure_future(batches.ask("g", "b")))
    await clock.sleep(0.1)
    await batches.aclose()
    assert upstream.sent == [("a",), ("b",)]
    assert await asyncio.gather(*tasks) == ["A", "B"]
    assert clock.monotonic() == pytest.approx(1.2)


def test_items_of_two_loops_never_travel_together(clock: VirtualClock) -> None:
    upstream = Upstream(clock)
    batches = made(upstream)
    for item in "ab":
        assert clock.run(batches.ask("g", item)) == item.upper()
    assert upstream.sent == [("a",), ("b",)]
