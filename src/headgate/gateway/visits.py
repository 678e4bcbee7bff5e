"""Requests that are being served: each may be ended from outside, because its client went away or the
gateway shuts down, and then gives back everything it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Protocol

from headgate.gateway.incoming import Message, Receive, Scope

__all__ = ["CONNECTION", "Connection", "End", "Visit", "Visits"]

CONNECTION = "headgate.connection"
"""Where a scope holds its `Connection`, if the server tells of clients that go away."""


class End(Enum):
    """Why a visit was ended."""

    GONE = "gone"
    DRAINED = "drained"


class Connection(Protocol):
    """A client's connection.

    Attributes:
        on_gone: called once when the client goes away.
    """

    on_gone: Callable[[], None] | None


class Visit:
    """One request that is being served, by the task that made this.

    Attributes:
        end: why it was ended from outside; None while nobody did.
    """

    __slots__ = ("_task", "end")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - servers serve each request in a task
        self._task = task
        self.end: End | None = None

    def stop(self, end: End) -> None:
        """End it, once: whatever it waits for is cancelled."""
        if self.end is None:
            self.end = end
            self._task.cancel()

    def settle(self) -> None:
        """The task that was cancelled has dealt with it, and goes on."""
        self._task.uncancel()

    def gone(self) -> None:
        """Its client went away."""
        self.stop(End.GONE)


class Visits:
    """All requests that are being served."""

    def __init__(self) -> None:
        self._open: set[Visit] = set()
        self._empty: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._open)

    async def serve(
        self, scope: Scope, receive: Receive, work: Callable[[Visit], Awaitable[None]]
    ) -> None:
        """Do a visit's work; should its client go away, the work is cancelled at once."""
        visit = Visit()
        self._open.add(visit)
        connection: Connection | None = scope.get(CONNECTION)
        watch: asyncio.Task[None] | None = None
        if connection is None:
            watch = asyncio.get_running_loop().create_task(_watch(receive, visit))
        else:
            connection.on_gone = visit.gone
        try:
            await work(visit)
        except asyncio.CancelledError:
            if visit.end is None:
                raise
            visit.settle()  # nobody is left who could be told
        finally:
            self._open.discard(visit)
            if connection is not None:
                connection.on_gone = None
            if watch is not None:
                watch.cancel()
            if self._empty is not None and not self._open:
                self._empty.set()

    async def emptied(self) -> None:
        """Wait until none is left."""
        self._empty = asyncio.Event()
        if not self._open:
            return
        await self._empty.wait()

    def stop(self) -> None:
        """End all of them."""
        for visit in list(self._open):
            visit.stop(End.DRAINED)


async def _watch(receive: Receive, visit: Visit) -> None:
    """For servers without a `Connection`: listens until the client goes away."""
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()
    visit.gone()
