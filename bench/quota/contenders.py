"""Who takes part, and how each is started."""

from __future__ import annotations

import shlex
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from bench.quota.adapters import headgate_client, round_robin
from bench.quota.play import Contender, program
from bench.quota.protocol import Ask, Setup
from headgate.core.ports import Clock

__all__ = ["added", "in_process", "programs"]

_ADAPTERS = "bench.quota.adapters"
_STRATEGIES = ("simple-shuffle", "usage-based-routing-v2", "least-busy")


def programs(versions: set[str], litellm: Path | None) -> list[Contender]:
    """Every contender as a program of its own; LiteLLM's only where it is installed."""
    commands = {
        "Headgate, declared": [sys.executable, "-m", f"{_ADAPTERS}.headgate_client", "declared"],
        "Headgate, reactive": [sys.executable, "-m", f"{_ADAPTERS}.headgate_client", "reactive"],
        "round robin": [sys.executable, "-m", f"{_ADAPTERS}.round_robin"],
    }
    if litellm is not None:
        for strategy in _STRATEGIES:
            module = f"{_ADAPTERS}.litellm_router"
            commands[f"LiteLLM {strategy}"] = [str(litellm), "-m", module, strategy]
    return [Contender(name, program(command, versions)) for name, command in commands.items()]


def added(text: str, versions: set[str]) -> Contender:
    """A contender from the command line: `name=command`."""
    name, _, command = text.partition("=")
    return Contender(name, program(shlex.split(command), versions))


def in_process() -> list[Contender]:
    """Those that run in virtual time: what reads the machine's clock cannot."""
    return [
        Contender("Headgate, declared", headgate_client.declared),
        Contender("Headgate, reactive", headgate_client.reactive),
        Contender("round robin", _round_robin),
    ]


def _round_robin(setup: Setup, _clock: Clock) -> AbstractAsyncContextManager[Ask]:
    return round_robin.contender(setup)
