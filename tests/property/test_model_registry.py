"""Invariants of the registry: nothing told is lost, nothing untold appears, prices are exact."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from headgate.core.call import Usage
from headgate.core.model_card import (
    CAPABILITY_WORDS,
    ModelCapabilities,
    ModelMetadata,
    ModelPricing,
    Provenance,
)
from headgate.policy.price_list import PriceList, PriceRow, Rates
from headgate.policy.recommendation import Limits, recommend
from headgate.policy.registry import ModelRegistry, merge_cards, newest_first

TODAY = date(2026, 11, 21)
NAMES = ("gemini-1-a", "gemini-2.5-b", "gemini-3-c", "other")

flags = st.none() | st.booleans()
days = st.none() | st.dates(date(2024, 1, 1), date(2028, 1, 1))
cards = st.builds(
    ModelMetadata,
    id=st.sampled_from(NAMES),
    name=st.sampled_from(["", "A", "B"]),
    release_date=days,
    deprecation_date=days,
    successor=st.none() | st.sampled_from(NAMES),
    recommended_use_cases=st.sampled_from([(), ("coding",), ("chat", "image editing")]),
    capabilities=st.builds(
        ModelCapabilities,
        json_mode=flags,
        image_understanding=flags,
        max_input_tokens=st.none() | st.integers(1, 10**6),
    ),
    pricing=st.builds(
        ModelPricing,
        input_per_million=st.none() | st.floats(0, 10),
        output_per_million=st.none() | st.floats(0, 10),
    ),
)
layers = st.lists(st.tuples(st.sampled_from(Provenance), st.lists(cards, max_size=5)), max_size=4)


def told(card: ModelMetadata) -> dict[str, object]:
    """Every field of a card that says something, nested ones by their path."""
    found: dict[str, object] = {}
    for name in card.__struct_fields__:
        value = getattr(card, name)
        if name in ("capabilities", "pricing", "performance"):
            inner = {part: getattr(value, part) for part in value.__struct_fields__}
            found |= {f"{name}.{part}": v for part, v in inner.items() if v is not None}
        elif name not in ("id", "provenance") and value not in (None, "", ()):
            found[name] = value
    return found


@given(layers)
def test_the_last_who_told_a_field_is_believed_and_named(
    given_layers: list[tuple[Provenance, list[ModelMetadata]]],
) -> None:
    expected: dict[str, dict[str, tuple[object, Provenance]]] = {}
    for source, found in given_layers:
        for card in found:
            row = expected.setdefault(card.id, {})
            row.update({name: (value, source) for name, value in told(card).items()})
    merged = merge_cards(given_layers)
    assert {card.id for card in merged} == set(expected)
    for card in merged:
        row = expected[card.id]
        assert told(card) == {name: value for name, (value, _) in row.items()}
        assert card.provenance == {name: source for name, (_, source) in row.items()}


@given(st.lists(cards, max_size=8, unique_by=lambda card: card.id))
def test_an_order_loses_nothing_and_dated_models_fall(found: list[ModelMetadata]) -> None:
    ordered = newest_first(found)
    assert sorted(card.id for card in ordered) == sorted(card.id for card in found)
    dated = [card.release_date for card in ordered if card.release_date is not None]
    assert dated == sorted(dated, reverse=True)
    assert newest_first(reversed(found)) == ordered


@given(
    st.lists(cards, max_size=8, unique_by=lambda card: card.id),
    st.sampled_from(["coding", "edit an image", "chat about coding"]),
    st.none() | st.floats(0, 0.02),
    st.lists(st.sampled_from(sorted(CAPABILITY_WORDS)), max_size=2, unique=True),
)
def test_a_recommendation_keeps_every_promise(
    found: list[ModelMetadata], use_case: str, budget: float | None, needs: list[str]
) -> None:
    ranked = recommend(found, use_case, TODAY, Limits(budget=budget, needs=tuple(needs)))
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    for one in ranked:
        card = one.metadata
        assert not card.retired(TODAY)
        assert not any(getattr(card.capabilities, CAPABILITY_WORDS[word]) is False for word in needs)
        assert budget is None or (one.cost_per_call is not None and one.cost_per_call <= budget)


@given(
    st.lists(cards, max_size=8, unique_by=lambda card: card.id),
    st.lists(st.sampled_from(sorted(CAPABILITY_WORDS)), max_size=3, unique=True),
)
def test_a_refusal_never_names_a_model_that_lacks_it(
    found: list[ModelMetadata], needs: list[str]
) -> None:
    registry = ModelRegistry(found)
    for card in found:
        known = [getattr(card.capabilities, CAPABILITY_WORDS[word]) for word in needs]
        sentence = registry.refusal(card.id, needs, TODAY)
        assert (sentence is not None) == (False in known)
        for able in registry.able(needs, TODAY, like=card):
            assert not able.retired(TODAY)
            assert all(getattr(able.capabilities, CAPABILITY_WORDS[word]) for word in needs)


amounts = st.decimals(Decimal(0), Decimal(100), places=4)
rows = st.lists(
    st.builds(
        PriceRow,
        rates=st.builds(Rates, input=amounts, output=amounts, cached_input=amounts | st.none()),
        start=st.none() | st.dates(date(2026, 1, 1), date(2027, 1, 1)),
    ),
    max_size=4,
    unique_by=lambda row: row.start,
)


@given(rows, st.dates(date(2025, 12, 1), date(2027, 2, 1)))
def test_the_price_of_a_day_is_that_of_the_last_row_begun(found: list[PriceRow], day: date) -> None:
    prices = PriceList({"m": found}, TODAY, "test")
    begun = [row for row in found if row.start is None or row.start <= day]
    last = max(begun, key=lambda row: row.start or date.min, default=None)
    assert prices.rates("m", day) == (None if last is None else last.rates)
    change = prices.next_change("m", day)
    if change is None:
        assert prices.rates("m", day) == prices.rates("m", date(2030, 1, 1))
    else:
        assert prices.rates("m", day) == prices.rates("m", change - timedelta(days=1))


@given(
    st.builds(Rates, input=amounts, output=amounts, cached_input=amounts),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_a_cost_is_the_exact_sum_of_its_kinds(
    rates: Rates, prompt: int, cached: int, output: int, thoughts: int
) -> None:
    prices = PriceList({"m": [PriceRow(rates)]}, TODAY, "test")
    usage = Usage(prompt=prompt, cached=cached, output=output, thoughts=thoughts)
    cost = prices.cost("m", usage, TODAY)
    assert cost is not None
    read = min(cached, prompt)
    assert rates.output is not None
    assert rates.cached_input is not None
    exact = rates.input * (prompt - read) + rates.cached_input * read
    exact += rates.output * (output + thoughts)
    assert cost.total * 1_000_000 == exact
