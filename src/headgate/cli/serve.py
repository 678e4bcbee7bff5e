"""`headgate serve`: the gateway that unmodified SDKs talk to; `headgate env`: how they find it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, between, guarded
from headgate.core.errors import ConfigurationError

if TYPE_CHECKING:
    from headgate.gateway.server import GatewayServer
    from headgate.wiring.gateway import Upstream
    from headgate.wiring.gateway_settings import GatewaySettings
    from headgate.wiring.gateway_usage import GatewayUsage

__all__ = ["env", "serve"]

DEFAULT_PORT = 8080

_CALLER_KEY = "$HEADGATE_CALLER_KEY"
_ANY_KEY = "headgate"  # without caller keys it only has to be there: SDKs ask for one

_SDKS = (
    ("gemini", "GOOGLE_GEMINI_BASE_URL", "/gemini", "GOOGLE_API_KEY"),
    ("anthropic", "ANTHROPIC_BASE_URL", "/anthropic", "ANTHROPIC_API_KEY"),
    ("openai", "OPENAI_BASE_URL", "/openai/v1", "OPENAI_API_KEY"),
)

Host = Annotated[str, typer.Option("--host", metavar="HOST", help="Address to listen on.")]
Port = Annotated[
    int,
    typer.Option("--port", "-p", metavar="N", callback=between(0, 65535), help="0 takes a free one."),
]
Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="Where the gateway is, as its clients reach it.")
]


@guarded
def serve(host: Host = "127.0.0.1", port: Port = DEFAULT_PORT, verbose: Verbose = False) -> None:  # noqa: ARG001 - guarded reads it
    """Serve Gemini, Claude and OpenAI-compatible APIs over all your keys, until Ctrl-C."""
    from headgate.wiring.gateway import open_cache, open_upstreams  # noqa: PLC0415 - slow to import
    from headgate.wiring.gateway_settings import load_gateway  # noqa: PLC0415
    from headgate.wiring.gateway_usage import open_usage  # noqa: PLC0415

    settings = load_gateway()
    _check_host(settings, host)
    try:
        from headgate.gateway.server import run  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError("The gateway needs its server: install headgate[serve].") from None
    from headgate.wiring.clock import SystemClock  # noqa: PLC0415
    from headgate.wiring.observers import LogObserver, Observers  # noqa: PLC0415

    log = logging.getLogger("headgate.gateway")
    clock = SystemClock()
    cache = open_cache(settings, clock)
    usage = open_usage(clock, kept_days=settings.usage_retention_days)
    books = () if usage is None else (usage.observer,)
    upstreams = open_upstreams(
        clock=clock,
        cache=cache,
        sending=settings.transport,
        observer=Observers(LogObserver(log), *books),
        warn=lambda sentence: log.warning("%s", sentence),
    )

    def made() -> GatewayServer:
        from headgate.gateway import Gateway  # noqa: PLC0415
        from headgate.gateway.server import GatewayServer  # noqa: PLC0415

        return GatewayServer(
            Gateway(settings, upstreams, clock, cache),
            host,
            port,
            linger_seconds=settings.linger_seconds,
            drain_seconds=settings.drain_seconds,
            body_bytes=settings.max_body_mib * 1024 * 1024,
        )

    try:
        run(made, lambda address: _introduce(address, upstreams, settings, usage))
    finally:
        if usage is not None:
            usage.close()  # after the drain: the rows of calls that were cut are in it too
    screen.end_line()


@guarded
def env(url: Url = f"http://127.0.0.1:{DEFAULT_PORT}", as_json: AsJson = False) -> None:
    """Print the exports that point the Google, Anthropic and OpenAI SDKs to the gateway."""
    from headgate.wiring.gateway_settings import load_gateway  # noqa: PLC0415 - slow to import

    key = _CALLER_KEY if load_gateway().callers else _ANY_KEY
    base = url.rstrip("/")
    exports = {}
    for _, address, path, secret in _SDKS:
        exports[address] = base + path
        exports[secret] = key
    if as_json:
        screen.data_json(exports)
        return
    for name, value in exports.items():
        screen.data(f'export {name}="{value}"')


def _check_host(settings: GatewaySettings, host: str) -> None:
    from headgate.gateway.local import is_loopback  # noqa: PLC0415 - slow to import

    if not settings.callers and not is_loopback(host):
        raise ConfigurationError(
            f"Without caller keys whoever reaches {host} would use your quota. Set "
            "HEADGATE_CALLER_KEYS to key|name entries, or listen on 127.0.0.1."
        )


def _introduce(
    address: str,
    upstreams: tuple[Upstream, ...],
    settings: GatewaySettings,
    usage: GatewayUsage | None,
) -> None:
    screen.note(f"The gateway is at {address}.")
    for upstream in upstreams:
        keys = screen.count(len(upstream.engine.pool), "key")
        screen.note(f"  {address}/{upstream.name}  {keys}")
    if settings.callers:
        names = ", ".join(key.name for key in settings.callers)
        screen.note(f"Callers need a key: {names}.")
    else:
        screen.note("Without HEADGATE_CALLER_KEYS everybody on this machine may call; nobody else can.")
    screen.note("No usage ledger is kept." if usage is None else f"Usage goes to {usage.place.shown}.")
    screen.note(f'To point SDKs here: eval "$(headgate env --url {address})". Ctrl-C ends it.')
