"""Who meets whom in the management API: a house, its endpoints, and the gateway they are about."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from headgate.backend.beside import backend_beside
from headgate.core.errors import HeadgateError
from headgate.core.ports import Clock, Observer, Transport
from headgate.gateway.manage import (
    desk_callers,
    desk_config,
    desk_keys,
    desk_shields,
    desk_status,
    desk_usage,
    gemini_table,
)
from headgate.gateway.manage.alarms import Alarms
from headgate.gateway.manage.application import Application
from headgate.gateway.manage.doors import Doors, Openness
from headgate.gateway.manage.ears import Ears
from headgate.gateway.manage.event_views import ConfigEvent
from headgate.gateway.manage.feed import EventFeed, EventKind
from headgate.gateway.manage.house import House, Managed
from headgate.gateway.manage.orders import Orders, Relay
from headgate.gateway.manage.table import Endpoint, Table
from headgate.gateway.manage.teller import Teller
from headgate.gateway.reloading import Change, Reloading
from headgate.wiring.build import Engine
from headgate.wiring.gateway_usage import GatewayUsage

__all__ = ["TABLE", "open_application"]

_log = logging.getLogger("headgate.manage")

_ENDPOINTS: tuple[Endpoint, ...] = (
    *desk_status.ENDPOINTS,
    *desk_keys.ENDPOINTS,
    *desk_callers.ENDPOINTS,
    *desk_usage.ENDPOINTS,
    *desk_shields.ENDPOINTS,
    *desk_config.ENDPOINTS,
    *gemini_table.ENDPOINTS,
)

TABLE = Table(_ENDPOINTS)
"""Every endpoint there is."""


def open_application(
    gateway: Managed,
    clock: Clock,
    *,
    ears: Ears,
    usage: GatewayUsage | None = None,
    reloading: Reloading | None = None,
    relay: Relay | None = None,
    observers: tuple[Observer, ...] = (),
    transport: Transport | None = None,
    environ: Mapping[str, str] | None = None,
) -> Application:
    """The management API of a gateway. No I/O.

    Args:
        ears: an observer of the gateway's engines; it hears from now on, if anybody may manage.
        usage: what writes the usage ledger.
        reloading: what reads the configuration again.
        relay: the way to the other workers, if there are any.
        observers: hear what the backend's own calls do, as they hear the gateway's.
        transport: sends the backend's calls, instead of HTTP.
        environ: where settings are read from; None: the process environment.
    """
    settings, feed = gateway.settings, EventFeed(clock)
    doors = Doors(settings.admin, callers=gateway.needs_callers)
    rows = () if usage is None else (usage.observer,)
    told = (*rows, *observers, Teller(feed, {}, clock))
    beside = backend_beside(
        lambda: _gemini(gateway), clock, observers=told, transport=transport, environ=environ
    )
    orders = Orders(lambda: gateway.upstreams, lambda: gateway.cache, beside.backend, feed, clock.wall)
    alarms = Alarms(lambda: gateway.upstreams, beside.backend, clock)
    house = House(
        gateway=gateway,
        backend=beside.backend,
        orders=orders,
        alarms=alarms,
        feed=feed,
        clock=clock,
        openness=doors.openness,
        usage=usage,
        reloading=reloading,
        environ=environ,
    )
    if relay is not None:
        orders.open(relay, lambda order: _begin(house, order))
    if reloading is not None:
        reloading.listen(partial(_changed, house, beside.renew))
    if doors.openness is not Openness.OFF:  # to hear costs each call a little
        ears.open(Teller(feed, {"gemini": beside.books, **alarms.books}, clock))
    return Application(house, doors, TABLE, settings.max_body_mib * 1024 * 1024)


def _gemini(gateway: Managed) -> Engine | None:
    return next((one.engine for one in gateway.upstreams if one.name == "gemini"), None)


def _begin(house: House, order: bytes) -> None:
    house.beside(house.orders.hear(order))


def _changed(house: House, renew: Callable[[], Awaitable[None]], change: Change) -> None:
    """A configuration was taken over, or refused: listeners hear of it, and the backend goes by it."""
    event = ConfigEvent(at=house.instant(change.at), change=desk_config.view_of_change(house, change))
    house.feed.tell(EventKind.CONFIG, event)
    if change.taken:
        house.beside(_renewed(renew))


async def _renewed(renew: Callable[[], Awaitable[None]]) -> None:
    try:
        await renew()
    except HeadgateError as error:
        _log.error("manage: the backend goes on with the configuration it had: %s", error.message)
