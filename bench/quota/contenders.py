"""Who takes part, and how each is started."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.quota import programs
from bench.quota.adapters import headgate_client, round_robin
from bench.quota.play import Contender
from bench.quota.programs import Start
from bench.quota.protocol import Ask, Setup
from headgate.core.ports import Clock

__all__ = ["in_process", "started"]

_ADAPTERS = "bench.quota.adapters"
_STRATEGIES = ("simple-shuffle", "enforce", "usage-based-routing-v2", "least-busy")
_SHARED = ("simple-shuffle", "enforce", "usage-based-routing-v2")  # what counts quotas, in Redis too
_SEVERAL = 3


@asynccontextmanager
async def started(
    versions: set[str], rivals: Path | None, added: list[str]
) -> AsyncIterator[list[Contender]]:
    """Every contender as programs of its own, while the context lasts.

    Args:
        versions: what each program says it is, is added.
        rivals: the Python that has LiteLLM, or None.
        added: `name=command`, from the command line.
    """

    def one(name: str, start: Start) -> Contender:
        return Contender(name, programs.contender(start, versions))

    def several(name: str, start: Start) -> Contender:
        opened = programs.contender(start, versions, processes=_SEVERAL, shared=True)
        return Contender(f"{name}, Valkey", opened, _SEVERAL)

    async with AsyncExitStack() as stack:

        async def nursery(python: str, adapter: str) -> programs.Nursery:
            return await stack.enter_async_context(programs.nursery(python, f"{_ADAPTERS}.{adapter}"))

        ours = await nursery(sys.executable, "headgate_client")
        baseline = await nursery(sys.executable, "round_robin")
        found = [
            one("Headgate", ours.program(["declared"])),
            several("Headgate", ours.program(["declared"])),
            one("Headgate, told nothing", ours.program(["reactive"])),
            one("round robin", baseline.program([])),
        ]
        if rivals is not None:
            theirs = await nursery(str(rivals), "litellm_router")
            found += [one(f"LiteLLM {name}", theirs.program([name])) for name in _STRATEGIES]
            found += [several(f"LiteLLM {name}", theirs.program([name])) for name in _SHARED]
        for text in added:
            name, _, command = text.partition("=")
            found.append(one(name, programs.subprocess(shlex.split(command))))
        yield found


def in_process() -> list[Contender]:
    """Those that run in virtual time: what reads the machine's clock cannot."""
    return [
        Contender("Headgate", headgate_client.declared),
        Contender("Headgate, told nothing", headgate_client.reactive),
        Contender("round robin", _round_robin),
    ]


def _round_robin(setup: Setup, _clock: Clock) -> AbstractAsyncContextManager[Ask]:
    return round_robin.contender(setup)
