"""`headgate codegen webhook-listen`: receive webhooks and print them, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli import screen
from headgate.cli.codegen_client import make_client
from headgate.cli.doors import between, guarded

if TYPE_CHECKING:
    from headgate.codegen import WebhookEvent, WebhookHandler

__all__ = ["webhook_listen"]

DEFAULT_PORT = 8770

Host = Annotated[str, typer.Option("--host", metavar="HOST", help="Address to listen on.")]
Port = Annotated[
    int,
    typer.Option("--port", "-p", metavar="N", callback=between(0, 65535), help="0 takes a free one."),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", metavar="", help="Accept webhooks without a signature: anybody can send them."
    ),
]
JsonLines = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object an event.")]


@guarded
def webhook_listen(
    host: Host = "127.0.0.1",
    port: Port = DEFAULT_PORT,
    insecure: Insecure = False,
    as_json: JsonLines = False,
) -> None:
    """Receive webhooks at /webhooks/codegen and print each event once."""
    client = make_client(verbose=False)
    handler = client.get_webhook_handler(insecure=insecure)
    handler.register_handler("*", lambda event: _show(event, as_json=as_json))
    if not (client.config.webhook_secret or insecure):
        from headgate.core.errors import ConfigurationError  # noqa: PLC0415 - only here

        raise ConfigurationError(
            "Without a secret every webhook would be refused: set CODEGEN_WEBHOOK_SECRET, or pass "
            "--insecure to accept what anybody sends."
        )
    asyncio.run(_listen(handler, host, port))
    stats = handler.get_stats()
    screen.note(
        f"{screen.count(stats['total_events'], 'event')}, {stats['duplicate_events']} repeated, "
        f"{stats['refused_events']} refused."
    )


async def _listen(handler: WebhookHandler, host: str, port: int) -> None:
    from headgate.codegen import webhook_app  # noqa: PLC0415 - see `make_client`
    from headgate.transport.asgi import served  # noqa: PLC0415 - brings the HTTP server

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with served(webhook_app(handler), host, port) as base_url:
        screen.note(f"Waiting for webhooks at {base_url}/webhooks/codegen; Ctrl-C ends it.")
        await stopped.wait()
        screen.end_line()


def _show(event: WebhookEvent, *, as_json: bool) -> None:
    if as_json:
        screen.compact_json(event.model_dump(mode="json", exclude={"signature"}))
        return
    parts = [str(event.timestamp or "")[:19], event.event_type]
    parts += [str(event.data[name]) for name in ("id", "status", "web_url") if event.data.get(name)]
    screen.data("  ".join(parts))
