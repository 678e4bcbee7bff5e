"""Callers to test with: a desk over stores of memory or a file, a book whose keys are canaries."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.gateway import scripted_gateway

from headgate.core.callers import Budget, BudgetWindow, CallerLimits
from headgate.gateway import Gateway
from headgate.gateway.caller_book import CallerBook, CallerSpec, IssuedKey
from headgate.gateway.caller_opening import open_desk
from headgate.gateway.desk import CallerDesk
from headgate.testing import ScriptedTransport, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

_numbers = itertools.count()
_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")

PRICED = "gemini-3.5-flash"
"""A model with a price in the shipped list."""


def canary_key() -> str:
    """Another key each time, in letters that no digest has."""
    digest = sha256(str(next(_numbers)).encode()).hexdigest()[:37]
    return f"hgk_CANARY-{digest.translate(_LETTERS)}"


def desk_at(path: Path, clock: VirtualClock, **settings: Any) -> CallerDesk:
    """The desk of one process over a file of callers; its book issues canaries."""
    options = GatewaySettings(callers_file=str(path), **settings)
    desk = open_desk(options, clock, {})
    assert desk.book is not None
    desk.book._new_key = canary_key
    return desk


def limits(
    rpm: int | None = None,
    tpm: int | None = None,
    rpd: int | None = None,
    concurrent: int | None = None,
) -> CallerLimits:
    return CallerLimits(rpm, tpm, rpd, concurrent)


def dollars(amount: float, window: str = "month") -> Budget:
    return Budget(round(amount * 10**9), BudgetWindow(window))


async def issued(book: CallerBook | None, name: str = "ann", **spec: Any) -> IssuedKey:
    assert book is not None
    return await book.create(CallerSpec(name, **spec))


def guarded_gateway(
    script: Any, clock: VirtualClock, path: Path, observers: Iterable[Any] = (), **settings: Any
) -> tuple[Gateway, ScriptedTransport, CallerDesk]:
    """A gateway with managed callers whose upstreams answer from a script."""
    desk = desk_at(path, clock, **settings)
    options = GatewaySettings(callers_file=str(path), **settings)
    gateway, transport = scripted_gateway(
        script, clock, settings=options, desk=desk, observers=observers
    )
    return gateway, transport, desk
