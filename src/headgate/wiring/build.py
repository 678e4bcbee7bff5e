"""Who meets whom: an engine out of settings, a provider and what it knows of models."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from headgate.core.call import Key
from headgate.core.ports import CallListener, Clock, Observer, Provider, QuotaStore, Tariff, Transport
from headgate.engine.gate import QuotaGate
from headgate.engine.learner import QuotaLearner
from headgate.engine.pipeline import Pipeline
from headgate.engine.pool import KeyPool
from headgate.engine.protection import Protection
from headgate.engine.stages.admit import Admit
from headgate.engine.stages.attempt import Attempt
from headgate.engine.stages.prepare import Prepare
from headgate.engine.stages.reserve import Reserve
from headgate.engine.stages.send import Send
from headgate.policy.backoff import Backoff
from headgate.policy.estimate import TokenEstimator
from headgate.policy.keyring import KeyRing
from headgate.policy.models import ModelPolicy, Registry
from headgate.policy.quota.table import QuotaTable
from headgate.providers.gemini import GeminiProvider
from headgate.stores.urls import StoreUrl
from headgate.wiring.presets import gemini_registry
from headgate.wiring.protection import guards
from headgate.wiring.resilience import PLAIN, Resilience
from headgate.wiring.settings import GeminiSettings
from headgate.wiring.stores import open_store

if TYPE_CHECKING:  # what only a backend has is imported where it is made: a client need not wait for it
    from headgate.engine.screening import Screening
    from headgate.engine.stages.degrade import Degrade
    from headgate.engine.stages.recall import Recall
    from headgate.engine.stages.upload import Upload
    from headgate.policy.registry import ModelRegistry

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
    @property
    def base_url(self) -> str: ...  # noqa: D102
    @property
    def store(self) -> StoreUrl: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Engine:
    """A built engine: the path, the keys and the outside it owns.

    Attributes:
        own_store: the store that was made for it; None where it was given one, or needs none.
        gate: what reserves quota; None where nothing does.
        learner: what learns quotas nobody declared, if anything does.
        estimator: of the sizes of calls.
        table: the declared quotas.
        protection: what is known of models that fail.
        observer: what hears of attempts and calls.
        recall: what gives kept answers, if anything does.
        upload: what brings files to domains, if anything does.
    """

    pipeline: Pipeline
    pool: KeyPool
    transport: Transport
    clock: Clock
    own_store: QuotaStore | None = None
    gate: QuotaGate | None = None
    learner: QuotaLearner | None = None
    estimator: TokenEstimator = field(default_factory=TokenEstimator)
    table: QuotaTable = field(default_factory=QuotaTable)
    protection: Protection = field(kw_only=True)
    observer: Observer = field(kw_only=True)
    recall: Recall | None = None
    upload: Upload | None = None

    def reserves(self, table: QuotaTable, store: QuotaStore | None) -> bool:
        """Whether it reserves by these declarations in this store."""
        return self.gate is not None and self.gate.store is store and self.table == table

    async def aclose(self) -> None:
        """Close the running loop's connections; a store that was given stays open."""
        try:
            if self.recall is not None:
                await self.recall.aclose()
            await self.transport.aclose()
            if self.gate is not None:
                await self.gate.flush()
        finally:
            if self.own_store is not None:
                await self.own_store.aclose()


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
    margin: float = 1.0,
    learning: bool = True,
    tariff: Tariff | None = None,
    store: QuotaStore | None = None,
    chance: Callable[[], float] = CHANCE,
    models: Callable[[], ModelRegistry] | None = None,
    backoff: Backoff | None = None,
    retry_timeouts: bool = True,
    before: Engine | None = None,
    resilience: Resilience = PLAIN,
    namespace: str = "",
) -> Engine:
    """An engine of one provider. No I/O, no event loop needed.

    `margin` is the share that is used of each quota the upstream tells; declared ones come with it.
    Without `learning` calls for models of which nothing is declared never wait at the gate. A `store`
    that is given stands in for the one the settings name, and is never closed here. Only with `models`
    may calls bring a `Preparation`. `retry_timeouts` tells whether a generation that timed out after it
    was sent is tried again, as S1-37 accepts: it has no effect but its bill. What `before` knows of
    keys and failing models goes on. `resilience` says which optional stages the path has. `namespace`
    names its ledgers in a store that engines with other quotas share; empty: the provider.
    """
    estimator, outside = TokenEstimator(), transport or _http(settings, clock)
    pool = _pool(settings, clock, before)
    table = quotas or QuotaTable()
    own, gate, learner = _quota_keeping(
        settings, namespace or provider.name, pool, table, store, clock, chance,
        learning=learning, margin=margin, tariff=tariff,
    )  # fmt: skip
    guard = guards(resilience.protection, clock, None if before is None else before.protection)
    attempt = Attempt(
        clock, observer, chance, max_retries=settings.max_retries, backoff=backoff or Backoff(),
        retry_timeouts=retry_timeouts, total_keys=len(pool), protection=guard.protection,
    )  # fmt: skip
    screening = None if models is None else _screening(provider, models, estimator, clock)
    prepare = Prepare(provider, registry, settings.model_policy, clock, warn, screening)
    recall = _recall(resilience, f"{provider.name} {settings.base_url}", clock)
    upload = _upload(resilience, provider, pool, clock, before)
    pipeline = Pipeline(
        prepare=prepare, recall=recall,
        degrade=_degrade(provider, prepare, clock) if resilience.fallbacks else None,
        admit=None if resilience.places is None else Admit(resilience.places, clock),
        upload=upload, attempt=attempt, hedge=guard.hedge, protect=guard.protect, watch=guard.watch,
        reserve=Reserve(pool, clock, observer, gate, estimator, learner, tariff, provider.name),
        send=Send(provider, outside, clock, settings.attempt_timeout_seconds), clock=clock,
        observer=observer, provider=provider.name, give_back=None if gate is None else gate.give_back,
        listener=cast("CallListener", observer) if hasattr(observer, "begun") else None,
    )  # fmt: skip
    known = (pipeline, pool, outside, clock, own, gate, learner, estimator, table)
    return Engine(*known, protection=guard.protection, observer=observer, recall=recall, upload=upload)


