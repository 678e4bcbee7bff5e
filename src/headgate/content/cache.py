"""The layered cache: memory over a store that instances share, for any value that JSON can hold.

A look goes to the copy in memory, and to the store, which says whether the copy still holds. Of several
who want what nobody has, one makes it: in this process, and among all that share the store. What fails
is not kept, and neither is what was invalidated while it was made.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from threading import Lock

from msgspec import Struct

from headgate.content.cache_forms import decoded, encoded, named, readable
from headgate.content.cache_settings import CacheSettings
from headgate.content.ports import Json, Kept, Layer, StoreState
from headgate.content.precaching import Precaching
from headgate.core.errors import StoreError
from headgate.core.ports import Clock
from headgate.core.values import Sought, ValueShare, ValueStore
from headgate.engine.held_claim import CLAIM_SECONDS, LOCAL_CLAIM_SECONDS, Claims, HeldClaim
from headgate.engine.single_flight import SingleFlight
from headgate.wiring.blocking import Bridge
from headgate.wiring.clock import SystemClock
from headgate.wiring.values import open_values

__all__ = ["LayeredCache", "Right", "open_cache"]

ROOM = "content"
"""Of the shared store: nothing else is kept there."""

_FIRST_LOOK, _SLOWER, _LAST_LOOK = 0.02, 1.5, 0.25
"""Seconds between two looks for what another is making, how they grow, and up to what."""

_LONGEST_WAIT = 120.0
"""Seconds one waits for another to make a value. Then it makes it as well."""

Seen = Callable[[str, str, Layer | None], None]

_log = logging.getLogger("headgate.content")


class Right(Struct, frozen=True):
    """The right to make a value, or at least nobody forbids it.

    Attributes:
        mark: of the look that found nothing.
        held: renews the right until it ends; None: there is none to hold.
    """

    namespace: str
    key: str
    mark: str
    held: HeldClaim | None


class _Made(Struct, frozen=True):
    """What a flight brought: `data` where JSON can hold it, else the value itself."""

    data: bytes | None
    value: Json = None
    layer: Layer | None = None


class LayeredCache:
    """See `headgate.content.ports.Layers`. Threads and event loops may share it.

    Attributes:
        values: where they are kept.
        bridge: runs the cache for plain functions.

    Args:
        values: as above; closed with the cache.
        ttl: seconds a value is kept where nothing else is said.
        popular: uses from which a value is made anew before its time is up; None: none is.
        seen: told of each operation in the accepted words: `get`, `set` or `delete`; `hit`, `miss`,
            `success` or `failure`; and which layer had it, of a hit.
    """

    def __init__(
        self,
        values: ValueStore,
        clock: Clock,
        *,
        ttl: float = 7200.0,
        popular: int | None = None,
        seen: Seen = lambda _operation, _result, _layer: None,
    ) -> None:
        self.ttl = ttl
        self.values = self._values = values
        self._clock = clock
        self._seen = seen
        self._flights: SingleFlight[_Made] = SingleFlight()
        self._lock = Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._told: set[str] = set()
        self._joined: list[ValueStore] = []
        self._share: ValueShare | None = None
        self._ahead = None if popular is None else Precaching(values, self._claims, popular)
        self.bridge = Bridge()

    # ── one value ───────────────────────────────────────────────────────────────────────────────

    async def get(self, namespace: str, key: str) -> Kept | None:
        """What is kept under a key; None: nothing that is still good."""
        found = await self._values.get(named(namespace), readable(key))
        return self._looked(found)

    async def peek(self, namespace: str, key: str) -> Kept | None:
        """The same; counted only where something is kept."""
        found = await self._values.get(named(namespace), readable(key))
        return None if found.data is None else self._looked(found)

    async def put(self, namespace: str, key: str, value: Json, ttl: float | None = None) -> None:
        """Keep a value for so many seconds; one that JSON cannot hold is left out."""
        data = self._encoded(namespace, value)
        seconds = self.ttl if ttl is None else ttl
        if data is not None and seconds > 0:
            self._count_set(kept=await self._values.put(named(namespace), readable(key), data, seconds))

    async def delete(self, namespace: str, key: str) -> bool:
        """Forget one. Whether there was one, as far as the shared store says."""
        try:
            there = await self._values.drop(named(namespace), readable(key))
        except StoreError:
            self._count("delete", "failure")
            return False
        self._count("delete", "success")
        return there

    async def get_or_make(
        self, namespace: str, key: str, ttl: float | None, make: Callable[[], Awaitable[Json]]
    ) -> Kept:
        """What is kept under a key, or what `make` gives, which is kept then.

        Of several who ask at once, in whatever process, one makes it; what `make` raises is raised to
        all of them in this process, and nothing is kept. What was made comes back as JSON has it, as it
        does the next time; what JSON cannot hold comes back as it is, and is not kept.
        """
        namespace, key = named(namespace), readable(key)
        found = await self._values.get(namespace, key)
        kept = self._looked(found)
        if kept is not None:
            if self._ahead is not None:
                life = self.ttl if ttl is None else ttl
                keep = partial(self._kept_anew, namespace, key, life)
                self._ahead.used(namespace, key, found.left, life, make, keep)
            return kept
        leads = False

        async def question() -> _Made:
            nonlocal leads
            leads = True
            return await self._made(namespace, key, ttl, make)

        made = await self._flights.ask(f"{namespace}\n{key}", question)
        value = made.value if made.data is None else decoded(made.data)
        # Who waited for another's spent nothing: for it the value was there.
        return Kept(value, made.layer if leads else (made.layer or "memory"))

    async def _made(
        self, namespace: str, key: str, ttl: float | None, make: Callable[[], Awaitable[Json]]
    ) -> _Made:
        turn = await self.turn(namespace, key)
        if not isinstance(turn, Right):
            return turn
        try:
            value = await make()
        except BaseException:
            await self.give_up(turn)
            raise
        data = await self.finish(turn, value, ttl)
        return _Made(data, value)

    # ── making one ──────────────────────────────────────────────────────────────────────────────

    async def turn(self, namespace: str, key: str) -> _Made | Right:
        """What another has made meanwhile, or the right to make it, which ends with `finish` or
        `give_up`. Waits for who has the right now."""
        seconds = CLAIM_SECONDS if self._values.remote else LOCAL_CLAIM_SECONDS
        delay, waited = _FIRST_LOOK, 0.0
        while True:
            found = await self._values.get(namespace, key, claim=seconds)
            if found.data is not None:
                return _Made(found.data, layer=_layer(found))
            if not found.claimed or waited >= _LONGEST_WAIT:
                break
            await self._clock.sleep(delay)
            waited += delay
            delay = min(delay * _SLOWER, _LAST_LOOK)
        held = None if found.token is None else HeldClaim(self._claims(namespace), key, found.token)
        return Right(namespace, key, found.mark, held)

    async def finish(self, right: Right, value: Json, ttl: float | None) -> bytes | None:
        """Keep what was made. Its bytes; None: JSON cannot hold it."""
        seconds = self.ttl if ttl is None else ttl
        data = self._encoded(right.namespace, value)
        if data is None or seconds <= 0:
            await self.give_up(right)
            return data
        token = "" if right.held is None else right.held.token
        try:
            kept = await self._values.put(
                right.namespace, right.key, data, seconds, mark=right.mark, token=token
            )
            if right.held is not None:
                right.held.token = ""  # it was given back
        finally:
            await self.give_up(right)
        self._count_set(kept=kept)
        return data

    async def _kept_anew(
        self, namespace: str, key: str, seconds: float, value: Json, mark: str
    ) -> None:
        data = self._encoded(namespace, value)
        if data is not None and seconds > 0:
            self._count_set(kept=await self._values.put(namespace, key, data, seconds, mark=mark))

    def _claims(self, namespace: str) -> Claims:
        return _Named(self._values, namespace)

    async def give_up(self, right: Right) -> None:
        """Let another make it."""
        if right.held is not None and right.held.is_open:
            await right.held.end()

    # ── many ────────────────────────────────────────────────────────────────────────────────────

    async def invalidate(self, namespace: str, pattern: str = "*") -> int:
        """Forget what is kept in a namespace under readable keys that match, `*` standing for anything.
        How many there were. Once it returns none of them is given any more, by any instance.

        Raises:
            StoreError: the shared store did not answer; some may still be there.
        """
        try:
            gone = await self._values.invalidate(namespace, pattern)
        except StoreError:
            self._count("delete", "failure")
            raise
        self._count("delete", "success")
        return gone

    async def clear(self) -> int:
        """Forget everything, as `invalidate` does, in the stores that joined too."""
        gone = await self.invalidate("*")
        return gone + sum([await values.invalidate("*") for values in self._joined])

    def join(self, values: ValueStore) -> None:
        """Let a store of what is made of these values be cleared with them. It stays its giver's."""
        self._joined.append(values)

    # ── what is told of it ──────────────────────────────────────────────────────────────────────

    def stats(self) -> Mapping[str, Json]:
        """Counts since the start of this process, in the accepted words; the hit rate in percent."""
        with self._lock:
            counts = dict(self._counts)
        hits, misses = counts.get(("get", "hit"), 0), counts.get(("get", "miss"), 0)
        figures = self._values.figures()
        memory = {
            "items": figures.entries,
            "bytes": figures.bytes,
            "max_items": figures.most_entries,
            "max_bytes": figures.most_bytes,
            "expired": figures.expired,
            "evicted": figures.evicted,
        }
        shared = {"failed": figures.failed, "corrupt": figures.corrupt}
        if self._share is not None:
            shared |= {"items": self._share.entries, "bytes": self._share.bytes}
        return {
            "enabled": True,
            "hits": hits,
            "misses": misses,
            "hit_rate": round(100 * hits / (hits + misses), 2) if hits + misses else 0.0,
            "operations": {
                operation: {result: counts.get((operation, result), 0) for result in results}
                for operation, results in _OPERATIONS.items()
            },
            "layers": {"memory": memory, "redis": shared if self._values.remote else None},
        }

    async def state(self) -> StoreState:
        """The shared store, asked now; `stats` tells afterwards what it held."""
        if not self._values.remote:
            return StoreState()
        self._share = None
        try:
            share = self._share = await self._values.share()
        except StoreError:
            return StoreState(enabled=True)
        return StoreState(enabled=True, answers=True, seconds=None if share is None else share.seconds)

    async def aclose(self) -> None:
        """Give connections back."""
        if self._ahead is not None:
            await self._ahead.aclose()
        await self._values.aclose()
        if self.bridge.running:
            await asyncio.to_thread(self.bridge.stop)

    def _looked(self, found: Sought) -> Kept | None:
        if found.alone:
            self._count("get", "failure")
        if found.data is None:
            self._count("get", "miss")
            return None
        self._count("get", "hit", _layer(found))
        return Kept(decoded(found.data), _layer(found))

    def _encoded(self, namespace: str, value: Json) -> bytes | None:
        data = encoded(value)
        if data is None and namespace not in self._told:
            self._told.add(namespace)
            _log.warning(
                "cache=not_kept namespace=%s type=%s: JSON cannot hold it. told_once",
                namespace, type(value).__name__,
            )  # fmt: skip
        return data

    def _count_set(self, *, kept: bool) -> None:
        self._count("set", "success" if kept else "failure")

    def _count(self, operation: str, result: str, layer: Layer | None = None) -> None:
        with self._lock:
            self._counts[operation, result] += 1
        self._seen(operation, result, layer)


_OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "get": ("hit", "miss", "failure"),
    "set": ("success", "failure"),
    "delete": ("success", "failure"),
}
"""The accepted pairs. `failure` of `get`: the shared store did not answer, and memory spoke for it."""


class _Named:
    """Rights to make values of one namespace."""

    def __init__(self, values: ValueStore, namespace: str) -> None:
        self._values = values
        self._namespace = namespace
        self.remote = values.remote

    async def renew(self, key: str, token: str, seconds: float) -> bool:
        return await self._values.renew(self._namespace, key, token, seconds)

    async def release(self, key: str, token: str) -> None:
        await self._values.release(self._namespace, key, token)


def open_cache(
    settings: CacheSettings,
    clock: Clock | None = None,
    seen: Seen = lambda _operation, _result, _layer: None,
) -> LayeredCache:
    """The cache that the settings ask for. Connects to nothing yet; whoever opens it closes it.

    Raises:
        ConfigurationError: the store needs a package that is not installed, or an option is wrong.
    """
    clock = clock or SystemClock()
    values = open_values(settings.store, ROOM, settings.bounds, clock=clock)
    popular = settings.popular_threshold if settings.precaching else None
    return LayeredCache(values, clock, ttl=settings.redis_ttl, popular=popular, seen=seen)


def _layer(found: Sought) -> Layer:
    return "memory" if found.local else "redis"
