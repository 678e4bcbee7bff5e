"""Callers: who may call, how much, and with which keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from headgate.core.callers import BudgetWindow, Caller, CallerLimits, CallerState
from headgate.gateway.caller_book import CallerBook, CallerChange, CallerSpec, IssuedKey
from headgate.gateway.caller_shapes import shown, shown_usage
from headgate.gateway.callers import fixed_caller
from headgate.gateway.manage.house import House
from headgate.gateway.manage.pages import Paged, place_in, written
from headgate.gateway.manage.table import Ask, Endpoint, NoQuery, endpoint
from headgate.gateway.manage.trouble import TroubleError

__all__ = ["ENDPOINTS"]


class KeyOfCaller(Struct, frozen=True):
    """A key, by its last four characters.

    Attributes:
        until: when it ends, since another has taken its place; None: it does not.
    """

    ending: str
    created: datetime
    until: datetime | None = None


class BudgetShown(Struct, frozen=True):
    """What a caller may spend within a window: `amount` in nano-dollars, `dollars` for people."""

    amount: int
    dollars: float
    window: BudgetWindow


class CallerShown(Struct, frozen=True, kw_only=True):
    """A caller.

    Attributes:
        state: `active`, `revoked` or `expired`.
        models: names it may ask for, `*` and `?` standing for anything; none: all.
        version: grows with every change; an update may name it.
    """

    id: str
    name: str
    state: str
    keys: list[KeyOfCaller]
    created: datetime | None
    rotated: datetime | None
    expires: datetime | None
    priority: str | None
    limits: CallerLimits
    budget: BudgetShown | None
    models: list[str]
    surfaces: list[str]
    tags: Mapping[str, str]
    version: int


class Issued(Struct, frozen=True):
    """A caller and its key, which is shown this once: the gateway keeps a hash of it."""

    caller: CallerShown
    key: str


class CallerUsageShown(Struct, frozen=True, kw_only=True):
    """What a caller used in the window of its budget, or in this month. Money is in nano-dollars.

    Attributes:
        held: for calls under way.
        left: what new calls may spend; None: it has no budget.
        unpriced: calls whose cost nobody knows.
        ledger: sums of the usage ledger; None where none is kept, or nothing was used.
    """

    window: BudgetWindow
    until: datetime | None
    budget: int | None
    spent: int
    held: int
    left: int | None
    under_way: int
    unpriced: int
    ledger: Mapping[str, int | float] | None


class Filled(Struct, frozen=True):
    """How many buckets of limits were filled anew."""

    buckets: int


class Callers(Struct, frozen=True):
    """Callers by name.

    Attributes:
        fixed: names of those of HEADGATE_CALLER_KEYS, which are changed there.
    """

    items: list[CallerShown]
    fixed: list[str]
    next: str | None = None


class OfState(Paged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of callers, of one state or all. A page of one state may hold fewer than there are."""

    state: CallerState | None = None


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """How a key is replaced.

    Attributes:
        grace_seconds: how long the keys before it still hold; a day, if nothing is said.
    """

    grace_seconds: Annotated[float, Meta(ge=0, le=90 * 86_400)] = 86_400.0


