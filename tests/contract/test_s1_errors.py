"""S1: how errors are recognised, and what they say."""

from __future__ import annotations

import logging

import pytest
from tests.support import (
    MODEL,
    bad_key,
    broken_inside,
    failure,
    key,
    key_books,
    keys,
    overloaded,
    quota,
    said,
    scripted,
    stream,
    vector,
)

from headgate.gemini import AllKeysExhaustedError, GeminiAPICallError, QuotaExceededError
from headgate.testing import Answer, VirtualClock


async def test_s1_19_both_calls_raise_all_keys_exhausted_as_such(clock: VirtualClock) -> None:
    """The pitfall: a catch-all that turns it into `GeminiAPICallError`."""
    client, _ = scripted([quota("Day", "22s")], clock, 2)
    for call in (
        client.generate_content("hi"),
        client.embed_content("hi"),
        anext(client.generate_content_stream("hi")),
    ):
        with pytest.raises(AllKeysExhaustedError) as caught:
            await call
        assert not isinstance(caught.value, GeminiAPICallError)


@pytest.mark.parametrize(
    "text",
    [
        "Quota exceeded for this project",
        "You exceeded your current quota",
        "quota exhausted",
        "error: rate_limit",
        "Rate limit reached",
        "RESOURCE_EXHAUSTED",
        "429 Too Many Requests",
        "too many requests",
        "TOO MANY REQUESTS, slow down",
    ],
)
@pytest.mark.parametrize("status", [429, 400, 503])
async def test_s1_36_words_decide_where_an_error_has_no_type(
    text: str, status: int, clock: VirtualClock
) -> None:
    refused = Answer(status, f"<html>{text}</html>".encode())
    client, transport = scripted([refused, said()], clock, 2, max_wait_seconds=0)
    assert await client.generate_content("hi") == "fine"
    assert key_books(client)[0] == (1, 0, 1, 1)
    assert len(transport.sent) == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(400, b"the word quota stands in some unrelated sentence"),
        Answer(400, b"there are 429 reasons to stop"),
        Answer(500, b"error 429 in module quotation"),
        failure(400, "Quota exceeded, rate limit, too many requests: a bad field.", "INVALID_ARGUMENT"),
        failure(500, "while checking the quota exceeded flag", "INTERNAL"),
    ],
)
async def test_s1_36_a_bare_number_or_word_and_a_typed_error_are_no_quota_error(
    answer: Answer, clock: VirtualClock
) -> None:
    """The pitfalls: "quota" in unrelated text, a bare 429; and words against structure."""
    client, _ = scripted([answer], clock, max_retries=0)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    assert caught.value.kind != "quota"
    assert not caught.value.is_quota_error
    assert key_books(client) == [(1, 0, 1, 0)]


async def test_s1_36_structure_comes_first(clock: VirtualClock) -> None:
    """A 429 by its status and details, although no word of the list stands in its message."""
    refused = failure(
        429, "Slow down, please.", "RESOURCE_EXHAUSTED", [{"@type": "x", "violations": []}]
    )
    client, _ = scripted([refused, said()], clock, 2)
    assert await client.generate_content("hi") == "fine"
    assert key_books(client)[0] == (1, 0, 1, 1)


async def test_s1_36_a_bare_capacity_refusal_is_no_fault_of_the_key(clock: VirtualClock) -> None:
    bare = failure(429, "Resource has been exhausted (e.g. check quota).", "RESOURCE_EXHAUSTED")
    client, transport = scripted([bare, said()], clock, 2)
    assert await client.generate_content("hi") == "fine"
    assert {sent.credential["x-goog-api-key"] for sent in transport.sent} == {key(0)}
    assert client.get_key_metrics()["active_keys"] == 2


async def test_s1_17_all_keys_exhausted_says_what_why_and_what_to_do(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "26s")], clock, 2, max_wait_seconds=0)
    with pytest.raises(AllKeysExhaustedError) as caught:
        await client.generate_content("hi", MODEL)
    for part in ("All 2 keys", MODEL, "26 s", "k1", "max_wait_seconds"):
        assert part in caught.value.message


async def test_s1_17_a_failed_call_names_model_key_attempt_and_advice(clock: VirtualClock) -> None:
    client, _ = scripted([overloaded()], clock, max_retries=2)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi", MODEL)
    for part in (MODEL, "k0", "attempt 3", "overloaded", "another model"):
        assert part in caught.value.message
    assert caught.value.retryable
    assert caught.value.http_status == 503
    assert caught.value.request_id


async def test_s1_17_a_failure_in_mid_stream_names_its_key(clock: VirtualClock) -> None:
    client, _ = scripted([Answer(pieces=stream("one", finish=None).pieces, broken=True)], clock)
    with pytest.raises(GeminiAPICallError) as caught:
        async for _ in client.generate_content_stream("hi"):
            pass
    assert caught.value.kind == "network"
    assert caught.value.key_name == "k0"


