"""The gateway as an application: what it takes, what it refuses and how, what it passes on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway import (
    CALLER_KEY,
    CALLERS,
    CLAUDE_KEYS,
    GEMINI_KEYS,
    OPENAI_KEYS,
    Client,
    ask,
    gateway_over,
    scripted_gateway,
)
from tests.support import MODEL, Ear, bad_key, failure, overloaded, quota, reply, said, stream

from headgate.core.call import Operation, Priority
from headgate.gateway import PUBLIC_PATHS, Gateway
from headgate.gateway.problems import Problem
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock
from headgate.wiring.gateway_settings import GatewaySettings

GENERATE = f"/gemini/v1beta/models/{MODEL}:generateContent"
STREAM = f"/gemini/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}
WITH_CALLERS = GatewaySettings(callers=CALLERS)

CLAUDE = {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
    "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip
CHAT = {"model": "gpt-x", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-x",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}  # fmt: skip


def answer(value: object, **headers: str) -> Answer:
    return Answer(
        body=json.dumps(value).encode(), headers={"content-type": "application/json", **headers}
    )


def by_api(sent: Sent) -> Answer:
    """An answer of whichever API was asked."""
    url = sent.request.url
    if "/messages" in url:
        return answer(MESSAGE)
    if "/chat/" in url:
        return answer(COMPLETION)
    if url.endswith("/models") or "/models?" in url:
        return answer({"models": [], "data": [], "object": "list"})
    return said()


async def settled(gateway: Gateway, transport: ScriptedTransport) -> None:
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes
    assert transport.open_exchanges == 0
    assert len(gateway.visits) == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


# ── what passes ─────────────────────────────────────────────────────────────────────────────────


async def test_bytes_pass_as_they_came_both_ways(clock: VirtualClock) -> None:
    """Unknown fields, odd order, both casings, escapes, whatever: nothing is written anew."""
    body = (
        b'{ "zeta":1e3,"contents":[{"parts":[{"text":"\\u00e9\\/"}]}],\n'
        b'"system_instruction":{"parts":[]}}'
    )
    upstream = (
        b'{"usageMetadata": {"promptTokenCount": 5},\r\n'
        b' "candidates": [{"finishReason": "STOP", "new": 1}]}\n'
    )
    gateway, transport = scripted_gateway(
        [Answer(body=upstream, headers={"content-type": "application/json; charset=UTF-8"})], clock
    )
    got = await ask(gateway, "POST", GENERATE, body)
    assert (got.status, got.body) == (200, upstream)
    assert got.headers["content-type"] == "application/json; charset=UTF-8"
    assert int(got.headers["content-length"]) == len(upstream)
    (sent,) = transport.sent
    assert sent.request.body == body
    assert sent.request.url.endswith(f"/v1beta/models/{MODEL}:generateContent")
    await settled(gateway, transport)


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
async def test_every_version_is_served_and_asked_for(clock: VirtualClock, version: str) -> None:
    """Point 1 of what is most often got wrong."""
    gateway, transport = scripted_gateway([said()], clock)
    for prefix in ("/gemini", ""):
        got = await ask(gateway, "POST", f"{prefix}/{version}/models/new-model-9:generateContent", BODY)
        assert got.status == 200
        assert f"/{version}/models/new-model-9:generateContent" in transport.sent[-1].request.url


async def test_the_upstreams_version_can_be_forced(clock: VirtualClock) -> None:
    settings = GatewaySettings(gemini_version="v1beta")
    gateway, transport = scripted_gateway([said()], clock, settings=settings)
    await ask(gateway, "POST", f"/gemini/v1/models/{MODEL}:generateContent", BODY)
    assert "/v1beta/models/" in transport.sent[0].request.url


async def test_a_call_is_recorded_as_any_other(clock: VirtualClock) -> None:
    ear = Ear()
    gateway, _ = scripted_gateway([said()], clock, settings=WITH_CALLERS, observers=[ear])
    headers = {"x-goog-api-key": CALLER_KEY, "x-headgate-priority": "HIGH"}
    got = await ask(gateway, "POST", GENERATE, BODY, headers)
    (record,) = ear.calls
    assert (record.caller, record.provider, record.model) == ("ann", "gemini", MODEL)
    assert (record.usage.prompt, record.usage.output) == (5, 3)
    assert record.request_id == got.headers["x-headgate-request-id"]
    assert got.headers["x-headgate-key"] == record.key_name
    assert got.headers["x-headgate-attempts"] == "1"
    assert "total;dur=" in got.headers["server-timing"]
    assert got.headers["cache-control"] == "no-store"
    assert "authorization" in got.headers["vary"]


STREAMED = b"".join(stream("one ", "two ", "three").pieces)


async def test_a_stream_passes_event_by_event_as_it_comes(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([stream("one ", "two ", "three", piece_delay=1.0)], clock)
    client = Client(gateway, "POST", STREAM, BODY)
    task = asyncio.ensure_future(client.run())
    await clock.sleep(1.5)
    assert client.got.pieces == [stream("one ", "x").pieces[0]]
    got = await task
    assert (got.status, got.body, len(got.pieces)) == (200, STREAMED, 3)
    assert got.headers["content-type"] == "text/event-stream"
    assert "content-length" not in got.headers
    await settled(gateway, transport)


async def test_without_alt_sse_a_stream_is_an_array_of_the_same_texts(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([stream("one ", "two ", "three")], clock)
    got = await ask(gateway, "POST", STREAM.partition("?")[0], BODY)
    assert got.headers["content-type"].startswith("application/json")
    whole = [json.loads(line[6:]) for line in STREAMED.splitlines() if line]
    assert got.json == whole
    assert len(got.pieces) == 4
    assert "alt=sse" in transport.sent[0].request.url


async def test_the_callers_credentials_are_consumed_wherever_they_stand(clock: VirtualClock) -> None:
    """Point: two credentials at once are refused upstream; and they are nobody's business there."""
    gateway, transport = scripted_gateway(by_api, clock, settings=WITH_CALLERS)
    ways: list[tuple[str, dict[str, str]]] = [
        (GENERATE, {"x-goog-api-key": CALLER_KEY}),
        (f"{GENERATE}?key={CALLER_KEY}", {}),
        (GENERATE, {"authorization": f"Bearer {CALLER_KEY}"}),
        ("/anthropic/v1/messages", {"x-api-key": CALLER_KEY}),
        ("/anthropic/v1/messages", {"authorization": f"bearer {CALLER_KEY}"}),
        ("/openai/v1/chat/completions", {"authorization": f"Bearer {CALLER_KEY}"}),
    ]
    for path, headers in ways:
        body = BODY if "gemini" in path else CLAUDE if "messages" in path else CHAT
        got = await ask(
            gateway, "POST", path, body, {**headers, "cookie": "a=CANARY", "x-forwarded-for": "9"}
        )
        assert got.status == 200, path
    for sent in transport.sent:
        seen = f"{sent.request.url} {dict(sent.request.headers)} {sent.request.body!r}"
        assert "CANARY" not in seen
        assert not {"cookie", "authorization", "x-api-key", "x-goog-api-key", "host"} & set(
            sent.request.headers
        )
        (value,) = sent.credential.values()
        assert value.removeprefix("Bearer ") in {*GEMINI_KEYS, *CLAUDE_KEYS, *OPENAI_KEYS}


