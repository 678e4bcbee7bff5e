"""S2-24 … S2-29: requests per minute by model, usage by day, and a store that fails."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Any

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry, generate_latest
from tests import valkey
from tests.limits import PATIENT, samples
from tests.valkey import Server

from headgate.claude import ClaudeRateLimiter
from headgate.limits import RateLimiter, RateLimitExceeded
from headgate.policy.prices import Price, Tokens
from headgate.stores.usage import MemoryUsage, RedisUsage
from headgate.testing import VirtualClock
from headgate.wiring.prices import anthropic_prices

valkey_server = valkey.valkey_server

TODAY, YESTERDAY = "2026-11-21", "2026-11-20"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def claude(clock: VirtualClock, registry: CollectorRegistry) -> ClaudeRateLimiter:
    return ClaudeRateLimiter(None, max_rpm=2, clock=clock, registry=registry)


async def test_s2_24_25_beside_a_limiter_in_one_registry(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    limiter = RateLimiter(None, registry=registry, clock=clock)
    first = ClaudeRateLimiter(None, registry=registry, clock=clock)
    second = ClaudeRateLimiter(None, 5, registry=registry, clock=clock)
    await limiter.check_rate_limit("user:1", 10, 60)
    for one in (first, second):
        await one.check_claude_limit()
        await one.record_usage("claude-3-opus", 10, 5)
    assert samples(registry, "cak_claude_api_calls_total")["claude-3-opus", "success"] == 2
    counts = samples(registry, "cak_rate_limit_checks_total")
    assert counts["claude:claude-3-opus", "allowed"] == 2
    assert counts["user", "allowed"] == 1


async def test_s2_25_metrics_have_bounded_models(
    claude: ClaudeRateLimiter, registry: CollectorRegistry
) -> None:
    cost = await claude.record_usage(
        "claude-opus-5-5", 100, 20, cache_read_tokens=1000, cache_write_tokens=10
    )
    await claude.record_usage("claude-opus-5-5", 1, 0, success=False)
    for number in range(50):
        await claude.record_usage(f"mystery-{number}", 1, 1)
    assert samples(registry, "cak_claude_api_calls_total") == {
        ("claude-opus-5-5", "success"): 1,
        ("claude-opus-5-5", "error"): 1,
        ("other", "success"): 50,
        ("other", "error"): 0,
    }
    tokens = samples(registry, "cak_claude_tokens_total")
    assert tokens["claude-opus-5-5", "prompt"] == 1111  # cached input included
    assert tokens["claude-opus-5-5", "completion"] == 20
    expected = cost + 4e-6 + 50 * (0.015 + 0.075) / 1000
    assert samples(registry, "cak_claude_cost_dollars_total")[()] == pytest.approx(expected)
    assert "mystery" not in generate_latest(registry).decode()


async def test_s2_26_a_model_has_its_minute(claude: ClaudeRateLimiter, clock: VirtualClock) -> None:
    await claude.check_claude_limit()
    await claude.check_claude_limit("claude-3-opus-20240229")  # the same model in full
    with pytest.raises(RateLimitExceeded) as refused:
        await claude.check_claude_limit("anthropic/claude-3-opus-latest")
    assert refused.value.retry_after == 30
    await claude.check_claude_limit("claude-opus-5-5")
    await clock.sleep(30)
    await claude.check_claude_limit("claude-3-opus")


async def test_s2_26_the_default_model_can_be_chosen(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    one = ClaudeRateLimiter(default_model="claude-sonnet-5-5", registry=registry, clock=clock)
    await one.check_claude_limit()
    found = samples(registry, "cak_rate_limit_tokens_remaining")
    assert found == {("claude:claude-sonnet-5-5",): 9}
    with pytest.raises(ValueError, match="max_requests"):
        ClaudeRateLimiter(None, 0)


@pytest.mark.parametrize(
    ("model", "tokens", "dollars"),
    [
        ("claude-3-opus", {}, 0.09),
        ("claude-3-opus-20240229", {}, 0.09),
        ("claude-opus-5-5", {}, 0.024),
        ("claude-sonnet-5-5-20260901", {}, 0.012),
        ("claude-haiku-5-5", {}, 0.0006),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", {}, 0.018),
        ("claude-haiku-4-5@20251001", {}, 0.006),
        ("claude-opus-5-5", {"cache_read_tokens": 1_000_000}, 0.224),
        ("claude-opus-5-5", {"cache_write_tokens": 1_000_000}, 5.024),
        ("claude-opus-5-5", {"cache_write_1h_tokens": 1_000_000}, 8.024),
    ],
)
async def test_s2_27_each_model_has_its_price(
    claude: ClaudeRateLimiter, model: str, tokens: dict[str, int], dollars: float
) -> None:
    assert await claude.record_usage(model, 1000, 1000, success=True, **tokens) == dollars


async def test_s2_27_unknown_models_are_estimated_with_one_warning(
    claude: ClaudeRateLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert await claude.record_usage("claude-next", 1000, 1000) == 0.09
    await claude.record_usage("claude-3-opus", 1000, 1000)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "claude-next" in warned[0].getMessage()
    assert "estimated" in warned[0].getMessage()
    stats = await claude.get_usage_stats()
    assert stats["estimated_cost"] == 0.27


@pytest.mark.parametrize("tokens", [(-1, 0), (0, -1), (1.5, 0), (True, 0)])
async def test_s2_27_tokens_are_counted_in_whole_numbers(
    claude: ClaudeRateLimiter, tokens: tuple[Any, Any]
) -> None:
    with pytest.raises(ValueError, match="tokens takes a whole number"):
        await claude.record_usage("claude-3-opus", *tokens)


def test_s2_27_the_price_data_has_a_price_for_each_kind_of_token() -> None:
    price, known = anthropic_prices().price("claude-3-opus")
    assert known
    assert price == Price(*map(Decimal, ("15", "75", "1.5", "18.75", "30")))
    assert price.cost(Tokens(1000, 1000)) == Decimal("0.09")


# ── usage by day, on memory and on a server ─────────────────────────────────────────────────────


def run(main: Any, server: Server | None, clock: VirtualClock, **options: Any) -> Any:
    async def whole() -> Any:
        client = redis.asyncio.Redis(unix_socket_path=server.path, **options) if server else None
        limiter = ClaudeRateLimiter(
            client, clock=clock, registry=CollectorRegistry(), store_timeout=PATIENT
        )
        try:
            return await main(limiter, client)
        finally:
            await limiter.aclose()
            if client is not None:
                await client.aclose()

    return asyncio.run(whole()) if server else clock.run(whole())


WORLDS = ["memory", "bytes", "text"]


@pytest.mark.parametrize("world", WORLDS)
def test_s2_28_29_days_add_up(world: str, valkey_server: Server, clock: VirtualClock) -> None:
    async def main(claude: ClaudeRateLimiter, _: Any) -> None:
        empty: dict[str, Any] = {"daily": [], "total_calls": 0, "total_cost": 0.0}
        assert await claude.get_usage_stats() == empty
        await claude.record_usage("claude-3-opus", 1000, 1000)
        await claude.record_usage("claude-opus-5-5", 1000, 1000, success=False)
        clock.advance(12 * 3600)  # midnight, UTC
        await claude.record_usage("claude-3-opus", 1000, 0)
        clock.advance(2 * 86_400)
        await claude.record_usage("claude-3-opus", 0, 1000)
        expected = [
            {"date": "2026-11-24", "calls": 1, "cost": 0.075},
            {"date": "2026-11-22", "calls": 1, "cost": 0.015},
            {"date": "2026-11-21", "calls": 2, "cost": 0.114},
        ]
        stats = await claude.get_usage_stats(days=7)
        assert stats == {"daily": expected, "total_calls": 4, "total_cost": 0.204}
        recent = await claude.get_usage_stats(days=2)
        assert recent == {"daily": expected[:1], "total_calls": 1, "total_cost": 0.075}
        listed = await claude.get_usage_stats(days=3, include_empty=True)
        assert [row["calls"] for row in listed["daily"]] == [1, 0, 1]
        with pytest.raises(ValueError, match="days"):
            await claude.get_usage_stats(days=0)

    server = None if world == "memory" else valkey_server
    options = {"decode_responses": True} if world == "text" else {}
    run(main, server, clock, **options)


def test_s2_28_what_lies_in_the_store(valkey_server: Server, clock: VirtualClock) -> None:
    async def main(claude: ClaudeRateLimiter, client: Any) -> None:
        await claude.record_usage("claude-3-opus", 1000, 1000, cache_read_tokens=5)
        key = f"claude:usage:{TODAY}"
        found = await client.hgetall(key)
        assert int(found[b"calls"]) == 1
        assert float(found[b"cost"]) == pytest.approx(0.09 + 7.5e-6)
        assert int(found[b"calls:claude-3-opus"]) == 1
        assert int(found[b"prompt_tokens:claude-3-opus"]) == 1005
        assert 29 * 86_400 < await client.ttl(key) <= 30 * 86_400
        assert 29 * 86_400 < await client.ttl(f"{{{key}}}:seen") <= 30 * 86_400

    run(main, valkey_server, clock)


def test_s2_28_many_at_once_are_all_counted(valkey_server: Server, clock: VirtualClock) -> None:
    async def main(claude: ClaudeRateLimiter, client: Any) -> None:
        other = ClaudeRateLimiter(
            client, clock=clock, registry=CollectorRegistry(), store_timeout=PATIENT
        )
        records = [
            one.record_usage("claude-3-opus", 1000, 1000) for one in (claude, other) for _ in range(300)
        ]
        await asyncio.gather(*records)
        assert int(await client.hget(f"claude:usage:{TODAY}", "calls")) == 600
        assert (await claude.get_usage_stats())["total_cost"] == 54.0

    run(main, valkey_server, clock)


class Unreliable(MemoryUsage):
    """Fails before or after it has done what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""

    async def add(self, *args: Any) -> None:
        from headgate.core.errors import StoreError

        if self.fault == "before":
            raise StoreError("down")
        await super().add(*args)
        if self.fault == "after":
            raise StoreError("no answer")

    async def read(self, days: Any) -> Any:
        from headgate.core.errors import StoreError

        if self.fault:
            raise StoreError("down")
        return await super().read(days)


