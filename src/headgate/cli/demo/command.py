"""`headgate demo`: starts the emulator, sends the prompts, shows what happens, checks the books."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from headgate.cli import screen
from headgate.cli.doors import AsJson, Verbose, between, guarded, stop
from headgate.cli.exits import ExitCode

__all__ = ["demo"]

PROMPTS = 120

Size = Annotated[
    int,
    typer.Option("--prompts", metavar="N", callback=between(1, PROMPTS), help="How many to send."),
]
AtATime = Annotated[
    int,
    typer.Option("--concurrency", metavar="N", callback=between(1, 32), help="How many at a time."),
]


@guarded
def demo(
    prompts: Size = PROMPTS, concurrency: AtATime = 8, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """See it work: 120 prompts against small quotas; no key needed."""
    from headgate.cli.demo.run import perform  # noqa: PLC0415 - brings the emulator and the engine

    result = asyncio.run(perform(prompts, concurrency, moving=not verbose))
    if as_json:
        screen.data_json(result.to_dict())
    else:
        screen.show(*result.ending())
    if not result.good:
        screen.error("; ".join(result.complaints()) + ". Please report this with the output above.")
        stop(ExitCode.FAILURE)
