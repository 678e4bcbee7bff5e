"""What new calls meet: a configuration and the engines that were built from it.

Where the configuration changes while the gateway runs, the next generation takes over at once, and the
one before goes on for the calls that began with it. Its last call closes what no other generation has:
engines that were built anew, stores and caches that are named no more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from headgate.core.replies import ReplyCache
from headgate.wiring.gateway import Upstream
from headgate.wiring.gateway_settings import GatewaySettings

__all__ = ["Estate", "Generation"]

_Closing = Callable[[], Awaitable[None]]


class Estate:
    """What generations have together: closed when nobody has it any more."""

    def __init__(self) -> None:
        self._users: dict[int, int] = {}
        self._things: dict[int, tuple[object, _Closing]] = {}

    def take(self, thing: object, close: _Closing) -> None:
        """Somebody more has it."""
        self._users[id(thing)] = self._users.get(id(thing), 0) + 1
        self._things[id(thing)] = (thing, close)  # held: its id stands for nothing else meanwhile

    async def leave(self, thing: object) -> None:
        """Somebody has it no more; the last one closes it."""
        number = id(thing)
        self._users[number] -= 1
        if not self._users[number]:
            del self._users[number]
            _, close = self._things.pop(number)
            await close()


class Generation:
    """One configuration and its engines.

    Attributes:
        number: counts from 1.
        calls: requests under way with it.
        retired: another has taken over.
    """

    def __init__(
        self,
        number: int,
        settings: GatewaySettings,
        upstreams: Sequence[Upstream],
        cache: ReplyCache | None,
        estate: Estate,
    ) -> None:
        self.number = number
        self.settings = settings
        self.upstreams = upstreams
        self.cache = cache
        self.calls = 0
        self.retired = False
        self._estate = estate
        self._closed = False
        self._things: list[object] = []
        for upstream in upstreams:
            engine = upstream.engine
            self._have(engine, replace(engine, own_store=None).aclose)
            if engine.own_store is not None:
                self._have(engine.own_store, engine.own_store.aclose)
        if cache is not None:
            self._have(cache, cache.aclose)

    async def retire(self) -> None:
        """Another has taken over: its last call closes it, or this does where there is none."""
        self.retired = True
        await self.end_if_idle()

    async def end_if_idle(self) -> None:
        """Close what nobody else has, where no call needs it."""
        if not self.retired or self.calls or self._closed:
            return
        await self.aclose()

    async def aclose(self) -> None:
        """Close what nobody else has."""
        if self._closed:
            return
        self._closed = True
        for thing in self._things:  # engines before the stores that they tell what is left to tell
            await self._estate.leave(thing)

    def _have(self, thing: object, close: _Closing) -> None:
        self._estate.take(thing, close)
        self._things.append(thing)
