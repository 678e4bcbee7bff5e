"""Newer prices on request: the public price data of genai-prices, read into the words of `policy/`.

The file is a list of providers with models; a price is a number or a base with steps by the size of the
prompt, and may begin on a day. What is not understood of a model leaves that model out, so that the
shipped price stands. Only the provider `google` is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal

import msgspec
from msgspec import Struct

from headgate.core.errors import UpstreamError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Request, Transport, TransportError
from headgate.policy.price_list import PriceList, PriceRow, Rates

__all__ = ["PRICE_URL", "fetch_prices", "read_prices"]

PRICE_URL = "https://raw.githubusercontent.com/pydantic/genai-prices/refs/heads/main/prices/new_data/v2/data.json"
"""Where genai-prices 0.2.3 itself looks for newer data."""

_PROVIDER = "google"


class _Step(Struct):
    start: int
    price: Decimal


class _Stepped(Struct):
    base: Decimal
    tiers: list[_Step] = []


class _Rates(Struct):
    input_mtok: Decimal | _Stepped | None = None
    output_mtok: Decimal | _Stepped | None = None
    cache_read_mtok: Decimal | _Stepped | None = None
    output_image_mtok: Decimal | _Stepped | None = None


class _Begins(Struct):
    start_date: date | None = None
    start_time: str | None = None  # prices by the time of the day: not read


class _Dated(Struct):
    prices: _Rates
    constraint: _Begins | None = None


class _Model(Struct):
    id: str
    prices: msgspec.Raw


class _Provider(Struct):
    id: str
    models: list[_Model] = []


async def fetch_prices(
    transport: Transport, deadline: float, today: date, url: str = PRICE_URL
) -> PriceList:
    """The prices a URL has today. Raises `UpstreamError`: nothing came, or nothing that is one."""
    try:
        exchange = await transport.open(Request("GET", url, {}, b""), {}, deadline)
        try:
            body = await exchange.read()
        finally:
            await exchange.aclose()
    except TransportError as failure:
        raise UpstreamError(failure.outcome) from None
    if exchange.status != 200:
        message = f"The price data answered with HTTP {exchange.status}; the known prices stand."
        raise UpstreamError(Outcome(Kind.SERVER, message, exchange.status))
    try:
        prices = read_prices(body, today, url)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"The price data cannot be read ({type(error).__name__}); the known prices stand."
        raise UpstreamError(Outcome(Kind.PROTOCOL, message, 200)) from None
    if not len(prices):
        message = "The price data holds no price of a Gemini model; the known prices stand."
        raise UpstreamError(Outcome(Kind.PROTOCOL, message, 200))
    return prices


def read_prices(body: bytes, as_of: date, source: str) -> PriceList:
    """The prices of a file. Raises `msgspec.DecodeError` for one that is none."""
    rows: dict[str, list[PriceRow]] = {}
    for provider in msgspec.json.decode(body, type=list[_Provider], strict=False):
        if provider.id != _PROVIDER:
            continue
        for model in provider.models:
            if found := _rows(model.prices):
                rows[model.id] = found
    return PriceList(rows, as_of, source)


def _rows(raw: msgspec.Raw) -> list[PriceRow]:
    """The rows of a model; none where a part of its price is not understood."""
    try:
        given = msgspec.json.decode(raw, type=_Rates | list[_Dated], strict=False)
    except msgspec.DecodeError:
        return []
    dated = [_Dated(given)] if isinstance(given, _Rates) else given
    if any(one.constraint is not None and one.constraint.start_date is None for one in dated):
        return []
    made = [_row(one) for one in dated]
    return [row for row in made if row is not None] if all(made) else []


def _row(dated: _Dated) -> PriceRow | None:
    given = dated.prices
    parts: Mapping[str, Decimal | _Stepped | None] = {
        "input": given.input_mtok,
        "output": given.output_mtok,
        "cached_input": given.cache_read_mtok,
        "image_output": given.output_image_mtok,
    }
    start = None if dated.constraint is None else dated.constraint.start_date
    stepped = [part for part in parts.values() if isinstance(part, _Stepped) and part.tiers]
    thresholds = {step.start for part in stepped for step in part.tiers}
    if given.input_mtok is None or len(thresholds) > 1:
        return None
    base = {name: part.base if isinstance(part, _Stepped) else part for name, part in parts.items()}
    long = {
        name: part.tiers[0].price if isinstance(part, _Stepped) and part.tiers else base[name]
        for name, part in parts.items()
    }
    rates = msgspec.convert(base, Rates)
    if not thresholds:
        return PriceRow(rates, start)
    return PriceRow(rates, start, thresholds.pop(), msgspec.convert(long, Rates))
