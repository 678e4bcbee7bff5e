"""Alerts reach those who listen, and nobody who listens can harm a call."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from headgate.core.alerts import Alert, AlertCleared, AlertRaised, AlertRule
from headgate.core.call import Operation, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import AttemptRecord, CallRecord
from headgate.policy.alert_rules import AlertRules
from headgate.telemetry.alert_feed import AlertFeed, Listener
from headgate.telemetry.alerting import Alerting
from headgate.testing import VirtualClock

PROMPTLY = AlertRules(for_seconds=0.0, least_attempts=2, rearm_seconds=0.0)
SECONDS = 10.0  # that a thread gets to do what takes it microseconds


def attempt(
    kind: Kind = Kind.SUCCESS, model: str = "m", key: str = "k0", **fields: Any
) -> AttemptRecord:
    return AttemptRecord("r1", 1, key, "alpha", model, 0.0, 1.0, Outcome(kind, **fields))


def call(error: str | None = None, model: str = "m", **fields: Any) -> CallRecord:
    return CallRecord(
        "r1", Operation.GENERATE, model, 0.0, 1.0, 1, 0, fields.pop("retries", 0), 0.0, "k0", Usage(),
        error, **fields,
    )  # fmt: skip


def named(alerts: Collection[Alert]) -> list[tuple[str, str, str]]:
    return [(type(alert).__name__, alert.rule.value, alert.subject) for alert in alerts]


async def told_by(feed: AlertFeed) -> Alert:
    """The next alert; one that never comes fails the test instead of keeping it."""
    async with asyncio.timeout(3_600):
        return await anext(feed)


async def test_a_feed_gives_every_alert_in_order_and_ends(clock: VirtualClock) -> None:
    alerting = Alerting(PROMPTLY, clock)
    feed = alerting.feed()
    alerting.attempt(attempt(Kind.SERVER))
    alerting.attempt(attempt(Kind.SERVER))
    alerting.call(call("quota"))
    alerting.close()
    got = [alert async for alert in feed]
    assert named(got) == [
        ("AlertRaised", "error_rate", "m"),
        ("AlertRaised", "key_error_rate", "k0"),
        ("AlertRaised", "keys_exhausted", "m"),
    ]
    assert [one async for one in alerting.feed()] == [], "of a closed source"


async def test_a_reader_that_waits_is_woken_when_time_alone_ends_an_alert(clock: VirtualClock) -> None:
    """Nothing happens after the refusal: the timer of the loop tells that it is over."""
    alerting = Alerting(AlertRules(window_seconds=300.0), clock)
    feed = alerting.feed()
    alerting.call(call("quota"))
    assert isinstance(await told_by(feed), AlertRaised)
    over = await told_by(feed)
    assert isinstance(over, AlertCleared)
    assert clock.monotonic() == pytest.approx(300.0)
    assert over.at == pytest.approx(clock.wall())


async def test_a_rate_that_stays_high_is_raised_without_another_call(clock: VirtualClock) -> None:
    alerting = Alerting(
        AlertRules(least_attempts=2, for_seconds=60.0, key_error_rate_percent=None), clock
    )
    feed = alerting.feed()
    for _ in range(2):
        alerting.attempt(attempt(Kind.OVERLOAD))
    assert isinstance(await told_by(feed), AlertRaised)
    assert clock.monotonic() == pytest.approx(60.0)
    assert named(alerting.standing()) == [("AlertRaised", "error_rate", "m")]


async def test_a_feed_may_be_read_in_another_loop_than_the_calls(clock: VirtualClock) -> None:
    alerting = Alerting(PROMPTLY, clock)
    feed = alerting.feed()
    got: list[Alert] = []
    waiting = threading.Event()

    async def read() -> None:
        asyncio.get_running_loop().call_soon(waiting.set)
        got.append(await anext(feed))

    reader = threading.Thread(target=lambda: asyncio.run(read()))
    reader.start()
    assert waiting.wait(SECONDS)
    alerting.call(call("auth"))
    reader.join(SECONDS)
    assert named(got) == [("AlertRaised", "keys_exhausted", "m")]


async def test_a_feed_that_is_left_hears_no_more_and_a_forgotten_one_is_gone(
    clock: VirtualClock,
) -> None:
    alerting = Alerting(PROMPTLY, clock)
    async with alerting.feed() as feed:
        pass
    alerting.call(call("quota"))
    assert [alert async for alert in feed] == []
    forgotten = alerting.feed()
    assert len(alerting._feeds) == 1
    del forgotten
    assert len(alerting._feeds) == 0


async def test_a_box_that_is_full_loses_its_oldest_alert_and_counts_it() -> None:
    feed = AlertFeed(lambda _: None, most=2)
    told = [
        AlertRaised(
            rule=AlertRule.BREAKER_OPEN, subject=str(number), severity="critical",  # type: ignore[arg-type]
            value=1.0, threshold=1.0, at=0.0, summary="",
        )
        for number in range(5)
    ]  # fmt: skip
    for alert in told:
        feed.tell(alert)
    feed.close()
    feed.tell(told[0])
    assert [alert async for alert in feed] == told[3:]
    assert feed.dropped == 3


def test_a_callback_is_called_in_a_thread_of_its_own_until_it_is_ended(clock: VirtualClock) -> None:
    alerting, heard, thread = Alerting(PROMPTLY, clock), [], []
    done = threading.Event()

    def callback(alert: Alert) -> None:
        heard.append(alert)
        thread.append(threading.current_thread())
        done.set()

    leave = alerting.subscribe(callback)
    alerting.call(call("quota"))
    assert done.wait(SECONDS)
    assert thread != [threading.current_thread()]
    leave()
    leave()
    alerting.call(call())
    thread[0].join(SECONDS)
    assert not thread[0].is_alive()
    assert named(heard) == [("AlertRaised", "keys_exhausted", "m")]


def test_a_callback_that_raises_is_logged_and_called_again(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    alerting, heard = Alerting(PROMPTLY, clock), []
    both = threading.Event()

    def bad(alert: Alert) -> None:
        heard.append(alert)
        if len(heard) == 2:
            both.set()
        raise RuntimeError("mine")

    alerting.subscribe(bad)
    alerting.call(call("quota"))
    alerting.call(call())
    assert both.wait(SECONDS)
    alerting.close()
    assert named(heard) == [
        ("AlertRaised", "keys_exhausted", "m"),
        ("AlertCleared", "keys_exhausted", "m"),
    ]
    assert "test_a_callback_that_raises_is_logged_and_called_again.<locals>.bad raised" in caplog.text


def test_a_callback_that_hangs_keeps_nobody_else_waiting(clock: VirtualClock) -> None:
    alerting = Alerting(PROMPTLY, clock)
    release, hangs, other = threading.Event(), threading.Event(), threading.Event()

    def hanging(_: Alert) -> None:
        hangs.set()
        release.wait(SECONDS)

    alerting.subscribe(hanging)
    alerting.subscribe(lambda _: other.set())
    for _ in range(2_000):
        alerting.call(call("quota"))
        alerting.call(call())
    assert hangs.wait(SECONDS)
    assert other.wait(SECONDS)
    assert alerting._listeners[0].dropped >= 2_999, "of 4,000, one is being told and 1,000 wait"
    release.set()
    alerting.close()


def test_a_listener_that_is_closed_tells_what_waits_first() -> None:
    heard: list[Any] = []
    listener = Listener(heard.append)
    for number in range(3):
        listener.tell(number)  # type: ignore[arg-type]
    listener.close()
    listener.tell(4)  # type: ignore[arg-type]
    assert listener._thread is not None
    listener._thread.join(SECONDS)
    assert heard == [0, 1, 2]


def test_a_coroutine_function_is_refused(clock: VirtualClock) -> None:
    async def callback(alert: Alert) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        Alerting(PROMPTLY, clock).subscribe(callback)
    with pytest.raises(TypeError, match="plain function"):
        Alerting(PROMPTLY, clock).subscribe("no")  # type: ignore[arg-type]


# ── what counts ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", Kind)
def test_what_an_attempt_says_about_its_model_and_its_key(kind: Kind, clock: VirtualClock) -> None:
    """Quota and callers' mistakes say nothing; a refused key says nothing about the model."""
    alerting = Alerting(PROMPTLY, clock)
    for _ in range(2):
        alerting.attempt(attempt(kind))
    rules = {alert.rule for alert in alerting.standing()}
    nobodys = kind.name.startswith("QUOTA") or kind in (
        Kind.SUCCESS, Kind.BILLING, Kind.STORAGE, Kind.RESOURCE, Kind.BLOCKED, Kind.REQUEST, Kind.LATE,
        Kind.CANCELLED, Kind.TOO_LARGE, Kind.BREAKER_OPEN,
    )  # fmt: skip
    the_keys = kind in (Kind.BAD_KEY, Kind.KEY_MODEL, Kind.PROJECT_MODEL)
    both = {AlertRule.ERROR_RATE, AlertRule.KEY_ERROR_RATE}
    assert rules == (set() if nobodys else {AlertRule.KEY_ERROR_RATE} if the_keys else both)


