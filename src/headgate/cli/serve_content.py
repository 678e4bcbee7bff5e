"""The content service beside a gateway: the same process and address, quotas of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headgate.content.application import ContentApp
from headgate.content.opening import Outside, open_content
from headgate.core.ports import Clock, Observer
from headgate.wiring.gateway_metrics import GatewayMetrics

__all__ = ["ContentBeside", "content_beside"]

_PATHS = frozenset({"/", "/health", "/ready"})
_FOLDERS = ("/api/", "/assets/")
"""What it serves there. `/metrics`, `/livez` and `/readyz` are the gateway's, for both."""


class ContentBeside:
    """A content service on the paths that are its own. See `headgate.gateway.beside.Beside`."""

    def __init__(self, app: ContentApp) -> None:
        self._app = app

    def owns(self, path: str) -> bool:
        """See `Beside.owns`."""
        return path in _PATHS or path.startswith(_FOLDERS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See `Beside`."""
        await self._app(scope, receive, send)

    def drain(self) -> None:
        """See `Beside.drain`."""
        self._app.drain()

    async def aclose(self) -> None:
        """See `Beside.aclose`."""
        await self._app.aclose()


def content_beside(
    clock: Clock, metrics: GatewayMetrics, observers: Sequence[Observer] = ()
) -> ContentBeside:
    """A service by its own settings, whose metrics are the gateway's. Raises `ConfigurationError`."""
    outside = Outside(
        clock=clock, observers=observers, registry=metrics.registry, scraped=metrics.further.append
    )
    return ContentBeside(open_content(outside=outside))
