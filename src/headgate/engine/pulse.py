"""Reservations in use, and the heartbeats that keep them.

A reservation lapses 90 s after it was made or renewed, in case its owner has died. So every 30 s the
calls that still run are renewed, those of one event loop together: a loop that dies stops its beats,
and no other keeps alive what nobody will settle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from msgspec import Struct

from headgate.core.quota import Costs

__all__ = ["BEAT", "Held", "Pulse", "Pulses"]

BEAT = 30.0
"""Seconds between renewals: two may be lost before a reservation lapses."""


class Held(Struct, frozen=True):
    """A reservation in use.

    Attributes:
        costs: what was reserved.
        rank: class of the call, and `caller`: whose it is; both for the fair share.
        waited: whether it stood in line: only then it counts for the fair share.
        since: monotonic seconds.
    """

    costs: Costs
    rank: int
    caller: str
    waited: bool
    since: float


class Pulse:
    """The reservations of one event loop, and the timer that renews them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.held: dict[str, Held] = {}
        self.timer: asyncio.TimerHandle | None = None

    def due(self, now: float) -> list[str]:
        """Those old enough that they would lapse before the beat after next."""
        return [rid for rid, held in self.held.items() if now - held.since >= BEAT / 2]


class Pulses:
    """All reservations of one line that are in use. The gate holds its lock around every method.

    Args:
        beat: called on a pulse's own loop every 30 s while it holds anything.
    """

    def __init__(self, beat: Callable[[Pulse], None]) -> None:
        self._beat = beat
        self._pulses: dict[asyncio.AbstractEventLoop, Pulse] = {}
        self._homes: dict[str, Pulse] = {}

    def __len__(self) -> int:
        return len(self._homes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def add(self, rid: str, held: Held) -> None:
        """A call of the running loop begins to use a reservation."""
        loop = asyncio.get_running_loop()
        pulse = self._pulses.get(loop)
        if pulse is None:
            self._forget_dead_loops()
            pulse = self._pulses[loop] = Pulse(loop)
        pulse.held[rid] = held
        self._homes[rid] = pulse
        if pulse.timer is None:
            pulse.timer = loop.call_later(BEAT, self.beat, pulse)

    def pop(self, rid: str) -> Held | None:
        """A call has ended. None for a reservation that is not in use."""
        pulse = self._homes.pop(rid, None)
        if pulse is None:
            return None
        # Its timer goes on: to set and cancel one for each call is dearer than a beat without work.
        return pulse.held.pop(rid)

    def beat(self, pulse: Pulse) -> None:
        """The timer's call: the last one, where nothing is held."""
        pulse.timer = pulse.loop.call_later(BEAT, self.beat, pulse) if pulse.held else None
        if pulse.held:
            self._beat(pulse)

    def _forget_dead_loops(self) -> None:
        for loop in [loop for loop in self._pulses if loop.is_closed()]:
            for rid in self._pulses.pop(loop).held:
                self._homes.pop(rid, None)
