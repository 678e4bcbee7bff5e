"""What tokens cost in whole billionths of a dollar: the price list's sums without its decimals. Pure.

Every call is priced once. Exact decimals would cost several times what the rest of its row does, so the
rates of a model and day are turned into whole numbers once; the sums are those of the list, cut down to
a whole billionth.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import NamedTuple

from headgate.core.tokens import Usage
from headgate.policy.price_list import Cost, PriceList, Rates

__all__ = ["NOTHING", "NanoCost", "NanoPrices", "nano_cost"]

_NANO = 10**9
_MILLION = 10**6
_MOST_KNOWN = 1000


class NanoCost(NamedTuple):
    """Dollars × 10⁹: of all tokens, and of those read from a cache, spoken and thought."""

    total: int
    cached: int
    output: int
    reasoning: int


NOTHING = NanoCost(0, 0, 0, 0)


class _Rates(NamedTuple):
    """Dollars × 10⁹ per million tokens; `output` is None where nobody knows."""

    input: int
    cached: int
    output: int | None


class _Model(NamedTuple):
    rates: _Rates
    above: int | None
    long: _Rates


class NanoPrices:
    """The prices of one list. Threads may share it.

    Args:
        prices: the list; another list needs another of these.
    """

    def __init__(self, prices: PriceList) -> None:
        self.prices = prices
        self._known: dict[tuple[str, date], _Model | None] = {}

    def cost(self, model: str, usage: Usage, day: date) -> NanoCost | None:
        """What a call cost; None where a price of something it used is not known."""
        place = (model, day)
        try:
            known = self._known[place]
        except KeyError:
            known = self._learn(model, day)
        if known is None:
            return None
        rates = known.rates
        if known.above is not None and usage.prompt > known.above:
            rates = known.long
        spoken = usage.output + usage.thoughts
        if rates.output is None:
            if spoken:
                return None
            rates = rates._replace(output=0)
        output = rates.output or 0
        cached = min(usage.cached, usage.prompt)
        of_cache = rates.cached * cached
        fresh = rates.input * (usage.prompt - cached + usage.tool_prompt)
        return NanoCost(
            (fresh + of_cache + output * spoken) // _MILLION,
            of_cache // _MILLION,
            output * usage.output // _MILLION,
            output * usage.thoughts // _MILLION,
        )

    def _learn(self, model: str, day: date) -> _Model | None:
        short = self.prices.rates(model, day)
        above = self.prices.long_prompt(model, day)
        found = None
        if short is not None:
            long = short if above is None else self.prices.rates(model, day, above + 1) or short
            found = _Model(_whole(short), above, _whole(long))
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[model, day] = found
        return found


def nano_cost(cost: Cost) -> NanoCost:
    """Exact dollars, cut down to whole billionths."""
    parts = (cost.total, cost.cached, cost.output, cost.reasoning)
    return NanoCost(*(int(part * _NANO) for part in parts))


def _whole(rates: Rates) -> _Rates:
    cached = rates.input if rates.cached_input is None else rates.cached_input
    output = None if rates.output is None else _nano(rates.output)
    return _Rates(_nano(rates.input), _nano(cached), output)


def _nano(price: Decimal) -> int:
    return int(price * _NANO)
