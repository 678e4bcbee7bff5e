"""HTTP over aiohttp, behind the `Transport` port.

What it promises: a cancelled call lets go of its connection at once; no redirect is followed, so a key
never travels to another host; bodies pass as sent; every failure is a `TransportError` with a sentence
that holds no credential. Sessions belong to event loops: each loop that uses the transport gets its
own, and gives it back when it shuts down, closed by hand or not.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, NamedTuple

import aiohttp

from headgate.core.outcome import Detail, Kind, Outcome
from headgate.core.ports import Clock, Event, Request, TransportError
from headgate.transport.bounds import LARGEST_BODY, STANDARD_TIMEOUTS, Timeouts
from headgate.transport.request_head import merged
from headgate.transport.sse import EventTooLongError, SseDecoder

__all__ = ["HttpTransport", "Timeouts"]

_LARGE = 1024 * 1024
"""Bytes from which aiohttp warns of a body that is sent at once (3.14, `TOO_LARGE_BYTES_BODY`)."""


class HttpTransport:
    """Sends requests over pooled connections.

    Args:
        ssl_context: makes the TLS context; the default verifies against the system's certificates.
        connections: at once, of each event loop; 0: any number. Waiting for one counts as connecting.
        idle_seconds: how long a connection nobody uses is kept.
        proxy: URL of the HTTP proxy that everything goes through; None: none, whatever the environment
            says.
    """

    def __init__(
        self,
        clock: Clock,
        timeouts: Timeouts = STANDARD_TIMEOUTS,
        ssl_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        *,
        connections: int = 0,
        idle_seconds: float = 15.0,
        proxy: str | None = None,
    ) -> None:
        self._proxy = proxy
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._timeouts = timeouts
        self._ssl_context = ssl_context
        self._keepers: dict[asyncio.AbstractEventLoop, _Kept] = {}

    async def open(
        self,
        request: Request,
        credential: Mapping[str, str],
        deadline: float | None,
        *,
        not_after: float | None = None,
    ) -> HttpExchange:
        """See `Transport.open`."""
        headers = dict(merged(request.headers, credential))
        session = await self._session()
        _due.set(None if not_after is None else _Due(self._clock, not_after))
        try:
            response = await session.request(
                request.method,
                request.url,
                data=_payload(request.body),
                headers=headers,
                timeout=self._timeout(request, deadline),
                allow_redirects=False,
                proxy=self._proxy,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _translate(error) from None
        return HttpExchange(response)

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        kept = self._keepers.pop(asyncio.get_running_loop(), None)
        if kept is not None:
            await kept.keeper.aclose()

    def _timeout(self, request: Request, deadline: float | None) -> aiohttp.ClientTimeout:
        limits = self._timeouts
        left = None if deadline is None else max(0.001, deadline - self._clock.monotonic())
        total = left if request.streaming else min(limits.attempt, left or limits.attempt)
        idle = limits.stream_idle if request.streaming else None
        return aiohttp.ClientTimeout(
            total=total, connect=limits.connect, sock_read=idle, ceil_threshold=float("inf")
        )

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        kept = self._keepers.get(loop)
        if kept is not None and not kept.session.closed:
            return kept.session
        for old in [old for old in list(self._keepers) if old.is_closed()]:
            self._keepers.pop(old, None)  # another thread may have been here first
        keeper = self._keep()
        session = await anext(keeper)
        self._keepers[loop] = _Kept(keeper, session)
        return session

    async def _keep(self) -> AsyncGenerator[aiohttp.ClientSession]:
        """Holds a session open until it is closed, by hand or by the loop.

        A loop that shuts down closes its async generators first, and one that lives on closes those
        that were dropped: so the connections are closed in time even where nobody calls `aclose`.
        """
        connector = _PunctualConnector(
            limit=self._connections,
            keepalive_timeout=self._idle_seconds,
            ssl=self._ssl_context(),
            ttl_dns_cache=60,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            request_class=_PunctualRequest,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            raise_for_status=False,
            requote_redirect_url=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )
        # Whoever instruments aiohttp for the process adds its own; ours would be traced twice, and
        # carry headers that nobody asked for.
        session.trace_configs.clear()
        try:
            yield session
        finally:
            await session.close()


class _Due(NamedTuple):
    clock: Clock
    not_after: float

    @property
    def over(self) -> bool:
        return self.clock.monotonic() > self.not_after


_due: ContextVar[_Due | None] = ContextVar("due", default=None)
"""Of the request that the running task sends: aiohttp hands nothing of ours on to the classes below."""


class _PunctualConnector(aiohttp.TCPConnector):
    """Looks at the clock when a connection is in hand."""

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(*args, **options)
        due = _due.get()
        if due is not None and due.over:
            connection.release()  # warm for the next try
            raise _LateError
        return connection


class _PunctualRequest(aiohttp.ClientRequest):
    """Looks at the clock once more before the first byte.

    aiohttp writes head and body in a task of its own, one turn of the loop after the connection was in
    hand; in a burst that turn may be long. The head is only buffered until then.
    """

    async def write_bytes(
        self, writer: Any, conn: aiohttp.connector.Connection, *args: Any, **options: Any
    ) -> None:
        due = _due.get()
        if due is not None and due.over and conn.protocol is not None:
            conn.protocol.set_exception(_LateError())
            return
        await super().write_bytes(writer, conn, *args, **options)


class _LateError(aiohttp.ClientError):
    """The connection came too late to send anything."""


class _Kept(NamedTuple):
    keeper: AsyncGenerator[aiohttp.ClientSession]
    session: aiohttp.ClientSession


class HttpExchange:
    """One answer of aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._headers = {name.lower(): value for name, value in response.headers.items()}

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers, names in lower case; of a repeated one the last."""
        return self._headers

    async def read(self) -> bytes:
        """The whole body."""
        pieces: list[bytes] = []
        size = 0
        async with aclosing(self._pieces()) as body:
            async for piece in body:
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST_BODY:
                    outcome = Outcome(Kind.PROTOCOL, f"The answer is larger than {LARGEST_BODY} bytes.")
                    raise TransportError(outcome, sent=True)
        return b"".join(pieces)

    async def events(self) -> AsyncGenerator[Event]:
        """The body as server-sent events."""
        decoder = SseDecoder()
        try:
            async with aclosing(self._pieces()) as body:
                async for piece in body:
                    for event in decoder.feed(piece):
                        yield event
        except EventTooLongError as error:
            raise TransportError(Outcome(Kind.PROTOCOL, f"{error}."), sent=True) from None
        for event in decoder.end():
            yield event

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        self._response.close() if not self._response.content.at_eof() else self._response.release()

    async def _pieces(self) -> AsyncGenerator[bytes]:
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _translate(error) from None


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """A large body goes out in pieces: aiohttp would hold the loop up with it, and warns of that."""
    if len(body) < _LARGE:
        return body or None
    return io.BytesIO(body)


def _translate(error: Exception) -> TransportError:
    """One sentence per way of failing. The original is not chained: its text may hold anything."""
    kind, sentence, sent = _classify(error)
    return TransportError(Outcome(kind, sentence, detail=_detail(error)), sent=sent)


def _detail(error: Exception) -> Detail | None:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Detail.DNS
    return Detail.CONNECT_TIMEOUT if isinstance(error, aiohttp.ConnectionTimeoutError) else None


def _classify(error: Exception) -> tuple[Kind, str, bool]:  # noqa: PLR0911, PLR0912 - one each
    match error:
        case _LateError():
            return Kind.LATE, "The connection came too late after the quota was reserved.", False
        case aiohttp.ConnectionTimeoutError():
            return Kind.NETWORK, "No connection within the connect time-out.", False
        case aiohttp.SocketTimeoutError():
            return Kind.TIMEOUT, "The upstream went silent.", True
        case TimeoutError():
            return Kind.TIMEOUT, "The upstream took too long.", True
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Kind.TLS, "The TLS connection could not be verified or set up.", False
        case aiohttp.ClientConnectorDNSError():
            return Kind.NETWORK, f"The name {error.host} could not be resolved.", False
        case aiohttp.ClientConnectorError():
            reason = error.os_error.strerror or "connection refused"
            return Kind.NETWORK, f"No connection to {error.host}:{error.port}: {reason}.", False
        case aiohttp.ClientHttpProxyError():
            return Kind.NETWORK, f"The proxy refused the connection: HTTP {error.status}.", False
        case aiohttp.ServerDisconnectedError():
            return Kind.NETWORK, "The upstream closed the connection without an answer.", True
        case aiohttp.ClientPayloadError():
            return Kind.NETWORK, "The connection broke before the answer was whole.", True
        case aiohttp.ClientResponseError():
            return Kind.PROTOCOL, "The upstream's answer is not valid HTTP.", True
        case aiohttp.InvalidURL():
            return Kind.REQUEST, "The base URL is not a valid URL.", False
        case OSError():
            return Kind.NETWORK, f"The connection broke: {error.strerror or 'reset'}.", True
    return Kind.PROTOCOL, "The upstream's answer could not be read.", True
