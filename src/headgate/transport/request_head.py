"""The head of a request as it goes out: where to, and headers in which nothing is smuggled.

Names and values are held to RFC 9110: whatever could end a line early, or tell the upstream another
length than the body has, is refused before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import TransportError

__all__ = ["Origin", "Target", "Targets", "head_of", "merged"]

_METHOD = _NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2: a token
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5: no control character but the tab
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[0-9a-z._~\-]+|[0-9a-f.]*:[0-9a-f:.]*(%[0-9a-z._~\-]+)?")
_KEPT_IN_URL = "!$%&'()*+,/:;=?@[]~"  # reserved or already quoted; all else is quoted

_OURS = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te"}
    | {"trailer", "transfer-encoding", "upgrade"}
)
"""Headers of one hop, which tell where a message ends: the transport's alone."""

_WITH_BODY = frozenset(("PATCH", "POST", "PUT"))
_PORTS = {"http": 80, "https": 443}
_MOST_TARGETS = 1024
_MOST_NAMES = 512


class Origin(NamedTuple):
    """Where a connection leads; connections of one origin are alike."""

    secure: bool
    host: str
    port: int


class Target(NamedTuple):
    """Where a request goes, and how its head begins: request line and host."""

    origin: Origin
    opening: str


class Targets:
    """URLs taken apart, the latest of them remembered: calls of one model have one URL."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Target] = {}

    def find(self, method: str, url: str) -> Target:
        """Raises `TransportError` of kind REQUEST for what is no HTTP URL."""
        target = self._known.get((method, url))
        if target is None:
            if len(self._known) >= _MOST_TARGETS:
                self._known.clear()
            target = self._known[method, url] = _target(method, url)
        return target


def head_of(
    target: Target, method: str, headers: Mapping[str, str], credential: Mapping[str, str], length: int
) -> bytes:
    """Request line and headers, with the blank line that ends them.

    Args:
        length: bytes of the body.

    Raises `TransportError` of kind REQUEST.
    """
    lines: dict[str, str] = {}
    for source in (headers, credential):
        for name, value in source.items():
            lines[_plain_names.get(name) or _plain(name)] = f"{name}: {value}\r\n"
            if not (value.isascii() and value.isprintable()):
                _check_value(name, value)
    if length or method in _WITH_BODY:
        lines[""] = f"Content-Length: {length}\r\n"
    return f"{target.opening}{''.join(lines.values())}\r\n".encode("latin-1")


def merged(headers: Mapping[str, str], credential: Mapping[str, str]) -> list[tuple[str, str]]:
    """All headers, each name once in whatever case: the credential's where both have it.

    Raises `TransportError` of kind REQUEST for names and values that HTTP does not allow, and for
    headers that tell where a message ends.
    """
    found: dict[str, tuple[str, str]] = {}
    for source in (headers, credential):
        for name, value in source.items():
            found[_plain_names.get(name) or _plain(name)] = (name, value)
            _check_value(name, value)
    return list(found.values())


_plain_names: dict[str, str] = {}
"""Names that were checked, with their lower case; bounded, and the same for everybody."""


def _plain(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _refused("The name of a header may only hold letters, digits and !#$%&'*+-.^_`|~.")
    plain = name.lower()
    if plain in _OURS:
        raise _refused(f"The header {plain} is set by the connection alone.")
    if len(_plain_names) < _MOST_NAMES:
        _plain_names[name] = plain
    return plain


def _check_value(name: str, value: str) -> None:
    if not _VALUE.fullmatch(value):
        raise _refused(f"The header {name} may not hold control characters or line breaks.")


def _target(method: str, url: str) -> Target:
    if not _METHOD.fullmatch(method):
        raise _refused("The method is not one of HTTP.")
    try:
        parts = urlsplit(url)
        port, host = parts.port, _host(parts)
    except ValueError:
        raise _bad_url() from None
    standard = _PORTS.get(parts.scheme)
    if standard is None or port == 0 or "@" in parts.netloc or _NOT_IN_URL.search(url):
        raise _bad_url()
    path = quote(parts.path or "/", safe=_KEPT_IN_URL)
    query = f"?{quote(parts.query, safe=_KEPT_IN_URL)}" if parts.query else ""
    shown = f"[{host.partition('%')[0]}]" if ":" in host else host
    if port not in (None, standard):
        shown = f"{shown}:{port}"
    opening = f"{method} {path}{query} HTTP/1.1\r\nHost: {shown}\r\n"
    return Target(Origin(parts.scheme == "https", host, port or standard), opening)


def _host(parts: SplitResult) -> str:
    """Raises `ValueError`."""
    host = parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(host) or ("[" in parts.netloc) != (":" in host):
        raise ValueError("no host")
    return host


def _bad_url() -> TransportError:
    return _refused("The base URL is not a valid URL.")


def _refused(sentence: str) -> TransportError:
    return TransportError(Outcome(Kind.REQUEST, sentence), sent=False)
