"""The gateway on a port: uvicorn, with deadlines for slow senders and readers, and an orderly end.

What an end looks like, from SIGTERM on: it says so on `/readyz` and in `connection: close` but still
takes calls, for as long as load balancers need to notice; then it takes no more and lets those under
way go on; then it cuts what is left, each stream with a typed error as its last event, and gives
everything back. A second signal means now.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Protocol

import uvicorn

from headgate.gateway.app import Gateway
from headgate.gateway.listening import BACKLOG, address_of, listen
from headgate.gateway.reloading import Cause
from headgate.gateway.server_protocol import ServerBounds, protocol

__all__ = ["GatewayServer", "Overseer", "run"]

_CUT_SECONDS = 2.0
"""For the last events of streams that are cut."""

_OTHER_FILES = 128
"""That a process has open beside its connections: modules, ledgers, stores, logs."""


class Overseer(Protocol):
    """The process that a worker was started by, as the worker sees it."""

    def attend(self, server: GatewayServer) -> None:
        """Hear what it says, on the running loop; without it the server is to end."""

    def close(self) -> None:
        """Take leave of it."""


class GatewayServer:
    """Serves a gateway until it is told to stop.

    Args:
        host, port: to listen on; port 0 takes a free one.
        linger_seconds, drain_seconds: see `GatewaySettings`.
        body_bytes: of the largest body, for the deadline of receiving one.
        bounds: of connections and of what comes in on them.
        listening: the socket to take connections from, instead of one of its own.

    Attributes:
        address: `http://host:port`, once it listens.
        gateway: that it serves.
    """

    def __init__(
        self,
        gateway: Gateway,
        host: str,
        port: int,
        *,
        linger_seconds: float,
        drain_seconds: float,
        body_bytes: int,
        bounds: ServerBounds | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        self.gateway = gateway
        self._linger = linger_seconds
        self._drain_seconds = drain_seconds
        self._socket = listening or listen(host, port)
        self.address = address_of(self._socket, host)
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        bounds = replace(bounds or ServerBounds(), body_bytes=body_bytes)
        self._server = _Server(_config(gateway, drain_seconds, bounds))

    async def serve(self, announce: Callable[[str], None] = lambda _: None) -> None:
        """Serve until `stop` was called and the end is reached.

        Args:
            announce: is told the address once connections are taken.
        """
        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self._server.serve([self._socket]))
                tended = group.create_task(self.gateway.metrics.tend())
                if self.gateway.reloading is not None:
                    self.gateway.reloading.start()
                announce(self.address)
                await self._stop.wait()
                await self._drain(serving)
                tended.cancel()
        finally:
            self._socket.close()
            await self.gateway.aclose()

    def reload(self) -> None:
        """Read the configuration again; what it said before is served until the new one is whole."""
        if self.gateway.reloading is not None:
            self.gateway.reloading.soon(Cause.SIGNAL)

    def stop(self, *, linger: bool = True) -> None:
        """Begin the end; a second time: end now."""
        if self._stop.is_set():
            self._now.set()
        if not linger:
            self._linger = 0.0
        self._stop.set()

    async def _drain(self, serving: asyncio.Task[None]) -> None:
        gateway = self.gateway
        gateway.drain()
        await self._within(self._linger, self._now.wait())
        gateway.refusing = True
        self._server.should_exit = True  # closes the port and idle connections
        emptied = asyncio.ensure_future(gateway.visits.emptied())
        hurried = asyncio.ensure_future(self._now.wait())
        try:
            await asyncio.wait(
                (emptied, hurried), timeout=self._drain_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            gateway.visits.stop()
            await self._within(_CUT_SECONDS, emptied)
        finally:
            emptied.cancel()
            hurried.cancel()
        await self._within(_CUT_SECONDS, asyncio.shield(serving))
        self._server.force_exit = True

    @staticmethod
    async def _within(seconds: float, what: Any) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(what, seconds)


def run(
    server: Callable[[], GatewayServer],
    announce: Callable[[str], None],
    overseer: Overseer | None = None,
) -> None:
    """Serve in this process until SIGTERM or SIGINT. Raises `ConfigurationError`.

    Args:
        server: makes the server, on the event loop that will run it.
        overseer: of a worker.
    """

    async def main() -> None:
        made = server()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, made.stop)
        loop.add_signal_handler(signal.SIGINT, lambda: made.stop(linger=False))
        loop.add_signal_handler(signal.SIGHUP, made.reload)
        if overseer is not None:
            overseer.attend(made)
        # What is there now stays for good: the collector need not look at it again and again.
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        try:
            await made.serve(announce)
        finally:
            if overseer is not None:
                overseer.close()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's; None, which stands for asyncio's own, where it is not installed: not every system has
    it."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - see above
    except ImportError:
        return None
    return new_event_loop


def _config(gateway: Gateway, drain_seconds: float, bounds: ServerBounds) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        http=protocol(replace(bounds, connections=_affordable(bounds.connections))),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,  # costs as much as all policies together; the engine's own log has the calls
        log_config=None,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=bounds.keep_alive_seconds,
        timeout_graceful_shutdown=max(1, round(drain_seconds + 2 * _CUT_SECONDS)),
    )


def _affordable(asked: int) -> int:
    """Connections that may be open at a time. Each may need another one, upstream; a process that has
    no file left for what it took can serve nobody.

    Asks the system for as many files as it gives without a privilege: the lower bound that programs
    begin with is for those that count on file numbers below 1024.
    """
    if sys.platform == "win32":
        return asked
    import resource  # noqa: PLC0415 - not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS gives less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return asked
    files = max(1, (soft - _OTHER_FILES) // 2)
    return min(asked, files) if asked else files


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
