"""The real clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

__all__ = ["SystemClock"]

# CLOCK_MONOTONIC stands still while a machine sleeps; a parked key must not sleep with it.
_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def _since_boot() -> Callable[[], float]:
    if _BOOTTIME is None:
        return time.monotonic  # noqa: TID251 - this room owns the clock
    return partial(time.clock_gettime, _BOOTTIME)  # noqa: TID251 - this room owns the clock


class SystemClock:
    """Time as the machine tells it. Monotonic time goes on through suspend where the system can."""

    # The readings themselves, without a function of ours around them: a call takes a dozen.
    monotonic = staticmethod(_since_boot())
    """Seconds since boot; never steps back."""

    wall = staticmethod(time.time)  # noqa: TID251 - this room owns the clock
    """Unix time in seconds."""

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less only yields to other tasks."""
        await asyncio.sleep(max(0.0, seconds))  # noqa: TID251 - this room owns the clock
