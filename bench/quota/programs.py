"""Contenders as programs: started, talked to, ended. One contender may be several processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TypeAlias

from bench.quota.play import FailedError, Open
from bench.quota.protocol import Ask, Setup
from bench.server import running
from headgate.core.ports import Clock

__all__ = ["Line", "Nursery", "Start", "contender", "nursery", "subprocess"]

ROOT = Path(__file__).parents[2]
_READY_SECONDS = 120.0
_LEAVE_SECONDS = 10.0
_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """What one process hears and says."""

    reading: asyncio.StreamReader
    sending: asyncio.StreamWriter


Start: TypeAlias = Callable[[], AbstractAsyncContextManager[Line]]
"""Starts a process; leaving the context ends it, kindly first."""


def contender(start: Start, versions: set[str], *, processes: int = 1, shared: bool = False) -> Open:
    """A contender of so many processes; calls go to them in turn.

    Args:
        versions: what each says it is, is added.
        shared: the processes are told of a Valkey server of their own, which others never touch.
    """

    @asynccontextmanager
    async def opened(setup: Setup, _clock: Clock) -> AsyncIterator[Ask]:
        async with AsyncExitStack() as stack:
            if shared:
                setup = replace(setup, store=stack.enter_context(running()))
            asks = await asyncio.gather(
                *(stack.enter_async_context(_spoken(start, setup, versions)) for _ in range(processes))
            )
            turns = cycle(asks)

            async def ask(prompt: str) -> object:
                return await next(turns)(prompt)

            yield ask

    return opened


@asynccontextmanager
async def _spoken(start: Start, setup: Setup, versions: set[str]) -> AsyncIterator[Ask]:
    """One process, ready to be asked."""
    waiting: dict[int, asyncio.Future[None]] = {}
    numbers = iter(range(1 << 40))
    async with start() as line:

        def say(what: dict[str, object]) -> None:
            line.sending.write(json.dumps(what).encode() + b"\n")

        async def ask(prompt: str) -> None:
            number = next(numbers)
            waiting[number] = asyncio.get_running_loop().create_future()
            say({"id": number, "prompt": prompt})
            await waiting[number]

        say(asdict(setup))
        async with asyncio.timeout(_READY_SECONDS):
            first = await line.reading.readline()
        if not first:
            raise RuntimeError("the adapter ended before it was ready")
        versions.add(json.loads(first)["ready"])
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(_listen(line.reading, waiting))
            yield ask
            with contextlib.suppress(OSError):
                line.sending.write_eof()
            with contextlib.suppress(TimeoutError):  # what it still waits for is given up
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await listening


async def _listen(reading: asyncio.StreamReader, waiting: dict[int, asyncio.Future[None]]) -> None:
    with contextlib.suppress(ConnectionError):
        while line := await reading.readline():
            said = json.loads(line)
            answer = waiting.pop(said["id"], None)
            if answer is None or answer.done():
                continue
            if said["ok"]:
                answer.set_result(None)
            else:
                answer.set_exception(FailedError(said["error"]))
    for answer in waiting.values():
        if not answer.done():
            answer.set_exception(FailedError("adapter ended"))


# ── how a process is started ──────────────────────────────────────────────────────────────────────


def subprocess(command: Sequence[str]) -> Start:
    """Any command, its stdin and stdout the line."""

    @asynccontextmanager
    async def started() -> AsyncIterator[Line]:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
            limit=_LINE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Line(process.stdout, process.stdin)
        finally:
            process.stdin.close()
            try:
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    return started


@dataclass(frozen=True, slots=True)
class Nursery:
    """Starts programs of one adapter by forking."""

    folder: Path
    process: asyncio.subprocess.Process

    def program(self, arguments: Sequence[str]) -> Start:
        """A program with these arguments."""

        @asynccontextmanager
        async def started() -> AsyncIterator[Line]:
            here: asyncio.Future[Line] = asyncio.get_running_loop().create_future()

            def arrived(reading: asyncio.StreamReader, sending: asyncio.StreamWriter) -> None:
                here.set_result(Line(reading, sending))

            path = Path(tempfile.mkdtemp(dir=self.folder)) / "s"
            server = await asyncio.start_unix_server(arrived, path, limit=_LINE)
            async with server:
                assert self.process.stdin is not None
                asked = {"socket": str(path), "arguments": list(arguments)}
                self.process.stdin.write(json.dumps(asked).encode() + b"\n")
                async with asyncio.timeout(_READY_SECONDS):
                    line = await here
            try:
                yield line
            finally:
                await _leave(line)

        return started


@asynccontextmanager
async def nursery(python: str, module: str) -> AsyncIterator[Nursery]:
    """A nursery for an adapter of this repository, while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", "bench.quota.nursery", module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_READY_SECONDS):
                if not await process.stdout.readline():
                    raise RuntimeError(f"{module} cannot be imported by {Path(python).name}")
            yield Nursery(Path(folder), process)
        finally:
            process.stdin.close()
            try:
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _leave(line: Line) -> None:
    """See that a forked program has gone: it closes its end when it does."""
    gone = line.reading.at_eof()
    if not gone:
        with contextlib.suppress(OSError):
            line.sending.write_eof()
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                while await line.reading.read(_LINE):
                    pass
                gone = True
    if not gone:
        with contextlib.suppress(OSError):
            os.kill(_peer(line.sending), signal.SIGKILL)
    line.sending.close()


def _peer(sending: asyncio.StreamWriter) -> int:
    """The process at the other end of a unix socket."""
    if sys.platform != "linux":
        raise OSError("only Linux tells")
    home = sending.get_extra_info("socket")
    pid, _user, _group = struct.unpack("3i", home.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)
