"""Inbound limits: token buckets of each caller, and one of the whole gateway.

What a call uses shows when it has ended, so a bucket of tokens is charged with an estimate, and the
difference to the truth with the caller's next call: as a credit, which lasts as long as it would take
the bucket to fill, or as a debt, which is paid before the next call is let in. A call that is refused
by one bucket is given back what it took from others in the same way. So a refusal costs nothing, and no
call is too large: one that is larger than its bucket needs it to be full, and the rest is a debt.

Credits and debts are those of a process; the buckets are shared where processes share a store.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from headgate.core.buckets import Ask, RateLimitExceeded, Rule, Verdict
from headgate.core.callers import CallerLimitError, CallerLimits
from headgate.core.ports import Clock
from headgate.gateway.callers import CallersUnavailableError
from headgate.gateway.problems import Headers
from headgate.policy.bucket import rule_of
from headgate.wiring.callers import CallerBuckets

__all__ = ["Meters", "Taken"]

_MINUTE = 60.0
_DAY = 86_400.0
_MOST_BALANCES = 100_000
_GATEWAY = "gateway:all"

_AWAY = (
    "The gateway cannot reach the store of its limits, and is set to refuse then. Nothing was sent; "
    "try again in a moment."
)


class _Measure(NamedTuple):
    """Buckets that are asked together.

    Attributes:
        names: of the limits, for headers and sentences.
        want: tokens that the call is to take of each.
    """

    identifier: str
    names: tuple[str, ...]
    rules: tuple[Rule, ...]
    want: int


class Taken(NamedTuple):
    """What a call took.

    Attributes:
        headers: what the caller may know of its limits.
    """

    measures: tuple[_Measure, ...]
    headers: Headers


class Meters:
    """Takes from buckets, and settles.

    Args:
        buckets: closed with these.
    """

    def __init__(self, buckets: CallerBuckets, clock: Clock) -> None:
        self._buckets = buckets
        self._clock = clock
        self._all: tuple[Rule, ...] = ()
        self._balances: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def limit_all(self, requests_per_minute: int | None) -> None:
        """Let all callers together ask for so many requests a minute from now on; None: for any."""
        self._all = () if requests_per_minute is None else (rule_of(requests_per_minute, _MINUTE),)

    @property
    def watches_all(self) -> bool:
        """Whether there is a limit of the whole gateway."""
        return bool(self._all)

    async def take(self, caller: str, limits: CallerLimits, tokens: int) -> Taken:
        """Take what a call needs from every bucket, or nothing.

        Args:
            caller: its id.
            tokens: an estimate of all that the call will use.

        Raises:
            CallerLimitError: with headers of its limits in `headers`.
            CallersUnavailableError: the store of the buckets does not answer, and nothing stands in.
        """
        measures = self._measures(caller, limits, tokens)
        if not measures:
            return Taken((), [])
        for measure in measures:
            if self._owes(measure):
                raise await self._repaid(measure)
        costs = [self._pay(measure) for measure in measures]
        asks = [
            Ask(measure.identifier, measure.rules, cost)
            for measure, cost in zip(measures, costs, strict=True)
        ]
        try:
            verdicts = await self._asked(asks)
        except BaseException as error:
            for measure, cost in zip(measures, costs, strict=True):
                self._book(measure, measure.want - cost)
            if isinstance(error, RateLimitExceeded):
                raise CallersUnavailableError(_AWAY, retry_after=1.0) from error
            raise
        headers = _headers(measures, verdicts)
        if all(verdict.allowed for verdict in verdicts):
            return Taken(measures, headers)
        for measure, cost, verdict in zip(measures, costs, verdicts, strict=True):
            # What was taken stays with the caller as a credit; what was not taken was never paid.
            self._book(measure, measure.want if verdict.allowed else measure.want - cost)
        raise _refusal(measures, verdicts, headers)

    def undo(self, taken: Taken) -> None:
        """The call was not sent after all."""
        for measure in taken.measures:
            self._book(measure, measure.want)

    def settle(self, taken: Taken, tokens: int) -> None:
        """The call has ended, and used so many tokens."""
        for measure in taken.measures:
            if measure.identifier.endswith(":tokens"):
                self._book(measure, measure.want - tokens)

    async def reset(self, caller: str) -> int:
        """Fill the buckets of a caller anew, by its id. How many there were."""
        reset = 0
        for identifier in (f"caller:{caller}", f"caller:{caller}:tokens"):
            self._balances.pop(identifier, None)
            reset += await self._buckets.inbound.reset(identifier)
        return reset

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await self._buckets.aclose()

    # ── buckets ─────────────────────────────────────────────────────────────────────────────────

    def _measures(self, caller: str, limits: CallerLimits, tokens: int) -> tuple[_Measure, ...]:
        found = []
        if limits.tokens_per_minute and tokens:
            rule = rule_of(limits.tokens_per_minute, _MINUTE)
            found.append(_Measure(f"caller:{caller}:tokens", ("tokens-per-minute",), (rule,), tokens))
        if limits.requests_per_minute or limits.requests_per_day:
            found.append(_of_requests(caller, limits))
        if self._all:
            found.append(_Measure(_GATEWAY, ("gateway-requests-per-minute",), self._all, 1))
        return tuple(found)

    async def _asked(self, asks: Sequence[Ask]) -> list[Verdict]:
        take = self._buckets.inbound.take
        if self._buckets.shared and len(asks) > 1:  # asks that wait together travel together
            return list(await asyncio.gather(*(take(ask) for ask in asks)))
        return [await take(ask) for ask in asks]

    # ── balances ────────────────────────────────────────────────────────────────────────────────

    def _pay(self, measure: _Measure) -> int:
        """What to ask the bucket for: what is wanted less a credit, or with a debt."""
        balance = self._balance(measure)
        most = min(rule.requests for rule in measure.rules)
        cost = max(0, min(most, math.ceil(measure.want - balance)))
        self._set(measure, balance - measure.want + cost)
        return cost

    def _owes(self, measure: _Measure) -> bool:
        """Whether there is a debt that a full bucket does not pay together with the call."""
        debt = -self._balance(measure)
        return debt > 0 and debt + measure.want > min(rule.requests for rule in measure.rules)

    async def _repaid(self, measure: _Measure) -> CallerLimitError:
        """Pay of a debt what the bucket has, and say when there is room for the call."""
        due = measure._replace(want=0)
        cost = self._pay(due)
        try:
            verdicts = await self._asked([Ask(due.identifier, due.rules, cost)])
        except RateLimitExceeded as error:
            self._book(due, -cost)
            raise CallersUnavailableError(_AWAY, retry_after=1.0) from error
        if not verdicts[0].allowed:
            self._book(due, -cost)
        rule, level = due.rules[0], verdicts[0].levels[0]
        missing = min(measure.want, rule.requests) - self._balance(due) - level.tokens
        seconds = max(1, math.ceil(missing * rule.window_ms / 1000 / rule.requests))
        full = [f"{due.names[0]} ({rule.requests})"]
        return _error("The limit of this caller", full, seconds, _headers([due], verdicts))

    def _book(self, measure: _Measure, amount: float) -> None:
        if amount:
            self._set(measure, self._balance(measure) + amount)

    def _balance(self, measure: _Measure) -> float:
        """As it is now. A credit is worth nothing once the bucket is full again by itself; what a full
        bucket would have got on top repays a debt."""
        balance, at = self._balances.get(measure.identifier, (0.0, 0.0))
        if not balance:
            return 0.0
        rule = max(measure.rules, key=lambda one: one.window_ms)
        window = rule.window_ms / 1000
        elapsed = self._clock.monotonic() - at
        if balance > 0:
            return 0.0 if elapsed >= window else balance
        return min(0.0, balance + max(0.0, elapsed - window) * rule.requests / window)

    def _set(self, measure: _Measure, balance: float) -> None:
        if not balance:
            self._balances.pop(measure.identifier, None)
            return
        most = max(rule.requests for rule in measure.rules)
        self._balances[measure.identifier] = (min(balance, float(most)), self._clock.monotonic())
        self._balances.move_to_end(measure.identifier)
        if len(self._balances) > _MOST_BALANCES:
            self._balances.popitem(last=False)


@lru_cache(maxsize=4096)
def _of_requests(caller: str, limits: CallerLimits) -> _Measure:
    requests = [
        (name, rule_of(amount, seconds))
        for name, amount, seconds in (
            ("requests-per-minute", limits.requests_per_minute, _MINUTE),
            ("requests-per-day", limits.requests_per_day, _DAY),
        )
        if amount
    ]
    names, rules = zip(*requests, strict=True)
    return _Measure(f"caller:{caller}", names, rules, 1)


def _headers(measures: Sequence[_Measure], verdicts: Sequence[Verdict]) -> Headers:
    """As draft-ietf-httpapi-ratelimit-headers-10 (September 2025) has them: the caller's limits, what
    is left of them, and seconds until they are whole again. What others leave of the gateway's own
    limit is none of the caller's business."""
    policy, state = [], []
    for measure, verdict in zip(measures, verdicts, strict=True):
        if measure.identifier == _GATEWAY:
            continue
        for name, rule, level in zip(measure.names, measure.rules, verdict.levels, strict=True):
            policy.append(f'"{name}";q={rule.requests};w={rule.window_ms // 1000}')
            state.append(f'"{name}";r={max(0, level.whole)};t={-(-level.full_in_us // 1_000_000)}')
    if not policy:
        return []
    return [
        (b"ratelimit-policy", ", ".join(policy).encode()),
        (b"ratelimit", ", ".join(state).encode()),
    ]


def _refusal(
    measures: Sequence[_Measure], verdicts: Sequence[Verdict], headers: Headers
) -> CallerLimitError:
    full, seconds = [], 1
    for measure, verdict in zip(measures, verdicts, strict=True):
        if not verdict.allowed:
            seconds = max(seconds, verdict.retry_after)
            levels = zip(measure.names, measure.rules, verdict.levels, strict=True)
            full += [f"{name} ({rule.requests})" for name, rule, level in levels if level.wait_us > 0]
    of_all = all(name.startswith("gateway-") for name in full)
    whose = "The limit of all callers together" if of_all else "The limit of this caller"
    return _error(whose, full, seconds, headers)


def _error(whose: str, full: Sequence[str], seconds: int, headers: Headers) -> CallerLimitError:
    error = CallerLimitError(
        f"{whose} is reached: {', '.join(full)}. Nothing was sent; try again in {seconds} s.",
        retry_after=float(seconds),
    )
    error.headers = tuple(headers)
    return error
