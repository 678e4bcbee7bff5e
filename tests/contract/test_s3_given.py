"""S3-04a, S3-04j, S3-08, S3-13, S3-19, S3-23, S3-25: what users type, and what errors say of it."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from tests.support import MODEL, bad_key, failure, key, keys, number_of, overloaded, quota, said

from headgate.backend import (
    BackendConfig,
    CircuitBreakerConfig,
    ContextOverflow,
    ConversationContext,
    ConversationMessage,
    ErrorType,
    FunctionCall,
    FunctionResult,
    GeminiBackend,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    HealthState,
    ModelNotFoundError,
    PreprocessConfig,
    RetryConfig,
    StreamingChunk,
)
from headgate.core.call import Blob
from headgate.core.errors import ConfigurationError
from headgate.testing import Answer, ScriptedTransport, Sent, VirtualClock

ONCE = BackendConfig(
    model_discovery=False,
    retry_config=RetryConfig(max_attempts=1),
    circuit_breaker_enabled=False,
    cache_max_entries=0,
    usage="off",
)
MAIL = "joe.canary@example.com"
OWN = key(7)


def made(
    clock: VirtualClock, script: Any, config: BackendConfig = ONCE
) -> tuple[GeminiBackend, ScriptedTransport]:
    transport = ScriptedTransport(script, clock)
    backend = GeminiBackend(config, keys=keys(1), transport=transport, clock=clock, environ={})
    return backend, transport


async def ask(backend: GeminiBackend, prompt: str = "Hello", **fields: Any) -> GeminiResponse:
    api_key = fields.pop("api_key", None)
    request = GeminiRequest(prompt, fields.pop("model", MODEL), **fields)
    return cast("GeminiResponse", await backend.execute_gemini_enhanced(request, api_key=api_key))


async def fail(backend: GeminiBackend, **fields: Any) -> GeminiError:
    with pytest.raises(GeminiError) as caught:
        await ask(backend, **fields)
    return caught.value


def body(transport: ScriptedTransport) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(transport.sent[-1].request.body)
    return found


# ── S3-08, S3-23: requests as they are typed ────────────────────────────────────────────────────


async def test_s3_08_a_request_as_it_comes_from_json_is_taken(clock: VirtualClock) -> None:
    backend, transport = made(clock, [said("yes"), said("again")])
    asked = GeminiRequest(
        f"Write to {MAIL}", MODEL, files=[("a.txt", "text/plain", b"page")],
        preprocess_config=PreprocessConfig(strip_sensitive_data=False),
    )  # fmt: skip
    for given in (msgspec.to_builtins(asked), msgspec.to_builtins(asked, builtin_types=(bytes,))):
        answer = await backend.execute_gemini_enhanced(given)
        assert isinstance(answer, GeminiResponse)
        parts = body(transport)["contents"][0]["parts"]
        assert [part.get("text") for part in parts] == [None, f"Write to {MAIL}"]


async def test_s3_08_a_batch_takes_what_a_single_request_takes(clock: VirtualClock) -> None:
    backend, _ = made(clock, [said("yes")])
    found = await backend.process_gemini_batch(
        cast("Any", [{"prompt": "a", "model": MODEL}, {"prompt": "b", "model": MODEL, "stream": True}])
    )
    assert isinstance(found[0], GeminiResponse)
    assert isinstance(found[1], GeminiError)
    assert "stream" in found[1].message


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, "request"),
        ("Hello", "request"),
        ([("prompt", "x")], "request"),
        ({"prompt": "x"}, "model"),
        ({"prompt": "x", "model": MODEL, "promt": "y"}, "promt"),
        ({"prompt": 5, "model": MODEL}, "prompt"),
        ({"prompt": "x", "model": MODEL, "fallback": [{"strategy": "Luck"}]}, "fallback"),
        (
            {"prompt": "x", "model": MODEL, "preprocess_config": {"auto_truncate": "no"}},
            "auto_truncate",
        ),
        (GeminiRequest("x", MODEL, stream=cast("Any", "yes")), "stream"),
        (GeminiRequest("x", MODEL, use_cache=cast("Any", "no")), "use_cache"),
        (GeminiRequest("x", MODEL, preprocess_config=cast("Any", True)), "preprocess_config"),
        (GeminiRequest("x", MODEL, preprocess_config=cast("Any", {"zz": 1})), "preprocess_config"),
        (GeminiRequest("x", MODEL, context_overflow=cast("Any", "luck")), "context_overflow"),
        (GeminiRequest("x", MODEL, context_overflow=cast("Any", [1])), "context_overflow"),
        (GeminiRequest("x", MODEL, caller=cast("Any", 5)), "caller"),
    ],
)
async def test_s3_08_what_is_no_request_is_refused_by_name(
    clock: VirtualClock, given: Any, named: str
) -> None:
    backend, transport = made(clock, [said()])
    with pytest.raises(GeminiError) as caught:
        await backend.execute_gemini_enhanced(given)
    assert (caught.value.error_type, caught.value.http_status) == (ErrorType.INVALID_PARAMETERS, 400)
    assert named in caught.value.message
    assert transport.sent == []


async def test_s3_08_parts_of_a_request_may_be_mappings_and_words(clock: VirtualClock) -> None:
    backend, transport = made(clock, [said(), said()])
    open_ = cast("Any", {"strip_sensitive_data": False})
    await ask(backend, f"Write to {MAIL}", preprocess_config=open_)
    assert MAIL in json.dumps(body(transport))
    drop = cast("Any", str(ContextOverflow.DROP))
    await ask(backend, f"Write to {MAIL}", preprocess_config=cast("Any", {}), context_overflow=drop)
    assert MAIL not in json.dumps(body(transport))


async def test_s3_08_no_caller_is_the_empty_one(clock: VirtualClock) -> None:
    backend, _ = made(clock, [said(), said()])
    await ask(backend, "one", session_id="s", caller=cast("Any", None))
    await ask(backend, "two", session_id="s")
    session = await backend.get_gemini_session("s")
    assert session is not None
    assert len(session.messages) == 4


async def test_s3_08_an_empty_image_is_wrong_and_not_too_large(clock: VirtualClock) -> None:
    backend, _ = made(clock, [said()])
    error = await fail(backend, images=[("image/png", b"")])
    assert (error.error_type, error.message) == (ErrorType.INVALID_PARAMETERS, "images[0] is empty.")


async def test_s3_11_s3_19_a_model_is_asked_for_by_its_name(clock: VirtualClock) -> None:
    backend, _ = made(clock, [])
    nobody = cast("Any", None)
    asks = (
        backend.get_gemini_model_info(nobody),
        backend.validate_gemini_model(nobody),
        backend.get_gemini_health_status(nobody),
        backend.get_gemini_usage("day", model=cast("Any", 5)),
        backend.get_gemini_analytics(nobody, "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
    )
    for asked in asks:
        with pytest.raises(GeminiError, match="by its name; got"):
            await asked


@pytest.mark.parametrize(
    "limits",
    [
        {"needs": "image"},
        {"needs": [1]},
        {"needs": None},
        {"budget": -1},
        {"budget": float("nan")},
        {"budget": "much"},
        {"input_tokens": -5},
        {"output_tokens": 2.5},
        {"max_latency_ms": -1},
        {"max_latency_ms": True},
    ],
    ids=str,
)
async def test_s3_13_limits_that_are_none_are_refused_by_name(
    clock: VirtualClock, limits: dict[str, Any]
) -> None:
    backend, _ = made(clock, [])
    with pytest.raises(GeminiError, match=f"{next(iter(limits))} takes"):
        await backend.recommend_gemini_model("coding", **limits)


@pytest.mark.parametrize("limit", [-1, 2.5, True, "5", None])
def test_s3_04j_a_limit_of_errors_is_a_number(clock: VirtualClock, limit: Any) -> None:
    backend, _ = made(clock, [])
    with pytest.raises(GeminiError, match="limit takes"):
        backend.get_gemini_errors(limit)


def test_s3_25_a_breaker_takes_the_other_name_for_its_probes() -> None:
    named = CircuitBreakerConfig(half_open_max_calls=7)
    assert named == CircuitBreakerConfig(half_open_max_requests=7)
    assert "half_open_max_calls" not in msgspec.to_builtins(named)
    again = msgspec.convert({"half_open_max_calls": 7}, CircuitBreakerConfig)
    assert again.half_open_max_requests == 7
    for wrong in (0, True, "3", None):
        with pytest.raises(ConfigurationError, match="half_open_max_calls"):
            CircuitBreakerConfig(half_open_max_calls=cast("Any", wrong))


# ── S3-19: whose failures say something ─────────────────────────────────────────────────────────


def by_key(sent: Sent) -> Answer:
    if sent.request.method == "GET":
        return Answer(body=json.dumps({"name": f"models/{MODEL}", "version": "1"}).encode())
    return overloaded() if number_of(sent) == 7 else said()


async def test_s3_19_failures_of_a_callers_own_key_make_no_model_sick(clock: VirtualClock) -> None:
    backend, _ = made(clock, by_key)
    for _ in range(3):
        error = await fail(backend, api_key=OWN)
        assert error.error_type is ErrorType.SERVICE_UNAVAILABLE
    assert (await backend.get_gemini_backend_status()).health_statuses == {}
    await ask(backend)
    status = await backend.get_gemini_health_status(MODEL)
    assert (status.status, status.recent_errors, status.success_rate) == (HealthState.HEALTHY, 0, 100.0)
    metrics = await backend.get_gemini_performance_metrics()
    assert (metrics[MODEL].total_requests, metrics[MODEL].failed_requests) == (4, 3)
    await backend.aclose()


async def test_s3_19_keys_and_names_that_are_wrong_are_no_faults_of_a_model(
    clock: VirtualClock,
) -> None:
    answers = iter([said(), failure(404, "models/x is not found", "NOT_FOUND"), bad_key()])

    def script(sent: Sent) -> Answer:
        return by_key(sent) if sent.request.method == "GET" else next(answers)

    backend, _ = made(clock, script)
    await ask(backend)
    assert (await fail(backend)).error_type is ErrorType.MODEL_NOT_FOUND
    assert (await fail(backend)).error_type is ErrorType.INVALID_API_KEY
    status = await backend.get_gemini_health_status(MODEL)
    assert (status.status, status.recent_errors, status.success_rate) == (HealthState.HEALTHY, 0, 100.0)


# ── S3-04a: what errors say ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "refusal",
    [
        failure(400, f"bad prompt '{MAIL}'", "INVALID_ARGUMENT"),
        bad_key(echo=MAIL),
        quota(),
        failure(500, f"cannot read {MAIL}", "INTERNAL"),
    ],
    ids=["request", "key", "quota", "server"],
)
async def test_s3_04a_no_error_quotes_personal_data(clock: VirtualClock, refusal: Answer) -> None:
    told = Answer(status=refusal.status, body=refusal.body.replace(b'"message": "', b'"message": "'
                  + MAIL.encode() + b" "))  # fmt: skip
    assert MAIL.encode() in told.body
    backend, _ = made(clock, lambda _: told)
    error = await fail(backend, timeout_seconds=5)
    shown = [
        str(error), repr(error), json.dumps(error.to_dict()), repr(backend.get_gemini_errors()),
        "".join(traceback.format_exception(error)),
    ]  # fmt: skip
    assert not [text for text in shown if MAIL in text]
    assert backend.get_gemini_errors()[0].message.count("[EMAIL]") >= 1


async def test_s3_04a_too_many_bytes_are_told_apart(clock: VirtualClock) -> None:
    words = "Request payload size exceeds the limit: 20971520 bytes."
    backend, _ = made(clock, [failure(400, words, "INVALID_ARGUMENT")])
    error = await fail(backend)
    assert (error.error_type, error.is_retryable) == (ErrorType.PAYLOAD_TOO_LARGE, False)
    assert backend.get_gemini_errors()[0].error_type == ErrorType.PAYLOAD_TOO_LARGE


async def test_s3_04a_quota_errors_name_what_the_backend_has(clock: VirtualClock) -> None:
    backend, _ = made(clock, lambda _: quota())
    error = await fail(backend, timeout_seconds=1)
    assert error.error_type in (ErrorType.RATE_LIMIT_EXCEEDED, ErrorType.QUOTA_EXCEEDED)
    assert "max_wait_seconds" not in error.message
    assert "timeout_seconds" in error.message


async def test_s3_08_a_name_that_nobody_has_told_comes_with_names_near_it(clock: VirtualClock) -> None:
    gone = failure(404, "models/x is not found", "NOT_FOUND")
    backend, transport = made(clock, lambda _: gone)
    error = await fail(backend, model=f"{MODEL}x")
    assert isinstance(error, ModelNotFoundError)
    assert MODEL in error.near
    assert MODEL in error.message
    assert (error.http_status, error.details["status"], error.details["kind"]) == (404, 404, error.kind)
    assert error.request_id
    assert len(transport.sent) == 1
    pieces = await backend.execute_gemini_enhanced(GeminiRequest("x", f"{MODEL}x", stream=True))
    with pytest.raises(ModelNotFoundError):
        await anext(cast("AsyncGenerator[StreamingChunk]", pieces))
    known = await fail(backend)
    assert (known.error_type, type(known)) == (ErrorType.MODEL_NOT_FOUND, GeminiError)


# ── S3-23: what is shown of them ────────────────────────────────────────────────────────────────


def test_s3_23_no_repr_shows_what_was_said() -> None:
    secret = "TEXTCANARY"
    now = datetime(2026, 11, 21, tzinfo=UTC)
    message = ConversationMessage("user", secret, now, 3)
    response = GeminiResponse(
        text=secret, model=MODEL, parsed={"a": secret}, media=(Blob("image/png", secret.encode()),),
        function_calls=(FunctionCall("f", {"a": secret}),), session_id=secret, cwd=secret,
    )  # fmt: skip
    shown = [
        message,
        ConversationContext(
            session_id=secret, messages=(message,), system_instruction=secret, created_at=now,
            last_updated=now,
        ),
        FunctionResult("f", {"a": secret}),
        FunctionCall("f", {"a": secret}),
        response,
        StreamingChunk(delta=secret, response=response),
        GeminiRequest(secret, MODEL),
    ]  # fmt: skip
    assert not [one for one in shown if secret in repr(one)]
    assert "10 characters" in repr(response)


@pytest.mark.parametrize("wrong", [None, 5, b"x"])
def test_s3_23_a_request_that_is_wrong_can_be_looked_at(wrong: Any) -> None:
    shown = repr(GeminiRequest(wrong, wrong, images=wrong, files=wrong))
    assert type(wrong).__name__ in shown
    assert "FunctionResult" in repr(FunctionResult("f", wrong))
