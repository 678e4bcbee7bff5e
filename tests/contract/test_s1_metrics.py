"""S1: the metrics dict, the status text, and the loops people write around them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from datetime import datetime, timedelta

import pytest
from tests.support import (
    MODEL,
    bad_key,
    broken_inside,
    failure,
    keys,
    number_of,
    quota,
    said,
    scripted,
)

from headgate.core.outcome import Kind, Outcome
from headgate.gemini import (
    AllKeysExhaustedError,
    ApiKeyConfig,
    GeminiAPICallError,
    GeminiKeyManager,
    ResilientGeminiClient,
)
from headgate.testing import VirtualClock

SUCCESS = Outcome(Kind.SUCCESS)
FAULT = Outcome(Kind.SERVER, "it broke")
QUOTA = Outcome(Kind.QUOTA_MINUTE, "quota")


def fill(
    manager: GeminiKeyManager, config: ApiKeyConfig, *, good: int, faults: int = 0, quotas: int = 0
) -> None:
    for outcome, times in ((SUCCESS, good), (FAULT, faults), (QUOTA, quotas)):
        for _ in range(times):
            manager.track_metrics(config, outcome)


def four_keys(clock: VirtualClock, **arguments: object) -> GeminiKeyManager:
    names = ("primary", "backup-1", "backup-2", "backup-3")
    text = ",".join(f"AIzaCANARY-{number}-zzzzzz|{name}" for number, name in enumerate(names))
    return GeminiKeyManager(text, clock=clock, **arguments)  # type: ignore[arg-type]


# ── the status text ─────────────────────────────────────────────────────────────────────────────


def test_s1_43_the_status_text_has_exactly_this_layout(clock: VirtualClock) -> None:
    manager = four_keys(clock)
    primary, backup, second, third = manager.keys
    fill(manager, primary, good=145, faults=5)
    fill(manager, backup, good=200, faults=2, quotas=3)
    manager.mark_quota_exceeded(backup)
    manager.disable(second)
    fill(manager, third, good=150, faults=5)
    assert manager.get_status_summary() == (
        "Gemini Key Manager Status\n"
        "  Total Keys: 4\n"
        "  Active Keys: 2\n"
        "  Rotation: Enabled\n"
        "  [0] primary: ACTIVE (success=145, failed=5, error_rate=3.3%)\n"
        "  [1] backup-1: EXHAUSTED (success=200, failed=5, error_rate=2.4%)\n"
        "  [2] backup-2: DISABLED (success=0, failed=0, error_rate=0.0%)\n"
        "  [3] backup-3: ACTIVE (success=150, failed=5, error_rate=3.2%)"
    )


def test_s1_43_rotation_is_shown_as_disabled(clock: VirtualClock) -> None:
    manager = four_keys(clock, rotation_enabled=False)
    assert manager.get_status_summary().splitlines()[3] == "  Rotation: Disabled"


def test_s1_43_a_rate_of_a_hundred_has_one_decimal_too(clock: VirtualClock) -> None:
    manager = GeminiKeyManager(keys(1), clock=clock)
    fill(manager, manager.keys[0], good=0, faults=3)
    assert "error_rate=100.0%)" in manager.get_status_summary()


async def test_s1_43_the_status_follows_the_clock(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "20s"), said()], clock, 2)
    await client.generate_content("hi")
    assert "[0] k0: EXHAUSTED" in client.get_status_summary()
    assert "  Active Keys: 1" in client.get_status_summary()
    clock.advance(20)
    assert "[0] k0: ACTIVE" in client.get_status_summary()


# ── the dict ────────────────────────────────────────────────────────────────────────────────────

TOP = {
    "timestamp",
    "total_keys",
    "active_keys",
    "rotation_enabled",
    "backoff_seconds",
    "current_key_index",
    "keys",
}
PER_KEY = {"name", "is_active", "quota_exceeded_at", "retry_after", "metrics"}
METRICS = {
    "total_requests",
    "successful_requests",
    "failed_requests",
    "quota_errors",
    "other_errors",
    "error_rate",
    "last_used_at",
    "last_error_at",
    "last_error_message",
}


def test_s1_38_the_dict_has_these_keys(clock: VirtualClock) -> None:
    client, _ = scripted([said()], clock, 3, backoff_seconds=42, rotation_enabled=False)
    shown = client.get_key_metrics()
    assert set(shown) == TOP
    assert shown["total_keys"] == 3
    assert shown["active_keys"] == 3
    assert shown["rotation_enabled"] is False
    assert shown["backoff_seconds"] == 42
    assert shown["current_key_index"] == 0
    json.dumps(shown)


async def test_s1_38_the_current_key_is_the_one_used_last(clock: VirtualClock) -> None:
    client, _ = scripted([said()], clock, 3)
    seen = []
    for _ in range(4):
        await client.generate_content("hi")
        seen.append(client.get_key_metrics()["current_key_index"])
    assert seen == [0, 1, 2, 0]


def test_s1_39_each_key_has_these_and_never_its_value(clock: VirtualClock) -> None:
    client, _ = scripted([said()], clock, 2)
    shown = client.get_key_metrics()
    for entry in shown["keys"]:
        assert set(entry) >= PER_KEY
        assert entry["quota_exceeded_at"] is None
        assert entry["retry_after"] is None
        assert entry["is_active"] is True
    assert [entry["name"] for entry in shown["keys"]] == ["k0", "k1"]
    assert "CANARY" not in json.dumps(shown)


async def test_s1_39_active_again_the_moment_the_backoff_has_passed_without_a_selection(
    clock: VirtualClock,
) -> None:
    """The pitfall: `is_active` stuck at false until the next selection."""
    client, _ = scripted([quota("Minute", "20s"), said()], clock, 2)
    refused_at = datetime.fromisoformat(client.get_key_metrics()["timestamp"])
    await client.generate_content("hi")
    entry = client.get_key_metrics()["keys"][0]
    assert entry["is_active"] is False
    assert datetime.fromisoformat(entry["quota_exceeded_at"]) == refused_at
    assert datetime.fromisoformat(entry["retry_after"]) == refused_at + timedelta(seconds=20)
    clock.advance(19.9)
    assert client.get_key_metrics()["keys"][0]["is_active"] is False
    clock.advance(0.1)
    shown = client.get_key_metrics()
    assert shown["active_keys"] == 2
    assert shown["keys"][0]["is_active"] is True
    assert shown["keys"][0]["quota_exceeded_at"] is None
    assert shown["keys"][0]["retry_after"] is None


async def test_s1_39_times_survive_a_step_of_the_wall_clock(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "20s"), said()], clock, 2)
    await client.generate_content("hi")
    clock.step_wall(-3600)
    clock.advance(19)
    assert client.get_key_metrics()["keys"][0]["is_active"] is False
    clock.advance(1)
    assert client.get_key_metrics()["keys"][0]["is_active"] is True


async def test_s1_40_all_metrics_are_there_and_count_each_attempt_once(clock: VirtualClock) -> None:
    """The pitfalls: `error_rate` left out, a quota error counted twice."""
    client, _ = scripted(
        [said(), broken_inside(), quota("Minute", "5s"), said(), said()], clock, max_wait_seconds=10
    )
    await client.generate_content("hi")
    await client.generate_content("hi")
    metrics = client.get_key_metrics()["keys"][0]["metrics"]
    assert set(metrics) == METRICS
    assert metrics["total_requests"] == 4
    assert metrics["successful_requests"] == 2
    assert metrics["failed_requests"] == 2
    assert metrics["quota_errors"] == 1
    assert metrics["other_errors"] == 1
    assert metrics["error_rate"] == 50.0
    assert metrics["last_error_message"] == "You exceeded your current quota."
    for name in ("last_used_at", "last_error_at"):
        assert datetime.fromisoformat(metrics[name]).utcoffset() == timedelta(0)


def test_s1_40_before_any_call_everything_is_nought_or_null(clock: VirtualClock) -> None:
    client, _ = scripted([said()], clock)
    metrics = client.get_key_metrics()["keys"][0]["metrics"]
    assert [metrics[name] for name in sorted(METRICS) if not name.startswith("last")] == [0] * 6
    assert [metrics[name] for name in METRICS if name.startswith("last")] == [None] * 3


async def test_s1_40_messages_are_redacted_and_cut(clock: VirtualClock) -> None:
    """The pitfall: keys inside `last_error_message`."""
    client, _ = scripted([bad_key(echo="AIzaCANARY-000-" + "x" * 20 + " " + "y" * 900)], clock)
    with pytest.raises(GeminiAPICallError):
        await client.generate_content("hi")
    message = client.get_key_metrics()["keys"][0]["metrics"]["last_error_message"]
    assert len(message) == 500
    assert "CANARY" not in message


def test_s1_40_what_is_tracked_by_hand_is_redacted_and_cut_too(clock: VirtualClock) -> None:
    manager = GeminiKeyManager(keys(1), clock=clock)
    config = manager.keys[0]
    for outcome in (
        Outcome(Kind.SERVER, f"{config.value} {'y' * 900}"),
        RuntimeError(f"{config.value} {'y' * 900}"),
    ):
        manager.track_metrics(config, outcome)
        message = config.metrics.last_error_message
        assert message is not None
        assert len(message) == 500
        assert "CANARY" not in message


def test_s1_41_five_of_a_hundred_and_fifty_are_3_33(clock: VirtualClock) -> None:
    manager = GeminiKeyManager(keys(1), clock=clock)
    config = manager.keys[0]
    assert config.metrics.error_rate == 0.0
    fill(manager, config, good=145, faults=2, quotas=3)
    assert config.metrics.total_requests == 150
    assert config.metrics.error_rate == 3.33
    assert config.metrics.failed_requests == config.metrics.quota_errors + config.metrics.other_errors


async def test_s1_41_a_cancelled_call_is_neither_success_nor_failure(clock: VirtualClock) -> None:
    client, _ = scripted([said(delay=60)], clock)
    task = asyncio.ensure_future(client.generate_content("hi"))
    await clock.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    metrics = client.get_key_metrics()["keys"][0]["metrics"]
    assert metrics["total_requests"] == metrics["failed_requests"] == 0


def test_s1_42_the_timestamp_is_aware_utc_with_microseconds() -> None:
    """The pitfall: `utcnow`, which knows no zone."""
    client, _ = scripted([said()], VirtualClock(wall=1_766_999_445.123456))
    stamp = client.get_key_metrics()["timestamp"]
    assert stamp == "2025-12-29T09:10:45.123456+00:00"
    whole, _ = scripted([said()], VirtualClock(wall=1_766_999_445.0))
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}\+00:00", whole.get_key_metrics()["timestamp"])


# ── the loops around it ─────────────────────────────────────────────────────────────────────────


async def test_s1_44_the_monitor_loop_works_as_written(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("monitor")

    async def monitor(client: ResilientGeminiClient) -> None:
        while True:
            metrics = client.get_key_metrics()
            if metrics["active_keys"] == 0:
                log.critical("no key left")
            for key_status in metrics["keys"]:
                if key_status["metrics"]["error_rate"] > 10:
                    log.warning("high error rate: %s", key_status["name"])
            await clock.sleep(3600)

    def answer(sent):  # type: ignore[no-untyped-def]
        return quota("Day", "5s") if number_of(sent) == 0 else said()

    client, _ = scripted(answer, clock, 2, max_wait_seconds=0)
    watching = asyncio.ensure_future(monitor(client))
    await clock.sleep(10)
    await client.generate_content("hi", MODEL)
    await clock.sleep(3600)
    messages = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "monitor"]
    assert messages == [("WARNING", "high error rate: k0")]
    for config in client.key_manager.keys:
        client.key_manager.mark_quota_exceeded(config, retry_after=7200)
    await clock.sleep(3600)
    messages = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "monitor"]
    assert ("CRITICAL", "no key left") in messages
    watching.cancel()


async def test_s1_45_the_status_is_logged_every_hour(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([said()], clock)
    task = asyncio.ensure_future(client.log_status_every())
    with caplog.at_level(logging.INFO, logger="headgate.gemini"):
        await clock.sleep(3 * 3600 + 1)
    task.cancel()
    status = [r for r in caplog.records if r.getMessage().startswith("Gemini Key Manager Status")]
    assert len(status) == 3


@pytest.mark.parametrize("trouble", ["none", "exhausted", "disabled", "cancelled"])
async def test_s1_33_log_status_never_raises_in_finally(
    trouble: str, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    answers = {
        "none": said(),
        "exhausted": quota("Day"),
        "disabled": bad_key(),
        "cancelled": failure(503, "late", delay=99),
    }
    client, _ = scripted([answers[trouble]], clock, 2)
    expected = (AllKeysExhaustedError, GeminiAPICallError, TimeoutError)
    caplog.set_level(logging.INFO, logger="headgate.gemini")
    try:
        async with asyncio.timeout(50):
            await client.generate_content("hi", MODEL)
        assert trouble == "none"
    except expected:
        assert trouble != "none"
    finally:
        client.log_status()
    assert caplog.records[-1].getMessage() == client.get_status_summary()
