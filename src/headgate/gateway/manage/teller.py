"""What the engines report, told to the backend's books and to listeners, once somebody manages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from headgate.core.outcome import Kind
from headgate.core.ports import Clock, Observer
from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.gateway.manage.event_views import AttemptEvent, CallEvent
from headgate.gateway.manage.feed import EventFeed, EventKind
from headgate.policy.redaction import one_line

__all__ = ["Teller"]


class Teller:
    """Tells the books of their provider, and listeners, of everything.

    Args:
        books: observers by the provider whose records they want.
    """

    def __init__(self, feed: EventFeed, books: Mapping[str, Observer], clock: Clock) -> None:
        self._feed = feed
        self._books = books
        self._clock = clock

    def attempt(self, record: AttemptRecord) -> None:
        """One attempt ended."""
        books = self._books.get(record.provider)
        if books is not None:
            books.attempt(record)
        if self._feed.wanted:
            self._feed.tell(EventKind.ATTEMPT, self._attempt(record))

    def waiting(self, record: WaitRecord) -> None:
        """Nothing: the call says how long it waited."""

    def call(self, record: CallRecord) -> None:
        """One call ended."""
        books = self._books.get(record.provider)
        if books is not None:
            books.call(record)
        if self._feed.wanted:
            self._feed.tell(EventKind.CALL, self._call(record))

    def _attempt(self, record: AttemptRecord) -> AttemptEvent:
        outcome = record.outcome
        usage = outcome.usage or record.estimate
        return AttemptEvent(
            at=self._now(),
            request_id=record.request_id,
            attempt=record.number,
            provider=record.provider,
            model=one_line(record.model),
            operation=record.operation.value,
            caller=record.caller,
            key=record.key_name,
            domain=record.domain,
            result=outcome.kind.value,
            status=outcome.status,
            message="" if outcome.kind is Kind.SUCCESS else one_line(outcome.message),
            seconds=record.ended - record.started,
            input_tokens=0 if usage is None else usage.prompt,
            output_tokens=0 if usage is None else usage.output + usage.thoughts,
        )

    def _call(self, record: CallRecord) -> CallEvent:
        return CallEvent(
            at=self._now(),
            request_id=record.request_id,
            provider=record.provider,
            model=one_line(record.model),
            operation=record.operation.value,
            caller=record.caller,
            key=record.key_name,
            error=record.error,
            attempts=record.attempts,
            retries=record.retries,
            rotations=record.rotations,
            waited=record.waited,
            seconds=record.ended - record.started,
            cached=record.cached,
            fallback=record.fallback,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall(), UTC)
