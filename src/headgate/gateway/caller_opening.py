"""Opens the desk of callers and their book, as the settings say."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from headgate.core.callers import Caller, CallerStore
from headgate.core.ports import Clock
from headgate.core.usage import UsageStore
from headgate.gateway.caller_book import CallerBook
from headgate.gateway.callers import Callers
from headgate.gateway.desk import CallerDesk
from headgate.gateway.meters import Meters
from headgate.gateway.purse import Purse
from headgate.wiring.callers import DatedPrices, open_buckets, open_caller_store
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.usage import usage_place

__all__ = ["open_book", "open_desk"]


def open_desk(
    settings: GatewaySettings,
    clock: Clock,
    environ: Mapping[str, str] | None = None,
    *,
    registry: object = None,
) -> CallerDesk:
    """The desk of one process, which whoever opens it closes. An observer of the engines, too.

    Args:
        environ: instead of the process environment.
        registry: of `prometheus_client`, for the metrics of limits; None: the default one.

    Raises:
        ConfigurationError: the callers' file cannot be opened, or the shared store is set up wrong.
        StoreError: the file is busy.
    """
    store = open_caller_store(settings)
    managed = settings.callers_file is not None
    callers = Callers(settings.callers, store if managed else None, clock)
    if managed:  # a file that cannot be read is said at the start, not by each request
        callers.begin(store.changed(0), clock.monotonic())
    buckets = open_buckets(clock, environ, registry, fail_open=settings.inbound_fail_open)
    return CallerDesk(
        callers,
        clock,
        meters=Meters(buckets, clock),
        purse=Purse(store, clock),
        pricing=DatedPrices(clock),
        settings=settings,
        book=_book(store, settings, clock, environ, callers.learn) if managed else None,
    )


def open_book(
    settings: GatewaySettings, clock: Clock, environ: Mapping[str, str] | None = None
) -> tuple[CallerBook, CallerStore] | None:
    """The book, and its store, which whoever opens it closes; None where `HEADGATE_CALLERS` names no
    file. Raises as `open_desk`."""
    if settings.callers_file is None:
        return None
    store = open_caller_store(settings)
    return _book(store, settings, clock, environ), store


def _book(
    store: CallerStore,
    settings: GatewaySettings,
    clock: Clock,
    environ: Mapping[str, str] | None,
    heard: Callable[[Caller], None] = lambda _: None,
) -> CallerBook:
    return CallerBook(
        store,
        clock,
        new_key=lambda: f"hgk_{secrets.token_hex(24)}",  # 192 bits
        new_id=lambda: f"caller_{secrets.token_hex(8)}",
        fixed=[key.name for key in settings.callers],
        ledger=_ledger(environ),
        heard=heard,
    )


def _ledger(environ: Mapping[str, str] | None) -> Callable[[], UsageStore | None]:
    def opened() -> UsageStore | None:
        place = usage_place(environ=environ)
        if place.opener is None:
            return None
        if "://" not in place.shown and not Path(place.shown).is_file():
            return None  # to look must not make one
        return place.opener()

    return opened
