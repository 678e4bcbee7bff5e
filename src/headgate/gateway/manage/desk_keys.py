"""Keys, domains and quotas: how they stand, and taking keys out and in."""

from __future__ import annotations

from typing import Annotated, Any, cast

from msgspec import Meta, Struct

from headgate.core.errors import StoreError
from headgate.core.quota import Kind
from headgate.gateway.manage.house import House
from headgate.gateway.manage.key_watch import key_views
from headgate.gateway.manage.orders import Order, What
from headgate.gateway.manage.pages import Page, Paged, cut
from headgate.gateway.manage.table import Ask, Endpoint, NoQuery, endpoint
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.manage.views import DomainView, KeyCheck, KeyState, KeyView, QuotaView
from headgate.wiring.gateway import Upstream
from headgate.wiring.key_check import ask_key, list_of_one

__all__ = ["ENDPOINTS"]

_CHECK_SECONDS = 20.0
"""The longest a check of one key may take."""

_BEST_FIRST = (KeyState.READY, KeyState.COOLING, KeyState.DRAINED, KeyState.REFUSED)

Provider = Annotated[str, Meta(description="Only those of this provider.")]


class OfProvider(Paged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of what one provider has, or all of them."""

    provider: Provider | None = None


class OfModel(OfProvider, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, for one model."""

    model: Annotated[str, Meta(description="Only those of this model.")] | None = None


class Why(Struct, frozen=True, forbid_unknown_fields=True):
    """Why something is done.

    Attributes:
        reason: shown with the key, and logged.
    """

    reason: Annotated[str, Meta(max_length=200)] = ""


# ── looking ─────────────────────────────────────────────────────────────────────────────────────


async def list_keys(house: House, ask: Ask[OfProvider, None]) -> Page[KeyView]:
    """Every key with its state."""
    views = [view for one in _chosen(house, ask.query.provider) for view in key_views(one)]
    return Page(*cut(views, lambda view: [view.provider, view.name], ask.query))


async def show_key(house: House, ask: Ask[NoQuery, None]) -> KeyView:
    """One key."""
    return _key(house, ask.path)


async def list_domains(house: House, ask: Ask[OfProvider, None]) -> Page[DomainView]:
    """Every domain with its keys and quotas."""
    shown = []
    for upstream in _chosen(house, ask.query.provider):
        quotas = await _quotas(upstream)
        shown += _domains(upstream, quotas)
    return Page(*cut(shown, lambda view: [view.provider, view.domain], ask.query))


async def show_domain(house: House, ask: Ask[NoQuery, None]) -> DomainView:
    """One domain."""
    upstream = house.upstream(ask.path["provider"])
    return _domain(upstream, ask.path["domain"], await _quotas(upstream))


async def list_quotas(house: House, ask: Ask[OfModel, None]) -> Page[QuotaView]:
    """Every limit: used and left."""
    views = [view for one in _chosen(house, ask.query.provider) for view in await _quotas(one)]
    if ask.query.model is not None:
        views = [view for view in views if view.model == ask.query.model]
    return Page(*cut(views, lambda one: [one.provider, one.domain, one.model, one.limit], ask.query))


# ── doing ───────────────────────────────────────────────────────────────────────────────────────


async def drain_key(house: House, ask: Ask[NoQuery, Why]) -> KeyView:
    """Take a key out."""
    view = _key(house, ask.path)
    await _order(house, What.DRAIN, view.provider, (view.name,), ask.body.reason)
    return _key(house, ask.path)


async def resume_key(house: House, ask: Ask[NoQuery, None]) -> KeyView:
    """Let a key serve again."""
    view = _key(house, ask.path)
    await _order(house, What.RESUME, view.provider, (view.name,))
    return _key(house, ask.path)


async def test_key(house: House, ask: Ask[NoQuery, None]) -> KeyCheck:
    """Ask the upstream whether it accepts a key: a list of one model, which costs no quota."""
    upstream, view = house.upstream(ask.path["provider"]), _key(house, ask.path)
    states = upstream.engine.pool.states()
    key = next(state.key for state in states if state.key.name == view.name)
    provider, request = list_of_one(upstream.settings)
    found = await ask_key(
        provider, upstream.engine.transport, request, key, house.clock, _CHECK_SECONDS
    )
    return KeyCheck(
        provider=upstream.name,
        name=view.name,
        state=found.state.value,
        works=found.works,
        reason=found.reason or None,
        seconds=round(found.seconds, 3),
    )


async def drain_domain(house: House, ask: Ask[NoQuery, Why]) -> DomainView:
    """Take all keys of a domain out."""
    upstream = house.upstream(ask.path["provider"])
    view = _domain(upstream, ask.path["domain"], [])
    await _order(house, What.DRAIN, upstream.name, tuple(view.keys), ask.body.reason)
    return _domain(upstream, view.domain, await _quotas(upstream))


async def resume_domain(house: House, ask: Ask[NoQuery, None]) -> DomainView:
    """Let all keys of a domain serve again."""
    upstream = house.upstream(ask.path["provider"])
    view = _domain(upstream, ask.path["domain"], [])
    await _order(house, What.RESUME, upstream.name, tuple(view.keys))
    return _domain(upstream, view.domain, await _quotas(upstream))


# ── inside ──────────────────────────────────────────────────────────────────────────────────────


def _chosen(house: House, provider: str | None) -> list[Upstream]:
    return list(house.gateway.upstreams) if provider is None else [house.upstream(provider)]


def _key(house: House, path: Any) -> KeyView:
    for view in key_views(house.upstream(path["provider"])):
        if view.name == path["name"]:
            return view
    raise TroubleError("not-found", f"{path['provider']} has no key named {path['name'][:80]!r}.")


def _domains(upstream: Upstream, quotas: list[QuotaView]) -> list[DomainView]:
    by_name: dict[str, list[KeyView]] = {}
    for view in key_views(upstream):
        by_name.setdefault(view.domain, []).append(view)
    return [
        DomainView(
            provider=upstream.name,
            domain=name,
            state=min((view.state for view in views), key=_BEST_FIRST.index),
            keys=[view.name for view in views],
            cooling=views[0].cooling,
            quotas=[quota for quota in quotas if quota.domain == name],
        )
        for name, views in by_name.items()
    ]


def _domain(upstream: Upstream, name: str, quotas: list[QuotaView]) -> DomainView:
    for view in _domains(upstream, quotas):
        if view.domain == name:
            return view
    raise TroubleError("not-found", f"{upstream.name} has no domain named {name[:80]!r}.")


async def _order(
    house: House, what: What, provider: str, names: tuple[str, ...], why: str = ""
) -> None:
    await house.orders.give(Order(what, provider, names, text=why))
    house.watch.look()


async def _quotas(upstream: Upstream) -> list[QuotaView]:
    """The limits of the models that were asked, as the ledger has them."""
    gate = upstream.engine.gate
    if gate is None:
        return []
    names = upstream.engine.pool.domain_names
    fills = getattr(gate.store, "fills", None)
    found: list[QuotaView] = []
    for model in gate.models:
        try:
            rows = () if fills is None else await fills(await gate.group(model))
        except StoreError:
            rows = ()
        if rows:
            full = [(fill.limit, cast("int | None", fill.used)) for row in rows for fill in row]
            owners = [names[handle] for handle, row in enumerate(rows) for _ in row]
        else:
            table = upstream.engine.table
            full = [(limit, None) for name in names for limit in table.limits(name, model)]
            owners = [name for name in names for _ in table.limits(name, model)]
        for owner, (limit, used) in zip(owners, full, strict=True):
            found.append(
                QuotaView(
                    provider=upstream.name,
                    domain=owner,
                    model=model,
                    limit=limit.name,
                    counts=limit.counts.value,
                    window_seconds=limit.window / 1000 if limit.kind is Kind.ROLLING else None,
                    amount=limit.amount,
                    used=used,
                    left=None if used is None else max(0, limit.amount - used),
                )
            )
    return found


# ── the table ───────────────────────────────────────────────────────────────────────────────────

_KEY = {"provider": "gemini", "name": "primary"}
_DOMAIN = {"provider": "gemini", "domain": "project-a"}
_KEY_SHOWN: dict[str, Any] = {
    "provider": "gemini", "name": "primary", "domain": "project-a", "state": "ready", "reason": None,
    "cooling": {}, "requests": 120, "successes": 118, "failures": 2, "quota_errors": 2,
    "error_rate": 1.67, "last_used_at": "2026-11-21T08:00:00.000000+00:00", "last_error_at": None,
    "last_error": None,
}  # fmt: skip
_QUOTA_SHOWN = {
    "provider": "gemini", "domain": "project-a", "model": "gemini-3.8-flash", "limit": "rpm",
    "counts": "requests", "window_seconds": 60.0, "amount": 15, "used": 3, "left": 12,
}  # fmt: skip
_DOMAIN_SHOWN = {
    "provider": "gemini", "domain": "project-a", "state": "ready", "keys": ["primary"], "cooling": {},
    "quotas": [_QUOTA_SHOWN],
}  # fmt: skip
_DRAINED = {**_KEY_SHOWN, "state": "drained", "reason": "drained by an operator: rotated"}
_TAG = "keys"

ENDPOINTS: tuple[Endpoint, ...] = (
    endpoint("GET", "/keys", list_keys, query=OfProvider, body=type(None), answer=Page[KeyView],
             problems=("not-found",), tag=_TAG, summary="Every key with its state",
             answer_example={"items": [_KEY_SHOWN], "next": None}),
    endpoint("GET", "/keys/{provider}/{name}", show_key, query=NoQuery, body=type(None), answer=KeyView,
             tag=_TAG, summary="One key", path_examples=_KEY, answer_example=_KEY_SHOWN),
    endpoint("POST", "/keys/{provider}/{name}/drain", drain_key, query=NoQuery, body=Why,
             answer=KeyView, tag=_TAG, summary="Take a key out",
             description="No new attempt is sent with it; those under way end as they would. It stays "
             "out until it is resumed or the gateway starts anew.",
             path_examples=_KEY, body_example={"reason": "rotated"}, answer_example=_DRAINED),
    endpoint("POST", "/keys/{provider}/{name}/resume", resume_key, query=NoQuery, body=type(None),
             answer=KeyView, tag=_TAG, summary="Let a key serve again",
             description="Also one that the upstream refused or whose domain cools down: cool-downs of "
             "its domain are forgotten. What was counted of quotas still counts.",
             path_examples=_KEY, answer_example=_KEY_SHOWN),
    endpoint("POST", "/keys/{provider}/{name}/test", test_key, query=NoQuery, body=type(None),
             answer=KeyCheck, tag=_TAG, summary="Ask the upstream whether it accepts a key",
             description="A list of one model: it costs no quota, and changes nothing of the key.",
             path_examples=_KEY,
             answer_example={"provider": "gemini", "name": "primary", "state": "ok", "works": True,
                             "reason": None, "seconds": 0.214}),
    endpoint("GET", "/domains", list_domains, query=OfProvider, body=type(None),
             problems=("not-found",), answer=Page[DomainView], tag=_TAG,
             summary="Every domain with its keys and quotas",
             answer_example={"items": [_DOMAIN_SHOWN], "next": None}),
    endpoint("GET", "/domains/{provider}/{domain}", show_domain, query=NoQuery, body=type(None),
             answer=DomainView, tag=_TAG, summary="One domain", path_examples=_DOMAIN,
             answer_example=_DOMAIN_SHOWN),
    endpoint("POST", "/domains/{provider}/{domain}/drain", drain_domain, query=NoQuery, body=Why,
             answer=DomainView, tag=_TAG, summary="Take all keys of a domain out",
             path_examples=_DOMAIN, body_example={"reason": "billing"},
             answer_example={**_DOMAIN_SHOWN, "state": "drained"}),
    endpoint("POST", "/domains/{provider}/{domain}/resume", resume_domain, query=NoQuery,
             body=type(None), answer=DomainView, tag=_TAG,
             summary="Let all keys of a domain serve again", path_examples=_DOMAIN,
             answer_example=_DOMAIN_SHOWN),
    endpoint("GET", "/quotas", list_quotas, query=OfModel, body=type(None), answer=Page[QuotaView],
             problems=("not-found",), tag=_TAG, summary="Every limit: how much of it is used and left",
             description="Of the models that were asked since this process began. Quotas that were "
             "learned from the upstream's refusals are in it too.",
             answer_example={"items": [_QUOTA_SHOWN], "next": None}),
)  # fmt: skip