async def test_only_allowed_headers_pass_back(clock: VirtualClock) -> None:
    headers = {
        "content-type": "application/json",
        "set-cookie": "a=b",
        "x-gemini-service-tier": "standard",
        "alt-svc": "h3",
        "connection": "close",
        "transfer-encoding": "chunked",
        "server": "scaffolding",
    }
    gateway, _ = scripted_gateway([Answer(body=said().body, headers=headers)], clock)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert got.headers["x-gemini-service-tier"] == "standard"
    assert not {"set-cookie", "alt-svc", "connection", "transfer-encoding", "server"} & set(got.headers)


async def test_no_header_or_field_moves_a_call_elsewhere(clock: VirtualClock) -> None:
    """Security item X-1."""
    gateway, transport = scripted_gateway([said()], clock)
    names = ("api_base", "base_url", "x-base-url", "x-portkey-custom-host", "x-goog-api-host",
             "api_key", "proxy", "x-upstream", "x-forwarded-host", "custom_host")  # fmt: skip
    body = {**BODY, **dict.fromkeys(names, "https://evil.test")}
    await ask(gateway, "POST", f"{GENERATE}?api_base=https://evil.test&$key=x", body,
              dict.fromkeys(names, "https://evil.test"))  # fmt: skip
    (sent,) = transport.sent
    assert (
        sent.request.url
        == f"https://generativelanguage.googleapis.com/v1beta/models/{MODEL}:generateContent"
    )
    assert set(sent.request.headers) <= {"content-type", "user-agent", "x-goog-api-client"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "url"),
    [
        ("POST", f"/v1beta/models/{MODEL}:generateContent", {}, "generativelanguage"),
        (
            "POST",
            f"/v1/models/{MODEL}:generateContent",
            {"authorization": "Bearer x"},
            "generativelanguage",
        ),
        ("GET", "/v1/models", {"x-goog-api-key": "x"}, "generativelanguage"),
        ("GET", "/v1/models?key=x", {}, "generativelanguage"),
        (
            "GET",
            "/v1/models",
            {"anthropic-version": "2026-10-21", "authorization": "Bearer x"},
            "anthropic",
        ),
        ("POST", "/v1/messages", {"authorization": "Bearer x"}, "anthropic"),
        ("GET", "/v1/models", {"authorization": "Bearer x"}, "openai"),
        ("POST", "/v1/chat/completions", {"authorization": "Bearer x"}, "openai"),
    ],
)
async def test_at_the_root_a_request_goes_where_it_belongs_beyond_doubt(
    clock: VirtualClock, method: str, path: str, headers: dict[str, str], url: str
) -> None:
    """`/v1/models` is claimed by three."""
    gateway, transport = scripted_gateway(by_api, clock)
    body = CLAUDE if "messages" in path else CHAT if "chat" in path else BODY
    got = await ask(gateway, method, path, body if method == "POST" else b"", headers)
    assert got.status == 200
    assert url in transport.sent[0].request.url


