"""Who meets whom: an engine out of settings, a provider and what it knows of models."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headgate.core.call import Key
from headgate.core.ports import Clock, Observer, Provider, QuotaStore, Transport
from headgate.engine.gate import QuotaGate
from headgate.engine.pipeline import Pipeline
from headgate.engine.pool import KeyPool
from headgate.engine.stages.attempt import Attempt
from headgate.engine.stages.prepare import Prepare
from headgate.engine.stages.reserve import Reserve
from headgate.engine.stages.send import Send
from headgate.policy.backoff import Backoff
from headgate.policy.keyring import KeyRing
from headgate.policy.models import ModelPolicy, Registry
from headgate.policy.quota.table import QuotaTable
from headgate.providers.gemini import GeminiProvider
from headgate.stores.memory import MemoryStore
from headgate.wiring.presets import gemini_registry
from headgate.wiring.settings import GeminiSettings

__all__ = ["Engine", "EngineSettings", "assemble", "build_gemini"]

CHANCE = random.random  # noqa: TID251 - chance enters the engine here


class EngineSettings(Protocol):
    """What every engine is built from, whichever provider it calls. Times in seconds."""

    @property
    def keys(self) -> Sequence[Key]: ...  # noqa: D102 - the settings of each door document them
    @property
    def model_policy(self) -> ModelPolicy: ...  # noqa: D102
    @property
    def rotation_enabled(self) -> bool: ...  # noqa: D102
    @property
    def backoff_seconds(self) -> int: ...  # noqa: D102
    @property
    def max_retries(self) -> int: ...  # noqa: D102
    @property
    def connect_timeout_seconds(self) -> float: ...  # noqa: D102
    @property
    def attempt_timeout_seconds(self) -> float: ...  # noqa: D102
    @property
    def stream_idle_seconds(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Engine:
    """A built engine: the path, the keys and the outside it owns."""

    pipeline: Pipeline
    pool: KeyPool
    transport: Transport
    clock: Clock


def assemble(
    settings: EngineSettings,
    provider: Provider,
    registry: Registry,
    *,
    clock: Clock,
    observer: Observer,
    warn: Callable[[str], None],
    transport: Transport | None = None,
    quotas: QuotaTable | None = None,
    store: QuotaStore | None = None,
    chance: Callable[[], float] = CHANCE,
) -> Engine:
    """An engine of one provider. No I/O, no event loop needed."""
    ring = KeyRing(
        settings.keys, rotation=settings.rotation_enabled, fallback=float(settings.backoff_seconds)
    )
    pool = KeyPool(ring, clock)
    outside = transport or _http(settings, clock)
    gate = None
    if quotas is not None:
        gate = QuotaGate(store or MemoryStore(clock), pool, quotas, clock, chance, provider.name)
    attempt = Attempt(
        clock,
        observer,
        chance,
        max_retries=settings.max_retries,
        backoff=Backoff(),
        retry_timeouts=True,  # S1-37 accepts it: a generation has no effect but its bill
        total_keys=len(pool),
    )
    pipeline = Pipeline(
        prepare=Prepare(provider, registry, settings.model_policy, clock, warn),
        attempt=attempt,
        reserve=Reserve(pool, clock, observer, gate),
        send=Send(provider, outside),
        clock=clock,
        observer=observer,
    )
    return Engine(pipeline, pool, outside, clock)


def build_gemini(
    settings: GeminiSettings,
    *,
    clock: Clock,
    observer: Observer,
    warn: Callable[[str], None],
    transport: Transport | None = None,
    store: QuotaStore | None = None,
    chance: Callable[[], float] = CHANCE,
) -> Engine:
    """The engine of one Gemini client."""
    return assemble(
        settings,
        GeminiProvider(settings.base_url),
        gemini_registry(),
        clock=clock,
        observer=observer,
        warn=warn,
        transport=transport,
        quotas=settings.quotas,
        store=store,
        chance=chance,
    )


def _http(settings: EngineSettings, clock: Clock) -> Transport:
    # aiohttp takes a tenth of a second to import; scripts that only look at keys need not wait for it.
    from headgate.transport.http import HttpTransport, Timeouts  # noqa: PLC0415

    timeouts = Timeouts(
        settings.connect_timeout_seconds, settings.attempt_timeout_seconds, settings.stream_idle_seconds
    )
    return HttpTransport(clock, timeouts)
