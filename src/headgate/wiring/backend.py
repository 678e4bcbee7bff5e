"""The engine of a backend: settings out of its configuration, and who meets whom.

Generations of an engine follow each other when the configuration changes. What is known of keys and
what was counted of quotas goes on: a change neither forgives a cool-down nor grants a quota twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headgate.core.call import Key
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.core.replies import ReplyCache
from headgate.core.sessions import SessionStore
from headgate.engine.places import Places
from headgate.engine.protection import ProtectionRules
from headgate.policy.backoff import Backoff
from headgate.policy.registry import ModelRegistry
from headgate.providers.gemini import GeminiProvider
from headgate.providers.gemini_files import GeminiFiles
from headgate.stores.sessions import MemorySessions
from headgate.stores.sessions_sqlite import SqliteSessions
from headgate.wiring.build import CHANCE, Engine, assemble
from headgate.wiring.quotas import GEMINI_QUOTAS, split_quotas
from headgate.wiring.resilience import Resilience
from headgate.wiring.settings import GeminiSettings, load_gemini
from headgate.wiring.stores import check_store
from headgate.wiring.succession import carry_limits

__all__ = ["Tuning", "build_backend", "load_backend", "open_sessions"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of a backend's configuration its engine is built from. Times in seconds.

    Attributes:
        max_attempts: all tries of a call.
        connections: to the upstream, at once.
        protection: breakers, limits of calls at once, budgets of retries, second attempts.
        quotas: as the clients take them; empty: those of environment and file.
        store: URL of a shared store; None: that of environment and file.
    """

    max_attempts: int
    backoff: Backoff
    connections: int
    connect_seconds: float
    request_seconds: float
    stream_idle_seconds: float
    connection_idle_seconds: float
    quotas: Mapping[str, object]
    store: str | None
    protection: ProtectionRules = field(default_factory=ProtectionRules)


def load_backend(
    tuning: Tuning,
    *,
    keys: tuple[Key, ...] | None,
    base_url: str | None,
    environ: Mapping[str, str] | None,
) -> GeminiSettings:
    """The settings of a generation. Raises `ConfigurationError`, and `NoKeysError` without a key."""
    numbers, tables = split_quotas(tuning.quotas or None, GEMINI_QUOTAS)
    arguments: dict[str, object] = {
        "base_url": base_url,
        "store": tuning.store,
        "max_retries": tuning.max_attempts - 1,
        "connect_timeout_seconds": tuning.connect_seconds,
        "attempt_timeout_seconds": tuning.request_seconds,
        "stream_idle_seconds": tuning.stream_idle_seconds,
        **numbers,
    }
    settings = load_gemini(arguments, keys=keys, quotas=tables, environ=environ)
    check_store(settings.store)
    return settings


def build_backend(
    settings: GeminiSettings,
    tuning: Tuning,
    models: Callable[[], ModelRegistry],
    *,
    clock: Clock,
    observer: Observer,
    warn: Callable[[str], None],
    store: QuotaStore,
    transport: Transport | None = None,
    before: Engine | None = None,
    chance: Callable[[], float] = CHANCE,
    cache: ReplyCache | None = None,
    places: Places | None = None,
) -> Engine:
    """The engine of a generation. No I/O, no event loop needed.

    Args:
        store: of the quota ledgers; it outlives the generation.
        cache: where answers are kept, if they are; it outlives the generation.
        places: of calls that go upstream, counted over all generations.
        before: the generation before this one, with the same keys.
    """
    engine = assemble(
        settings,
        GeminiProvider(settings.base_url),
        models().names,
        clock=clock,
        observer=observer,
        warn=warn,
        transport=transport or _http(tuning, clock),
        quotas=settings.quotas,
        margin=settings.quota_margin,
        learning=settings.quota_learning,
        store=store,
        chance=chance,
        models=models,
        backoff=tuning.backoff,
        retry_timeouts=False,  # S3-04c: a request that timed out may have been billed
        before=before,
        resilience=Resilience(
            cache, fallbacks=True, protection=tuning.protection, places=places, files=GeminiFiles()
        ),
    )
    if before is not None:
        carry_limits(before, engine)
    return engine


def _http(tuning: Tuning, clock: Clock) -> Transport:
    from headgate.transport.http import HttpTransport, Timeouts  # noqa: PLC0415 - slow to import

    return HttpTransport(
        clock,
        Timeouts(tuning.connect_seconds, tuning.request_seconds, tuning.stream_idle_seconds),
        connections=tuning.connections,
        idle_seconds=tuning.connection_idle_seconds,
    )


def open_sessions(path: str | None) -> SessionStore:
    """Where sessions are remembered: a file, or this process. Opens nothing yet.

    Raises:
        ConfigurationError: the file's folder does not exist, or the path is a folder.
    """
    return MemorySessions() if path is None else SqliteSessions(path)