async def test_s1_17_rotations_waits_and_lost_calls_are_logged_with_names(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([quota("Minute", "5s"), quota("Minute", "5s"), said()], clock, 2)
    with caplog.at_level(logging.DEBUG, logger="headgate.gemini"):
        await client.generate_content("hi", MODEL)
    text = caplog.text
    for part in ("key k0", "key k1", "quota_minute", "waits 5.0 s for a key", "3 attempts"):
        assert part in text


async def test_s1_17_the_first_call_that_finds_no_key_is_critical_and_only_that(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """S1-45: an alert can hang on it."""
    client, _ = scripted(
        [quota("Minute", "5s"), said(), quota("Minute", "5s")], clock, max_wait_seconds=0
    )

    def critical() -> int:
        return sum(record.levelno == logging.CRITICAL for record in caplog.records)

    for _ in range(3):
        with pytest.raises(AllKeysExhaustedError):
            await client.generate_content("hi", MODEL)
    assert critical() == 1
    clock.advance(5)
    await client.generate_content("hi", MODEL)
    with pytest.raises(AllKeysExhaustedError):
        await client.generate_content("hi", MODEL)
    assert critical() == 2, "after a success it is news again"


@pytest.mark.parametrize("part", ["whole", "start", "end", "middle", "cut"])
async def test_s1_17_an_echoed_key_reaches_no_error_log_or_metric(
    part: str, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    value = "AIza" + "".join(chr(97 + number % 26) for number in range(28)) + "CANARY0"
    echo = {
        "whole": value,
        "start": value[:20],
        "end": value[-20:],
        "middle": value[8:34],
        "cut": value[:-1],
    }[part]
    client, _ = scripted([bad_key(echo=f"key={echo}.")], clock, keys=f"{value}|k0")
    with caplog.at_level(logging.DEBUG), pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    error: BaseException | None = caught.value
    seen = [caplog.text, str(client.get_key_metrics()), client.get_status_summary()]
    while error is not None:
        seen += [str(error), repr(error), str(getattr(error, "message", ""))]
        error = error.__cause__ or error.__context__
    for text in seen:
        assert not any(value[start : start + 12] in text for start in range(len(value) - 11))


async def test_s1_35_quota_exceeded_is_what_one_key_met(clock: VirtualClock) -> None:
    answers = {0: quota("Minute", "99s"), 1: bad_key()}
    client, _ = scripted(
        lambda sent: answers[int(sent.credential["x-goog-api-key"].split("-")[1])],
        clock,
        max_wait_seconds=0,
        keys=keys(2),
    )
    with pytest.raises(AllKeysExhaustedError) as caught:
        await client.generate_content("hi", MODEL)
    assert "The only usable key" in caught.value.message
    assert "of 2" in caught.value.message
    assert caught.value.total_keys == 2
    assert caught.value.retry_after == pytest.approx(99)
    cause = caught.value.__cause__
    assert isinstance(cause, QuotaExceededError)
    assert cause.key_name == "k0", "the dead key is no reason of the exhaustion"
    with pytest.raises(AllKeysExhaustedError) as caught:
        await client.generate_content("hi", MODEL)
    assert caught.value.__cause__ is None, "this call met no refusal of its own"


async def test_s1_35_a_dead_key_beside_a_parked_one_is_not_called_a_quota_error(
    clock: VirtualClock,
) -> None:
    client, _ = scripted([bad_key()], clock, 2, max_wait_seconds=0)
    client.key_manager.mark_quota_exceeded(client.key_manager.keys[0], retry_after=50)
    with pytest.raises(AllKeysExhaustedError) as caught:
        await client.generate_content("hi", MODEL)
    assert caught.value.retry_after == pytest.approx(50)
    assert not isinstance(caught.value.__cause__, QuotaExceededError)


async def test_s1_34_an_embedding_without_a_vector_is_a_typed_error(clock: VirtualClock) -> None:
    client, _ = scripted([Answer(body=b'{"embedding":{}}'), vector(1.0)], clock)
    assert await client.embed_content("text") == [1.0]
    client, _ = scripted([Answer(body=b"{}")], clock, max_retries=0)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.embed_content("text")
    assert caught.value.kind == "protocol"


async def test_s1_34_a_failure_in_the_upstream_keeps_its_outcome(clock: VirtualClock) -> None:
    client, _ = scripted([broken_inside()], clock, max_retries=0)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    original = caught.value.original_error
    assert original.outcome.status == 500  # type: ignore[attr-defined]
    assert caught.value.__cause__ is original
