"""Who meets whom behind the gateway: one engine for each provider that there are keys for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, cast

from headgate.core.errors import ConfigurationError, NoKeysError
from headgate.core.ports import Clock, Observer, QuotaStore, Transport
from headgate.core.replies import ReplyCache
from headgate.engine.protection import ProtectionRules
from headgate.policy.breaker import BreakerRules
from headgate.policy.concurrency import ConcurrencyRules
from headgate.policy.retry_budget import BudgetRules
from headgate.stores.urls import StoreUrl
from headgate.wiring.build import CHANCE, Engine, build_gemini
from headgate.wiring.claude import build_claude, load_claude
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.gateway_transport import Sending, SendsOver, open_transport
from headgate.wiring.key_check import AnySettings
from headgate.wiring.key_status import KeyBooks
from headgate.wiring.openai import build_openai, load_openai
from headgate.wiring.replies import CacheBounds, open_replies
from headgate.wiring.resilience import Resilience
from headgate.wiring.settings import load_gemini, process_environment, resolve_alone
from headgate.wiring.succession import carry_charges, carry_limits

__all__ = ["GUARDED", "Upstream", "hand_on", "open_cache", "open_upstreams"]

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
        max_retries: attempts of a call beyond its first, rotations aside.
        settings: what it was built from.
        metric_prefix, group: what the metrics of its keys are called, and what their quota belongs to.
        built_with: what else it was built with.
    """

    name: str
    engine: Engine
    books: KeyBooks
    max_wait: float
    metric_prefix: str
    group: str
    settings: AnySettings
    max_retries: int = 0
    built_with: tuple[object, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether a key is left that was not refused for good. O(keys)."""
        return any(state.disabled is None for state in self.engine.pool.states())


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
    before: Sequence[Upstream] = (),
) -> tuple[Upstream, ...]:
    """An engine for each provider with keys, by the settings that its client has. No I/O.

    Args:
        environ: instead of the process environment.
        transport: sends for all of them; each has one of its own otherwise.
        sending: which that is.
        cache: where answers are kept, if they are; it stays open.
        before: those of the configuration before this one. One whose settings are the same goes on; of
            the others what is known of keys, quotas and failing models does.

    Raises `ConfigurationError`: a setting is wrong, there is no key for any provider, or the transport
    asked for is not to be had.
    """

    build = _Build(
        {"clock": clock, "observer": observer, "warn": warn,
         "resilience": replace(resilience, cache=cache)},
        transport, sending, environ, {upstream.name: upstream for upstream in before}, (sending, cache),
    )  # fmt: skip
    found = []
    for made in (build.gemini, build.anthropic, build.openai):
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


async def hand_on(before: Sequence[Upstream], after: Sequence[Upstream]) -> None:
    """Tell the ledgers of upstreams with other keys what was used of their quotas; before their first
    call. Raises `StoreError`."""
    old = {upstream.name: upstream for upstream in before}
    for upstream in after:
        if upstream.name in old:
            await carry_charges(old[upstream.name].engine, upstream.engine)


class _Shared(TypedDict):
    """What an engine is built with beside its settings."""

    transport: Transport
    store: QuotaStore | None
    before: Engine | None


@dataclass(frozen=True, slots=True)
class _Build:
    """Builds the upstream of each provider. Raises `NoKeysError` where it has no key."""

    outside: _Outside
    transport: Transport | None
    sending: Sending
    environ: Mapping[str, str] | None
    before: Mapping[str, Upstream]
    built_with: tuple[object, ...]

    def gemini(self) -> Upstream:
        settings = load_gemini(environ=self.environ)
        return self._succeeding(
            "gemini", settings, "headgate", "project",
            lambda shared: build_gemini(settings, **shared, **self.outside),
        )  # fmt: skip

    def anthropic(self) -> Upstream:
        settings = load_claude(environ=self.environ)
        return self._succeeding(
            "anthropic", settings, "headgate_claude", "organisation",
            lambda shared: build_claude(settings, **shared, **self.outside),
        )  # fmt: skip

    def openai(self) -> Upstream:
        settings = load_openai(environ=self.environ)
        return self._succeeding(
            "openai", settings, "headgate_openai", "organisation",
            lambda shared: build_openai(settings, **shared, **self.outside),
        )  # fmt: skip

    def _succeeding(
        self,
        name: str,
        settings: AnySettings,
        prefix: str,
        group: str,
        build: Callable[[_Shared], Engine],
    ) -> Upstream:
        """The upstream of these settings: the one before, if nothing about it is other now; else a new
        one, over the ledgers of the one before where its store is the same."""
        old = self.before.get(name)
        if old is not None and old.settings == settings and old.built_with == self.built_with:
            return old
        before = None if old is None else old.engine
        store = None
        if old is not None and before is not None and old.settings.store == settings.store:
            store = None if before.gate is None else before.gate.store
        engine = build({"transport": self._over(settings), "store": store, "before": before})
        if before is not None:
            carry_limits(before, engine)
            if store is not None and store is before.own_store:
                engine = replace(engine, own_store=store)
        made = _upstream(name, settings, engine, self.outside["clock"], prefix, group)
        return replace(made, built_with=self.built_with)

    def _over(self, settings: SendsOver) -> Transport:
        if self.transport is not None:
            return self.transport
        environ = process_environment(self.environ)
        return open_transport(self.sending, settings, self.outside["clock"], environ)


def _upstream(
    name: str, settings: AnySettings, engine: Engine, clock: Clock, prefix: str, group: str
) -> Upstream:
    books = KeyBooks(
        engine.pool,
        clock,
        group=group,
        rotation_enabled=settings.rotation_enabled,
        backoff_seconds=settings.backoff_seconds,
    )
    wait, retries = settings.max_wait_seconds, settings.max_retries
    return Upstream(name, engine, books, wait, prefix, group, settings, retries)
