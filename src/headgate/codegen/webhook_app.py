"""The receiver of webhooks as an ASGI application: `POST /webhooks/codegen`, nothing else.

    app = webhook_app(client.get_webhook_handler())

| answer | when |
|---|---|
| 200 | told, or nobody asked for this type, or it had come before |
| 400 | no event |
| 401 | the signature is missing or wrong, or its time is off |
| 404, 405 | another path, another method |
| 413 | larger than 1 MB; reading stops there |
| 500 | every handler failed: whoever sent it should try again |
| 503 | more events at once than can be told apart |
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from headgate.codegen.errors import WebhookError
from headgate.codegen.webhooks import LARGEST_BODY, WebhookHandler

__all__ = ["webhook_app"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def webhook_app(handler: WebhookHandler, path: str = "/webhooks/codegen") -> App:
    """The application. Mount it, or serve it with any ASGI server."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"webhooks come over http, not {scope['type']}")
        status, answer = await _answer(handler, path, scope, receive)
        await _send(send, status, answer)

    return app


async def _answer(
    handler: WebhookHandler, path: str, scope: Scope, receive: Receive
) -> tuple[int, dict[str, Any]]:
    if scope["path"].rstrip("/") != path.rstrip("/"):
        return 404, {"status": "error", "error": "Not found."}
    if scope["method"] != "POST":
        return 405, {"status": "error", "error": "Only POST."}
    headers = {
        name.decode("latin-1").lower(): text.decode("latin-1") for name, text in scope["headers"]
    }
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:12]) > LARGEST_BODY:
        return 413, {"status": "error", "error": f"The body is larger than {LARGEST_BODY} bytes."}
    body = await _body(receive)
    if body is None:
        return 413, {"status": "error", "error": f"The body is larger than {LARGEST_BODY} bytes."}
    try:
        result = await handler.process(body, headers=headers)
    except WebhookError as error:
        return error.status_code or 400, {"status": "error", "error": error.message}
    # What handlers returned or said of their failures is nobody's business outside.
    shown = {name: result[name] for name in ("status", "event_type", "duplicate")}
    return 500 if result["status"] == "error" else 200, shown


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None as soon as it is too large."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _send(send: Send, status: int, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
