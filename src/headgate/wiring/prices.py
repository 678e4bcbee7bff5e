"""Dated prices that ship with the package, read into the words of `policy/prices.py`."""

from __future__ import annotations

import tomllib
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files

import msgspec

from headgate.policy.prices import Price, PriceBook

__all__ = ["anthropic_prices"]


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[str]
    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal


class _File(msgspec.Struct, forbid_unknown_fields=True):
    date: date
    fallback: str
    prices: list[_Row]


@cache
def anthropic_prices() -> PriceBook:
    """What the shipped data says about the prices of Claude models."""
    path = files("headgate.wiring").joinpath("data", "anthropic-prices.toml")
    content = msgspec.convert(
        tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal), _File, strict=False
    )
    prices = {
        name: Price(row.input, row.output, row.cache_read, row.cache_write, row.cache_write_1h)
        for row in content.prices
        for name in row.ids
    }
    return PriceBook(prices, content.fallback)
