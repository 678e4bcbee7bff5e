"""A store that nobody named: used if it is there when it is first needed, else done without.

A shared store that was named and is away leaves its process a share, and of a day nothing until it was
reached once: others may have used it up. Where nobody said that there is one, nobody else uses it
either, and the whole quota is this process's. Which of the two it is, is found out once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import cast

from headgate.core.ports import QuotaStore
from headgate.core.quota import Batch, BatchReply, Fill, Limit

__all__ = ["TriedStore"]

CONNECT_SECONDS = 0.5
"""For a connection to a server that is most likely on this machine."""

_log = logging.getLogger("headgate.stores")


class TriedStore:
    """A `QuotaStore`. Threads and event loops may share it.

    Args:
        host, port: where the server would be.
        shared: makes the store on it.
        alone: the store of this process.
    """

    def __init__(
        self, host: str, port: int, shared: Callable[[], QuotaStore], alone: QuotaStore
    ) -> None:
        self._host = host
        self._port = port
        self._shared = shared
        self._alone = alone
        self._chosen: QuotaStore | None = None

    async def declare(self, group: str, domains: Sequence[Sequence[Limit]]) -> None:
        """Make a group with these limits, if there is none yet."""
        store = await self._store()
        await store.declare(group, domains)

    async def transact(self, group: str, batch: Batch) -> BatchReply:
        """One atomic step."""
        store = await self._store()
        return await store.transact(group, batch)

    async def fills(self, group: str) -> tuple[tuple[Fill, ...], ...]:
        """How full each limit of each domain is now."""
        store = await self._store()
        tell = cast("Callable[[str], object] | None", getattr(store, "fills", None))
        if tell is None:
            return ()
        return cast("tuple[tuple[Fill, ...], ...]", await tell(group))  # type: ignore[misc] # a coroutine

    async def aclose(self) -> None:
        """Give connections back."""
        if self._chosen is not None:
            await self._chosen.aclose()

    async def _store(self) -> QuotaStore:
        if self._chosen is None:
            there = await self._is_there()
            if self._chosen is None:  # another task may have found out meanwhile
                self._chosen = self._shared() if there else self._alone
                if not there:
                    _log.warning("store=none host=%s quota=of_this_process", self._host)
        return self._chosen

    async def _is_there(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True
