"""Raw calls: bytes pass both ways, and of what they say policy reads the same as of other calls."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.call import Call, Chunk, Operation, Raw, Reply, Usage
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event, Provider
from headgate.providers import anthropic_raw, gemini_raw
from headgate.providers.anthropic import AnthropicProvider
from headgate.providers.gemini import GeminiProvider
from headgate.transport.sse import SseDecoder

DATA = Path(__file__).parents[1] / "data"
GEMINI = GeminiProvider("https://gemini.test")
CLAUDE = AnthropicProvider("https://claude.test", "2023-06-01")


def rows(provider: str, tail: str, status: int = 200) -> list[dict[str, Any]]:
    lines = (DATA / provider / "recorded.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [
        row
        for row in found
        if row["request"]["path"].endswith(tail) and row["response"]["status"] == status
    ]


def raw_call(operation: Operation, body: bytes = b"{}", model: str = "m", path: str = "/p") -> Call:
    return Call(operation, model, (), raw=Raw("POST", path, model, {"user-agent": "x"}, body))


async def as_events(*pieces: bytes) -> AsyncGenerator[Event]:
    decoder = SseDecoder()
    for piece in pieces:
        for event in decoder.feed(piece):
            yield event
    for event in decoder.end():
        yield event


def streamed(provider: Provider, *pieces: bytes, raw: bool = True) -> list[Chunk | Outcome]:
    async def collect() -> list[Chunk | Outcome]:
        return [item async for item in provider.chunks(as_events(*pieces), raw=raw)]

    return asyncio.run(collect())


def bytes_of(items: list[Chunk | Outcome]) -> bytes:
    return b"".join(item.raw for item in items if isinstance(item, Chunk))


def body_of(response: dict[str, Any]) -> bytes:
    text: str = response["text"] if "text" in response else json.dumps(response["json"])
    return text.encode()


# ── whole answers ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("row", rows("gemini", ":generateContent"), ids=lambda row: row["id"])
def test_a_recorded_answer_of_gemini_is_read_alike_raw_and_not(row: dict[str, Any]) -> None:
    body = body_of(row["response"])
    raw = GEMINI.read(raw_call(Operation.GENERATE), body)
    known = GEMINI.read(Call(Operation.GENERATE, "m", ("hi",)), body)
    assert raw.usage == known.usage
    if isinstance(known, Reply):
        assert isinstance(raw, Reply)
        assert (raw.finish_reason, raw.model) == (known.finish_reason, known.model)
        assert raw.text == ""  # nobody needs it


def claude_messages() -> list[dict[str, Any]]:
    found = rows("anthropic", "/v1/messages")
    return [row for row in found if not row["request"]["json"].get("stream")]


@pytest.mark.parametrize("row", claude_messages(), ids=lambda row: row["id"])
def test_a_recorded_answer_of_claude_is_read_alike_raw_and_not(row: dict[str, Any]) -> None:
    body = body_of(row["response"])
    raw = CLAUDE.read(raw_call(Operation.GENERATE), body)
    known = CLAUDE.read(Call(Operation.GENERATE, "m", ("hi",)), body)
    assert isinstance(raw, Reply)
    assert isinstance(known, Reply)
    assert (raw.usage, raw.finish_reason, raw.model) == (known.usage, known.finish_reason, known.model)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "PROHIBITED_CONTENT"),
        ({"candidates": [{"content": {}, "finishReason": "SAFETY"}]}, "SAFETY"),
        ({"candidates": [{"finishReason": "RECITATION"}]}, "RECITATION"),
        ({"candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}]}, "STOP"),
    ],
)
def test_what_gemini_withheld_is_an_answer_for_who_asked_raw(body: object, reason: str) -> None:
    usage = {"usageMetadata": {"promptTokenCount": 7}}
    reply = GEMINI.read(raw_call(Operation.GENERATE), json.dumps({**usage, **body}).encode())  # type: ignore[dict-item]
    assert isinstance(reply, Reply)
    assert (reply.finish_reason, reply.usage.prompt) == (reason, 7)
    assert isinstance(
        GEMINI.read(Call(Operation.GENERATE, "m", ("hi",)), json.dumps(body).encode()), Outcome
    )


@pytest.mark.parametrize(
    ("provider", "body", "kind"),
    [
        (GEMINI, b"<html>", Kind.PROTOCOL),
        (GEMINI, b"{}", Kind.PROTOCOL),
        (GEMINI, b'{"candidates":[{"cont', Kind.PROTOCOL),
        (GEMINI, b"[" * 100_000, Kind.PROTOCOL),
        (
            GEMINI,
            b'{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}',
            Kind.OVERLOAD,
        ),
        (CLAUDE, b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', Kind.OVERLOAD),
        (CLAUDE, b"{}", Kind.PROTOCOL),
        (CLAUDE, b'{"content":', Kind.PROTOCOL),
    ],
)
def test_a_200_without_an_answer_is_a_failure_raw_too(
    provider: Provider, body: bytes, kind: Kind
) -> None:
    outcome = provider.read(raw_call(Operation.GENERATE), body)
    assert isinstance(outcome, Outcome)
    assert outcome.kind is kind


# ── streams ─────────────────────────────────────────────────────────────────────────────────────


def cuts(body: bytes) -> list[tuple[bytes, ...]]:
    third = len(body) // 3
    return [(body,), (body[:third], body[third:]), tuple(body[at : at + 1] for at in range(len(body)))]


@pytest.mark.parametrize("row", rows("gemini", ":streamGenerateContent"), ids=lambda row: row["id"])
def test_a_recorded_stream_of_gemini_passes_byte_for_byte(row: dict[str, Any]) -> None:
    body = body_of(row["response"])
    known = streamed(GEMINI, body, raw=False)
    for pieces in cuts(body):
        items = streamed(GEMINI, *pieces)
        assert bytes_of(items) == body
        assert not [item for item in items if isinstance(item, Outcome)]
        usages = [item.usage for item in items if item.usage is not None]
        assert usages[-1:] == [item.usage for item in known if item.usage is not None][-1:]


def claude_streams() -> list[dict[str, Any]]:
    found = rows("anthropic", "/v1/messages")
    return [row for row in found if row["request"]["json"].get("stream")]


@pytest.mark.parametrize("row", claude_streams(), ids=lambda row: row["id"])
def test_a_recorded_stream_of_claude_passes_byte_for_byte(row: dict[str, Any]) -> None:
    body = body_of(row["response"])
    known = streamed(CLAUDE, body, raw=False)
    for pieces in cuts(body):
        items = streamed(CLAUDE, *pieces)
        assert bytes_of(items) == body
        assert not [item for item in items if isinstance(item, Outcome)]
        assert items[-1].usage == known[-1].usage


def claude_event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


START = claude_event("message_start", message={"model": "m", "usage": {"input_tokens": 4}})
BEGIN = claude_event("content_block_start", index=0, content_block={"type": "text", "text": ""})
PING = claude_event("ping")
DELTA = claude_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"})
ERROR = claude_event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def test_of_claude_nothing_passes_before_the_model_has_said_something() -> None:
    """So that an error until then may be tried elsewhere; what was held back comes with the first."""
    (outcome,) = streamed(CLAUDE, START, BEGIN, PING, ERROR)
    assert isinstance(outcome, Outcome)
    assert (outcome.kind, outcome.usage) == (Kind.OVERLOAD, Usage(prompt=4))
    first, last = streamed(CLAUDE, START, b": hello\n\n", BEGIN, PING, DELTA, ERROR)
    assert isinstance(first, Chunk)
    assert first.raw == START + b": hello\n\n" + BEGIN + PING + DELTA
    assert isinstance(last, Outcome)


@pytest.mark.parametrize(
    ("tail", "kind"),
    [
        (b"", Kind.PROTOCOL),
        (b'{\n  "error": {"code": 503, "message": "high demand", "status": "UNAVAILABLE"}\n}\n',
         Kind.OVERLOAD),
        (b'data: {"error":{"code":503,"message":"high demand","status":"UNAVAILABLE"}}\r\n\r\n',
         Kind.OVERLOAD),
        (b'data: {"candidates":[],"error":{"code":500,"message":"x","status":"INTERNAL"}}\r\n\r\n',
         Kind.SERVER),
        (b'data: {"candidates": [{"con', Kind.PROTOCOL),
        (b"data: nonsense\r\n\r\n", Kind.PROTOCOL),
    ],
    ids=["silent end", "bare", "prefixed", "late key", "half", "no JSON"],
)  # fmt: skip
def test_a_stream_of_gemini_that_breaks_says_so(tail: bytes, kind: Kind) -> None:
    """Point 5 of what is most often got wrong: four ways to fail after a 200."""
    piece = (
        b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}],'
        b'"usageMetadata":{"promptTokenCount":3}}\r\n\r\n'
    )
    *said, outcome = streamed(GEMINI, piece, tail)
    assert bytes_of(said) == piece
    assert isinstance(outcome, Outcome)
    assert outcome.kind is kind


def test_a_prompt_that_is_blocked_in_a_stream_ends_it_properly() -> None:
    blocked = (
        b'data: {"promptFeedback":{"blockReason":"SAFETY"},'
        b'"usageMetadata":{"promptTokenCount":3}}\r\n\r\n'
    )
    (chunk,) = streamed(GEMINI, blocked)
    assert isinstance(chunk, Chunk)
    assert (chunk.finish_reason, chunk.raw) == ("SAFETY", blocked)


def test_comments_and_what_proxies_add_pass_too() -> None:
    body = (
        b": hello\r\n\r\ndata: "
        b'{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}'
        b"\r\n\r\ndata: [DONE]\r\n\r\n: bye\r\n\r\n\r\n"
    )
    items = streamed(GEMINI, body)
    assert bytes_of(items) == body
    assert all(isinstance(item, Chunk) for item in items)


# ── what is sent ────────────────────────────────────────────────────────────────────────────────


@given(body=st.binary(max_size=200))
def test_a_body_is_sent_as_it_came(body: bytes) -> None:
    for provider in (GEMINI, CLAUDE):
        call = raw_call(Operation.GENERATE, body, "m", "/v1/models/m:generateContent")
        request = provider.write(call, "m")
        assert request.body == body
        assert request.method == "POST"
        assert request.url.endswith(".test/v1/models/m:generateContent")
        assert request.headers["user-agent"] == "x"


def test_a_model_that_goes_by_another_name_is_named_so_and_nothing_else_changes() -> None:
    body = (
        b'{"generateContentRequest":{ "model":"models/old","contents":[{"parts":[{"text":"old"}]}]} }'
    )
    call = raw_call(Operation.COUNT, body, "old", "/v1beta/models/old:countTokens")
    request = GEMINI.write(call, "new")
    assert request.url == "https://gemini.test/v1beta/models/new:countTokens"
    assert request.body == body.replace(b"models/old", b"models/new")
    call = raw_call(Operation.STREAM, b'{"model":"old","x":"old"}', "old", "/v1/messages?beta=true")
    request = CLAUDE.write(call, "new")
    assert request.url == "https://claude.test/v1/messages?beta=true"
    assert (request.body, request.streaming) == (b'{"model":"new","x":"old"}', True)


def test_the_callers_version_of_the_api_goes_before_ours() -> None:
    assert CLAUDE.write(raw_call(Operation.GENERATE), "m").headers["anthropic-version"] == "2023-06-01"
    raw = Raw("POST", "/v1/messages", "m", {"anthropic-version": "2026-10-21"}, b"{}")
    headers = CLAUDE.write(Call(Operation.GENERATE, "m", (), raw=raw), "m").headers
    assert headers["anthropic-version"] == "2026-10-21"


# ── what a call weighs ──────────────────────────────────────────────────────────────────────────

TEXT = "How does a headgate share irrigation water among the fields of a valley? " * 4


def test_both_casings_weigh_the_same() -> None:
    """Point 2 of what is most often got wrong."""
    said = {"parts": [{"text": TEXT}]}
    camel = {"contents": [said], "systemInstruction": said, "generationConfig": {"maxOutputTokens": 9}}
    snake = {
        "contents": [said],
        "system_instruction": said,
        "generation_config": {"max_output_tokens": 9},
    }
    mixed = {
        "contents": [said],
        "system_instruction": said,
        "generationConfig": {"max_output_tokens": 9},
    }
    weights = [
        gemini_raw.weigh(Operation.GENERATE, json.dumps(b).encode()) for b in (camel, snake, mixed)
    ]
    assert weights[0] == weights[1] == weights[2]
    assert weights[0].most_output == 9
    assert 2 * len(TEXT) // 8 < weights[0].tokens < 2 * len(TEXT) // 3
    assert weights[0].ceiling >= 2 * len(TEXT)


@pytest.mark.parametrize("casing", [("inlineData", "mimeType"), ("inline_data", "mime_type")])
def test_a_picture_weighs_as_a_picture_not_as_its_bytes(casing: tuple[str, str]) -> None:
    data = b64encode(bytes(300_000)).decode()
    body = {
        "contents": [
            {"parts": [{"text": "what?"}, {casing[0]: {casing[1]: "image/png", "data": data}}]}
        ]
    }
    weight = gemini_raw.weigh(Operation.GENERATE, json.dumps(body).encode())
    assert 1000 < weight.tokens < 1300
    assert weight.ceiling < 3000
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    claude = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [block]}]}
    asked = anthropic_raw.survey(json.dumps(claude).encode())
    assert 1000 < asked.weight.tokens < 1300


def test_each_text_of_a_batch_is_a_request() -> None:
    """Point 17 of what is most often got wrong."""
    body = {"requests": [{"model": "models/m", "content": {"parts": [{"text": "a"}]}}] * 100}
    assert gemini_raw.weigh(Operation.EMBED, json.dumps(body).encode()).requests == 100
    assert gemini_raw.weigh(Operation.EMBED, b'{"content":{"parts":[{"text":"a"}]}}').requests == 1


def test_claude_says_model_stream_and_bound_in_its_body() -> None:
    body = {
        "model": "m",
        "stream": True,
        "max_tokens": 7,
        "messages": [{"role": "user", "content": TEXT}],
    }
    model, streams, weight = anthropic_raw.survey(json.dumps(body).encode())
    assert (model, streams, weight.most_output, weight.cached) == ("m", True, 7, False)
    cached = {**body, "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
    assert anthropic_raw.survey(json.dumps(cached).encode()).weight.cached


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 200_000, b'{"contents":', b"nonsense"])
def test_what_is_no_json_is_refused_before_anything_is_sent(body: bytes) -> None:
    for weigh in (
        lambda: gemini_raw.weigh(Operation.GENERATE, body),
        lambda: gemini_raw.weigh(Operation.EMBED, body),
        lambda: anthropic_raw.survey(body),
    ):
        with pytest.raises(InvalidCallError, match="JSON"):
            weigh()


@pytest.mark.parametrize("body", [b"[]", b"3", b'"text"', b"null"])
def test_what_is_no_object_is_refused_too(body: bytes) -> None:
    with pytest.raises(InvalidCallError, match="JSON object"):
        gemini_raw.weigh(Operation.GENERATE, body)
    with pytest.raises(InvalidCallError, match="JSON object"):
        anthropic_raw.survey(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"contents":7,"unknownField":{"x":[1,2]}}',
        b'{"generationConfig":"none"}',
        b'{"generationConfig":{"maxOutputTokens":"many"}}',
        b'{"contents":[{"parts":[{"text":"a"}]}],"n":123456789012345678901234567890,"m":1e999}',
    ],
)
def test_a_body_of_another_shape_is_the_upstreams_to_refuse(body: bytes) -> None:
    assert gemini_raw.weigh(Operation.GENERATE, body).most_output is None


def test_a_message_that_names_no_model_is_refused() -> None:
    for body in (b"{}", b'{"model":7}', b'{"model":""}'):
        with pytest.raises(InvalidCallError, match="model: Field required"):
            anthropic_raw.survey(body)


def test_a_file_that_failed_is_an_answer_and_an_error_is_none() -> None:
    """A failed file says why in a member of the same name as that of errors."""
    call = raw_call(Operation.LIST)
    failed = b'{"name": "files/a", "state": "FAILED", "error": {"code": 3, "message": "no video"}}'
    assert isinstance(gemini_raw.read(call, failed), Reply)
    assert isinstance(gemini_raw.read(call, b'{"error": {"code": 503, "message": "later"}}'), Outcome)
