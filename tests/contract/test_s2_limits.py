"""S2-02 … S2-14 and S2-16: what the limiter decides, on every store, and what it leaves there."""

from __future__ import annotations

import asyncio
import pickle
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from tests import limits, valkey
from tests.limits import World, samples

from headgate.claude import ClaudeRateLimiter
from headgate.core.errors import HeadgateError
from headgate.limits import Limit, RateLimiter, RateLimitExceeded

world, served = limits.world, limits.served
valkey_server = valkey.valkey_server


async def passes(limiter: RateLimiter, who: str, most: int, window: float, **more: int) -> int | None:
    """None if the check passes, else the seconds to wait."""
    try:
        await limiter.check_rate_limit(who, most, window, **more)
    except RateLimitExceeded as refused:
        return refused.retry_after
    return None


async def admitted(limiter: RateLimiter, who: str, most: int, window: float, tries: int) -> int:
    results = [await passes(limiter, who, most, window) for _ in range(tries)]
    return results.count(None)


def test_s2_02_the_error_says_when_to_come_back() -> None:
    error = RateLimitExceeded(7)
    assert str(error) == "Rate limit exceeded. Retry after 7 seconds"
    assert (error.retry_after, error.kind, error.http_status) == (7, "rate_limit", 429)
    assert isinstance(error, HeadgateError)
    assert error.retryable
    assert RateLimitExceeded(0).retry_after == 1
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), str(again), again.retry_after) == (RateLimitExceeded, str(error), 7)


def test_s2_03_any_number_of_limiters_share_a_registry() -> None:
    for registry in (CollectorRegistry(), None):
        for _ in range(2):
            RateLimiter(None, registry=registry)
            ClaudeRateLimiter(None, registry=registry)
    assert generate_latest(REGISTRY)


def test_s2_03_metrics_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    limiter = RateLimiter()
    asyncio.run(limiter.check_rate_limit("user-1", 1, 60))
    asyncio.run(ClaudeRateLimiter().record_usage("claude-3-opus", 1, 1))


def test_s2_03_a_blocking_client_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"redis\.asyncio"):
        RateLimiter(redis.Redis())


