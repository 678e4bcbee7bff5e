"""What the gateway sends over: the lean transport where it can, the one on aiohttp where a proxy is
asked for or httptools is missing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from importlib.util import find_spec
from typing import Protocol
from urllib.parse import urlsplit

from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock, Transport
from headgate.transport.bounds import Timeouts

__all__ = ["Sending", "SendsOver", "open_transport", "proxy_for", "sending"]

_log = logging.getLogger("headgate.gateway")

_PORTS = {"http": 80, "https": 443}


class Sending(StrEnum):
    """Which transport is asked for."""

    AUTO = "auto"
    LEAN = "lean"
    AIOHTTP = "aiohttp"


class SendsOver(Protocol):
    """What of a provider's settings a transport is made from. Times in seconds."""

    @property
    def base_url(self) -> str: ...  # noqa: D102 - the settings of each door document them
    @property
    def connect_timeout_seconds(self) -> float: ...  # noqa: D102
    @property
    def attempt_timeout_seconds(self) -> float: ...  # noqa: D102
    @property
    def stream_idle_seconds(self) -> float: ...  # noqa: D102


def sending(value: object) -> Sending:
    """The transport of that name. Raises `ValueError`."""
    try:
        return Sending(str(value).strip().lower())
    except ValueError:
        raise ValueError(", ".join(Sending)) from None


def open_transport(
    asked: Sending, settings: SendsOver, clock: Clock, environ: Mapping[str, str]
) -> Transport:
    """What sends to a provider. Connects to nothing yet.

    Raises:
        ConfigurationError: the lean transport is asked for, and a proxy too, which it does not have; or
            httptools is missing; or the proxy is none that can be used.
    """
    timeouts = Timeouts(
        settings.connect_timeout_seconds, settings.attempt_timeout_seconds, settings.stream_idle_seconds
    )
    proxy = proxy_for(settings.base_url, environ)
    host = urlsplit(settings.base_url).hostname
    if asked is Sending.LEAN and proxy is not None:
        raise ConfigurationError(
            f"The environment asks for a proxy to {host}, and the lean transport has none. Set "
            f"HEADGATE_TRANSPORT to auto, or name {host} in NO_PROXY."
        )
    lean = asked is Sending.LEAN or (
        asked is Sending.AUTO and proxy is None and find_spec("httptools") is not None
    )
    _log.info("transport=%s proxy=%s host=%s", "lean" if lean else "aiohttp", proxy is not None, host)
    # Each takes a while to import, and only one of them is needed.
    if lean:
        from headgate.transport.lean import LeanTransport  # noqa: PLC0415

        return LeanTransport(clock, timeouts)
    from headgate.transport.http import HttpTransport  # noqa: PLC0415

    return HttpTransport(clock, timeouts, proxy=proxy)


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a URL, as curl and Python's own clients read it:
    `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in small letters first.

    Raises:
        ConfigurationError: it is none that speaks HTTP. The message holds no more than its scheme.
    """
    scheme = urlsplit(url).scheme
    found = _named(environ, f"{scheme}_proxy") or _named(environ, "all_proxy")
    if not found or _spared(url, _named(environ, "no_proxy")):
        return None
    proxy = found if "://" in found else f"http://{found}"
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"The environment's proxy for {scheme} URLs is a {parts.scheme} one; the gateway takes "
            "http://host:port. Without a proxy, name the upstream in NO_PROXY."
        )
    return proxy


def _named(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name) or ""
    # A CGI server sets HTTP_PROXY from a header of the request ("httpoxy", CVE-2016-5385).
    if not value and not (name == "http_proxy" and "REQUEST_METHOD" in environ):
        value = environ.get(name.upper()) or ""
    return value.strip()


def _spared(url: str, listed: str) -> bool:
    """Whether `NO_PROXY` names the URL's host: itself, a domain that it is in, or `*`."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    for entry in listed.lower().split(","):
        name, _, port = entry.strip().lstrip(".").partition(":")
        if ":" in port:  # an IPv6 address
            name, port = entry.strip().strip("[]"), ""
        if name == "*" and not port:
            return True
        on_it = not port or port == str(parts.port or _PORTS.get(parts.scheme))
        if name and on_it and (host == name or host.endswith(f".{name}")):
            return True
    return False
