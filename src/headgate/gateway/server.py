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
from collections.abc import Callable, Generator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.core.errors import ConfigurationError
from headgate.gateway.app import Gateway
from headgate.gateway.visits import CONNECTION

__all__ = ["GatewayServer", "run"]

HEAD_SECONDS = 10.0
"""From the first byte of a request until its head is in."""

SLOWEST_SENDER = 64 * 1024
"""Bytes a second: a body may take `HEAD_SECONDS` and as long as the largest one takes at this rate."""

READER_STALL_SECONDS = 60.0
"""How long a client may leave what was sent to it unread before it is cut off."""

MOST_HEAD_BYTES = 64 * 1024
MOST_HEADERS = 100

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s that load balancers commonly keep an idle connection: they should close it."""

_CUT_SECONDS = 2.0
"""For the last events of streams that are cut."""

_BACKLOG = 2048


class GatewayServer:
    """Serves a gateway until it is told to stop.

    Args:
        host, port: to listen on; port 0 takes a free one.
        linger_seconds, drain_seconds: see `GatewaySettings`.
        body_bytes: of the largest body, for the deadline of receiving one.

    Attributes:
        address: `http://host:port`, once it listens.
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
    ) -> None:
        self._gateway = gateway
        self._linger = linger_seconds
        self._drain_seconds = drain_seconds
        self._socket = _listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._server = _Server(_config(gateway, drain_seconds, body_bytes / SLOWEST_SENDER))

    async def serve(self, announce: Callable[[str], None] = lambda _: None) -> None:
        """Serve until `stop` was called and the end is reached.

        Args:
            announce: is told the address once connections are taken.
        """
        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self._server.serve([self._socket]))
                announce(self.address)
                await self._stop.wait()
                await self._drain(serving)
        finally:
            self._socket.close()
            await self._gateway.aclose()

    def stop(self, *, linger: bool = True) -> None:
        """Begin the end; a second time: end now."""
        if self._stop.is_set():
            self._now.set()
        if not linger:
            self._linger = 0.0
        self._stop.set()

    async def _drain(self, serving: asyncio.Task[None]) -> None:
        gateway = self._gateway
        gateway.draining = True
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


def run(server: Callable[[], GatewayServer], announce: Callable[[str], None]) -> None:
    """Serve in this process until SIGTERM or SIGINT. Raises `ConfigurationError`.

    Args:
        server: makes the server, on the event loop that will run it.
    """

    async def main() -> None:
        made = server()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, made.stop)
        loop.add_signal_handler(signal.SIGINT, lambda: made.stop(linger=False))
        # What is there now stays for good: the collector need not look at it again and again.
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        await made.serve(announce)

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


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        why = error.strerror or "the name is not known"
        raise ConfigurationError(f"cannot listen on {host}:{port}: {why}.") from None


def _config(gateway: Gateway, drain_seconds: float, body_seconds: float) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        http=type("_BoundedProtocol", (_Protocol,), {"body_seconds": body_seconds}),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,  # costs as much as all policies together; the engine's own log has the calls
        log_config=None,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_seconds + 2 * _CUT_SECONDS)),
    )


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Protocol(HttpToolsProtocol):
    """One connection. Beyond uvicorn's: a deadline for each request to be in, bounds of its head, a
    deadline for a reader that does not read, and word of a client that goes away.

    Attributes:
        body_seconds: for a body, after `HEAD_SECONDS`.
        on_gone: called once when the connection is lost, while a request is being served.
    """

    body_seconds = 0.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_gone: Callable[[], None] | None = None
        self._receiving = True  # a request is awaited, and is not in yet
        self._begun = False  # whether any of it is in
        self._head_is_in = False
        self._head_bytes = 0  # of the headers that were read
        self._dribbled = 0  # of heads that did not come at once
        self._too_large = False
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    # ── the connection ──────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._receiving:
            self._disarm()
            return
        if not self._head_is_in:
            self._dribbled += len(data)
            if self._dribbled > MOST_HEAD_BYTES:
                self._refuse()
                return
        self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(READER_STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # ── a request ───────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._receiving, self._begun, self._head_is_in = True, True, False
        self._head_bytes, self._dribbled, self._too_large = 0, 0, False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MOST_HEAD_BYTES or len(self.headers) >= MOST_HEADERS:
            self._too_large = True
            raise ValueError("the head of the request is too large")  # the parser stops, see below
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_is_in = True
        super().on_headers_complete()
        self.scope[CONNECTION] = self  # type: ignore[literal-required] # an extension of ours

    def on_message_complete(self) -> None:
        self._receiving = False
        super().on_message_complete()

    # ── deadlines ───────────────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._head_is_due)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_due(self) -> None:
        self._deadline = None
        if self._head_is_in:
            self._deadline = self.loop.call_later(self.body_seconds, self._too_slow)
        else:
            self._too_slow()

    def _too_slow(self) -> None:
        self._deadline = None
        if self._begun:
            self._answer(b"408 Request Timeout")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's
        """What is no HTTP, or more of it than anybody needs, is answered and done with."""
        self._answer(b"431 Request Header Fields Too Large" if self._too_large else b"400 Bad Request")

    def _refuse(self) -> None:
        self._too_large = True
        self.send_400_response("")

    def _answer(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or not cycle.response_started or cycle.response_complete:
            head = b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head)
        self.transport.close()