async def test_where_there_is_doubt_the_answer_names_the_surfaces(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway(by_api, clock)
    for path in ("/v1/models", "/", "/nothing", "/v2/models"):
        got = await ask(gateway, "GET", path)
        assert got.status == 404
        assert "/gemini, /anthropic, /openai" in got.json["error"]["message"]
    assert not transport.sent


async def test_lists_of_models_pass_with_their_pages_and_use_no_quota(clock: VirtualClock) -> None:
    ear = Ear()
    gateway, transport = scripted_gateway(by_api, clock, observers=[ear])
    await ask(gateway, "GET", "/gemini/v1beta/models?pageSize=4&pageToken=a%2Fb&key=CANARY-x&fields=x")
    assert transport.sent[0].request.url.endswith("/v1beta/models?pageSize=4&pageToken=a%2Fb")
    await ask(gateway, "GET", "/anthropic/v1/models?limit=3&after_id=x")
    assert transport.sent[1].request.url.endswith("/v1/models?limit=3&after_id=x")
    assert [record.operation for record in ear.calls] == [Operation.LIST, Operation.LIST]
    assert all(sent.request.method == "GET" and not sent.request.body for sent in transport.sent)


# ── what the engine does for it ─────────────────────────────────────────────────────────────────


async def test_a_refusal_for_quota_moves_the_call_to_another_project(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([quota("Minute", "30s"), said("fine")], clock)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.headers["x-headgate-attempts"]) == (200, "2")
    first, second = (sent.credential["x-goog-api-key"] for sent in transport.sent)
    assert first != second
    assert clock.monotonic() < 1


async def test_a_stream_that_fails_before_its_first_event_is_tried_elsewhere(
    clock: VirtualClock,
) -> None:
    gateway, transport = scripted_gateway([quota(), stream("one")], clock)
    got = await ask(gateway, "POST", STREAM, BODY)
    assert (got.status, got.body) == (200, b"".join(stream("one").pieces))
    assert len(transport.sent) == 2


async def test_a_batch_of_embeddings_takes_a_request_for_each_text(clock: VirtualClock) -> None:
    environ = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|only|p", "HEADGATE_QUOTA_RPM": "5"}
    vectors = answer({"embeddings": [{"values": [0.1]}] * 3})
    gateway, transport = scripted_gateway([vectors], clock, environ=environ)
    item = {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "a"}]}}
    path = "/gemini/v1beta/models/gemini-embedding-001:batchEmbedContents"
    for _ in range(2):
        got = await ask(gateway, "POST", path, {"requests": [item] * 3}, {"x-headgate-timeout": "100"})
        assert got.status == 200
    assert len(transport.sent) == 2
    assert transport.sent[1].at - transport.sent[0].at > 10, "six texts are more than five a minute"


async def both(gateway: Gateway, path: str, body: object) -> list[int]:
    """The statuses of two calls at once."""
    calls = [asyncio.ensure_future(ask(gateway, "POST", path, body)) for _ in range(2)]
    return [(await call).status for call in calls]


async def test_the_length_of_a_prompt_is_reserved_before_it_is_sent(clock: VirtualClock) -> None:
    """Some 1000 tokens each: the second waits for the first to settle, or for the next minute."""
    environ = {
        "GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|only|p",
        "HEADGATE_QUOTA_TPM": "1500",
        "HEADGATE_MAX_WAIT_SECONDS": "100",
    }
    slow = Answer(body=said().body, delay=1.0)
    gateway, transport = scripted_gateway([slow], clock, environ=environ)
    long = {"contents": [{"parts": [{"text": "water gate " * 360}]}]}
    assert await both(gateway, GENERATE, long) == [200, 200]
    assert transport.sent[1].at >= 1.0
    gateway, transport = scripted_gateway([slow], clock, environ=environ)
    began = clock.monotonic()
    assert await both(gateway, GENERATE, BODY) == [200, 200]
    assert transport.sent[1].at == transport.sent[0].at == began, "short ones fit together"


async def test_the_longest_answer_is_reserved_and_given_back(clock: VirtualClock) -> None:
    environ = {"ANTHROPIC_API_KEYS": f"{CLAUDE_KEYS[0]}|only|o", "HEADGATE_CLAUDE_QUOTA_OTPM": "100"}
    slow = Answer(body=json.dumps(MESSAGE).encode(), delay=1.0)
    gateway, transport = scripted_gateway([slow], clock, environ=environ)
    assert await both(gateway, "/anthropic/v1/messages", {**CLAUDE, "max_tokens": 80}) == [200, 200]
    assert 1.0 <= transport.sent[1].at < 5.0, "80 and 80 are more than 100, until two were used"


