"""S3-05b, c: rows of the ledger: one per attempt, priced by kind of token, a call's last one marked."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from headgate.core.call import Operation, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.records import AttemptRecord, CallRecord
from headgate.core.usage import UsageRow
from headgate.policy.price_list import PriceList, PriceRow, Rates
from headgate.telemetry.usage_rows import RowMaker, Words
from headgate.wiring.model_data import gemini_prices
from headgate.wiring.usage import costs_of

NOON = 1_795_003_200.0  # 2026-11-18T12:00:00Z
WORDS = Words(lambda outcome: f"o:{outcome.kind}", lambda kind: f"k:{kind}")

PRICES = PriceList(
    {
        "m": [
            PriceRow(Rates(Decimal(1), Decimal(4), Decimal("0.25"))),
            PriceRow(
                Rates(Decimal(2), Decimal(8), Decimal("0.5")),
                start=date(2026, 11, 19),
                above=200_000,
                long=Rates(Decimal(4), Decimal(12), Decimal(1)),
            ),
        ]
    },
    date(2026, 11, 1),
    "test",
)


def maker() -> RowMaker:
    return RowMaker(costs_of(lambda: PRICES), WORDS)


def attempt(number: int = 1, kind: Kind = Kind.SUCCESS, **changes: Any) -> AttemptRecord:
    usage = changes.pop("usage", Usage(prompt=1000, output=100))
    values: dict[str, Any] = {
        "request_id": "r1",
        "number": number,
        "key_name": "k0",
        "domain": "alpha",
        "model": "m",
        "started": 10.0,
        "ended": 11.5,
        "outcome": Outcome(kind, usage=usage if kind is Kind.SUCCESS else changes.pop("told", None)),
        "caller": "billing",
        "provider": "gemini",
    }
    return AttemptRecord(**{**values, **changes})


def call(error: str | None = None, **changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "request_id": "r1",
        "operation": Operation.GENERATE,
        "model": "m",
        "started": 9.0,
        "ended": 11.5,
        "attempts": 1,
        "rotations": 0,
        "retries": 0,
        "waited": 0.0,
        "key_name": "k0",
        "usage": Usage(),
        "error": error,
        "caller": "billing",
        "provider": "gemini",
    }
    return CallRecord(**{**values, **changes})


def only(record: AttemptRecord, wall: float = NOON) -> UsageRow:
    """The row of an attempt that a call ended with."""
    made = maker()
    assert made.attempt(record, wall)[0] is None
    return made.call(call(), wall).row


def test_an_attempt_is_a_row_with_everything_that_is_known_of_it() -> None:
    row = only(attempt())
    assert row == UsageRow(
        "r1", 1, NOON, 1.5, "gemini", "m", "generate", "success", "billing", "alpha", "k0",
        1000, 0, 100, 0, 1_400_000, call="success", call_seconds=2.5, output_cost=400_000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "wall", "parts"),
    [
        # dollars × 10⁹: all, read from the cache, spoken, thought
        (Usage(prompt=1000, output=100), NOON, (1_400_000, 0, 400_000, 0)),
        (Usage(prompt=1000, output=100, cached=400), NOON, (1_100_000, 100_000, 400_000, 0)),
        (Usage(prompt=1000, output=100, thoughts=50), NOON, (1_600_000, 0, 400_000, 200_000)),
        (Usage(prompt=1000, tool_prompt=500), NOON, (1_500_000, 0, 0, 0)),
        # another price begins on the next day, and beyond 200,000 tokens of it another again
        (Usage(prompt=1000, output=100), NOON + 86_400, (2_800_000, 0, 800_000, 0)),
        (Usage(prompt=200_000), NOON + 86_400, (400_000_000, 0, 0, 0)),
        (Usage(prompt=200_001), NOON + 86_400, (800_004_000, 0, 0, 0)),
        (Usage(prompt=200_001, output=10, thoughts=5, cached=100_001), NOON + 86_400,
         (500_181_000, 100_001_000, 120_000, 60_000)),
    ],
)  # fmt: skip
def test_s3_05c_costs_by_kind_of_token(
    usage: Usage, wall: float, parts: tuple[int, int, int, int]
) -> None:
    row = only(attempt(usage=usage), wall)
    assert (row.cost, row.cached_cost, row.output_cost, row.reasoning_cost) == parts
    assert row.input_tokens == usage.prompt + usage.tool_prompt
    assert row.output_tokens == usage.output + usage.thoughts


def test_a_model_without_a_price_costs_nobody_knows_and_nothing_is_guessed() -> None:
    row = only(attempt(model="unheard-of"))
    assert row.cost is None
    assert row.input_tokens == 1000
    assert only(attempt(provider="someone")).cost is None


def test_an_attempt_that_used_nothing_cost_nothing_whatever_the_price() -> None:
    row = only(attempt(kind=Kind.QUOTA_MINUTE, model="unheard-of"))
    assert (row.cost, row.input_tokens, row.result, row.error) == (0, 0, "quota", "o:quota_minute")


def test_counting_tokens_costs_nothing() -> None:
    row = only(attempt(operation=Operation.COUNT, usage=Usage(prompt=1000)))
    assert (row.cost, row.operation) == (0, "count")


def test_real_prices_are_the_shipped_ones() -> None:
    made = RowMaker(costs_of(gemini_prices), WORDS)
    made.attempt(attempt(model="gemini-3.8-flash"), NOON)
    row = made.call(call(), NOON).row
    cost = gemini_prices().cost("gemini-3.8-flash", Usage(prompt=1000, output=100), date(2026, 11, 18))
    assert cost is not None
    assert row.cost == cost.total * 10**9
    assert row.output_cost == cost.output * 10**9


def test_newer_prices_count_from_the_next_call_on() -> None:
    newer = PriceList({"m": [PriceRow(Rates(Decimal(3), Decimal(3)))]}, date(2026, 11, 2), "newer")
    lists = [PRICES]
    cost = costs_of(lambda: lists[0])
    before = cost("gemini", "m", Usage(prompt=1000), date(2026, 11, 18))
    lists[0] = newer
    after = cost("gemini", "m", Usage(prompt=1000), date(2026, 11, 18))
    assert before is not None
    assert after is not None
    assert (before.total, after.total) == (1_000_000, 3_000_000)


def test_claude_costs_as_its_own_prices_say() -> None:
    usage = Usage(prompt=1000, output=60, thoughts=40, cached=300, cache_write=200, cache_write_long=50)
    cost = costs_of(lambda: PRICES)("anthropic", "claude-opus-5-5", usage, date(2026, 11, 18))
    from headgate.policy.prices import Tokens
    from headgate.wiring.prices import anthropic_prices

    price, own = anthropic_prices().price("claude-opus-5-5")
    assert own
    assert cost is not None
    assert cost.total == price.cost(Tokens(500, 100, 300, 150, 50)) * 10**9
    assert cost.cached == price.cost(Tokens(cache_read=300)) * 10**9
    assert costs_of(lambda: PRICES)("anthropic", "claude-unheard", usage, date(2026, 11, 18)) is None


def test_a_disconnect_is_billed_as_estimated_and_marked_so() -> None:
    told = Usage(prompt=1000, output=30)
    row = only(attempt(kind=Kind.CANCELLED, told=told, estimate=told))
    assert (row.result, row.estimated, row.input_tokens, row.output_tokens) == (
        "cancelled", True, 1000, 30,
    )  # fmt: skip
    assert row.cost == 1_120_000
    assert not only(attempt()).estimated


def test_a_rotation_is_two_rows_and_the_last_one_says_how_the_call_ended() -> None:
    made = maker()
    refused = attempt(1, Kind.QUOTA_MINUTE, key_name="k0")
    before, failed = made.attempt(refused, NOON)
    assert before is None
    assert failed is not None
    assert (failed.error, failed.key_name) == ("o:quota_minute", "k0")
    before, failed = made.attempt(attempt(2, key_name="k1"), NOON + 1)
    assert failed is None
    assert before is not None
    assert (before.attempt, before.call, before.key_name) == (1, "", "k0")
    ended = made.call(call(retries=1, rotations=1, looked_up=True), NOON + 1)
    assert (ended.row.attempt, ended.row.call, ended.row.retries) == (2, "success", 1)
    assert ended.row.looked_up
    assert (ended.input_tokens, ended.output_tokens, ended.cost) == (1000, 100, 1_400_000)


def test_tokens_and_cost_of_a_call_are_those_of_all_its_attempts() -> None:
    made = maker()
    guess = Usage(prompt=1000)
    made.attempt(attempt(1, Kind.TIMEOUT, estimate=guess), NOON)
    made.attempt(attempt(2), NOON)
    ended = made.call(call(), NOON)
    assert (ended.input_tokens, ended.output_tokens, ended.cost) == (2000, 100, 2_400_000)
    made.attempt(attempt(1, model="unheard-of"), NOON)
    assert made.call(call(), NOON).cost is None


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        ("quota", Kind.QUOTA_DAY, "o:quota_day"),  # the last attempt says it more finely
        ("timeout", Kind.QUOTA_DAY, "k:timeout"),  # the call failed for another reason
        ("cancelled", Kind.CANCELLED, "cancelled"),
        ("fault", Kind.SUCCESS, "k:fault"),
        (None, Kind.PROTOCOL, "success"),  # what had come was enough for the caller
    ],
)
def test_what_became_of_a_call(error: str | None, kind: Kind, word: str) -> None:
    made = maker()
    made.attempt(attempt(kind=kind), NOON)
    assert made.call(call(error), NOON).row.call == word


def test_a_reply_from_a_cache_is_a_row_of_its_own_with_what_it_saved() -> None:
    record = call(cached=True, saved=Usage(prompt=1000, output=100), looked_up=True, attempts=0)
    row = maker().call(record, NOON).row
    assert (row.attempt, row.call, row.from_cache, row.looked_up) == (0, "success", True, True)
    assert (row.cost, row.saved, row.input_tokens) == (0, 1_400_000, 0)
    assert row.caller == "billing"


def test_a_call_that_failed_before_anything_was_sent_is_a_row_too() -> None:
    row = maker().call(call("quota", attempts=0, key_name=None), NOON).row
    assert (row.attempt, row.result, row.call, row.key_name) == (0, "quota", "k:quota", "")


def test_a_row_is_held_back_for_one_round_and_then_written_while_its_call_waits() -> None:
    made = maker()
    made.attempt(attempt(1, Kind.QUOTA_MINUTE), NOON)
    assert made.overdue() == []
    (row,) = made.overdue()
    assert (row.attempt, row.call) == (1, "")
    assert made.overdue() == []
    ended = made.call(call("quota"), NOON + 60)  # it gave up: its end has no attempt to stand with
    assert (ended.row.attempt, ended.row.call) == (0, "o:quota_minute")


def test_at_the_end_nothing_is_held_back() -> None:
    made = maker()
    made.attempt(attempt(1, request_id="a"), NOON)
    made.overdue()
    made.attempt(attempt(1, request_id="b"), NOON)
    assert [row.request_id for row in made.held()] == ["a", "b"]
    assert made.held() == []


def test_two_attempts_side_by_side_have_numbers_of_their_own() -> None:
    made = maker()
    made.attempt(attempt(2), NOON)
    before, _ = made.attempt(attempt(2, Kind.CANCELLED), NOON)
    assert before is not None
    assert (before.attempt, made.call(call(), NOON).row.attempt) == (2, 3)


def test_calls_that_never_end_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.telemetry.usage_rows._MOST_OPEN", 10)
    made = maker()
    for number in range(50):
        made.attempt(attempt(1, request_id=f"r{number}"), NOON)
    assert len(made._open) == 10
    assert len([*made.overdue(), *made.overdue()]) == 50


def test_an_attempt_that_ends_after_its_call_is_counted_with_it() -> None:
    """The reader of a stream goes away: the call ends first, then what it sent."""
    made = maker()
    ended = made.call(call(error="cancelled", started=10.0, ended=11.0, attempts=1), NOON)
    assert (ended.row.attempt, ended.row.call, ended.cost) == (0, "cancelled", 0)
    guess = Usage(prompt=1000, output=100)
    late = attempt(kind=Kind.CANCELLED, estimate=guess, started=10.0, ended=11.0)
    row, failed = made.attempt(late, NOON)
    assert failed is None
    assert row is not None
    assert (row.attempt, row.call, row.estimated) == (1, "", True)
    assert (ended.input_tokens, ended.output_tokens, ended.cost) == (1000, 100, row.cost)
    assert row.cost == 1_400_000
    assert made.held() == []


def test_a_second_call_of_the_same_name_is_a_call_of_its_own() -> None:
    made = maker()
    first = made.call(call(error="cancelled", started=10.0, ended=11.0), NOON)
    assert made.attempt(attempt(started=11.0, ended=12.0), NOON) == (None, None)
    second = made.call(call(started=11.0, ended=12.0), NOON)
    assert (first.input_tokens, second.input_tokens, second.row.attempt) == (0, 1000, 1)
