"""Observers: several into one, and one that writes a log."""

from __future__ import annotations

import logging

from headgate.core.outcome import Kind
from headgate.core.ports import Observer
from headgate.core.records import AttemptRecord, CallRecord, WaitFor, WaitRecord

__all__ = ["LogObserver", "Observers"]


class Observers:
    """Passes every fact on to each observer, in order. With none it is silent."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended."""
        for observer in self._observers:
            observer.attempt(record)

    def waiting(self, record: WaitRecord) -> None:
        """A call starts to wait."""
        for observer in self._observers:
            observer.waiting(record)

    def call(self, record: CallRecord) -> None:
        """One call ended."""
        for observer in self._observers:
            observer.call(record)


class LogObserver:
    """Tells a logger what happened: rotations and waits at INFO, lost calls at WARNING or above.

    Key names only; the messages it passes on were redacted where they were read.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._no_key_left = False

    def attempt(self, record: AttemptRecord) -> None:
        """Successes at DEBUG, everything else at INFO."""
        outcome = record.outcome
        level = logging.DEBUG if outcome.kind is Kind.SUCCESS else logging.INFO
        self._logger.log(
            level,
            "call %s: attempt %d with key %s on %s: %s in %.0f ms%s",
            record.request_id,
            record.number,
            record.key_name,
            record.model,
            outcome.kind.value,
            (record.ended - record.started) * 1000,
            f" ({outcome.message})" if outcome.message else "",
        )

    def waiting(self, record: WaitRecord) -> None:
        """How long and what for."""
        what = "for a key to recover" if record.reason is WaitFor.KEY else "before a retry"
        self._logger.info("call %s: waits %.1f s %s", record.request_id, record.seconds, what)

    def call(self, record: CallRecord) -> None:
        """Successes at DEBUG, failures at WARNING; the first that found no key left at CRITICAL, so
        that an alert can hang on it without hearing it a thousand times."""
        level = logging.DEBUG if record.error is None else logging.WARNING
        no_key_left = record.error in ("quota", "auth")
        if no_key_left and not self._no_key_left:
            level = logging.CRITICAL
        if record.error is None or no_key_left:
            self._no_key_left = no_key_left
        self._logger.log(
            level,
            "call %s: %s on %s %s after %.1f s (%d attempts, %d rotations, %d retries, waited %.1f s)",
            record.request_id,
            record.operation.value,
            record.model,
            "answered" if record.error is None else f"failed: {record.error}",
            record.ended - record.started,
            record.attempts,
            record.rotations,
            record.retries,
            record.waited,
        )
