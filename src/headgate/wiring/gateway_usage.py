"""The usage ledger of the gateway and of `headgate ask`: a row for each attempt, written off the path
of calls.

It is the ledger that a backend of the same user keeps, so `headgate usage` sums both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from headgate.core.errors import ConfigurationError
from headgate.core.outcome import Outcome
from headgate.core.ports import Clock, Observer
from headgate.core.usage import UsageStore
from headgate.telemetry.usage_notes import UsageNotes
from headgate.telemetry.usage_rows import Words
from headgate.telemetry.usage_writer import UsageWriter
from headgate.wiring.model_data import gemini_prices
from headgate.wiring.usage import UsagePlace, costs_of, usage_place

__all__ = ["GatewayUsage", "open_usage"]

T = TypeVar("T")

Watched = Callable[[UsageStore], UsageStore]

_log = logging.getLogger("headgate.usage")

_FLUSH_SECONDS = 5.0
"""The longest a question waits until what was told is in the ledger."""


class GatewayUsage:
    """Notes what the engines report, and writes it from a thread of its own.

    Args:
        place: where the ledger is; one that keeps nothing is refused by `open_usage`.
        kept_days: how long rows are kept.
        watched: the same store, with a watch on it.

    Attributes:
        place: as given.
    """

    def __init__(
        self, place: UsagePlace, clock: Clock, kept_days: float, watched: Watched = lambda store: store
    ) -> None:
        self.place = place
        self._watched = watched
        self._notes = notes = UsageNotes(clock, costs_of(gemini_prices), Words(_word_of))
        self._writer = UsageWriter(
            self._open,
            notes,
            times=lambda: (clock.wall(), clock.monotonic()),
            kept_days=lambda: kept_days,
        )
        notes.wake = self._writer.wake

    @property
    def observer(self) -> Observer:
        """To be told of attempts and calls, by any thread."""
        return self._notes

    async def ask(self, question: Callable[[UsageStore], T]) -> T | None:
        """Ask the ledger, in a thread, once all that was told is in it; None: it cannot be opened.

        Raises `StoreError`, `ConfigurationError`.
        """

        def work() -> T | None:
            self._writer.flush(_FLUSH_SECONDS)
            return self._writer.ask(question)

        return await asyncio.get_running_loop().run_in_executor(None, work)

    @property
    def writer(self) -> UsageWriter:
        """What writes it: for whoever counts its rows."""
        return self._writer

    def close(self, timeout: float | None = None) -> None:
        """Write what waits, then close the ledger. It blocks, for `timeout` seconds at the most. Rows
        that cannot be written are counted in the log."""
        self._writer.close(timeout)
        if self._writer.dropped:
            _log.error("usage=lost rows=%d ledger=%s", self._writer.dropped, self.place.shown)

    def _open(self) -> UsageStore | None:
        if self.place.opener is None:
            return None
        try:
            return self._watched(self.place.opener())
        except ConfigurationError as error:
            if self.place.required:
                raise  # the writer says so, and tries again: rows wait meanwhile
            _log.warning("usage=not_kept error=%s", error)
            return None


def open_usage(
    clock: Clock,
    *,
    kept_days: float,
    environ: Mapping[str, str] | None = None,
    watched: Watched = lambda store: store,
) -> GatewayUsage | None:
    """The ledger that `HEADGATE_USAGE` names; None where none is kept. Opens nothing before the first
    row. Raises `ConfigurationError`."""
    place = usage_place(environ=environ)
    return None if place.opener is None else GatewayUsage(place, clock, kept_days, watched)


def _word_of(outcome: Outcome) -> str:
    return (outcome.detail or outcome.kind).value
