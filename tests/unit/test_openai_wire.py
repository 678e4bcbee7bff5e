"""The OpenAI wire: what is written, and what recorded replies and streams are read as."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from headgate.core.call import Blob, Call, Chunk, Key, Operation, Raw, Reply, Role, Turn, Usage
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Detail, Kind, Outcome
from headgate.core.ports import Event
from headgate.providers.openai import OpenAIProvider
from headgate.providers.openai_models import get_request, list_request, read_list, read_model
from headgate.providers.openai_raw import survey
from headgate.transport.sse import SseDecoder

DATA = Path(__file__).parents[1] / "data" / "openai"
ROWS = [json.loads(line) for line in (DATA / "recorded.jsonl").read_text("utf-8").splitlines()]
REPLIES = [row for row in ROWS if "json" in row["response"]]
STREAMS = [row for row in ROWS if "text" in row["response"]]
PROVIDER = OpenAIProvider("https://example.test/v1/")
HI = Call(Operation.GENERATE, "m", ("hi",))


def ids(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


async def read(*pieces: bytes, raw: bool = False) -> list[Chunk | Outcome]:
    async def events() -> AsyncGenerator[Event]:
        decoder = SseDecoder()
        for piece in pieces:
            for event in decoder.feed(piece):
                yield event
        for event in decoder.end():
            yield event

    return [item async for item in PROVIDER.chunks(events(), raw=raw)]


def framed(*events: object) -> bytes:
    return b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
        for event in events
    )


def piece(
    delta: Mapping[str, Any], finish: str | None = None, index: int = 0, **more: Any
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice], **more}


ROLE = piece({"role": "assistant", "content": "", "refusal": None})
WORD, MORE = piece({"content": "He"}), piece({"content": "llo"})
END = piece({}, "stop")
USED = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
USAGE = {"id": "c", "model": "m-1", "choices": [], "usage": USED}
DONE = b"[DONE]"


def said(items: Iterable[Chunk | Outcome]) -> str:
    return "".join(item.text for item in items if isinstance(item, Chunk))


def completion(message: Mapping[str, Any], finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "model": "m-1", "choices": [choice], "usage": USED, **more}).encode()


# ── recorded ─────────────────────────────────────────────────────────────────


def test_the_selection_has_every_shape() -> None:
    finishes = {row["response"]["json"]["choices"][0]["finish_reason"] for row in REPLIES}
    assert finishes == {"stop", "length", "tool_calls"}
    assert len(STREAMS) == 1
    assert any("completion_tokens_details" not in row["response"]["json"]["usage"] for row in REPLIES)


@pytest.mark.parametrize("row", REPLIES, ids=ids(REPLIES))
def test_a_recorded_completion_is_read_whole(row: dict[str, Any]) -> None:
    sent = row["response"]["json"]
    reply = PROVIDER.read(HI, json.dumps(sent).encode())
    assert isinstance(reply, Reply)
    choice, usage = sent["choices"][0], sent["usage"]
    assert reply.content == (choice["message"],)
    assert reply.text == (choice["message"]["content"] or "")
    assert (reply.model, reply.finish_reason, reply.upstream_id) == (
        sent["model"],
        choice["finish_reason"],
        sent["id"],
    )
    assert reply.usage.prompt == usage["prompt_tokens"]
    assert reply.usage.total == usage["total_tokens"]
    details = usage.get("prompt_tokens_details") or {}
    assert reply.usage.cached == details.get("cached_tokens", 0)
    assert reply.usage.cached + reply.usage.cache_write <= reply.usage.prompt


@pytest.mark.parametrize("row", STREAMS, ids=ids(STREAMS))
async def test_a_recorded_stream_is_read_whole(row: dict[str, Any]) -> None:
    raw = row["response"]["text"].encode()
    items = await read(*(raw[at : at + 97] for at in range(0, len(raw), 97)))
    assert all(isinstance(item, Chunk) for item in items)
    assert said(items) == "Paris"
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert chunks[-1].usage == Usage(prompt=40, output=2)
    (message,) = [block for chunk in chunks for block in chunk.content]
    assert message == {"role": "assistant", "content": "Paris"}


# ── streams ──────────────────────────────────────────────────────────────────


async def test_a_stream_says_text_reason_message_and_usage() -> None:
    items = await read(framed(ROLE, WORD, MORE, END, USAGE, DONE))
    message = {"role": "assistant", "content": "Hello"}
    assert items == [
        Chunk("He", model="m-1"),
        Chunk("llo", model="m-1"),
        Chunk("", finish_reason="stop", model="m-1", content=(message,)),
        Chunk("", usage=Usage(5, 2), model="m-1"),
    ]


async def test_nothing_is_handed_on_before_the_model_has_said_something() -> None:
    failed = {"error": {"message": "Sorry", "type": "server_error"}}
    items = await read(framed(ROLE, failed))
    assert [type(item) for item in items] == [Outcome]
    assert isinstance(items[0], Outcome)
    assert items[0].kind is Kind.SERVER


async def test_calls_of_tools_grow_by_their_index() -> None:
    def call(index: int, **more: Any) -> dict[str, Any]:
        return piece({"tool_calls": [{"index": index, **more}]})

    items = await read(
        framed(
            ROLE,
            call(0, id="a", type="function", function={"name": "one", "arguments": ""}),
            call(0, function={"arguments": '{"x"'}),
            call(1, id="b", type="function", function={"name": "two", "arguments": "{}"}),
            call(0, function={"arguments": ": 1}"}),
            piece({}, "tool_calls"),
            DONE,
        )
    )
    (chunk,) = items
    assert isinstance(chunk, Chunk)
    assert chunk.finish_reason == "tool_calls"
    calls = chunk.content[0]["tool_calls"]
    assert calls == [
        {"id": "a", "type": "function", "function": {"name": "one", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "two", "arguments": "{}"}},
    ]


async def test_later_pieces_of_a_call_do_not_take_away_its_name() -> None:
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "one", "arguments": ""}}
    later = {"index": 0, "id": "", "type": "", "function": {"name": "", "arguments": "{}"}}
    items = await read(
        framed(piece({"tool_calls": [first]}), piece({"tool_calls": [later]}), piece({}, "tool_calls"))
    )
    assert isinstance(items[-1], Chunk)
    (call,) = items[-1].content[0]["tool_calls"]
    assert (call["id"], call["function"]) == ("a", {"name": "one", "arguments": "{}"})


async def test_usage_that_comes_with_every_piece_is_cumulative_and_says_nothing_by_itself() -> None:
    def used(count: int) -> dict[str, Any]:
        return {"prompt_tokens": 5 if count else 0, "completion_tokens": count}

    begin, failed = {**ROLE, "usage": used(1)}, {"error": {"message": "m", "type": "server_error"}}
    assert [type(item) for item in await read(framed(begin, failed))] == [Outcome]
    nameless = {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": used(0)}
    items = await read(framed({**WORD, "usage": used(2)}, nameless, END, END, DONE))
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert [chunk.usage for chunk in chunks] == [Usage(5, 2)] * 3
    assert {chunk.model for chunk in chunks} == {"m-1"}


async def test_whole_calls_without_an_index_are_kept_apart() -> None:
    """So Gemini's compatible endpoint streams them."""
    calls = [{"id": n, "type": "function", "function": {"name": n, "arguments": "{}"}} for n in "ab"]
    items = await read(
        framed(*(piece({"tool_calls": [call]}) for call in calls), piece({}, "tool_calls"))
    )
    assert isinstance(items[-1], Chunk)
    assert items[-1].content[0]["tool_calls"] == calls