async def test_a_retired_model_goes_to_its_successor(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([said()], clock)
    got = await ask(gateway, "POST", "/gemini/v1beta/models/gemini-2.0-flash:generateContent", BODY)
    assert got.status == 200
    assert "gemini-2.0-flash" not in transport.sent[0].request.url
    assert transport.sent[0].request.body == json.dumps(BODY).encode()


async def test_priority_caller_and_deadline_reach_the_engine(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([Answer(delay=100.0)], clock)
    got = await ask(gateway, "POST", GENERATE, BODY, {"x-headgate-timeout": "3"})
    assert (got.status, clock.monotonic()) == (504, 3.0)
    assert got.headers["x-should-retry"] == "false"
    got = await ask(gateway, "POST", GENERATE, BODY, {"x-server-timeout": "4"})
    assert (got.status, clock.monotonic()) == (504, 7.0)
    for name, value in (("x-headgate-priority", "urgent"), ("x-headgate-timeout", "soon"),
                        ("x-headgate-timeout", "-1"), ("x-headgate-timeout", "nan")):  # fmt: skip
        got = await ask(gateway, "POST", GENERATE, BODY, {name: value})
        assert (got.status, name in got.json["error"]["message"]) == (400, True)


async def test_what_sdks_tell_of_their_timeout_does_not_cut_a_stream(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([stream("one ", "two ", "three", piece_delay=30.0)], clock)
    got = await ask(gateway, "POST", STREAM, BODY, {"x-server-timeout": "10"})
    assert got.body == STREAMED


@pytest.mark.parametrize("word", [*Priority, "MEDIUM"])
async def test_every_word_for_a_priority_is_taken(clock: VirtualClock, word: str) -> None:
    gateway, _ = scripted_gateway([said()], clock)
    assert (await ask(gateway, "POST", GENERATE, BODY, {"x-headgate-priority": word})).status == 200


# ── answers that are kept ───────────────────────────────────────────────────────────────────────

CACHED = GatewaySettings(callers=CALLERS, cache_seconds=60.0)
ANN, BOB = ({"x-goog-api-key": key.value} for key in CALLERS)


@pytest.mark.parametrize("path", [GENERATE, STREAM, STREAM.partition("?")[0]])
async def test_the_same_question_is_answered_by_the_same_bytes(clock: VirtualClock, path: str) -> None:
    answer = said() if path == GENERATE else stream("one ", "two ", "three")
    gateway, transport = scripted_gateway([answer], clock, settings=CACHED)
    first = await ask(gateway, "POST", path, BODY, ANN)
    again = await ask(gateway, "POST", path, BODY, ANN)
    assert (again.status, again.body) == (200, first.body)
    caches = [got.headers["x-headgate-cache"] for got in (first, again)]
    assert caches == ["miss", "hit"]
    kinds = [got.headers.get("content-type") for got in (first, again)]
    assert kinds[0] == kinds[1]
    assert len(transport.sent) == 1
    await clock.sleep(61)
    assert (await ask(gateway, "POST", path, BODY, ANN)).headers["x-headgate-cache"] == "miss"
    await gateway.aclose()


async def test_no_caller_gets_anothers_answer(clock: VirtualClock) -> None:
    """Security item X-20."""
    gateway, transport = scripted_gateway([said()], clock, settings=CACHED)
    for who in (ANN, BOB, ANN, BOB):
        await ask(gateway, "POST", GENERATE, BODY, who)
    assert len(transport.sent) == 2
    await gateway.aclose()


async def test_a_client_may_ask_for_a_new_answer_or_for_none_to_be_kept(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([said()], clock, settings=CACHED)
    for wish, sent in (("no-store", 1), ("", 2), ("", 2), ("no-cache", 3), ("", 3), ("no-store", 4)):
        await ask(gateway, "POST", GENERATE, BODY, {**ANN, "cache-control": wish})
        assert len(transport.sent) == sent, wish
    await gateway.aclose()


async def test_what_is_cut_withheld_or_another_question_is_not_given_again(clock: VirtualClock) -> None:
    """Security items X-19 and X-22."""
    for answer in (said(finish="MAX_TOKENS"), said(finish="SAFETY"), stream("a", finish=None)):
        path = STREAM if answer.pieces else GENERATE
        gateway, transport = scripted_gateway([answer], clock, settings=CACHED)
        for _ in range(2):
            await ask(gateway, "POST", path, BODY, ANN)
        assert len(transport.sent) == 2
        await gateway.aclose()
    gateway, transport = scripted_gateway([said()], clock, settings=CACHED)
    other = {**BODY, "generationConfig": {"temperature": 0.1}}
    for body, path in ((BODY, GENERATE), (other, GENERATE), (BODY, GENERATE.replace("v1beta", "v1")),
                       (BODY, GENERATE.replace(MODEL, "other"))):  # fmt: skip
        assert (await ask(gateway, "POST", path, body, ANN)).headers["x-headgate-cache"] == "miss"
    await gateway.aclose()


async def test_unless_it_is_asked_for_nothing_is_kept(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([said()], clock)
    for _ in range(2):
        assert (await ask(gateway, "POST", GENERATE, BODY)).headers["x-headgate-cache"] == "off"
    assert len(transport.sent) == 2


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_upstreams_own_refusal_passes_as_it_came(clock: VirtualClock) -> None:
    body = (
        b'{\n  "error": {\n    "code": 400,\n'
        b'    "message": "Unknown name \\"x\\": Cannot find field.",\n'
        b'    "status": "INVALID_ARGUMENT"\n  }\n}\n'
    )
    refusal = Answer(400, body, headers={"content-type": "application/json; charset=UTF-8"})
    gateway, transport = scripted_gateway([refusal], clock)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.body) == (400, body)
    assert got.headers["x-should-retry"] == "false"
    assert got.headers["x-headgate-attempts"] == "1"
    listed = await ask(gateway, "POST", STREAM.partition("?")[0], BODY)
    assert listed.body == b"[" + body + b"]"
    assert len(transport.sent) == 2


async def test_a_refusal_that_repeats_the_key_does_not_pass_it_on(clock: VirtualClock) -> None:
    """Point 13 of what is most often got wrong."""

    def refuse(sent: Sent) -> Answer:
        key = sent.credential["x-goog-api-key"]
        details = [{"@type": "x/google.rpc.DebugInfo", "detail": f"Invalid API key: {key}"}]
        return failure(400, f"The request with {key} is bad.", "INVALID_ARGUMENT", details)

    gateway, _ = scripted_gateway(refuse, clock)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert got.status == 400
    assert "CANARY" not in got.body.decode()
    assert got.json["error"]["details"][0]["detail"] == "Invalid API key: [key]"


async def test_an_invalid_key_of_ours_is_no_fault_of_the_callers(clock: VirtualClock) -> None:
    """Point 10: each refusal disables exactly that key, and none of them is shown."""
    gateway, transport = scripted_gateway([bad_key(), bad_key(), said()], clock)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert got.status == 503
    assert got.json["error"]["status"] == "UNAVAILABLE"
    assert got.headers["x-should-retry"] == "false"
    assert len(transport.sent) == 2


async def test_an_exhausted_quota_says_when_to_come_back(clock: VirtualClock) -> None:
    environ = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|only", "HEADGATE_MAX_WAIT_SECONDS": "0"}
    gateway, _ = scripted_gateway([quota("Minute", "30s")], clock, environ=environ)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.headers["x-should-retry"]) == (429, "true")
    assert 25 <= int(got.headers["retry-after"]) <= 35
    error = got.json["error"]
    assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert error["details"][1]["retryDelay"] == f"{got.headers['retry-after']}s"
    assert error["details"][0]["metadata"]["requestId"] == got.headers["x-headgate-request-id"]


async def test_a_days_quota_is_not_to_be_slept_out(clock: VirtualClock) -> None:
    """Points 6 and 22: the day beats the short hint, and SDKs that obey `retry-after` must not."""
    environ = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|only"}
    gateway, _ = scripted_gateway([quota("Day", "22s")], clock, environ=environ)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.headers["x-should-retry"]) == (429, "false")
    assert int(got.headers["retry-after"]) >= 3600


async def test_once_its_retries_are_spent_the_client_is_told_to_leave_it(clock: VirtualClock) -> None:
    """trust.md 1.8: a client's three tries times the gateway's four would be twelve."""
    gateway, transport = scripted_gateway([overloaded()], clock)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.json["error"]["status"]) == (503, "UNAVAILABLE")
    assert (got.headers["x-should-retry"], got.headers["x-headgate-attempts"]) == ("false", "4")
    assert len(transport.sent) == 4


async def test_a_model_that_keeps_failing_is_left_alone_for_a_while(clock: VirtualClock) -> None:
    """Clients are told when to come back, and the upstream is not asked; other models go on."""
    other = GENERATE.replace(MODEL, "another-model")
    gateway, transport = scripted_gateway(
        lambda sent: said() if "another" in sent.request.url else overloaded(), clock
    )
    statuses = [(await ask(gateway, "POST", GENERATE, BODY)).status for _ in range(30)]
    assert set(statuses) == {503}
    sent = len(transport.sent)
    assert sent < 60, "far fewer than thirty calls with four tries each"
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.headers["x-should-retry"]) == (503, "true")
    assert 0 < int(got.headers["retry-after"]) <= 10
    assert len(transport.sent) == sent
    assert (await ask(gateway, "POST", other, BODY)).status == 200


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, b"1"), (0.2, b"1"), (10.0, b"10"), (10.000000000000002, b"10"), (10.2, b"11")],
)
def test_a_wait_is_told_in_whole_seconds_and_no_longer_for_a_rounding_error(
    seconds: float, told: bytes
) -> None:
    problem = Problem(503, "breaker_open", "…", "r", retry_after=seconds)
    assert (b"retry-after", told) in problem.headers()