async def test_s2_28_a_failing_store_loses_nothing_and_counts_nothing_twice(
    clock: VirtualClock,
) -> None:
    claude = ClaudeRateLimiter(None, clock=clock, registry=CollectorRegistry())
    store = Unreliable()
    claude._usage = claude._journal._store = store
    await claude.record_usage("claude-3-opus", 1000, 1000)
    for fault in ("before", "after", "before"):
        store.fault = fault
        for _ in range(5):
            assert await claude.record_usage("claude-3-opus", 1000, 1000) == 0.09
    stats = await claude.get_usage_stats()
    assert stats["error"] == "down"
    assert stats["total_calls"] >= 10  # what this process still holds
    clock.advance(86_400)
    await claude.record_usage("claude-3-opus", 1000, 1000)
    store.fault = ""
    stats = await claude.get_usage_stats()
    assert [row["calls"] for row in stats["daily"]] == [1, 16]
    assert stats["total_cost"] == pytest.approx(17 * 0.09)
    assert "error" not in stats


async def test_s2_28_a_cancelled_record_is_still_counted(clock: VirtualClock) -> None:
    claude = ClaudeRateLimiter(None, clock=clock, registry=CollectorRegistry())
    for _ in range(5):
        record = asyncio.ensure_future(claude.record_usage("claude-3-opus", 1000, 1000))
        await asyncio.sleep(0)  # noqa: TID251
        record.cancel()
        await asyncio.gather(record, return_exceptions=True)
    assert (await claude.get_usage_stats())["total_calls"] == 5