def _recall(resilience: Resilience, origin: str, clock: Clock) -> Recall | None:
    if resilience.cache is None:
        return None
    from headgate.engine.stages.recall import Recall  # noqa: PLC0415 - a backend's

    return Recall(resilience.cache, clock, origin)


def _upload(
    resilience: Resilience, provider: Provider, pool: KeyPool, clock: Clock, before: Engine | None
) -> Upload | None:
    if resilience.files is None:
        return None
    from headgate.engine.stages.upload import Upload  # noqa: PLC0415 - a backend's
    from headgate.engine.uploading import Uploading  # noqa: PLC0415

    known = None if before is None or before.upload is None else before.upload.lodgings
    return Upload(pool, provider, Uploading(resilience.files, provider, clock, known), clock)


def _degrade(provider: Provider, prepare: Prepare, clock: Clock) -> Degrade:
    from headgate.engine.stages.degrade import Degrade  # noqa: PLC0415 - a backend's

    return Degrade(provider, prepare.moved, clock)


def _screening(
    provider: Provider, models: Callable[[], ModelRegistry], estimator: TokenEstimator, clock: Clock
) -> Screening:
    from headgate.engine.screening import Screening  # noqa: PLC0415 - a backend's

    return Screening(provider, models, estimator, clock)


def _quota_keeping(
    settings: EngineSettings, namespace: str, pool: KeyPool, table: QuotaTable,
    store: QuotaStore | None, clock: Clock, chance: Callable[[], float],
    *, learning: bool, margin: float, tariff: Tariff | None,
) -> tuple[QuotaStore | None, QuotaGate | None, QuotaLearner | None]:  # fmt: skip
    """The store that was opened for it, the gate and the learner; none of them where nothing is known
    of quotas, and nothing is to be learned."""
    if not learning and not table.declared:
        return None, None, None
    own = None
    if store is None:
        store = own = open_store(settings.store, clock=clock, chance=chance)
    gate = QuotaGate(store, pool, table, clock, chance, namespace)
    if not learning:
        return own, gate, None
    names = pool.domain_names
    return own, gate, QuotaLearner(gate, table, names, clock, margin=margin, tariff=tariff)


def _pool(settings: EngineSettings, clock: Clock, before: Engine | None) -> KeyPool:
    ring = KeyRing(
        settings.keys, rotation=settings.rotation_enabled, fallback=float(settings.backoff_seconds)
    )
    pool = KeyPool(ring, clock)
    return pool if before is None else pool.succeeding(before.pool)


def build_gemini(
    settings: GeminiSettings,
    *,
    clock: Clock,
    observer: Observer,
    warn: Callable[[str], None],
    transport: Transport | None = None,
    store: QuotaStore | None = None,
    chance: Callable[[], float] = CHANCE,
    resilience: Resilience = PLAIN,
    before: Engine | None = None,
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
        margin=settings.quota_margin,
        learning=settings.quota_learning,
        store=store,
        chance=chance,
        resilience=resilience,
        before=before,
    )


def _http(settings: EngineSettings, clock: Clock) -> Transport:
    # aiohttp takes a tenth of a second to import; scripts that only look at keys need not wait for it.
    from headgate.transport.http import HttpTransport, Timeouts  # noqa: PLC0415

    timeouts = Timeouts(
        settings.connect_timeout_seconds, settings.attempt_timeout_seconds, settings.stream_idle_seconds
    )
    return HttpTransport(clock, timeouts)
