"""Event loops, several of which may share what one engine holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVarTuple

__all__ = ["call_on", "running_loop"]

Ts = TypeVarTuple("Ts")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop this is called on, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[[*Ts], None], *args: *Ts) -> bool:
    """Call on a loop: at once where it is the running one. False if it is closed: nothing is called."""
    if loop is running_loop():
        function(*args)
        return True
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True
