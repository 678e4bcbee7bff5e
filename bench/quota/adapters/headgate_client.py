"""Headgate: `declared` is told every quota, `reactive` none. Everything else is its default.

Told of a store, its processes share their ledgers there.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from bench.quota.protocol import Ask, Setup, serve
from headgate.core.ports import Clock
from headgate.gemini import ResilientGeminiClient

logging.getLogger("headgate").setLevel(logging.CRITICAL + 1)  # a line a failed call


@asynccontextmanager
async def declared(setup: Setup, clock: Clock | None = None) -> AsyncIterator[Ask]:
    quotas = {
        key.project: {name: value for name in ("rpm", "tpm") if (value := getattr(key, name))}
        for key in setup.keys
    }
    async with _client(setup, clock, {"projects": quotas}) as ask:
        yield ask


@asynccontextmanager
async def reactive(setup: Setup, clock: Clock | None = None) -> AsyncIterator[Ask]:
    async with _client(setup, clock, None) as ask:
        yield ask


@asynccontextmanager
async def _client(
    setup: Setup, clock: Clock | None, quotas: dict[str, object] | None
) -> AsyncIterator[Ask]:
    keys = ",".join(f"{key.value}|{key.name}|{key.project}" for key in setup.keys)
    async with ResilientGeminiClient(
        keys=keys,
        base_url=setup.base_url,
        quotas=quotas,
        max_wait_seconds=setup.patience,
        store=setup.store,
        clock=clock,
        environ={},
    ) as client:
        yield lambda prompt: client.generate_content(prompt, setup.model)


def preload() -> None:
    """What the client imports when it is first used."""
    import headgate.transport.http  # noqa: F401, PLC0415


def main(arguments: list[str]) -> None:
    serve(declared if arguments == ["declared"] else reactive, f"headgate {version('headgate')}")


if __name__ == "__main__":
    main(sys.argv[1:])
