"""A gateway without caller keys serves programs of its own machine, and no web page that a browser
there happens to show: such a page can send requests to loopback, and with a name that points there read
the answers too."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from headgate.gateway.incoming import Incoming
from headgate.gateway.problems import RequestRefusedError
from headgate.policy.loopback import is_loopback

__all__ = ["check_local", "is_loopback"]


def check_local(incoming: Incoming) -> None:
    """Raises `RequestRefusedError` for a request under another name, or of a page from elsewhere."""
    host = incoming.text(b"host")
    if host and not is_loopback(_host_of(f"//{host}")):
        what = "Without HEADGATE_CALLER_KEYS this gateway serves 127.0.0.1 and localhost only."
        raise RequestRefusedError(what, status=403, closes=True)
    if b"origin" in incoming.headers and not is_loopback(_host_of(incoming.text(b"origin"))):
        what = "Without HEADGATE_CALLER_KEYS this gateway serves no web pages of other hosts."
        raise RequestRefusedError(what, status=403, closes=True)


@lru_cache(maxsize=256)
def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
