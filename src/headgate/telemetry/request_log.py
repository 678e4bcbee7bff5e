"""What a backend says of its requests in the log, as its configuration asks for at that moment.

Every line names the request it is about, and carries its fields once more as `record.headgate`, for
handlers that write JSON. Prompts are never logged; texts of replies only where that is asked for; keys
never. Of what repeats itself – the same failure of the same model with the same key – one line a minute
is told at its level, with how many were like it; the others are told at DEBUG.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Protocol

from headgate.core.call import Blob, Call
from headgate.core.errors import HeadgateError
from headgate.core.outcome import Kind
from headgate.core.ports import Clock
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.policy.excerpt import excerpt
from headgate.policy.redaction import Redactor
from headgate.policy.repeats import Repeats

__all__ = ["LogRules", "RequestLog"]

_MOST_MESSAGE = 500  # characters of what an upstream says about a failure
_MOST_NAME = 200  # characters of a model's name, which callers choose
_BEYOND = 2_000  # characters of a text that are searched although they are not shown
_NO_KEY = frozenset(("quota", "auth"))


class LogRules(Protocol):
    """What is logged; the backend's `LoggingConfig`."""

    @property
    def log_requests(self) -> bool: ...  # noqa: D102 - LoggingConfig describes them
    @property
    def log_responses(self) -> bool: ...  # noqa: D102
    @property
    def log_errors(self) -> bool: ...  # noqa: D102
    @property
    def log_performance(self) -> bool: ...  # noqa: D102
    @property
    def sanitize_sensitive_data(self) -> bool: ...  # noqa: D102
    @property
    def max_response_length(self) -> int: ...  # noqa: D102


