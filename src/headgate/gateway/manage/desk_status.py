"""The gateway at a glance, and what happens in it."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Annotated

from msgspec import Meta, Struct

from headgate.gateway.manage.feed import EventKind
from headgate.gateway.manage.house import House
from headgate.gateway.manage.table import Ask, Endpoint, NoQuery, Stream, endpoint
from headgate.gateway.manage.trouble import TroubleError
from headgate.gateway.manage.views import AlertView, StatusView, UpstreamView
from headgate.policy.breaker import BreakerState
from headgate.wiring.gateway import Upstream

__all__ = ["ENDPOINTS"]


class Kinds(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is listened for."""

    kinds: Annotated[
        str,
        Meta(
            description="Kinds of events, separated by commas: "
            + ", ".join(EventKind)
            + ". Empty: all of them.",
            max_length=200,
        ),
    ] = ""


class Alerts(Struct, frozen=True):
    """The alerts that stand, the oldest first."""

    alerts: list[AlertView]


async def show_status(house: House, _: Ask[NoQuery, None]) -> StatusView:
    """The gateway at a glance."""
    gateway = house.gateway
    return StatusView(
        version=version("headgate"),
        pid=os.getpid(),
        started_at=house.instant(house.started),
        uptime_seconds=round(house.clock.wall() - house.started, 3),
        access=house.openness.value,
        draining=gateway.draining,
        requests=gateway.under_way,
        listeners=house.feed.listeners,
        generation=gateway.generation,
        callers=gateway.known_callers,
        cache=gateway.cache is not None,
        ledger=None if house.usage is None else house.usage.place.shown,
        relayed=house.orders.relayed,
        upstreams=[_upstream(one) for one in gateway.upstreams],
    )


def _upstream(upstream: Upstream) -> UpstreamView:
    states = upstream.engine.pool.states()
    protection = upstream.engine.protection
    return UpstreamView(
        provider=upstream.name,
        keys=len(states),
        usable_keys=sum(state.disabled is None for state in states),
        open_breakers=[
            model for model, state in protection.states().items() if state is not BreakerState.CLOSED
        ],
        in_flight=protection.in_flight,
    )


async def list_alerts(house: House, _: Ask[NoQuery, None]) -> Alerts:
    """The alerts that stand."""
    return Alerts([
        AlertView(
            provider=provider,
            rule=alert.rule,
            subject=alert.subject,
            severity=alert.severity,
            value=alert.value,
            threshold=alert.threshold,
            raised_at=house.instant(alert.at),
            summary=alert.summary,
        )
        for provider, alert in house.alarms.standing()
    ])  # fmt: skip


async def listen(house: House, ask: Ask[Kinds, None]) -> Stream:
    """What happens, as it happens."""
    wanted = [word.strip() for word in ask.query.kinds.split(",") if word.strip()]
    try:
        kinds = frozenset(EventKind(word) for word in wanted or list(EventKind))
    except ValueError:
        raise TroubleError("invalid", f"kinds takes {', '.join(EventKind)}.") from None
    pieces = house.feed.listen(kinds, ask.last_event_id)
    house.listened()
    return Stream(pieces)


_STATUS_SHOWN = {
    "version": "0.1.0", "pid": 7, "started_at": "2026-11-21T08:00:00.000000+00:00",
    "uptime_seconds": 3600.0, "access": "admin", "draining": False, "requests": 3, "listeners": 1,
    "generation": 2, "callers": 4, "cache": True, "ledger": "/var/lib/headgate/usage.sqlite3",
    "relayed": False,
    "upstreams": [{"provider": "gemini", "keys": 4, "usable_keys": 4, "open_breakers": [],
                   "in_flight": 2}],
}  # fmt: skip
_ALERT_SHOWN = {
    "provider": "gemini", "rule": "error_rate", "subject": "gemini-3.8-flash",
    "severity": "warning", "value": 41.2, "threshold": 25.0,
    "raised_at": "2026-11-21T08:00:00.000000+00:00", "summary": "41.2 % of the attempts failed.",
}  # fmt: skip

ENDPOINTS: tuple[Endpoint, ...] = (
    endpoint("GET", "/status", show_status, query=NoQuery, body=type(None), answer=StatusView,
             tag="gateway", summary="The gateway at a glance",
             description="Of the process that answers; a gateway of several workers has one for each.",
             answer_example=_STATUS_SHOWN),
    endpoint("GET", "/alerts", list_alerts, query=NoQuery, body=type(None), answer=Alerts,
             tag="gateway", summary="The alerts that stand, the oldest first",
             answer_example={"alerts": [_ALERT_SHOWN]}),
    endpoint("GET", "/events", listen, query=Kinds, body=type(None), answer=None, tag="gateway",
             summary="What happens, as it happens: server-sent events", streams=True,
             problems=("busy",), query_example={"kinds": "attempt,key"},
             description="Attempts and calls that ended, keys that changed, alerts, orders of those "
             "who manage, configurations. An event has an id; who comes back with `Last-Event-ID` gets "
             "what happened since, as far as it is kept (1,000 events). `event: lost` tells how many "
             "are not. After 15 silent seconds a comment is sent. It ends with `event: end`."),
)  # fmt: skip
