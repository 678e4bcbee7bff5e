"""Receiving webhooks: verified on the raw bytes, in time, each event once, handlers apart.

    handler = WebhookHandler(secret="…")
    handler.register_handler("agent_run.completed", on_done)
    await handler.process(body, signature)          # or serve webhook_app(handler)

The vendor documents no webhooks: the contract is this receiver's own, and Standard Webhooks beside it.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import inspect
import json
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from headgate.codegen.errors import WebhookError
from headgate.core.ports import Clock
from headgate.policy.redaction import one_line, redact
from headgate.policy.seen import Seen
from headgate.policy.signatures import fits_bare, fits_standard
from headgate.wiring.clock import SystemClock

__all__ = ["KNOWN_EVENTS", "LARGEST_BODY", "WebhookEvent", "WebhookHandler"]

Handler: TypeAlias = Callable[["WebhookEvent"], Awaitable[Any] | Any]
Middleware: TypeAlias = Callable[["WebhookEvent"], Awaitable[Any] | Any]

KNOWN_EVENTS = ("agent_run.completed", "agent_run.failed", "github.pr.created", "error.occurred")
"""Events with an agreed name; others pass too. A handler for `*` hears all."""

LARGEST_BODY = 1024 * 1024
"""Bytes."""

TOLERANCE = 300.0
"""Seconds that a webhook's time may be off ours, either way."""

_REMEMBERED = 72 * 3600.0  # seconds an event is known, as accepted in S5-25
_MOST_REMEMBERED = 500_000
_MOST_TYPES = 100  # event types counted by name; whoever has the secret may invent any number
_ID_HEADERS = ("webhook-id", "x-webhook-id", "x-event-id", "x-github-delivery")
_SIGNATURE_HEADERS = ("x-hub-signature-256", "x-signature")

_log = logging.getLogger("headgate.codegen.webhooks")


class WebhookEvent(BaseModel):
    """An event.

    Attributes:
        timestamp: as it was sent: ISO 8601, or Unix seconds.
        signature: what it was verified by, or None.
    """

    model_config = ConfigDict(extra="allow")

    event_type: str = Field(min_length=1, max_length=200)
    timestamp: str | int | float | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    signature: str | None = Field(default=None, repr=False)


