"""One connection: bytes out and in, one request at a time, and never a doubt whose answer it is.

A connection is used again only after an answer that ended where its head said, with nothing behind it
and all of the request gone out. Everything else closes it: a parser that balks, bytes nobody asked for,
an answer whose reader walked away. What the upstream sends is bounded before it is kept.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from math import inf
from typing import Protocol, cast

from headgate.core.outcome import Kind, Outcome
from headgate.transport.lean_exchange import LeanExchange
from headgate.transport.lean_parser import AnswerParser, Library
from headgate.transport.request_head import Origin
from headgate.transport.response_head import InvalidAnswerError

__all__ = ["Home", "LeanConnection"]

_LARGE_BODY = 64 * 1024  # bytes from which joining head and body costs more than a second write
_TICK = 0.001  # seconds a timer of a loop may come early


class Home(Protocol):
    """Where connections belong."""

    def release(self, connection: LeanConnection) -> None:
        """It may serve the next request."""

    def lost(self, connection: LeanConnection) -> None:
        """Its socket is closed."""


class LeanConnection(asyncio.Protocol):
    """A connection of a pool.

    Attributes:
        origin: where it leads.
        born: when it was begun, in seconds of the loop.
        rested: since when it waits for a request, in the same seconds.
        expires: when it is not used any more.
        kept_seconds: how long the upstream keeps it while idle, where it said so.
        kept: whether it was given back once: then it may be gone for no fault of the upstream.
        made: whether it ever stood: then its home hears of its end.
        closed: whether it is of no more use.
    """

    __slots__ = (
        "_armed_for",
        "_due",
        "_exchange",
        "_home",
        "_idle",
        "_loop",
        "_now",
        "_parser",
        "_paused",
        "_seen",
        "_socket",
        "_timer",
        "_transport",
        "_unsent",
        "born",
        "closed",
        "expires",
        "kept",
        "kept_seconds",
        "made",
        "origin",
        "rested",
    )

    def __init__(
        self,
        home: Home,
        origin: Origin,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        library: Library,
    ) -> None:
        self._home = home
        self._socket = sock
        self._loop = loop
        self._now = loop.time
        self._parser = AnswerParser(library)
        self._transport: asyncio.Transport | None = None
        self._exchange: LeanExchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = self._due = inf
        self._idle: float | None = None
        self._seen = 0.0
        self._paused = False
        self._unsent = 0
        self.origin = origin
        self.born = self.rested = self._now()
        self.expires = inf
        self.kept_seconds: int | None = None
        self.kept = self.made = self.closed = False

    # ── out ─────────────────────────────────────────────────────────────────────────────────────

    def send(
        self,
        exchange: LeanExchange,
        head: bytes,
        body: bytes,
        *,
        due: float,
        idle: float | None,
        head_only: bool = False,
    ) -> bool:
        """Write a request whose answer fills `exchange`.

        Args:
            due: when the answer has to be whole, in seconds of the loop.
            idle: seconds of silence that end it.
            head_only: the request is a HEAD.

        Returns False if the system took not a byte of it: the connection was gone.
        """
        transport = self._transport
        if transport is None or self.closed or transport.is_closing():
            return False
        self._seen = now = self._now()
        self._due, self._idle = due, idle
        soonest = due if idle is None else min(due, now + idle)
        if soonest < self._armed_for:
            self._arm(soonest)
        self._parser.expect(exchange, head_only=head_only)
        self._exchange = exchange
        exchange.wire = self
        apart = len(body) > _LARGE_BODY
        transport.write(head if apart else head + body)
        if transport.is_closing():  # the first bytes of all were refused
            self._exchange = exchange.wire = None
            return False
        if apart:
            transport.write(body)
            self._unsent = transport.get_write_buffer_size()
        return True

    def drop(self, exchange: LeanExchange) -> None:
        """Close at once if this answer is still on its way; else it is another's connection by now."""
        if self._exchange is exchange:
            self._exchange = None
            self.abort()

    def abort(self) -> None:
        """Close without a word: what waits to be written is thrown away."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def stands(self) -> bool:
        """Whether the socket has nothing to say: no end, no reset, no bytes nobody asked for.

        Asks the system, for what arrived while the loop was busy is not known here yet.
        """
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    # ── in ──────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands, TLS included."""
        self.made = True
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse, hand on, and look whether that was all."""
        exchange = self._exchange
        if exchange is None:  # nobody asked
            self.abort()
            return
        parser = self._parser
        try:
            parser.feed(data)
        except InvalidAnswerError as error:
            self._break_off(Kind.PROTOCOL, f"The upstream's answer is not valid HTTP: {error}.")
            return
        if parser.done:
            self._complete(exchange)
        elif parser.progress:
            self._seen = self._now()
            if exchange.held > exchange.limit:
                self._restrain(exchange)
            exchange.wake()

    def eof_received(self) -> None:
        """The upstream sends no more. Some bodies end like this; over TLS only if it says so there."""
        exchange, self._exchange = self._exchange, None
        framing = self._parser.framing
        ended = exchange is not None and framing is not None and framing.until_close and self._signed()
        self.abort()
        if exchange is None:
            return
        if ended:
            exchange.finish()
        else:
            exchange.fail(Outcome(Kind.NETWORK, self._what_broke(None)))

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, by either side."""
        self.closed = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.fail(Outcome(Kind.NETWORK, self._what_broke(exc)))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = None
        self._parser.close()
        self._home.lost(self)

    def _signed(self) -> bool:
        """Whether an end is the upstream's own: over TLS anybody on the way can cut a connection.

        asyncio calls `eof_received` for both; only after the upstream's close alert does a read say so.
        """
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        if tls is None:
            return True
        try:
            return not tls.read(1)
        except ssl.SSLError:
            return False

    def _complete(self, exchange: LeanExchange) -> None:
        self._exchange = None
        parser, transport = self._parser, self._transport
        parser.sink = None
        if parser.framing is not None:
            self.kept_seconds = parser.framing.kept_seconds
        if (
            parser.reusable
            and not self.closed
            and transport is not None
            and not transport.get_write_buffer_size()  # else it answered before it heard everything
            and not transport.is_closing()
        ):
            if self._paused:
                self.resume()
            self._home.release(self)
        else:
            self.abort()
        exchange.finish()

    def _restrain(self, exchange: LeanExchange) -> None:
        if exchange.whole:
            self._break_off(Kind.PROTOCOL, f"The answer is larger than {exchange.limit} bytes.")
        elif not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read the socket again."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._seen = self._now()  # the silence was ours
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _break_off(self, kind: Kind, sentence: str) -> None:
        exchange, self._exchange = self._exchange, None
        self.abort()
        if exchange is not None:
            exchange.fail(Outcome(kind, sentence))

    def _what_broke(self, error: Exception | None) -> str:
        if not self._parser.silent:
            return "The connection broke before the answer was whole."
        if isinstance(error, OSError):
            return f"The connection broke: {error.strerror or 'reset'}."
        return "The upstream closed the connection without an answer."

    def _takes_more(self) -> bool:
        """Whether the upstream has taken some of the request since this was asked last."""
        before = self._unsent
        self._unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._unsent < before

    # ── time ────────────────────────────────────────────────────────────────────────────────────

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = when
        self._timer = self._loop.call_at(when, self._look_at_time)

    def _look_at_time(self) -> None:
        """The timer went off. It is set once for many requests, so mostly it is too early."""
        self._timer = None
        self._armed_for = inf
        if self._exchange is None:
            return
        now = self._now()
        if self._paused or self._takes_more():
            self._seen = now  # the reader is slow, or the request large, but nobody is silent
        silent_until = inf if self._idle is None else self._seen + self._idle
        soonest = min(self._due, silent_until)
        if soonest - now > _TICK:
            self._arm(soonest)
        elif self._due <= silent_until:
            self._break_off(Kind.TIMEOUT, "The upstream took too long.")
        else:
            self._break_off(Kind.TIMEOUT, "The upstream went silent.")
