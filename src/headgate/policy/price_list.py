"""What a call of a model costs on a day: dated prices, exact in decimal. Pure.

A price may begin on a day and may be another for long prompts. A model without a row has no price: its
cost is unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal

from msgspec import Struct

from headgate.core.call import Usage

__all__ = ["Cost", "PriceList", "PriceRow", "Rates"]

_MILLION = Decimal(1_000_000)


class Rates(Struct, frozen=True):
    """Dollars per million tokens; `images` per thousand images. None: no such price is known."""

    input: Decimal
    output: Decimal | None = None
    cached_input: Decimal | None = None
    image_output: Decimal | None = None
    images: Decimal | None = None


class PriceRow(Struct, frozen=True):
    """The price of a model from a day on; without `start`, from ever.

    Attributes:
        above: prompts with more tokens than this cost as `long` says.
    """

    rates: Rates
    start: date | None = None
    above: int | None = None
    long: Rates | None = None


class Cost(Struct, frozen=True):
    """Dollars of a call, by kind of token. `reasoning` is what thinking cost; it bills as output."""

    input: Decimal = Decimal(0)
    cached: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    reasoning: Decimal = Decimal(0)

    @property
    def total(self) -> Decimal:
        """All of it."""
        return self.input + self.cached + self.output + self.reasoning


class PriceList:
    """Prices by model. Immutable.

    Args:
        rows: of each model, in any order.
        as_of: the day of the data.
        source: who told them, for people.
    """

    def __init__(self, rows: Mapping[str, Iterable[PriceRow]], as_of: date, source: str) -> None:
        self._rows = {
            model: tuple(sorted(found, key=lambda row: row.start or date.min))
            for model, found in rows.items()
        }
        self.as_of = as_of
        self.source = source

    def __contains__(self, model: object) -> bool:
        return model in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def rates(self, model: str, day: date, prompt_tokens: int = 0) -> Rates | None:
        """What a model's tokens cost on a day, for a prompt of that many tokens."""
        row = self._row(model, day)
        if row is None:
            return None
        if row.above is not None and row.long is not None and prompt_tokens > row.above:
            return row.long
        return row.rates

    def long_prompt(self, model: str, day: date) -> int | None:
        """Prompts of a model with more tokens than this cost more; None: they do not."""
        row = self._row(model, day)
        return None if row is None else row.above

    def _row(self, model: str, day: date) -> PriceRow | None:
        begun = [row for row in self._rows.get(model, ()) if row.start is None or row.start <= day]
        return begun[-1] if begun else None

    def next_change(self, model: str, day: date) -> date | None:
        """The first day after this one on which another price begins."""
        later = [
            row.start for row in self._rows.get(model, ()) if row.start is not None and row.start > day
        ]
        return min(later, default=None)

    def cost(self, model: str, usage: Usage, day: date) -> Cost | None:
        """What a call cost; None where a price of something it used is not known.

        Input read from a cache costs as input where no price of its own is known. Tokens of tools'
        results cost as input.
        """
        rates = self.rates(model, day, usage.prompt)
        spoken = usage.output + usage.thoughts
        if rates is None or (spoken and rates.output is None):
            return None
        output = rates.output or Decimal(0)
        cached = min(usage.cached, usage.prompt)
        cached_rate = rates.input if rates.cached_input is None else rates.cached_input
        return Cost(
            input=rates.input * (usage.prompt - cached + usage.tool_prompt) / _MILLION,
            cached=cached_rate * cached / _MILLION,
            output=output * usage.output / _MILLION,
            reasoning=output * usage.thoughts / _MILLION,
        )

    def over(self, older: PriceList) -> PriceList:
        """These prices, and the older list's for models that are not here."""
        return PriceList({**older._rows, **self._rows}, self.as_of, self.source)