def test_s2_04_each_check_is_counted_once(world: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        assert await admitted(limiter, "user:1", 2, 60, 5) == 2
        await limiter.get_limit_status("user:1", 2, 60)

    world.run(main)
    counts = samples(world.registry, "cak_rate_limit_checks_total")
    assert counts == {("user", "allowed"): 2, ("user", "exceeded"): 3, ("user", "error"): 0}
    assert samples(world.registry, "headgate_inbound_checks_total")["user", "allowed"] == 2


def test_s2_05_labels_are_scope_classes() -> None:
    registry = CollectorRegistry()
    limiter = RateLimiter(registry=registry, scopes=("tenant", "batch job"))
    names = {
        "user:CANARY-1": "user",
        "ip:192.0.2.1": "ip",
        "token:CANARY-secret": "token",
        "global": "global",
        "claude:claude-3-opus-20240229": "claude:claude-3-opus",
        "claude:CANARY-made-up": "claude:other",
        "claude:": "other",
        "tenant:acme": "tenant",
        "batch job": "batch job",
        "CANARY-anything": "other",
        "users:1": "other",
    }

    async def main() -> None:
        for name in names:
            await limiter.check_rate_limit(name, 5, 60)

    asyncio.run(main())
    found = samples(registry, "cak_rate_limit_tokens_remaining")
    assert set(found) == {(scope,) for scope in names.values()}
    assert "CANARY" not in generate_latest(registry).decode()


def test_s2_05_a_million_callers_are_one_label() -> None:
    registry = CollectorRegistry()
    limiter = RateLimiter(registry=registry)

    async def main() -> None:
        for number in range(3000):
            await limiter.check_rate_limit(f"{number}:x", 5, 60)
            await limiter.check_rate_limit(f"user:{number}", 5, 60)

    asyncio.run(main())
    assert len(samples(registry, "cak_rate_limit_tokens_remaining")) == 2
    assert len(samples(registry, "cak_rate_limit_checks_total")) == 6


def test_s2_05_the_gauge_is_the_lowest_of_its_class_and_fades(world: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        await limiter.check_rate_limit("user:high", 10, 600)
        await limiter.check_rate_limit("user:low", 10, 600, cost=8)
        await limiter.check_rate_limit("user:other", 10, 600, cost=3)

    world.run(main)
    for _ in range(2):  # reading changes nothing
        assert samples(world.registry, "cak_rate_limit_tokens_remaining") == {("user",): 2.0}
    world.later(121)
    assert samples(world.registry, "cak_rate_limit_tokens_remaining") == {}


def test_s2_07_a_bucket_starts_full_refills_and_never_overflows(world: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        assert await admitted(limiter, "user-1", 10, 60, 12) == 10
        assert await passes(limiter, "user-1", 10, 60) == 6  # a token every 6 seconds
        world.later(5.5)
        assert await passes(limiter, "user-1", 10, 60) == 1
        world.later(0.5)
        assert await admitted(limiter, "user-1", 10, 60, 3) == 1
        world.later(3600)
        assert await admitted(limiter, "user-1", 10, 60, 12) == 10

    world.run(main)


def test_s2_07_what_lies_in_the_store(served: World) -> None:
    async def main(limiter: RateLimiter, client: Any) -> None:
        await limiter.check_rate_limit("user-1", 10, 60)
        key = "rate_limit:{user-1}:10:60000"
        bucket = {_text(name): _text(value) for name, value in (await client.hgetall(key)).items()}
        assert float(bucket["tokens"]) == 9
        assert float(bucket["last_refill"]) == pytest.approx(served.clock.wall(), abs=1e-6)
        assert 0 < await client.pttl(key) <= 120_000
        assert await client.pttl(key) > 110_000
        assert await client.pttl("rate_limit:{user-1}:limits") > 120_000
        names = {_text(name) for name in await client.keys("*")}
        assert names == {key, "rate_limit:{user-1}:limits", "test:time"}

    served.run(main)


def test_s2_08_one_script_by_its_hash_and_loaded_again_when_lost(served: World) -> None:
    async def main(limiter: RateLimiter, client: Any) -> None:
        await limiter.check_rate_limit("user-1", 10, 60)
        await client.script_flush()
        await limiter.check_rate_limit("user-1", 10, 60)
        assert (await limiter.get_limit_status("user-1", 10, 60))["tokens_remaining"] == 8

    served.run(main)
    ran = served.commands()
    flushes = 1  # before Redis 7 a server counts all that is done with scripts as one command
    assert ran.get("script|load", ran.get("script", 0) - flushes) >= 1
    assert "evalsha" in ran
    assert "eval" not in ran
    assert samples(served.registry, "cak_rate_limit_checks_total")["other", "error"] == 0


def test_s2_08_instances_share_a_bucket_without_a_race(served: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        others = [served.connect() for _ in range(3)]
        limiters = [
            RateLimiter(client, clock=served.clock, registry=served.registry, store_timeout=10)
            for client in others
        ]
        tries = [passes(one, "user-1", 50, 60) for _ in range(100) for one in (limiter, *limiters)]
        results = await asyncio.gather(*tries)
        assert results.count(None) == 50
        for client in others:
            await client.aclose()

    served.run(main)


def test_s2_09_fractions_of_tokens_arrive(world: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        await limiter.check_rate_limit("user:1", 10, 60, cost=10)
        world.later(57.498)  # 9.583 tokens
        decision = await limiter.decide("user:1", [(10, 60)])
        assert decision.limits[0].tokens == pytest.approx(8.583, abs=1e-6)

    world.run(main)
    found = samples(world.registry, "cak_rate_limit_tokens_remaining")
    assert found["user",] == pytest.approx(0.0, abs=1e-9)  # the first check took all
    assert not samples(world.registry, "cak_rate_limit_tokens_remaining")["user",] < 0


def test_s2_10_a_clock_that_steps_back_takes_nothing_and_gives_nothing(world: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        assert await admitted(limiter, "user-1", 10, 60, 10) == 10
        world.later(-30)
        status = await limiter.get_limit_status("user-1", 10, 60)
        assert status["tokens_remaining"] == 0
        wait = await passes(limiter, "user-1", 10, 60)
        # Memory lives on monotonic time and does not notice; a server stands still and says so.
        assert wait == (36 if world.shared else 6)
        world.later(wait)
        assert await admitted(limiter, "user-1", 10, 60, 3) == 1

    world.run(main)


def test_s2_10_a_clock_set_back_by_hours_delays_nobody_by_hours(served: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        assert await admitted(limiter, "user-1", 10, 60, 10) == 10
        served.later(-7200)
        assert await passes(limiter, "user-1", 10, 60) == 6
        served.later(6)
        assert await admitted(limiter, "user-1", 10, 60, 3) == 1

    served.run(main)


def test_s2_10_the_clocks_of_clients_do_not_matter(valkey_server: Any, world_clock_ahead: Any) -> None:
    """Two processes, one of them an hour ahead, share one bucket on the server's own time."""

    async def main() -> None:
        async with redis.asyncio.Redis(unix_socket_path=valkey_server.path) as client:
            now = RateLimiter(client, registry=CollectorRegistry(), store_timeout=10)
            ahead = RateLimiter(
                client, registry=CollectorRegistry(), store_timeout=10, clock=world_clock_ahead
            )
            taken = sum([await admitted(one, "u", 4, 3600, 4) for one in (now, ahead, now)])
            assert taken == 4

    asyncio.run(main())


@pytest.fixture
def world_clock_ahead() -> Any:
    from headgate.testing import VirtualClock

    return VirtualClock(wall=4_000_000_000.0)


def test_s2_11_windows_may_be_fractions_of_a_second(world: World) -> None:
    async def main(limiter: RateLimiter, client: Any) -> None:
        assert await admitted(limiter, "user-1", 2, 0.25, 3) == 2
        assert await passes(limiter, "user-1", 2, 0.25) == 1
        world.later(0.125)
        assert await admitted(limiter, "user-1", 2, 0.25, 3) == 1
        await limiter.check_rate_limit("user-1", 1, 0.0001)  # becomes the shortest window, 1 ms
        if client is not None:
            assert await client.pttl("rate_limit:{user-1}:2:250") <= 500

    world.run(main)
    assert samples(world.registry, "cak_rate_limit_checks_total")["other", "error"] == 0


@pytest.mark.parametrize(
    ("most", "window", "cost"),
    [
        (0, 60, 1), (-1, 60, 1), (1.5, 60, 1), (True, 60, 1), ("10", 60, 1), (10**13, 60, 1),
        (10, 0, 1), (10, -1, 1), (10, float("nan"), 1), (10, float("inf"), 1), (10, "60", 1),
        (10, True, 1), (10, 1e12, 1), (10, 60, 0), (10, 60, -3), (10, 60, 11), (10, 60, 1.0),
    ],
)  # fmt: skip
def test_s2_12_impossible_limits_are_refused_before_anything_happens(
    most: Any, window: Any, cost: Any, valkey_server: Any
) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis(unix_socket_path=valkey_server.path) as client:
            limiter = RateLimiter(client, registry=CollectorRegistry())
            with pytest.raises(ValueError, match=r"takes|never fits"):
                await limiter.check_rate_limit("user-1", most, window, cost=cost)
            if (most, window) != (10, 60):
                with pytest.raises(ValueError, match="takes"):
                    await limiter.get_limit_status("user-1", most, window)
            assert await client.keys("*") == []

    asyncio.run(main())


@pytest.mark.parametrize("who", ["", None, 7, b"user-1", "\ud800"])
async def test_s2_12_an_identifier_is_a_text(who: Any) -> None:
    limiter = RateLimiter(registry=CollectorRegistry())
    with pytest.raises(ValueError, match="identifier"):
        await limiter.check_rate_limit(who, 10, 60)
    with pytest.raises(ValueError, match="identifier"):
        await limiter.reset_limit(who)


def test_s2_13_no_deprecated_command(served: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        await admitted(limiter, "user-1", 2, 60, 3)
        await limiter.reset_limit("user-1")

    served.run(main)
    ran = served.commands()
    assert ran["hset"] == 2
    assert not {"hmset", "keys", "scan", "expire"} & set(ran)


def test_s2_14_other_limits_are_other_buckets(world: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        assert await admitted(limiter, "user-1", 2, 60, 3) == 2
        assert await admitted(limiter, "user-1", 3, 60, 4) == 3
        assert await admitted(limiter, "user-1", 2, 30, 3) == 2
        assert (await limiter.get_limit_status("user-1", 5, 60))["tokens_remaining"] == 5

    world.run(main)


NEAR = [
    "a",
    "a}",
    "{a}",
    "a}b",
    "}",
    "{",
    "a:2:60000",
    "a}:2:60000",
    "%7D",
    "a*",
    "ü",
    "a b",
    "x" * 300,
]


def test_s2_14_identifiers_that_look_alike_share_nothing(world: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        for who in (*NEAR, "x" * 301):
            assert await admitted(limiter, who, 2, 60, 3) == 2, who
        for who in NEAR:
            await limiter.reset_limit(who)
            assert await admitted(limiter, who, 2, 60, 3) == 2, who
        assert await passes(limiter, "x" * 301, 2, 60) is not None

    world.run(main)


def test_s2_14_and_17_reset_fills_every_bucket_of_its_identifier_only(world: World) -> None:
    async def main(limiter: RateLimiter, client: Any) -> None:
        several = [(1, 60), (2, 60), (1, 0.5), (3, 86_400)]
        for who in ("user:1", "user:10"):
            for most, window in several:
                assert await admitted(limiter, who, most, window, most + 1) == most
        await limiter.reset_limit("user:1")
        await limiter.reset_limit("nobody")
        for most, window in several[:2]:
            assert (await limiter.get_limit_status("user:1", most, window))["tokens_remaining"] == most
            assert (await limiter.get_limit_status("user:10", most, window))["tokens_remaining"] == 0
        if client is not None:
            assert await client.keys("rate_limit:{user:1}*") == []

    world.run(main)


def test_s2_16_status_tells_and_takes_nothing(world: World) -> None:
    async def main(limiter: RateLimiter, client: Any) -> None:
        full = {"tokens_remaining": 10, "reset_time": None, "total_limit": 10}
        for _ in range(3):
            assert await limiter.get_limit_status("user-1", 10, 60) == full
        if client is not None:
            assert await client.keys("rate_limit*") == []
        await limiter.check_rate_limit("user-1", 10, 60)
        world.later(1.5)
        for _ in range(3):
            status = await limiter.get_limit_status("user-1", 10, 60)
            assert status["tokens_remaining"] == 9  # 9.25, rounded down
            when = datetime.fromisoformat(status["reset_time"])
            assert when.utcoffset() == timedelta(0)
            assert status["reset_time"].endswith("+00:00")
            assert len(status["reset_time"]) == len("2026-11-21T12:00:00.000000+00:00")
            expected = datetime.fromtimestamp(world.clock.wall(), UTC) + timedelta(seconds=4.5)
            assert abs(when - expected) < timedelta(milliseconds=1)
        world.later(4.5)
        assert await limiter.get_limit_status("user-1", 10, 60) == full

    world.run(main)


# ── beyond the accepted surface ─────────────────────────────────────────────────────────────────


def test_a_call_may_cost_more_than_one_token(world: World) -> None:
    async def main(limiter: RateLimiter, _: Any) -> None:
        assert await passes(limiter, "user-1", 10, 60, cost=7) is None
        assert await passes(limiter, "user-1", 10, 60, cost=4) == 6
        assert await passes(limiter, "user-1", 10, 60, cost=3) is None

    world.run(main)


def test_several_limits_hold_together_or_take_nothing(world: World) -> None:
    both = [Limit(5, 1), (8, 60)]

    async def main(limiter: RateLimiter, _: Any) -> None:
        for _ in range(5):
            await limiter.check_rate_limits("user-1", both)
        with pytest.raises(RateLimitExceeded) as refused:
            await limiter.check_rate_limits("user-1", both)
        assert refused.value.retry_after == 1
        left = await limiter.get_limit_status("user-1", 8, 60)
        assert left["tokens_remaining"] == 3  # the refused call took nothing from the wider limit
        world.later(1)
        decision = await limiter.decide("user-1", both, cost=4)
        assert (decision.allowed, decision.retry_after) == (False, 7)
        assert [left.exceeded for left in decision.limits] == [False, True]
        assert decision.limits[0].tokens == 5

    world.run(main)


async def test_no_limits_and_double_limits() -> None:
    limiter = RateLimiter(registry=CollectorRegistry())
    with pytest.raises(ValueError, match="at least one"):
        await limiter.check_rate_limits("user-1", [])
    twice = await limiter.decide("user-1", [(3, 60), Limit(3, 60.0, "same")])
    assert [left.tokens for left in twice.limits] == [2, 2]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
