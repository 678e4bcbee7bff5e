"""Where requests to the management API come in: all that a gateway which is never asked has of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.gateway.manage.application import Application

__all__ = ["Management", "is_managed"]

_PAGES = ("/openapi.json", "/docs")


def is_managed(path: str) -> bool:
    """Whether a path belongs to the management API or its page."""
    return path.startswith(("/manage/", "/docs/")) or path in _PAGES or path == "/manage"


class Management:
    """Opens the application with the first request for it, beside the calls that are under way.

    Args:
        build: makes it; imports what it needs, in a thread.
    """

    def __init__(self, build: Callable[[], Application]) -> None:
        self._build = build
        self._application: Application | None = None
        self._opening = asyncio.Lock()

    @property
    def application(self) -> Application:
        """The application, opened now if it is not yet."""
        self.open()
        assert self._application is not None  # noqa: S101 - see there
        return self._application

    def open(self) -> None:
        """Open the application now."""
        if self._application is None:
            self._application = self._build()

    async def opened(self) -> Application:
        """The application. What the first request waits for is imported in a thread."""
        if self._application is None:
            async with self._opening:
                await asyncio.to_thread(self.open)
        return self.application

    def drain(self) -> None:
        """The gateway ends: those who listen to events are told and let go."""
        if self._application is not None:
            self._application.drain()

    async def aclose(self) -> None:
        """Let go of everything."""
        if self._application is not None:
            await self._application.aclose()
