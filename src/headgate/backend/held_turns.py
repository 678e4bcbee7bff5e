"""A turn's claim, renewed while the turn is under way.

It is short, so that a process that was killed does not block its session for long, and renewed by the
event loop's clock, so that a call may take as long as it takes, however slowly its stream is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from headgate.core.errors import ConfigurationError, StoreError

__all__ = ["CLAIM_SECONDS", "HeldTurn"]

_log = logging.getLogger("headgate.backend")

CLAIM_SECONDS = 10.0
"""How long a claim lasts whose holder says nothing more: as long as a killed process blocks its session
at the most."""

_RENEWED_EVERY = CLAIM_SECONDS / 3
"""Seconds. Two renewals may come late or fail before the claim is lost."""


class HeldTurn:
    """Renews a claim until it ends. For one event loop.

    Args:
        renew: asks the store; False: another has the claim.
        name: of the session, for the log.
    """

    def __init__(self, renew: Callable[[], Awaitable[bool]], name: str) -> None:
        self._renew = renew
        self._name = name
        self._renewing: asyncio.Task[None] | None = None
        self._timer = self._wound()

    async def end(self) -> None:
        """Renew it no more. The store has answered whatever it was asked when this returns."""
        self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

    def _wound(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(_RENEWED_EVERY, self._due)

    def _due(self) -> None:
        self._renewing = asyncio.get_running_loop().create_task(self._once())

    async def _once(self) -> None:
        try:
            held = await self._renew()
        except (StoreError, ConfigurationError) as error:
            _log.warning("session %s: its claim was not renewed: %s", self._name, error.message)
            held = True  # as far as is known
        if held:
            self._timer = self._wound()
