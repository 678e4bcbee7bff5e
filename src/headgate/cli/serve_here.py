"""`headgate serve` in one process, be it the only one or one of several workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headgate.core.ports import Clock
from headgate.core.replies import ReplyCache
from headgate.gateway import Gateway
from headgate.gateway.caller_opening import open_desk
from headgate.gateway.desk import CallerDesk
from headgate.gateway.manage.ears import Ears
from headgate.gateway.managing import attach
from headgate.gateway.server import GatewayServer, run
from headgate.gateway.server_protocol import ServerBounds
from headgate.gateway.worker_process import WorkerRelay, WorkerSide
from headgate.wiring.clock import SystemClock
from headgate.wiring.gateway import Upstream, open_cache, open_upstreams
from headgate.wiring.gateway_metrics import GatewayMetrics
from headgate.wiring.gateway_settings import GatewaySettings
from headgate.wiring.gateway_usage import GatewayUsage, open_usage
from headgate.wiring.observers import LogObserver, Observers
from headgate.wiring.telemetry import start_telemetry

__all__ = ["Introduce", "serve_here"]

_log = logging.getLogger("headgate.gateway")

Introduce = Callable[[str, tuple[Upstream, ...], GatewayUsage | None], None]
"""Tells whoever runs the gateway its address, what it serves, and where usage goes."""


@dataclass(frozen=True, slots=True)
class _House:
    """What is there before the engines, and hears of them. Made once; configurations come and go."""

    clock: Clock
    metrics: GatewayMetrics
    usage: GatewayUsage | None
    desk: CallerDesk
    ears: Ears = field(default_factory=Ears)

    def upstreams(
        self, settings: GatewaySettings, cache: ReplyCache | None, before: Sequence[Upstream]
    ) -> tuple[Upstream, ...]:
        """Those of a configuration, over those of the one before. Raises `ConfigurationError`."""
        books = () if self.usage is None else (self.usage.observer,)
        heard = Observers(LogObserver(_log), *books, self.desk, self.metrics.observer, self.ears)
        return open_upstreams(
            clock=self.clock,
            cache=cache,
            sending=settings.transport,
            observer=heard,
            warn=lambda sentence: _log.warning("%s", sentence),
            before=before,
        )

    def gateway(
        self,
        settings: GatewaySettings,
        upstreams: tuple[Upstream, ...],
        cache: ReplyCache | None,
        side: WorkerSide | None,
    ) -> Gateway:
        """The application, with its management API; on the loop that serves."""
        crew = None if side is None else side.crew
        made = Gateway(settings, upstreams, self.clock, cache, crew, self.desk, self.metrics)
        relay = None if side is None else WorkerRelay(side)
        observers = (self.metrics.observer,)
        attach(
            made, self.clock, self.upstreams, self.ears, usage=self.usage, relay=relay,
            observers=observers,
        )  # fmt: skip
        if settings.content:
            from headgate.cli.serve_content import content_beside  # noqa: PLC0415 - an extra

            books = () if self.usage is None else (self.usage.observer,)
            made.beside = content_beside(self.clock, self.metrics, books)
        return made


def serve_here(
    settings: GatewaySettings,
    host: str,
    port: int,
    side: WorkerSide | None,
    introduce: Introduce,
) -> None:
    """Serve until a signal ends it. Raises `ConfigurationError`.

    Args:
        side: what this process was given, where it is one of several workers.
    """
    clock = SystemClock()
    metrics = GatewayMetrics.of_worker(clock)
    end_telemetry = start_telemetry(registry=metrics.registry)
    house = _house(settings, clock, metrics)
    usage = house.usage
    cache = open_cache(settings, clock)
    upstreams = house.upstreams(settings, cache, ())

    def made() -> GatewayServer:
        return GatewayServer(
            house.gateway(settings, upstreams, cache, side),
            host,
            port,
            linger_seconds=settings.linger_seconds,
            drain_seconds=settings.drain_seconds,
            body_bytes=settings.max_body_mib * 1024 * 1024,
            bounds=ServerBounds.of(settings),
            listening=None if side is None else side.listening,
        )

    def announce(address: str) -> None:
        def now() -> None:
            introduce(address, upstreams, usage)

        now() if side is None else side.serves(now)

    try:
        run(made, announce, side)
    finally:
        if usage is not None:
            usage.close()  # after the drain: the rows of calls that were cut are in it too
        end_telemetry()  # and their spans are sent


def _house(settings: GatewaySettings, clock: Clock, metrics: GatewayMetrics) -> _House:
    watched = metrics.metrics.ledger.opened
    usage = open_usage(clock, kept_days=settings.usage_retention_days, watched=watched)
    if usage is not None:
        metrics.watch_usage(usage)
    return _House(clock, metrics, usage, open_desk(settings, clock, registry=metrics.registry))
