"""Dated data of Gemini models that ships with the package: cards and prices, in the words of `policy/`.

Dates of withdrawal and successors stand in one file with those of the client (`presets.py` reads it
too); everything else of a card in another.
"""

from __future__ import annotations

import tomllib
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files

import msgspec
from msgspec import Struct, structs

from headgate.core.model_card import ModelCapabilities, ModelMetadata, ModelPerformance
from headgate.policy.price_list import PriceList, PriceRow, Rates

__all__ = ["gemini_cards", "gemini_cards_date", "gemini_prices"]

_SAMPLING = ("supports_temperature", "supports_top_k", "supports_top_p")


class _Withdrawal(Struct, forbid_unknown_fields=True):
    retiring: date | None = None
    shutdown: date | None = None
    successor: str | None = None
    sampling: bool = True
    note: str = ""


class _Withdrawals(Struct, forbid_unknown_fields=True):
    date: date
    models: dict[str, _Withdrawal]
    aliases: dict[str, str] = {}


class _Card(Struct, forbid_unknown_fields=True):
    name: str
    kind: str
    description: str = ""
    stage: str = "stable"
    released: date | None = None
    aliases: tuple[str, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    sampling: bool | None = None
    use_cases: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    can: dict[str, bool] = {}


class _Cards(Struct, forbid_unknown_fields=True):
    date: date
    kinds: dict[str, ModelCapabilities]
    models: dict[str, _Card]


class _Long(Struct, forbid_unknown_fields=True):
    above: int
    input: Decimal
    output: Decimal
    cached_input: Decimal


class _Price(Struct, forbid_unknown_fields=True):
    ids: list[str]
    input: Decimal
    output: Decimal | None = None
    cached_input: Decimal | None = None
    image_output: Decimal | None = None
    images: Decimal | None = None
    start: date | None = None
    long: _Long | None = None


class _Prices(Struct, forbid_unknown_fields=True):
    date: date
    prices: list[_Price]


@cache
def _content(name: str) -> dict[str, object]:
    path = files("headgate.wiring").joinpath("data", name)
    return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)


@cache
def gemini_cards() -> tuple[ModelMetadata, ...]:
    """What the shipped data says about Gemini models, without prices."""
    cards = msgspec.convert(_content("gemini-cards.toml"), _Cards)
    ends = msgspec.convert(_content("gemini-models.toml"), _Withdrawals).models
    made = [_card(cards, name, row, ends.get(name)) for name, row in cards.models.items()]
    for name in sorted(set(ends) - set(cards.models)):
        end = ends[name]
        made.append(
            ModelMetadata(
                id=name, name=name, retiring=end.retiring, deprecation_date=end.shutdown,
                successor=end.successor, limitations=_noted((), end),
            )
        )  # fmt: skip
    return tuple(made)


def gemini_cards_date() -> date:
    """The day of the cards."""
    return msgspec.convert(_content("gemini-cards.toml"), _Cards).date


@cache
def gemini_prices() -> PriceList:
    """What the shipped data says about the prices of Gemini models."""
    content = msgspec.convert(_content("gemini-prices.toml"), _Prices, strict=False)
    rows: dict[str, list[PriceRow]] = {}
    for price in content.prices:
        rates = Rates(price.input, price.output, price.cached_input, price.image_output, price.images)
        long = price.long
        row = PriceRow(
            rates,
            price.start,
            None if long is None else long.above,
            None if long is None else Rates(long.input, long.output, long.cached_input),
        )
        for name in price.ids:
            rows.setdefault(name, []).append(row)
    return PriceList(rows, content.date, "shipped with Headgate")


def _card(cards: _Cards, name: str, row: _Card, end: _Withdrawal | None) -> ModelMetadata:
    can = structs.replace(
        cards.kinds[row.kind],
        max_input_tokens=row.input_tokens,
        max_output_tokens=row.output_tokens,
        **row.can,
    )
    if row.sampling is not None:
        can = structs.replace(can, **dict.fromkeys(_SAMPLING, row.sampling))
    end = end or _Withdrawal()
    return ModelMetadata(
        id=name,
        name=row.name,
        description=row.description,
        stage=row.stage,
        release_date=row.released,
        retiring=end.retiring,
        deprecation_date=end.shutdown,
        successor=end.successor,
        capabilities=can,
        performance=ModelPerformance(),
        aliases=row.aliases,
        recommended_use_cases=row.use_cases,
        limitations=_noted(row.limitations, end),
    )


def _noted(limitations: tuple[str, ...], end: _Withdrawal) -> tuple[str, ...]:
    return (*limitations, end.note) if end.note else limitations
