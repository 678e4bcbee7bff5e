"""The Claude door over the engine: which key sends, what a refusal costs, what an error tells."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from tests.support import Ear

from headgate.claude.client import ResilientClaudeClient
from headgate.claude.errors import ClaudeCallError, ClaudeError, ClaudeQuotaError
from headgate.core.call import Blob
from headgate.core.errors import UpstreamError
from headgate.core.outcome import Kind
from headgate.testing import BROKEN, Answer, ScriptedTransport, Sent, VirtualClock

MODEL = "claude-opus-5-5"
NOON = "Sat, 21 Nov 2026 12:00:00 GMT"
USAGE = {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100}
SPENT = "You have reached your specified API usage limits. You will regain access on "


def key(number: int) -> str:
    return f"sk-ant-CANARY-{number:03d}-{'x' * 20}"


def keys(count: int, organisation: str = "") -> str:
    return ",".join(f"{key(n)}|k{n}|{organisation}" for n in range(count))


def number_of(sent: Sent) -> int:
    (name,) = sent.credential
    assert name == "x-api-key"
    return int(sent.credential["x-api-key"].split("-")[3])


def said(
    text: str = "fine", stop: str = "end_turn", headers: Mapping[str, str] | None = None
) -> Answer:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": f"{MODEL}-v2",
        "content": [{"type": "text", "text": text, "citations": None}],
        "stop_reason": stop,
        "usage": {**USAGE, "output_tokens": 7, "new": 1},
    }
    return Answer(body=json.dumps(body).encode(), headers=headers or {})


def failed(status: int, kind: str, message: str = "no", code: str = "", **headers: str) -> Answer:
    error: dict[str, Any] = {"type": kind, "message": message}
    if code:
        error["details"] = {"error_code": code}
    body = {"type": "error", "error": error, "request_id": f"req_{status}"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(body).encode(), headers=named)


def event(value: Mapping[str, Any]) -> bytes:
    return b"event: " + value["type"].encode() + b"\ndata: " + json.dumps(value).encode() + b"\n\n"


def stream(*texts: str, end: Iterable[Mapping[str, Any]] | None = None) -> Answer:
    start = {"type": "message_start", "message": {"model": MODEL, "usage": USAGE}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    words = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in texts
    ]
    done = [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    pieces = [start, block, {"type": "ping"}, *words, *(done if end is None else end)]
    return Answer(pieces=tuple(event(piece) for piece in pieces))


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def scripted(
    script: Any, clock: VirtualClock, count: int = 1, **arguments: Any
) -> tuple[ResilientClaudeClient, ScriptedTransport]:
    transport = ScriptedTransport(script, clock)
    arguments.setdefault("keys", keys(count))
    return ResilientClaudeClient(transport=transport, clock=clock, **arguments), transport


def numbers(transport: ScriptedTransport) -> list[int]:
    return [number_of(sent) for sent in transport.sent]


# ── answers ──────────────────────────────────────────────────────────────────


async def test_a_message_comes_with_blocks_usage_and_what_it_took(clock: VirtualClock) -> None:
    client, transport = scripted([said()], clock)
    reply = await client.messages("hi", MODEL, system="Be brief.", max_tokens=20)
    assert (reply.text, reply.stop_reason, reply.id) == ("fine", "end_turn", "msg_1")
    assert reply.content == ({"type": "text", "text": "fine", "citations": None},)
    assert (reply.usage.prompt, reply.usage.output) == (123, 7)
    assert (reply.usage.cached, reply.usage.cache_write) == (100, 20)
    assert (reply.model, reply.key_name, reply.attempts) == (f"{MODEL}-v2", "k0", 1)
    assert (reply.rotations, reply.retries, reply.waited, reply.elapsed) == (0, 0, 0.0, 0.0)
    assert json.loads(transport.sent[0].request.body) == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 20,
        "system": "Be brief.",
    }
    assert transport.open_exchanges == 0


async def test_a_prompt_may_be_text_media_or_a_conversation(clock: VirtualClock) -> None:
    client, transport = scripted([said()], clock)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    await client.message_text(["See:", Blob("image/png", b"x")])
    await client.message_text(turns)
    first, second = (json.loads(sent.request.body) for sent in transport.sent)
    assert [block["type"] for block in first["messages"][0]["content"]] == ["text", "image"]
    assert second["messages"] == turns
    assert second["max_tokens"] == 4096
    for wrong in ({"role": "user"}, ["a", turns[0]], [7]):
        with pytest.raises(TypeError):
            await client.messages(wrong)  # type: ignore[arg-type]
    for empty in ("", [], [{"role": "user"}]):
        with pytest.raises(ClaudeCallError) as caught:
            await client.messages(empty)
        assert caught.value.kind == "invalid"


async def test_an_option_nobody_knows_is_a_type_error(clock: VirtualClock) -> None:
    client, transport = scripted([said()], clock)
    with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
        await client.messages("hi", max_token=5)
    with pytest.raises(TypeError, match="extra_body takes a mapping"):
        client.messages_stream("hi", extra_body=5)
    with pytest.raises(TypeError, match="timeout takes a number"):
        await client.messages("hi", timeout="soon")
    assert not transport.sent


async def test_a_cut_answer_is_returned_with_a_warning(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([said(stop="max_tokens")], clock)
    with caplog.at_level(logging.WARNING, "headgate.claude"):
        assert await client.message_text("hi") == "fine"
    assert "cut at the token limit" in caplog.text


async def test_a_retired_model_goes_to_its_successor_with_one_warning(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, transport = scripted([said()], clock)
    for _ in range(2):
        await client.messages("hi", "claude-3-opus")
    assert json.loads(transport.sent[0].request.body)["model"] == "claude-opus-5-5"
    assert caplog.text.count("claude-3-opus-20240229 is shut down on 2026-01-05") == 1


# ── refusals ─────────────────────────────────────────────────────────────────


async def test_a_429_with_a_hint_cools_organisation_and_model_and_rotates(clock: VirtualClock) -> None:
    refuse = failed(429, "rate_limit_error", retry_after="12")
    client, transport = scripted(lambda s: refuse if number_of(s) == 0 else said(), clock, 2)
    reply = await client.messages("hi", MODEL)
    assert (numbers(transport), reply.rotations, clock.monotonic()) == ([0, 1], 1, 0)
    first = client.get_key_metrics()["keys"][0]
    assert list(first["exhausted_models"]) == [MODEL]
    assert first["status"] == "EXHAUSTED"
    await client.messages("hi", "claude-haiku-5-5")  # another model of the same organisation is free
    assert numbers(transport)[2] == 0
    clock.advance(12)
    assert client.get_key_metrics()["keys"][0]["status"] == "ACTIVE"


async def test_keys_of_one_organisation_cool_together(clock: VirtualClock) -> None:
    refuse = failed(429, "rate_limit_error", retry_after="12")
    client, transport = scripted([refuse], clock, 3, keys=keys(3, "acme"), max_wait_seconds=0)
    with pytest.raises(ClaudeQuotaError) as caught:
        await client.messages("hi", MODEL)
    assert numbers(transport) == [0]
    error = caught.value
    assert (error.retry_after, error.total_keys, error.kind) == (12.0, 3, "quota")
    assert (error.http_status, error.retryable) == (429, True)
    assert (error.key_name, error.upstream_id) == ("k0", "req_429")
    assert client.get_key_metrics()["keys"][0]["organisation"] == "acme"


async def test_the_hint_is_waited_for_where_the_call_allows_it(clock: VirtualClock) -> None:
    ear = Ear()
    answers = [failed(429, "rate_limit_error", retry_after="12"), said()]
    client, _ = scripted(answers, clock, observers=[ear])
    reply = await client.messages("hi", MODEL)
    assert (reply.waited, clock.monotonic()) == (12.0, 12.0)
    assert [attempt.outcome.kind for attempt in ear.attempts] == [Kind.QUOTA_MINUTE, Kind.SUCCESS]


@pytest.mark.parametrize(
    ("answer", "until"),
    [
        (failed(429, "rate_limit_error", date=NOON), 3_600.0),
        (failed(429, "rate_limit_error", code="enforced_spend_limit_reached"), 3_600.0),
        (failed(402, "billing_error"), 3_600.0),
        (failed(400, "invalid_request_error", f"{SPENT}next month."), 3_600.0),
        (
            failed(400, "invalid_request_error", f"{SPENT}2026-12-01 at 00:00 UTC.", date=NOON),
            820_800.0,
        ),
        (failed(400, "invalid_request_error", "Your credit balance is too low to …"), 3_600.0),
    ],
)
async def test_money_parks_the_whole_organisation_until_its_day_or_for_an_hour(
    answer: Answer, until: float, clock: VirtualClock
) -> None:
    client, transport = scripted(lambda s: answer if number_of(s) == 0 else said(), clock, 2)
    await client.messages("hi", MODEL)
    await client.messages("hi", "claude-haiku-5-5")
    assert numbers(transport) == [0, 1, 1]
    alone, _ = scripted([answer], clock)
    with pytest.raises(ClaudeQuotaError) as caught:
        await alone.messages("hi", MODEL)
    assert caught.value.retry_after == min(until, 3_600.0)  # one probe an hour comes before that
    assert client.get_key_metrics()["keys"][0]["exhausted_models"]["*"] == (
        "2026-12-01T00:00:00.000000+00:00" if until > 3_600 else "2026-11-21T13:00:00.000000+00:00"
    )


@pytest.mark.parametrize(("status", "kind"), [(401, "authentication_error"), (403, "permission_error")])
async def test_a_refused_key_is_disabled_and_another_takes_over(
    status: int, kind: str, clock: VirtualClock
) -> None:
    bad = failed(status, kind, f"invalid x-api-key {key(0)}")
    client, transport = scripted(lambda s: bad if number_of(s) == 0 else said(), clock, 2)
    for _ in range(3):
        await client.messages("hi")
    assert numbers(transport) == [0, 1, 1, 1]
    shown = client.get_key_metrics()["keys"][0]
    assert shown["status"] == "DISABLED"
    assert "CANARY" not in shown["disabled_reason"]
    alone, _ = scripted([bad], clock)
    with pytest.raises(ClaudeCallError) as caught:
        await alone.messages("hi")
    assert (caught.value.kind, caught.value.key_name) == ("auth", "k0")


async def test_a_retry_after_on_a_good_answer_cools_nothing(clock: VirtualClock) -> None:
    client, transport = scripted([said(headers={"retry-after": "58"})], clock)
    for _ in range(3):
        await client.messages("hi")
    assert (len(transport.sent), clock.monotonic()) == (3, 0)
    assert client.get_key_metrics()["active_keys"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        failed(408, "timeout_error"),
        failed(409, "conflict_error"),
        failed(500, "api_error"),
        failed(504, "timeout_error"),
        failed(529, "overloaded_error"),
        BROKEN,
    ],
)
async def test_what_passes_is_retried_with_jitter_and_harms_no_key(
    answer: Any, clock: VirtualClock
) -> None:
    client, transport = scripted([answer, answer, said()], clock, 2)
    reply = await client.messages("hi")
    assert numbers(transport) == [0, 0, 0]
    assert (reply.retries, reply.rotations) == (2, 0)
    assert 0 < clock.monotonic() <= 3
    assert client.get_key_metrics()["active_keys"] == 2


async def test_a_hint_of_an_overload_is_obeyed(clock: VirtualClock) -> None:
    client, _ = scripted([failed(529, "overloaded_error", retry_after="9"), said()], clock)
    await client.messages("hi")
    assert clock.monotonic() == 9


@pytest.mark.parametrize("retries", [0, 2])
async def test_max_retries_counts_extra_tries(retries: int, clock: VirtualClock) -> None:
    client, transport = scripted([failed(529, "overloaded_error")], clock, max_retries=retries)
    with pytest.raises(ClaudeCallError, match=r"Overloaded|overloaded") as caught:
        await client.messages("hi")
    assert len(transport.sent) == retries + 1
    error = caught.value
    assert (error.kind, error.retryable, error.upstream_id) == ("unavailable", True, "req_529")
    assert "(req_529)" in str(error)
    assert isinstance(error.original_error, UpstreamError)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failed(400, "invalid_request_error"), "invalid"),
        (failed(404, "not_found_error", "model: x"), "invalid"),
        (failed(413, "request_too_large"), "invalid"),
        (failed(403, "forbidden", "Request not allowed"), "egress"),
        (said(stop="refusal"), "blocked"),
    ],
)
async def test_what_cannot_be_mended_is_asked_once(
    answer: Answer, kind: str, clock: VirtualClock
) -> None:
    client, transport = scripted([answer], clock, 3)
    with pytest.raises(ClaudeCallError) as caught:
        await client.messages("hi")
    assert (caught.value.kind, len(transport.sent)) == (kind, 1)
    assert not caught.value.retryable
    assert client.get_key_metrics()["active_keys"] == 3


async def test_a_deadline_bounds_everything(clock: VirtualClock) -> None:
    client, _ = scripted([failed(429, "rate_limit_error", retry_after="30")], clock)
    with pytest.raises(ClaudeError):
        await client.messages("hi", timeout=10)
    assert clock.monotonic() == 0
    with pytest.raises(ClaudeCallError) as caught:
        await scripted([Answer(delay=math.inf)], clock, max_retries=0)[0].messages("hi", timeout=10)
    assert caught.value.kind == "timeout"


# ── streams ──────────────────────────────────────────────────────────────────


async def test_a_stream_yields_text_and_settles_its_usage(clock: VirtualClock) -> None:
    ear = Ear()
    client, transport = scripted([stream("One ", "two")], clock, observers=[ear])
    assert [text async for text in client.messages_stream("hi")] == ["One ", "two"]
    (call,) = ear.calls
    assert (call.usage.prompt, call.usage.output, call.error) == (123, 7, None)
    assert transport.open_exchanges == 0
    assert json.loads(transport.sent[0].request.body)["stream"] is True


async def test_chunks_carry_blocks_usage_and_stop_reason(clock: VirtualClock) -> None:
    client, _ = scripted([stream("One ", "two")], clock)
    chunks = [chunk async for chunk in client.messages_chunks("hi")]
    assert [block for chunk in chunks for block in chunk.content] == [
        {"type": "text", "text": "One two"}
    ]
    assert chunks[-1].finish_reason == "end_turn"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.output == 7


async def test_an_overload_before_the_first_word_is_tried_again(clock: VirtualClock) -> None:
    client, transport = scripted([stream(end=[OVERLOADED]), stream("fine")], clock)
    assert [text async for text in client.messages_stream("hi")] == ["fine"]
    assert len(transport.sent) == 2


@pytest.mark.parametrize(
    ("end", "kind"),
    [([OVERLOADED], "unavailable"), ([], "protocol"), ([{"type": "error"}], "protocol")],
)
async def test_a_stream_that_breaks_is_typed_and_not_repeated(
    end: list[Mapping[str, Any]], kind: str, clock: VirtualClock
) -> None:
    client, transport = scripted([stream("One ", end=end)], clock)
    texts = client.messages_stream("hi")
    heard = [await anext(texts)]
    with pytest.raises(ClaudeCallError) as caught:
        await anext(texts)
    assert (heard, caught.value.kind, len(transport.sent)) == (["One "], kind, 1)
    assert transport.open_exchanges == 0


async def test_leaving_a_stream_gives_everything_back(clock: VirtualClock) -> None:
    client, transport = scripted([stream("One ", "two", "three")], clock)
    texts = client.messages_stream("hi")
    assert await anext(texts) == "One "
    await texts.aclose()
    assert transport.open_exchanges == 0


# ── the rest of the door ─────────────────────────────────────────────────────


def test_the_synchronous_twins_say_the_same(clock: VirtualClock) -> None:
    client, _ = scripted(lambda s: stream("One ", "two") if s.request.streaming else said(), clock)
    with client:
        assert client.messages_sync("hi").text == client.message_text_sync("hi") == "fine"
        assert list(client.messages_stream_sync("hi")) == ["One ", "two"]
        assert [chunk.text for chunk in client.messages_chunks_sync("hi")] == ["One ", "two", "", ""]


async def test_status_and_repr_show_names_and_no_keys(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([said()], clock, 2)
    async with client:
        await client.messages("hi")
        with caplog.at_level(logging.INFO, "headgate.claude"):
            client.log_status()
    assert "[0] k0: ACTIVE (success=1, failed=0, error_rate=0.0%)" in caplog.text
    assert client.get_status_summary().startswith("Claude Key Status\n  Total Keys: 2")
    shown = client.get_key_metrics()
    assert (shown["total_keys"], shown["active_keys"], shown["keys"][0]["organisation"]) == (2, 2, None)
    assert "CANARY" not in f"{client!r}{client.settings!r}{shown}"
