"""An observer that watches for what deserves an alert, and tells those who want to hear of it.

It looks when attempts and calls end. What changes by the passing of time alone – a rate that was high
for long enough, an alert that is over because nothing happens any more – is looked at by a timer of the
event loop that runs calls; where none runs any more, the next call does it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from threading import Lock
from weakref import WeakSet

from headgate.core.alerts import Alert, AlertRaised, AlertRule, AlertSeverity
from headgate.core.call import Usage
from headgate.core.outcome import Kind
from headgate.core.ports import Clock
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.policy.alert_rules import AlertRules
from headgate.policy.alerts import NANODOLLARS, AlertWatch
from headgate.policy.redaction import one_line
from headgate.telemetry.alert_feed import AlertFeed, Listener

__all__ = ["Alerting"]

_log = logging.getLogger("headgate.alerts")

_LEVELS = {AlertSeverity.WARNING: logging.WARNING, AlertSeverity.CRITICAL: logging.CRITICAL}

# What says nothing about whether a model or a key works: the caller's own mistakes, quota that is used
# up (which has a rule of its own), and attempts that were given up.
_SAYS_NOTHING = frozenset({
    *(kind for kind in Kind if kind.name.startswith("QUOTA_")),
    Kind.BILLING, Kind.STORAGE, Kind.RESOURCE, Kind.BLOCKED, Kind.REQUEST, Kind.TOO_LARGE, Kind.LATE,
    Kind.BREAKER_OPEN, Kind.CANCELLED,
})  # fmt: skip
_OF_THE_KEY = frozenset((Kind.BAD_KEY, Kind.KEY_MODEL, Kind.PROJECT_MODEL))
_NO_KEY = frozenset(("quota", "auth"))
_NEVER = float("inf")


class Alerting:
    """Watches one engine after another. Threads and event loops may share it.

    Args:
        cost: dollars of what a model used; None where no price is known.
        broken: the models whose breakers are not closed.
    """

    def __init__(
        self,
        rules: AlertRules,
        clock: Clock,
        *,
        cost: Callable[[str, Usage], Decimal | None] = lambda _model, _usage: None,
        broken: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._watch = AlertWatch(rules)
        self._clock = clock
        self._cost = cost
        self.broken = broken
        self._lock = Lock()
        self._listeners: list[Listener] = []
        self._feeds: WeakSet[AlertFeed] = WeakSet()
        self._armed = float("-inf")  # monotonic seconds at which a timer will look
        self._closed = False

    # ── what happens ────────────────────────────────────────────────────────────────────────────

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended: rates of its model and its key, and what it cost."""
        outcome = record.outcome
        kind, watch = outcome.kind, self._watch
        if not watch.rules.enabled:
            return
        now, wall = self._clock.monotonic(), self._clock.wall()
        alerts: list[Alert] = []
        with self._lock:
            good = kind is Kind.SUCCESS
            if good or kind not in _SAYS_NOTHING:
                if good or kind not in _OF_THE_KEY:
                    rule = AlertRule.ERROR_RATE
                    alerts += watch.attempt(rule, record.model, now, wall, good=good)
                rule = AlertRule.KEY_ERROR_RATE
                alerts += watch.attempt(rule, record.key_name, now, wall, good=good)
            usage = record.estimate or outcome.usage
            if usage is not None and watch.counts_money:
                cost = self._cost(record.model, usage)
                if cost is not None:
                    alerts += watch.spent(int(cost * NANODOLLARS), now, wall)
        if alerts or watch.due < _NEVER:
            self._told(alerts)

    def waiting(self, record: WaitRecord) -> None:
        """Nothing: waiting is no trouble."""

    def call(self, record: CallRecord) -> None:
        """One call ended: whether it found a key, and whether a breaker changed."""
        watch = self._watch
        if record.cached or not watch.rules.enabled:
            return
        now, wall = self._clock.monotonic(), self._clock.wall()
        alerts: list[Alert] = []
        with self._lock:
            if record.error in _NO_KEY:
                alerts += watch.refused(one_line(record.model)[:200], now, wall)
            elif record.error is None and record.fallback is None:
                alerts += watch.served(record.model, now, wall)
            troubled = record.error is not None or record.retries or record.fallback is not None
            if watch.rules.breaker_open and (troubled or watch.breaker_stands):
                alerts += watch.breakers(self.broken(), now, wall)
        if alerts or watch.due < _NEVER:
            self._told(alerts)

    # ── who hears of it ─────────────────────────────────────────────────────────────────────────

    def subscribe(self, callback: Callable[[Alert], object]) -> Callable[[], None]:
        """Call back with every alert from now on, in a thread of the callback's own.

        Returns:
            What ends it; to be called any number of times.

        Raises:
            TypeError: the callback is a coroutine function, whose result nobody would await.
        """
        given: object = callback
        if not callable(given) or inspect.iscoroutinefunction(given):
            raise TypeError("on_alert takes a plain function; in a coroutine iterate over the alerts.")
        listener = Listener(callback)
        with self._lock:
            self._listeners.append(listener)

        def leave() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)
            listener.close()

        return leave

    def feed(self) -> AlertFeed:
        """Every alert from now on, to iterate over."""
        feed = AlertFeed(self._left)
        with self._lock:
            self._feeds.add(feed)
            closed = self._closed
        if closed:
            feed.close()
        return feed

    def standing(self) -> tuple[AlertRaised, ...]:
        """What was raised and is not over, the oldest first."""
        self._look()
        with self._lock:
            return self._watch.standing()

    def change(self, rules: AlertRules) -> None:
        """Other rules from now on; alerts of rules that are off now are over."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        with self._lock:
            if rules == self._watch.rules:
                return
            alerts = self._watch.change(rules, now, wall)
        self._told(alerts)

    def close(self) -> None:
        """Tell what waits, then let everybody go. Watching goes on; nobody hears of it."""
        with self._lock:
            self._closed = True
            listeners, self._listeners = self._listeners, []
            feeds = list(self._feeds)
            self._feeds.clear()
        for ear in _ears(listeners, feeds):
            ear.close()

    # ── inside ──────────────────────────────────────────────────────────────────────────────────

    def _left(self, feed: AlertFeed) -> None:
        with self._lock:
            self._feeds.discard(feed)

    def _look(self) -> None:
        """Time has passed."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        with self._lock:
            alerts = self._watch.tick(now, wall)
            if self._watch.breaker_stands:
                alerts += self._watch.breakers(self.broken(), now, wall)
        self._told(alerts)

    def _told(self, alerts: list[Alert]) -> None:
        if alerts:
            with self._lock:
                ears = _ears(self._listeners, self._feeds)
            for alert in alerts:
                raised = isinstance(alert, AlertRaised)
                level = _LEVELS[alert.severity] if raised else logging.INFO
                what = "raised" if raised else "cleared"
                _log.log(level, "alert %s rule=%s: %s", what, alert.rule.value, alert.summary)
                for ear in ears:
                    ear.tell(alert)
        self._arm()

    def _arm(self) -> None:
        """See to it that somebody looks when that is due."""
        due = self._watch.due
        if due == _NEVER or self._closed:
            return
        now = self._clock.monotonic()
        if now < self._armed <= due:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the next call will look
        self._armed = max(due, now)
        loop.call_later(max(0.0, due - now), self._rung)

    def _rung(self) -> None:
        self._armed = float("-inf")
        self._look()


def _ears(listeners: Iterable[Listener], feeds: Iterable[AlertFeed]) -> list[Listener | AlertFeed]:
    return [*listeners, *feeds]
