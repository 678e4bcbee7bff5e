"""The reply cache, and the breakers of models."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from headgate.gateway.manage.desk_keys import OfProvider
from headgate.gateway.manage.house import House
from headgate.gateway.manage.orders import Order, What
from headgate.gateway.manage.pages import Page, cut
from headgate.gateway.manage.table import Ask, Endpoint, NoQuery, endpoint
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.manage.views import BreakerView, CacheView, Dropped
from headgate.wiring.gateway import Upstream

__all__ = ["ENDPOINTS"]


class Pattern(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be forgotten.

    Attributes:
        pattern: of names, `*` standing for anything. An answer of the gateway has the name of its
            caller; one of the backend the `cache_namespace` of its request.
    """

    pattern: Annotated[str, Meta(min_length=1, max_length=200)]


class OneModel(Struct, frozen=True, forbid_unknown_fields=True):
    """A model of a provider."""

    provider: str
    model: str


async def show_cache(house: House, _: Ask[NoQuery, None]) -> CacheView:
    """What is kept of answers."""
    cache = house.gateway.cache
    if cache is None:
        return CacheView(enabled=False)
    figures = cache.figures()
    looked = figures.hits + figures.misses
    return CacheView(
        enabled=True,
        kept_seconds=house.gateway.settings.cache_seconds,
        entries=figures.entries,
        bytes=figures.bytes,
        most_bytes=figures.most_bytes,
        hits=figures.hits,
        misses=figures.misses,
        hit_rate=round(100 * figures.hits / looked, 2) if looked else 0.0,
    )


async def clear_cache(house: House, _: Ask[NoQuery, None]) -> Dropped:
    """Forget every answer."""
    return Dropped(await house.orders.give(Order(What.CLEAR)))


async def invalidate_cache(house: House, ask: Ask[NoQuery, Pattern]) -> Dropped:
    """Forget the answers whose names match."""
    return Dropped(await house.orders.give(Order(What.FORGET, text=ask.body.pattern)))


async def list_breakers(house: House, ask: Ask[OfProvider, None]) -> Page[BreakerView]:
    """Every model that was called."""
    wanted, upstreams = ask.query.provider, house.gateway.upstreams
    chosen = upstreams if wanted is None else [house.upstream(wanted)]
    views = [view for upstream in chosen for view in _breakers(upstream)]
    return Page(*cut(views, lambda view: [view.provider, view.model], ask.query))


async def reset_breaker(house: House, ask: Ask[NoQuery, OneModel]) -> BreakerView:
    """Close a breaker, and forget the limit of calls at once."""
    upstream = house.upstream(ask.body.provider)
    if all(view.model != ask.body.model for view in _breakers(upstream)):
        what = f"No call of {upstream.name} has named the model {ask.body.model[:80]!r}."
        raise TroubleError("not-found", what)
    await house.orders.give(Order(What.RESET, upstream.name, model=ask.body.model))
    return BreakerView(
        provider=upstream.name, model=ask.body.model, state="closed", limit=None, in_flight=0, waiting=0
    )


def _breakers(upstream: Upstream) -> list[BreakerView]:
    protection = upstream.engine.protection
    return [
        BreakerView(
            provider=upstream.name,
            model=model,
            state=state.value,
            limit=protection.limit(model),
            in_flight=protection.ward(model).in_flight,
            waiting=protection.ward(model).waiting,
        )
        for model, state in protection.states().items()
    ]


_BREAKER_SHOWN = {
    "provider": "gemini", "model": "gemini-3.8-flash", "state": "open", "limit": 4, "in_flight": 0,
    "waiting": 0,
}  # fmt: skip
_CLOSED = {**_BREAKER_SHOWN, "state": "closed", "limit": None}

ENDPOINTS: tuple[Endpoint, ...] = (
    endpoint("GET", "/cache", show_cache, query=NoQuery, body=type(None), answer=CacheView, tag="cache",
             summary="What is kept of answers",
             description="Of the gateway's own; `/gemini/cache` tells of the backend's.",
             answer_example={"enabled": True, "kept_seconds": 600.0, "entries": 41, "bytes": 90112,
                             "most_bytes": 67108864, "hits": 120, "misses": 230, "hit_rate": 34.29}),
    endpoint("POST", "/cache/clear", clear_cache, query=NoQuery, body=type(None), answer=Dropped,
             tag="cache", summary="Forget every answer", problems=("store",),
             description="The gateway's and the backend's. Once it returns none of them is given any "
             "more, by any process that shares the store.", answer_example={"dropped": 41}),
    endpoint("POST", "/cache/invalidate", invalidate_cache, query=NoQuery, body=Pattern, answer=Dropped,
             tag="cache", summary="Forget the answers whose names match a pattern", problems=("store",),
             description="An answer of the gateway has the name of its caller.",
             body_example={"pattern": "ann*"}, answer_example={"dropped": 7}),
    endpoint("GET", "/breakers", list_breakers, query=OfProvider, body=type(None),
             problems=("not-found",), answer=Page[BreakerView], tag="breakers",
             summary="What keeps calls off models that fail",
             answer_example={"items": [_BREAKER_SHOWN], "next": None}),
    endpoint("POST", "/breakers/reset", reset_breaker, query=NoQuery, body=OneModel, answer=BreakerView,
             problems=("not-found",), tag="breakers", summary="Close the breaker of a model",
             description="Calls go to it at once, and as many at a time as there are. Attempts under "
             "way end as they would.",
             body_example={"provider": "gemini", "model": "gemini-3.8-flash"}, answer_example=_CLOSED),
)  # fmt: skip
