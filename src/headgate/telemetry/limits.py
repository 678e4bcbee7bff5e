"""Prometheus metrics of inbound limits and of Claude usage, one set of books per registry.

    cak_rate_limit_checks_total{identifier,result}    result: allowed, exceeded, error
    cak_rate_limit_tokens_remaining{identifier}       the fewest tokens seen in the last minute or two
    headgate_inbound_checks_total{scope,result}       the same under the house's names
    headgate_inbound_tokens_remaining{scope}
    cak_claude_api_calls_total{model,status}          status: success, error
    cak_claude_tokens_total{model,type}               type: prompt (cached input included), completion
    cak_claude_cost_dollars_total

The label `identifier` holds a scope class (`user`, `ip`, …), never an identifier: labels are bounded.
Any number of limiters share the books of their registry (`of_registry.py`), so nothing is ever
registered twice. Help and labels are those of the catalogue (`metrics/`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headgate.core.ports import Clock
from headgate.telemetry.metrics.catalogue import family

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["ClaudeBooks", "LimitBooks"]

_RESULTS = ("allowed", "exceeded", "error")
_PERIOD = 60.0  # seconds over which a minimum is kept, and shown for as long again


class LimitBooks:
    """Counts checks and keeps minima by scope class. Threads may share it."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._lock = threading.Lock()
        self._checks: Counter[tuple[str, str]] = Counter()
        self._scopes: set[str] = set()
        self._lowest: dict[str, _Lowest] = {}

    @property
    def errors(self) -> int:
        """Checks that the shared store did not decide."""
        with self._lock:
            return sum(count for (_, result), count in self._checks.items() if result == "error")

    def checked(self, scope: str, result: str, remaining: float | None) -> None:
        """One check of a scope class ended."""
        with self._lock:
            self._scopes.add(scope)
            self._checks[scope, result] += 1
            if remaining is not None:
                lowest = self._lowest.get(scope)
                if lowest is None:
                    lowest = self._lowest[scope] = _Lowest()
                lowest.see(remaining, self._now())

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that a registry notices a second collector."""
        return iter(_limit_families())

    def collect(self) -> Iterator[Metric]:
        """The families as they stand now. A scope class that was seen has all its results."""
        checks, tokens, twin_checks, twin_tokens = _limit_families()
        with self._lock:
            now = self._now()
            for scope in sorted(self._scopes):
                for result in _RESULTS:
                    count = self._checks[scope, result]
                    checks.add_metric([scope, result], count)
                    twin_checks.add_metric([scope, result], count)
                lowest = self._lowest[scope].value(now) if scope in self._lowest else None
                if lowest is not None:
                    tokens.add_metric([scope], lowest)
                    twin_tokens.add_metric([scope], lowest)
        return iter((checks, tokens, twin_checks, twin_tokens))


class _Lowest:
    """The least value of this period and the one before; reading it changes nothing."""

    __slots__ = ("_before", "_current", "_period")

    def __init__(self) -> None:
        self._period = -2
        self._before: float | None = None
        self._current: float | None = None

    def see(self, value: float, now: float) -> None:
        period = int(now // _PERIOD)
        if period != self._period:
            self._before = self._current if period == self._period + 1 else None
            self._period, self._current = period, value
        elif self._current is None or value < self._current:
            self._current = value

    def value(self, now: float) -> float | None:
        age = int(now // _PERIOD) - self._period
        seen = (self._before, self._current) if age <= 0 else (self._current,) if age == 1 else ()
        return min((value for value in seen if value is not None), default=None)


class ClaudeBooks:
    """Counts Claude calls, tokens and dollars. Threads may share it."""

    def __init__(self, clock: Clock) -> None:
        del clock  # counters need none; the books of a registry are all made alike
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._cost = 0.0

    def used(self, model: str, prompt: int, completion: int, cost: float, *, success: bool) -> None:
        """One call ended. `model` is a bounded name; `prompt` holds cached input too."""
        with self._lock:
            for status, count in (("success", int(success)), ("error", int(not success))):
                self._calls[model, status] += count
            self._tokens[model, "prompt"] += prompt
            self._tokens[model, "completion"] += completion
            self._cost += cost

    def describe(self) -> Iterator[Metric]:
        """The families without samples."""
        return iter(_claude_families())

    def collect(self) -> Iterator[Metric]:
        """The families as they stand now."""
        calls, tokens, cost = _claude_families()
        with self._lock:
            for labels, count in sorted(self._calls.items()):
                calls.add_metric(labels, count)
            for labels, count in sorted(self._tokens.items()):
                tokens.add_metric(labels, count)
            cost.add_metric([], self._cost)
        return iter((calls, tokens, cost))


def _limit_families() -> tuple[Any, ...]:
    return _of_the_catalogue(
        "cak_rate_limit_checks_total", "cak_rate_limit_tokens_remaining",
        "headgate_inbound_checks_total", "headgate_inbound_tokens_remaining",
    )  # fmt: skip


def _claude_families() -> tuple[Any, ...]:
    return _of_the_catalogue(
        "cak_claude_api_calls_total", "cak_claude_tokens_total", "cak_claude_cost_dollars_total"
    )


def _of_the_catalogue(*names: str) -> tuple[Any, ...]:
    from headgate.telemetry.metrics.rendering import empty  # noqa: PLC0415 - an extra

    return tuple(empty(family(name)) for name in names)
