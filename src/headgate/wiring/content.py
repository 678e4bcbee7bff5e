"""The engine of the content service: one of Gemini, held to the quotas that the service declares.

Its quotas count requests and all tokens, those of prompts and of answers, of each project and model, as
S4 has it. They are declared here and nowhere else: what `[gemini]` declares is for other doors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from urllib.parse import urlsplit

from headgate.core.call import Key
from headgate.core.errors import ConfigurationError
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.core.quota import Counts
from headgate.engine.protection import ProtectionRules
from headgate.policy.breaker import BreakerRules
from headgate.policy.concurrency import ConcurrencyRules
from headgate.policy.days import utc_day
from headgate.policy.models import ModelPolicy
from headgate.policy.quota.table import Counting, Quota
from headgate.policy.retry_budget import BudgetRules
from headgate.providers.gemini import GeminiProvider
from headgate.stores.memory import MemoryStore
from headgate.stores.tried import TriedStore
from headgate.stores.urls import StoreUrl
from headgate.wiring.build import CHANCE, Engine, assemble
from headgate.wiring.presets import gemini_registry
from headgate.wiring.quotas import Grammar, quota_table
from headgate.wiring.resilience import Resilience
from headgate.wiring.settings import GeminiSettings, load_gemini
from headgate.wiring.stores import IN_MEMORY, check_store, open_store

__all__ = ["GUARDED", "ContentEngine", "ContentNeeds", "build_content", "open_content_store"]

_GRAMMAR = Grammar(("rpm", "tpm", "rpd", "tpd"), "projects", {}, counting=Counting(tokens=Counts.TOTAL))

_REDIS_PORT = 6379

GUARDED = Resilience(
    protection=ProtectionRules(
        breaker=BreakerRules(failures=5, open_seconds=60.0, successes=2),
        concurrency=ConcurrencyRules(),
        retries=BudgetRules(),
    )
)
"""The breaker of S4 §5.6: 5 failures, 60 s, 2 successes."""


@dataclass(frozen=True, slots=True)
class ContentNeeds:
    """What the service says of its engine.

    Attributes:
        quota: the nominal numbers of each project and model; none of them: nothing is declared.
        margin: the share of each that is used.
        store: where the ledgers live.
        store_named: somebody said so.
    """

    quota: Quota = field(default_factory=Quota)
    margin: float = 0.8
    store: StoreUrl = IN_MEMORY
    store_named: bool = False


@dataclass(frozen=True, slots=True)
class ContentEngine:
    """An engine, and what the service asks it for.

    Attributes:
        store: of the quota ledgers.
        policy: what is done about retired ones.
    """

    engine: Engine
    store: QuotaStore
    policy: ModelPolicy
    clock: Clock

    def on_the_wire(self, model: str) -> str:
        """The model that a call for this one goes to today."""
        today: date = utc_day(self.clock.wall())
        return gemini_registry().resolve(model, today, self.policy).model.id

    @property
    def keys(self) -> int:
        """How many keys are left that were not refused for good."""
        return sum(state.disabled is None for state in self.engine.pool.states())

    async def aclose(self) -> None:
        """Close connections and the ledgers."""
        await self.engine.aclose()
        await self.store.aclose()


def open_content_store(needs: ContentNeeds, clock: Clock) -> QuotaStore:
    """Where the ledgers live. Raises `ConfigurationError`.

    A store that nobody named is used where it is there, and done without where it is not.
    """
    url = needs.store
    try:
        check_store(url)
    except ConfigurationError:
        if needs.store_named:
            raise
        url = IN_MEMORY
    if needs.store_named or url.memory:
        return open_store(url, clock=clock, chance=CHANCE)
    place = urlsplit(url.nodes[0])
    return TriedStore(
        place.hostname or "localhost",
        place.port or _REDIS_PORT,
        lambda: open_store(url, clock=clock, chance=CHANCE),
        MemoryStore(clock),
    )


def build_content(
    needs: ContentNeeds,
    *,
    clock: Clock,
    observer: Observer,
    warn: Callable[[str], None],
    environ: Mapping[str, str] | None = None,
    keys: tuple[Key, ...] | None = None,
    base_url: str | None = None,
    transport: Transport | None = None,
    store: QuotaStore | None = None,
    chance: Callable[[], float] = CHANCE,
) -> ContentEngine:
    """The engine of a content service. No I/O, no event loop needed.

    Args:
        environ: where the settings of `[gemini]` are read from; None: the process environment.
        keys, base_url: instead of those of the environment.
        transport: what sends, instead of HTTP; it stays the caller's.
        store: where the ledgers live, instead of what the settings name.

    Raises:
        ConfigurationError: a setting is wrong, or there is no key.
    """
    arguments = {} if base_url is None else {"base_url": base_url}
    gemini: GeminiSettings = load_gemini(arguments, keys=keys, quotas={}, environ=environ)
    ledgers = store or open_content_store(needs, clock)
    table = quota_table(needs.quota, {}, needs.margin, "content quotas", _GRAMMAR)
    engine = assemble(
        replace(gemini, store=needs.store),
        GeminiProvider(gemini.base_url),
        gemini_registry(),
        clock=clock,
        observer=observer,
        warn=warn,
        transport=transport,
        quotas=table,
        margin=needs.margin,
        learning=gemini.quota_learning,
        store=ledgers,
        chance=chance,
        resilience=GUARDED,
        namespace="gemini-content",  # its quotas are not those of a gateway on the same store
    )
    return ContentEngine(engine, ledgers, gemini.model_policy, clock)
