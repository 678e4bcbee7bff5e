"""Generations of the engine: one answers, the one before it runs out.

A change of the configuration builds a new engine first, and only a whole one takes over. Calls under
way keep the engine they began with; when the last of them has ended, it is closed. Places are counted
over all generations (`engine/stages/admit.py`): the number of calls at once is that of the newest
configuration.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Lock

from headgate.backend.protecting import protection_of
from headgate.backend.remembering import bounds_of
from headgate.backend.settings import BackendConfig
from headgate.core.call import Key
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.core.replies import ReplyCache
from headgate.engine.places import Places
from headgate.policy.backoff import Backoff
from headgate.policy.days import utc_day
from headgate.policy.registry import ModelRegistry
from headgate.stores.urls import StoreUrl
from headgate.wiring.backend import Tuning, build_backend, load_backend
from headgate.wiring.build import CHANCE, Engine
from headgate.wiring.keys import parse_keys
from headgate.wiring.replies import ReplyRoom
from headgate.wiring.settings import GeminiSettings
from headgate.wiring.stores import open_store

__all__ = ["EngineRoom", "Generation", "Hold", "Outside", "tuning_of"]

_log = logging.getLogger("headgate.backend")

_OURS = ""
"""Name of the generation with the backend's keys, among those of callers' own."""

_MOST_KEYS = 64
"""Generations of callers' own keys that are kept; the one used longest ago makes room."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What a backend was given when it was made.

    Attributes:
        keys: instead of those of the environment.
        transport: what sends, instead of HTTP; it stays the caller's.
        store: where quota ledgers live; it stays the caller's.
        guests: hears of the engines with callers' own keys instead: what becomes of those keys is their
            callers' business; None: the same observer.
        environ: where settings are read from; None: the process environment.
        beside: an engine whose keys and ledgers are shared, if there is one.
    """

    clock: Clock
    observer: Observer
    keys: tuple[Key, ...] | None = None
    base_url: str | None = None
    transport: Transport | None = None
    store: QuotaStore | None = None
    environ: Mapping[str, str] | None = None
    guests: Observer | None = None
    beside: Callable[[], Engine | None] = lambda: None


@dataclass(slots=True)
class _Ledgers:
    """A store of quota ledgers, and how many generations use it. `own`: it was opened here."""

    store: QuotaStore
    url: StoreUrl
    own: bool
    users: int = 0
    replaced: bool = False


@dataclass(slots=True)
class Generation:
    """An engine, and what it was built from.

    Attributes:
        number: counts from 1.
        calls: under way with it.
        retired: another has taken over.
    """

    number: int
    config: BackendConfig
    settings: GeminiSettings
    engine: Engine
    ledgers: _Ledgers
    calls: int = 0
    retired: bool = False
    closed: bool = False


def tuning_of(config: BackendConfig) -> Tuning:
    """The configuration in the engine's words."""
    retry = config.retry_config
    return Tuning(
        max_attempts=retry.max_attempts,
        backoff=Backoff(
            retry.initial_delay_ms / 1000,
            retry.exponential_base,
            retry.max_delay_ms / 1000,
            retry.jitter,
        ),
        connections=config.connection_pool_size,
        connect_seconds=config.connect_timeout_seconds,
        request_seconds=config.request_timeout_seconds,
        stream_idle_seconds=config.stream_idle_seconds,
        connection_idle_seconds=config.connection_idle_seconds,
        quotas=config.quotas,
        store=config.store,
        protection=protection_of(config),
    )


class Hold:
    """A call's hold on a generation."""

    __slots__ = ("_api_key", "_held", "_room")

    def __init__(self, room: EngineRoom, api_key: str | None) -> None:
        self._room = room
        self._api_key = api_key
        self._held: Generation | None = None

    async def __aenter__(self) -> Generation:
        held = self._held = self._room.enter(self._api_key)
        return held

    async def __aexit__(self, *exc: object) -> None:
        if self._held is not None:
            await self._room.leave(self._held)


