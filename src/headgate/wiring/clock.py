"""The real clock."""

from __future__ import annotations

import asyncio
import time

__all__ = ["SystemClock"]

# CLOCK_MONOTONIC stands still while a machine sleeps; a parked key must not sleep with it.
_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class SystemClock:
    """Time as the machine tells it. Monotonic time goes on through suspend where the system can."""

    def monotonic(self) -> float:
        """Seconds since boot; never steps back."""
        if _BOOTTIME is not None:
            return time.clock_gettime(_BOOTTIME)  # noqa: TID251 - this room owns the clock
        return time.monotonic()  # noqa: TID251 - this room owns the clock

    def wall(self) -> float:
        """Unix time in seconds."""
        return time.time()  # noqa: TID251 - this room owns the clock

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less only yields to other tasks."""
        await asyncio.sleep(max(0.0, seconds))  # noqa: TID251 - this room owns the clock
