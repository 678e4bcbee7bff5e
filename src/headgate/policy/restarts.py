"""When something that ended by itself is started again: a worker of the gateway, or its store."""

from __future__ import annotations

__all__ = ["Restarts"]

MOST = 5
"""Ends in a row, each soon after the start, before it is given up."""

STEADY_SECONDS = 30.0
"""Whoever lived so long was in order: what ended it is no fault of how it starts."""

_FIRST, _LONGEST = 0.5, 8.0
"""Seconds of the second pause and of the longest. The first restart comes at once: what ended by
chance, or was killed for its memory, is missed until it is back."""


class Restarts:
    """Decides about one thing that is to run for good.

    Attributes:
        failures: how often in a row it ended soon after it was started.
    """

    def __init__(self) -> None:
        self.failures = 0

    def ended(self, lived: float) -> float | None:
        """It ended. Seconds until it is to be started again; None: it is given up.

        Args:
            lived: seconds since it was ready; 0 where it never was.
        """
        if lived >= STEADY_SECONDS:
            self.failures = 0
        self.failures += 1
        if self.failures > MOST:
            return None
        if self.failures == 1:
            return 0.0
        pause: float = min(_LONGEST, _FIRST * 2 ** (self.failures - 2))
        return pause