@pytest.mark.parametrize("broken", [Broken(), Answer(body=b"<html>")])
async def test_a_broken_upstream_is_told_in_the_surfaces_shape(
    clock: VirtualClock, broken: Answer | Broken
) -> None:
    gateway, transport = scripted_gateway([broken], clock)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.json["error"]["code"]) == (502, 502)
    got = await ask(gateway, "POST", "/anthropic/v1/messages", CLAUDE)
    assert (got.status, got.json["type"], got.json["error"]["type"]) == (502, "error", "api_error")
    assert got.json["request_id"] == got.headers["request-id"] == got.headers["x-headgate-request-id"]
    got = await ask(gateway, "POST", "/openai/v1/chat/completions", CHAT)
    assert (got.status, got.json["error"]["type"]) == (502, "server_error")
    await settled(gateway, transport)


async def test_a_stream_that_breaks_ends_with_an_error_that_sdks_raise(clock: VirtualClock) -> None:
    """Points 5 and 3: the key `error` first, nothing after it, every byte before it as it came."""
    cut = stream("one ", "two ", finish=None)
    gateway, transport = scripted_gateway([cut], clock)
    got = await ask(gateway, "POST", STREAM, BODY)
    assert got.status == 200
    assert got.body.startswith(b"".join(cut.pieces) + b'data: {"error":{"code":502,')
    assert got.body.endswith(b"\r\n\r\n")
    got = await ask(gateway, "POST", STREAM.partition("?")[0], BODY)
    assert got.json[-1]["error"]["code"] == 502
    await settled(gateway, transport)


