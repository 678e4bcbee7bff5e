"""The sync bridge: one event loop in one daemon thread, for callers that have none.

Works in scripts, in notebooks and inside a running loop, because it never runs on the caller's thread.
The loop starts with the first call and stays until `stop`; an interrupted caller cancels its call.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from typing import TypeVar, cast

__all__ = ["Bridge"]

T = TypeVar("T")

_END = object()


class Bridge:
    """Runs coroutines for synchronous callers. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._stops = 0

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """The coroutine's result, or its exception. An interrupt cancels the coroutine."""
        with self._lock:
            if self._worker is None:
                self._worker = _Worker()
                # At exit, or when the bridge is dropped: the loop ends in order, so connections close.
                self._finalizer = weakref.finalize(self, self._worker.stop)
            if self._worker.is_current():
                coroutine.close()
                raise RuntimeError(
                    "a synchronous call was made from inside one (an observer?), where it would "
                    "wait for itself; use the asynchronous call there"
                )
            # Handed over under the lock: `stop` cannot come between the choice of a loop and its use.
            future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._worker.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # without effect where the coroutine itself has failed
            raise

    def iterate(self, items: AsyncGenerator[T]) -> Iterator[T]:
        """An asynchronous generator, item by item. Leaving early closes it, and so does `stop`."""
        return _Items(self, items)

    @property
    def running(self) -> bool:
        """Whether the thread has been started."""
        return self._worker is not None

    @property
    def stops(self) -> int:
        """How often it was stopped; what began on its loop ended with it."""
        return self._stops

    def stop(self) -> None:
        """End the loop and its thread; a later call starts anew."""
        with self._lock:
            worker, self._worker = self._worker, None
            self._stops += worker is not None
        if worker is not None:
            self._finalizer.detach()
            worker.stop()


class _Items(Iterator[T]):
    """A generator read from outside of its loop.

    Left before its end it needs no `close`: asyncio has a dropped generator closed by its own loop.
    Nobody waits for that, because garbage is collected at any moment, also while a lock is held that
    the loop needs to go on.
    """

    def __init__(self, bridge: Bridge, items: AsyncGenerator[T]) -> None:
        self._bridge = bridge
        self._items = items
        self._born: int | None = None  # in which life of the bridge it began
        self._ended = False

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        if self._born is None:
            self._born = self._bridge.stops
        self._check_life()
        item = self._bridge.run(_next(self._items))
        if item is _END:
            self._check_life()  # closed in between: that was no end of the answer
            self._ended = True
            raise StopIteration
        return cast("T", item)

    def _check_life(self) -> None:
        if self._cut_off():
            raise RuntimeError(
                "the client was closed while this stream was being read: what came before is "
                "incomplete. Read a stream to its end before you close its client."
            )

    def _cut_off(self) -> bool:
        return self._born is not None and self._born != self._bridge.stops

    def close(self) -> None:
        """Close it now, and wait until that is done."""
        self._ended = True
        if self._bridge.running and not self._cut_off():  # else it was closed with its loop
            self._bridge.run(_close(self._items))


class _Worker:
    """A loop that runs in a thread of its own until it is told to stop."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="headgate-blocking", daemon=True
        )
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._ready.set()
        await self._stopped.wait()

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stopped.set)
        if not self.is_current():  # a bridge may be dropped on its own thread, which ends by itself
            self._thread.join()


async def _next(items: AsyncGenerator[T]) -> T | object:
    return await anext(items, _END)


async def _close(items: AsyncGenerator[T]) -> None:
    await items.aclose()