class RequestLog:
    """An observer that logs, and what the door tells it besides. Threads may share it.

    Args:
        logger: where lines go.
        name: the first word of each line.
        rules: what is logged at that moment.
        secrets: the keys in use, to be taken out of texts.
    """

    def __init__(
        self,
        logger: logging.Logger,
        name: str,
        clock: Clock,
        rules: Callable[[], LogRules],
        secrets: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._logger = logger
        self._name = name
        self._clock = clock
        self._rules = rules
        self._secrets = secrets
        self._lock = Lock()
        self._known: tuple[tuple[str, ...], Redactor] = ((), Redactor())
        self._repeats = Repeats()
        self._no_key_left = False

    # ── told by the door ────────────────────────────────────────────────────────────────────────

    def asked(self, call: Call) -> None:
        """A request begins. Sizes only: nothing of what it says."""
        if not self._rules().log_requests or not self._logger.isEnabledFor(logging.INFO):
            return
        fields: dict[str, object] = {
            "operation": call.operation.value,
            "model": self._safe(call.model, _MOST_NAME),
            "characters": sum(len(part) for part in call.parts if isinstance(part, str)),
            "media": sum(isinstance(part, Blob) for part in call.parts) or None,
            "turns": len(call.turns) or None,
            "priority": call.priority.value,
        }
        self._say(logging.INFO, "request", call.request_id, fields)

    def replied(
        self,
        request_id: str,
        model: str,
        text: str,
        finish_reason: str | None,
        own_key: str | None = None,
    ) -> None:
        """A request was answered with a text.

        Args:
            own_key: the caller's own key, if one was used: it is taken out like the others.
        """
        rules = self._rules()
        if not rules.log_responses or not self._logger.isEnabledFor(logging.INFO):
            return
        most, size = rules.max_response_length, len(text)
        if own_key is not None:
            text = Redactor((own_key,))(text[: most + _BEYOND])
        fields: dict[str, object] = {
            "model": self._safe(model, _MOST_NAME),
            "characters": size,
            "finish_reason": finish_reason,
            "text": self._safe(text, most, personal=rules.sanitize_sensitive_data),
        }
        self._say(logging.INFO, "response", request_id, fields)

    def refused(self, call: Call, error: HeadgateError) -> None:
        """A request failed before it entered the path, so that no record tells of it."""
        if self._rules().log_errors:
            fields: dict[str, object] = {
                "model": self._safe(call.model, _MOST_NAME),
                "error": error.kind,
                "message": self._safe(error.message, _MOST_MESSAGE),
            }
            like = ("refused", error.kind, call.model)
            self._failed(logging.WARNING, "failed", call.request_id, fields, like)

    # ── heard from the engine ───────────────────────────────────────────────────────────────────

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended. A success is told at DEBUG."""
        kind = record.outcome.kind
        good = kind is Kind.SUCCESS
        rules = self._rules()
        level = logging.DEBUG if good else logging.INFO
        wanted = rules.log_performance if good else rules.log_errors
        if not wanted or not self._logger.isEnabledFor(level):
            return
        fields: dict[str, object] = {
            "attempt": record.number,
            "key": record.key_name,
            "model": record.model,
            "kind": kind.value,
            "status": record.outcome.status,
            "ms": round((record.ended - record.started) * 1000, 1),
            "upstream_id": record.outcome.upstream_id,
        }
        if good:
            self._say(level, "attempt", record.request_id, fields)
            return
        fields["message"] = self._safe(record.outcome.message, _MOST_MESSAGE) or None
        like = ("attempt", kind, record.key_name, record.model)
        self._failed(level, "attempt", record.request_id, fields, like)

    def waiting(self, record: WaitRecord) -> None:
        """A call waits, for a key or before a retry."""
        if self._rules().log_performance and self._logger.isEnabledFor(logging.INFO):
            fields: dict[str, object] = {
                "reason": record.reason.value,
                "seconds": round(record.seconds, 3),
            }
            self._say(logging.INFO, "wait", record.request_id, fields)

    def call(self, record: CallRecord) -> None:
        """One call ended. The first that finds no key left is CRITICAL, so that an alarm can hang on it
        without hearing it a thousand times; a caller that went away is INFO."""
        rules = self._rules()
        first = False
        if record.error is None or record.error in _NO_KEY:
            exhausted = record.error is not None
            first, self._no_key_left = exhausted and not self._no_key_left, exhausted
        if record.error is None:
            if rules.log_performance and self._logger.isEnabledFor(logging.INFO):
                self._say(logging.INFO, "answered", record.request_id, self._took(record))
            return
        if not rules.log_errors:
            return
        fields = {"error": record.error, **self._took(record)}
        if first:
            self._say(logging.CRITICAL, "failed", record.request_id, fields)
            return
        level = logging.INFO if record.error == Kind.CANCELLED.value else logging.WARNING
        like = ("call", record.error, record.key_name, record.model)
        self._failed(level, "failed", record.request_id, fields, like)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────

    def _took(self, record: CallRecord) -> dict[str, object]:
        usage, seconds = record.usage, record.ended - record.started
        spoken = usage.output + usage.thoughts
        answering = seconds - record.waited
        return {
            "operation": record.operation.value,
            "model": self._safe(record.model, _MOST_NAME),
            "key": record.key_name,
            "ms": round(seconds * 1000, 1),
            "waited_ms": round(record.waited * 1000, 1) or None,
            "attempts": record.attempts,
            "rotations": record.rotations or None,
            "retries": record.retries or None,
            "input_tokens": usage.prompt or None,
            "output_tokens": spoken or None,
            "tokens_per_second": round(spoken / answering, 1) if spoken and answering > 0 else None,
            "cached": record.cached or None,
            "fallback": record.fallback,
        }

    def _failed(
        self,
        level: int,
        what: str,
        request_id: str,
        fields: dict[str, object],
        like: tuple[object, ...],
    ) -> None:
        with self._lock:
            left_out = self._repeats.hear(like, self._clock.monotonic())
        if left_out is None:
            level = logging.DEBUG
        elif left_out:
            fields["like_it"] = left_out
        if self._logger.isEnabledFor(level):
            self._say(level, what, request_id, fields)

    def _say(self, level: int, what: str, request_id: str, fields: dict[str, object]) -> None:
        told: dict[str, object] = {"request_id": request_id}
        told |= {name: value for name, value in fields.items() if value is not None}
        shown = " ".join(f"{name}={_value(value)}" for name, value in told.items())
        self._logger.log(level, "%s %s %s", self._name, what, shown, extra={"headgate": told})

    def _safe(self, text: str, most: int, *, personal: bool = True) -> str:
        return excerpt(text, most, self._redactor(), personal=personal)

    def _redactor(self) -> Redactor:
        secrets = tuple(self._secrets())
        with self._lock:
            if self._known[0] != secrets:
                self._known = (secrets, Redactor(secrets))
            return self._known[1]


def _value(value: object) -> str:
    """As it stands behind `name=`: whoever splits a line at its spaces finds whole values."""
    text = str(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(" =\"'\\")
    return text if plain and text else json.dumps(text, ensure_ascii=False)