async def test_money_is_counted_from_every_attempt_that_used_tokens(clock: VirtualClock) -> None:
    """Also of a stream that its reader left: it was paid for."""
    prices = {"m": Decimal("0.5")}
    alerting = Alerting(AlertRules(spend_per_hour=1.0), clock, cost=lambda model, _: prices.get(model))
    left = attempt(Kind.CANCELLED)
    alerting.attempt(structs.replace(left, estimate=Usage(5, 5)))
    alerting.attempt(attempt(usage=Usage(5, 5), model="unpriced"))
    alerting.attempt(attempt())
    assert alerting.standing() == ()
    alerting.attempt(attempt(usage=Usage(5, 5)))
    assert {(alert.subject, alert.value) for alert in alerting.standing()} == {
        ("near", 1.0),
        ("cap", 1.0),
    }


async def test_without_a_bound_for_money_nobody_asks_for_prices(clock: VirtualClock) -> None:
    def never(model: str, usage: Usage) -> Decimal:
        raise AssertionError

    Alerting(AlertRules(), clock, cost=never).attempt(attempt(usage=Usage(5, 5)))


async def test_kept_answers_and_fallbacks_do_not_say_that_keys_are_back(clock: VirtualClock) -> None:
    alerting = Alerting(PROMPTLY, clock)
    alerting.call(call("quota"))
    alerting.call(call(cached=True))
    alerting.call(call(fallback="DefaultResponse"))
    assert len(alerting.standing()) == 1
    alerting.call(call())
    assert alerting.standing() == ()


