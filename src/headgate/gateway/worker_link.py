"""What a worker and the process that started it tell each other: a line of JSON at a time, over a pair
of sockets that ends when either does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

__all__ = ["Crew", "Heard", "Link", "Order", "Report", "Told", "pair"]

_LARGEST = 64 * 1024
"""Bytes of a message; both sides write less."""

M = TypeVar("M")


class Crew(msgspec.Struct, frozen=True, tag="crew"):
    """What a worker is told, at its start and whenever something changed.

    Attributes:
        number: the worker's, from 1.
        ready: how many workers take calls.
        workers: how many there are to be.
        seal: secret of all workers of this gateway, for what one hands out and another must know again.
        introduces: whether the worker is the one that says, once all are there, what is served.
    """

    number: int
    ready: int
    workers: int
    seal: str
    introduces: bool = False

    @property
    def whole(self) -> bool:
        """Whether all are there."""
        return self.ready >= self.workers

    def __repr__(self) -> str:
        return f"Crew(number={self.number}, ready={self.ready}, workers={self.workers})"


class Report(msgspec.Struct, frozen=True, tag="report"):
    """What a worker tells: that it takes calls."""

    ready: bool


class Order(msgspec.Struct, frozen=True, tag="order"):
    """What one worker was ordered and all are to do. What it means only they know."""

    text: str


Told: TypeAlias = Crew | Order
"""What a worker hears."""

Heard: TypeAlias = Report | Order
"""What is heard from a worker."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets, for the ends of a link."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class Link(Generic[M]):
    """One end of it.

    Args:
        end: owned from now on.
        kind: of the messages that come in; others are passed over.
    """

    def __init__(self, end: socket.socket, kind: Any) -> None:
        end.setblocking(False)
        self._socket = end
        self._decoder: msgspec.json.Decoder[M] = msgspec.json.Decoder(kind)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest = b""  # that came in, without its end
        self._unsent = b""
        self._on_message: Callable[[M], None] = lambda _: None
        self._on_end: Callable[[], None] = lambda: None

    def tell(self, message: Told | Heard) -> None:
        """Send a message, now or when there is room. A reader that is gone misses it."""
        waiting = bool(self._unsent)
        self._unsent += msgspec.json.encode(message) + b"\n"
        if not waiting:
            self._write()

    def first(self) -> M:
        """The first message, which the other side has sent already; before `attend`. Raises
        `EOFError`."""
        self._socket.setblocking(True)
        while b"\n" not in self._rest:
            piece = self._socket.recv(_LARGEST)
            if not piece:
                raise EOFError("whoever started this worker is gone")
            self._rest += piece
        self._socket.setblocking(False)
        line, _, self._rest = self._rest.partition(b"\n")
        return self._decoder.decode(line)

    def attend(self, on_message: Callable[[M], None], on_end: Callable[[], None]) -> None:
        """Hear messages on the running loop, and once that there will be no more."""
        self._on_message, self._on_end = on_message, on_end
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._read)
        self._hear(b"")  # what came with the first

    def close(self) -> None:
        """Tell the other side that this one is gone."""
        self._leave()
        self._socket.close()

    def _leave(self) -> None:
        if self._loop is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._loop = None

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(self._unsent)  # that it is gone is told by its end
        self._unsent = self._unsent[sent:]
        if self._loop is None:
            return
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._write)
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        try:
            piece = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self._hear(piece)
        if not piece or len(self._rest) > _LARGEST:
            self._leave()
            self._on_end()

    def _hear(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            with suppress(msgspec.DecodeError):  # of another version: nothing it says is known here
                self._on_message(self._decoder.decode(line))
