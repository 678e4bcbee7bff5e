"""The Anthropic wire: what is written, and what recorded replies and streams are read as."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

import pytest

from headgate.core.call import Blob, Call, Chunk, Operation, Reply, Usage
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event
from headgate.providers.anthropic import AnthropicProvider
from headgate.transport.sse import SseDecoder

DATA = Path(__file__).parents[1] / "data" / "anthropic"
ROWS = [json.loads(line) for line in (DATA / "recorded.jsonl").read_text("utf-8").splitlines()]
MESSAGES = [r for r in ROWS if "content" in r["response"].get("json", {})]
STREAMS = [r for r in ROWS if "text" in r["response"]]
PROVIDER = AnthropicProvider("https://example.test/", "2023-06-01")
NEW = AnthropicProvider("https://example.test", "2026-10-21")
HI = Call(Operation.GENERATE, "m", ("hi",), {"max_tokens": 9})


def ids(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


async def read(*pieces: bytes) -> list[Chunk | Outcome]:
    async def events() -> AsyncGenerator[Event]:
        decoder = SseDecoder()
        for piece in pieces:
            for event in decoder.feed(piece):
                yield event
        for event in decoder.end():
            yield event

    return [item async for item in PROVIDER.chunks(events())]


def framed(*events: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: " + e["type"].encode() + b"\ndata: " + json.dumps(e).encode() + b"\n\n" for e in events
    )


START = {"type": "message_start", "message": {"model": "m-1", "usage": {"input_tokens": 5}}}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
WORD = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
DONE = {"type": "content_block_stop", "index": 0}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
STOP = {"type": "message_stop"}
OVERLOADED = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded"},
    "request_id": "req_1",
}


# ── recorded ─────────────────────────────────────────────────────────────────


def test_the_selection_has_every_shape() -> None:
    kinds = {block["type"] for row in MESSAGES for block in row["response"]["json"]["content"]}
    assert {"text", "tool_use", "thinking", "server_tool_use", "mcp_tool_use"} <= kinds
    assert len(STREAMS) >= 5
    assert any("retry-after" in row["response"]["headers"] for row in MESSAGES)


@pytest.mark.parametrize("row", MESSAGES, ids=ids(MESSAGES))
def test_a_recorded_message_is_read_whole(row: dict[str, Any]) -> None:
    sent = row["response"]["json"]
    reply = PROVIDER.read(HI, json.dumps(sent).encode())
    assert isinstance(reply, Reply)
    assert list(reply.content) == sent["content"]
    assert reply.text == "".join(b["text"] for b in sent["content"] if b["type"] == "text")
    assert (reply.model, reply.finish_reason, reply.upstream_id) == (
        sent["model"],
        sent["stop_reason"],
        sent["id"],
    )
    usage = sent["usage"]
    read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    assert reply.usage.prompt == usage["input_tokens"] + read + written
    assert (reply.usage.cached, reply.usage.cache_write) == (read, written)
    assert reply.usage.output + reply.usage.thoughts == usage["output_tokens"]
    assert reply.usage.total == usage["input_tokens"] + read + written + usage["output_tokens"]


@pytest.mark.parametrize("row", STREAMS, ids=ids(STREAMS))
async def test_a_recorded_stream_is_read_whole(row: dict[str, Any]) -> None:
    raw = row["response"]["text"].encode()
    items = await read(*(raw[at : at + 97] for at in range(0, len(raw), 97)))
    assert all(isinstance(item, Chunk) for item in items)
    events = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: ")]
    deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    said = "".join(item.text for item in items if isinstance(item, Chunk))
    assert said == "".join(d["text"] for d in deltas if d["type"] == "text_delta")
    blocks = [block for item in items if isinstance(item, Chunk) for block in item.content]
    starts = [e["content_block"]["type"] for e in events if e["type"] == "content_block_start"]
    assert [block["type"] for block in blocks] == starts
    last = items[-1]
    assert isinstance(last, Chunk)
    (end,) = [e for e in events if e["type"] == "message_delta"]
    assert last.finish_reason == end["delta"]["stop_reason"]
    assert last.usage is not None
    assert last.usage.output + last.usage.thoughts == end["usage"]["output_tokens"]
    assert last.usage.prompt == sum(
        end["usage"][name]
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    )


# ── streams ──────────────────────────────────────────────────────────────────


async def test_a_stream_says_text_blocks_usage_and_reason() -> None:
    usage, early = Usage(prompt=5, output=2), Usage(prompt=5)
    assert await read(framed(START, BLOCK, {"type": "ping"}, WORD, DONE, END, STOP)) == [
        Chunk("Hi", (), None, early, "m-1"),
        Chunk("", (), None, early, "m-1", ({"type": "text", "text": "Hi"},)),
        Chunk("", (), "end_turn", usage, "m-1"),
    ]


async def test_a_tool_call_comes_whole_even_where_it_is_cut() -> None:
    block = {"type": "tool_use", "id": "t", "name": "n", "input": {}}

    def piece(text: str) -> dict[str, Any]:
        delta = {"type": "input_json_delta", "partial_json": text}
        return {"type": "content_block_delta", "index": 0, "delta": delta}

    start = {"type": "content_block_start", "index": 0, "content_block": block}
    whole, *_ = await read(
        framed(START, start, piece(""), piece('{"x":'), piece("1}"), DONE, END, STOP)
    )
    cut, *_ = await read(framed(START, start, piece('{"x":'), DONE, END, STOP))
    empty, *_ = await read(framed(START, start, piece(""), DONE, END, STOP))
    assert [item.content[0]["input"] for item in (whole, cut, empty)] == [{"x": 1}, '{"x":', {}]  # type: ignore[union-attr]


@pytest.mark.parametrize("events", [[], [START], [START, BLOCK, WORD], [START, BLOCK, WORD, DONE, END]])
async def test_a_stream_without_message_stop_was_cut(events: list[dict[str, Any]]) -> None:
    *_, last = await read(framed(*events))
    assert isinstance(last, Outcome)
    assert last.kind is Kind.PROTOCOL
    assert last.usage == (Usage() if not events else Usage(5, 2 if END in events else 0))


async def test_an_error_in_a_stream_is_typed_and_keeps_what_was_used() -> None:
    *said, last = await read(framed(START, BLOCK, WORD, OVERLOADED, STOP))
    assert len(said) == 1
    assert last == Outcome(
        Kind.OVERLOAD, "Overloaded (req_1).", 529, usage=Usage(prompt=5), upstream_id="req_1"
    )


async def test_an_error_before_the_first_word_comes_alone() -> None:
    (only,) = await read(framed(START, BLOCK, OVERLOADED))
    assert isinstance(only, Outcome)


@pytest.mark.parametrize(
    ("tail", "kind"),
    [
        (b"data: {\n\n", Kind.PROTOCOL),
        (b"<html>\n\n", Kind.PROTOCOL),
        (json.dumps(OVERLOADED).encode() + b"\n\n", Kind.OVERLOAD),
    ],
)
async def test_what_is_no_event_ends_the_stream(tail: bytes, kind: Kind) -> None:
    *_, last = await read(framed(START, BLOCK, WORD) + tail)
    assert isinstance(last, Outcome)
    assert last.kind is kind


async def test_unknown_events_deltas_and_a_late_done_pass() -> None:
    strange = {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", "x": 1}}
    lost = {"type": "content_block_delta", "index": 7, "delta": {"type": "thinking_delta"}}
    news = {"type": "news", "index": None}
    items = await read(
        framed(START, news, BLOCK, strange, lost, WORD, DONE, END, STOP) + b"data: [DONE]\n\n"
    )
    assert [item.text for item in items if isinstance(item, Chunk)] == ["Hi", "", ""]
    assert len(items) == 3


async def test_a_refusal_is_blocked_whole_and_streamed() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": None}
    end = {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}}
    *_, streamed = await read(framed(START, BLOCK, WORD, DONE, end, STOP))
    body = {"type": "message", "content": [], "stop_reason": "refusal", "stop_details": details}
    whole = PROVIDER.read(HI, json.dumps(body).encode())
    for outcome in (streamed, whole):
        assert isinstance(outcome, Outcome)
        assert (outcome.kind, outcome.message) == (Kind.BLOCKED, "The model refused to answer (bio).")


# ── whole replies ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"<html>", b'{"type":"message"}', b"\xff"])
def test_a_200_that_is_no_message_is_malformed(body: bytes) -> None:
    outcome = PROVIDER.read(HI, body)
    assert isinstance(outcome, Outcome)
    assert outcome.kind is Kind.PROTOCOL


def test_an_error_inside_a_200_is_one() -> None:
    outcome = PROVIDER.read(HI, json.dumps(OVERLOADED).encode())
    assert isinstance(outcome, Outcome)
    assert outcome.kind is Kind.OVERLOAD


def test_an_empty_answer_and_nulls_are_an_answer() -> None:
    body = {"type": "message", "content": [], "stop_reason": "end_turn", "usage": None, "model": None}
    assert PROVIDER.read(HI, json.dumps(body).encode()) == Reply(finish_reason="end_turn")


def test_what_is_kept_for_an_hour_is_told_apart() -> None:
    usage = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 7},
    }
    reply = PROVIDER.read(HI, json.dumps({"content": [], "usage": usage}).encode())
    assert isinstance(reply, Reply)
    assert reply.usage == Usage(111, 2, 7, 100, 0, 10, 6)


# ── writing ──────────────────────────────────────────────────────────────────


def test_a_prompt_becomes_one_message() -> None:
    request = PROVIDER.write(HI, "model-x")
    assert request.url == "https://example.test/v1/messages"
    assert dict(request.headers) == {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
    }
    assert json.loads(request.body) == {
        "model": "model-x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_media_betas_and_extra_fields_find_their_places() -> None:
    parts = ("Look:", Blob("image/png", b"x"), Blob("application/pdf", b"y"))
    options = {"max_tokens": 1, "betas": ["a-1", "b-2"], "extra_body": {"new": True}}
    request = PROVIDER.write(Call(Operation.STREAM, "m", parts, options), "m")
    body = json.loads(request.body)
    assert request.headers["anthropic-beta"] == "a-1,b-2"
    assert (body["new"], body["stream"], request.streaming) == (True, True, True)
    text, image, document = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "Look:"}
    assert image["source"] == {"type": "base64", "media_type": "image/png", "data": "eA=="}
    assert document["type"] == "document"


def test_whether_it_streams_is_said_by_the_call_alone() -> None:
    options = {"max_tokens": 1, "extra_body": {"stream": True}}
    request = PROVIDER.write(Call(Operation.GENERATE, "m", ("hi",), options), "m")
    assert "stream" not in json.loads(request.body)


def test_a_conversation_travels_as_it_is() -> None:
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "new"}]})
    call = Call(Operation.GENERATE, "m", (), {"max_tokens": 1}, messages=turns)
    assert json.loads(PROVIDER.write(call, "m").body)["messages"] == list(turns)


def test_counting_sends_what_shapes_the_prompt_and_reads_the_number() -> None:
    options = {"max_tokens": 9, "system": "Be brief.", "temperature": 1, "betas": ["a"], "metadata": {}}
    call = Call(Operation.COUNT, "m", ("hi",), options)
    for provider in (PROVIDER, NEW):
        request = provider.write(call, "m")
        assert request.url.endswith("/v1/messages/count_tokens")
        assert request.headers["anthropic-beta"] == "a"
        assert set(json.loads(request.body)) == {"model", "messages", "system"}
    assert PROVIDER.read(call, b'{"input_tokens": 14}') == Reply(tokens=14)
    for body in (b"{}", b"<html>", b'{"input_tokens": null}'):
        got = PROVIDER.read(call, body)
        assert isinstance(got, Outcome)
        assert got.kind is Kind.PROTOCOL
    overloaded = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    failed = PROVIDER.read(call, overloaded)
    assert isinstance(failed, Outcome)
    assert failed.kind is Kind.OVERLOAD


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_the_new_version_takes_no_sampling(name: str) -> None:
    call = Call(Operation.GENERATE, "m", ("hi",), {"max_tokens": 9, name: 1})
    assert json.loads(PROVIDER.write(call, "m").body)[name] == 1
    with pytest.raises(InvalidCallError, match=f"2026-10-21 takes no {name}"):
        NEW.write(call, "m")


@pytest.mark.parametrize(
    "call",
    [
        Call(Operation.GENERATE, "m", (), {"max_tokens": 1}),
        Call(Operation.GENERATE, "m", ("hi",)),
        Call(Operation.GENERATE, "m", ("\ud800",), {"max_tokens": 1}),
        Call(Operation.GENERATE, "m", (Blob("audio/mp3", b"x"),), {"max_tokens": 1}),
        Call(Operation.GENERATE, "m", ("hi",), {"max_tokens": 1, "metadata": object()}),
        Call(Operation.GENERATE, "m", ("hi",), {"max_tokens": 1, "betas": ["a\nb"]}),
        Call(Operation.EMBED, "m", ("hi",), {"max_tokens": 1}),
    ],
)
def test_what_cannot_be_sent_is_refused_before(call: Call) -> None:
    with pytest.raises(InvalidCallError):
        PROVIDER.write(call, "m")
