"""`QuotaTracker` and what hangs on it, by acceptance id: S4-08, S4-09, S4 §5.7."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from tests import valkey

from headgate.content import (
    QuotaConfig,
    QuotaExceededError,
    QuotaTracker,
    RequestPriority,
    get_quota_tracker,
    quota_guard,
    with_quota_check,
)
from headgate.content.quota_alone import lone_book
from headgate.core.errors import ConfigurationError, InvalidCallError
from headgate.core.quota import Batch, BatchReply, Refusal
from headgate.stores.memory import MemoryStore
from headgate.testing import VirtualClock

valkey_server = valkey.valkey_server


def small(clock: VirtualClock, **more: Any) -> QuotaTracker:
    """A tracker of three requests a minute."""
    config = QuotaConfig(**{"requests_per_minute": 3, "rpm_safety_margin": 1.0, **more})
    return QuotaTracker(config, clock=clock)


def test_s4_08_limits_are_nominal_and_the_margin_is_taken_in_decimal() -> None:
    config = QuotaConfig()
    safe = (config.get_safe_rpm(), config.get_safe_rpd(), config.get_safe_tpm(), config.get_safe_tpd())
    assert safe == (12, 1200, 800_000, 40_000_000)
    assert QuotaConfig(requests_per_minute=100, rpm_safety_margin=0.29).get_safe_rpm() == 29
    assert QuotaConfig(requests_per_minute=1, rpm_safety_margin=0.1).get_safe_rpm() == 1


@pytest.mark.parametrize(
    "wrong",
    [{"requests_per_minute": 0}, {"tokens_per_day": True}, {"rpm_safety_margin": 1.1},
     {"tpd_safety_margin": 0}, {"max_queue_size": 2.5}],
)  # fmt: skip
def test_a_wrong_configuration_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        QuotaConfig(**wrong)


def test_priorities_have_names_in_any_case_and_no_numbers() -> None:
    from headgate.content.quota_config import priority_of

    assert RequestPriority.MEDIUM is RequestPriority.NORMAL
    assert priority_of("Medium") is priority_of("NORMAL") is RequestPriority.NORMAL
    assert [priority.name for priority in RequestPriority] == ["CRITICAL", "HIGH", "NORMAL", "LOW"]
    with pytest.raises(InvalidCallError):
        priority_of(1)  # S3 counts up where S4 counts down


def test_s4_09_every_method_works_without_await_and_without_a_loop() -> None:
    tracker = QuotaTracker()
    assert tracker.can_make_request(1500) == (True, "OK")
    tracker.record_request(1500)
    (held,) = tracker.reserve(1500)
    tracker.settle(held, 700)
    stats = tracker.get_stats()
    assert stats["current_minute"] == {"requests": 2, "tokens": 2200}
    tracker.cache_response("k", {"a": 1})
    assert tracker.get_fallback_response("k") == {"a": 1, "cached": True, "from_fallback": True}
    assert tracker.get_fallback_response("nobody") is None
    assert tracker.queue_request("LOW", "slow", 100) is True
    assert tracker.get_next_request() == {
        "priority": "LOW", "endpoint": "slow", "estimated_tokens": 100, "user_id": None,
    }  # fmt: skip
    assert tracker.get_next_request() is None
    tracker.close()


async def test_s4_09_they_also_work_inside_of_a_running_loop(clock: VirtualClock) -> None:
    tracker = small(clock)
    assert tracker.can_make_request() == (True, "OK")
    assert await tracker.acan_make_request() == (True, "OK")
    tracker.close()


async def test_asking_books_nothing_and_a_refusal_names_the_nominal_limit(clock: VirtualClock) -> None:
    tracker = small(clock, tokens_per_minute=5000, tpm_safety_margin=1.0)
    for _ in range(10):
        assert await tracker.acan_make_request(5000) == (True, "OK")
    assert await tracker.acan_make_request(5001) == (False, "TPM limit exceeded (5000 per minute)")
    await tracker.areserve(1000, count=3)
    assert await tracker.acan_make_request(1) == (False, "RPM limit exceeded (3 per minute)")


async def test_s4_02_several_are_reserved_together_or_not_at_all(clock: VirtualClock) -> None:
    tracker = small(clock)
    held = await tracker.areserve(100, count=2)
    with pytest.raises(QuotaExceededError) as caught:
        await tracker.areserve(100, count=2)
    assert (caught.value.limit, caught.value.fits) == ("rpm", 1)
    assert caught.value.to_dict() == {
        "error": "quota_exceeded",
        "message": "RPM limit exceeded (3 per minute)",
        "retry_after": f"{caught.value.wait_seconds} seconds",
    }
    assert (await tracker.aget_stats())["current_minute"] == {"requests": 2, "tokens": 200}
    await tracker.asettle(held[0], None)  # of this one nothing was sent
    await tracker.areserve(100, count=2)
    assert (await tracker.aget_stats())["statistics"]["quota_exceeded"] == 1


async def test_a_reservation_may_wait_for_room_and_not_longer(clock: VirtualClock) -> None:
    tracker = small(clock)
    await tracker.areserve(1, count=3)
    began = clock.monotonic()
    with pytest.raises(QuotaExceededError):
        await tracker.areserve(1, wait=10.0)
    assert clock.monotonic() == began  # it knows that there will be none
    await tracker.areserve(1, wait=70.0)
    assert 59 < clock.monotonic() - began < 62


async def test_what_is_put_aside_is_kept_alive_until_it_is_used(clock: VirtualClock) -> None:
    tracker = small(clock, requests_per_day=100)
    (held,) = await tracker.areserve(500)
    await clock.sleep(300.0)
    await tracker.asettle(held, 200)
    assert (await tracker.aget_stats())["current_day"] == {"requests": 1, "tokens": 200}


async def test_a_recorded_request_counts_beyond_the_limit_too(clock: VirtualClock) -> None:
    tracker = small(clock)
    for _ in range(5):
        await tracker.arecord_request(100)
    stats = await tracker.aget_stats()
    assert stats["current_minute"] == {"requests": 5, "tokens": 500}
    assert stats["current_day"] == {"requests": 5, "tokens": 500}
    assert stats["remaining"]["rpm"] == 0
    await clock.sleep(61.0)
    later = await tracker.aget_stats()
    assert (later["current_minute"]["requests"], later["current_day"]["requests"]) == (0, 5)


async def test_s4_08_days_end_at_midnight_in_california(clock: VirtualClock) -> None:
    tracker = QuotaTracker(QuotaConfig(requests_per_day=1, rpd_safety_margin=1.0), clock=clock)
    await tracker.areserve(1)
    with pytest.raises(QuotaExceededError, match=r"RPD limit exceeded \(1 per day\)") as caught:
        await tracker.areserve(1)
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 25 * 3600
    await clock.sleep(caught.value.retry_after)
    await tracker.areserve(1)


async def test_a_fallback_stands_in_for_its_time_and_only_where_it_is_allowed(
    clock: VirtualClock,
) -> None:
    tracker = small(clock, fallback_cache_ttl=60)
    await tracker.acache_response("list", [1, 2])
    assert await tracker.aget_fallback_response("list") == [1, 2]
    await clock.sleep(61.0)
    assert await tracker.aget_fallback_response("list") is None
    never = small(clock, enable_fallback=False)
    await never.acache_response("k", {})
    assert await never.aget_fallback_response("k") is None


async def test_nobody_is_refused_while_a_shared_ledger_finds_out_who_shares_it(
    clock: VirtualClock,
) -> None:
    memory = MemoryStore(clock)
    began = clock.monotonic()

    class Settling:
        """A store that grants nothing in its first three seconds, though nothing is full."""

        async def declare(self, group: str, domains: Any) -> None:
            await memory.declare(group, domains)

        async def transact(self, group: str, batch: Batch) -> BatchReply:
            reply = await memory.transact(group, batch)
            if clock.monotonic() - began >= 3.0 or not batch.asks:
                return reply
            answers = tuple(Refusal(reply.now + 500) for _ in batch.asks)
            await memory.transact(group, Batch(cancels=tuple(ask.rid for ask in batch.asks)))
            return BatchReply(answers, reply.now)

        async def aclose(self) -> None: ...

    config = QuotaConfig(requests_per_minute=1, rpm_safety_margin=1.0)
    tracker = QuotaTracker(config, book=lone_book(config, clock, Settling()), clock=clock)
    await tracker.areserve(10)
    assert 3.0 <= clock.monotonic() - began < 4.0
    with pytest.raises(QuotaExceededError, match="RPM"):
        await tracker.areserve(10)  # now it is full: at once
    assert clock.monotonic() - began < 4.0


# ── what waits ──────────────────────────────────────────────────────────────────────────────────


async def test_s4_09_queued_work_is_run_the_most_urgent_first(clock: VirtualClock) -> None:
    tracker = small(clock, requests_per_minute=1, queue_timeout=600)
    await tracker.areserve(1)
    ran: list[str] = []

    def work(name: str) -> Any:
        async def run() -> int:
            ran.append(f"{name} {clock.monotonic():.0f}")
            return 7

        return run

    began = clock.monotonic()
    for name in ("LOW", "MEDIUM", "CRITICAL", "HIGH"):
        assert await tracker.aqueue_request(name, "job", 10, work=work(name))
    assert (await tracker.aget_stats())["queue"] == {"CRITICAL": 1, "HIGH": 1, "MEDIUM": 1, "LOW": 1}
    await clock.sleep(400.0)
    assert [one.split()[0] for one in ran] == ["CRITICAL", "HIGH", "MEDIUM", "LOW"]
    assert float(ran[0].split()[1]) - began < 62  # as soon as there was room, not later
    stats = await tracker.aget_stats()
    assert stats["statistics"]["queued_requests"] == 4
    assert stats["statistics"]["current_queue_size"] == 0
    assert stats["current_day"] == {"requests": 5, "tokens": 1 + 4 * 7}


async def test_who_waits_too_long_or_finds_the_line_full_is_told(clock: VirtualClock) -> None:
    tracker = small(clock, requests_per_minute=1, max_queue_size=1, queue_timeout=5)
    await tracker.areserve(1)
    assert await tracker.aqueue_request("LOW", "job", 10) is True
    assert await tracker.aqueue_request("CRITICAL", "job", 10) is False
    with pytest.raises(QuotaExceededError, match="wait for quota already"):
        await tracker.aturn("HIGH", "job", 10, 5.0)
    await clock.sleep(6.0)
    assert await tracker.aget_next_request() is None  # its time was up
    with pytest.raises(QuotaExceededError, match="RPM"):
        await tracker.aturn("HIGH", "job", 10, 5.0)


async def test_a_more_urgent_one_passes_those_that_wait_and_who_leaves_lets_the_next_go(
    clock: VirtualClock,
) -> None:
    tracker = small(clock, requests_per_minute=1, queue_timeout=300)
    await tracker.areserve(1)
    order: list[str] = []

    async def turn(priority: str) -> None:
        await tracker.aturn(priority, "job", 10, 300.0)
        order.append(priority)

    loop = asyncio.get_running_loop()
    low, normal = loop.create_task(turn("LOW")), loop.create_task(turn("NORMAL"))
    await clock.sleep(1.0)
    gone, high = loop.create_task(turn("CRITICAL")), loop.create_task(turn("HIGH"))
    await clock.sleep(1.0)
    gone.cancel()
    await asyncio.wait([low, normal, high])
    assert order == ["HIGH", "NORMAL", "LOW"]


async def test_work_that_fails_keeps_its_request_and_gives_its_tokens_back(clock: VirtualClock) -> None:
    tracker = small(clock)

    async def broken() -> None:
        raise RuntimeError("on purpose")

    await tracker.aqueue_request("HIGH", "job", 900, work=broken)
    await clock.sleep(1.0)
    assert (await tracker.aget_stats())["current_minute"] == {"requests": 1, "tokens": 0}


# ── the decorator ───────────────────────────────────────────────────────────────────────────────


async def test_a_checked_coroutine_settles_what_it_says_it_used(clock: VirtualClock) -> None:
    tracker = small(clock)
    calls = 0

    @with_quota_check(estimated_tokens=1000, tracker=tracker)
    async def explain(topic: str, *, detail: str = "high") -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if topic == "fails":
            raise ValueError(topic)
        return {"topic": topic, "usage": {"total_tokens": 300}}

    assert explain.__name__ == "explain"
    assert await explain("bees", detail="low") == {"topic": "bees", "usage": {"total_tokens": 300}}
    with pytest.raises(ValueError, match="fails"):
        await explain("fails")
    assert (await tracker.aget_stats())["current_minute"] == {"requests": 2, "tokens": 300}
    await tracker.areserve(1)
    again = await explain("bees", detail="low")
    assert (again["from_fallback"], again["topic"], calls) == (True, "bees", 2)
    with pytest.raises(QuotaExceededError):
        await explain("bees", detail="high")  # other arguments, another result


async def test_two_objects_that_look_alike_do_not_share_a_result(clock: VirtualClock) -> None:
    tracker = small(clock, requests_per_minute=1)

    class Topic:
        def __repr__(self) -> str:
            return "Topic"

    @with_quota_check(tracker=tracker)
    async def explain(topic: Topic) -> dict[str, int]:
        return {"id": id(topic)}

    await explain(Topic())
    with pytest.raises(QuotaExceededError):
        await explain(Topic())


def test_a_checked_function_without_await() -> None:
    tracker = QuotaTracker(QuotaConfig(requests_per_minute=1, rpm_safety_margin=1.0))

    @with_quota_check(RequestPriority.HIGH, 500, tracker=tracker)
    def explain(topic: str) -> dict[str, Any]:
        return {"topic": topic}

    assert explain("bees") == {"topic": "bees"}
    assert tracker.get_stats()["current_minute"] == {"requests": 1, "tokens": 500}
    assert explain("bees") == {"topic": "bees", "cached": True, "from_fallback": True}
    with pytest.raises(QuotaExceededError):
        explain("ants")
    tracker.close()


async def test_the_less_urgent_wait_in_line_before_they_are_refused(clock: VirtualClock) -> None:
    tracker = small(clock, requests_per_minute=1, queue_timeout=90)

    @with_quota_check("LOW", 10, tracker=tracker)
    async def explain(topic: str) -> str:
        return topic

    began = clock.monotonic()
    assert [await explain("bees"), await explain("ants")] == ["bees", "ants"]
    assert clock.monotonic() - began > 59


def test_a_process_has_one_tracker_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_guard, "_tracker", None)
    monkeypatch.setenv("REDIS_ENABLED", "false")
    monkeypatch.setenv("QUOTA_RPM", "40")
    tracker = get_quota_tracker()
    assert get_quota_tracker(QuotaConfig(requests_per_minute=1)) is tracker
    assert tracker.config.get_safe_rpm() == 32
    from headgate import content

    assert content.quota_tracker is tracker
    assert content.quota_tracker.get_fallback_response("nothing") is None
    tracker.close()


def test_s4_09_what_may_stand_in_is_shared_where_there_is_a_store(
    monkeypatch: pytest.MonkeyPatch, valkey_server: valkey.Server
) -> None:
    monkeypatch.setenv("HEADGATE_STORE", valkey_server.url)
    shared: dict[str, Any] = {}
    for process in ("one", "other"):
        monkeypatch.setattr(quota_guard, "_tracker", None)
        tracker = get_quota_tracker()
        if process == "one":
            tracker.cache_response("bees", {"subtopics": ["Wax"]})
        else:
            shared = cast("dict[str, Any]", tracker.get_fallback_response("bees"))
        tracker._run(tracker.shelf.aclose())
        tracker.close()
    assert shared == {"subtopics": ["Wax"], "cached": True, "from_fallback": True}
