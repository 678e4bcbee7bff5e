"""Both ends of a worker: how its process is started, and how it finds what it was given.

It is a process of its own from the first instruction, not a fork: no lock, thread or connection is
carried over in whatever state it was in. What it gets is three open files: the socket that it takes
connections from, its end of the link to whoever started it, and the pipe that holds their store.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence

from headgate.core.errors import ConfigurationError
from headgate.gateway.server import GatewayServer
from headgate.gateway.worker_link import Crew, Heard, Link, Order, Report, Told, pair

__all__ = ["Launcher", "WorkerRelay", "WorkerSide"]


class Launcher:
    """Starts the processes of workers; a `Start` of `Workers`.

    Args:
        command: of a worker. What it was given follows as its last word.
        listening: a socket for each.
        environ: of the workers.
        handed: further files that they hold until they end.
    """

    def __init__(
        self,
        command: Sequence[str],
        listening: Sequence[socket.socket],
        environ: Mapping[str, str],
        handed: Sequence[int] = (),
    ) -> None:
        self._command = command
        self._listening = listening
        self._environ = environ
        self._handed = handed

    async def __call__(self, crew: Crew, hear: Callable[[Heard], None]) -> _WorkerProcess:
        """Start one."""
        ours, theirs = pair()
        link: Link[Heard] = Link(ours, Heard)
        link.tell(crew)
        listening = self._listening[crew.number - 1].fileno()
        given = (listening, theirs.fileno(), *self._handed)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, ":".join(map(str, given)),
                pass_fds=given, env=dict(self._environ), stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C comes to it from here, once
            )  # fmt: skip
        finally:
            theirs.close()
        link.attend(hear, lambda: None)
        return _WorkerProcess(process, link)


class _WorkerProcess:
    """See `Running`."""

    def __init__(self, process: Process, link: Link[Heard]) -> None:
        self._process = process
        self._link = link

    async def ended(self) -> int:
        try:
            return await self._process.wait()
        finally:
            self._link.close()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def tell(self, message: Told) -> None:
        self._link.tell(message)


class WorkerSide:
    """What a worker was given, and its view of the process that started it; an `Overseer`.

    Attributes:
        listening: the socket that it takes connections from.
        crew: what it was told first.
    """

    def __init__(self, listening: socket.socket, link: Link[Told]) -> None:
        first = link.first()
        if not isinstance(first, Crew):
            raise ValueError("a worker is first told who it is")  # noqa: TRY004 - it was sent so
        self.listening = listening
        self.crew = first
        self._link = link
        self._orders: list[bytes] = []  # that came before anybody heard them
        self._obey: Callable[[bytes], None] = self._orders.append
        self._introduce: Callable[[], None] | None = None

    @classmethod
    def take(cls, given: str) -> WorkerSide:
        """Take over the files that a `Launcher` gave. Raises `ConfigurationError`: nobody did."""
        try:
            numbers = [int(number) for number in given.split(":")]
            for number in numbers:
                os.set_inheritable(number, False)
            listening, link = (socket.socket(fileno=number) for number in numbers[:2])
            return cls(listening, Link(link, Told))
        except (OSError, ValueError, EOFError) as error:
            raise ConfigurationError(
                f"Workers are started by `headgate serve --workers N` alone ({type(error).__name__})."
            ) from None

    def serves(self, introduce: Callable[[], None]) -> None:
        """It takes calls. `introduce` says what is served, once all workers do, if that is its part."""
        self._introduce = introduce
        self._link.tell(Report(ready=True))

    def attend(self, server: GatewayServer) -> None:
        """See `Overseer`. Whose starter is gone ends: nobody would ever tell it to."""

        def told(message: Told) -> None:
            if isinstance(message, Order):
                self._obey(message.text.encode())
                return
            server.gateway.crew = message
            introduce = self._introduce
            if message.whole and message.introduces and introduce is not None:
                self._introduce = None
                introduce()

        self._link.attend(told, server.stop)

    def pass_on(self, order: bytes) -> None:
        """Have all other workers do what this one was ordered, those too that are started later.

        Args:
            order: UTF-8, at most some kilobytes.
        """
        self._link.tell(Order(order.decode()))

    def obey(self, hear: Callable[[bytes], None]) -> None:
        """Hear what other workers pass on, also what they did before."""
        self._obey = hear
        orders, self._orders = self._orders, []
        for order in orders:
            hear(order)

    def close(self) -> None:
        """See `Overseer`."""
        self._link.close()


class WorkerRelay:
    """The way from one worker to the others, as the management API knows it."""

    def __init__(self, side: WorkerSide) -> None:
        self._side = side

    def tell(self, order: bytes) -> None:
        """Pass an order on to each of the others, and to those that are started later."""
        self._side.pass_on(order)

    def attend(self, hear: Callable[[bytes], None]) -> None:
        """Hear, on the running loop, what others pass on."""
        self._side.obey(hear)
