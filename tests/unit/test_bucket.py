"""Token buckets in whole numbers: shapes, validation, and what memory keeps."""

from __future__ import annotations

import pytest

from headgate.core.buckets import Ask, Rule
from headgate.policy.bucket import State, ask_of, rule_of, shape_of, take
from headgate.stores.buckets import MemoryBuckets, bucket_key, index_key
from headgate.testing import VirtualClock


def test_a_tick_adds_a_whole_number_of_units() -> None:
    shape = shape_of(Rule(10, 60_000))
    assert (shape.unit, shape.per_tick, shape.tick_us, shape.full) == (6_000_000, 1, 1, 60_000_000)


@pytest.mark.parametrize("requests", [1, 7, 999_983, 10**9 + 7, 10**12, 10**12 - 11])
@pytest.mark.parametrize("window_ms", [1, 997, 60_000, 86_400_000, 366 * 86_400_000, 86_399_999])
def test_every_shape_is_exact_and_fits_a_double(requests: int, window_ms: int) -> None:
    shape = shape_of(Rule(requests, window_ms))
    assert shape.full == requests * shape.unit <= 2**53
    assert shape.per_tick <= 2**53
    # per_tick / unit tokens a tick is requests / window tokens a microsecond: without a remainder, or
    # where that does not fit, less by under a tick in the window
    given, meant = shape.per_tick * window_ms * 1000, requests * shape.unit * shape.tick_us
    assert given == meant if requests * window_ms <= 2**53 else given <= meant
    assert meant - given <= shape.per_tick * shape.tick_us
    assert shape.tick_us <= max(1000, window_ms)  # never coarser than a thousandth of the window


def test_windows_are_never_shortened() -> None:
    assert rule_of(1, 0.1 + 0.2).window_ms == 300  # no noise of floats
    assert rule_of(1, 0.0015).window_ms == 2
    assert rule_of(1, 1e-9).window_ms == 1
    assert rule_of(1, 60) == rule_of(1, 60.0)


def test_an_ask_names_each_bucket_once() -> None:
    assert ask_of("u", [Rule(1, 1000), Rule(1, 1000), Rule(2, 1000)]).rules == (
        Rule(1, 1000),
        Rule(2, 1000),
    )


def test_a_denial_changes_nothing() -> None:
    shapes = [shape_of(Rule(1, 1000)), shape_of(Rule(5, 1000))]
    allowed, after, levels = take(shapes, [State(0, 0), State(shapes[1].full, 0)], 0, 1)
    assert not allowed
    assert after == [State(0, 0), State(shapes[1].full, 0)]
    assert [level.wait_us for level in levels] == [1_000_000, 0]


def test_time_between_two_ticks_is_not_lost() -> None:
    shape = shape_of(Rule(999_983, 86_400_000))
    assert shape.tick_us == 10
    state = State(0, 0)
    for now in (15, 30, 35, 49):
        _, (state,), _ = take([shape], [state], now, 0)
    assert state == State(4 * shape.per_tick, 40)


def test_all_keys_of_an_identifier_share_a_hash_tag() -> None:
    for who in ("user-1", "}", "a}b{c", "{}", "%"):
        tags = set()
        for key in (index_key(who), bucket_key(who, Rule(1, 1)), bucket_key(who, Rule(2, 2))):
            start = key.index("{")
            tags.add(key[start + 1 : key.index("}", start)])
        assert len(tags) == 1
        assert tags != {""}  # an empty tag would be none


async def test_memory_forgets_buckets_that_are_full_again(clock: VirtualClock) -> None:
    buckets = MemoryBuckets(clock)
    for number in range(5000):
        await buckets.take(Ask(f"user:{number}", (Rule(10, 1000),)))
        clock.advance(0.001)
    assert len(buckets) < 2100  # a second's worth of callers, and as many again at most
    assert (await buckets.take(Ask("user:4999", (Rule(10, 1000),), 0))).levels[0].tokens < 10
