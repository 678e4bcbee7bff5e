"""Requests that a server of ours answers, counted by method, endpoint and status."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from threading import Lock
from types import TracebackType

from headgate.core.ports import Clock
from headgate.telemetry.call_traces import TRACES
from headgate.telemetry.metrics.books import Cell, Mark, Shelf, Spread, mark_of
from headgate.telemetry.metrics.labels import code_of
from headgate.telemetry.switch import SWITCH

__all__ = ["SERVER_DURATION", "HttpMeasures", "HttpVisit"]

SERVER_DURATION = "http_server_request_duration_seconds"
"""The family of OpenTelemetry's HTTP conventions, which its own instruments feed elsewhere."""

_DURATION = "http_request_duration_seconds"
_DURATIONS = (_DURATION, SERVER_DURATION)
_ID = b"x-headgate-request-id"

CLIENT_GONE = 499
"""The status of a request whose client went away before there was an answer, as nginx has it."""

_MOST_LANES = 2_000


class _Lane:
    """The children of one method and endpoint."""

    __slots__ = ("duration", "in_progress", "statuses")

    def __init__(self, in_progress: Cell, duration: Spread) -> None:
        self.in_progress = in_progress
        self.duration = duration
        self.statuses: dict[int, tuple[Cell, Spread]] = {}


class HttpVisit:
    """A request that is being answered. It counts as one when it is left, once.

    Attributes:
        status: of the answer; 499 until it is set.
        request_id: for the exemplar; empty: that of the answer's headers.
        headers: of the answer, of ASGI.
        ids: of the trace and the span that it is in, where these are kept.
        seconds: how long it took, when it is over.
        ended: monotonic seconds of its end.
    """

    __slots__ = (
        "_began", "_labels", "_lane", "_measures", "ended", "headers", "ids", "request_id", "seconds",
        "status",
    )  # fmt: skip

    def __init__(self, measures: HttpMeasures, lane: _Lane, labels: tuple[str, str]) -> None:
        self.status = CLIENT_GONE
        self.request_id = ""
        self.headers: Iterable[tuple[bytes, bytes]] = ()
        self.ids: tuple[int, int] | None = None
        self._measures = measures
        self._lane = lane
        self._labels = labels
        self._began = measures.clock.monotonic()

    def __enter__(self) -> HttpVisit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended = self._measures.clock.monotonic()
        self.seconds = self.ended - self._began
        if self.ids is None and SWITCH.setup is not None:
            self.within_span()  # as who leaves it there need not say before
        self._measures.ended(self, self._lane, self._labels)

    def within_span(self) -> None:
        """Called where telemetry is on, within the span of the request, if it has one."""
        self.ids = TRACES.kept_ids()


class HttpMeasures:
    """Counts requests. Threads and event loops may share it.

    Args:
        shelf: where the counts are.
        clock: measures how long they take.
        lock: held while it counts.
    """

    def __init__(self, shelf: Shelf, clock: Clock, lock: Lock) -> None:
        self.clock = clock
        self._shelf = shelf
        self._lock = lock
        self._ahead = clock.wall() - clock.monotonic()
        self._lanes: dict[tuple[str, str], _Lane] = {}

    def visit(self, method: str, endpoint: str) -> HttpVisit:
        """A request begins; it ends with the `with` statement of what this gives.

        Args:
            endpoint: a handler's name or a route's template, never a path.
        """
        labels = (method, endpoint)
        lane = self._lanes.get(labels)
        if lane is None:
            lane = self._lane(labels)
        with self._lock:
            lane.in_progress.value += 1
        return HttpVisit(self, lane, labels)

    def ended(self, visit: HttpVisit, lane: _Lane, labels: tuple[str, str]) -> None:
        """A request was answered, or its client is gone."""
        seconds, status = visit.seconds, visit.status
        found = lane.statuses.get(status)
        if found is None:
            code = code_of(status)
            found = (
                self._shelf.cell("http_requests_total", *labels, code),
                self._shelf.spread(SERVER_DURATION, *labels, code),
            )
            if 100 <= status <= 599:
                lane.statuses[status] = found
        # As `Spread.see` twice, which are two calls more: this is on the path of every request.
        (counted, spread), duration = found, lane.duration
        place, other = bisect_left(duration.bounds, seconds), bisect_left(spread.bounds, seconds)
        with self._lock:
            lane.in_progress.value -= 1
            counted.value += 1
            duration.counts[place] += 1
            duration.total += seconds
            duration.latest[place] = visit
            spread.counts[other] += 1
            spread.total += seconds
            spread.latest[other] = visit

    def settle(self) -> None:
        """Before somebody reads: make exemplars of the visits that were noted."""
        spreads = [spread for name in _DURATIONS for _, spread in self._shelf.spreads(name)]
        with self._lock:
            for spread in spreads:
                spread.latest[:] = map(self._mark, spread.latest)

    def _mark(self, noted: object) -> Mark | None:
        if not isinstance(noted, HttpVisit):
            return noted  # type: ignore[return-value] # a mark, or nothing
        request_id = noted.request_id or _id_of(noted.headers)
        return mark_of(noted.ids, request_id, noted.seconds, self._ahead + noted.ended)

    def _lane(self, labels: tuple[str, str]) -> _Lane:
        lane = _Lane(
            self._shelf.cell("http_requests_in_progress", *labels),
            self._shelf.spread(_DURATION, *labels),
        )
        if len(self._lanes) >= _MOST_LANES:
            self._lanes.clear()
        self._lanes[labels] = lane
        return lane


def _id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What an answer says of its request; empty where it does not."""
    return next((text.decode("latin-1") for name, text in headers if name == _ID), "")
