"""Who meets whom behind the gateway: one engine for each provider that there are keys for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypedDict, cast

from headgate.core.errors import ConfigurationError, NoKeysError
from headgate.core.ports import Clock, Observer, Transport
from headgate.core.replies import ReplyCache
from headgate.engine.protection import ProtectionRules
from headgate.policy.breaker import BreakerRules
from headgate.policy.concurrency import ConcurrencyRules
from headgate.policy.retry_budget import BudgetRules
from headgate.stores.urls import StoreUrl
from headgate.wiring.build import CHANCE, Engine, EngineSettings, build_gemini
from headgate.wiring.claude import build_claude, load_claude
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.gateway_transport import Sending, SendsOver, open_transport
from headgate.wiring.key_status import KeyBooks
from headgate.wiring.openai import build_openai, load_openai
from headgate.wiring.replies import CacheBounds, open_replies
from headgate.wiring.resilience import Resilience
from headgate.wiring.settings import load_gemini, process_environment, resolve_alone

__all__ = ["GUARDED", "Upstream", "open_cache", "open_upstreams"]

GUARDED = Resilience(
    protection=ProtectionRules(
        breaker=BreakerRules(failures=20, open_seconds=10.0),
        concurrency=ConcurrencyRules(),
        retries=BudgetRules(),
    )
)
"""What keeps many clients off a model that fails. Hundreds of calls are under way here: five failures
in a row, which the backend takes for an outage, are one lost connection, and a minute is long for those
who could be served. So it takes more to open the breaker, and less time until it tries again."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider that the gateway calls.

    Attributes:
        name: of the provider, and of the surface that speaks its protocol.
        max_wait: seconds a call may wait for a key, where it has no deadline of its own.
        metric_prefix, group: what the metrics of its keys are called, and what their quota belongs to.
    """

    name: str
    engine: Engine
    books: KeyBooks
    max_wait: float
    metric_prefix: str
    group: str

    @property
    def usable(self) -> bool:
        """Whether a key is left that was not refused for good. O(keys)."""
        return any(state.disabled is None for state in self.engine.pool.states())


class _Settings(EngineSettings, Protocol):
    @property
    def backoff_seconds(self) -> int: ...
    @property
    def max_wait_seconds(self) -> float: ...


def open_cache(
    settings: GatewaySettings, clock: Clock, environ: Mapping[str, str] | None = None
) -> ReplyCache | None:
    """Where the gateway's answers are kept, in this process and in the store that processes share; None
    where none are. Whoever opens it closes it. Raises `ConfigurationError`."""
    if not settings.cache_seconds:
        return None
    url = cast("StoreUrl", resolve_alone("store", environ=environ).value)
    size = settings.cache_mib * 1024 * 1024
    bounds = CacheBounds(_MOST_KEPT, size, 4 * size)
    return open_replies(url, bounds, clock=clock, chance=CHANCE)


_MOST_KEPT = 100_000
"""Answers; their size is bounded besides."""


class _Outside(TypedDict):
    """What all engines are built with."""

    clock: Clock
    observer: Observer
    warn: Callable[[str], None]
    resilience: Resilience


def open_upstreams(
    *,
    clock: Clock,
    observer: Observer,
    warn: Callable[[str], None],
    environ: Mapping[str, str] | None = None,
    transport: Transport | None = None,
    sending: Sending = Sending.AUTO,
    resilience: Resilience = GUARDED,
    cache: ReplyCache | None = None,
) -> tuple[Upstream, ...]:
    """An engine for each provider with keys, by the settings that its client has. No I/O.

    Args:
        environ: instead of the process environment.
        transport: sends for all of them; each has one of its own otherwise.
        sending: which that is.
        cache: where answers are kept, if they are; it stays open.

    Raises `ConfigurationError`: a setting is wrong, there is no key for any provider, or the transport
    asked for is not to be had.
    """

    outside: _Outside = {
        "clock": clock,
        "observer": observer,
        "warn": warn,
        "resilience": replace(resilience, cache=cache),
    }

    def over(settings: SendsOver) -> Transport:
        return transport or open_transport(sending, settings, clock, process_environment(environ))

    def gemini() -> Upstream:
        settings = load_gemini(environ=environ)
        engine = build_gemini(settings, transport=over(settings), **outside)
        return _upstream("gemini", settings, engine, clock, "headgate", "project")

    def anthropic() -> Upstream:
        settings = load_claude(environ=environ)
        engine = build_claude(settings, transport=over(settings), **outside)
        return _upstream("anthropic", settings, engine, clock, "headgate_claude", "organisation")

    def openai() -> Upstream:
        settings = load_openai(environ=environ)
        engine = build_openai(settings, transport=over(settings), **outside)
        return _upstream("openai", settings, engine, clock, "headgate_openai", "organisation")

    found = []
    for made in (gemini, anthropic, openai):
        try:
            found.append(made())
        except NoKeysError:
            continue
    if not found:
        raise ConfigurationError(
            "No key of any provider was found. Set GEMINI_API_KEYS, ANTHROPIC_API_KEYS or "
            "OPENAI_API_KEYS; to try without a key, run `headgate emulator` and use what it prints."
        )
    return tuple(found)


def _upstream(
    name: str, settings: _Settings, engine: Engine, clock: Clock, prefix: str, group: str
) -> Upstream:
    books = KeyBooks(
        engine.pool,
        clock,
        group=group,
        rotation_enabled=settings.rotation_enabled,
        backoff_seconds=settings.backoff_seconds,
    )
    return Upstream(name, engine, books, settings.max_wait_seconds, prefix, group)
