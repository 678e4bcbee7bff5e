"""What happens in the gateway, for those who listen: attempts, calls, keys, alerts, orders.

Nobody who listens can harm a call: an event is put into a bounded box for each listener and that is
all. A box that is full loses its oldest event, and its listener is told how many. The last events are
kept for a listener that comes back with the id of the last one it had.

Used from the event loop of the gateway alone.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Collection
from enum import StrEnum
from typing import NamedTuple

from headgate.core.ports import Clock
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.manage.written import to_json

__all__ = ["HEARTBEAT_SECONDS", "MOST_LISTENERS", "MOST_WAITING", "EventFeed", "EventKind"]

MOST_WAITING = 1000
"""Events that wait for one listener, and that are kept for those who come back."""

MOST_LISTENERS = 64

HEARTBEAT_SECONDS = 15.0
"""Of silence after which a comment is sent: proxies cut what is silent for a minute."""

_REMEMBERED_SECONDS = 60.0
"""How long after the last listener left events go on being kept for it."""

_RETRY_MS = 3000


class EventKind(StrEnum):
    """What an event tells of."""

    ATTEMPT = "attempt"
    CALL = "call"
    KEY = "key"
    ALERT = "alert"
    ORDER = "order"
    CONFIG = "config"


class _Event(NamedTuple):
    number: int
    kind: EventKind
    data: bytes


class _Listener:
    """One who listens."""

    def __init__(self, kinds: Collection[EventKind]) -> None:
        self.kinds = kinds
        self.box: deque[_Event] = deque(maxlen=MOST_WAITING)
        self.dropped = 0
        self.stirred = asyncio.Event()

    def tell(self, event: _Event) -> None:
        if event.kind in self.kinds:
            self.dropped += len(self.box) == MOST_WAITING
            self.box.append(event)
            self.stirred.set()


class EventFeed:
    """Passes events on to all listeners."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoch = secrets.token_hex(4)  # numbers of another process mean nothing here
        self._number = 0
        self._kept: deque[_Event] = deque(maxlen=MOST_WAITING)
        self._listeners: list[_Listener] = []
        self._left = -math.inf
        self._closed = False

    @property
    def wanted(self) -> bool:
        """Whether anybody listens, or did a moment ago and may come back."""
        return bool(self._listeners) or self._clock.monotonic() - self._left < _REMEMBERED_SECONDS

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def tell(self, kind: EventKind, value: object) -> None:
        """Something happened."""
        if not self.wanted:
            return
        self._number += 1
        event = _Event(self._number, kind, to_json(value))
        self._kept.append(event)
        for listener in self._listeners:
            listener.tell(event)

    def listen(self, kinds: Collection[EventKind], last_event_id: str = "") -> AsyncGenerator[bytes]:
        """The events from now on, as server-sent events; after a break those since the last one had.

        Raises `TroubleError`: too many listen.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise TroubleError("busy", f"{MOST_LISTENERS} listen already; no more are taken.")
        self._left = self._clock.monotonic()  # what is looked for goes on until the first piece
        return self._pieces(_Listener(kinds), last_event_id)

    def close(self) -> None:
        """Give out what waits, then let everybody go."""
        self._closed = True
        for listener in self._listeners:
            listener.stirred.set()

    # ── inside ──────────────────────────────────────────────────────────────────────────────────

    def _catch_up(self, listener: _Listener, last_event_id: str) -> int | None:
        """Put what was kept since an event into the box. How many are lost; None: nobody knows."""
        epoch, _, number = last_event_id.partition(".")
        if epoch != self._epoch or not number.isdecimal() or len(number) > 18:
            return None
        last = int(number)
        for event in self._kept:
            if event.number > last:
                listener.tell(event)
        first = self._kept[0].number if self._kept else self._number + 1
        return max(0, first - 1 - last)

    async def _pieces(self, listener: _Listener, last_event_id: str) -> AsyncGenerator[bytes]:
        # A generator that was never begun is not ended by its `aclose` either: whose client goes away
        # before the first piece must not be in the list yet.
        missed = self._catch_up(listener, last_event_id) if last_event_id else 0
        self._listeners.append(listener)
        try:
            yield b"retry: %d\n\n" % _RETRY_MS
            if missed is None or missed:
                yield _lost(missed)
            while True:
                listener.stirred.clear()
                if listener.dropped:
                    dropped, listener.dropped = listener.dropped, 0
                    yield _lost(dropped)
                while listener.box:
                    yield self._framed(listener.box.popleft())
                if self._closed:
                    yield b'event: end\ndata: {"reason":"The gateway shuts down."}\n\n'
                    return
                if await _silent(listener.stirred):
                    yield b": still here\n\n"
        finally:
            self._listeners.remove(listener)
            self._left = self._clock.monotonic()

    def _framed(self, event: _Event) -> bytes:
        return b"id: %s.%d\nevent: %s\ndata: %s\n\n" % (
            self._epoch.encode(),
            event.number,
            event.kind.value.encode(),
            event.data,
        )


async def _silent(stirred: asyncio.Event) -> bool:
    """Wait for something to happen. Whether nothing did for as long as a heartbeat takes."""
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            await stirred.wait()
    except TimeoutError:
        return True
    return False


def _lost(number: int | None) -> bytes:
    """How many events this listener missed; null: nobody knows."""
    return b'event: lost\ndata: {"events":%s}\n\n' % (b"null" if number is None else b"%d" % number)
