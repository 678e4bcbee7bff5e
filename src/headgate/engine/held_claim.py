"""A right to ask a question, held for as long as the answer takes."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["CLAIM_SECONDS", "LOCAL_CLAIM_SECONDS", "Claims", "HeldClaim"]

CLAIM_SECONDS = 10.0
"""How long a right lasts whose holder says nothing more: as long as a killed process keeps the others
waiting at the most."""

LOCAL_CLAIM_SECONDS = 600.0
"""The same within one process, where nothing renews it: who has it cannot die alone."""

_RENEWED_EVERY = CLAIM_SECONDS / 3


class Claims(Protocol):
    """Who gives rights to ask, such as a `ReplyCache`."""

    @property
    def remote(self) -> bool:
        """Whether another process may hold a right."""

    async def renew(self, key: str, token: str, seconds: float) -> bool:
        """Hold a right for so many seconds more. Whether it was still held."""

    async def release(self, key: str, token: str) -> None:
        """Give a right back."""


class HeldClaim:
    """Renews a right that others than this process wait for, until it ends. For one event loop.

    Attributes:
        token: the right; empty once it was given back otherwise.
    """

    def __init__(self, cache: Claims, key: str, token: str) -> None:
        self._cache = cache
        self._key = key
        self.token = token
        self._renewing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wind()

    @property
    def is_open(self) -> bool:
        """Whether there is anything to end."""
        return bool(self.token) or self._timer is not None

    async def end(self) -> None:
        """Give it back, if nobody has yet."""
        if self._timer is not None:
            self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        if self.token:
            await self._cache.release(self._key, self.token)

    def _wind(self) -> None:
        if self.token and self._cache.remote:
            self._timer = asyncio.get_running_loop().call_later(_RENEWED_EVERY, self._due)

    def _due(self) -> None:
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        if await self._cache.renew(self._key, self.token, CLAIM_SECONDS):
            self._wind()
