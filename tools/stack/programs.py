"""Programs of a stack: started, asked until they serve, ended in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock

__all__ = ["LOOPBACK", "Program", "answers", "found", "open_port"]

LOOPBACK = "127.0.0.1"

START_SECONDS = 45.0
"""Until a program must serve. An instance takes one or two on an idle machine."""

_LOOK_SECONDS = 0.05
_ASK_SECONDS = 3.0


class Program:
    """One process, which may be started again after it ended.

    Args:
        name: for people, and of its log.
        command: what runs. It ends with this process, however that ends, where the system can do that.
        folder: of its log.
        serves: whether it can be used now.
        environ: its whole environment, beside where programs are found.
        given: told to it on standard input.
        polite: the signal that asks it to end.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        clock: Clock,
        serves: Callable[[], Awaitable[bool]],
        *,
        environ: Mapping[str, str] | None = None,
        given: bytes = b"",
        polite: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.since = 0.0
        self._command = (*_tied(), *command)
        self._clock = clock
        self._serves = serves
        self._environ = {"PATH": f"{os.defpath}:/usr/sbin:/sbin", **(environ or {})}
        self._given = given
        self._polite = polite
        self._process: Process | None = None
        self._wanted = False

    @property
    def pid(self) -> int:
        """Of the process that was started last. Raises `RuntimeError` where none was."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def lost(self) -> bool:
        """Whether it ended without being asked to."""
        return self._wanted and self._process is not None and self._process.returncode is not None

    async def start(self) -> None:
        """Start it, and wait until it serves. Raises `ConfigurationError` with its last words."""
        self._wanted = True
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environ, cwd=self.log.parent, start_new_session=True,
                stdin=PIPE if self._given else DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        if self._process.stdin is not None:
            self._process.stdin.write(self._given)
            self._process.stdin.close()
        end = self._clock.monotonic() + START_SECONDS
        while not await self._serves():
            if self._process.returncode is not None or self._clock.monotonic() > end:
                raise ConfigurationError(f"{self.name} did not start: {self.last_words()}")
            await self._clock.sleep(_LOOK_SECONDS)
        self.since = self._clock.monotonic()

    async def stop(self, seconds: float, how: signal.Signals | None = None) -> int | None:
        """Ask it to end, and kill it after so many seconds. What it ended with."""
        self._wanted = False
        process = self._process
        if process is None:
            return None
        self.send(how or self._polite)
        try:
            return await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await process.wait()

    async def ended(self) -> None:
        """Wait until the process that runs now is over."""
        if self._process is not None:
            await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """A signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def last_words(self) -> str:
        """The end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return " / ".join(text.split("\n")[-6:]).strip(" /") or "it said nothing"


def _tied() -> tuple[str, ...]:
    """The words before a command that end it with its parent, where the system has them."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


def found(name: str) -> str:
    """Where a program is. Raises `ConfigurationError`."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise ConfigurationError(f"{name} is missing: run requirements/system.sh, or install it.")
    return path


async def open_port() -> int:
    """A port of loopback that nobody listens on just now."""
    server = await asyncio.start_server(lambda _, __: None, LOOPBACK, 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def answers(port: int, path: str) -> bool:
    """Whether a GET gets a 200."""
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                request = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                status = await reader.readline()
                return status.split()[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
