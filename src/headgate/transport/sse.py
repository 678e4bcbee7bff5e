"""Server-sent events out of bytes, however the network cuts them.

The framing of the HTML standard (data lines, comments, CRLF, LF or CR, byte-order mark), with one
addition: text that is no field of an event stream is handed on as an unframed `Event`, because some
upstreams drop a bare JSON error into a stream that began well.
"""

from __future__ import annotations

from collections.abc import Iterator

from headgate.core.ports import Event

__all__ = ["LONGEST_EVENT", "EventTooLongError", "SseDecoder"]

# An image reply of several MiB arrives as one line; ten times that is no honest event.
LONGEST_EVENT = 64 * 1024 * 1024

_FIELDS = (b"data", b"event", b"id", b"retry")


class EventTooLongError(ValueError):
    """One event grew beyond `LONGEST_EVENT` bytes."""


class SseDecoder:
    """Feed it bytes, it yields the events that are complete."""

    def __init__(self, longest: int = LONGEST_EVENT) -> None:
        self._longest = longest
        self._pending: list[bytes] = []  # pieces of the line that has not ended yet
        self._pending_size = 0
        self._data: list[bytes] = []
        self._stray: list[bytes] = []
        self._size = 0
        self._skip_lf = False
        self._at_start = True

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Events completed by these bytes. Raises `EventTooLongError`."""
        if self._skip_lf and piece:
            piece = piece.removeprefix(b"\n")
            self._skip_lf = False
        if not piece:
            return
        self._skip_lf = piece.endswith(b"\r")
        lines = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines[:-1]:
            self._pending.append(line)
            whole = b"".join(self._pending)
            self._pending.clear()
            self._pending_size = 0
            yield from self._line(whole)
        self._pending.append(lines[-1])
        self._pending_size += len(lines[-1])
        if self._pending_size + self._size > self._longest:
            raise EventTooLongError(f"an event is longer than {self._longest} bytes")

    def end(self) -> Iterator[Event]:
        """What the stream ended with, terminated or not."""
        yield from self._line(b"".join(self._pending))
        self._pending.clear()
        yield from self._flush()

    def _line(self, line: bytes) -> Iterator[Event]:
        if self._at_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        if not line:
            yield from self._flush()
            return
        name, _, value = line.partition(b":")
        if name == b"data" and not self._stray:
            self._data.append(value.removeprefix(b" "))
        elif name not in _FIELDS and (name or self._stray):  # an empty name is a comment
            self._stray.append(line)
        self._size += len(line)

    def _flush(self) -> Iterator[Event]:
        if self._data:
            yield Event(b"\n".join(self._data))
        if self._stray:
            yield Event(b"\n".join(self._stray), framed=False)
        self._data.clear()
        self._stray.clear()
        self._size = 0
