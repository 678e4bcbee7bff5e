"""HTTP/1.1 over sockets of our own, behind the `Transport` port: little else, and that fast.

It promises what `headgate.transport.http` does: a cancelled call lets go of its connection at once; no
redirect is followed, so a key never travels to another host; bodies pass as sent; every failure is a
`TransportError` with a sentence that holds no credential. Proxies, HTTP/2 and compression it has not.
Connections belong to event loops: each loop that uses the transport gets its own pool, and gives it
back when it shuts down, closed by hand or not.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from math import inf
from typing import NamedTuple

from headgate.core.outcome import Detail, Kind, Outcome
from headgate.core.ports import Clock, Request, TransportError
from headgate.transport.bounds import STANDARD_TIMEOUTS, Timeouts
from headgate.transport.lean_connection import LeanConnection
from headgate.transport.lean_exchange import LeanExchange
from headgate.transport.lean_parser import load_library
from headgate.transport.lean_pool import LeanPool
from headgate.transport.request_head import Origin, Targets, head_of

__all__ = ["LeanTransport"]


class LeanTransport:
    """Sends requests over pooled connections.

    Args:
        ssl_context: makes the TLS context; the default verifies against the system's certificates. ALPN
            is set on it.
        connections: at once, of each event loop; 0: any number. Waiting for one counts as connecting.
        idle_seconds: how long a connection nobody uses is kept.

    Raises `ConfigurationError` where httptools is not installed.
    """

    def __init__(
        self,
        clock: Clock,
        timeouts: Timeouts = STANDARD_TIMEOUTS,
        ssl_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        *,
        connections: int = 0,
        idle_seconds: float = 15.0,
    ) -> None:
        self._clock = clock
        self._timeouts = timeouts
        self._ssl_context = ssl_context
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._library = load_library()
        self._targets = Targets()
        self._keepers: dict[asyncio.AbstractEventLoop, _Kept] = {}

    async def open(
        self,
        request: Request,
        credential: Mapping[str, str],
        deadline: float | None,
        *,
        not_after: float | None = None,
    ) -> LeanExchange:
        """See `Transport.open`."""
        kept = self._keepers.get(asyncio.get_running_loop())
        pool = kept.pool if kept is not None and not kept.pool.closed else await self._pool()
        method, body = request.method, request.body
        target = self._targets.find(method, request.url)
        head = head_of(target, method, request.headers, credential, len(body))
        due, idle = self._bounds(pool, request, deadline)
        exchange = LeanExchange(pool.loop)
        while True:
            connection = pool.take(target.origin) or await self._connect(pool, target.origin, due)
            if not_after is not None and self._clock.monotonic() > not_after:
                pool.release(connection)  # warm for the next try
                raise _error(Kind.LATE, "The connection came too late after the quota was reserved.")
            if connection.send(exchange, head, body, due=due, idle=idle, head_only=method == "HEAD"):
                break
            if not connection.kept:  # one that was kept may have gone; a new one is an answer
                raise _error(Kind.NETWORK, "The upstream closed the connection before the request.")
        await exchange.opened()
        return exchange

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        kept = self._keepers.pop(asyncio.get_running_loop(), None)
        if kept is not None:
            await kept.keeper.aclose()

    def _bounds(
        self, pool: LeanPool, request: Request, deadline: float | None
    ) -> tuple[float, float | None]:
        """When the answer has to be whole, in the loop's seconds, and how long it may be silent."""
        limits = self._timeouts
        left = inf if deadline is None else deadline - self._clock.monotonic()
        if left <= 0:
            raise _error(Kind.TIMEOUT, "The time was over before anything was sent.")
        if request.streaming:
            return pool.loop.time() + left, limits.stream_idle
        return pool.loop.time() + min(left, limits.attempt), None

    async def _connect(self, pool: LeanPool, origin: Origin, due: float) -> LeanConnection:
        until = pool.loop.time() + self._timeouts.connect
        try:
            return await pool.connect(origin, min(until, due))
        except TimeoutError:
            pass
        if due < until:
            raise _error(Kind.TIMEOUT, "The upstream took too long to connect to.")
        detail = Detail.CONNECT_TIMEOUT
        raise _error(Kind.NETWORK, "No connection within the connect time-out.", detail)

    async def _pool(self) -> LeanPool:
        loop = asyncio.get_running_loop()
        for old in [old for old in list(self._keepers) if old.is_closed()]:
            self._keepers.pop(old, None)  # another thread may have been here first
        keeper = self._keep(loop)
        pool = await anext(keeper)
        self._keepers[loop] = _Kept(keeper, pool)
        return pool

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[LeanPool]:
        """Holds a pool open until it is closed, by hand or by the loop: ADR 0007."""
        pool = LeanPool(
            loop,
            self._library,
            self._ssl_context,
            most=self._connections,
            idle_seconds=self._idle_seconds,
        )
        try:
            yield pool
        finally:
            await pool.aclose()


class _Kept(NamedTuple):
    keeper: AsyncGenerator[LeanPool]
    pool: LeanPool


def _error(kind: Kind, sentence: str, detail: Detail | None = None) -> TransportError:
    """Of a request of which nothing was sent."""
    return TransportError(Outcome(kind, sentence, detail=detail), sent=False)
