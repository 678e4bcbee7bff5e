"""Server-sent events out of bytes, however the network cuts them.

The framing of the HTML standard (data lines, comments, CRLF, LF or CR, byte-order mark), with two
additions. Text that is no field of an event stream is handed on as an unframed `Event`, because some
upstreams drop a bare JSON error into a stream that began well. And every event carries its bytes as
they came, so that whoever passes a stream on need not write it anew: those of all events together are
the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from headgate.core.ports import Event

__all__ = ["LONGEST_EVENT", "EventTooLongError", "SseDecoder"]

# An image reply of several MiB arrives as one line; ten times that is no honest event.
LONGEST_EVENT = 64 * 1024 * 1024

_FIELDS = (b"data", b"event", b"id", b"retry")

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLongError(ValueError):
    """One event grew beyond `LONGEST_EVENT` bytes."""


class SseDecoder:
    """Feed it bytes, it yields the events that are complete."""

    def __init__(self, longest: int = LONGEST_EVENT) -> None:
        self._longest = longest
        self._pending: list[bytes] = []  # pieces of the line that has not ended yet
        self._data: list[bytes] = []
        self._stray: list[bytes] = []
        self._raw: list[bytes] = []  # all bytes since the last event, in earlier pieces
        self._raw_size = 0
        self._spoke = False  # whether there was any line since the last event that is not blank
        self._skip_lf = False
        self._at_start = True

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Events completed by these bytes. Raises `EventTooLongError`."""
        if not piece:
            return
        kept = start = 0  # what follows belongs to no event yet; to no line yet
        if self._skip_lf and piece.startswith(b"\n"):
            start = 1
        self._skip_lf = piece.endswith(b"\r")
        for end in _LINE_END.finditer(piece, start):
            line = piece[start : end.start()]
            start = end.end()
            if self._pending:
                self._pending.append(line)
                line = b"".join(self._pending)
                self._pending.clear()
            if self._take(line) and self._spoke:
                yield from self._flush(piece[kept:start])
                kept = start
        if start < len(piece):
            self._pending.append(piece[start:])
        if kept < len(piece):
            self._raw.append(piece[kept:])
            self._raw_size += len(piece) - kept
            if self._raw_size > self._longest:
                raise EventTooLongError(f"an event is longer than {self._longest} bytes")

    def end(self) -> Iterator[Event]:
        """What the stream ended with, terminated or not."""
        self._take(b"".join(self._pending))
        self._pending.clear()
        if self._raw:
            yield from self._flush(b"")

    def _take(self, line: bytes) -> bool:
        """Whether a line is blank; else what it says is noted."""
        if self._at_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        if not line:
            return True
        self._spoke = True
        name, _, value = line.partition(b":")
        if name == b"data" and not self._stray:
            self._data.append(value.removeprefix(b" "))
        elif name not in _FIELDS and (name or self._stray):  # an empty name is a comment
            self._stray.append(line)
        return False

    def _flush(self, last: bytes) -> Iterator[Event]:
        raw = last
        if self._raw:
            self._raw.append(last)
            raw = b"".join(self._raw)
            self._raw.clear()
        self._raw_size = 0
        self._spoke = False
        data, stray = self._data, self._stray
        if data:
            yield Event(data[0] if len(data) == 1 else b"\n".join(data), raw=raw)
            raw = b""
            self._data = []
        if stray:
            yield Event(b"\n".join(stray), framed=False, raw=raw)
            raw = b""
            self._stray = []
        if raw:
            yield Event(b"", framed=False, raw=raw)
