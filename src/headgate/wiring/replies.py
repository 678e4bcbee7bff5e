"""The engine room of reply caches: what keeps answers is made here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from headgate.core.ports import Clock
from headgate.stores.replies import MemoryReplies
from headgate.stores.urls import StoreUrl
from headgate.wiring.build import CHANCE
from headgate.wiring.clock import SystemClock
from headgate.wiring.settings import resolve_alone
from headgate.wiring.stores import check_store

if TYPE_CHECKING:
    from headgate.stores.replies_valkey import ValkeyReplies

__all__ = ["CacheBounds", "ReplyRoom", "open_replies", "shared_replies"]


@dataclass(frozen=True, slots=True)
class CacheBounds:
    """How much is kept: in the memory of each process, and in the store they share."""

    entries: int
    bytes: int
    shared_bytes: int

    @property
    def keeps(self) -> bool:
        """Whether anything is."""
        return self.entries > 0 and self.bytes > 0


def open_replies(
    url: StoreUrl, bounds: CacheBounds, *, clock: Clock, chance: Callable[[], float]
) -> MemoryReplies | ValkeyReplies:
    """A cache in the memory of this process, or over the store at a URL. Connects to nothing yet.

    Raises:
        ConfigurationError: the store needs a package that is not installed, or an option is wrong.
    """
    if url.memory:
        return MemoryReplies(clock, most_entries=bounds.entries, most_bytes=bounds.bytes)
    check_store(url)
    from headgate.stores.replies_valkey import ValkeyReplies  # noqa: PLC0415 - an extra

    return ValkeyReplies(
        url.written,
        clock=clock,
        chance=chance,
        most_entries=bounds.entries,
        most_bytes=bounds.bytes,
        most_shared_bytes=bounds.shared_bytes,
    )


class ReplyRoom:
    """The cache of a backend: it outlives generations of the engine, and is resized, not emptied.

    Only the lock of who owns it keeps `planned` and `take` together.
    """

    def __init__(self, clock: Clock, chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._url: StoreUrl | None = None
        self._retired: list[MemoryReplies | ValkeyReplies] = []
        self.cache: MemoryReplies | ValkeyReplies | None = None

    def planned(self, url: StoreUrl, bounds: CacheBounds) -> MemoryReplies | ValkeyReplies | None:
        """The cache a configuration asks for; the one there is, where it will do. Changes nothing.

        Raises `ConfigurationError`, as `open_replies`.
        """
        if not bounds.keeps:
            return None
        if self.cache is not None and self._url == url:
            return self.cache
        return open_replies(url, bounds, clock=self._clock, chance=self._chance)

    def take(
        self, cache: MemoryReplies | ValkeyReplies | None, url: StoreUrl, bounds: CacheBounds
    ) -> None:
        """Go on with a cache that was planned, within these bounds."""
        if self.cache is not None and self.cache is not cache:
            self._retired.append(self.cache)
        if cache is self.cache and cache is not None:
            if isinstance(cache, MemoryReplies):
                cache.resize(bounds.entries, bounds.bytes)
            else:
                cache.resize(bounds.entries, bounds.bytes, bounds.shared_bytes)
        self.cache, self._url = cache, url

    async def tidy(self) -> None:
        """Close what is used no more. Calls under way with it find nothing there, and go on."""
        retired, self._retired = self._retired, []
        for cache in retired:
            await cache.aclose()

    async def aclose(self) -> None:
        """Close everything."""
        if self.cache is not None:
            self._retired.append(self.cache)
            self.cache = self._url = None
        await self.tidy()


def shared_replies(
    environ: Mapping[str, str] | None = None,
) -> tuple[str, ValkeyReplies | None]:
    """The cache that processes share by environment and file, and where it is, credentials masked; None
    where they share none. For looking at it and forgetting: it has no room in memory.

    Raises:
        ConfigurationError: the store's URL is wrong, or it needs a package that is not installed.
    """
    url = cast("StoreUrl", resolve_alone("store", environ=environ).value)
    if url.memory:
        return str(url), None
    bounds = CacheBounds(0, 0, 0)
    cache = open_replies(url, bounds, clock=SystemClock(), chance=CHANCE)
    return str(url), cast("ValkeyReplies", cache)
