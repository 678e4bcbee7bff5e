"""What deserves an alert: rules over what happens to attempts and calls. Pure.

`AlertWatch` counts, and gives an alert when a rule begins to hold and when it no longer does. Only what
was touched is looked at when something happens; what changes by the mere passing of time is looked at
in `tick`, at the times that `due` names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from headgate.core.alerts import Alert, AlertCleared, AlertRaised, AlertRule, AlertSeverity
from headgate.policy.alarm import Alarm, Rolling, Trigger, Turn
from headgate.policy.alert_rules import CAP, NEAR, RATES, SPENDS, AlertRules, trigger_of

__all__ = ["NANODOLLARS", "AlertWatch"]

NANODOLLARS = 10**9
"""Of a dollar: money is added up in whole numbers, so that what leaves a window leaves nothing
behind."""

_MOST_SUBJECTS = 2_000  # callers name models: a bound for what is remembered of them
_SLOTS = 10
_HOUR, _HOUR_SLOTS = 3_600.0, 60
_DAY, _DAY_SLOTS = 86_400.0, 96

_EVERY = {AlertRule.BREAKER_OPEN: 5.0}
"""Seconds: how often an open breaker is looked at while no call tells of it."""


class _Line:
    """One rule of one subject: its alarm, and where its value comes from."""

    __slots__ = (
        "alarm", "every", "rolling", "rule", "severity",
        "standing", "stood_from", "subject", "until", "value",
    )  # fmt: skip

    def __init__(
        self, rule: AlertRule, subject: str, trigger: Trigger, rolling: Rolling | None
    ) -> None:
        self.rule = rule
        self.subject = subject
        self.alarm = Alarm(trigger)
        self.severity = _severity(rule, subject)
        self.rolling = rolling
        self.value = 0.0  # of a rule without a window
        self.until = float("inf")  # after which that value is nobody's any more
        self.every = _EVERY.get(rule, float("inf")) if rolling is None else rolling.width
        self.standing: AlertRaised | None = None
        self.stood_from = 0.0

    def read(self, least: int, now: float) -> float:
        if self.rolling is None:
            return self.value if now < self.until else 0.0
        part, whole = self.rolling.read(now)
        if self.rule in SPENDS:
            return part / NANODOLLARS
        return 100.0 * part / whole if whole >= least else 0.0

    def idle(self, now: float) -> bool:
        empty = not self.read(1, now) if self.rolling is None else self.rolling.read(now) == (0, 0)
        return empty and self.alarm.rests(now)

    def due(self, now: float) -> float | None:
        """When to look again although nothing happened; None: there is no need."""
        ripe = self.alarm.due()
        if ripe is not None:
            return ripe
        if self.alarm.raised_at is None:
            return None
        return min(now + self.every, max(self.until, now))


class AlertWatch:
    """Counts and judges. Not locked: whoever shares it between threads locks around it.

    `now` is in monotonic seconds, `wall` is Unix time, everywhere.

    Attributes:
        due: when `tick` should be called next; infinite where there is no need.
    """

    def __init__(self, rules: AlertRules) -> None:
        self.rules = rules
        self.due = float("inf")
        self._lines: dict[tuple[AlertRule, str], _Line] = {}
        self._awake: dict[tuple[AlertRule, str], _Line] = {}
        self._forget_after = float("-inf")
        # The same lines by their subject alone: the hash of a rule costs more than all of the counting.
        self._of_models: dict[str, _Line] = {}
        self._of_keys: dict[str, _Line] = {}
        self._spent = {
            AlertRule.SPEND_HOUR: Rolling(_HOUR, _HOUR_SLOTS),
            AlertRule.SPEND_DAY: Rolling(_DAY, _DAY_SLOTS),
        }

    @property
    def counts_money(self) -> bool:
        """Whether anybody wants to know what was spent."""
        return self.rules.enabled and (
            self.rules.spend_per_hour is not None or self.rules.spend_per_day is not None
        )

    def standing(self) -> tuple[AlertRaised, ...]:
        """What was raised and is not over, the oldest first."""
        raised = [line.standing for line in self._awake.values() if line.standing is not None]
        return tuple(sorted(raised, key=lambda alert: alert.at))

    # ── what happened ───────────────────────────────────────────────────────────────────────────

    def attempt(
        self, rule: AlertRule, subject: str, now: float, wall: float, *, good: bool
    ) -> list[Alert]:
        """One attempt with a model or a key ended, for `ERROR_RATE` and `KEY_ERROR_RATE`."""
        known = self._of_models if rule is AlertRule.ERROR_RATE else self._of_keys
        line = known.get(subject)
        if line is None:
            line = self._line(rule, subject, now)
            if line is None:
                return []
            known[subject] = line
        assert line.rolling is not None  # noqa: S101 - it is of a rate
        line.rolling.add(not good, 1, now)
        if good and not line.rolling.part and line.standing is None:
            return []  # so it is with almost every attempt there is
        return self._look((line,), now, wall)

    def spent(self, nanodollars: int, now: float, wall: float) -> list[Alert]:
        """Money was spent."""
        lines = []
        for rule, rolling in self._spent.items():
            rolling.add(nanodollars, 0, now)
            lines += [line for name in _LEVELS if (line := self._line(rule, name, now)) is not None]
        return self._look(lines, now, wall)

    def refused(self, model: str, now: float, wall: float) -> list[Alert]:
        """A call was refused because no key could serve it."""
        line = self._line(AlertRule.KEYS_EXHAUSTED, model, now)
        if line is None:
            return []
        line.value = line.value + 1 if now < line.until else 1.0
        line.until = now + self.rules.window_seconds
        return self._look((line,), now, wall)

    def served(self, model: str, now: float, wall: float) -> list[Alert]:
        """A call was answered by the upstream."""
        line = self._awake.get((AlertRule.KEYS_EXHAUSTED, model))
        if line is None:
            return []
        line.value = 0.0
        return self._look((line,), now, wall)

    def breakers(self, broken: Collection[str], now: float, wall: float) -> list[Alert]:
        """The models whose breakers are not closed, all of them."""
        lines = []
        for model in broken:
            line = self._line(AlertRule.BREAKER_OPEN, model, now)
            if line is not None:
                line.value = 1.0
                lines.append(line)
        for (rule, model), line in self._awake.items():
            if rule is AlertRule.BREAKER_OPEN and model not in broken:
                line.value = 0.0
                lines.append(line)
        return self._look(lines, now, wall)

    @property
    def breaker_stands(self) -> bool:
        """Whether some breaker is known not to be closed."""
        return any(rule is AlertRule.BREAKER_OPEN for rule, _ in self._awake)

    def tick(self, now: float, wall: float) -> list[Alert]:
        """Time has passed: look at all that may change by that alone."""
        self.due = float("inf")
        return self._look(list(self._awake.values()), now, wall)

    def change(self, rules: AlertRules, now: float, wall: float) -> list[Alert]:
        """Other rules from now on. What was counted still counts, unless windows have another
        length."""
        alerts: list[Alert] = []
        anew = rules.window_seconds != self.rules.window_seconds
        self.rules = rules
        self._of_models.clear()
        self._of_keys.clear()
        for name, line in list(self._lines.items()):
            trigger = trigger_of(rules, line.rule, line.subject)
            if trigger is None:
                del self._lines[name]
                self._awake.pop(name, None)
                if line.standing is not None:
                    alerts.append(_cleared(line, line.read(rules.least_attempts, now), now, wall))
                continue
            line.alarm.trigger = trigger
            if anew and line.rolling is not None and line.rule not in SPENDS:
                line.rolling = Rolling(rules.window_seconds, _SLOTS)
                line.every = line.rolling.width
        self.due = float("inf")
        return alerts + self._look(list(self._awake.values()), now, wall)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────

    def _line(self, rule: AlertRule, subject: str, now: float) -> _Line | None:
        line = self._lines.get((rule, subject))
        if line is not None:
            return line
        trigger = trigger_of(self.rules, rule, subject)
        if trigger is None:
            return None
        if len(self._lines) >= _MOST_SUBJECTS and not self._forget(now):
            return None
        rolling = self._spent.get(rule)
        if rolling is None and rule in RATES:
            rolling = Rolling(self.rules.window_seconds, _SLOTS)
        line = self._lines[rule, subject] = _Line(rule, subject, trigger, rolling)
        return line

    def _forget(self, now: float) -> bool:
        """Drop what rests and has seen nothing for a window; whether there was any. Not too often: it
        looks at all of them."""
        if now < self._forget_after:
            return False
        self._forget_after = now + self.rules.window_seconds / _SLOTS
        idle = [name for name, line in self._lines.items() if line.idle(now)]
        self._of_models.clear()
        self._of_keys.clear()
        for name in idle:
            del self._lines[name]
        return bool(idle)

    def _look(self, lines: Iterable[_Line], now: float, wall: float) -> list[Alert]:
        alerts: list[Alert] = []
        for line in lines:
            value = line.read(self.rules.least_attempts, now)
            turn = line.alarm.see(value, now)
            if turn is Turn.RAISED:
                line.standing, line.stood_from = _raised(line, value, wall), now
                alerts.append(line.standing)
            elif turn is Turn.CLEARED:
                alerts.append(_cleared(line, value, now, wall))
            due = line.due(now)
            if due is None:
                self._awake.pop((line.rule, line.subject), None)
            else:
                self._awake[line.rule, line.subject] = line
                self.due = min(self.due, due)
        return alerts


_LEVELS = (NEAR, CAP)


def _severity(rule: AlertRule, subject: str) -> AlertSeverity:
    if rule in RATES or subject == NEAR:
        return AlertSeverity.WARNING
    return AlertSeverity.CRITICAL


def _raised(line: _Line, value: float, wall: float) -> AlertRaised:
    return AlertRaised(
        rule=line.rule,
        subject=line.subject,
        severity=line.severity,
        value=value,
        threshold=line.alarm.trigger.raise_at,
        at=wall,
        summary=_sentence(line, value),
    )


def _cleared(line: _Line, value: float, now: float, wall: float) -> AlertCleared:
    raised, line.standing = line.standing, None
    assert raised is not None  # noqa: S101 - what is cleared was raised
    return AlertCleared(
        rule=line.rule,
        subject=line.subject,
        severity=line.severity,
        value=value,
        raised_at=raised.at,
        at=wall,
        seconds=now - line.stood_from,
        summary=f"Over: {raised.summary}",
    )


def _sentence(line: _Line, value: float) -> str:
    bound = line.alarm.trigger.raise_at
    match line.rule:
        case AlertRule.ERROR_RATE:
            return f"{value:.0f} % of the attempts with model {line.subject} fail."
        case AlertRule.KEY_ERROR_RATE:
            return f"{value:.0f} % of the attempts with key {line.subject} fail."
        case AlertRule.SPEND_HOUR:
            return f"${value:,.2f} were spent within an hour; the alert begins at ${bound:,.2f}."
        case AlertRule.SPEND_DAY:
            return f"${value:,.2f} were spent within 24 hours; the alert begins at ${bound:,.2f}."
        case AlertRule.KEYS_EXHAUSTED:
            return f"No key can serve model {line.subject}: calls are refused."
        case AlertRule.BREAKER_OPEN:
            return f"The breaker of model {line.subject} is open: calls to it are refused at once."
