"""What each error of the OpenAI API and of its like means, however much of it arrives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.outcome import RULES, Booking, Detail, Kind, Next
from headgate.core.quota import Counts
from headgate.core.quota import Kind as Held
from headgate.providers.openai_errors import classify, classify_body

DATA = Path(__file__).parents[1] / "data" / "openai"
ROWS: list[dict[str, Any]] = json.loads((DATA / "errors.json").read_text("utf-8"))


def body(message: str = "m", kind: str | None = None, code: object = None, **more: object) -> bytes:
    error = {"message": message, "type": kind, "param": None, "code": code, **more}
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_each_body_seen_in_public_has_its_kind_wait_and_limits(row: dict[str, Any]) -> None:
    outcome = classify(row["http"], {}, json.dumps(row["body"]).encode())
    assert outcome.kind is Kind(row["class"])
    assert outcome.retry_after == row.get("wait")
    assert outcome.quota_names == tuple(row.get("names", ()))
    assert {limit.name: limit.amount for limit in outcome.limits} == row.get("limits", {})
    assert outcome.quota_model == row.get("family")


@pytest.mark.parametrize(
    ("status", "kind", "code", "expected"),
    [
        (400, "invalid_request_error", None, Kind.REQUEST),
        (400, "invalid_request_error", "context_length_exceeded", Kind.REQUEST),
        (400, "invalid_request_error", "billing_hard_limit_reached", Kind.BILLING),
        (400, "invalid_request_error", "content_policy_violation", Kind.BLOCKED),
        (400, None, "content_filter", Kind.BLOCKED),
        (401, "invalid_request_error", "invalid_api_key", Kind.BAD_KEY),
        (401, "authentication_error", None, Kind.BAD_KEY),
        (401, "invalid_request_error", "account_deactivated", Kind.BAD_KEY),
        (402, None, None, Kind.BILLING),
        (403, "permission_error", None, Kind.KEY_MODEL),
        (404, "invalid_request_error", None, Kind.REQUEST),
        (404, "invalid_request_error", "model_not_found", Kind.PROJECT_MODEL),
        (408, None, None, Kind.SERVER),
        (409, None, None, Kind.SERVER),
        (413, None, None, Kind.REQUEST),
        (422, None, None, Kind.REQUEST),
        (429, "requests", None, Kind.QUOTA_MINUTE),
        (429, "tokens", "rate_limit_exceeded", Kind.QUOTA_MINUTE),
        (429, "insufficient_quota", None, Kind.BILLING),
        (429, None, "billing_not_active", Kind.BILLING),
        (429, "something_new", None, Kind.QUOTA_UNKNOWN),
        (498, None, "capacity_exceeded", Kind.CAPACITY),
        (500, "server_error", None, Kind.SERVER),
        (502, None, None, Kind.SERVER),
        (503, None, "slow_down", Kind.OVERLOAD),
        (504, None, None, Kind.SERVER),
        (529, None, None, Kind.OVERLOAD),
        (599, None, None, Kind.SERVER),
    ],
)
def test_each_status_type_and_code_has_its_kind(
    status: int, kind: str | None, code: str | None, expected: Kind
) -> None:
    assert classify(status, {}, body("m", kind, code)).kind is expected


@pytest.mark.parametrize(
    ("status", "message", "kind", "expected"),
    [
        (403, "This model is not available in your region.", None, Kind.EGRESS),
        (403, "m", "RegionError", Kind.EGRESS),
        (
            404,
            "The model `x` does not exist or you do not have access to it.",
            None,
            Kind.PROJECT_MODEL,
        ),
        (500, "The server is overloaded.", None, Kind.OVERLOAD),
        (429, "The engine is overloaded.", None, Kind.OVERLOAD),
        (429, "Your account has overloaded its limit.", "tokens", Kind.QUOTA_MINUTE),
        (429, "Reached on tokens per min (TPM): Limit 9, Used 9.", None, Kind.QUOTA_MINUTE),
    ],
)
def test_words_decide_where_code_and_type_say_nothing(
    status: int, message: str, kind: str | None, expected: Kind
) -> None:
    assert classify(status, {}, body(message, kind)).kind is expected


def test_the_limit_that_is_named_beside_the_model_is_the_one_that_counts() -> None:
    words = (
        "Rate limit reached for a-preview (for limit a-shared) in organization o on requests per min"
    )
    assert classify(429, {}, body(f"{words} (RPM): Limit 3.", "requests")).quota_model == "a-shared"


def test_what_follows_from_each_kind_is_what_the_issue_asks() -> None:
    assert RULES[Kind.BILLING].booking is Booking.PARK_DOMAIN
    assert RULES[Kind.QUOTA_MINUTE].booking is Booking.PARK_MODEL
    assert RULES[Kind.PROJECT_MODEL].booking is Booking.DENY_DOMAIN_MODEL
    assert RULES[Kind.OVERLOAD].next is RULES[Kind.SERVER].next is Next.RETRY


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "7"}, "m", 7.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, "m", 1.5),
        ({"retry-after": "1"}, "Please try again in 1.2s. Visit x.", 1.2),
        ({"retry-after": "20"}, "Please try again in 19.4s.", 20.0),
        ({}, "Please try again in 6m0s.", 360.0),
        ({}, "Please try again in 20ms.", 0.02),
        ({}, "Please try again in a while.", None),
        (
            {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "3.5s",
             "x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "50s"},
            "m",
            3.5,
        ),
    ],
)  # fmt: skip
def test_the_longest_wait_that_is_named_counts_and_a_reset_where_none_is(
    headers: dict[str, str], message: str, seconds: float | None
) -> None:
    outcome = classify(429, headers, body(message, "tokens", "rate_limit_exceeded"))
    assert (outcome.kind, outcome.retry_after) == (Kind.QUOTA_MINUTE, seconds)


def test_a_limit_of_the_day_is_held_for_a_day_and_tokens_count_whole() -> None:
    words = (
        "Rate limit reached for x in organization o on {} per day ({}): Limit 9, Used 9, Requested 1."
    )
    (requests,) = classify(429, {}, body(words.format("requests", "RPD"), "requests")).limits
    (tokens,) = classify(429, {}, body(words.format("tokens", "TPD"), "tokens")).limits
    assert (requests.name, requests.kind, requests.window) == ("rpd", Held.ROLLING, 86_400_000)
    assert (tokens.name, tokens.counts) == ("tpd", Counts.TOTAL)


def test_limits_in_the_message_outweigh_those_beside_it() -> None:
    headers = {
        "x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "90000", "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "60s",
    }  # fmt: skip
    words = "Rate limit reached for x in organization o on tokens per min (TPM): Limit 30000, Used 1."
    outcome = classify(429, headers, body(words, "tokens", "rate_limit_exceeded"))
    assert {limit.name: limit.amount for limit in outcome.limits} == {"tpm": 30_000, "rpm": 500}
    assert outcome.quota_names == ("tpm",)
    assert classify(429, headers, body("m", "tokens")).quota_names == ("tpm",)


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (500, "false", Kind.REQUEST),
        (503, "false", Kind.REQUEST),
        (500, "true", Kind.SERVER),
        (400, "true", Kind.SERVER),
        (400, "false", Kind.REQUEST),
        (401, "true", Kind.BAD_KEY),
        (429, "false", Kind.QUOTA_UNKNOWN),
    ],
)
def test_the_upstreams_own_word_on_trying_again_is_heard(
    status: int, said: str, expected: Kind
) -> None:
    assert classify(status, {"x-should-retry": said}, body()).kind is expected


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"error": "no luck"}', "no luck"),
        (b'[{"error": {"message": "no luck", "type": "server_error"}}]', "no luck"),
        (
            b'{"object": "error", "message": "no luck", "type": "BadRequestError", "code": 400}',
            "no luck",
        ),
        (b'{"message": "no luck", "request_id": "x"}', "no luck"),
        (b'{"detail": "no luck"}', "no luck"),
        (b'{"error": {"message": null}}', "HTTP 400 without a message."),
    ],
)
def test_an_error_is_found_in_each_of_its_forms(raw: bytes, said: str) -> None:
    outcome = classify(400, {}, raw)
    assert (outcome.kind, outcome.message) == (Kind.REQUEST, said)


def test_gemini_behind_the_same_wire_is_read_by_its_own_rules() -> None:
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    error = {
        "code": 400,
        "message": "API key not valid.",
        "status": "INVALID_ARGUMENT",
        "details": [reason],
    }
    raw = json.dumps([{"error": error}]).encode()
    assert classify(400, {}, raw).kind is Kind.BAD_KEY
    inside = classify_body(raw)
    assert inside is not None
    assert inside.kind is Kind.BAD_KEY


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        ("server_error", None, Kind.SERVER),
        ("rate_limit_exceeded", None, Kind.QUOTA_MINUTE),
        ("insufficient_quota", "insufficient_quota", Kind.BILLING),
        ("invalid_request_error", "context_length_exceeded", Kind.REQUEST),
        ("authentication_error", None, Kind.BAD_KEY),
        (None, 429, Kind.QUOTA_UNKNOWN),
        (None, 502, Kind.SERVER),
        (None, None, Kind.SERVER),
    ],
)
def test_inside_a_stream_type_and_code_alone_decide(kind: Any, code: Any, expected: Kind) -> None:
    outcome = classify_body(body("m", kind, code))
    assert outcome is not None
    assert outcome.kind is expected


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"[1]", b'"x"', b'{"message": "m"}', b'{"error": null}']
)
def test_what_is_no_error_is_taken_for_none(raw: bytes) -> None:
    assert classify_body(raw) is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [(301, Kind.PROTOCOL), (401, Kind.BAD_KEY), (402, Kind.BILLING), (403, Kind.PROTOCOL),
     (404, Kind.REQUEST), (429, Kind.QUOTA_UNKNOWN), (502, Kind.SERVER), (503, Kind.OVERLOAD)],
)  # fmt: skip
def test_a_page_of_something_in_between_denies_no_model(status: int, expected: Kind) -> None:
    assert classify(status, {}, b"<html>no</html>").kind is expected


def test_the_request_id_stands_in_the_message_and_in_the_outcome() -> None:
    outcome = classify(500, {"x-request-id": "req_1"}, body("Sorry."))
    assert (outcome.message, outcome.upstream_id) == ("Sorry (req_1).", "req_1")


def test_a_filtered_prompt_says_why() -> None:
    assert classify(400, {}, body("m", None, "content_filter")).detail is Detail.SAFETY


@given(
    st.integers(300, 599),
    st.dictionaries(
        st.sampled_from(
            ["retry-after", "retry-after-ms", "date", "x-should-retry", "x-ratelimit-limit-tokens",
             "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
        ),
        st.text(),
    ),
    st.one_of(
        st.binary(),
        st.builds(body, st.text(), st.text(), st.one_of(st.text(), st.integers(), st.none())),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
            lambda inner: st.one_of(
                st.lists(inner),
                st.dictionaries(st.sampled_from(["error", "message", "code", "status", "type"]), inner),
            ),
        ).map(lambda value: json.dumps(value).encode()),
    ),
)  # fmt: skip
def test_nothing_an_upstream_says_raises(status: int, headers: dict[str, str], raw: bytes) -> None:
    outcome = classify(status, headers, raw)
    assert outcome.kind is not Kind.SUCCESS
    assert outcome.retry_after is None or outcome.retry_after >= 0
    classify_body(raw)