async def test_a_fault_of_ours_shows_nothing_of_itself(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Security item X-42: the detail stands in the log, under the id."""
    gateway, _ = scripted_gateway([said()], clock)

    def fail(*_: object) -> Any:
        raise RuntimeError("secret place")

    monkeypatch.setattr("headgate.gateway.surface_gemini.weigh", fail)
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert got.status == 500
    assert "secret" not in got.body.decode()
    assert got.headers["x-headgate-request-id"]


# ── what is refused ─────────────────────────────────────────────────────────────────────────────

SHAPES = [
    (GENERATE, BODY, lambda body: body["error"]["code"]),
    (
        "/anthropic/v1/messages",
        CLAUDE,
        lambda body: {"authentication_error": 401}[body["error"]["type"]],
    ),
    ("/openai/v1/chat/completions", CHAT, lambda body: {"invalid_api_key": 401}[body["error"]["code"]]),
]


@pytest.mark.parametrize(("path", "body", "code"), SHAPES)
@pytest.mark.parametrize(
    "headers", [{}, {"x-goog-api-key": CALLER_KEY[:-1]}, {"authorization": "Basic eDp5"}]
)
async def test_a_stranger_is_refused_in_the_surfaces_shape(
    clock: VirtualClock, path: str, body: Any, code: Any, headers: dict[str, str]
) -> None:
    gateway, transport = scripted_gateway(by_api, clock, settings=WITH_CALLERS)
    got = await ask(gateway, "POST", path, body, headers)
    assert (got.status, code(got.json)) == (401, 401)
    assert not transport.sent


async def test_a_stranger_is_refused_before_the_body_is_read(clock: VirtualClock) -> None:
    """Security item X-14."""
    gateway, _ = scripted_gateway(by_api, clock, settings=WITH_CALLERS)
    client = Client(gateway, "POST", GENERATE, b"x", {"content-length": str(100 * 1024 * 1024)})
    got = await client.run()
    assert (got.status, got.headers["connection"]) == (401, "close")
    assert client._pieces, "nothing of the body was asked for"


@pytest.mark.parametrize("place", ["first", "last", "middle"])
async def test_every_character_of_a_caller_key_counts(clock: VirtualClock, place: str) -> None:
    """Security item X-5: no prefix of a key is as good as the key."""
    at = {"first": 0, "last": len(CALLER_KEY) - 1, "middle": 20}[place]
    wrong = CALLER_KEY[:at] + "~" + CALLER_KEY[at + 1 :]
    gateway, _ = scripted_gateway([said()], clock, settings=WITH_CALLERS)
    assert (await ask(gateway, "POST", GENERATE, BODY, {"x-goog-api-key": wrong})).status == 401
    assert (await ask(gateway, "POST", GENERATE, BODY, {"x-goog-api-key": CALLER_KEY})).status == 200


def test_no_caller_key_is_kept_or_shown() -> None:
    from headgate.gateway.callers import Callers

    callers = Callers(CALLERS)
    assert "CANARY" not in repr(vars(callers))
    assert "CANARY" not in repr(WITH_CALLERS)


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", GENERATE, {}, b"", 405),
        ("POST", "/gemini/v1beta/models", {}, b"{}", 405),
        ("PUT", "/anthropic/v1/messages", {}, b"{}", 405),
        ("POST", "/gemini/v1beta/models/m:destroy", {}, b"{}", 404),
        ("POST", "/gemini/v1beta/models/a%2f..%2fb:generateContent", {}, b"{}", 404),
        ("POST", "/gemini/v1beta/models/../x:generateContent", {}, b"{}", 404),
        ("GET", "/gemini/v3/models", {}, b"", 404),
        ("GET", "/openai/v1/models/../x", {}, b"", 404),
        ("POST", GENERATE, {"content-type": "text/plain"}, b"{}", 415),
        ("POST", GENERATE, {"content-type": "application/x-www-form-urlencoded"}, b"{}", 415),
        ("POST", GENERATE, {"content-encoding": "gzip"}, b"{}", 415),
        ("POST", GENERATE, {"content-length": "99999999999"}, b"{}", 413),
        ("POST", GENERATE, {"content-length": "1_0"}, b"{}", 400),
        ("POST", GENERATE, {}, b"{", 400),
        ("POST", GENERATE, {}, b"", 400),
        ("POST", GENERATE, {}, b"[" * 200_000, 400),
        ("POST", "/anthropic/v1/messages", {}, b"{}", 400),
        ("POST", "/openai/v1/chat/completions", {}, b"{}", 400),
        ("POST", f"{GENERATE}?{'&'.join(['a=1'] * 60)}&key=x", {}, b"{}", 400),
    ],
)
async def test_what_cannot_be_served_is_refused_before_anything_is_sent(
    clock: VirtualClock, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    gateway, transport = scripted_gateway(by_api, clock)
    got = await ask(gateway, method, path, body, headers)
    assert got.status == status
    assert got.json["error"]
    assert got.headers["x-headgate-request-id"]
    assert got.headers.get("allow") == (
        {405: "POST"}.get(status) if method != "POST" else got.headers.get("allow")
    )
    assert not transport.sent


async def test_a_body_without_a_length_is_cut_at_the_cap(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway(by_api, clock, settings=GatewaySettings(max_body_mib=1))
    client = Client(gateway, "POST", GENERATE, pieces=[b"x" * 65_536] * 100)
    got = await client.run()
    assert (got.status, got.headers["connection"]) == (413, "close")
    assert len(client._pieces) > 80, "the rest is not read"
    whole = Client(gateway, "POST", GENERATE, pieces=[b'{"contents":', b"[]", b"}"])
    assert (await whole.run()).status == 200
    assert transport.sent[0].request.body == b'{"contents":[]}'


async def test_an_unknown_provider_is_refused_in_its_own_shape(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway(by_api, clock, environ={"GEMINI_API_KEY": GEMINI_KEYS[0]})
    got = await ask(gateway, "POST", "/anthropic/v1/messages", CLAUDE)
    assert (got.status, got.json["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.test"},
        {"host": "evil.test:8080"},
        {"host": "127.0.0.1.evil.test"},
        {"host": "127.0.0.1/x?"},
        {"origin": "https://evil.test"},
        {"origin": "null"},
    ],
)
async def test_without_callers_no_web_page_gets_in(
    clock: VirtualClock, headers: dict[str, str]
) -> None:
    """Not by a name that points to loopback, nor by a form from elsewhere (X-4)."""
    gateway, transport = scripted_gateway(by_api, clock)
    if headers.get("host") == "127.0.0.1/x?":
        headers = {"host": "127.0.0.1/x?", "origin": "http://x"}
    got = await ask(gateway, "POST", GENERATE, BODY, headers)
    assert got.status == 403
    assert (await ask(gateway, "GET", "/metrics", b"", headers)).status == 403
    assert not transport.sent
    open_gateway, _ = scripted_gateway(by_api, clock, settings=WITH_CALLERS)
    got = await ask(open_gateway, "POST", GENERATE, BODY, {**headers, "x-goog-api-key": CALLER_KEY})
    assert got.status == 200


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "[::1]:8080", "127.0.0.2", "app.localhost"]
)
async def test_this_machine_gets_in_under_each_of_its_names(clock: VirtualClock, host: str) -> None:
    gateway, _ = scripted_gateway(by_api, clock)
    assert (await ask(gateway, "POST", GENERATE, BODY, {"host": host})).status == 200


async def test_more_calls_than_it_may_serve_are_refused_at_once(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway(
        [Answer(body=said().body, delay=5.0)], clock, settings=GatewaySettings(max_calls=2)
    )
    tasks = [asyncio.ensure_future(ask(gateway, "POST", GENERATE, BODY)) for _ in range(3)]
    statuses = sorted([(await task).status for task in tasks])
    assert statuses == [200, 200, 503]
    assert len(transport.sent) == 2
    assert (await ask(gateway, "POST", GENERATE, BODY)).status == 200


async def test_every_answer_forbids_caches_between(clock: VirtualClock) -> None:
    """Security item X-23, on every route and for every kind of answer."""
    gateway, _ = scripted_gateway(by_api, clock, settings=WITH_CALLERS)
    key = {"x-goog-api-key": CALLER_KEY}
    asked = [
        ("GET", "/livez", b"", {}),
        ("GET", "/readyz", b"", {}),
        ("GET", "/metrics", b"", key),
        ("GET", "/metrics", b"", {}),
        ("GET", "/nothing", b"", {}),
        ("GET", "/gemini/v1beta/models", b"", key),
        ("POST", GENERATE, BODY, key),
        ("POST", GENERATE, BODY, {}),
        ("POST", "/anthropic/v1/messages", CLAUDE, key),
        ("POST", "/openai/v1/chat/completions", {}, key),
    ]
    for method, path, body, headers in asked:
        got = await ask(gateway, method, path, body, headers)
        assert got.headers["cache-control"] == "no-store", path
        assert "authorization" in got.headers["vary"], path
        assert got.headers["x-content-type-options"] == "nosniff", path


WORDS = st.sampled_from(
    ["v1", "v1beta", "models", "gemini", "anthropic", "openai", "messages", "chat", "completions",
     "embeddings", "count_tokens", "livez", "metrics", "models:x", MODEL, f"{MODEL}:generateContent",
     "..", "%2e", "é", "a:b", "\x00", ""]
)  # fmt: skip
NAMES = st.sampled_from(
    ["content-type", "content-length", "content-encoding", "authorization", "x-api-key", "host",
     "origin", "x-goog-api-key", "anthropic-version", "x-headgate-priority", "x-headgate-timeout",
     "user-agent", "x-server-timeout", "x-stainless-timeout"]
)  # fmt: skip
VALUES = st.text(st.characters(max_codepoint=255), max_size=20) | st.sampled_from(
    ["application/json", "0", "1e309", "nan", "-1", "9" * 20, "localhost", "Bearer ", "gzip"]
)
BODIES = st.binary(max_size=60) | st.sampled_from(
    [b"{}", b"[]", b"null", b'{"model":"m","stream":true}', b'{"contents":{}}', b'{"requests":[[[]]]}']
)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "TRACE"]),
    words=st.lists(WORDS, max_size=6),
    query=st.text(st.characters(codec="ascii"), max_size=30),
    headers=st.dictionaries(NAMES, VALUES, max_size=5),
    body=BODIES,
)
def test_no_request_whatever_brings_out_a_fault(
    method: str, words: list[str], query: str, headers: dict[str, str], body: bytes
) -> None:
    clock = VirtualClock()

    async def main() -> None:
        gateway, transport = scripted_gateway(by_api, clock)
        path = "/" + "/".join(word.replace("?", "") for word in words)
        got = await ask(gateway, method, f"{path}?{query}", body, headers)
        assert got.status in (200, 400, 401, 403, 404, 405, 413, 415, 502, 504), got.status
        assert got.ended
        assert all(
            "evil" not in sent.request.url and " " not in sent.request.url for sent in transport.sent
        )
        await settled(gateway, transport)

    clock.run(main())


# ── going away ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", [GENERATE, STREAM])
@pytest.mark.parametrize("after", [0.5, 1.5])
async def test_a_client_that_goes_away_takes_its_call_with_it(
    clock: VirtualClock, path: str, after: float
) -> None:
    """trust.md 1.7 and F29: before the first token and in mid-stream; at once, and nothing stays."""
    ear = Ear()
    slow = (
        Answer(body=said().body, delay=9.0)
        if path == GENERATE
        else stream("a", "b", "c", piece_delay=1.0)
    )
    gateway, transport = scripted_gateway([slow], clock, observers=[ear])
    client = Client(gateway, "POST", path, BODY)
    task = asyncio.ensure_future(client.run())
    await clock.sleep(after)
    client.go_away()
    await task
    assert clock.monotonic() == after
    assert not client.got.ended
    assert [record.error for record in ear.calls] == ["cancelled"]
    await settled(gateway, transport)


async def test_a_client_that_goes_away_while_its_call_waits_gives_up_its_place(
    clock: VirtualClock,
) -> None:
    """F29: during a wait for quota, and before a retry."""
    environ = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|only"}
    for answers in ([quota("Minute", "30s")], [overloaded()]):
        gateway, transport = scripted_gateway(answers, clock, environ=environ)
        client = Client(gateway, "POST", GENERATE, BODY)
        task = asyncio.ensure_future(client.run())
        while not transport.sent:
            await clock.sleep(0.001)
        client.go_away()
        await task
        assert not client.got.status
        await settled(gateway, transport)


async def test_a_client_that_goes_away_within_its_body_is_forgotten(clock: VirtualClock) -> None:
    gateway, transport = scripted_gateway([said()], clock)
    client = Client(gateway, "POST", GENERATE, pieces=[b'{"contents"', b"never"])
    client._pieces = [b'{"contents"', b"x"]

    async def receive() -> dict[str, Any]:
        if len(client._pieces) > 1:
            return {"type": "http.request", "body": client._pieces.pop(0), "more_body": True}
        return {"type": "http.disconnect"}

    await gateway(client._scope, receive, client._send)
    assert not client.got.status
    assert not transport.sent
    await settled(gateway, transport)


# ── shutting down ───────────────────────────────────────────────────────────────────────────────


async def test_what_is_cut_at_the_end_is_told_so_in_the_surfaces_words(clock: VirtualClock) -> None:
    """trust.md 1.5: a stream ends with a typed error event, anything else is refused."""
    slow = stream("a", "b", "c", piece_delay=1.0)
    gateway, transport = scripted_gateway(
        lambda sent: slow if sent.request.streaming else Answer(delay=60.0), clock
    )
    streaming, whole = Client(gateway, "POST", STREAM, BODY), Client(gateway, "POST", GENERATE, BODY)
    tasks = [asyncio.ensure_future(client.run()) for client in (streaming, whole)]
    await clock.sleep(1.5)
    gateway.visits.stop()
    for task in tasks:
        await task
    assert streaming.got.body.startswith(slow.pieces[0] + b'data: {"error":{"code":503,')
    assert streaming.got.ended
    assert (whole.got.status, whole.got.headers["x-should-retry"]) == (503, "true")
    await settled(gateway, transport)


async def test_while_it_drains_it_serves_on_and_sends_clients_elsewhere(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([said()], clock)
    gateway.draining = True
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.headers["connection"]) == (200, "close")
    assert (await ask(gateway, "GET", "/readyz")).status == 503
    assert (await ask(gateway, "GET", "/livez")).status == 200
    gateway.refusing = True
    got = await ask(gateway, "POST", GENERATE, BODY)
    assert (got.status, got.headers["x-should-retry"], got.headers["retry-after"]) == (503, "true", "1")


# ── health ──────────────────────────────────────────────────────────────────────────────────────


async def test_it_is_ready_as_long_as_a_key_may_be_used(clock: VirtualClock) -> None:
    environ = {"GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|only"}
    gateway, _ = scripted_gateway([quota("Minute", "30s"), bad_key()], clock, environ=environ)
    got = await ask(gateway, "GET", "/readyz")
    assert (got.status, got.json) == (200, {"status": "ready", "upstreams": {"gemini": "ready"}})
    await ask(gateway, "POST", GENERATE, BODY, {"x-headgate-timeout": "1"})
    assert (await ask(gateway, "GET", "/readyz")).status == 200, "a key that cools down comes back"
    await clock.sleep(60)
    await ask(gateway, "POST", GENERATE, BODY)
    got = await ask(gateway, "GET", "/readyz")
    assert (got.status, got.json["status"]) == (503, "no usable key")


async def test_only_what_is_public_answers_without_a_credential(clock: VirtualClock) -> None:
    """Security item X-11: deny by default, and the public list is a literal."""
    assert PUBLIC_PATHS == ("/livez", "/readyz")
    gateway, _ = scripted_gateway(by_api, clock, settings=WITH_CALLERS)
    for path in PUBLIC_PATHS:
        assert (await ask(gateway, "GET", path)).status == 200
        assert (await ask(gateway, "POST", path)).status == 405
    assert (await ask(gateway, "GET", "/metrics")).status == 401
    for method, path in (("GET", "/gemini/v1beta/models"), ("GET", "/anthropic/v1/models"),
                         ("GET", "/openai/v1/models"), ("POST", GENERATE)):  # fmt: skip
        assert (await ask(gateway, method, path)).status == 401


async def test_metrics_name_keys_and_show_none(clock: VirtualClock) -> None:
    gateway, _ = scripted_gateway([said()], clock, settings=WITH_CALLERS)
    await ask(gateway, "POST", GENERATE, BODY, {"x-goog-api-key": CALLER_KEY})
    got = await ask(gateway, "GET", "/metrics", b"", {"authorization": f"Bearer {CALLER_KEY}"})
    text = got.body.decode()
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'headgate_key_requests_total{key="k0",outcome="success"} 1.0' in text
    assert 'headgate_claude_key_active{key="k1"' in text
    assert "CANARY" not in text


async def test_what_is_no_http_is_left_alone(clock: VirtualClock) -> None:
    gateway = gateway_over(clock)

    async def never(*_: object) -> Any:
        raise AssertionError("nothing is to be read or sent")

    await gateway({"type": "websocket"}, never, never)


def test_reply_is_what_the_tests_take_it_for() -> None:
    assert reply()["usageMetadata"]["promptTokenCount"] == 5