class WebhookHandler:
    """Verifies webhooks and tells whoever registered. Tasks of one event loop may share it.

    Args:
        secret: what they are signed with; `whsec_…` for Standard Webhooks.
        insecure: without a secret, accept everything. Without either, everything is refused.
        handler_timeout: seconds a handler may take.
    """

    def __init__(
        self,
        secret: str = "",
        *,
        insecure: bool = False,
        handler_timeout: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self._secret = secret
        self.insecure = insecure
        self._handler_timeout = handler_timeout
        self._clock: Clock = clock or SystemClock()
        self._handlers: dict[str, list[Handler]] = {}
        self._middleware: list[Middleware] = []
        self._seen = Seen(_REMEMBERED, most=_MOST_REMEMBERED, replayable=2 * TOLERANCE)
        self._total = self._good = self._bad = self._handler_errors = 0
        self._duplicates = self._refused = 0
        self._types: Counter[str] = Counter()

    # ── who hears ───────────────────────────────────────────────────────────────────────────────

    def register_handler(self, event_type: str, handler: Handler) -> None:
        """Tell `handler` of events of this type, `*` for all. A plain or a coroutine function."""
        if not callable(handler):
            raise TypeError(f"a handler is a function of one event; got {handler!r}")
        self._handlers.setdefault(event_type, []).append(handler)

    def unregister_handler(self, event_type: str, handler: Handler) -> bool:
        """Tell it no more. Whether it was registered."""
        handlers = self._handlers.get(event_type, [])
        if handler not in handlers:
            return False
        handlers.remove(handler)
        return True

    def register_middleware(self, middleware: Middleware) -> None:
        """Let `middleware` see each event first, in order of registration.

        It may return another event in its place. If it raises, no handler hears of the event.
        """
        self._middleware.append(middleware)

    # ── receiving ───────────────────────────────────────────────────────────────────────────────

    async def process(
        self,
        payload: bytes,
        signature: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Verify a webhook and tell its handlers.

        Args:
            payload: the body's bytes, as they came.
            signature: the bare HMAC; by default that of `headers`.
            headers: names in any case.

        Returns: `status` (processed, no_handlers or error: every handler failed), `event_type`,
            `timestamp`, `handlers_executed`, `successful_handlers`, `handler_results`, and `duplicate`:
            it had come before, and nobody was told again.

        Raises:
            WebhookError: it was refused; `status_code` is the HTTP status to answer with.
        """
        try:
            event, ids = self._verified(payload, signature, headers)
            fresh = self._seen.claim(ids, self._clock.wall())
        except WebhookError:
            self._refused += 1
            raise
        except OverflowError as error:
            self._refused += 1
            raise self._refusal(503, f"{error}; try again later") from None
        if not fresh:
            self._duplicates += 1
            return _result("processed", event, [], duplicate=True)
        kept = False
        try:
            result = await self._told(event)
            kept = result["status"] != "error"
            return result
        finally:
            if not kept:  # nobody took it in, so whoever sends it may try again
                self._seen.give_back(ids)

    def get_stats(self) -> dict[str, Any]:
        """Counts since the handler was made; `success_rate` is 0 to 100."""
        return {
            "total_events": self._total,
            "successful_events": self._good,
            "failed_events": self._bad,
            "success_rate": 100 * self._good / self._total if self._total else 0.0,
            "events_by_type": dict(self._types),
            "handler_errors": self._handler_errors,
            "registered_handlers": {
                name: len(found) for name, found in self._handlers.items() if found
            },
            "middleware_count": len(self._middleware),
            "duplicate_events": self._duplicates,
            "refused_events": self._refused,
        }

    # ── verifying ───────────────────────────────────────────────────────────────────────────────

    def _verified(
        self, payload: bytes, signature: str | None, headers: Mapping[str, str] | None
    ) -> tuple[WebhookEvent, tuple[str, ...]]:
        """The event, and the ids under which it is known. The signature comes before all reading."""
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise self._refusal(
                400,
                "the raw bytes of the body are needed: what was parsed and written again has another "
                f"signature; got {type(payload).__name__}",
            )
        body = bytes(payload)
        if len(body) > LARGEST_BODY:
            raise self._refusal(413, f"the body is larger than {LARGEST_BODY} bytes")
        known = {name.lower(): text for name, text in (headers or {}).items()}
        if signature is None:
            signature = next((known[name] for name in _SIGNATURE_HEADERS if name in known), None)
        scheme, used = self._check_signature(body, signature, known)
        event = self._read(body, used)
        if scheme == "bare":
            self._check_time(_unix(event.timestamp), event.event_type)
        return event, _ids(body, known, signed=scheme == "standard")

    def _check_signature(
        self, body: bytes, signature: str | None, headers: Mapping[str, str]
    ) -> tuple[str, str | None]:
        """How it was proved (`bare`, `standard`, or `none` where nothing has to be), and by what."""
        if not self._secret:
            if self.insecure:
                return "none", None
            raise self._refusal(
                401,
                "no secret is configured, so nothing can be verified. Set CODEGEN_WEBHOOK_SECRET, or "
                "say insecure=True to accept what anybody sends",
            )
        standard = headers.get("webhook-signature")
        if standard is not None and signature is None:
            message_id, moment = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
            if not message_id or not self._fits_standard(message_id, moment, body, standard):
                raise self._refusal(401, "the signature is wrong")
            self._check_time(_unix(moment), None)
            return "standard", standard
        if signature is None:
            raise self._refusal(401, "the signature is missing")
        if not fits_bare(self._secret, body, signature):
            raise self._refusal(401, "the signature is wrong")
        return "bare", signature

    def _fits_standard(self, message_id: str, moment: str, body: bytes, header: str) -> bool:
        try:
            return fits_standard(self._secret, message_id, moment, body, header)
        except ValueError:
            raise self._refusal(401, "the configured secret is not one of Standard Webhooks") from None

    def _check_time(self, moment: float | None, event_type: str | None) -> None:
        if moment is None:
            raise self._refusal(401, "the timestamp is missing or no time", event_type)
        if abs(self._clock.wall() - moment) > TOLERANCE:
            raise self._refusal(
                401, f"the timestamp is more than {TOLERANCE / 60:.0f} minutes off", event_type
            )

    def _read(self, body: bytes, signature: str | None) -> WebhookEvent:
        try:
            data = json.loads(body)
            if not isinstance(data, dict):
                raise ValueError(type(data).__name__)  # noqa: TRY004 - one more way to be no event
            return WebhookEvent.model_validate({**data, "signature": signature})
        except (ValueError, RecursionError):  # pydantic's error is a ValueError
            said = "the body is no event: {event_type, timestamp, data} as JSON is expected"
        raise self._refusal(400, said)

    def _refusal(self, status: int, why: str, event_type: str | None = None) -> WebhookError:
        return WebhookError(
            f"The webhook was refused: {why}.", event_type, status_code=status, at=self._clock.wall()
        )

    # ── telling ─────────────────────────────────────────────────────────────────────────────────

    async def _told(self, event: WebhookEvent) -> dict[str, Any]:
        self._total += 1
        name = event.event_type
        if name in self._types or len(self._types) < _MOST_TYPES:
            self._types[name] += 1
        else:
            self._types["other"] += 1
        results: list[dict[str, Any]] = []
        for middleware in self._middleware:
            shown, changed = await self._called(middleware, event)
            if shown["status"] == "error":
                self._bad += 1
                return _result("error", event, [shown])
            event = changed if isinstance(changed, WebhookEvent) else event
        handlers = [*self._handlers.get(event.event_type, ()), *self._handlers.get("*", ())]
        for handler in handlers:
            shown, _ = await self._called(handler, event)
            results.append(shown)
        good = sum(result["status"] == "success" for result in results)
        failed = bool(results) and not good
        self._bad, self._good = self._bad + failed, self._good + (not failed)
        status = "error" if failed else "processed" if results else "no_handlers"
        return _result(status, event, results)

    async def _called(self, handler: Handler, event: WebhookEvent) -> tuple[dict[str, Any], Any]:
        """What a handler said. Its failure is its own."""
        name = getattr(handler, "__qualname__", type(handler).__name__)
        bound = asyncio.timeout(self._handler_timeout)
        try:
            async with bound:
                answer = handler(event)
                if inspect.isawaitable(answer):
                    answer = await answer
        except builtins.TimeoutError as error:
            late = f"took longer than {self._handler_timeout:g} s" if bound.expired() else str(error)
            return self._failure(name, late, "TimeoutError"), None
        except Exception as error:  # noqa: BLE001 - isolation is the point
            said = one_line(redact(str(error), self._secret))
            return self._failure(name, said, type(error).__name__), None
        return {"handler": name, "status": "success", "result": answer}, answer

    def _failure(self, name: str, said: str, error_type: str) -> dict[str, Any]:
        self._handler_errors += 1
        _log.warning("webhook handler %s failed: %s: %s", name, error_type, said)
        return {"handler": name, "status": "error", "error": said, "error_type": error_type}


def _result(
    status: str, event: WebhookEvent, results: list[dict[str, Any]], *, duplicate: bool = False
) -> dict[str, Any]:
    return {
        "status": status,
        "event_type": event.event_type,
        "timestamp": event.timestamp,
        "handlers_executed": len(results),
        "successful_handlers": sum(result["status"] == "success" for result in results),
        "handler_results": results,
        "duplicate": duplicate,
    }


def _ids(body: bytes, headers: Mapping[str, str], *, signed: bool) -> tuple[str, ...]:
    """What an event is known by: its id where the signature covers it.

    Elsewhere anybody may change the id, so the body's hash counts beside it: a copy under another id is
    a copy, and so is a new attempt with another time.
    """
    if signed:
        return (f"id:{hashlib.sha256(headers['webhook-id'].encode()).hexdigest()[:32]}",)
    digest = f"body:{hashlib.sha256(body).hexdigest()[:32]}"
    names = (headers[name].strip() for name in _ID_HEADERS if name in headers)
    given = next(filter(None, names), None)
    if given is None:
        return (digest,)
    return digest, f"id:{hashlib.sha256(given.encode('utf-8', 'replace')).hexdigest()[:32]}"


def _unix(moment: object) -> float | None:
    """A moment as Unix seconds, or None where it is none. Without a zone it is UTC."""
    if isinstance(moment, bool) or moment is None:
        return None
    try:
        seconds = float(moment) if not isinstance(moment, str) else _from_text(moment.strip())  # type: ignore[arg-type] # then TypeError
    except (ValueError, OverflowError, TypeError):
        return None
    return seconds if math.isfinite(seconds) else None


def _from_text(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