async def test_several_choices_are_told_apart() -> None:
    items = await read(
        framed(
            WORD,
            piece({"content": "Ho"}, index=1),
            piece({}, "stop"),
            piece({}, "length", index=1),
            DONE,
        )
    )
    assert said(items) == "He"
    contents = [block["content"] for item in items if isinstance(item, Chunk) for block in item.content]
    assert contents == ["He", "Ho"]
    assert [i.finish_reason for i in items if isinstance(i, Chunk) and i.finish_reason] == ["stop"]


@pytest.mark.parametrize(
    "tail",
    [
        (END,),
        (END, USAGE),
        (END, DONE),
        (DONE,),
        (END, USAGE, DONE, b"{broken"),
        (END, b"", DONE),
    ],
)
async def test_a_stream_is_whole_with_a_reason_or_the_last_word(tail: tuple[Any, ...]) -> None:
    items = await read(framed(ROLE, WORD, *tail))
    assert not any(isinstance(item, Outcome) for item in items)
    assert said(items) == "He"


@pytest.mark.parametrize("tail", [(), (USAGE,), (piece({"content": "x"}, index=1), END)])
async def test_a_stream_that_just_ends_was_cut(tail: tuple[Any, ...]) -> None:
    items = await read(framed(ROLE, WORD, *tail))
    assert isinstance(items[-1], Outcome)
    assert items[-1].kind is Kind.PROTOCOL


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (framed({"error": {"message": "m", "type": "server_error"}}), Kind.SERVER),
        (framed([{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}]),
         Kind.QUOTA_UNKNOWN),
        (framed({"error": "no luck"}), Kind.SERVER),
        (framed(piece({}, "error", error={"code": 502, "message": "Provider returned error"})),
         Kind.SERVER),
        (b"event: error\n" + framed({"error": {"code": "slow_down", "message": "m"}}), Kind.OVERLOAD),
        (b'{"error": {"message": "m", "type": "server_error"}}\n\n', Kind.SERVER),
        (framed(b'{"cut'), Kind.PROTOCOL),
        (framed(piece({}, "content_filter")), Kind.BLOCKED),
        (framed(piece({}, "error")), Kind.SERVER),
    ],
)  # fmt: skip
async def test_an_error_in_mid_stream_is_found_in_each_of_its_forms(raw: bytes, kind: Kind) -> None:
    items = await read(framed(ROLE, WORD, {**USAGE, "usage": USED}), raw)
    assert said(items) == "He"
    assert isinstance(items[-1], Outcome)
    assert items[-1].kind is kind
    assert items[-1].usage == Usage(5, 2)


