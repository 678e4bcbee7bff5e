"""The engine room of callers: where they are kept, their buckets, and what their tokens cost."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

from headgate.core.callers import CallerLimits, CallerStore
from headgate.core.ports import Clock
from headgate.core.tokens import Usage
from headgate.engine.inbound import Inbound
from headgate.policy.days import utc_day
from headgate.policy.models import ModelPolicy
from headgate.stores.callers import MemoryCallers
from headgate.stores.callers_sqlite import SqliteCallers
from headgate.stores.urls import StoreUrl
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.limits import build_limits
from headgate.wiring.model_data import gemini_cards, gemini_prices
from headgate.wiring.presets import anthropic_registry, gemini_registry
from headgate.wiring.settings import resolve_alone
from headgate.wiring.stores import check_store
from headgate.wiring.usage import costs_of

__all__ = ["CallerBuckets", "DatedPrices", "caller_defaults", "open_buckets", "open_caller_store"]

_SCOPES = ("caller", "gateway")
"""What stands before the first colon of the identifiers of buckets, for metrics."""

_LARGEST_CLAUDE = 1_000_000
"""Tokens of the largest window of a Claude model (Anthropic, context windows page, read 2026-11)."""


def open_caller_store(settings: GatewaySettings) -> CallerStore:
    """Where callers are kept, and what their calls hold. Raises `ConfigurationError`."""
    if settings.callers_file is None:
        return MemoryCallers()
    return SqliteCallers(settings.callers_file)


def caller_defaults(settings: GatewaySettings) -> CallerLimits:
    """The limits of callers who have none of their own."""
    return CallerLimits(
        requests_per_minute=settings.caller_rpm,
        tokens_per_minute=settings.caller_tpm,
        requests_per_day=settings.caller_rpd,
        concurrent=settings.caller_concurrent,
    )


# ── buckets ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CallerBuckets:
    """The token buckets of inbound limits.

    Attributes:
        shared: whether they are in a store that processes share.
    """

    inbound: Inbound
    shared: bool
    _client: Any

    async def aclose(self) -> None:
        """Wait for what is under way, and close the connections."""
        await self.inbound.aclose()
        if self._client is not None:
            await self._client.aclose()


def open_buckets(
    clock: Clock,
    environ: Mapping[str, str] | None = None,
    registry: object = None,
    *,
    fail_open: bool = True,
) -> CallerBuckets:
    """Buckets in the store that `HEADGATE_STORE` names, or in this process. Connects to nothing yet.

    Args:
        environ: instead of the process environment.
        registry: of `prometheus_client`, for their metrics; None: the default one.
        fail_open: let a bucket of this process stand in where the store fails; False refuses.

    Raises `ConfigurationError`: the store needs a package that is not installed, or an option is wrong.
    """
    url = cast("StoreUrl", resolve_alone("store", environ=environ).value)
    check_store(url)
    client = None if url.memory else _client(url)
    # The desk tells of refusals by the caller's name, and not of each: here they are for a debugger.
    limits = build_limits(
        client, registry=registry, clock=clock, scopes=_SCOPES, level=logging.DEBUG, fail_open=fail_open
    )
    return CallerBuckets(limits.inbound, client is not None, client)


def _client(url: StoreUrl) -> Any:
    from headgate.stores.bucket_client import bucket_client  # noqa: PLC0415 - an extra

    return bucket_client(url)


# ── prices ──────────────────────────────────────────────────────────────────────────────────────


class DatedPrices:
    """What tokens cost today, in nano-dollars: by the prices that the usage ledger has."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._costs = costs_of(gemini_prices)

    def cost(self, provider: str, model: str, usage: Usage) -> int | None:
        """Of tokens that a model used; None: nobody knows."""
        return self._cost(provider, model, usage, utc_day(self._clock.wall()))

    def most(self, provider: str, model: str, usage: Usage) -> int | None:
        """Of tokens that a call for this name may use; None: nobody knows.

        A retired model's calls may go to its successor: both prices count, and the larger one is it.
        """
        day = utc_day(self._clock.wall())
        named = _named(provider, model, day)
        cost = self._cost(provider, named.billed, usage, day)
        if cost is None or named.asked == named.billed:
            return cost
        return max(cost, self._cost(provider, named.asked, usage, day) or 0)

    def bounds(self, provider: str, model: str) -> tuple[int | None, int | None]:
        """Tokens of the longest prompt and of the longest answer of a model; None: nobody knows."""
        named = _named(provider, model, utc_day(self._clock.wall()))
        return named.window, named.longest

    def _cost(self, provider: str, model: str, usage: Usage, day: date) -> int | None:
        found = self._costs(provider, model, usage, day)
        return None if found is None else found.total


class _Named(NamedTuple):
    """What a name stands for on a day.

    Attributes:
        asked, billed: the model it names, and the one that its calls may go to.
        window, longest: tokens of the longest prompt and answer of both; None: nobody knows.
    """

    asked: str
    billed: str
    window: int | None = None
    longest: int | None = None


@lru_cache(maxsize=1024)  # callers name models: a bound for what is remembered of them
def _named(provider: str, model: str, day: date) -> _Named:
    if provider not in ("gemini", "anthropic"):
        return _Named(model, model)
    registry = gemini_registry() if provider == "gemini" else anthropic_registry()
    asked = registry.find(model).id
    billed = registry.resolve(model, day, ModelPolicy.SUCCESSOR).model.id
    if provider == "anthropic":
        return _Named(asked, billed, _LARGEST_CLAUDE)
    bounds = [_gemini_bounds().get(name, (None, None)) for name in {asked, billed}]
    windows, answers = zip(*bounds, strict=True)
    return _Named(asked, billed, _largest(windows), _largest(answers))


def _largest(bounds: tuple[int | None, ...]) -> int | None:
    """The largest; None where one is not known."""
    return None if None in bounds else max(cast("tuple[int, ...]", bounds))


@cache
def _gemini_bounds() -> dict[str, tuple[int | None, int | None]]:
    return {
        card.id: (card.capabilities.max_input_tokens, card.capabilities.max_output_tokens)
        for card in gemini_cards()
    }
