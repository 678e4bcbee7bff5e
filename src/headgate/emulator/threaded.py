"""The emulator in a thread of its own, for synchronous code and for clients with their own loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar

from headgate.emulator.report import Report

__all__ = ["InThread"]

T = TypeVar("T")


class _Emulator(Protocol):
    """What is run: `Emulator`, seen from here."""

    @property
    def base_url(self) -> str: ...

    def report(self) -> Report: ...

    def reset(self) -> None: ...

    def script(self, kind: str, *, times: int = 1, **where: Any) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class InThread:
    """Runs an emulator in a thread while the context lasts; safe to use from any thread."""

    def __init__(self, emulator: _Emulator) -> None:
        self._emulator = emulator
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> InThread:
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="headgate-emulator", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join()

    @property
    def base_url(self) -> str:
        """`http://host:port`, without a version."""
        return self._emulator.base_url

    def report(self) -> Report:
        """What the emulator saw until now."""
        return self._ask(self._emulator.report)

    def reset(self) -> None:
        """Forget what it saw, used quota and scripted faults."""
        self._ask(self._emulator.reset)

    def script(self, kind: str, *, times: int = 1, **where: Any) -> None:
        """As `Emulator.script`."""
        self._ask(lambda: self._emulator.script(kind, times=times, **where))

    def _ask(self, question: Callable[[], T]) -> T:
        async def asked() -> T:
            return question()

        if self._loop is None:
            raise RuntimeError("the emulator runs only inside its `with` block")
        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result()

    def _run(self, ready: concurrent.futures.Future[None]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: concurrent.futures.Future[None]) -> None:
        self._stop = asyncio.Event()
        await self._emulator.start()
        try:
            self._loop = asyncio.get_running_loop()
            ready.set_result(None)
            await self._stop.wait()
        finally:
            self._loop = None
            await self._emulator.stop()