async def test_a_refusal_in_pieces_is_no_answer() -> None:
    items = await read(framed(ROLE, piece({"refusal": "I "}), piece({"refusal": "can't."}), END, DONE))
    (outcome,) = items
    assert isinstance(outcome, Outcome)
    assert (outcome.kind, outcome.message) == (Kind.BLOCKED, "The model refused to answer (I can't.).")


async def test_comments_and_blank_events_between_pieces_mean_nothing() -> None:
    raw = b": OPENROUTER PROCESSING\n\n" + framed(ROLE, WORD) + b": x\n\ndata:\n\n" + framed(END, DONE)
    assert said(await read(raw)) == "He"


# ── whole answers ────────────────────────────────────────────────────────────


def test_an_answer_without_usage_is_an_answer() -> None:
    reply = PROVIDER.read(HI, completion({"content": "Hi"}, usage=None))
    assert isinstance(reply, Reply)
    assert (reply.text, reply.usage) == ("Hi", Usage())


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39,
          "completion_tokens_details": {"reasoning_tokens": 20}}, Usage(9, 10, 20)),
        ({"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 39}, Usage(9, 10, 20)),
        ({"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 39,
          "completion_tokens_details": {"reasoning_tokens": 20}}, Usage(9, 10, 20)),
        ({"prompt_tokens": 9, "completion_tokens": 10}, Usage(9, 10)),
        ({"prompt_tokens": 9, "completion_tokens": 5,
          "completion_tokens_details": {"reasoning_tokens": 8}}, Usage(9, 0, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 19,
          "prompt_tokens_details": {"cached_tokens": 99}}, Usage(9, 10, cached=9)),
        ({"prompt_tokens": 9.0, "completion_tokens": None, "total_tokens": "9"}, Usage(9)),
        ({"prompt_tokens": -1, "completion_tokens": 3}, Usage(0, 3)),
        ("none", Usage()),
        ([], Usage()),
        ({"prompt_tokens": {}}, Usage()),
    ],
)  # fmt: skip
def test_thoughts_are_counted_once_wherever_they_stand(usage: Any, expected: Usage) -> None:
    reply = PROVIDER.read(HI, completion({"content": "Hi"}, usage=usage))
    assert isinstance(reply, Reply)
    assert reply.usage == expected


