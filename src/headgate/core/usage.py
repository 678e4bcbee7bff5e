"""The usage ledger's words: one row per attempt, what is summed of rows, and where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

__all__ = [
    "CANCELLED",
    "SUCCESS",
    "By",
    "Place",
    "UsageFilter",
    "UsageRow",
    "UsageStore",
    "UsageSum",
]

SUCCESS = "success"
CANCELLED = "cancelled"
"""What became of a call, where it was no failure."""

Place = tuple[float, str, int]
"""Where a row stands among all: the time it ended, its request and its attempt."""


class UsageRow(Struct, frozen=True):
    """What one attempt used, and what became of its call. No prompt, no reply, no key: names only.

    A call has a row for each attempt. With the last of them the call ended, which `call` says. Where it
    ended without one – from a cache, or refused before anything was sent – the row has attempt 0.

    Attributes:
        request_id, attempt: together unique; attempts count from 1.
        at: Unix time in seconds at which it ended.
        duration: seconds the attempt took.
        result: `success`, or the kind of the failure as callers see it (`quota`, `timeout`, …).
        input_tokens: all of the prompt, with those read from the provider's cache.
        cached_tokens: those read from the provider's cache.
        output_tokens: of the reply, with those of thinking.
        reasoning_tokens: those of thinking.
        cost: dollars × 10⁹, so that sums stay exact; None where the model has no price.
        estimated: the provider did not tell the tokens: a caller went away, a stream was cut.
        error: the finer word for a failure; empty for a success.
        cached_cost, output_cost, reasoning_cost: parts of `cost`; the rest of it is the input's.
        call: empty while the call goes on; with its last row `success`, `cancelled`, or the finer word
            for the failure that the caller got.
        call_seconds: seconds the whole call took, with all waits; 0 while it goes on.
        retries: tries of the call that cost a retry; 0 while it goes on.
        looked_up: the reply cache was asked.
        from_cache: a kept reply answered.
        saved: dollars × 10⁹ that a kept reply would have cost anew.
    """

    request_id: str
    attempt: int
    at: float
    duration: float
    provider: str
    model: str
    operation: str
    result: str
    caller: str = ""
    domain: str = ""
    key_name: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int | None = None
    estimated: bool = False
    error: str = ""
    cached_cost: int = 0
    output_cost: int = 0
    reasoning_cost: int = 0
    call: str = ""
    call_seconds: float = 0.0
    retries: int = 0
    looked_up: bool = False
    from_cache: bool = False
    saved: int = 0

    @property
    def place(self) -> Place:
        """Where it stands among all rows, oldest first."""
        return self.at, self.request_id, self.attempt


class UsageFilter(Struct, frozen=True):
    """Which rows: those that ended within [since, until), in Unix seconds; None: any."""

    since: float = 0.0
    until: float | None = None
    model: str | None = None
    caller: str | None = None
    request_id: str | None = None


class By(StrEnum):
    """What rows are summed over. Hours and days are those of UTC."""

    HOUR = "hour"
    DAY = "day"
    MODEL = "model"
    CALLER = "caller"
    KEY = "key"
    PROVIDER = "provider"


class UsageSum(Struct, frozen=True):
    """Sums over rows.

    Attributes:
        name: the model, caller, key or provider; empty for a period.
        start: Unix second at which the period begins; 0 for a name.
        attempts: that were sent.
        requests: calls that ended as a success or a failure.
        cancelled: calls that their caller gave up; they are in no other number of calls.
        cached: requests that a kept reply answered.
        cost, saved: dollars × 10⁹.
        unpriced: attempts that used tokens of a model without a price.
        estimated: attempts whose tokens the provider did not tell.
        seconds: that the requests took together.
    """

    name: str = ""
    start: float = 0.0
    attempts: int = 0
    requests: int = 0
    successes: int = 0
    cancelled: int = 0
    cached: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    cached_cost: int = 0
    output_cost: int = 0
    reasoning_cost: int = 0
    saved: int = 0
    unpriced: int = 0
    estimated: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> int:
        """Requests that failed."""
        return self.requests - self.successes

    def __add__(self, other: UsageSum) -> UsageSum:
        """Both together, under the name and period of the first."""
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__struct_fields__
            if name not in ("name", "start")
        }
        return UsageSum(self.name, self.start, **sums)


class UsageStore(Protocol):
    """Where usage rows are kept. It blocks: never call it from an event loop's own thread."""

    def write(self, rows: Sequence[UsageRow]) -> int:
        """Keep rows, each once however often it comes. How many were new. Raises `StoreError`."""

    def newest(self, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        """Rows by the time they ended, newest first. Raises `StoreError`."""

    def following(self, after: Place | None, limit: int, chosen: UsageFilter) -> list[UsageRow]:
        """Rows that come after a place, oldest first; None: from the first on. Raises `StoreError`."""

    def sums(self, by: By, chosen: UsageFilter) -> list[UsageSum]:
        """Sums of periods, the oldest first, or of names, the dearest first; empty ones left out.

        Raises:
            StoreError: the store does not answer.
        """

    def forget(self, before: float) -> int:
        """Drop rows that ended before an instant. How many there were. Raises `StoreError`."""

    def close(self) -> None:
        """Give files and connections back."""
