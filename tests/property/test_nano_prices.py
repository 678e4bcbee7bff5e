"""S3-05c: whole billionths of a dollar are the list's exact sums, for every model, day and size."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from headgate.core.tokens import Usage
from headgate.policy.nano_prices import NOTHING, NanoPrices, nano_cost
from headgate.policy.price_list import Cost, PriceList, PriceRow, Rates
from headgate.wiring.model_data import gemini_prices

TOKENS = st.integers(0, 3_000_000)
USAGES = st.builds(
    Usage, prompt=TOKENS, output=TOKENS, thoughts=TOKENS, cached=TOKENS, tool_prompt=TOKENS
)
DAYS = st.dates(date(2024, 1, 1), date(2028, 1, 1))
MONEY = st.decimals(0, 100, places=6)
RATES = st.builds(Rates, input=MONEY, output=st.none() | MONEY, cached_input=st.none() | MONEY)


def same(prices: PriceList, model: str, usage: Usage, day: date) -> None:
    exact = prices.cost(model, usage, day)
    found = NanoPrices(prices)
    for _ in range(2):  # the second time it is remembered
        told = found.cost(model, usage, day)
        assert told == (None if exact is None else nano_cost(exact))


@given(st.sampled_from([*gemini_prices()._rows, "unheard-of"]), USAGES, DAYS)
def test_shipped_prices(model: str, usage: Usage, day: date) -> None:
    same(gemini_prices(), model, usage, day)


@given(RATES, st.none() | RATES, st.integers(0, 3_000_000), DAYS, USAGES, DAYS)
def test_any_prices(
    short: Rates, long: Rates | None, above: int, start: date, usage: Usage, day: date
) -> None:
    rows = [PriceRow(short), PriceRow(short, start, above if long else None, long)]
    same(PriceList({"m": rows}, start, "test"), "m", usage, day)


def test_nothing_is_nothing() -> None:
    assert nano_cost(Cost()) == NOTHING
    assert nano_cost(Cost(input=Decimal("0.0000000019"))).total == 1
