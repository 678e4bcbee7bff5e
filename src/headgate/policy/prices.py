"""What tokens cost: dated prices in dollars per million tokens, exact in decimal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

__all__ = ["Price", "PriceBook", "Tokens"]

_MILLION = Decimal(1_000_000)
# What providers and clouds add to the name of a model: a vendor before it, a date or `latest` after.
_DRESS = re.compile(
    r"^(?:models/|anthropic/|(?:\w+\.)?anthropic\.)|(?:[-@]\d{8}|-latest)(?:-v\d+(?::\d+)?)?$"
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a call. `prompt` counts neither what was read from a cache nor what was written."""

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal

    def cost(self, tokens: Tokens) -> Decimal:
        """Dollars for a call."""
        return (
            self.input * tokens.prompt
            + self.output * tokens.completion
            + self.cache_read * tokens.cache_read
            + self.cache_write * tokens.cache_write
            + self.cache_write_1h * tokens.cache_write_1h
        ) / _MILLION


class PriceBook:
    """Prices by model. Immutable.

    Args:
        fallback: the model whose price stands in for an unknown one.
    """

    def __init__(self, prices: Mapping[str, Price], fallback: str) -> None:
        self._prices = dict(prices)
        self._fallback = self._prices[fallback]

    def bare(self, model: str) -> str:
        """A model's name without vendor and date."""
        return _DRESS.sub("", model)

    def name_of(self, model: str) -> str:
        """The bounded name of a model: one that has a price, or `other`."""
        bare = self.bare(model)
        return bare if bare in self._prices else "other"

    def price(self, model: str) -> tuple[Price, bool]:
        """A model's price, and whether it is its own or the fallback's."""
        found = self._prices.get(self.bare(model))
        return (self._fallback, False) if found is None else (found, True)
