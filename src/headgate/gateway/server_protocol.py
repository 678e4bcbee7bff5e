"""One connection of the gateway: uvicorn's protocol, with bounds on what a client may send and how long
it may take, and word of a client that goes away.

    head        so many seconds from its first byte; so many bytes, headers and bytes of its target
    body        then as long as one of its length takes at the slowest rate
    answer      a client that reads nothing of it, or next to nothing, is cut off
    connections so many at a time; requests that come before their turn: so many on each
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.gateway.visits import CONNECTION
from headgate.wiring.gateway_settings import GatewaySettings

__all__ = ["ServerBounds", "protocol"]

if sys.platform.startswith("linux"):
    import fcntl
    import termios

    _OUTGOING: int | None = termios.TIOCOUTQ  # SIOCOUTQ, tcp(7): sent, or to be, and not acknowledged
else:
    _OUTGOING = None

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~%!$&'()*+,;=-]*)(?::\d*)?", re.ASCII)
"""What names a host (RFC 3986, 3.2.2), and not also a path or a query: another reader of the request
might take it for one. Empty where a client has no name for it (RFC 9112, 3.2)."""

_BAD = b"400 Bad Request"
_SLOW = b"408 Request Timeout"
_LONG_TARGET = b"414 URI Too Long"
_LARGE_HEAD = b"431 Request Header Fields Too Large"
_FULL = b"503 Service Unavailable"


@dataclass(frozen=True, slots=True)
class ServerBounds:
    """What one connection may ask of a process, and all together.

    Attributes:
        head_seconds: from the first byte of a request until its head is in.
        head_bytes: of a head: names and values of its headers.
        headers: of a request.
        target_bytes: of the path with its query.
        slowest_sender: bytes a second; a body may take `head_seconds` and as long as one of its length
            takes at this rate.
        slowest_reader: bytes a second that a client reads where more than the system's buffers hold
            waits for it.
        reader_stall_seconds: how often that is looked at, so how long nothing may be read.
        keep_alive_seconds: until a connection without requests is closed. More than the 60 s that load
            balancers commonly keep one: they should close it.
        connections: at a time; 0: as many as the process may have files for.
        pipelined: requests of a connection that wait for the answer to an earlier one.
        body_bytes: of the largest body: one without a length may take as long as that.
    """

    head_seconds: float = 10.0
    head_bytes: int = 64 * 1024
    headers: int = 100
    target_bytes: int = 8 * 1024
    slowest_sender: int = 64 * 1024
    slowest_reader: int = 1024
    reader_stall_seconds: float = 60.0
    keep_alive_seconds: int = 75
    connections: int = 0
    pipelined: int = 16
    body_bytes: int = 20 * 1024 * 1024

    @classmethod
    def of(cls, settings: GatewaySettings) -> ServerBounds:
        """Those that the settings say."""
        return cls(
            head_seconds=settings.head_seconds,
            head_bytes=settings.max_head_kib * 1024,
            headers=settings.max_headers,
            slowest_sender=settings.slowest_sender_kib * 1024,
            reader_stall_seconds=settings.reader_stall_seconds,
            connections=settings.max_connections,
            body_bytes=settings.max_body_mib * 1024 * 1024,
        )


def protocol(bounds: ServerBounds) -> type[HttpToolsProtocol]:
    """The protocol of the connections of a server with these bounds."""
    return type("_ThisServersConnection", (_Connection,), {"bounds": bounds})


class _Connection(HttpToolsProtocol):
    """One connection.

    Attributes:
        bounds: of all connections of a server.
        on_gone: called once when the connection is lost, while a request is being served.
    """

    bounds = ServerBounds()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_gone: Callable[[], None] | None = None
        self._receiving = True  # a request is awaited, and is not in yet
        self._begun = False  # whether any of it is in
        self._head_is_in = False
        self._has_host = False
        self._host = b""  # that was right; one connection seldom names another
        self._head_bytes = 0  # of the headers that were read
        self._dribbled = 0  # of heads that did not come at once
        self._fault = _BAD  # what a request that the parser gave up is answered with
        self._doomed = False  # what came after the request that is being served was no request
        self._deadline: Any = None  # asyncio.TimerHandle
        self._unread: Any = None  # asyncio.TimerHandle, while somebody leaves an answer unread
        self._was_unread = 0

    # ── the connection ──────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if 0 < self.bounds.connections < len(self.connections):
            self._answer(_FULL, b"retry-after: 1\r\n")
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._read_again()
        super().connection_lost(exc)
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        if self._doomed or self.transport.is_closing():
            return  # nothing that comes after a refusal is a request
        super().data_received(data)
        if not self._receiving:
            self._disarm()
            return
        if not self._head_is_in:
            self._dribbled += len(data)
            if self._dribbled > self.bounds.head_bytes + self.bounds.target_bytes:
                self._answer(_LARGE_HEAD)
                return
        self._arm()

    # ── a request ───────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self.flow.write_paused:
            self._read_again()  # what is left of earlier answers is little, and told anew with the next
        self._receiving, self._begun, self._head_is_in, self._has_host = True, True, False, False
        self._head_bytes, self._dribbled, self._fault = 0, 0, _BAD

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.bounds.target_bytes:
            self._give_up(_LONG_TARGET)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self.bounds.head_bytes or len(self.headers) >= self.bounds.headers:
            self._give_up(_LARGE_HEAD)
        if len(name) == 4 and name.lower() == b"host":
            if self._has_host or (value != self._host and not _HOST.fullmatch(value.strip())):
                self._give_up(_BAD)
            self._has_host, self._host = True, value
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_is_in = True
        if len(self.pipeline) >= self.bounds.pipelined:
            self._give_up(_FULL)
        super().on_headers_complete()
        self.scope[CONNECTION] = self  # type: ignore[literal-required] # an extension of ours

    def on_message_complete(self) -> None:
        self._receiving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._doomed:
            self.transport.close()
        super().on_response_complete()
        self._watch_reader()

    def _give_up(self, status: bytes) -> None:
        """Have the parser stop, which calls `send_400_response`."""
        self._fault = status
        raise ValueError(status.decode())

    # ── slow senders ────────────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.bounds.head_seconds, self._head_is_due)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_due(self) -> None:
        self._deadline = None
        if self._waits():
            self._arm()
        elif self._head_is_in:
            seconds = self._body_bytes() / self.bounds.slowest_sender
            self._deadline = self.loop.call_later(seconds, self._too_slow)
        else:
            self._too_slow()

    def _waits(self) -> bool:
        """Whether it is this side that does not go on with what comes in."""
        return self.flow.read_paused or self._is_later()

    def _is_later(self) -> bool:
        """Whether what comes in is another request than the one that is being served."""
        if self.pipeline:
            return True
        own = self._receiving and self._head_is_in
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete and not own

    def _body_bytes(self) -> int:
        """Of the body that comes in, as its client says, and at most what is taken at all."""
        most = self.bounds.body_bytes
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit():
                return min(int(value[:18]), most)
        return most

    def _too_slow(self) -> None:
        self._deadline = None
        if self._waits():
            self._arm()
        elif self._begun:
            self._answer(_SLOW)
        else:
            self.transport.close()

    # ── slow readers ────────────────────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_again()
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and cycle.response_complete:
            self._watch_reader()  # what is left is less, and may be left for good

    def _watch_reader(self) -> None:
        if self._unread is None and self.transport.get_write_buffer_size():
            self._was_unread = _unread(self.transport)
            self._unread = self.loop.call_later(self.bounds.reader_stall_seconds, self._still_unread)

    def _still_unread(self) -> None:
        self._unread = None
        if not self.transport.get_write_buffer_size():
            return
        read = self._was_unread - _unread(self.transport)
        if read >= self.bounds.reader_stall_seconds * self.bounds.slowest_reader:
            self._watch_reader()
        else:
            self.transport.abort()  # closing would wait until all of it is read

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # ── refusals ────────────────────────────────────────────────────────────────────────────────

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's
        """What is no HTTP, or more of it than anybody needs, is answered and done with."""
        self._answer(self._fault)

    def _answer(self, status: bytes, further: bytes = b"") -> None:
        if self.transport.is_closing():
            return
        self._disarm()
        if self._is_later():
            self._doomed = True  # an earlier request gets its answer yet
            return
        cycle: Any = self.cycle
        answered = cycle is not None and cycle.response_started
        if not answered or not (self._receiving and self._head_is_in):  # or it has its answer, or half
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\n" + further
                + b"content-length: 0\r\nconnection: close\r\n\r\n"
            )  # fmt: skip
        self.transport.close()
        self._watch_reader()


def _unread(transport: asyncio.Transport) -> int:
    """Bytes of answers that the other side has not taken: in this process, and in the system's buffer.

    That buffer holds megabytes, and takes more only when a good part of it is free: by what is left
    here alone, a client that reads 20 KB a second would seem to read nothing for a minute.
    """
    waiting = transport.get_write_buffer_size()
    taken = transport.get_extra_info("socket")
    if _OUTGOING is None or taken is None:
        return waiting
    with suppress(OSError, ValueError):
        answer = fcntl.ioctl(taken.fileno(), _OUTGOING, bytes(4))
        waiting += int.from_bytes(answer, sys.byteorder)
    return waiting
