"""Gives a gateway its management API, and lets its configuration follow the files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headgate.core.ports import Clock, Observer
from headgate.gateway.app import Gateway
from headgate.gateway.manage.ears import Ears
from headgate.gateway.manage.entrance import Management
from headgate.gateway.reloading import Change, Opening, Reloading
from headgate.wiring.gateway_usage import GatewayUsage

if TYPE_CHECKING:
    from headgate.gateway.manage.application import Application
    from headgate.gateway.manage.orders import Relay

__all__ = ["attach"]


def attach(
    gateway: Gateway,
    clock: Clock,
    opening: Opening,
    ears: Ears,
    *,
    usage: GatewayUsage | None = None,
    relay: Relay | None = None,
    observers: tuple[Observer, ...] = (),
    environ: Mapping[str, str] | None = None,
) -> None:
    """Attach them; on the loop that serves. What they need is imported with the first request, or now
    where there is an admin key: then it counts from the start.

    Args:
        opening: opens upstreams as they were opened at the start.
        ears: an observer of the gateway's engines.
        usage: what writes the usage ledger.
        relay: the way to the other workers, if there are any.
        observers: hear what the backend's own calls do, beside the ledger.
        environ: where settings are read from; None: the process environment.
    """
    reloading = Reloading(gateway, opening, clock, environ=environ)
    reloading.listen(lambda change: _count(gateway, change))

    def build() -> Application:
        from headgate.gateway.manage.opening import open_application  # noqa: PLC0415 - see above

        return open_application(
            gateway, clock, ears=ears, usage=usage, reloading=reloading, relay=relay,
            observers=observers, environ=environ,
        )  # fmt: skip

    management = Management(build)
    gateway.reloading, gateway.management = reloading, management
    if gateway.settings.admin is not None:
        management.open()
    elif relay is not None:
        relay.attend(lambda order: _first_order(management, order))


def _count(gateway: Gateway, change: Change) -> None:
    result = "accepted" if change.taken else "refused"
    gateway.metrics.metrics.add("headgate_config_reloads_total", 1, result)


_waking: set[asyncio.Task[None]] = set()
"""Orders of other workers for which an application is being opened."""


def _first_order(management: Management, order: bytes) -> None:
    task = asyncio.get_running_loop().create_task(_obeyed(management, order))
    _waking.add(task)
    task.add_done_callback(_waking.discard)


async def _obeyed(management: Management, order: bytes) -> None:
    application = await management.opened()
    await application.house.orders.hear(order)
