"""Words of inbound limits: what a caller asks of its token buckets, and what they answer."""

from __future__ import annotations

from msgspec import Struct

from headgate.core.errors import HeadgateError

__all__ = ["Ask", "Level", "RateLimitExceeded", "Rule", "Verdict"]


class Rule(Struct, frozen=True):
    """A limit: so many requests in a window of so many milliseconds. Both at least 1."""

    requests: int
    window_ms: int


class Ask(Struct, frozen=True):
    """What one identifier wants from its buckets: all of them or none.

    Attributes:
        rules: one bucket each, no rule twice.
        cost: tokens to take from every bucket; 0 only looks.
    """

    identifier: str
    rules: tuple[Rule, ...]
    cost: int = 1


class Level(Struct, frozen=True):
    """How full a bucket is, exactly: `units` / `unit` tokens.

    Attributes:
        full_in_us: microseconds until it is full, if nobody takes from it.
        wait_us: microseconds until it holds what was asked for; 0 if it did.
    """

    units: int
    unit: int
    full_in_us: int
    wait_us: int

    @property
    def tokens(self) -> float:
        """Tokens left, with their fraction."""
        return self.units / self.unit

    @property
    def whole(self) -> int:
        """Tokens left, rounded down."""
        return self.units // self.unit


class Verdict(Struct, frozen=True):
    """The buckets' answer.

    Attributes:
        allowed: whether the tokens were taken.
        levels: the buckets after it, in the order of the rules.
        now_us: the time of the answer by the store's clock, as Unix microseconds.
    """

    allowed: bool
    levels: tuple[Level, ...]
    now_us: int

    @property
    def retry_after(self) -> int:
        """Whole seconds, at least 1, after which the same ask has room if nobody else takes it."""
        wait = max((level.wait_us for level in self.levels), default=0)
        return max(1, -(-wait // 1_000_000))


class RateLimitExceeded(HeadgateError):  # noqa: N818 - the accepted name
    """A caller's own limit is reached.

    Attributes:
        retry_after: whole seconds, at least 1, until the same call has room.
    """

    default_kind = "rate_limit"
    http_status = 429
    retryable = True
    retry_after: int

    def __init__(self, retry_after: int, *, kind: str | None = None) -> None:
        seconds = max(1, retry_after)
        super().__init__(
            f"Rate limit exceeded. Retry after {seconds} seconds", kind=kind, retry_after=seconds
        )
        if kind == "store":  # nothing is known about the caller: the service is what failed
            self.http_status = 503
