"""One request as it comes in: its head at once, its body within bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from headgate.gateway.problems import RequestRefusedError

__all__ = ["ClientGoneError", "Incoming", "Message", "Receive", "Scope", "Send", "read_body"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_MOST_FIELDS = 50

_REMEMBERED = 256
"""Bytes: longer values are not worth remembering."""


class ClientGoneError(Exception):
    """Nobody is there to answer any more."""


class Incoming:
    """The head of a request.

    Attributes:
        path: decoded, without a surface's prefix once that is known.
        headers: names in lower case; of a repeated one the last.
    """

    __slots__ = ("_query", "_scheme", "headers", "method", "path", "query_string")

    def __init__(self, scope: Scope) -> None:
        self._scheme: str = scope.get("scheme", "http")
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query_string: bytes = scope["query_string"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self._query: Mapping[str, str] | None = None

    @property
    def address(self) -> str:
        """Scheme and host, as the client named them."""
        return f"{self._scheme}://{self.text(b'host')}"

    @property
    def query(self) -> Mapping[str, str]:
        """The fields of the query. Raises `RequestRefusedError` for more than anybody needs."""
        if self._query is None:
            text = self.query_string.decode("latin-1")
            try:
                pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
            except ValueError:
                raise RequestRefusedError("The query has too many fields.") from None
            self._query = dict(pairs)
        return self._query

    @property
    def credential(self) -> bytes:
        """What a client proves itself with, wherever its SDK puts it; empty where there is nothing."""
        headers = self.headers
        for name in (b"x-goog-api-key", b"x-api-key"):
            if value := headers.get(name, b"").strip():
                return value
        scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and value.strip():
            return value.strip()
        if b"key=" in self.query_string:
            return self.query.get("key", "").encode()
        return b""

    def text(self, name: bytes) -> str:
        """A header as text; empty where it is missing, or holds what no header of ours may hold."""
        value = self.headers.get(name, b"")
        return _plain(value) if len(value) <= _REMEMBERED else _plain.__wrapped__(value)

    def only(self, allowed: Mapping[bytes, str]) -> dict[str, str]:
        """These of the headers, for the upstream. A value that is not plain text stays behind."""
        headers, found = self.headers, {}
        for name, shown in allowed.items():
            if name in headers and (text := self.text(name)):
                found[shown] = text
        return found

    def declared_length(self) -> int | None:
        """Bytes of the body as its client says; None where it does not. Raises
        `RequestRefusedError`."""
        given = self.headers.get(b"content-length")
        if given is None:
            return None if b"transfer-encoding" in self.headers else 0
        if not given.isdigit() or len(given) > 18:
            raise RequestRefusedError("content-length is not a number.", closes=True)
        return int(given)


@lru_cache(maxsize=4096)
def _plain(value: bytes) -> str:
    """Clients say the same in every request. No credential comes by here: this remembers."""
    text = value.decode("latin-1")
    return text if text.isascii() and text.isprintable() else ""


async def read_body(incoming: Incoming, receive: Receive, most: int) -> bytes:
    """The whole body; how long it may take is watched where the connection is (`server.py`).

    Args:
        most: bytes.

    Raises:
        RequestRefusedError: 413, it is too large.
        ClientGoneError: the client went away before it was whole.
    """
    declared = incoming.declared_length()
    if declared is not None and declared > most:
        raise _too_large(most, closes=declared > 2 * most)
    message = await receive()
    body = _body_of(message)
    if not message.get("more_body", False):
        if len(body) > most:
            raise _too_large(most, closes=True)
        return body
    pieces, size = [body], len(body)
    while message.get("more_body", False):
        if size > most:
            raise _too_large(most, closes=True)
        message = await receive()
        pieces.append(_body_of(message))
        size += len(pieces[-1])
    if size > most:
        raise _too_large(most, closes=True)
    return b"".join(pieces)


def _body_of(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    body: bytes = message.get("body", b"")
    return body


def _too_large(most: int, *, closes: bool) -> RequestRefusedError:
    return RequestRefusedError(
        f"The body is larger than {most} bytes, the most this gateway takes. Its operator can raise "
        "HEADGATE_GATEWAY_MAX_BODY_MIB.",
        status=413,
        closes=closes,
    )
