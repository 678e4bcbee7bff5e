"""`ClaudeRateLimiter`: requests per minute by model, and what Claude calls cost by day."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Self

from headgate.claude.usage import UsageJournal
from headgate.core.errors import StoreError
from headgate.core.ports import Clock
from headgate.policy.bucket import ask_of, rule_of
from headgate.policy.prices import Tokens
from headgate.telemetry.limits import ClaudeBooks
from headgate.telemetry.of_registry import one_of
from headgate.wiring.limits import build_limits, member_name
from headgate.wiring.prices import anthropic_prices

__all__ = ["ClaudeRateLimiter"]

_log = logging.getLogger("headgate.claude")

_WARNED_AT_MOST = 100  # names of models; what callers send is not bounded
_KEPT_DAYS = 30


class ClaudeRateLimiter:
    """Limits and accounts for Claude calls, over Redis or Valkey or in this process.

    Args:
        redis_client: as for `headgate.limits.RateLimiter`, beside which it may be used.
        max_rpm: requests per minute and model.
        default_model: the model of a check that names none.
        registry, fail_open, store_timeout, log_key, clock: as for `RateLimiter`.
    """

    def __init__(
        self,
        redis_client: Any | None = None,
        max_rpm: int = 10,
        *,
        default_model: str = "claude-3-opus",
        registry: object = None,
        fail_open: bool = True,
        store_timeout: float = 0.1,
        log_key: bytes | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._rule = rule_of(max_rpm, 60)
        self._default_model = default_model
        parts = build_limits(
            redis_client,
            registry=registry,
            fail_open=fail_open,
            store_timeout=store_timeout,
            log_key=log_key,
            clock=clock,
        )
        self._inbound, self._usage, self._clock = parts.inbound, parts.usage, parts.clock
        self._books = one_of(registry, ClaudeBooks, self._clock)
        self._prices = anthropic_prices()
        self._journal = UsageJournal(self._usage, member_name())
        self._warned: set[str] = set()

    async def check_claude_limit(self, model: str | None = None) -> None:
        """Take one request of a model's minute, from the bucket `claude:{model}`.

        Names of one model with and without its date share a bucket.

        Raises:
            RateLimitExceeded: the minute is used up.
        """
        bare = self._prices.bare(self._default_model if model is None else model)
        await self._inbound.check(ask_of(f"claude:{bare}", (self._rule,)))

    async def record_usage(
        self,
        model: str,
        prompt_tokens: int,
        completion_tokens: int,
        success: bool = True,
        *,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
    ) -> float:
        """Count a call and its tokens. Never raises for a store that fails.

        Args:
            prompt_tokens: `usage.input_tokens` of the reply, which counts no cached tokens.
            cache_read_tokens: `usage.cache_read_input_tokens`.
            cache_write_tokens: tokens written for five minutes; `cache_write_1h_tokens`: for an hour.

        Returns: what the call cost in dollars. An unknown model costs what Claude 3 Opus did.
        """
        tokens = Tokens(
            _count(prompt_tokens, "prompt_tokens"),
            _count(completion_tokens, "completion_tokens"),
            _count(cache_read_tokens, "cache_read_tokens"),
            _count(cache_write_tokens, "cache_write_tokens"),
            _count(cache_write_1h_tokens, "cache_write_1h_tokens"),
        )
        price, known = self._prices.price(model)
        if not known:
            self._warn(model)
        cost = price.cost(tokens)
        name = self._prices.name_of(model)
        prompt = tokens.prompt + tokens.cache_read + tokens.cache_write + tokens.cache_write_1h
        self._books.used(name, prompt, tokens.completion, float(cost), success=success)
        amounts = {"calls": Decimal(1), "cost": cost}
        amounts |= {f"calls:{name}": Decimal(1), f"cost:{name}": cost}
        amounts[f"prompt_tokens:{name}"] = Decimal(prompt)
        amounts[f"completion_tokens:{name}"] = Decimal(tokens.completion)
        if not known:
            amounts["estimated"] = cost
        self._journal.note(self._days(1)[0], amounts)
        await self._journal.flush()
        return float(cost)

    async def get_usage_stats(self, days: int = 7, *, include_empty: bool = False) -> dict[str, Any]:
        """Calls and cost of the last days (UTC), today included, newest first.

        Args:
            days: how far back; 30 days are kept.
            include_empty: list days without calls too, as zero.

        Returns: `daily` (a list of `date`, `calls`, `cost`), `total_calls`, `total_cost`. Also
            `estimated_cost` where some models had no price of their own, and `error` where the store
            failed: the figures are then those this process still holds.
        """
        wanted = self._days(min(_count(days, "days", least=1), _KEPT_DAYS + 1))
        await self._journal.flush()
        error = None
        try:
            stored = await self._usage.read(wanted)
        except StoreError as failure:
            stored, error = [{} for _ in wanted], failure.message
        daily: list[dict[str, Any]] = []
        estimated = total = Decimal(0)
        for day, found in zip(wanted, stored, strict=True):
            held = self._journal.held(day)
            calls, cost, guessed = (
                Decimal(found.get(field, "0")) + held.get(field, Decimal(0))
                for field in ("calls", "cost", "estimated")
            )
            total, estimated = total + cost, estimated + guessed
            if calls or include_empty:
                daily.append({"date": day, "calls": int(calls), "cost": _dollars(cost)})
        stats: dict[str, Any] = {
            "daily": daily,
            "total_calls": sum(row["calls"] for row in daily),
            "total_cost": _dollars(total),
        }
        if estimated:
            stats["estimated_cost"] = _dollars(estimated)
        if error is not None:
            stats["error"] = error
        return stats

    async def aclose(self) -> None:
        """Store what is still held, if the store answers. Your client stays open."""
        await self._journal.flush()
        await self._inbound.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def _days(self, count: int) -> list[str]:
        today = datetime.fromtimestamp(self._clock.wall(), UTC).date()
        return [(today - timedelta(days=back)).isoformat() for back in range(count)]

    def _warn(self, model: str) -> None:
        if model in self._warned or len(self._warned) >= _WARNED_AT_MOST:
            return
        self._warned.add(model)
        _log.warning(
            "claude_price=estimated model=%.80r as=claude-3-opus: there is no price for it", model
        )


def _count(value: int, name: str, *, least: int = 0) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{name} takes a whole number, {least} or more; got {value!r}")
    return value


def _dollars(amount: Decimal) -> float:
    # Redis adds in binary; what differs from the sum in decimal is far below a millionth of a cent.
    return round(float(amount), 12)
