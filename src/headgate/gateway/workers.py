"""Several workers behind one port, as the process sees them that starts them: it keeps them running,
tells each whether all are there, hands signals and orders on, and waits until all have ended.

It serves nothing itself. A worker that ends by itself is started again, at once the first time and then
after longer and longer pauses; one that ends again and again soon after its start is given up, and the
gateway with it: whoever runs it should know.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from msgspec.structs import replace

from headgate.core.ports import Clock
from headgate.gateway.worker_link import Crew, Heard, Order, Report, Told
from headgate.policy.restarts import Restarts

__all__ = ["FAILED", "Running", "Start", "Workers", "manner"]

FAILED = 1
"""What the gateway ends with when it gives a worker up that does not say why it ends."""


class Running(Protocol):
    """A worker that was started."""

    async def ended(self) -> int:
        """Wait until it has ended; its exit code, or below 0 the signal that killed it."""

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""

    def tell(self, message: Told) -> None:
        """Say how many are there, or what to do."""


Start = Callable[[Crew, Callable[[Heard], None]], Awaitable[Running]]
"""Starts a worker; its second argument hears what that says."""

MOST_ORDERS = 200
"""That a worker is told which is started later."""


class Workers:
    """Keeps the workers of one gateway.

    Args:
        count: how many.
        seal: their common secret, see `Crew`.
        end_seconds: how long they may take to end before they are killed.
        hopeless: exit codes of a worker that cannot be started at all, with these settings.
        say: tells whoever runs the gateway.
        on_end: called once when the end begins: from then on the port is the workers' alone.
    """

    def __init__(
        self,
        start: Start,
        count: int,
        clock: Clock,
        *,
        seal: str,
        end_seconds: float,
        hopeless: Collection[int],
        say: Callable[[str], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._start = start
        self._clock = clock
        self._end_seconds = end_seconds
        self._hopeless = hopeless
        self._say = say
        self._on_end = on_end
        self._crews = {
            number: Crew(number, 0, count, seal, introduces=number == 1)
            for number in range(1, count + 1)
        }
        self._running: dict[int, Running] = {}
        self._orders: deque[Order] = deque(maxlen=MOST_ORDERS)
        self._ready: dict[int, float] = {}  # since when, by the monotonic clock
        self._was_ready: set[int] = set()
        self._code = 0
        self._signal: int = signal.SIGTERM  # the last that was to end them
        self._end = asyncio.Event()

    async def run(self) -> int:
        """Start them and keep them until `stop`, or until one is given up. The exit code."""
        async with asyncio.TaskGroup() as group:
            kept = [group.create_task(self._keep(number)) for number in self._crews]
            last = group.create_task(self._end_late())
            await asyncio.wait(kept)
            last.cancel()
        return self._code

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Have all of them end, with this signal; a second one goes to them as well."""
        if not self._end.is_set():
            self._on_end()
        self._signal = number
        self._end.set()
        self.forward(number)

    def forward(self, number: int) -> None:
        """Hand a signal on to all."""
        for running in list(self._running.values()):
            running.signal(number)

    # ── one worker ──────────────────────────────────────────────────────────────────────────────

    async def _keep(self, number: int) -> None:
        restarts = Restarts()
        while not self._end.is_set():
            running = await self._start(self._crews[number], lambda said: self._hear(number, said))
            self._running[number] = running
            if self._end.is_set():
                running.signal(self._signal)  # it was told to end while it was being started
            told: list[Told] = [self._crews[number], *self._orders]  # what there was meanwhile
            for message in told:
                running.tell(message)
            code = await running.ended()
            del self._running[number]
            since = self._ready.pop(number, None)
            if self._end.is_set():
                return
            self._count()
            lived = 0.0 if since is None else self._clock.monotonic() - since
            pause = self._after(number, code, restarts.ended(lived))
            if pause is None:
                return
            await self._end_within(pause)

    def _after(self, number: int, code: int, pause: float | None) -> float | None:
        """What becomes of a worker that ended; None: the gateway ends."""
        how = manner(code)
        if code in self._hopeless and number not in self._was_ready:
            self._give_up(code, f"Worker {number} cannot start: it {how}. The gateway ends.")
            return None
        if pause is None:
            self._give_up(
                code if code > 0 else FAILED,
                f"Worker {number} {how}, again soon after its start. The gateway ends: what the "
                "worker said last stands above.",
            )
            return None
        when = "at once" if not pause else f"in {pause:g} s"
        self._say(f"Worker {number} {how}. It is started again {when}.")
        return pause

    def _give_up(self, code: int, sentence: str) -> None:
        if self._code == 0:
            self._code = code
            self._say(sentence)
        self.stop()

    # ── all of them ─────────────────────────────────────────────────────────────────────────────

    def _hear(self, number: int, said: Heard) -> None:
        if isinstance(said, Report):
            self._is_ready(number)
            return
        self._orders.append(said)
        for other, running in self._running.items():
            if other != number:
                running.tell(said)

    def _is_ready(self, number: int) -> None:
        self._ready[number] = self._clock.monotonic()
        self._was_ready.add(number)
        self._count()

    def _count(self) -> None:
        """Tell everybody how many are there. The first introduces all, once."""
        ready = len(self._ready)
        whole = ready == len(self._crews)
        for number, crew in self._crews.items():
            self._crews[number] = told = replace(crew, ready=ready)
            if number in self._running:
                self._running[number].tell(told)
            if whole and told.introduces:
                self._crews[number] = replace(told, introduces=False)

    async def _end_within(self, seconds: float) -> None:
        """Wait; not longer than until the end begins."""
        if seconds <= 0:
            return
        waiting = asyncio.ensure_future(self._clock.sleep(seconds))
        ending = asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            ending.cancel()

    async def _end_late(self) -> None:
        """Kill whoever has not ended in time."""
        await self._end.wait()
        await self._clock.sleep(self._end_seconds)
        for number, running in list(self._running.items()):
            self._say(f"Worker {number} did not end in {self._end_seconds:g} s and is killed.")
            running.signal(signal.SIGKILL)


def manner(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