async def test_breakers_are_looked_at_where_something_went_wrong_and_until_they_close(
    clock: VirtualClock,
) -> None:
    broken: list[str] = []
    asked = []

    def states() -> list[str]:
        asked.append(clock.monotonic())
        return list(broken)

    alerting = Alerting(AlertRules(error_rate_percent=None, rearm_seconds=0.0), clock, broken=states)
    feed = alerting.feed()
    alerting.call(call())
    assert asked == [], "all is well"
    broken.append("m")
    alerting.call(call("unavailable"))
    assert named([await told_by(feed)]) == [("AlertRaised", "breaker_open", "m")]
    clock_before = clock.monotonic()
    asyncio.get_running_loop().call_later(12.0, broken.clear)
    assert named([await told_by(feed)]) == [("AlertCleared", "breaker_open", "m")]
    assert clock.monotonic() - clock_before == pytest.approx(15.0), "looked at every five seconds"
    alerting.call(call(retries=1))
    assert asked[-1] == clock.monotonic()


async def test_alerts_are_logged_at_their_level(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    alerting = Alerting(PROMPTLY, clock)
    with caplog.at_level(logging.INFO, "headgate.alerts"):
        for _ in range(2):
            alerting.attempt(attempt(Kind.SERVER))
        alerting.call(call("quota"))
        alerting.call(call())
    told = [one for one in caplog.records if one.name == "headgate.alerts"]
    assert [(one.levelname, one.getMessage()) for one in told] == [
        ("WARNING", "alert raised rule=error_rate: 100 % of the attempts with model m fail."),
        ("WARNING", "alert raised rule=key_error_rate: 100 % of the attempts with key k0 fail."),
        ("CRITICAL", "alert raised rule=keys_exhausted: No key can serve model m: calls are refused."),
        (
            "INFO",
            "alert cleared rule=keys_exhausted: Over: No key can serve model m: calls are refused.",
        ),
    ]


async def test_rules_may_change_while_it_watches(clock: VirtualClock) -> None:
    alerting = Alerting(AlertRules(enabled=False), clock)
    feed = alerting.feed()
    alerting.call(call("quota"))
    alerting.change(PROMPTLY)
    alerting.call(call("quota"))
    alerting.change(AlertRules(keys_exhausted=False))
    alerting.close()
    assert named([alert async for alert in feed]) == [
        ("AlertRaised", "keys_exhausted", "m"),
        ("AlertCleared", "keys_exhausted", "m"),
    ]
