"""What a client says in the log, and what it counts: one observer for both.

Lines go to the logger `headgate.codegen`, at `log_level` and above; each carries its fields once more
as `record.codegen`, for structured handlers. Bodies are logged only with `log_sensitive_data`, and a
token not even then.
"""

from __future__ import annotations

import logging
from typing import Any

from headgate.codegen.config import ClientConfig
from headgate.codegen.measures import Measures
from headgate.core.outcome import Kind
from headgate.core.resource import ResourceCall, ResourceRecord
from headgate.policy.redaction import one_line, redact

__all__ = ["Talk"]

_log = logging.getLogger("headgate.codegen")
_LONGEST_BODY = 2_000  # characters


class Talk:
    """Hears attempts; logs and counts what the configuration asks for, as it stands at that moment."""

    def __init__(self, config: ClientConfig, measures: Measures) -> None:
        self._config = config
        self._measures = measures

    def sending(self, call: ResourceCall, number: int) -> None:
        """An attempt leaves."""
        if self._config.log_requests:
            fields = {
                "endpoint": call.endpoint.name,
                "method": call.endpoint.method,
                "attempt": number,
                "request_id": call.request_id,
            }
            self._say(logging.INFO, "request", fields)

    def attempt(self, record: ResourceRecord) -> None:
        """One attempt ended, or a kept answer was given."""
        if self._config.enable_metrics:
            self._measures.attempt(record)
        failed = record.kind not in (Kind.SUCCESS, Kind.CANCELLED)
        if not (self._config.log_responses or failed):
            return
        fields = {
            "endpoint": record.endpoint,
            "status": record.status,
            "kind": record.kind.value,
            "ms": round((record.ended - record.started) * 1000, 1),
            "waited_s": round(record.waited, 3),
            "attempt": record.number,
            "cached": record.kept,
            "request_id": record.request_id,
        }
        self._say(logging.WARNING if failed else logging.INFO, "response", fields)

    def body(self, call: ResourceCall, request: bytes, reply: bytes) -> None:
        """What was said, for those who log it."""
        if not self._config.log_sensitive_data:
            return
        wanted = (
            ("request body", request, self._config.log_requests),
            ("response body", reply, self._config.log_responses),
        )
        for name, text, asked in wanted:
            if text and asked:
                shown = redact(
                    text.decode("utf-8", "replace"),
                    self._config.api_token,
                    self._config.webhook_secret,
                    limit=_LONGEST_BODY,
                )
                fields = {"request_id": call.request_id, "body": one_line(shown)}
                self._say(logging.INFO, name, fields)

    def _say(self, level: int, what: str, fields: dict[str, Any]) -> None:
        floor = logging.DEBUG if self._config.debug_mode else getattr(logging, self._config.log_level)
        if level >= floor and _log.isEnabledFor(level):
            shown = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
            _log.log(level, "codegen %s %s", what, shown, extra={"codegen": fields})
