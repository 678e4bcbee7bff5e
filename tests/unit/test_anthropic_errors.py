"""What each error of the Anthropic API means, however much of it arrives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.outcome import RULES, Booking, Kind, Next
from headgate.policy.cooldown import HOUR, cooldown
from headgate.policy.redaction import redact
from headgate.providers.anthropic_errors import classify, classify_body, named_limits, read_limits

DATA = Path(__file__).parents[1] / "data" / "anthropic"
ROWS: list[dict[str, Any]] = json.loads((DATA / "errors.json").read_text("utf-8"))
KINDS = {"request": Kind.REQUEST, "billing": Kind.BILLING, "overload": Kind.OVERLOAD}
NOON = "Sat, 21 Nov 2026 12:00:00 GMT"


def body(kind: str, message: str = "m", code: str = "") -> bytes:
    error: dict[str, Any] = {"type": kind, "message": message}
    if code:
        error["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": error, "request_id": "req_body"}).encode()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_each_recorded_error_has_its_kind_and_keeps_its_id(row: dict[str, Any]) -> None:
    outcome = classify(row["http"], {"request-id": "req_head"}, json.dumps(row["body"]).encode())
    assert outcome.kind is KINDS[row["class"]]
    assert outcome.upstream_id == "req_head"
    assert outcome.message.endswith("(req_head).")


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid_request_error", Kind.REQUEST),
        (401, "authentication_error", Kind.BAD_KEY),
        (402, "billing_error", Kind.BILLING),
        (403, "permission_error", Kind.BAD_KEY),
        (403, "forbidden", Kind.EGRESS),
        (404, "not_found_error", Kind.REQUEST),
        (408, "timeout_error", Kind.SERVER),
        (409, "conflict_error", Kind.SERVER),
        (413, "request_too_large", Kind.REQUEST),
        (418, "new_error", Kind.REQUEST),
        (500, "api_error", Kind.SERVER),
        (503, "overloaded_error", Kind.OVERLOAD),
        (504, "timeout_error", Kind.SERVER),
        (529, "overloaded_error", Kind.OVERLOAD),
        (599, "new_error", Kind.SERVER),
    ],
)
def test_each_status_and_type_has_its_kind(status: int, kind: str, expected: Kind) -> None:
    assert classify(status, {}, body(kind)).kind is expected


def test_what_follows_from_each_kind_is_what_the_issue_asks() -> None:
    assert RULES[Kind.QUOTA_MINUTE].booking is Booking.PARK_MODEL
    assert RULES[Kind.BILLING].booking is Booking.PARK_DOMAIN
    assert RULES[Kind.BAD_KEY].booking is Booking.DISABLE_KEY
    assert RULES[Kind.OVERLOAD].next is RULES[Kind.SERVER].next is Next.RETRY
    assert RULES[Kind.REQUEST].next is Next.FAIL


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("0.5", 0.5), (NOON, 0.0), ("-3", None)])
def test_a_429_with_a_hint_is_a_matter_of_a_minute(value: str, seconds: float | None) -> None:
    outcome = classify(429, {"retry-after": value, "date": NOON}, body("rate_limit_error"))
    assert (outcome.kind, outcome.retry_after) == (Kind.QUOTA_MINUTE, seconds)


def test_a_429_without_a_hint_is_the_spend_cap_unless_a_limit_is_seen_to_be_empty() -> None:
    assert classify(429, {"date": NOON}, body("rate_limit_error")).kind is Kind.BILLING
    empty = {
        "date": NOON,
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:30Z",
        "anthropic-ratelimit-tokens-limit": "50000",
        "anthropic-ratelimit-tokens-remaining": "9000",
        "anthropic-ratelimit-tokens-reset": "2026-11-21T12:00:50Z",
    }
    outcome = classify(429, empty, body("rate_limit_error"))
    assert (outcome.kind, outcome.retry_after) == (Kind.QUOTA_MINUTE, 30.0)


@pytest.mark.parametrize(
    "code", ["enforced_spend_limit_reached", "contract_spend_limit_reached", "ramp_limit_exceeded"]
)
def test_a_spend_code_outweighs_a_hint(code: str) -> None:
    headers = {"retry-after": "5", "date": NOON}
    assert classify(429, headers, body("rate_limit_error", code=code)).kind is Kind.BILLING


@pytest.mark.parametrize(
    ("day", "headers", "seconds"),
    [
        ("2026-12-01 at 00:00 UTC", {"date": NOON}, 9.5 * 86_400),
        ("2026-12-01", {"date": NOON}, 9.5 * 86_400),
        ("2026-11-21 at 14:30 UTC", {"date": NOON}, 9_000.0),
        ("2026-12-01 at 00:00 UTC", {}, None),  # no clock to count from
        ("2026-02-31 at 00:00 UTC", {"date": NOON}, None),
        ("Tuesday", {"date": NOON}, None),
    ],
)
def test_the_own_spend_limit_waits_for_the_day_it_names(
    day: str, headers: dict[str, str], seconds: float | None
) -> None:
    words = f"You have reached your specified API usage limits. You will regain access on {day}."
    outcome = classify(400, headers, body("invalid_request_error", words))
    assert (outcome.kind, outcome.retry_after) == (Kind.BILLING, seconds)
    cost = cooldown(outcome.kind, outcome.retry_after, fallback=60, streak=0, wall=0)
    assert cost.seconds == (seconds or HOUR)


def test_an_empty_balance_is_a_matter_of_money() -> None:
    words = "Your credit balance is too low to access the Anthropic API."
    assert classify(400, {}, body("invalid_request_error", words)).kind is Kind.BILLING


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", Kind.OVERLOAD),
        ("api_error", Kind.SERVER),
        ("timeout_error", Kind.SERVER),
        ("rate_limit_error", Kind.QUOTA_UNKNOWN),
        ("authentication_error", Kind.BAD_KEY),
        ("invalid_request_error", Kind.REQUEST),
        ("something_new", Kind.SERVER),
    ],
)
def test_inside_a_stream_the_type_alone_decides(kind: str, expected: Kind) -> None:
    outcome = classify_body(body(kind))
    assert outcome is not None
    assert (outcome.kind, outcome.upstream_id) == (expected, "req_body")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(301, Kind.PROTOCOL), (401, Kind.BAD_KEY), (403, Kind.PROTOCOL), (404, Kind.REQUEST),
     (429, Kind.QUOTA_UNKNOWN), (502, Kind.SERVER), (529, Kind.OVERLOAD)],
)  # fmt: skip
def test_a_page_of_something_in_between_disables_no_key(status: int, expected: Kind) -> None:
    assert classify(status, {}, b"<html>no</html>").kind is expected


def test_limits_are_read_where_they_are_whole() -> None:
    headers = {
        "anthropic-ratelimit-input-tokens-limit": "50000",
        "anthropic-ratelimit-input-tokens-remaining": "49000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-21T12:00:30Z",
        "anthropic-ratelimit-requests-limit": "many",
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "8000",
    }
    shown = [(r.name, r.limit, r.remaining, r.resets) for r in read_limits(headers)]
    assert shown == [
        ("input-tokens", 50_000, 49_000, 1_795_262_430.0),
        ("output-tokens", 8_000, 8_000, None),
    ]


@pytest.mark.parametrize("amount", ["", "0", "-1", "1.5", "many", "9" * 16, "١٢"])
def test_limits_are_named_as_the_ledger_counts_them(amount: str) -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-tokens-limit": "38000",  # whichever is the tightest just now
        "anthropic-ratelimit-input-tokens-limit": amount,
        "anthropic-ratelimit-output-tokens-limit": "8000",
    }
    named = named_limits(headers)
    assert [(limit.name, limit.amount) for limit in named] == [("rpm", 50), ("otpm", 8000)]
    assert classify(429, {**headers, "retry-after": "3"}, body("rate_limit_error")).limits == named
    assert named_limits({}) == ()


def test_a_refusal_names_the_limits_that_are_empty() -> None:
    headers = {"retry-after": "3"}
    for name, left in (("requests", 7), ("input-tokens", 0), ("tokens", 0)):
        headers[f"anthropic-ratelimit-{name}-limit"] = "1000"
        headers[f"anthropic-ratelimit-{name}-remaining"] = str(left)
    assert classify(429, headers, body("rate_limit_error")).quota_names == ("itpm",)
    assert classify(500, headers, body("api_error")).quota_names == ()


def test_a_key_is_found_by_its_shape() -> None:
    assert "CANARY" not in redact("key sk-ant-api03-CANARY-0123456789 is revoked")


@given(
    st.integers(300, 599),
    st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text()),
    st.one_of(st.binary(), st.builds(body, st.text(), st.text(), st.text())),
)
def test_nothing_an_upstream_says_raises(status: int, headers: dict[str, str], raw: bytes) -> None:
    outcome = classify(status, headers, raw)
    assert outcome.kind is not Kind.SUCCESS
    assert outcome.retry_after is None or outcome.retry_after >= 0
    classify_body(raw)