def test_what_the_upstream_withheld_is_no_answer() -> None:
    filtered = PROVIDER.read(HI, completion({"content": "half"}, "content_filter"))
    assert isinstance(filtered, Outcome)
    assert (filtered.kind, filtered.detail, filtered.usage) == (
        Kind.BLOCKED,
        Detail.SAFETY,
        Usage(5, 2),
    )
    refused = PROVIDER.read(HI, completion({"content": None, "refusal": "No."}))
    assert isinstance(refused, Outcome)
    assert refused.kind is Kind.BLOCKED


def test_a_refusal_beside_an_answer_withholds_nothing() -> None:
    calls = [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    for answer in ({"content": "Here."}, {"content": None, "tool_calls": calls}):
        assert isinstance(PROVIDER.read(HI, completion({**answer, "refusal": "No."})), Reply)


def test_the_first_choice_is_the_first_by_its_index() -> None:
    choices = [
        {"index": n, "message": {"content": f"{n}"}, "finish_reason": "stop"} for n in (1, 0)
    ]  # fmt: skip
    reply = PROVIDER.read(HI, json.dumps({"choices": choices}).encode())
    assert isinstance(reply, Reply)
    assert (reply.text, [block["content"] for block in reply.content]) == ("0", ["0", "1"])


def test_text_in_pieces_is_joined() -> None:
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"text": "b"}]
    reply = PROVIDER.read(HI, completion({"content": content}))
    assert isinstance(reply, Reply)
    assert reply.text == "ab"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", Kind.PROTOCOL),
        (b"<html>", Kind.PROTOCOL),
        (b"{}", Kind.PROTOCOL),
        (b'{"choices": []}', Kind.PROTOCOL),
        (b'{"choices": 7}', Kind.PROTOCOL),
        (b"\xff\xfe", Kind.PROTOCOL),
        (b"[" * 100_000, Kind.PROTOCOL),
        (b'{"error": {"message": "m", "code": "insufficient_quota"}}', Kind.BILLING),
        (b'{"error": "model is loading"}', Kind.SERVER),
        (b'{"choices": [{"error": {"code": 429, "message": "m"}, "finish_reason": "error"}]}',
         Kind.QUOTA_UNKNOWN),
    ],
)  # fmt: skip
def test_a_200_that_holds_no_answer_is_classified(raw: bytes, kind: Kind) -> None:
    for asked in (HI, Call(Operation.GENERATE, "m", (), raw=Raw("POST", "/chat/completions", "m"))):
        if asked.raw is not None and b"choices" in raw and b"error" in raw:
            continue  # passed on as it came: its reader is told in the upstream's own words
        outcome = PROVIDER.read(asked, raw)
        assert isinstance(outcome, Outcome), asked
        assert outcome.kind is kind


# ── embeddings ───────────────────────────────────────────────────────────────


