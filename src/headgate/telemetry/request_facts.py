"""What a span tells of an inbound request, by OpenTelemetry HTTP conventions (1.44) and S2-23.

The query of a request is in none of it: keys travel there.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

__all__ = ["OTHER_METHOD", "UNMATCHED", "method_of", "request_facts"]

UNMATCHED = "_unmatched"
"""The path of a request that no route took."""

OTHER_METHOD = "_OTHER"
"""In place of a method that HTTP has not, as OpenTelemetry has it: callers make up methods, too."""

_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")
)
_LONGEST_METHOD = 32


def method_of(scope: MutableMapping[str, Any]) -> str:
    """The method of a request, from a closed set."""
    method = str(scope.get("method", "")).upper()
    return method if method in _METHODS else OTHER_METHOD


def request_facts(scope: MutableMapping[str, Any], host: str) -> dict[str, str | int]:
    """What is known of a request before it is served.

    Args:
        scope: of ASGI.
        host: as the client named it; empty where it did not.
    """
    scheme, path = str(scope.get("scheme", "http")), str(scope.get("path", ""))
    server = scope.get("server") or (None, None)
    shown = host or (f"{server[0]}:{server[1]}" if server[0] else "")
    method = method_of(scope)
    facts: dict[str, str | int] = {
        "http.method": method,
        "http.url": f"{scheme}://{shown}{path}",
        "http.scheme": scheme,
        "http.request.method": method,
        "url.path": path,
        "url.scheme": scheme,
        "network.protocol.version": str(scope.get("http_version", "1.1")),
    }
    if method == OTHER_METHOD:
        facts["http.request.method_original"] = str(scope.get("method", ""))[:_LONGEST_METHOD]
    if server[0]:
        facts["server.address"] = str(server[0])
        if server[1] is not None:
            facts["server.port"] = int(server[1])
    return facts
