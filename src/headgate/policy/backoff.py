"""How long to wait before trying again: exponential, with full jitter.

delay = chance × min(cap, base × factor^n), n counting retries from 0. Full jitter spreads the retries
of many callers over the whole interval (Marc Brooker, "Exponential Backoff and Jitter", AWS, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """A back-off policy; times in seconds. The defaults are those accepted as S1-10.

    Without `jitter` every delay is the longest it may be: callers that failed together come back
    together.
    """

    base: float = 1.0
    factor: float = 2.0
    cap: float = 60.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.base <= 0 or self.factor < 1 or self.cap < self.base:
            raise ValueError(f"back-off needs base > 0, factor >= 1 and cap >= base; got {self}")

    def ceiling(self, retry: int) -> float:
        """The longest delay before retry number `retry`, counted from 0."""
        # The exponent is bounded before the power is taken: 2.0 ** 2000 would overflow.
        return min(self.cap, self.base * self.factor ** min(retry, 64))

    def delay(self, retry: int, chance: float) -> float:
        """The delay in seconds; `chance` is uniform in [0, 1)."""
        return self.ceiling(retry) * (chance if self.jitter else 1.0)
