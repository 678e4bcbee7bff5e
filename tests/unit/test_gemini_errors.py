"""What each recorded error means, however it is worded, ordered or wrapped."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
from tests.support import recorded_errors

from headgate.core.call import Call, Operation
from headgate.core.outcome import Kind, Outcome
from headgate.providers.gemini import GeminiProvider
from headgate.providers.gemini_errors import classify, classify_body

KINDS: dict[str, Kind] = {
    "quota_minute": Kind.QUOTA_MINUTE,
    "quota_day": Kind.QUOTA_DAY,
    "quota_zero": Kind.QUOTA_ZERO,
    "quota_storage": Kind.STORAGE,
    "quota_unknown": Kind.QUOTA_UNKNOWN,
    "capacity": Kind.CAPACITY,
    "billing": Kind.BILLING,
    "key_dead": Kind.BAD_KEY,
    "key_model": Kind.KEY_MODEL,
    "project_model": Kind.PROJECT_MODEL,
    "resource": Kind.RESOURCE,
    "egress": Kind.EGRESS,
    "request": Kind.REQUEST,
    "transient": Kind.SERVER,
    "overload": Kind.OVERLOAD,
    "blocked": Kind.BLOCKED,
}

HINTS: dict[str, float] = {
    "429-minute-tokens-free": 26.0,
    "429-minute-tokens-paid": 45.811974541,
    "429-day-requests-free": 38.2,
    "429-day-embeddings-free": 45.4,
    "429-limit-zero": 47.2,
    "429-no-value": 47.0,
}

FAMILIES: dict[str, str] = {
    "429-minute-tokens-free": "gemini-2.5-flash",
    "429-minute-tokens-paid": "gemini-3.1-pro",
    "429-day-embeddings-free": "gemini-embedding-001",
    "429-day-requests-tier2": "gemini-3.5-flash-lite",
    "429-limit-zero": "gemini-2.0-flash",
}

NAMED: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "429-minute-tokens-free": (("tpm",), {"tpm": 250_000}),
    "429-minute-tokens-paid": (("tpm",), {"tpm": 1_000_000}),
    "429-day-requests-free": (("rpd",), {"rpd": 20}),
    "429-day-embeddings-free": (("rpd",), {"rpd": 1000}),
    "429-day-requests-paid": (("rpd",), {"rpd": 1000}),
    "429-day-requests-tier2": (("rpd",), {"rpd": 350_000}),
    "429-limit-zero": (("rpd", "rpm", "tpm"), {}),
    "429-no-value": (("rpm",), {}),
}
"""Limits that a refusal names, and those it names with an amount."""

ROWS = recorded_errors()
ERRORS = [row for row in ROWS if row["http"] != 200]
DETAILED = [row for row in ERRORS if len(row["body"]["error"].get("details", [])) > 1]
# Whether a 429 has details at all does mean something; for any other error it does not.
WITH_DETAILS = [row for row in ERRORS if row["http"] != 429 or row["body"]["error"].get("details")]
QUOTAS = [row for row in ERRORS if row["http"] == 429]
PROVIDER = GeminiProvider("https://example.test")
CALL = Call(Operation.GENERATE, "m", ("hi",))


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def read(row: dict[str, Any], body: object = None) -> Outcome:
    return classify(row["http"], {}, json.dumps(row["body"] if body is None else body).encode())


def test_the_table_has_every_class() -> None:
    assert {row["class"] for row in ROWS} == set(KINDS)
    assert len(ROWS) >= 46
    assert set(HINTS) | set(FAMILIES) <= set(ids(ROWS))


@pytest.mark.parametrize("row", ERRORS, ids=ids(ERRORS))
def test_each_recorded_error_has_its_kind_hint_and_family(row: dict[str, Any]) -> None:
    outcome = read(row)
    assert outcome.kind is KINDS[row["class"]]
    assert outcome.status == row["http"]
    assert outcome.retry_after == HINTS.get(row["id"])
    if row["id"] in FAMILIES:
        assert outcome.quota_model == FAMILIES[row["id"]]
    assert outcome.message == row["body"]["error"]["message"]


@pytest.mark.parametrize("row", QUOTAS, ids=ids(QUOTAS))
def test_a_refusal_names_its_limits_as_the_ledger_calls_them(row: dict[str, Any]) -> None:
    outcome = read(row)
    names, amounts = NAMED.get(row["id"], ((), {}))
    assert outcome.quota_names == names
    assert {limit.name: limit.amount for limit in outcome.limits} == amounts


@pytest.mark.parametrize(
    ("value", "amount"),
    [("10", 10), (10, 10), ("0", None), (None, None), ("", None), ("-5", None), ("1e3", None),
     ("1" * 16, None), ("١٢", None), (1.5, None), ("lots", None)],
)  # fmt: skip
def test_only_a_plain_number_is_an_amount(value: object, amount: int | None) -> None:
    violation = {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": value}
    detail = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}
    body = json.dumps({"error": {"code": 429, "message": "m", "details": [detail]}}).encode()
    limits = classify(429, {}, body).limits
    assert [limit.amount for limit in limits] == ([] if amount is None else [amount])


def test_tokens_a_day_are_a_limit_of_their_own() -> None:
    violation = {
        "quotaId": "GenerateContentInputTokensPerModelPerDay-FreeTier",
        "quotaValue": "1000000",
    }
    detail = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}
    body = json.dumps({"error": {"code": 429, "message": "m", "details": [detail]}}).encode()
    outcome = classify(429, {}, body)
    assert outcome.kind is Kind.QUOTA_DAY
    assert (outcome.quota_names, [limit.amount for limit in outcome.limits]) == (("tpd",), [1_000_000])


def test_of_several_amounts_for_one_limit_the_smallest_counts() -> None:
    violations = [
        {"quotaId": f"GenerateRequestsPerMinutePer{scope}", "quotaValue": value}
        for scope, value in (("Project", "50"), ("ProjectPerModel", "10"), ("User", "30"))
    ]
    detail = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}
    body = json.dumps({"error": {"code": 429, "message": "m", "details": [detail]}}).encode()
    (limit,) = classify(429, {}, body).limits
    assert (limit.name, limit.amount) == ("rpm", 10)


@pytest.mark.parametrize("row", [row for row in ROWS if row["http"] == 200], ids=lambda row: row["id"])
def test_a_blocked_reply_is_no_answer_and_has_its_usage(row: dict[str, Any]) -> None:
    outcome = PROVIDER.read(CALL, json.dumps(row["body"]).encode())
    assert isinstance(outcome, Outcome)
    assert outcome.kind is Kind.BLOCKED
    assert outcome.usage is not None
    assert outcome.usage.total == row["body"].get("usageMetadata", {}).get("totalTokenCount", 0)


@pytest.mark.parametrize("row", DETAILED, ids=ids(DETAILED))
def test_the_order_of_details_means_nothing(row: dict[str, Any]) -> None:
    expected = read(row)
    for order in itertools.permutations(row["body"]["error"]["details"]):
        body = copy.deepcopy(row["body"])
        body["error"]["details"] = list(order)
        assert read(row, body) == expected


@pytest.mark.parametrize("row", ERRORS, ids=ids(ERRORS))
def test_a_list_around_it_means_nothing(row: dict[str, Any]) -> None:
    assert read(row, [row["body"]]) == read(row)


@pytest.mark.parametrize("row", WITH_DETAILS, ids=ids(WITH_DETAILS))
def test_details_nobody_knows_mean_nothing(row: dict[str, Any]) -> None:
    body = copy.deepcopy(row["body"])
    body["error"].setdefault("details", [])
    body["error"]["details"] += [
        {"@type": "type.googleapis.com/google.rpc.Novelty", "violations": "not a list", "x": [1]},
        {"@type": "type.googleapis.com/google.rpc.Other", "metadata": 7},
        "not even an object",
        None,
    ]
    body["error"]["extra"] = {"deep": [None]}
    body["trailer"] = 1
    assert read(row, body) == read(row)


@pytest.mark.parametrize("row", ERRORS, ids=ids(ERRORS))
@pytest.mark.parametrize("field", ["status", "code"])
def test_without_its_status_word_or_code_it_is_the_same(row: dict[str, Any], field: str) -> None:
    body = copy.deepcopy(row["body"])
    del body["error"][field]
    assert read(row, body) == read(row)


@pytest.mark.parametrize("row", QUOTAS, ids=ids(QUOTAS))
def test_a_refusal_stays_one_whatever_is_dropped_from_it(row: dict[str, Any]) -> None:
    """No details, no message: still a quota, a capacity or a storage matter, never a crash."""
    for field in ("details", "message", "status"):
        body = copy.deepcopy(row["body"])
        body["error"].pop(field, None)
        outcome = read(row, body)
        assert outcome.rule.is_quota or outcome.kind in (Kind.CAPACITY, Kind.STORAGE)
        assert outcome.message
    for detail_field in ("quotaMetric", "quotaDimensions", "@type"):
        body = json.loads(json.dumps(row["body"]))
        for detail in body["error"].get("details", []):
            detail.pop(detail_field, None)
            for violation in detail.get("violations", []):
                violation.pop(detail_field, None)
        assert read(row, body).kind is KINDS[row["class"]]


@pytest.mark.parametrize(
    ("message", "kind", "hint", "family"),
    [
        ("Quota exceeded for metric: x, limit: 0, model: gemini-a\nPlease retry in 45.8s.",
         Kind.QUOTA_ZERO, 45.8, "gemini-a"),
        ("Quota exceeded for metric: x, limit: 20, model: gemini-b\nPlease retry in 3.5s.",
         Kind.QUOTA_MINUTE, 3.5, "gemini-b"),
        ("Quota exceeded for metric: x/generate_requests_per_model_per_day, limit: 10",
         Kind.QUOTA_DAY, None, None),
        ("Quota exceeded for x_per_minute", Kind.QUOTA_MINUTE, None, None),
        ("Too many.", Kind.QUOTA_UNKNOWN, None, None),
    ],
)  # fmt: skip
def test_without_details_the_message_decides(
    message: str, kind: Kind, hint: float | None, family: str | None
) -> None:
    body = json.dumps({"error": {"code": 429, "message": message}}).encode()
    outcome = classify(429, {}, body)
    assert (outcome.kind, outcome.retry_after, outcome.quota_model) == (kind, hint, family)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "API key not valid. Please pass a valid API key."),
        (400, 'Invalid value at "generation_config": "API key expired"'),
        (403, 'You may not use "Your API key was reported as leaked" here.'),
        (404, "models/has been suspended is not found"),
        (500, "Requests to this API … are blocked."),
    ],
)
def test_words_alone_disable_no_key_where_a_caller_may_have_written_them(
    status: int, message: str
) -> None:
    body = json.dumps({"error": {"code": status, "message": message}}).encode()
    assert classify(status, {}, body).kind is not Kind.BAD_KEY


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Kind.PROTOCOL), (429, Kind.QUOTA_UNKNOWN), (500, Kind.SERVER)]
)
def test_a_body_nested_without_end_is_judged_by_its_status(status: int, kind: Kind) -> None:
    endless = b"[" * 100_000 + b"]" * 100_000
    body = b'{"error": {"code": 500, "message": "m", "details": [%b]}}' % endless
    assert classify(status, {}, body).kind is kind
    assert classify_body(body) is None


def test_of_several_violations_the_longest_wait_counts() -> None:
    violations = [
        {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": "10"},
        {"quotaId": "GenerateRequestsPerDayPerProjectPerModel", "quotaValue": "20"},
    ]
    for order in (violations, violations[::-1]):
        body = {"error": {"code": 429, "message": "m", "details": [{"violations": order}]}}
        assert classify(429, {}, json.dumps(body).encode()).kind is Kind.QUOTA_DAY


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 12:01:00 GMT"}, None),
        (
            {
                "retry-after": "Sat, 21 Nov 2026 12:01:00 GMT",
                "date": "Sat, 21 Nov 2026 12:00:00 GMT",
            },
            60.0,
        ),
        (
            {
                "retry-after": "Sat, 21 Nov 2026 12:00:00 GMT",
                "date": "Sat, 21 Nov 2026 12:01:00 GMT",
            },
            None,
        ),
        ({"retry-after": "yesterday", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, None),
    ],
)
def test_a_retry_after_header_is_read_in_each_form(headers: dict[str, str], hint: float | None) -> None:
    body = json.dumps({"error": {"code": 503, "message": "late"}}).encode()
    assert classify(503, headers, body).retry_after == hint
    assert classify(503, headers, b"<html>").retry_after == hint


def test_the_bodys_own_hint_comes_before_the_headers() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]
    body = json.dumps({"error": {"code": 503, "message": "late", "details": details}}).encode()
    assert classify(503, {"retry-after": "99"}, body).retry_after == 7.0


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, b"", Kind.QUOTA_UNKNOWN),
        (429, b"<html>", Kind.QUOTA_UNKNOWN),
        (400, b"Too Many Requests", Kind.QUOTA_UNKNOWN),
        (400, b"nonsense", Kind.PROTOCOL),
        (403, b"<html>proxy says no</html>", Kind.PROTOCOL),
        (407, b"", Kind.PROTOCOL),
        (401, b"", Kind.BAD_KEY),
        (404, b"nginx", Kind.REQUEST),
        (405, b"", Kind.REQUEST),
        (413, b"", Kind.REQUEST),
        (500, b"", Kind.SERVER),
        (502, b"<html>Bad Gateway</html>", Kind.SERVER),
        (503, b"\xff\xfe", Kind.SERVER),
        (301, b"", Kind.PROTOCOL),
        (307, b"moved", Kind.PROTOCOL),
        (204, b"", Kind.PROTOCOL),
        (429, b'{"error": "a string"}', Kind.QUOTA_UNKNOWN),
        (500, b"[]", Kind.SERVER),
        (500, b'{"error": {"code": "api_error", "message": "x"}}', Kind.SERVER),
    ],
)
def test_what_is_not_in_the_apis_form_is_taken_by_status(status: int, body: bytes, kind: Kind) -> None:
    outcome = classify(status, {}, body)
    assert outcome.kind is kind
    assert str(status) in outcome.message


def test_only_a_redirect_is_called_one() -> None:
    assert "redirect" in classify(302, {}, b"").message
    assert "redirect" not in classify(204, {}, b"").message


def test_a_long_untyped_body_is_cut() -> None:
    assert len(classify(500, {}, b"x" * 1_000_000).message) < 300


@pytest.mark.parametrize("row", ERRORS, ids=ids(ERRORS))
def test_an_error_inside_a_200_is_the_same_error(row: dict[str, Any]) -> None:
    outcome = classify_body(json.dumps(row["body"]).encode())
    assert outcome is not None
    assert outcome.kind is KINDS[row["class"]]
    read_as_answer = PROVIDER.read(CALL, json.dumps(row["body"]).encode())
    assert isinstance(read_as_answer, Outcome)
    assert read_as_answer.kind is KINDS[row["class"]]


def test_an_answer_is_no_error() -> None:
    assert classify_body(b'{"candidates": []}') is None
    assert classify_body(b"") is None
