"""The connections of one event loop: kept warm per origin, bounded in number, given out in order.

Who finds no connection and no room for another waits in a line, first come, first served. A slot is
held from before a connection is begun until its socket is closed, so the bound holds at every instant.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf

from aiohappyeyeballs import start_connection

from headgate.core.outcome import Detail, Kind, Outcome
from headgate.core.ports import TransportError
from headgate.transport.lean_connection import LeanConnection
from headgate.transport.lean_names import Names
from headgate.transport.lean_parser import Library
from headgate.transport.request_head import Origin

__all__ = ["LeanPool"]

_LONGEST_LIFE = 600.0
"""Seconds after which a connection is not used again: a busy one would never learn of a new address."""

_LOOK_AGAIN = 0.05
"""Seconds of rest after which the system is asked whether a connection still stands, for 1 µs: under
load connections rest for less, and a loop that is not late has heard of what is older."""

_NEXT_ADDRESS = 0.25
"""Seconds until the next address is tried beside the first: RFC 8305, 5."""

_TO_SPARE = 1.0
"""Seconds before the upstream says it closes an idle connection, when it is not used any more."""

_PROBES = (("TCP_KEEPIDLE", 45), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""A peer that vanished is noticed after 105 s of silence; a model may think for longer than that."""


class LeanPool:
    """Connections of one event loop.

    Args:
        library: what parses answers.
        make_context: the TLS context; made when it is first needed.
        most: connections at once, standing or being made; 0: any number.
        idle_seconds: how long one that nobody uses is kept.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        library: Library,
        make_context: Callable[[], ssl.SSLContext],
        *,
        most: int,
        idle_seconds: float,
    ) -> None:
        self.loop = loop
        self.closed = False
        self._library = library
        self._make_context = make_context
        self._context: ssl.SSLContext | None = None
        self._most = most or inf
        self._idle_seconds = idle_seconds
        self._names = Names(loop)
        self._slots = 0
        self._all: set[LeanConnection] = set()
        self._idle: dict[Origin, list[LeanConnection]] = {}
        self._line: OrderedDict[asyncio.Future[LeanConnection | None], Origin] = OrderedDict()
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None

    @property
    def slots(self) -> int:
        """Connections that stand or are being made."""
        return self._slots

    # ── getting one ─────────────────────────────────────────────────────────────────────────────

    def take(self, origin: Origin) -> LeanConnection | None:
        """A connection that is kept, the one used last, or None."""
        idle = self._idle.get(origin)
        now = self.loop.time()
        while idle:
            connection = idle.pop()
            rested = now - connection.rested
            if connection.expires > now and (rested < _LOOK_AGAIN or connection.stands()):
                return connection
            connection.abort()
        return None

    async def connect(self, origin: Origin, until: float) -> LeanConnection:
        """A new connection, or one that came free while there was no room for a new one.

        Args:
            until: seconds of the loop.

        Raises `TransportError`, and `TimeoutError` at `until`. Cancelling it closes what was begun.
        """
        context = self._tls() if origin.secure else None
        with _told(origin):
            try:
                async with asyncio.timeout_at(until):
                    connection = await self._slot(origin)
                    if connection is None:
                        connection = await self._make(origin, context)
            except TimeoutError:
                self._names.forget(origin.host, origin.port)  # nobody may be there any more
                raise
        return connection

    async def _slot(self, origin: Origin) -> LeanConnection | None:
        """Room for a connection, or one that was given back meanwhile."""
        if self._slots < self._most and not self._line:
            self._slots += 1
            return None
        self._make_room()
        waiter: asyncio.Future[LeanConnection | None] = self.loop.create_future()
        self._line[waiter] = origin
        try:
            return await waiter
        except asyncio.CancelledError:
            self._line.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                connection = waiter.result()
                self._free() if connection is None else self.release(connection)
            raise

    async def _make(self, origin: Origin, context: ssl.SSLContext | None) -> LeanConnection:
        """Connect in a slot that is held already."""
        connection: LeanConnection | None = None
        try:
            addresses = await self._names.find(origin.host, origin.port)
            try:
                sock = await start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS, loop=self.loop
                )
            except OSError:
                self._names.forget(origin.host, origin.port)
                raise
            _keep_alive(sock)
            connection = LeanConnection(self, origin, sock, self.loop, self._library)
            name = origin.host.rstrip(".").partition("%")[0] if context is not None else None
            await self.loop.create_connection(
                _always(connection), sock=sock, ssl=context, server_hostname=name
            )  # from here on the loop closes the socket
            if self.closed:
                raise ConnectionAbortedError(None, "the transport was closed")
            if not connection.closed:
                self._all.add(connection)
        except BaseException:
            if connection is not None and connection.made:
                connection.abort()
            else:
                self._free()
            raise
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = self._make_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    # ── giving it back ──────────────────────────────────────────────────────────────────────────

    def release(self, connection: LeanConnection) -> None:
        """It may serve the next: whoever waits longest, or whoever comes before it expires."""
        connection.kept = True
        now = self.loop.time()
        if self.closed or connection.closed or now - connection.born > _LONGEST_LIFE:
            connection.abort()
            return
        if self._line:
            self._serve_line(connection)
            return
        seconds = self._idle_seconds
        if connection.kept_seconds is not None:
            seconds = min(seconds, connection.kept_seconds - _TO_SPARE)
        if seconds <= 0:
            connection.abort()
            return
        connection.rested = now
        connection.expires = now + seconds
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweeper is None:
            self._sweeper = self.loop.call_at(connection.expires, self._sweep)

    def _serve_line(self, connection: LeanConnection) -> None:
        """First come, first served: where the first wants to go elsewhere, it gets the room."""
        waiter, origin = next(iter(self._line.items()))
        if waiter.done() or origin == connection.origin:
            del self._line[waiter]
            if waiter.done():
                self.release(connection)
            else:
                waiter.set_result(connection)
        else:
            connection.abort()

    def lost(self, connection: LeanConnection) -> None:
        """Its socket is closed."""
        self._all.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle is not None and connection in idle:
            idle.remove(connection)
        self._free()
        if self._emptied is not None and not self._all and not self._emptied.done():
            self._emptied.set_result(None)

    def _free(self) -> None:
        """A slot is free: it goes to whoever waits longest."""
        while self._line:
            waiter, _ = self._line.popitem(last=False)
            if not waiter.done():
                waiter.set_result(None)
                return
        self._slots -= 1

    def _make_room(self) -> None:
        """All slots are taken: one that only keeps a connection warm is worth less than a call."""
        for idle in self._idle.values():
            if idle:
                idle.pop(0).abort()
                return

    def _sweep(self) -> None:
        """Close what nobody used in time."""
        now = self.loop.time()
        self._sweeper = None
        soonest = inf
        for origin in list(self._idle):
            idle = self._idle[origin]
            stale = [connection for connection in idle if connection.expires <= now]
            idle[:] = [connection for connection in idle if connection.expires > now]
            for connection in stale:
                connection.abort()
            if idle:
                soonest = min(soonest, *(connection.expires for connection in idle))
            else:
                del self._idle[origin]
        if soonest < inf:
            self._sweeper = self.loop.call_at(soonest, self._sweep)

    async def aclose(self) -> None:
        """Close every connection, used or not, and wait until their sockets are closed."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._line:
            waiter, _ = self._line.popitem(last=False)
            if not waiter.done():
                waiter.set_exception(ConnectionAbortedError(None, "the transport was closed"))
        await self._names.aclose()
        for connection in list(self._all):
            connection.abort()
        if self._all:
            self._emptied = self.loop.create_future()
            await self._emptied


def _keep_alive(sock: socket.socket) -> None:
    with suppress(OSError):  # a reset one can be given no options on some systems
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES:
            option = getattr(socket, name, None)  # not every system has them
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _always(connection: LeanConnection) -> Callable[[], LeanConnection]:
    return lambda: connection


@contextmanager
def _told(origin: Origin) -> Iterator[None]:
    """One sentence per way of not getting a connection. Nothing was sent in any of them."""
    detail = None
    try:
        yield
        return
    except TimeoutError as error:
        if error.errno is None:  # ours; the system has one of the same name
            raise
        kind, sentence = Kind.NETWORK, f"No connection to {origin.host}:{origin.port}: timed out."
    except ssl.SSLError:
        kind, sentence = Kind.TLS, "The TLS connection could not be verified or set up."
    except socket.gaierror:
        kind, sentence = Kind.NETWORK, f"The name {origin.host} could not be resolved."
        detail = Detail.DNS
    except OSError as error:
        reason = error.strerror or "connection refused"
        kind = Kind.NETWORK
        sentence = f"No connection to {origin.host}:{origin.port}: {reason}."
    raise TransportError(Outcome(kind, sentence, detail=detail), sent=False) from None