def embeddings(*vectors: object, **more: Any) -> bytes:
    data = [{"object": "embedding", "index": n, "embedding": v} for n, v in enumerate(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return json.dumps({"object": "list", "data": data, "model": "e-1", "usage": usage, **more}).encode()


EMBED = Call(Operation.EMBED, "e", ("text",))


def test_vectors_come_as_base64_or_as_numbers() -> None:
    packed = b64encode(struct.pack("<3f", 0.5, -0.25, 1.0)).decode()
    for written in (packed, [0.5, -0.25, 1.0]):
        reply = PROVIDER.read(EMBED, embeddings(written))
        assert isinstance(reply, Reply)
        assert reply.vector == (0.5, -0.25, 1.0)
        assert (reply.vectors, reply.usage, reply.model) == ((), Usage(3), "e-1")


def test_vectors_of_many_texts_come_in_the_order_of_the_texts() -> None:
    rows = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    many = Call(Operation.EMBED, "e", (), inputs=(("a",), ("b",)))
    reply = PROVIDER.read(many, json.dumps({"data": rows}).encode())
    assert isinstance(reply, Reply)
    assert reply.vectors == ((1.0,), (2.0,))


@pytest.mark.parametrize(
    "raw",
    [embeddings(), embeddings([]), embeddings([1.0], [2.0]), embeddings("AAA"), embeddings("???="),
     embeddings("AAAAAAA="), b"{}"],
)  # fmt: skip
def test_vectors_that_are_missing_or_broken_are_no_answer(raw: bytes) -> None:
    outcome = PROVIDER.read(EMBED, raw)
    assert isinstance(outcome, Outcome)
    assert outcome.kind is Kind.PROTOCOL


# ── writing ──────────────────────────────────────────────────────────────────


def written(call: Call, model: str = "m") -> dict[str, Any]:
    return json.loads(PROVIDER.write(call, model).body)


def test_a_call_is_written_with_its_options() -> None:
    options = {"max_completion_tokens": 9, "temperature": 0.5, "extra_body": {"google": {"x": 1}}}
    request = PROVIDER.write(Call(Operation.GENERATE, "m", ("a", "b"), options), "resolved")
    assert (request.method, request.url) == ("POST", "https://example.test/v1/chat/completions")
    assert not request.streaming
    assert json.loads(request.body) == {
        "model": "resolved",
        "messages": [{"role": "user", "content": "a\nb"}],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "google": {"x": 1},
    }
    assert PROVIDER.credential(Key("k", "CANARY-key", "d")) == {"authorization": "Bearer CANARY-key"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": {"include_obfuscation": False}},
         {"include_usage": True, "include_obfuscation": False}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": False}),
        ({"stream_options": None}, None),
    ],
)  # fmt: skip
def test_a_stream_asks_for_its_usage_unless_told_otherwise(options: Any, expected: Any) -> None:
    body = written(Call(Operation.STREAM, "m", ("hi",), {**options, "extra_body": {"stream": False}}))
    assert body["stream"] is True
    assert body.get("stream_options") == expected
    assert "stream" not in written(
        Call(Operation.GENERATE, "m", ("hi",), {"extra_body": {"stream": True}})
    )


def test_media_are_written_as_data_urls() -> None:
    parts = (
        "look", Blob("image/png", b"p"), Blob("audio/wav", b"w"), Blob("application/pdf", b"d"),
    )  # fmt: skip
    (message,) = written(Call(Operation.GENERATE, "m", parts))["messages"]
    assert [piece["type"] for piece in message["content"]] == [
        "text",
        "image_url",
        "input_audio",
        "file",
    ]
    assert message["content"][1]["image_url"]["url"] == "data:image/png;base64,cA=="
    assert message["content"][2]["input_audio"] == {"data": "dw==", "format": "wav"}


def test_a_conversation_is_written_in_order() -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}
    turns = (Turn(Role.USER, ("one",)), Turn(Role.MODEL, ("two",)), Turn(Role.MODEL, (called,)))
    messages = written(Call(Operation.GENERATE, "m", ("three",), turns=turns))["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "assistant", "user"]
    assert messages[2] == called
    given = ({"role": "system", "content": "Be brief."},)
    assert written(Call(Operation.GENERATE, "m", (), messages=given))["messages"] == list(given)


def test_embeddings_are_written_for_one_text_or_many() -> None:
    one = PROVIDER.write(Call(Operation.EMBED, "e", ("a", "b"), {"dimensions": 8}), "e")
    assert one.url == "https://example.test/v1/embeddings"
    assert json.loads(one.body) == {
        "model": "e", "input": "a\nb", "encoding_format": "base64", "dimensions": 8,
    }  # fmt: skip
    many = written(
        Call(Operation.EMBED, "e", (), {"encoding_format": "float"}, inputs=(("a",), ("b",)))
    )
    assert (many["input"], many["encoding_format"]) == (["a", "b"], "float")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Call(Operation.GENERATE, "m", ()), "prompt is empty"),
        (Call(Operation.COUNT, "m", ("hi",)), "does not count tokens"),
        (Call(Operation.EMBED, "m", (Blob("image/png", b""),)), "takes text"),
        (Call(Operation.EMBED, "m", ()), "takes text"),
        (Call(Operation.GENERATE, "m", (Blob("video/mp4", b""),)), "video/mp4 cannot be sent"),
        (Call(Operation.GENERATE, "m", ("hi",), {"temperature": float("nan")}), "not a finite number"),
    ],
)
def test_a_call_that_cannot_be_written_says_why(call: Call, words: str) -> None:
    with pytest.raises(InvalidCallError, match=words):
        PROVIDER.write(call, call.model)


@pytest.mark.parametrize("model", ["", "a b", "a\nb", "x" * 300])
def test_a_model_that_has_no_name_is_not_asked_for(model: str) -> None:
    with pytest.raises(InvalidCallError, match="not the name of a model"):
        PROVIDER.write(HI, model)


