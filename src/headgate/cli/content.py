"""`headgate content serve`: topics, explanations and images, held to your quotas."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.cli.doors import Verbose, between, guarded
from headgate.core.errors import ConfigurationError

if TYPE_CHECKING:
    from headgate.core.ports import Clock
    from headgate.core.usage import UsageStore
    from headgate.telemetry.metrics.metrics import Metrics
    from headgate.wiring.gateway_usage import GatewayUsage

__all__ = ["content_serve"]

DEFAULT_PORT = 5000

_log = logging.getLogger("headgate.content")

Host = Annotated[str, typer.Option("--host", metavar="HOST", help="Address to listen on.")]
Port = Annotated[
    int,
    typer.Option("--port", "-p", metavar="N", callback=between(0, 65535), help="0 takes a free one."),
]


@guarded
def content_serve(
    host: Host = "127.0.0.1",
    port: Port = DEFAULT_PORT,
    verbose: Verbose = False,
) -> None:
    """Serve the content service and its page, until Ctrl-C."""
    try:
        from headgate.content.application import ContentApp  # noqa: PLC0415 - an extra
        from headgate.content.opening import Outside, open_content  # noqa: PLC0415
        from headgate.content.server import run_content  # noqa: PLC0415
        from headgate.gateway.server_protocol import ServerBounds, protocol  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("The content service needs: install headgate[content].") from None
    from headgate.content.pictures import MOST_IMAGE_BYTES  # noqa: PLC0415 - slow to import
    from headgate.content.settings import load_content  # noqa: PLC0415
    from headgate.telemetry.logs import setup_logging  # noqa: PLC0415
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415
    from headgate.wiring.telemetry import start_telemetry  # noqa: PLC0415

    setup_logging(level="DEBUG" if verbose else "INFO")
    for other in logging.getLogger("headgate").handlers:  # what is said there would be said twice
        other.setLevel(logging.CRITICAL + 1)
    settings, clock = load_content(), SystemClock()
    end_telemetry = start_telemetry()
    usage, measured = _usage(clock)
    outside = Outside(
        clock=clock,
        measured=measured,
        observers=() if usage is None else (usage.observer,),
        ledger=lambda: "not_configured" if usage is None else "healthy",
    )

    def made() -> ContentApp:
        return open_content(settings, outside)

    def introduce(address: str) -> None:
        who = ", ".join(key.name for key in settings.callers)
        if not who:
            who = "everybody" if settings.open_routes else "everybody on this machine"
        _log.info("serving address=%s callers=%s", address, who)

    bounds = ServerBounds(body_bytes=2 * MOST_IMAGE_BYTES)
    try:
        run_content(made, host, port, introduce, http=protocol(bounds))
    finally:
        if usage is not None:
            usage.close()
        end_telemetry()
    screen.end_line()


def _usage(clock: Clock) -> tuple[GatewayUsage | None, Callable[[Metrics], None]]:
    """The ledger of what was used, and what lets metrics tell of it: they stand later."""
    from headgate.wiring.gateway_usage import open_usage  # noqa: PLC0415 - reads the settings

    watches: list[Callable[[UsageStore], UsageStore]] = []
    usage = open_usage(
        clock, kept_days=90, watched=lambda store: watches[0](store) if watches else store
    )

    def measured(metrics: Metrics) -> None:
        if usage is None:
            return
        from headgate.telemetry.metrics.family import Feeder  # noqa: PLC0415 - an extra
        from headgate.wiring.metrics import watch_rows  # noqa: PLC0415 - with it

        metrics.feed(Feeder.LEDGER)
        watches.append(metrics.ledger.opened)
        watch_rows(metrics, usage.writer)

    return usage, measured