class EngineRoom:
    """Builds generations when they are needed, and closes them when they are not.

    Callers who bring a key of their own have generations of their own: their key serves nobody else.

    Args:
        models: the registry under a configuration.
    """

    def __init__(
        self,
        config: BackendConfig,
        outside: Outside,
        models: Callable[[BackendConfig], ModelRegistry],
    ) -> None:
        self._config = config
        self._outside = outside
        self._models = models
        self._lock = Lock()
        self._running: OrderedDict[str, Generation] = OrderedDict()
        self._crowded_out: list[Generation] = []
        self._ledgers: _Ledgers | None = None
        self._built = 0
        self.replies = ReplyRoom(outside.clock, CHANCE)
        self.places = Places(_places(config), config.max_queued_requests, outside.clock)

    def share(self, beside: Callable[[], Engine | None]) -> None:
        """Build generations over the keys and ledgers of another engine; before the first."""
        self._outside = replace(self._outside, beside=beside)

    @property
    def config(self) -> BackendConfig:
        """The configuration that new calls meet."""
        return self._config

    @property
    def started(self) -> Generation | None:
        """The running generation; None before the first call."""
        return self._running.get(_OURS)

    def generation(self, api_key: str | None = None) -> Generation:
        """The running generation, built now if it is the first. Raises `ConfigurationError`.

        Args:
            api_key: the caller's own key, instead of those of the backend.
        """
        with self._lock:
            return self._find(api_key)

    def memory(self, api_key: str | None, model: str) -> tuple[ReplyCache, str, str] | None:
        """Where replies are kept, the address that gives them, and which model this name means there
        today; None: none are kept. Raises `ConfigurationError`."""
        held, cache = self.generation(api_key), self.replies.cache
        if cache is None:
            return None
        today = utc_day(self._outside.clock.wall())
        means = self._models(held.config).resolve(model, today, held.settings.model_policy)
        return cache, held.settings.base_url, means.model.id

    def hold(self, api_key: str | None = None) -> Hold:
        """The generation a call runs on, for `async with`; streams end inside of it.

        Args:
            api_key: the caller's own key, instead of those of the backend.

        Entering raises `ConfigurationError` where the engine cannot be built.
        """
        return Hold(self, api_key)

    def enter(self, api_key: str | None) -> Generation:
        """A call begins; see `hold`."""
        with self._lock:
            held = self._find(api_key)
            held.calls += 1
            return held

    async def leave(self, held: Generation) -> None:
        """A call has ended; the last of a retired generation closes it."""
        with self._lock:
            held.calls -= 1
        if held.retired:
            await self._end_if_idle(held)
        await self._end_crowded_out()

    async def swap(self, config: BackendConfig) -> None:
        """Let a configuration take over. Raises `ConfigurationError`; then everything is as it was."""
        with self._lock:
            ours, new = self._running.get(_OURS), None
            if ours is None:
                self._try_out(config)
            else:
                shares = self._outside.beside() is not None
                new = self._build(config, None if shares else ours.settings.keys, ours)
            retired = list(self._running.values())  # callers' own are built anew when they come again
            self._running.clear()
            if new is not None:
                self._running[_OURS] = new
            self._config = config
            for old in retired:
                old.retired = True
        self.places.resize(_places(config), config.max_queued_requests)
        for old in retired:
            await self._end_if_idle(old)
        await self.replies.tidy()

    async def aclose(self) -> None:
        """Close what is idle now, and the rest with its last call."""
        with self._lock:
            retired = [*self._running.values(), *self._crowded_out]
            self._running.clear()
            self._crowded_out.clear()
            if self._ledgers is not None:
                self._ledgers.replaced = True
                self._ledgers = None
            for old in retired:
                old.retired = True
        for old in retired:
            await self._end_if_idle(old)
        await self.replies.aclose()

    # ── building, under the lock ────────────────────────────────────────────────────────────────

    def _find(self, api_key: str | None) -> Generation:
        name = _OURS if api_key is None else sha256(api_key.encode()).hexdigest()
        found = self._running.get(name)
        if found is None:
            keys = self._outside.keys if api_key is None else _own_key(api_key, name)
            found = self._running[name] = self._build(self._config, keys, None)
        self._running.move_to_end(name)
        if len(self._running) > _MOST_KEYS:
            oldest = next(key for key in self._running if key not in (_OURS, name))
            gone = self._running.pop(oldest)
            gone.retired = True  # its last call closes it; one that is idle, the next call that ends
            self._crowded_out.append(gone)
        return found

    def _try_out(self, config: BackendConfig) -> None:
        """Find what is wrong with a configuration before anything runs on it. Keys may still come."""
        keys = self._outside.keys or (Key("none", "none", "none"),)
        self._settings(config, keys)

    def _settings(self, config: BackendConfig, keys: tuple[Key, ...] | None) -> GeminiSettings:
        outside = self._outside
        return load_backend(
            tuning_of(config), keys=keys, base_url=outside.base_url, environ=outside.environ
        )

    def _build(
        self, config: BackendConfig, keys: tuple[Key, ...] | None, old: Generation | None
    ) -> Generation:
        outside, settings = self._outside, self._settings(config, keys)
        ours = old is not None or keys is outside.keys
        beside = outside.beside() if ours else None
        gate = None if beside is None else beside.gate
        given = outside.store if gate is None else gate.store
        ledgers = self._ledgers
        moved = ledgers is not None and gate is not None and ledgers.store is not given
        if ledgers is None or moved or (ledgers.own and ledgers.url != settings.store):
            store = given or open_store(settings.store, clock=outside.clock, chance=CHANCE)
            ledgers = _Ledgers(store, settings.store, own=given is None)
        before = None if old is None else old.engine
        if beside is not None and (before is None or before.pool is not beside.pool):
            before = beside
        bounds = bounds_of(config)
        cache = self.replies.planned(settings.store, bounds)
        engine = build_backend(
            settings,
            tuning_of(config),
            lambda: self._models(config),
            clock=outside.clock,
            observer=outside.observer if ours else outside.guests or outside.observer,
            warn=_log.warning,
            store=ledgers.store,
            transport=outside.transport,
            before=before,
            cache=cache,
            places=self.places,
        )
        self.replies.take(cache, settings.store, bounds)
        if self._ledgers is not None and self._ledgers is not ledgers:
            self._ledgers.replaced = True
        self._ledgers = ledgers
        ledgers.users += 1
        self._built += 1
        return Generation(self._built, config, settings, engine, ledgers)

    async def _end_crowded_out(self) -> None:
        """Close who made room: that was found under the lock, where nothing can be awaited."""
        while True:
            with self._lock:
                if not self._crowded_out:
                    return
                gone = self._crowded_out.pop()
            await self._end_if_idle(gone)

    async def _end_if_idle(self, generation: Generation) -> None:
        with self._lock:
            if not generation.retired or generation.calls or generation.closed:
                return
            generation.closed = True
            ledgers = generation.ledgers
            ledgers.users -= 1
            last = ledgers.own and ledgers.replaced and not ledgers.users
        engine = generation.engine
        if engine.recall is not None:
            await engine.recall.aclose()
        if engine.gate is not None:
            await engine.gate.flush()
        if self._outside.transport is None:
            await engine.transport.aclose()
        if last:
            await ledgers.store.aclose()


def _own_key(api_key: str, fingerprint: str) -> tuple[Key, ...]:
    """A caller's own key: a quota domain for itself. Raises `ConfigurationError`, without the key."""
    parsed = parse_keys(api_key, "argument api_key")
    if len(parsed) != 1:
        raise ConfigurationError("argument api_key takes one key.")
    return (Key("own", parsed[0].value, f"own:{fingerprint[:12]}"),)


def _places(config: BackendConfig) -> int:
    """Calls at once: a call that waits for a connection would count it as connecting."""
    return min(config.max_concurrent_requests, config.connection_pool_size)
