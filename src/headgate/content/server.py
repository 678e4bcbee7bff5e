"""The content service on a port: uvicorn, and an orderly end.

From SIGTERM on `/api/ready` says no, and requests are still taken, for as long as load balancers need
to notice. Then the port closes, those under way go on, and what is left after the drain is cut. A
second signal means now.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator
from typing import Any

import uvicorn

from headgate.content.application import ContentApp
from headgate.core.errors import ConfigurationError
from headgate.policy.loopback import is_loopback

__all__ = ["DEFAULT_PORT", "ContentServer", "check_host", "run_content"]

DEFAULT_PORT = 5000
"""As accepted (S4-20); behind compose it is 8080."""

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s that load balancers commonly keep an idle connection: they should close it."""

_CUT_SECONDS = 2.0


class ContentServer:
    """Serves an application until it is told to stop.

    Args:
        host, port: to listen on; port 0 takes a free one.
        http: the protocol of connections, as uvicorn takes it.

    Attributes:
        address: `http://host:port`.
    """

    def __init__(self, app: ContentApp, host: str, port: int, *, http: Any = "auto") -> None:
        check_host(app, host)
        self._app = app
        self._socket = _listening(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._linger = app.settings.linger_seconds
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._server = _Server(_config(app, http))

    async def serve(self, announce: Callable[[str], None] = lambda _: None) -> None:
        """Serve until `stop` was called and the end is reached; closes the application."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._app.join()
                serving = group.create_task(self._server.serve([self._socket]))
                announce(self.address)
                await self._stop.wait()
                await self._drain(serving)
        finally:
            self._socket.close()
            await self._app.aclose()

    def stop(self, *, linger: bool = True) -> None:
        """Begin the end; a second time: end now."""
        if self._stop.is_set():
            self._now.set()
        if not linger:
            self._linger = 0.0
        self._stop.set()

    async def _drain(self, serving: asyncio.Task[None]) -> None:
        self._app.drain()
        await _within(self._linger, self._now.wait())
        self._server.should_exit = True  # closes the port and idle connections
        seconds = self._app.settings.drain_seconds
        emptied = asyncio.ensure_future(self._app.emptied())
        hurried = asyncio.ensure_future(self._now.wait())
        try:
            await asyncio.wait((emptied, hurried), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            emptied.cancel()
            hurried.cancel()
        self._server.force_exit = self._app.serving > 0
        await _within(_CUT_SECONDS, asyncio.shield(serving))
        self._server.force_exit = True


def run_content(
    app: Callable[[], ContentApp],
    host: str,
    port: int,
    announce: Callable[[str], None],
    *,
    http: Any = "auto",
) -> None:
    """Serve in this process until SIGTERM or SIGINT. Raises `ConfigurationError`.

    Args:
        app: makes the application, on the event loop that will run it.
    """

    async def main() -> None:
        server = ContentServer(app(), host, port, http=http)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        loop.add_signal_handler(signal.SIGINT, lambda: server.stop(linger=False))
        await server.serve(announce)

    asyncio.run(main())


def check_host(app: ContentApp, host: str) -> None:
    """Raise `ConfigurationError` where whoever reaches this address could use the quota."""
    settings = app.settings
    if not settings.callers and not settings.open_routes and not is_loopback(host):
        raise ConfigurationError(
            f"Without caller keys whoever reaches {host} would use your quota. Set "
            "HEADGATE_CALLER_KEYS to key|name entries, listen on 127.0.0.1, or open the routes to "
            "everybody with HEADGATE_CONTENT_OPEN=true."
        )


async def _within(seconds: float, what: Any) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(what, seconds)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        why = error.strerror or "the name is not known"
        raise ConfigurationError(f"cannot listen on {host}:{port}: {why}.") from None


def _config(app: ContentApp, http: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,  # the service's own log has the requests, without addresses
        log_config=None,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(app.settings.drain_seconds + 2 * _CUT_SECONDS)),
    )


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
