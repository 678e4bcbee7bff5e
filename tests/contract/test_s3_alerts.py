"""S3-05i, S3-05j: the backend tells what somebody should know of, and asks nothing of its callers for
it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from msgspec import structs
from tests.support import MODEL, broken_inside, key, keys, quota, said, stream

from headgate.backend import (
    Alert,
    AlertCleared,
    AlertRaised,
    AlertRule,
    AlertRules,
    AlertSeverity,
    BackendConfig,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    RetryConfig,
)
from headgate.core.errors import ConfigurationError
from headgate.testing import ScriptedTransport, VirtualClock

PROMPTLY = AlertRules(for_seconds=0.0, least_attempts=4, rearm_seconds=0.0)
ONCE = RetryConfig(max_attempts=1)
ASK = GeminiRequest("Explain tides", MODEL, use_cache=False)


def backend(
    clock: VirtualClock, script: Any, rules: AlertRules = PROMPTLY, **fields: Any
) -> GeminiBackend:
    config = BackendConfig(
        model_discovery=False,
        retry_config=ONCE,
        circuit_breaker_enabled=False,
        alerts=rules,
        **fields,
    )
    transport = ScriptedTransport(script, clock)
    return GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})


async def ask(made: GeminiBackend, times: int = 1, **given: Any) -> None:
    for _ in range(times):
        with suppress(GeminiError):
            await made.execute_gemini_enhanced(ASK, **given)


async def heard(feed: AsyncIterator[Alert]) -> Alert:
    """The next alert; one that never comes fails the test instead of keeping it."""
    async with asyncio.timeout(3_600):
        return await anext(feed)


def named(alerts: Any) -> list[tuple[str, str, str]]:
    return [(type(alert).__name__, alert.rule.value, alert.subject) for alert in alerts]


async def test_s3_05j_a_model_that_fails_is_told_and_told_when_it_is_well(clock: VirtualClock) -> None:
    made = backend(clock, [*[broken_inside()] * 4, *[said()] * 100], AlertRules(for_seconds=60.0))
    rules = structs.replace(PROMPTLY, for_seconds=60.0, key_error_rate_percent=None)
    await made.update_gemini_backend_config(
        structs.replace(await made.get_gemini_backend_config(), alerts=rules)
    )
    feed = made.gemini_alerts()
    await ask(made, 4)
    raised = await heard(feed)
    assert isinstance(raised, AlertRaised)
    assert (raised.rule, raised.subject, raised.value) == (AlertRule.ERROR_RATE, MODEL, 100.0)
    assert raised.severity is AlertSeverity.WARNING
    assert clock.monotonic() >= 60.0
    assert made.get_gemini_alerts() == (raised,)
    await ask(made, 90)
    cleared = await heard(feed)
    assert isinstance(cleared, AlertCleared)
    assert cleared.value < 5.0
    assert cleared.seconds >= 60.0
    assert made.get_gemini_alerts() == ()


async def test_s3_05j_all_keys_exhausted_is_critical_and_told_once(clock: VirtualClock) -> None:
    made = backend(clock, [quota("Day"), said()])
    feed = made.gemini_alerts()
    await ask(made, 50)
    (alert,) = made.get_gemini_alerts()
    assert (alert.rule, alert.severity) == (AlertRule.KEYS_EXHAUSTED, AlertSeverity.CRITICAL)
    assert (alert.subject, alert.value) == (MODEL, 1.0)
    await made.aclose()
    assert named([one async for one in feed]) == [("AlertRaised", "keys_exhausted", MODEL)]


async def test_s3_05j_money_is_counted_at_the_prices_of_the_day_streams_too(
    clock: VirtualClock,
) -> None:
    made = backend(clock, lambda sent: stream("a") if "stream" in sent.request.url else said())
    answer = await made.execute_gemini_enhanced(ASK)
    cost = getattr(answer, "cost_estimate", None)
    assert cost
    made = backend(
        clock,
        lambda sent: stream("a") if "stream" in sent.request.url else said(),
        structs.replace(PROMPTLY, spend_per_hour=2 * cost),
    )
    await ask(made)
    assert made.get_gemini_alerts() == ()
    pieces = await made.execute_gemini_enhanced(structs.replace(ASK, stream=True))
    assert [piece async for piece in pieces]  # type: ignore[union-attr]
    assert {(one.rule, one.subject) for one in made.get_gemini_alerts()} == {
        (AlertRule.SPEND_HOUR, "near"),
        (AlertRule.SPEND_HOUR, "cap"),
    }


async def test_s3_05j_a_callers_own_key_that_is_used_up_is_the_callers_business(
    clock: VirtualClock,
) -> None:
    made = backend(clock, lambda sent: quota("Day"))
    await ask(made, 30, api_key=key(7))
    assert made.get_gemini_alerts() == ()
    await ask(made)
    assert named(made.get_gemini_alerts()) == [("AlertRaised", "keys_exhausted", MODEL)]


async def test_s3_05j_a_callback_that_raises_harms_no_request(clock: VirtualClock) -> None:
    made = backend(clock, [quota("Day"), said()])

    def bad(alert: Alert) -> None:
        raise RuntimeError(alert.summary)

    leave = made.on_alert(bad)
    with pytest.raises(GeminiError) as caught:
        await made.execute_gemini_enhanced(ASK)
    assert caught.value.error_type == "QuotaExceeded"
    leave()
    await made.aclose()


async def test_s3_05j_rules_come_over_json_and_a_wrong_one_changes_nothing(clock: VirtualClock) -> None:
    given = json.loads(msgspec.json.encode(BackendConfig(alerts=AlertRules(error_rate_percent=25))))
    made = GeminiBackend(given, keys=keys(1), clock=clock, environ={})
    assert (await made.get_gemini_backend_config()).alerts == AlertRules(error_rate_percent=25)
    given["alerts"]["error_rate_percent"] = 0
    with pytest.raises(ConfigurationError, match=r"alerts\.error_rate_percent"):
        await made.update_gemini_backend_config(given)
    given["alerts"] = None
    with pytest.raises(ConfigurationError, match="alerts"):
        await made.update_gemini_backend_config(given)
    assert (await made.get_gemini_backend_config()).alerts.error_rate_percent == 25


async def test_s3_05j_an_open_breaker_is_told(clock: VirtualClock) -> None:
    """With the accepted thresholds: five failures in a row."""
    config = BackendConfig(
        model_discovery=False,
        retry_config=ONCE,
        alerts=structs.replace(PROMPTLY, error_rate_percent=None, key_error_rate_percent=None),
    )
    script = ScriptedTransport([*[broken_inside()] * 5, *[said()] * 10], clock)
    made = GeminiBackend(config, keys=keys(1), transport=script, clock=clock, environ={})
    feed = made.gemini_alerts()
    await ask(made, 5)
    assert named([await heard(feed)]) == [("AlertRaised", "breaker_open", MODEL)]
    await clock.sleep(61)
    await ask(made, 5)
    assert named([await heard(feed)]) == [("AlertCleared", "breaker_open", MODEL)]
