"""What this process itself sent: requests and prompt tokens, by domain and model, of the last minute
and of the Pacific day.

It is kept for every model, declared or not, because a limit is learned when it was just exceeded: what
was sent before must count against it, and only who knows what was sent can tell a refusal that was due
from one that nobody can explain.

Counts stand in buckets of a second, so a pair costs O(1) memory however much it sends, and an attempt
about a microsecond. Sums are exact for whole seconds: the bucket that the window cuts in two is left
out, so a sum is never above what the provider counted in that window.

Pure: times are arguments, in seconds; the caller holds a lock around every method.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from headgate.policy.days import next_reset

__all__ = ["MOST_PAIRS", "WINDOW", "Charge", "Tally", "Use"]

WINDOW = 60
"""Seconds of the window that providers count requests and tokens per minute in."""

MOST_PAIRS = 10_000
"""Pairs of domain and model that are counted. Callers may name any model; a pair takes up to 10 kB."""


class Charge(NamedTuple):
    """What was sent before a limit was known, and counts against it.

    Attributes:
        domain: handle of the domain.
        limit: name of the limit.
        ends: monotonic seconds at which it no longer counts.
        amount: requests or tokens.
    """

    domain: int
    limit: str
    ends: float
    amount: int


class Use(NamedTuple):
    """What was sent to a domain for a model.

    Attributes:
        requests, tokens: sent in the last minute; refused ones are left out.
        served, served_tokens: the part of these that is known to have been served.
        day_requests, day_tokens: sent since midnight Pacific.
    """

    requests: int = 0
    tokens: int = 0
    served: int = 0
    served_tokens: int = 0
    day_requests: int = 0
    day_tokens: int = 0


class _Pair:
    """The buckets of one pair, by second, and their sums: requests, tokens, and the served part."""

    __slots__ = (
        "buckets", "day", "day_requests", "day_tokens", "requests", "served", "served_tokens", "tokens",
    )  # fmt: skip

    def __init__(self, day: int) -> None:
        self.buckets: dict[int, list[int]] = {}
        self.requests = 0
        self.tokens = 0
        self.served = 0
        self.served_tokens = 0
        self.day = day
        self.day_requests = 0
        self.day_tokens = 0

    def forget(self, second: int) -> None:
        """Let go of the buckets of this second and before."""
        buckets = self.buckets
        while buckets and (oldest := next(iter(buckets))) <= second:
            requests, tokens, served, served_tokens = buckets.pop(oldest)
            self.requests -= requests
            self.tokens -= tokens
            self.served -= served
            self.served_tokens -= served_tokens


class Tally:
    """Counts what is sent.

    Args:
        most: pairs that are counted; further ones are not, until others have been idle for a minute.
    """

    def __init__(self, most: int = MOST_PAIRS) -> None:
        self._most = most
        self._pairs: dict[tuple[int, str], _Pair] = {}
        self._day = 0
        self._day_ends = 0.0
        self._swept = -float("inf")

    def __len__(self) -> int:
        return len(self._pairs)

    def sent(self, domain: int, model: str, now: float, wall: float, requests: int = 1) -> None:
        """Something goes out that is charged as so many requests.

        Args:
            now: monotonic seconds.
            wall: Unix time.
        """
        pair = self._pairs.get((domain, model)) or self._new((domain, model), now, wall)
        if pair is None:
            return
        if wall >= self._day_ends:
            self._turn_day(wall)
        if pair.day != self._day:
            pair.day, pair.day_requests, pair.day_tokens = self._day, 0, 0
        second = int(now)
        bucket = pair.buckets.get(second)
        if bucket is None:
            pair.forget(second - WINDOW - 1)
            pair.buckets[second] = [requests, 0, 0, 0]
        else:
            bucket[0] += requests
        pair.requests += requests
        pair.day_requests += requests

    def served(self, domain: int, model: str, taken: float, tokens: int, requests: int = 1) -> None:
        """The request sent at `taken` was answered; its prompt was counted as so many tokens."""
        pair = self._pairs.get((domain, model))
        if pair is None:
            return
        pair.day_tokens += tokens
        bucket = pair.buckets.get(int(taken))
        if bucket is not None:
            bucket[1] += tokens
            bucket[2] += requests
            bucket[3] += tokens
            pair.tokens += tokens
            pair.served += requests
            pair.served_tokens += tokens

    def taken_back(self, domain: int, model: str, taken: float, requests: int = 1) -> None:
        """The request of `taken` uses no quota: it was refused, or no byte of it was sent."""
        pair = self._pairs.get((domain, model))
        if pair is None:
            return
        pair.day_requests = max(0, pair.day_requests - requests)
        bucket = pair.buckets.get(int(taken))
        back = 0 if bucket is None else min(requests, bucket[0] - bucket[2])
        if bucket is not None and back > 0:
            bucket[0] -= back
            pair.requests -= back

    def used(self, domain: int, model: str, now: float, wall: float) -> Use:
        """What was sent in the minute before `now`, and today."""
        pair = self._pairs.get((domain, model))
        if pair is None:
            return Use()
        # Only what lies in the window as a whole: from the first second that begins in it.
        pair.forget(-int(-(now - WINDOW) // 1) - 1)
        today = pair.day == self._day and wall < self._day_ends
        return Use(
            pair.requests,
            pair.tokens,
            pair.served,
            pair.served_tokens,
            pair.day_requests if today else 0,
            pair.day_tokens if today else 0,
        )

    def charges(self, domain: int, model: str, now: float) -> Iterator[tuple[float, int, int]]:
        """What still counts, bucket by bucket: seconds until it leaves the window, requests, tokens."""
        pair = self._pairs.get((domain, model))
        for second, (requests, tokens, _, _) in () if pair is None else pair.buckets.items():
            left = second + 1 + WINDOW - now
            if left > 0 and requests + tokens > 0:
                yield left, requests, tokens

    # ── bounds ──────────────────────────────────────────────────────────────────────────────────

    def _new(self, key: tuple[int, str], now: float, wall: float) -> _Pair | None:
        if len(self._pairs) >= self._most and not self._sweep(now):
            return None
        if wall >= self._day_ends:
            self._turn_day(wall)
        pair = self._pairs[key] = _Pair(self._day)
        return pair

    def _sweep(self, now: float) -> bool:
        """Forget pairs that were idle for a minute; looked for at most once a second."""
        if now - self._swept < 1:
            return False
        self._swept = now
        for key, pair in list(self._pairs.items()):
            pair.forget(int(now) - WINDOW - 1)
            if not pair.buckets:
                del self._pairs[key]
        return len(self._pairs) < self._most

    def _turn_day(self, wall: float) -> None:
        self._day += 1
        self._day_ends = next_reset(wall)
