"""Answers out of bytes, however the network cuts them; no sockets, no time.

llhttp, behind httptools, takes the bytes apart in its strict mode. What it lets pass and a client
should not, is refused here: other protocols' status lines, a second answer behind the first, ambiguous
lengths, heads and trailers without end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from headgate.core.errors import ConfigurationError
from headgate.transport.response_head import LARGEST_HEAD, Framing, InvalidAnswerError, framing_of

__all__ = ["AnswerParser", "Library", "Sink", "load_library"]

_VERSION = b"HTTP/1."
_MOST_INTERIM = 16  # answers 1xx before the one that counts


class Sink(Protocol):
    """Who takes an answer."""

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head is in."""

    def take(self, piece: bytes) -> None:
        """A piece of the body."""


class Parsing(Protocol):
    """What is used of `httptools.HttpResponseParser`."""

    def feed_data(self, data: bytes, /) -> None:
        """Parse, and call back."""

    def get_status_code(self) -> int:
        """Of the head that was parsed."""

    def get_http_version(self) -> str:
        """`1.1`, …"""

    def should_keep_alive(self) -> bool:
        """Whether the head allows another request."""


class Library(NamedTuple):
    """The parser's class, and the error it raises."""

    parser: Callable[[object], Parsing]
    error: type[Exception]


def load_library() -> Library:
    """Raises `ConfigurationError` where httptools is missing: it comes with an extra."""
    try:
        from httptools import HttpParserError, HttpResponseParser  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "the lean transport needs httptools; install it with `pip install 'headgate[serve]'`, or "
            "use the transport on aiohttp."
        ) from None
    return Library(cast("Callable[[object], Parsing]", HttpResponseParser), HttpParserError)


class AnswerParser:
    """The answers of one connection, one after the other.

    Attributes:
        framing: where the body ends; None until the head is in.
        progress: whether the bytes fed last brought a head or some of a body.
        done: whether the answer is whole.
        reusable: whether its head allows another request over this connection.
        silent: whether not a byte of it has come.
        sink: who takes it.
    """

    __slots__ = (
        "_barren",
        "_error",
        "_feed",
        "_head_only",
        "_headers",
        "_interim",
        "_interims",
        "_large",
        "_parser",
        "_prefix",
        "_started",
        "done",
        "framing",
        "progress",
        "reusable",
        "sink",
    )

    def __init__(self, library: Library) -> None:
        self._error = library.error
        self._parser: Parsing | None = library.parser(self)
        self._feed = self._parser.feed_data
        self.sink: Sink | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._prefix = b""
        self._barren = self._interims = 0
        self._started = self._interim = self._large = self._head_only = False
        self.framing: Framing | None = None
        self.progress = self.reusable = False
        self.done = True

    def expect(self, sink: Sink, *, head_only: bool = False) -> None:
        """The last answer was whole; the next goes to this sink. With `head_only` it has no body."""
        self.sink = sink
        self._head_only = head_only
        self._started = self.done = False
        self._interims = 0
        self.framing = None

    def close(self) -> None:
        """No more will be fed: let go of the library's parser, which holds this one."""
        self._parser = self.sink = None
        self._feed = _deaf

    @property
    def silent(self) -> bool:
        """Whether nothing of the answer has come."""
        return not (self._started or self._prefix)

    def feed(self, data: bytes) -> None:
        """Parse bytes of the answer. Raises `InvalidAnswerError`; what came before was handed on."""
        self.progress = False
        try:
            if not self._started:
                if not self._prefix and data.startswith(_VERSION):
                    self._started = True
                else:
                    data = self._checked_start(data)
            if self.framing is None:
                self._large = self._barren + len(data) > LARGEST_HEAD
            self._feed(data)
        except self._error as error:
            cause = error.__context__  # what was raised in a callback
            if isinstance(cause, InvalidAnswerError):
                raise cause from None
            raise InvalidAnswerError(str(error)) from None  # the parser's words, never the upstream's
        if self.progress or self.done:
            self._barren = 0
            return
        self._barren += len(data)
        if self._barren > LARGEST_HEAD:
            raise InvalidAnswerError(f"more than {LARGEST_HEAD} bytes that are no body")

    def _checked_start(self, data: bytes) -> bytes:
        """The beginning of an answer, held back until it shows that it is HTTP/1.

        The parser would also take RTSP, ICE, HTTP/2.0, and blank lines before the status.
        """
        data = self._prefix + data
        self._prefix = b""
        if data.startswith(_VERSION):
            self._started = True
            return data
        if not _VERSION.startswith(data):
            raise InvalidAnswerError("it does not begin with HTTP/1")
        self._prefix = data
        return b""

    # ── what the library calls ──────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A head begins."""
        if self.done:
            raise InvalidAnswerError("there is something behind its end")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or after the body a trailer, which is dropped."""
        if self.framing is None:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is in."""
        parser, sink = self._parser, self.sink
        assert parser is not None and sink is not None  # noqa: S101, PT018 - it is being fed
        status, headers = parser.get_status_code(), self._headers
        if self._large and sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:
            raise InvalidAnswerError(f"more than {LARGEST_HEAD} bytes of headers")
        framing = framing_of(headers, status, head_only=self._head_only)
        if self._interims or framing.chunked:
            self._check_version(parser.get_http_version(), framing)
        self.progress = True
        if status < 200:
            self._pass_over(status, framing)
            return
        self.framing = framing
        self.reusable = parser.should_keep_alive() and not (framing.bodiless and framing.announced)
        sink.begin(status, headers)
        self.done = framing.bodiless

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        if self.done or self.sink is None:
            raise InvalidAnswerError("a body where there must be none")
        self.sink.take(piece)
        self.progress = True

    def on_message_complete(self) -> None:
        """The answer is whole, or an interim one before it."""
        if self._interim:
            self._interim = False
        else:
            self.done = True

    def _pass_over(self, status: int, framing: Framing) -> None:
        """An answer 1xx: the one that counts is still to come."""
        self._interims += 1
        if status == 101 or framing.announced or self._interims > _MOST_INTERIM:
            raise InvalidAnswerError("interim answers that nobody asked for")
        self._interim = True

    @staticmethod
    def _check_version(version: str, framing: Framing) -> None:
        if version not in ("1.0", "1.1"):
            raise InvalidAnswerError("it is not HTTP/1")
        if framing.chunked and version == "1.0":
            raise InvalidAnswerError("chunks in HTTP/1.0, which has none")


def _deaf(data: bytes, /) -> None:
    """Stands in for the parser of a connection that is gone."""