class Version(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version is changed: another one is left as it is."""

    version: Annotated[int, Meta(ge=0)] | None = None


async def list_callers(house: House, ask: Ask[OfState, None]) -> Callers:
    """Callers by name."""
    desk = house.gateway.desk
    fixed = [] if desk is None else list(desk.callers.fixed)
    if desk is None or desk.book is None:
        return Callers([], fixed)
    place = place_in(ask.query.cursor)
    after = "" if place is None else str(place[0])
    page = await desk.book.page(after=after, limit=ask.query.limit, state=ask.query.state)
    more = None if page.following is None else written([page.following])
    return Callers([_shown(house, caller) for caller in page.callers], fixed, more)


async def create_caller(house: House, ask: Ask[NoQuery, CallerSpec]) -> Issued:
    """A new caller and its key."""
    return _issued(house, await _book(house).create(ask.body))


async def show_caller(house: House, ask: Ask[NoQuery, None]) -> CallerShown:
    """One caller, by id or name."""
    return _shown(house, await _book(house).get(ask.path["caller"]))


async def update_caller(house: House, ask: Ask[Version, CallerChange]) -> CallerShown:
    """What is said is changed, the rest stays."""
    book, version = _book(house), ask.query.version
    return _shown(house, await book.update(ask.path["caller"], ask.body, version=version))


async def rotate_caller(house: House, ask: Ask[NoQuery, Rotation]) -> Issued:
    """Another key for a caller."""
    book, grace = _book(house), ask.body.grace_seconds
    return _issued(house, await book.rotate(ask.path["caller"], grace_seconds=grace))


async def revoke_caller(house: House, ask: Ask[NoQuery, None]) -> CallerShown:
    """A caller ends, with all its keys."""
    return _shown(house, await _book(house).revoke(ask.path["caller"]))


async def show_caller_usage(house: House, ask: Ask[NoQuery, None]) -> CallerUsageShown:
    """What a caller used so far."""
    usage = await _book(house).usage(ask.path["caller"])
    return msgspec.convert(shown_usage(usage), CallerUsageShown)


async def reset_limits(house: House, ask: Ask[NoQuery, None]) -> Filled:
    """Let a caller ask for as much again as its limits allow."""
    desk, name = house.gateway.desk, ask.path["caller"]
    if desk is not None and name in desk.callers.fixed:
        return Filled(await desk.reset_limits(fixed_caller(name)))
    caller = await _book(house).get(name)
    return Filled(0 if desk is None else await desk.reset_limits(caller))


def _book(house: House) -> CallerBook:
    desk = house.gateway.desk
    if desk is None or desk.book is None:
        raise TroubleError(
            "conflict",
            "This gateway keeps no book of callers.",
            hint="Set HEADGATE_CALLERS to a file and restart. Callers of HEADGATE_CALLER_KEYS are "
            "changed there.",
        )
    return desk.book


def _shown(house: House, caller: Caller) -> CallerShown:
    return msgspec.convert(shown(caller, house.clock.wall()), CallerShown)


def _issued(house: House, issued: IssuedKey) -> Issued:
    return Issued(_shown(house, issued.caller), str.__str__(issued.key))


_AT = "2026-11-21T08:00:00.000000+00:00"
_CALLER = {
    "id": "caller_5f0c1d9a2b3e4f60", "name": "ann", "state": "active",
    "keys": [{"ending": "9f3a", "created": _AT, "until": None}], "created": _AT, "rotated": None,
    "expires": None, "priority": "high", "limits": {"requests_per_minute": 60},
    "budget": {"amount": 5000000000, "dollars": 5.0, "window": "month"}, "models": ["gemini-*"],
    "surfaces": [], "tags": {"team": "canal"}, "version": 3,
}  # fmt: skip
_ISSUED = {"caller": _CALLER, "key": "hgk_shown-once-and-kept-nowhere"}
_PATH = {"caller": "ann"}
_NONE = type(None)
_TAG = "callers"

ENDPOINTS: tuple[Endpoint, ...] = (
    endpoint("GET", "/callers", list_callers, query=OfState, body=_NONE, answer=Callers, tag=_TAG,
             summary="Callers by name", problems=("store",),
             answer_example={"items": [_CALLER], "fixed": ["bob"], "next": None}),
    endpoint("POST", "/callers", create_caller, query=NoQuery, body=CallerSpec, answer=Issued, tag=_TAG,
             summary="A new caller and its key", status=201, shown_once=True, problems=("store",),
             description="The key is shown this once. `budget.amount` is nano-dollars (a dollar is "
             "1000000000), `expires` Unix seconds.",
             body_example={"name": "ann", "limits": {"requests_per_minute": 60},
                           "budget": {"amount": 5000000000, "window": "month"}},
             answer_example=_ISSUED),
    endpoint("GET", "/callers/{caller}", show_caller, query=NoQuery, body=_NONE, answer=CallerShown,
             tag=_TAG, summary="One caller, by id or name", problems=("conflict", "store"),
             path_examples=_PATH, answer_example=_CALLER),
    endpoint("PATCH", "/callers/{caller}", update_caller, query=Version, body=CallerChange,
             answer=CallerShown, tag=_TAG, summary="Change a caller", problems=("conflict", "store"),
             description="What is left out stays; limits are taken as a whole. With `version` a caller "
             "that was changed meanwhile is left as it is (409).",
             path_examples=_PATH, body_example={"models": ["gemini-*"]}, answer_example=_CALLER),
    endpoint("POST", "/callers/{caller}/rotate", rotate_caller, query=NoQuery, body=Rotation,
             answer=Issued, tag=_TAG, summary="Another key for a caller", shown_once=True,
             description="It is shown this once. The keys before it hold on for the grace period.",
             problems=("conflict", "store"), path_examples=_PATH,
             body_example={"grace_seconds": 3600.0}, answer_example=_ISSUED),
    endpoint("POST", "/callers/{caller}/revoke", revoke_caller, query=NoQuery, body=_NONE,
             answer=CallerShown, tag=_TAG, summary="End a caller, with all its keys, for good",
             description="Every process of the gateway refuses its keys within a second.",
             problems=("conflict", "store"), path_examples=_PATH,
             answer_example={**_CALLER, "state": "revoked"}),
    endpoint("POST", "/callers/{caller}/limits/reset", reset_limits, query=NoQuery, body=_NONE,
             answer=Filled, tag=_TAG, summary="Let a caller ask for as much again as its limits allow",
             description="Fills the buckets of requests and tokens; what it spent of its budget stays "
             "spent.", problems=("conflict", "store"), path_examples=_PATH,
             answer_example={"buckets": 2}),
    endpoint("GET", "/callers/{caller}/usage", show_caller_usage, query=NoQuery, body=_NONE,
             answer=CallerUsageShown, tag=_TAG, summary="What a caller used so far",
             problems=("conflict", "store"), path_examples=_PATH,
             answer_example={"window": "month", "until": _AT, "budget": 5000000000, "spent": 1200000,
                             "held": 0, "left": 4998800000, "under_way": 0, "unpriced": 0,
                             "ledger": {"requests": 120}}),
)  # fmt: skip
