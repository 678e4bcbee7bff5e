"""Observers: several into one, and one that writes a log."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from headgate.core.call import Call, Reply
from headgate.core.outcome import Kind
from headgate.core.ports import Observer, StageTimes
from headgate.core.records import AttemptRecord, CallRecord, WaitFor, WaitRecord
from headgate.policy.redaction import one_line
from headgate.telemetry.call_traces import TRACES

__all__ = ["LogObserver", "Observers"]

_log = logging.getLogger("headgate")

_SUCCESS, _CANCELLED = Kind.SUCCESS, Kind.CANCELLED.value  # looked up once: every call asks for them

_LEVELS: dict[str | None, int] = {None: logging.DEBUG, _CANCELLED: logging.INFO}

_STANDING = frozenset({"auth", "no_access", "egress", "resource", "tls", "quota", "storage_quota"})
"""What stays as it is until somebody acts or time passes: a thousand lines say no more than one."""

_MOST_KEYS = 10_000  # of which it is remembered what was said: names come from a configuration


class Observers:
    """Passes every fact on to each observer, in order, and to the traces of this process where
    telemetry is on. With none of them it is silent.

    An observer that raises loses its own fact and nothing else: an answer that was paid for must not
    be lost to a dashboard.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def add(self, observer: Observer) -> None:
        """Pass facts on to one more from now on; to one that hears them already, nothing changes."""
        if observer not in self._observers:
            self._observers = (*self._observers, observer)

    def begun(self, call: Call) -> Mapping[str, str] | None:
        """A call begins. Headers its upstream requests are to carry, where the user wants that."""
        if TRACES.on:
            with _contained(TRACES):
                return TRACES.begun(call)
        return None

    def timing(self, call: Call) -> StageTimes | None:
        """Who hears of the stages of a call; None where it is not traced."""
        return TRACES.timing(call) if TRACES.busy else None

    def answered(self, call: Call, reply: Reply) -> None:
        """A call was answered."""
        if TRACES.busy:
            with _contained(TRACES):
                TRACES.answered(call, reply)

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended."""
        for observer in self._observers:
            try:
                observer.attempt(record)
            except Exception as error:  # noqa: BLE001 - as `_contained`, which costs more
                _lost(observer, error)
        if TRACES.busy:
            with _contained(TRACES):
                TRACES.attempt(record)

    def waiting(self, record: WaitRecord) -> None:
        """A call starts to wait."""
        for observer in self._observers:
            try:
                observer.waiting(record)
            except Exception as error:  # noqa: BLE001 - as `_contained`, which costs more
                _lost(observer, error)
        if TRACES.busy:
            with _contained(TRACES):
                TRACES.waiting(record)

    def call(self, record: CallRecord) -> None:
        """One call ended."""
        for observer in self._observers:
            try:
                observer.call(record)
            except Exception as error:  # noqa: BLE001 - as `_contained`, which costs more
                _lost(observer, error)
        if TRACES.busy:
            with _contained(TRACES):
                TRACES.call(record)


class _contained:  # noqa: N801 - reads as a statement; a plain class costs a fifth of @contextmanager
    __slots__ = ("_observer",)

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        _lost(self._observer, error)
        return True


def _lost(observer: object, error: Exception) -> None:
    _log.error("observer %s raised %s", type(observer).__name__, type(error).__name__, exc_info=error)


class LogObserver:
    """Tells a logger what happened: rotations and waits at INFO, lost calls at WARNING or above.

    Key names only; the messages it passes on were redacted where they were read.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._no_key_left = False
        self._said: dict[str | None, str | None] = {}  # how the last call with a key ended

    def attempt(self, record: AttemptRecord) -> None:
        """Successes at DEBUG, everything else at INFO."""
        outcome = record.outcome
        level = logging.DEBUG if outcome.kind is _SUCCESS else logging.INFO
        if not self._logger.isEnabledFor(level):
            return
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
        """Successes at DEBUG, a caller that went away at INFO, failures at WARNING; the first that
        found no key left at CRITICAL, so that an alert can hang on it without hearing it a thousand
        times. A refusal that lasts is told once for its key, and again when something else came
        between; what repeats it is INFO."""
        level = _LEVELS.get(record.error, logging.WARNING)
        no_key_left = record.error in ("quota", "auth")
        if self._repeats(record):
            level = logging.INFO
        if no_key_left and not self._no_key_left:
            level = logging.CRITICAL
        if record.error is None or no_key_left:
            self._no_key_left = no_key_left
        if not self._logger.isEnabledFor(level):
            return
        self._logger.log(
            level,
            "call %s: %s on %s %s after %.1f s (%d attempts, %d rotations, %d retries, waited %.1f s)",
            record.request_id,
            record.operation.value,
            one_line(record.model),  # a caller's own word, perhaps refused for what it holds
            "answered" if record.error is None else f"failed: {record.error}",
            record.ended - record.started,
            record.attempts,
            record.rotations,
            record.retries,
            record.waited,
        )

    def _repeats(self, record: CallRecord) -> bool:
        """Whether a call failed as the last one with its key did, for a reason that lasts."""
        key, error = record.key_name, record.error
        if error == _CANCELLED:
            return False  # says nothing about the key
        repeats = error in _STANDING and self._said.get(key) == error
        if key in self._said or len(self._said) < _MOST_KEYS:
            self._said[key] = error
        return repeats
