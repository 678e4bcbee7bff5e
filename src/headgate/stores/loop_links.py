"""Connections to one store for each event loop, closed by hand or with their loop (docs/adr/0007)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from headgate.stores.valkey_link import Address, Link

__all__ = ["LoopLinks"]

AT_ONCE = 32
"""Commands under way in one loop; each takes a connection. More wait their turn, which is no fault of
the store and counts against no deadline."""


class LoopLinks:
    """Opens a link in each loop that asks. Threads may share it.

    Args:
        timeout: seconds a command may take.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._kept: dict[asyncio.AbstractEventLoop, _Kept] = {}

    async def here(self) -> _Here:
        """What the running loop has."""
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is not None:
            return kept.here
        for old in [old for old in list(self._kept) if old.is_closed()]:
            self._kept.pop(old, None)  # another thread may have been here first
        keeper = self._keep()
        here = await anext(keeper)
        self._kept[loop] = _Kept(keeper, here)
        return here

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        kept = self._kept.pop(asyncio.get_running_loop(), None)
        if kept is not None:
            await kept.keeper.aclose()

    async def _keep(self) -> AsyncGenerator[_Here]:
        link = self._address.link(self._timeout)
        try:
            yield _Here(link, asyncio.Semaphore(AT_ONCE))
        finally:
            await link.aclose()


class _Here(NamedTuple):
    """What one loop has: the link, and a turn to take before using it."""

    link: Link
    turn: asyncio.Semaphore

    async def run(self, *words: str | int | bytes) -> Any:
        """One command's reply, as `Link.run`."""
        return await self.link.run(*words)


class _Kept(NamedTuple):
    keeper: AsyncGenerator[_Here]
    here: _Here
