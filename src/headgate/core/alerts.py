"""Alerts: what a watch over the engine has to say, once when it begins and once when it is over.

An alert is about one rule and one subject: the error rate of one model, what was spent in an hour. No
prompt and no key stands in one.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

__all__ = ["Alert", "AlertCleared", "AlertRaised", "AlertRule", "AlertSeverity"]


class AlertRule(StrEnum):
    """What is watched, and what its subject and value are."""

    ERROR_RATE = "error_rate"  # a model; percent of its attempts that failed
    KEY_ERROR_RATE = "key_error_rate"  # a key, by name; percent of its attempts that failed
    SPEND_HOUR = "spend_hour"  # "near" or "cap"; dollars of the last hour
    SPEND_DAY = "spend_day"  # "near" or "cap"; dollars of the last 24 hours
    KEYS_EXHAUSTED = "keys_exhausted"  # a model; calls refused because no key could serve them
    BREAKER_OPEN = "breaker_open"  # a model; 1 while its breaker is not closed


class AlertSeverity(StrEnum):
    """How urgent it is."""

    WARNING = "warning"  # somebody should look today
    CRITICAL = "critical"  # callers are refused, or money runs out


class AlertRaised(Struct, frozen=True, kw_only=True):
    """It begins.

    Attributes:
        rule: what was watched.
        subject: of what: the name of a model or a key, or which of two thresholds.
        severity: how urgent it is.
        value: what was seen, in the rule's unit.
        threshold: where the alert begins, in the same unit.
        at: Unix time.
        summary: a sentence for a person.
    """

    rule: AlertRule
    subject: str
    severity: AlertSeverity
    value: float
    threshold: float
    at: float
    summary: str


class AlertCleared(Struct, frozen=True, kw_only=True):
    """It is over.

    Attributes:
        rule, subject, severity: those of the alert that was raised.
        value: what is seen now, in the rule's unit.
        raised_at: when it began, Unix time.
        at: Unix time.
        seconds: how long it stood, by a clock that does not step.
        summary: a sentence for a person.
    """

    rule: AlertRule
    subject: str
    severity: AlertSeverity
    value: float
    raised_at: float
    at: float
    seconds: float
    summary: str


Alert = AlertRaised | AlertCleared
"""What a subscriber gets."""
