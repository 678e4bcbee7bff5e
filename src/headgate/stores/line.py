"""A guarded line to a caller's Redis client: a deadline, a breaker, and no reply to the wrong caller.

A command runs in a task of its own. A caller who is cancelled leaves it to finish, so its reply is
read by nobody else; at its deadline it is cancelled itself, and redis-py (since 4.5.5) then drops the
connection instead of giving it back with a reply still to come. `guard.py` has deadline and breaker.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from headgate.core.errors import StoreError
from headgate.core.ports import Clock
from headgate.stores.guard import Guard

__all__ = ["StoreLine", "is_cluster", "text"]

T = TypeVar("T")

_OF_CALLER = 0.9  # a command gives up just before its callers would, and so tells them why


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
        self._guard = Guard(clock=clock, chance=chance, seconds=timeout * _OF_CALLER, explain=_told)
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
        self._guard.refuse_while_open()

    async def bounded(self, command: Callable[[], Awaitable[T]]) -> T:
        """The command's result, in this task: for one that no caller can cancel."""
        await self._enter_loop()
        return await self._guard.run(command)

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


def _told(error: Exception) -> StoreError:
    told = StoreError(f"The store failed: {type(error).__name__}.")
    told.__cause__ = error  # the client is the caller's, and so is what it says
    return told


def is_cluster(client: object) -> bool:
    """Whether keys of different slots must not meet in one command."""
    return hasattr(client, "nodes_manager")


def text(value: object) -> str:
    """A reply as text, whether the client decodes replies or not."""
    return value.decode() if isinstance(value, bytes) else str(value)
