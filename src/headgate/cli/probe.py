"""Asks an upstream about all keys of some settings, a few at a time."""

from __future__ import annotations

import asyncio

from headgate.core.call import Key
from headgate.core.ports import Clock, Transport
from headgate.transport.http import HttpTransport
from headgate.wiring.clock import SystemClock
from headgate.wiring.key_check import AnySettings, Finding, Verdict, ask_key, list_of_one

__all__ = ["Finding", "Verdict", "probe"]

_AT_A_TIME = 8


async def probe(
    settings: AnySettings,
    timeout: float,
    *,
    transport: Transport | None = None,
    clock: Clock | None = None,
) -> list[Finding]:
    """A finding for each key of the settings, in their order. Never raises for an upstream's doing."""
    clock = clock or SystemClock()
    outside = transport or HttpTransport(clock)
    places = asyncio.Semaphore(_AT_A_TIME)
    provider, request = list_of_one(settings)

    async def one(key: Key) -> Finding:
        async with places:
            return await ask_key(provider, outside, request, key, clock, timeout)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(key)) for key in settings.keys]
    finally:
        await outside.aclose()
    return [task.result() for task in tasks]
