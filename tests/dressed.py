"""Additions of the content service in an application of the smallest kind, asked without sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate.content.http_caching import KeptResults
from headgate.content.ports import Addition, ReplyFacts
from headgate.content.problems import RefusedError


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": error.message}, error.http_status)


@dataclass
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    cookies: list[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Dressed:
    """An application that treats additions as the service does: `enter`, the route, `dress`.

    Beside their routes it has `POST /api/echo`, which keeps what it answers, `GET /api/stats` and the
    admin's `GET /api/cache/stats`.
    """

    def __init__(
        self, *additions: Addition, results: KeptResults | None = None, private: bool = False
    ) -> None:
        self._additions = additions
        self._results = results
        self._private = private
        routes = [route for addition in additions for route in addition.routes()]
        routes += [
            Route("/api/echo", self._echo, methods=["POST"]),
            Route("/api/stats", self._stats),
            Route("/api/cache/stats", self._stats),
        ]
        self._inner = Starlette(routes=routes, exception_handlers={RefusedError: _refused})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        request = Request(scope, receive)
        scope.setdefault("state", {})
        for addition in self._additions:
            await addition.enter(request)
        facts = ReplyFacts(
            "echo", private=self._private, admin=request.url.path.startswith("/api/cache/")
        )

        async def dressing(message: Any) -> None:
            if message["type"] == "http.response.start":
                response = Response(status_code=message["status"])
                response.raw_headers = message["headers"] = list(message["headers"])
                for addition in self._additions:
                    addition.dress(request, response, facts)
                message["headers"] = response.raw_headers
            await send(message)

        await self._inner(scope, receive, dressing)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        host: str = "127.0.0.1:5000",
        root_path: str = "",
    ) -> Got:
        """One request."""
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        fields = {
            "host": host,
            **({"content-type": "application/json"} if sent else {}),
            **(headers or {}),
        }
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": root_path, "server": ("127.0.0.1", 5000), "client": ("127.0.0.1", 1),
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        }  # fmt: skip
        got = Got(0, {}, [], b"")

        async def receive() -> Any:
            return {"type": "http.request", "body": sent, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                got.status = message["status"]
                for name, value in message["headers"]:
                    got.headers[name.decode().lower()] = value.decode()
                    if name.lower() == b"set-cookie":
                        got.cookies.append(value.decode())
            else:
                got.body += message.get("body", b"")

        await self(scope, receive, send)
        return got

    async def _echo(self, request: Request) -> Response:
        body = await request.body()
        response = Response(body, media_type="application/json")
        digest = await self._results.keep(body) if self._results is not None else None
        if digest is not None:
            response.headers["content-location"] = f"/api/results/{digest}"
        return response

    async def _stats(self, _: Request) -> Response:
        return JSONResponse({})
