"""Values that are asked for often are made anew before their time is up, so that nobody waits for them.

Off unless `CACHE_PRECACHING` says otherwise: it spends quota on what perhaps nobody asks for again. One
of all instances makes a value anew; what fails is left to whoever asks next.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from threading import Lock

from headgate.content.ports import Json
from headgate.core.values import ValueStore
from headgate.engine.held_claim import CLAIM_SECONDS, Claims, HeldClaim

__all__ = ["LAST_PART", "Precaching"]

LAST_PART = 0.1
"""The part of its life in which a value may be made anew: twelve minutes of two hours."""

_MOST_COUNTED = 10_000
"""Keys whose uses are counted. Beyond, the count begins anew: what is popular shows itself again."""

_MOST_AT_ONCE = 2
"""Values made anew at a time: whoever waits for one goes first."""

_SUFFIX = " (anew)"
"""After a key, under which nothing is ever kept: of the right to make its value anew."""

_log = logging.getLogger("headgate.content")

Keep = Callable[[Json, str], Awaitable[None]]
"""Keeps a value that was made after a look with this mark."""


class Precaching:
    """Counts uses and makes anew. Threads and event loops may share it.

    Args:
        threshold: uses of a value, since it was made, from which it is popular.
    """

    def __init__(self, values: ValueStore, claims: Callable[[str], Claims], threshold: int) -> None:
        self._values = values
        self._claims = claims
        self._threshold = threshold
        self._lock = Lock()
        self._uses: Counter[tuple[str, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def used(
        self,
        namespace: str,
        key: str,
        left: float,
        life: float,
        make: Callable[[], Awaitable[Json]],
        keep: Keep,
    ) -> None:
        """A value was given. Where it is popular and near its end it is made anew in the background.

        Args:
            left, life: seconds.
        """
        name = (namespace, key)
        with self._lock:
            if len(self._uses) >= _MOST_COUNTED:
                self._uses.clear()
            self._uses[name] += 1
            due = self._uses[name] >= self._threshold and left < life * LAST_PART
            if not due or len(self._tasks) >= _MOST_AT_ONCE:
                return
            del self._uses[name]  # once in a life
        task = asyncio.get_running_loop().create_task(self._renew(namespace, key, make, keep))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End what is under way in the running loop."""
        loop = asyncio.get_running_loop()
        mine = [task for task in self._tasks if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine)

    async def _renew(
        self, namespace: str, key: str, make: Callable[[], Awaitable[Json]], keep: Keep
    ) -> None:
        side = f"{key}{_SUFFIX}"
        found = await self._values.get(namespace, side, claim=CLAIM_SECONDS)
        if found.token is None or found.alone:
            return
        held = HeldClaim(self._claims(namespace), side, found.token)
        try:
            await keep(await make(), found.mark)
        except Exception as error:  # noqa: BLE001 - nobody waits for it who could be told
            _log.info("cache=not_made_anew namespace=%s error=%s", namespace, type(error).__name__)
        finally:
            await held.end()
