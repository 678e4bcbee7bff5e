"""`headgate cache`: what is kept of replies in the shared store, and forgetting it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, guarded

if TYPE_CHECKING:
    from headgate.stores.replies_valkey import ValkeyReplies

__all__ = ["cache", "clear", "stats"]

T = TypeVar("T")

IN_MEMORY = (
    "No shared store is configured (HEADGATE_STORE, or store in headgate.toml): each process keeps its "
    "replies in its own memory, out of reach from here. Within it, get_gemini_cache_stats() and "
    "clear_gemini_cache() of its backend say and do the same."
)

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="GLOB",
        help="Only of namespaces that match; * stands for anything.",
        show_default=False,
    ),
]


def cache(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show what the shared store holds of replies, or forget some of it."""
    if ctx.invoked_subcommand is None:
        stats(as_json=as_json)


@guarded
def stats(
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Show what the shared store holds of replies."""

    async def ask(cache: ValkeyReplies) -> dict[str, object]:
        found = await cache.shared_figures()
        return {
            "entries": found.entries,
            "size_bytes": found.bytes,
            "namespaces": found.namespaces,
        }

    place, found = _asked(ask)
    if as_json:
        screen.data_json({"store": place, **(found or {})})
    elif found is None:
        screen.note(IN_MEMORY)
    else:
        table = screen.table("store", "replies", "bytes", "namespaces", right=("replies", "bytes"))
        table.add_row(place, *(f"{value:,}" for value in found.values()))
        screen.show(table)


@guarded
def clear(
    namespace: Namespace = None,
    as_json: AsJson = False,
    verbose: Verbose = False,  # noqa: ARG001 - `guarded` reads it
) -> None:
    """Forget replies, in the shared store and in every process that shares it."""

    async def ask(cache: ValkeyReplies) -> int:
        return await (cache.clear() if namespace is None else cache.invalidate(namespace))

    place, gone = _asked(ask)
    if as_json:
        screen.data_json({"store": place, "namespace": namespace, "cleared": gone})
    elif gone is None:
        screen.note(IN_MEMORY)
    else:
        replies = "1 reply" if gone == 1 else f"{gone:,} replies"
        screen.note(f"{replies} forgotten at {place}.")


def _asked(ask: Callable[[ValkeyReplies], Awaitable[T]]) -> tuple[str, T | None]:
    """Where the store is, and what it says; None where there is none that processes share."""
    from headgate.wiring.replies import shared_replies  # noqa: PLC0415 - `--help` need not wait for it

    place, cache = shared_replies()

    async def run() -> T | None:
        if cache is None:
            return None
        try:
            return await ask(cache)
        finally:
            await cache.aclose()

    return place, asyncio.run(run())
