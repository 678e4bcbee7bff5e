"""A guarded line to a caller's Redis client: a deadline, a breaker, and no reply to the wrong caller.

A command runs in a task of its own. A caller who is cancelled leaves it to finish, so its reply is
read by nobody else; at its deadline it is cancelled itself, and redis-py (since 4.5.5) then drops the
connection instead of giving it back with a reply still to come.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from headgate.core.errors import StoreError
from headgate.core.ports import Clock

__all__ = ["Breaker", "StoreLine", "is_cluster", "text"]

T = TypeVar("T")

_log = logging.getLogger("headgate.stores")

_FAILURES = 3  # in a row, until the breaker opens
_PROBE_SECONDS = 1.0
_OF_CALLER = 0.9  # a command gives up just before its callers would, and so tells them why
_GRACE = 0.1  # of the deadline
_SILENT = "The store does not answer; it is asked again every second."


class Breaker:
    """Opens after failures in a row; then lets one command a second through to see.

    Args:
        chance: uniform in [0, 1): spreads the probes of many processes over half to one and a half
            of their second.
    """

    def __init__(self, clock: Clock, chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._probe_at = 0.0
        self._quiet_until = 0.0
        self.openings = 0

    @property
    def open(self) -> bool:
        """Whether commands are refused."""
        return self._failures >= _FAILURES

    @property
    def probe_due(self) -> bool:
        """Whether the next command would be let through to see."""
        return self._clock.monotonic() >= self._probe_at

    def admit(self) -> bool:
        """Whether a command may be sent. While open, true once per probe interval."""
        if not self.open:
            return True
        now = self._clock.monotonic()
        if now < self._probe_at:
            return False
        self._probe_at = now + self._interval()
        return True

    def good(self) -> None:
        """A command was answered."""
        if self._failures == 0:
            return
        was_open, self._failures = self.open, 0
        if was_open:
            _log.info("store=answers breaker=closed openings=%d", self.openings)

    def bad(self, error: BaseException) -> None:
        """A command failed, or was not answered in time."""
        self._failures += 1
        now = self._clock.monotonic()
        if self._failures == 1 and now >= self._quiet_until:
            # One line per row of failures, and per second at most: a store that fails every other
            # command must not fill a disk.
            self._quiet_until = now + _PROBE_SECONDS
            _log.error("store=failed error=%s deciding=locally", type(error).__name__)
        if self._failures == _FAILURES:
            self.openings += 1
            self._probe_at = now + self._interval()
            _log.warning(
                "store=failed breaker=open openings=%d error=%s probing_every_seconds=%g",
                self.openings,
                type(error).__name__,
                _PROBE_SECONDS,
            )

    def _interval(self) -> float:
        return _PROBE_SECONDS * (0.5 + self._chance())


class StoreLine:
    """Runs commands of one client. Every failure, of whatever class, leaves as a `StoreError`.

    Args:
        client: a `redis.asyncio` client, single node or cluster. It stays the caller's: it is never
            closed here.
        timeout: seconds a caller may wait for a command.
    """

    def __init__(
        self, client: Any, *, clock: Clock, chance: Callable[[], float], timeout: float
    ) -> None:
        self.client = client
        self.timeout = timeout
        self.breaker = Breaker(clock, chance)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None

    async def run(self, command: Callable[[], Awaitable[T]]) -> T:
        """The command's result. The caller's cancellation leaves the command to finish."""
        return await asyncio.shield(self.own(self.bounded(command)))

    def own(self, coroutine: Any) -> asyncio.Task[Any]:
        """A task that is kept alive until it ends."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def refuse_while_open(self) -> None:
        """Raise `StoreError` at once where `bounded` would, without a task to find out."""
        if self.breaker.open and not self.breaker.probe_due:
            raise StoreError(_SILENT)

    async def bounded(self, command: Callable[[], Awaitable[T]]) -> T:
        """The command's result, in this task: for one that no caller can cancel."""
        if not self.breaker.admit():
            raise StoreError(_SILENT)
        await self._enter_loop()
        try:
            async with _deadline(self.timeout * _OF_CALLER):
                result = await command()
        except Exception as error:
            # Not only RedisError: a time-out, a DNS failure or a broken client is a failure too.
            self.breaker.bad(error)
            raise StoreError(f"The store failed: {type(error).__name__}.") from error
        self.breaker.good()
        return result

    async def aclose(self) -> None:
        """Wait for what is under way in this loop; nothing takes longer than a deadline."""
        loop = asyncio.get_running_loop()
        mine = [task for task in self._tasks if task.get_loop() is loop]
        if mine:
            await asyncio.wait(mine)

    async def _enter_loop(self) -> None:
        """Forget the connections of an event loop that is gone: they cannot be used from this one."""
        loop = asyncio.get_running_loop()
        before = self._loop() if self._loop is not None else loop
        self._loop = weakref.ref(loop)
        if before is loop:
            return
        with suppress(Exception):
            if is_cluster(self.client):
                await self.client.aclose()  # it connects anew at the next command
            else:
                self.client.connection_pool.reset()


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncGenerator[None]:
    """A time-out whose last tenth begins only when the loop is there to see it.

    While the loop was busy, the reply may have come: giving up on the spot would blame the store.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        grace = seconds * _GRACE
        timer = loop.call_later(seconds - grace, lambda: limit.reschedule(loop.time() + grace))
        try:
            yield
        finally:
            timer.cancel()


def is_cluster(client: object) -> bool:
    """Whether keys of different slots must not meet in one command."""
    return hasattr(client, "nodes_manager")


def text(value: object) -> str:
    """A reply as text, whether the client decodes replies or not."""
    return value.decode() if isinstance(value, bytes) else str(value)
