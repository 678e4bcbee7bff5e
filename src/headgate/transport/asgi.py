"""An ASGI application on a port of this machine, for commands that receive something themselves.

Whole requests and whole answers, over aiohttp; a service of any size needs a server of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiohttp import web

from headgate.core.errors import ConfigurationError

__all__ = ["AsgiApp", "served"]

Message: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_SHUTDOWN_SECONDS = 1.0


@asynccontextmanager
async def served(app: AsgiApp, host: str, port: int) -> AsyncIterator[str]:
    """Serve the application while the context lasts; gives its base URL.

    Raises `ConfigurationError` if the address cannot be had. Port 0 takes a free one.
    """

    async def answer(request: web.BaseRequest) -> web.Response:
        return await _answer(app, request)

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}.") from None
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _answer(app: AsgiApp, request: web.BaseRequest) -> web.Response:
    told: dict[str, Any] = {"status": 500, "headers": [], "body": b""}

    async def receive() -> Message:
        piece = await request.content.readany()
        return {"type": "http.request", "body": piece, "more_body": not request.content.at_eof()}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            told["status"], told["headers"] = message["status"], message["headers"]
        else:
            told["body"] += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "path": request.path,
        "raw_path": request.raw_path.encode("latin-1", "replace"),
        "query_string": request.query_string.encode(),
        "headers": [(name.lower(), text) for name, text in request.raw_headers],
    }
    await app(scope, receive, send)
    headers = [(name.decode("latin-1"), text.decode("latin-1")) for name, text in told["headers"]]
    kept = [(name, text) for name, text in headers if name.lower() != "content-length"]
    return web.Response(status=told["status"], body=told["body"], headers=kept)
