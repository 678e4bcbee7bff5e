"""What OpenAI's limits count, and what the headers beside its answers say of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.call import Blob, Call, Operation, Raw, Role, Turn, Usage, Weight
from headgate.core.quota import Counts, Kind
from headgate.policy.hints import duration, header_hint
from headgate.providers.openai_limits import exhausted, named_limits, until_reset
from headgate.providers.openai_quota import OpenAITariff, class_of

TARIFF = OpenAITariff()


def call(*parts: str | Blob, **options: object) -> Call:
    return Call(Operation.GENERATE, "m", parts, options)


def beside(what: str, limit: str, left: str, reset: str) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": limit,
        f"x-ratelimit-remaining-{what}": left,
        f"x-ratelimit-reset-{what}": reset,
    }


def shown(headers: dict[str, str]) -> list[tuple[str, int]]:
    return [(limit.name, limit.amount) for limit in named_limits(headers)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("8.64s", 8.64), ("7m12s", 432.0),
        ("1h30m5.5s", 5405.5), ("2d", 172_800.0), ("100µs", 0.0001), ("17", 17.0), ("0", 0.0),
        ("", None), ("soon", None), ("-1s", None), ("1s soon", None), ("nan", None),
        ("9" * 50 + "s", None),
    ],
)  # fmt: skip
def test_durations_are_read_as_go_writes_them(text: str, seconds: float | None) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_the_finer_header_is_read_first() -> None:
    assert header_hint({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert header_hint({"retry-after-ms": "soon", "retry-after": "9"}) == 9.0


# ── headers ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        # as they were seen
        (beside("requests", "500", "499", "120ms"), [("rpm", 500)]),
        (beside("requests", "3500", "3499", "17ms"), [("rpm", 3500)]),
        (beside("tokens", "30000", "29996", "8ms"), [("tpm", 30_000)]),
        (beside("requests", "200", "199", "7m12s"), [("rpd", 200)]),
        (beside("requests", "10000", "9990", "86.4s"), [("rpd", 10_000)]),
        (beside("tokens", "-1", "-1", "0"), []),
        # the sample of the vendor's page, which fits no window
        (beside("tokens", "150000", "149984", "6m0s"), []),
        # a day of which so little is used that it is full within the minute: harmless as a minute's
        (beside("requests", "10000", "9999", "8.64s"), [("rpm", 10_000)]),
        # a fixed window of a day, an hour before its end
        (beside("requests", "1000", "400", "1h20m0s"), [("rpd", 1000)]),
        # of hours, of weeks, of nothing
        (beside("requests", "1000", "400", "10m"), []),
        (beside("requests", "1000", "400", "3d"), []),
        (beside("requests", "1000", "1000", ""), []),
        (beside("requests", "1000", "1000", "0s"), [("rpm", 1000)]),
        # those that name the window
        ({"x-ratelimit-limit-requests-day": "14400", "x-ratelimit-limit-tokens-minute": "60000"},
         [("tpm", 60_000), ("rpd", 14_400)]),
        ({}, []),
    ],
)  # fmt: skip
def test_a_limit_is_named_with_the_window_its_reset_gives_away(
    headers: dict[str, str], expected: list[tuple[str, int]]
) -> None:
    assert sorted(shown(headers)) == sorted(expected)


@given(st.integers(1, 100_000), st.floats(0.0, 1.0), st.sampled_from([60.0, 86_400.0]))
def test_a_bucket_of_a_minute_is_never_taken_for_a_day(limit: int, share: float, window: float) -> None:
    """Nor is one of a day for less than a day, but while it would be full within the minute."""
    used = max(1, round(limit * share))
    seconds = used * window / limit
    headers = beside("requests", str(limit), str(limit - used), f"{seconds:.3f}s")
    names = [name for name, _ in shown(headers)]
    if window == 60.0 or seconds <= 60.5:
        assert names == ["rpm"]
    else:
        assert names == ["rpd"]


def test_tokens_count_whole_and_days_roll() -> None:
    headers = {**beside("tokens", "30000", "29996", "8ms"), **beside("requests", "200", "199", "7m12s")}
    by_name = {limit.name: limit for limit in named_limits(headers)}
    assert by_name["tpm"].counts is Counts.TOTAL
    assert by_name["rpd"].kind is Kind.ROLLING
    assert named_limits(headers) is named_limits(dict(headers))  # read once


def test_what_is_used_up_is_named_with_its_reset() -> None:
    headers = {**beside("tokens", "30000", "0", "59.9s"), **beside("requests", "500", "12", "58s")}
    assert exhausted(headers) == ("tpm",)
    assert until_reset(headers) == pytest.approx(59.9)
    assert exhausted({**headers, **beside("requests", "200", "0", "24h0m0s")}) == ("rpd", "tpm")
    assert (exhausted({}), until_reset({})) == ((), None)


# ── what is counted ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("model", "counted"),
    [
        ("gpt-4.1-2025-04-14", "gpt-4.1"),
        ("gpt-4.1", "gpt-4.1"),
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("", ""),
    ],
)
def test_a_dated_version_is_counted_with_its_model(model: str, counted: str) -> None:
    assert class_of(model) == counted
    assert class_of(counted) == counted


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7, "n": 3}, 21),
        ({"max_tokens": 0}, None),
        ({"max_tokens": "7"}, None),
        ({"max_tokens": 5, "n": 0}, 5),
    ],
)
def test_the_bound_of_the_answer_is_counted_in_advance(
    options: dict[str, object], most: int | None
) -> None:
    asked = call("hi", **options)
    assert TARIFF.most_output(asked) == most
    assert TARIFF.prepaid_output(asked) == (most or 0)


def test_a_raw_call_brings_its_bound_along() -> None:
    raw = Raw("POST", "/chat/completions", "m", weight=Weight(most_output=9))
    assert TARIFF.prepaid_output(Call(Operation.GENERATE, "m", (), raw=raw)) == 9


def test_prompt_answer_and_thoughts_count_whole_also_from_a_cache() -> None:
    usage = Usage(prompt=1000, output=50, thoughts=30, cached=900)
    assert TARIFF.counted(usage) == {Counts.INPUT: 1000, Counts.OUTPUT: 80, Counts.TOTAL: 1080}
    assert not TARIFF.cached(call("hi"))


def test_all_that_is_counted_as_input_is_estimated() -> None:
    messages: tuple[dict[str, object], ...] = (
        {"role": "system", "content": "one"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "two"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}},
                {"type": "novelty", "novel": "three"},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "UNREAD", "function": {"name": "four", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "UNREAD", "content": "five"},
    )
    options = {
        "tools": [{"type": "function", "function": {"name": "six"}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "seven"}},
    }
    parts = TARIFF.prompt(Call(Operation.GENERATE, "m", (), options, messages=messages))
    said = " ".join(part for part in parts if isinstance(part, str))
    for word in ("one", "two", "three", "four", "five", "six", "seven"):
        assert word in said
    kinds = [part.mime_type for part in parts if isinstance(part, Blob)]
    assert kinds == ["image/png", "image/*", "audio/*", "application/pdf"]


def test_turns_and_inputs_are_estimated_too() -> None:
    turns = (Turn(Role.USER, ("one",)), Turn(Role.MODEL, ({"type": "text", "text": "two"},)))
    parts = TARIFF.prompt(Call(Operation.GENERATE, "m", ("three",), turns=turns))
    assert parts[0] == "one"
    assert parts[-1] == "three"
    assert "two" in str(parts[1])
    embeds = Call(Operation.EMBED, "m", (), inputs=(("a",), ("b",)))
    assert TARIFF.prompt(embeds) == ("a", "b")
    assert TARIFF.requests(embeds) == 1  # Gemini counts one for each


def test_what_cannot_be_written_is_left_to_whoever_writes_it() -> None:
    assert TARIFF.prompt(call("hi", tools=[{"x": object()}])) == ("hi", "")
