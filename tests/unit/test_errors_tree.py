"""The error tree and the table of outcomes: whole, and the same for everyone."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from datetime import UTC, datetime

import pytest

import headgate.gemini.errors
from headgate.backend.errors import ErrorType, GeminiError, ModelNotFoundError
from headgate.claude.errors import ClaudeError, ClaudeQuotaError
from headgate.content.problems import PoorContentError, RefusedError
from headgate.content.quota_config import QuotaExceededError
from headgate.core import errors as core
from headgate.core.buckets import RateLimitExceeded
from headgate.core.errors import HeadgateError, UpstreamError
from headgate.core.outcome import RULES, Booking, Kind, Next, Outcome
from headgate.engine.stages import attempt
from headgate.gateway.manage.trouble import TroubleError
from headgate.gemini.errors import AllKeysExhaustedError, GeminiAPICallError

NOW = datetime(2026, 11, 21, tzinfo=UTC)

for module in pkgutil.walk_packages(headgate.__path__, "headgate."):
    if not module.name.startswith(("headgate.emulator", "headgate.cli", "headgate.__main__")):
        importlib.import_module(module.name)


def family(root: type[HeadgateError]) -> list[type[HeadgateError]]:
    return [root, *(found for child in root.__subclasses__() for found in family(child))]


def make(kind: type[HeadgateError]) -> HeadgateError:
    upstream = UpstreamError(Outcome(Kind.SERVER, "it broke", 500, 3.0), key_name="k0", request_id="r1")
    if kind is UpstreamError:
        return upstream
    if issubclass(kind, core.KeyFormatError | headgate.gemini.errors.InvalidKeyConfigError):
        return kind("wrong", position=3)
    if issubclass(kind, core.QuotaExhaustedError | AllKeysExhaustedError):
        return kind("none left", total_keys=4, retry_after=7.0, request_id="r1")
    if issubclass(kind, RateLimitExceeded):
        return kind(7)
    if issubclass(kind, core.ReplySchemaError):
        return kind("does not fit", text="{}", problems=("$.a is missing",), request_id="r1")
    if issubclass(kind, ModelNotFoundError):
        return kind("m", ("near",), timestamp=NOW)
    if issubclass(kind, GeminiError):
        return kind(ErrorType.NETWORK_ERROR, "it broke", timestamp=NOW, request_id="r1")
    if issubclass(kind, ClaudeQuotaError):
        return kind("none left", original_error=make(core.QuotaExhaustedError))
    if issubclass(kind, GeminiAPICallError | ClaudeError):
        return kind("failed", original_error=upstream)
    if issubclass(kind, QuotaExceededError):
        return kind("RPM limit exceeded (15 per minute)", limit="rpm", retry_after=7.0, fits=2)
    if issubclass(kind, RefusedError):
        return kind("no", status=415, validator="json", issue="shape", headers={"allow": "GET"})
    if issubclass(kind, PoorContentError):
        return kind("too short", ["it has one sentence"])
    if issubclass(kind, TroubleError):
        return kind("conflict", "taken", hint="take another", allow=("GET",))
    return kind("it broke", kind="special", retry_after=1.0, request_id="r1")


ALL = [kind for kind in family(HeadgateError) if kind.__module__.startswith("headgate.")]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_knows_kind_status_and_whether_to_retry(kind: type[HeadgateError]) -> None:
    error = make(kind)
    assert isinstance(kind.__dict__["default_kind"], str)
    assert error.kind
    assert 400 <= error.http_status < 600
    assert isinstance(error.retryable, bool)
    assert error.retry_after is None or error.retry_after >= 0
    assert error.message == str(error)
    assert kind.__doc__


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_crosses_a_process_boundary_whole(kind: type[HeadgateError]) -> None:
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is kind
    assert str(again) == str(error)
    plain = {k: v for k, v in error.__dict__.items() if not isinstance(v, HeadgateError)}
    assert {k: v for k, v in again.__dict__.items() if k in plain} == plain
    if isinstance(error, GeminiAPICallError):
        assert again.original_error.outcome == error.original_error.outcome  # type: ignore[attr-defined]


def test_an_error_class_without_a_kind_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="default_kind"):
        type("Nameless", (HeadgateError,), {})


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_rule_that_makes_sense(kind: Kind) -> None:
    rule = RULES[kind]
    assert rule.public_kind
    assert rule.is_quota == (rule.public_kind == "quota")
    assert rule.retryable == (rule.next is not Next.FAIL)
    if rule.booking is not Booking.NOTHING:
        assert rule.next is Next.ROTATE, "what costs a key something makes the call go to another"
    if rule.next is Next.ROTATE:
        assert rule.booking is not Booking.NOTHING, "or the same key would be taken again for ever"
    assert Outcome(kind).rule is rule


def test_what_a_call_can_give_up_with_has_its_sentences() -> None:
    reachable = {
        rule.public_kind
        for kind, rule in RULES.items()
        if rule.next in (Next.RETRY, Next.FAIL) and kind is not Kind.CANCELLED
    }
    assert reachable <= set(attempt._WHAT_HAPPENED)
    assert set(attempt._WHAT_HAPPENED) == set(attempt._WHAT_TO_DO)
    for sentence in attempt._WHAT_TO_DO.values():
        assert sentence.endswith(".")


def test_an_upstream_error_shows_its_outcome() -> None:
    error = UpstreamError(Outcome(Kind.OVERLOAD, "busy", 503, 9.0))
    assert (error.kind, error.http_status, error.retryable, error.retry_after) == (
        "unavailable",
        503,
        True,
        9.0,
    )
    assert not UpstreamError(Outcome(Kind.TLS, "no")).retryable
