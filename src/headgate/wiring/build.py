"""Who meets whom: the engine of a Gemini client out of its settings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.engine.gate import QuotaGate
from headgate.engine.pipeline import Pipeline
from headgate.engine.pool import KeyPool
from headgate.engine.stages.attempt import Attempt
from headgate.engine.stages.prepare import Prepare
from headgate.engine.stages.reserve import Reserve
from headgate.engine.stages.send import Send
from headgate.policy.backoff import Backoff
from headgate.policy.keyring import KeyRing
from headgate.providers.gemini import GeminiProvider
from headgate.stores.memory import MemoryStore
from headgate.wiring.presets import gemini_registry
from headgate.wiring.settings import GeminiSettings

__all__ = ["Engine", "build_gemini"]


@dataclass(frozen=True, slots=True)
class Engine:
    """A built engine: the path, the keys and the outside it owns."""

    pipeline: Pipeline
    pool: KeyPool
    transport: Transport
    clock: Clock


def build_gemini(
    settings: GeminiSettings,
    *,
    clock: Clock,
    observer: Observer,
    warn: Callable[[str], None],
    transport: Transport | None = None,
    store: QuotaStore | None = None,
    chance: Callable[[], float] = random.random,  # noqa: TID251 - chance enters the engine here
) -> Engine:
    """The engine of one Gemini client. No I/O, no event loop needed."""
    provider = GeminiProvider(settings.base_url)
    ring = KeyRing(
        settings.keys, rotation=settings.rotation_enabled, fallback=float(settings.backoff_seconds)
    )
    pool = KeyPool(ring, clock)
    outside = transport or _http(settings, clock)
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
        prepare=Prepare(provider, gemini_registry(), settings.model_policy, clock, warn),
        attempt=attempt,
        reserve=Reserve(pool, clock, observer, _gate(settings, pool, clock, chance, store)),
        send=Send(provider, outside),
        clock=clock,
        observer=observer,
    )
    return Engine(pipeline, pool, outside, clock)


def _gate(
    settings: GeminiSettings,
    pool: KeyPool,
    clock: Clock,
    chance: Callable[[], float],
    store: QuotaStore | None,
) -> QuotaGate | None:
    if not settings.quotas:
        return None
    return QuotaGate(store or MemoryStore(clock), pool, settings.quotas, clock, chance)


def _http(settings: GeminiSettings, clock: Clock) -> Transport:
    # aiohttp takes a tenth of a second to import; scripts that only look at keys need not wait for it.
    from headgate.transport.http import HttpTransport, Timeouts  # noqa: PLC0415

    timeouts = Timeouts(
        settings.connect_timeout_seconds, settings.attempt_timeout_seconds, settings.stream_idle_seconds
    )
    return HttpTransport(clock, timeouts)
