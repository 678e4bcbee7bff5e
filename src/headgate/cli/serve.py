"""`headgate serve`: the gateway that unmodified SDKs talk to; `headgate env`: how they find it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, between, guarded
from headgate.core.errors import ConfigurationError

if TYPE_CHECKING:
    from headgate.gateway.worker_process import WorkerSide
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
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-w",
        metavar="N",
        callback=between(1, 256),
        help="Processes that serve, behind one port.",
    ),
]
AsWorker = Annotated[str | None, typer.Option("--as-worker", hidden=True)]  # by cli/serve_workers.py
Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="Where the gateway is, as its clients reach it.")
]


@guarded
def serve(
    host: Host = "127.0.0.1",
    port: Port = DEFAULT_PORT,
    workers: Workers = None,
    verbose: Verbose = False,
    as_worker: AsWorker = None,
) -> None:
    """Serve Gemini, Claude and OpenAI-compatible APIs over all your keys, until Ctrl-C."""
    from headgate.wiring.gateway_settings import load_gateway  # noqa: PLC0415 - slow to import

    settings = load_gateway()
    _check_host(settings, host)
    try:
        from headgate.gateway.worker_process import WorkerSide  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError("The gateway needs its server: install headgate[serve].") from None
    count = workers or settings.workers
    if count > 1 and as_worker is None:
        from headgate.cli.serve_workers import oversee  # noqa: PLC0415 - it does without the engine

        oversee(settings, host, port, count, verbose=verbose)
        return
    _serve(settings, host, port, None if as_worker is None else WorkerSide.take(as_worker))


def _serve(settings: GatewaySettings, host: str, port: int, side: WorkerSide | None) -> None:
    """Serve in this process.

    Args:
        side: what it was given, where it is one of several workers.
    """
    from headgate.cli.serve_here import serve_here  # noqa: PLC0415 - an extra, and slow to import

    def introduce(address: str, upstreams: tuple[Upstream, ...], usage: GatewayUsage | None) -> None:
        _introduce(address, upstreams, settings, usage)
        if side is not None:
            screen.note(f"{side.crew.workers} workers take calls.")

    serve_here(settings, host, port, side, introduce)
    screen.end_line()


@guarded
def env(url: Url = f"http://127.0.0.1:{DEFAULT_PORT}", as_json: AsJson = False) -> None:
    """Print the exports that point the Google, Anthropic and OpenAI SDKs to the gateway."""
    from headgate.wiring.gateway_settings import load_gateway  # noqa: PLC0415 - slow to import

    settings = load_gateway()
    key = _CALLER_KEY if settings.callers or settings.callers_file else _ANY_KEY
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

    if not (settings.callers or settings.callers_file) and not is_loopback(host):
        raise ConfigurationError(
            f"Without caller keys whoever reaches {host} would use your quota. Set "
            "HEADGATE_CALLER_KEYS to key|name entries or HEADGATE_CALLERS to a file of callers, or "
            "listen on 127.0.0.1."
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
    if settings.callers_file is not None:
        screen.note(f"Callers are in {settings.callers_file}; `headgate callers create` makes one.")
    elif not settings.callers:
        screen.note("Without HEADGATE_CALLER_KEYS everybody on this machine may call; nobody else can.")
    screen.note(_managing(address, settings))
    screen.note("No usage ledger is kept." if usage is None else f"Usage goes to {usage.place.shown}.")
    screen.note(f'To point SDKs here: eval "$(headgate env --url {address})". Ctrl-C ends it.')


def _managing(address: str, settings: GatewaySettings) -> str:
    if settings.admin is not None:
        return f"It is managed at {address}/docs, with the admin key."
    if settings.callers or settings.callers_file:
        return "Nobody can manage it: set HEADGATE_ADMIN_KEY to open the management API."
    return f"Programs on this machine manage it: {address}/docs. HEADGATE_ADMIN_KEY asks for a key."