async def test_s2_28_memory_keeps_thirty_days(clock: VirtualClock) -> None:
    claude = ClaudeRateLimiter(None, clock=clock, registry=CollectorRegistry())
    for _ in range(40):
        await claude.record_usage("claude-3-opus", 1, 0)
        clock.advance(86_400)
    assert (await claude.get_usage_stats(days=365))["total_calls"] == 30


def test_s2_28_the_same_batch_again_changes_nothing(valkey_server: Server) -> None:
    """The port's contract, for both implementations."""
    from headgate.stores.line import StoreLine

    async def told_twice(store: Any) -> list[dict[str, str]]:
        for number in (1, 1, 2, 1, 2):
            await store.add(TODAY, "m", number, {"calls": "1", "cost": "0.1"})
        await store.add(TODAY, "n", 1, {"calls": "1", "cost": "0.2"})
        await store.add(YESTERDAY, "m", 3, {"calls": "1"})
        found: list[dict[str, str]] = await store.read([TODAY, "2026-11-19", YESTERDAY])
        return found

    async def main() -> None:
        async with redis.asyncio.Redis(unix_socket_path=valkey_server.path) as client:
            line = StoreLine(client, clock=VirtualClock(), chance=lambda: 0.5, timeout=PATIENT)
            shared, alone = await told_twice(RedisUsage(line)), await told_twice(MemoryUsage())
            assert shared == alone == [{"calls": "3", "cost": "0.4"}, {}, {"calls": "1"}]

    asyncio.run(main())


async def test_a_dead_server_fails_nothing(clock: VirtualClock) -> None:
    client = redis.asyncio.Redis(unix_socket_path="/nonexistent/socket")
    claude = ClaudeRateLimiter(client, max_rpm=3, clock=clock, registry=CollectorRegistry())
    for _ in range(3):
        await claude.check_claude_limit()
        await claude.record_usage("claude-3-opus", 1000, 1000)
    with pytest.raises(RateLimitExceeded):
        await claude.check_claude_limit()
    stats = await claude.get_usage_stats()
    assert (stats["total_calls"], stats["total_cost"]) == (3, 0.27)
    assert "error" in stats
    await claude.aclose()
    await client.aclose()
