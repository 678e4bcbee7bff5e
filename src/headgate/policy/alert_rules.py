"""Where alerts begin: the thresholds a user sets, checked whenever they are made. Pure."""

from __future__ import annotations

from msgspec import Struct

from headgate.core.alerts import AlertRule
from headgate.core.errors import ConfigurationError
from headgate.policy.alarm import Trigger

__all__ = ["CAP", "NEAR", "RATES", "SPENDS", "AlertRules", "trigger_of"]

RATES = frozenset((AlertRule.ERROR_RATE, AlertRule.KEY_ERROR_RATE))
SPENDS = frozenset((AlertRule.SPEND_HOUR, AlertRule.SPEND_DAY))

NEAR, CAP = "near", "cap"
"""The two subjects of money: a share of what may be spent, and all of it."""

_SPEND_CLEARS_AT = 0.9
"""Of its threshold: money leaves the window in the slots in which it was spent, never in a tremble."""


class AlertRules(Struct, frozen=True, forbid_unknown_fields=True):
    """Where alerts begin. None, or False, turns a rule off.

    Attributes:
        enabled: False watches nothing at all.
        error_rate_percent: of a model's attempts, failed by the upstream or on the way to it.
        key_error_rate_percent: of a key's attempts; the key's own refusals count too.
        window_seconds: over how long rates are taken.
        least_attempts: in a window, below which a rate says nothing.
        for_seconds: how long a rate must be high before it is told, and low before it is over.
        clear_share: of its threshold, below which a rate is low again.
        rearm_seconds: how long after an alert is over the same one is not raised again.
        spend_per_hour, spend_per_day: dollars, of any 60 minutes and any 24 hours.
        spend_near_percent: of those, where a warning comes before the critical alert.
        keys_exhausted: a call for a model was refused because no key could serve it.
        breaker_open: the breaker of a model is not closed.

    Raises:
        ConfigurationError: a value is outside what it takes.
    """

    enabled: bool = True
    error_rate_percent: float | None = 10.0
    key_error_rate_percent: float | None = 10.0
    window_seconds: float = 300.0
    least_attempts: int = 20
    for_seconds: float = 60.0
    clear_share: float = 0.5
    rearm_seconds: float = 300.0
    spend_per_hour: float | None = None
    spend_per_day: float | None = None
    spend_near_percent: float = 80.0
    keys_exhausted: bool = True
    breaker_open: bool = True

    def __post_init__(self) -> None:
        for name in ("enabled", "keys_exhausted", "breaker_open"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"alerts.{name} takes true or false.")
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None and name in _MAY_BE_OFF:
                continue
            good = isinstance(value, int | float) and not isinstance(value, bool)
            if not good or not least <= value <= most:
                raise ConfigurationError(
                    f"alerts.{name} takes a number from {least:g} to {most:g}"
                    f"{', or none' if name in _MAY_BE_OFF else ''}."
                )
        if not isinstance(self.least_attempts, int):
            raise ConfigurationError("alerts.least_attempts takes a whole number, 1 or more.")


_MAY_BE_OFF = frozenset(
    ("error_rate_percent", "key_error_rate_percent", "spend_per_hour", "spend_per_day")
)
_BOUNDS = {
    "error_rate_percent": (0.1, 100.0),
    "key_error_rate_percent": (0.1, 100.0),
    "window_seconds": (1.0, 86_400.0),
    "least_attempts": (1, 10**9),
    "for_seconds": (0.0, 86_400.0),
    "clear_share": (0.0, 1.0),
    "rearm_seconds": (0.0, 86_400.0),
    "spend_per_hour": (1e-9, 1e12),
    "spend_per_day": (1e-9, 1e12),
    "spend_near_percent": (1.0, 100.0),
}


def trigger_of(rules: AlertRules, rule: AlertRule, subject: str) -> Trigger | None:
    """When the alarm of a rule changes for a subject; None where the rule is off."""
    if not rules.enabled:
        return None
    if rule in RATES:
        own = rule is AlertRule.ERROR_RATE
        return _rate(rules, rules.error_rate_percent if own else rules.key_error_rate_percent)
    if rule in SPENDS:
        hour = rule is AlertRule.SPEND_HOUR
        return _spend(rules, rules.spend_per_hour if hour else rules.spend_per_day, subject)
    wanted = rules.keys_exhausted if rule is AlertRule.KEYS_EXHAUSTED else rules.breaker_open
    return Trigger(1.0, 1.0, rearm=rules.rearm_seconds) if wanted else None


def _rate(rules: AlertRules, percent: float | None) -> Trigger | None:
    if percent is None:
        return None
    # A share of 0 would never be below itself: then it is over once nothing fails any more.
    low = max(percent * rules.clear_share, 1e-9)
    return Trigger(percent, low, rules.for_seconds, rules.for_seconds, rules.rearm_seconds)


def _spend(rules: AlertRules, dollars: float | None, subject: str) -> Trigger | None:
    if dollars is None:
        return None
    bound = dollars * (rules.spend_near_percent / 100 if subject == NEAR else 1.0)
    return Trigger(bound, bound * _SPEND_CLEARS_AT, rearm=rules.rearm_seconds)