# ── raw ──────────────────────────────────────────────────────────────────────


def raw_call(body: bytes, operation: Operation = Operation.GENERATE) -> Call:
    asked = survey(body)
    raw = Raw("POST", "/v1/chat/completions", asked.model, {"x": "y"}, body, asked.weight)
    return Call(operation, asked.model, (), raw=raw)


def test_a_raw_call_is_sent_as_it_is_but_for_its_model() -> None:
    body = b'{ "messages": [{"role":"user","content":"hi"}],\n "model" : "old", "max_tokens":5 }'
    call = raw_call(body)
    same = PROVIDER.write(call, "old")
    assert (same.url, same.body) == ("https://example.test/v1/chat/completions", body)
    assert same.headers == {"x": "y"}
    other = PROVIDER.write(call, "new")
    assert other.body == body.replace(b'"old"', b'"new"')


def test_a_raw_body_is_weighed_without_its_pictures() -> None:
    picture = "A" * 40_000
    url = f"data:image/png;base64,{picture}"
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    body = {"model": "m", "stream": True, "messages": messages, "max_completion_tokens": 7, "n": 2}
    asked = survey(json.dumps(body).encode())
    assert (asked.model, asked.streams, asked.weight.most_output) == ("m", True, 14)
    assert 1_000 < asked.weight.tokens < 2_000
    assert asked.weight.ceiling < 4_000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "model"),
        (b'{"model": 7}', "model"),
    ],
)
def test_a_raw_body_without_a_model_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidCallError, match=words):
        survey(body)


async def test_a_raw_stream_is_handed_on_byte_for_byte() -> None:
    raw = b": hi\n\n" + framed(ROLE, WORD, MORE, END, USAGE, DONE) + b": bye\n\n"
    items = await read(*(raw[at : at + 13] for at in range(0, len(raw), 13)), raw=True)
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert len(chunks) == len(items)
    assert b"".join(chunk.raw for chunk in chunks) == raw
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert [chunk.usage for chunk in chunks if chunk.usage][-1] == Usage(5, 2)


async def test_a_raw_stream_fails_unseen_until_the_model_has_said_something() -> None:
    failed = {"error": {"message": "m", "type": "server_error"}}
    items = await read(framed(ROLE, failed), raw=True)
    assert [type(item) for item in items] == [Outcome]
    cut = await read(framed(ROLE, WORD), raw=True)
    assert [type(item) for item in cut] == [Chunk, Outcome]
    half = await read(framed(WORD, USAGE, piece({"content": "x"}, index=1), END), raw=True)
    assert isinstance(half[-1], Outcome)
    assert (half[-1].kind, half[-1].usage) == (Kind.PROTOCOL, Usage(5, 2))
    filtered = await read(framed(ROLE, piece({}, "content_filter"), DONE), raw=True)
    assert all(isinstance(item, Chunk) for item in filtered)


def test_a_raw_answer_is_read_for_what_policy_needs() -> None:
    call = raw_call(b'{"model": "m"}')
    reply = PROVIDER.read(call, completion({"content": None, "refusal": "No."}))
    assert isinstance(reply, Reply)
    assert (reply.finish_reason, reply.usage, reply.model) == ("stop", Usage(5, 2), "m-1")


# ── models ───────────────────────────────────────────────────────────────────


def test_the_list_of_models_is_asked_for_and_read() -> None:
    base = "https://example.test/v1/"
    assert list_request(base).url == "https://example.test/v1/models"
    assert get_request(base, "org/a model").url == "https://example.test/v1/models/org/a%20model"
    row = {"id": "m", "object": "model", "created": 1_715_558_400, "owned_by": "system"}
    listed = read_list(json.dumps({"object": "list", "data": [row, {"id": "n"}]}).encode())
    assert not isinstance(listed, Outcome)
    assert [(model.id, model.created, model.owner) for model in listed] == [
        ("m", date(2024, 5, 13), "system"),
        ("n", None, ""),
    ]
    one = read_model(json.dumps({**row, "created": 1e30}).encode())
    assert not isinstance(one, Outcome)
    assert one.created is None
    for broken in (b"", b"{}", b'{"data": 7}'):
        assert isinstance(read_list(broken), Outcome)
