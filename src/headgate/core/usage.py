"""The usage ledger's words: one row per attempt, and where rows are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

__all__ = ["UsagePeriod", "UsageRow", "UsageStore"]


class UsageRow(Struct, frozen=True):
    """What one attempt used. No prompt, no reply, no key: names only.

    Attributes:
        request_id, attempt: together unique; attempts count from 1, a reply from a cache is 0.
        at: Unix time in seconds at which it ended.
        duration: seconds it took.
        result: `success`, or the kind of the failure as callers see it (`quota`, `timeout`, …).
        input_tokens: all of the prompt, with those read from the provider's cache.
        cached_tokens: those read from the provider's cache.
        output_tokens: of the reply, with those of thinking.
        reasoning_tokens: those of thinking.
        cost: dollars × 10⁹, so that sums stay exact; None where the model has no price.
        estimated: the provider did not tell the tokens: a caller went away, a stream was cut.
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


class UsagePeriod(Struct, frozen=True):
    """Sums over the attempts that ended within [start, stop), in Unix seconds."""

    start: float
    stop: float
    attempts: int
    successes: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: int
    seconds: float


class UsageStore(Protocol):
    """Where usage rows are kept. It blocks: never call it from an event loop's own thread."""

    def write(self, rows: Sequence[UsageRow]) -> int:
        """Keep rows, each once however often it comes. How many were new. Raises `StoreError`."""

    def newest(
        self, limit: int, *, model: str | None = None, since: float = 0.0, until: float | None = None
    ) -> list[UsageRow]:
        """Rows by the time they ended, newest first. Raises `StoreError`."""

    def periods(
        self, seconds: int, since: float, until: float, *, model: str | None = None
    ) -> list[UsagePeriod]:
        """Sums by periods of so many seconds since the epoch, oldest first, empty ones left out."""

    def forget(self, before: float) -> int:
        """Drop rows that ended before an instant. How many there were. Raises `StoreError`."""

    def close(self) -> None:
        """Give files and connections back."""
