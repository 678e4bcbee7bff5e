"""Writing requests and reading replies of the Gemini API."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tests.support import DATA, event, reply

from headgate.core.call import Blob, Call, Chunk, Key, Operation, Reply, Usage
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event
from headgate.providers.gemini import EMBED_OPTIONS, GENERATE_OPTIONS, GeminiProvider
from headgate.transport.sse import SseDecoder

PROVIDER = GeminiProvider("https://example.test/")
GENERATE = Call(Operation.GENERATE, "m", ("hi",))
STREAM = Call(Operation.STREAM, "m", ("hi",))
EMBED = Call(Operation.EMBED, "m", ("hi",))

RECORDED = [
    json.loads(line) for line in (DATA / "recorded.jsonl").read_text(encoding="utf-8").splitlines()
]


def recorded(method: str) -> list[dict[str, Any]]:
    return [
        row["response"]
        for row in RECORDED
        if row["request"]["path"].endswith(method) and row["response"]["status"] == 200
    ]


def write(call: Call, model: str = "gemini-3.8-flash") -> dict[str, Any]:
    written: dict[str, Any] = json.loads(PROVIDER.write(call, model).body)
    return written


def read(value: object, call: Call = GENERATE) -> Reply | Outcome:
    return PROVIDER.read(call, json.dumps(value).encode())


async def as_events(data: list[bytes | Event]) -> AsyncGenerator[Event]:
    for item in data:
        yield item if isinstance(item, Event) else Event(item)


def chunks(*data: bytes | Event | dict[str, Any]) -> list[Chunk | Outcome]:
    events = [json.dumps(item).encode() if isinstance(item, dict) else item for item in data]

    async def collect() -> list[Chunk | Outcome]:
        return [item async for item in PROVIDER.chunks(as_events(events))]

    return asyncio.run(collect())


# ── writing ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("operation", "tail", "streaming"),
    [
        (Operation.GENERATE, "m1:generateContent", False),
        (Operation.STREAM, "m1:streamGenerateContent?alt=sse", True),
        (Operation.EMBED, "m1:embedContent", False),
    ],
)
def test_the_url_names_model_and_method(operation: Operation, tail: str, streaming: bool) -> None:
    request = PROVIDER.write(Call(operation, "asked", ("hi",)), "m1")
    assert request.method == "POST"
    assert request.url == f"https://example.test/v1beta/models/{tail}"
    assert request.streaming is streaming
    assert dict(request.headers) == {"content-type": "application/json"}


def test_every_generation_option_is_written_in_camel_case() -> None:
    options = {name: f"value of {name}" for name in GENERATE_OPTIONS}
    config = write(Call(Operation.GENERATE, "m", ("hi",), options))["generationConfig"]
    assert config == {wire: f"value of {name}" for name, wire in GENERATE_OPTIONS.items()}
    assert not any("_" in wire for wire in config)
    assert {"temperature", "topP", "topK", "maxOutputTokens", "stopSequences"} <= set(config)


def test_options_that_stand_beside_the_config() -> None:
    options = {
        "system_instruction": "Be brief.",
        "safety_settings": [{"category": "c"}],
        "tools": [{"functionDeclarations": []}],
        "tool_config": {"mode": "ANY"},
    }
    body = write(Call(Operation.GENERATE, "m", ("hi",), options))
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert body["safetySettings"] == [{"category": "c"}]
    assert body["tools"] == [{"functionDeclarations": []}]
    assert body["toolConfig"] == {"mode": "ANY"}
    assert "generationConfig" not in body


def test_a_system_instruction_with_parts_passes_as_it_is() -> None:
    content = {"parts": [{"text": "a"}, {"text": "b"}]}
    body = write(Call(Operation.GENERATE, "m", ("hi",), {"system_instruction": content}))
    assert body["systemInstruction"] == content


def test_schemas_pass_as_they_are() -> None:
    schema = {"type": "OBJECT", "properties": {"snake_name": {"type": "STRING"}}}
    options = {"response_schema": schema, "response_mime_type": "application/json"}
    assert write(Call(Operation.GENERATE, "m", ("hi",), options))["generationConfig"] == {
        "responseSchema": schema,
        "responseMimeType": "application/json",
    }


def test_images_travel_as_base64_in_order() -> None:
    data = bytes(range(256))
    body = write(Call(Operation.GENERATE, "m", (Blob("image/png", data), "What is it?")))
    image, text = body["contents"][0]["parts"]
    assert image["inlineData"]["mimeType"] == "image/png"
    assert b64decode(image["inlineData"]["data"]) == data
    assert text == {"text": "What is it?"}
    assert body["contents"][0]["role"] == "user"


def test_an_embedding_names_its_model_again() -> None:
    options = {"task_type": "RETRIEVAL_QUERY", "title": "t", "output_dimensionality": 256}
    body = write(Call(Operation.EMBED, "m", ("hi",), options), "gemini-embedding-001")
    assert body == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "hi"}]},
        "taskType": "RETRIEVAL_QUERY",
        "title": "t",
        "outputDimensionality": 256,
    }
    assert set(EMBED_OPTIONS) == set(options)


def test_text_of_any_script_is_written_as_utf_8() -> None:
    text = 'naïve 漢字 🚦 \u2028 \x00 \\ "'
    raw = PROVIDER.write(Call(Operation.GENERATE, "m", (text,)), "m").body
    assert "漢字 🚦".encode() in raw
    assert json.loads(raw)["contents"][0]["parts"][0]["text"] == text


def test_an_empty_prompt_is_refused_before_anything_is_sent() -> None:
    for operation in Operation:
        with pytest.raises(InvalidCallError, match="empty"):
            PROVIDER.write(Call(operation, "m", ()), "m")


def test_an_option_that_is_no_json_is_refused_by_name() -> None:
    with pytest.raises(InvalidCallError, match="JSON"):
        PROVIDER.write(Call(Operation.GENERATE, "m", ("hi",), {"temperature": object()}), "m")


def test_an_option_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidCallError, match="JSON"):
        PROVIDER.write(Call(Operation.GENERATE, "m", ("hi",), {"tools": endless}), "m")


@pytest.mark.parametrize(
    "model",
    ["a?b=c", "a#b", "../../v1/models/x", "tunedModels/x", "a b", "a\nb", "a%2f", "x:countTokens", "ü",
     ".", ""],
)  # fmt: skip
@pytest.mark.parametrize("operation", Operation)
def test_a_name_that_would_lead_elsewhere_is_no_models_name(operation: Operation, model: str) -> None:
    with pytest.raises(InvalidCallError, match="not the name of a model") as caught:
        PROVIDER.write(Call(operation, model, ("hi",)), model)
    assert "\n" not in caught.value.message


def test_the_key_is_a_header() -> None:
    secret = Key("k", "AIzaCANARY-one", "d")
    assert PROVIDER.credential(secret) == {"x-goog-api-key": "AIzaCANARY-one"}
    assert "CANARY" not in repr(secret)


# ── recorded replies ────────────────────────────────────────────────────────────────────────────


def visible(parts: list[dict[str, Any]]) -> str:
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


GENERATED = recorded(":generateContent")
STREAMED = recorded(":streamGenerateContent")


@pytest.mark.parametrize("response", GENERATED, ids=range(len(GENERATED)))
def test_recorded_replies_are_read(response: dict[str, Any]) -> None:
    value = response["json"]
    got = read(value)
    usage = value.get("usageMetadata", {})
    assert got.usage is not None
    assert got.usage.total == usage.get("totalTokenCount", 0)
    assert got.usage.cached == usage.get("cachedContentTokenCount", 0)
    assert got.usage.cached <= got.usage.prompt
    candidate = value["candidates"][0]
    parts = candidate.get("content", {}).get("parts", [])
    media = [part for part in parts if "inlineData" in part]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    if visible(parts) or media or calls:
        assert isinstance(got, Reply)
        assert [piece["functionCall"] for piece in got.content] == calls
        assert got.text == visible(parts)
        assert len(got.blobs) == len(media)
        assert got.finish_reason == candidate.get("finishReason")
        assert got.model == value.get("modelVersion", "")
    else:
        assert isinstance(got, Outcome)
        assert got.kind is Kind.BLOCKED


@pytest.mark.parametrize("response", STREAMED, ids=range(len(STREAMED)))
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_recorded_streams_are_rebuilt_however_the_network_cuts_them(
    response: dict[str, Any], size: int
) -> None:
    raw = response["text"].encode()
    decoder = SseDecoder()
    events = [e for at in range(0, len(raw), size) for e in decoder.feed(raw[at : at + size])]
    events += decoder.end()
    wire = [
        json.loads(block.removeprefix("data: "))
        for block in response["text"].replace("\r\n", "\n").split("\n\n")
        if block.strip()
    ]
    assert [json.loads(e.data) for e in events if not e.is_filler] == wire
    assert all(e.framed or e.is_filler for e in events)
    got = chunks(*events)
    pieces = [item for item in got if isinstance(item, Chunk)]
    whole = "".join(
        visible(part["candidates"][0].get("content", {}).get("parts", []))
        for part in wire
        if part.get("candidates")
    )
    assert "".join(piece.text for piece in pieces) == whole
    last = [piece.usage for piece in pieces if piece.usage is not None][-1]
    assert last is not None
    assert last.total == wire[-1]["usageMetadata"]["totalTokenCount"]
    assert any(piece.finish_reason for piece in pieces)
    failures = [item for item in got if isinstance(item, Outcome)]
    calls = sum(
        "functionCall" in part
        for body in wire
        for candidate in body.get("candidates", [])
        for part in candidate.get("content", {}).get("parts", [])
    )
    assert sum(len(piece.content) for piece in pieces) == calls
    assert [failure.kind for failure in failures] == ([] if whole or calls else [Kind.BLOCKED])


@pytest.mark.parametrize("response", recorded(":batchEmbedContents"))
def test_recorded_vectors_are_read(response: dict[str, Any]) -> None:
    usage = response["json"].get("usageMetadata", {})
    for embedding in response["json"]["embeddings"]:
        got = read({"embedding": embedding, "usageMetadata": usage}, EMBED)
        assert isinstance(got, Reply)
        assert list(got.vector) == embedding["values"]
        assert got.usage.total == usage.get("promptTokenCount", 0)


def test_the_recordings_are_there() -> None:
    assert len(GENERATED) > 50
    assert len(STREAMED) > 10
    assert recorded(":batchEmbedContents")


# ── replies by hand ─────────────────────────────────────────────────────────────────────────────


def test_usage_of_every_kind_is_totalled_as_the_api_does() -> None:
    value = reply("x")
    value["usageMetadata"] = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 300,
        "cachedContentTokenCount": 90,
        "toolUsePromptTokenCount": 7,
        "totalTokenCount": 427,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1}],
    }
    got = read(value)
    assert got.usage == Usage(prompt=100, output=20, thoughts=300, cached=90, tool_prompt=7)
    assert got.usage.total == 427
    assert (got.usage + Usage(prompt=1)).prompt == 101


def test_absent_or_negative_usage_is_nought() -> None:
    value = reply("x")
    del value["usageMetadata"]
    assert read(value).usage == Usage()
    value["usageMetadata"] = {"promptTokenCount": -5, "candidatesTokenCount": 3}
    assert read(value).usage == Usage(output=3)


@pytest.mark.parametrize("reason", ["STOP", "MAX_TOKENS", "OTHER", "CONTINUATION", "INVENTED_IN_2027"])
def test_an_answer_with_text_counts_whatever_its_finish_reason(reason: str) -> None:
    got = read(reply("text", finish=reason))
    assert isinstance(got, Reply)
    assert got.finish_reason == reason


@pytest.mark.parametrize(
    "reason",
    ["SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
     "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"],
)  # fmt: skip
def test_a_withheld_answer_is_blocked_even_with_text(reason: str) -> None:
    got = read(reply("half a sen", finish=reason))
    assert isinstance(got, Outcome)
    assert got.kind is Kind.BLOCKED
    assert reason in got.message
    (first, second) = chunks(reply("half a sen", finish=reason))
    assert isinstance(first, Chunk)
    assert isinstance(second, Outcome)
    assert second.kind is Kind.BLOCKED


def test_media_come_out_as_bytes() -> None:
    value = reply("")
    data = b64encode(b"\x89PNG").decode()
    value["candidates"][0]["content"]["parts"] = [
        {"inlineData": {"mimeType": "image/png", "data": data}},
        {"text": "caption"},
    ]
    got = read(value)
    assert isinstance(got, Reply)
    assert (got.blobs, got.text) == ((Blob("image/png", b"\x89PNG"),), "caption")
    for wrong in ("A", "é", "iVBO*Rw==", "iVBO Rw=="):
        value["candidates"][0]["content"]["parts"][0]["inlineData"]["data"] = wrong
        broken = read(value)
        assert isinstance(broken, Outcome)
        assert broken.kind is Kind.PROTOCOL


def test_bytes_may_come_in_either_alphabet_padded_or_not() -> None:
    """Read without care, `-` and `_` vanish and the picture is another one."""
    value = reply("")
    part = {"inlineData": {"mimeType": "image/png", "data": "-_-_"}}
    value["candidates"][0]["content"]["parts"] = [part]
    for text in ("-_-_-w==", "+/+/+w==", "-_-_-w"):
        part["inlineData"]["data"] = text
        got = read(value)
        assert isinstance(got, Reply)
        assert got.blobs == (Blob("image/png", b"\xfb\xff\xbf\xfb"),)


def test_counting_asks_for_the_whole_request_and_reads_the_total() -> None:
    options = {"system_instruction": "Be brief.", "temperature": 0.5}
    call = Call(Operation.COUNT, "m", ("hi",), options)
    request = PROVIDER.write(call, "m1")
    assert request.url.endswith("/models/m1:countTokens")
    inner = json.loads(request.body)["generateContentRequest"]
    assert inner["model"] == "models/m1"
    assert inner["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    for body in recorded(":countTokens"):
        assert read(body["json"], call) == Reply(tokens=body["json"]["totalTokens"])
    assert isinstance(read({}, call), Outcome)


NESTED_WITHOUT_END = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"7", b'{"candidates": []}', b"{}", b'{"candidates": 7}', b"\xff",
     NESTED_WITHOUT_END],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
@pytest.mark.parametrize("call", [GENERATE, EMBED], ids=["generate", "embed"])
def test_what_is_no_answer_is_a_protocol_fault(body: bytes, call: Call) -> None:
    got = PROVIDER.read(call, body)
    assert isinstance(got, Outcome)
    assert got.kind is Kind.PROTOCOL
    assert got.message


def test_unknown_fields_fail_nothing() -> None:
    value = reply("x")
    value["novelty"] = {"a": [1, None]}
    value["candidates"][0]["novelty"] = 1
    value["candidates"][0]["content"]["parts"].append({"novelPart": {"x": 1}})
    assert isinstance(read(value), Reply)


# ── streams by hand ─────────────────────────────────────────────────────────────────────────────

ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(Event(json.dumps(ERROR, indent=2).encode(), framed=False), id="raw"),
        pytest.param(json.dumps(ERROR).encode(), id="framed"),
        pytest.param(json.dumps({"responseId": "x", **ERROR}).encode(), id="not the first member"),
        pytest.param(json.dumps([ERROR]).encode(), id="in a list"),
    ],
)
def test_an_error_in_a_stream_ends_it_typed(item: bytes | Event) -> None:
    first, second = chunks(reply("one", finish=None), item, reply("never", finish="STOP"))
    assert isinstance(first, Chunk)
    assert isinstance(second, Outcome)
    assert second.kind is Kind.OVERLOAD


def test_a_stream_that_ends_without_a_reason_was_cut() -> None:
    *pieces, last = chunks(reply("one", finish=None), reply("two", finish=None))
    assert len(pieces) == 2
    assert isinstance(last, Outcome)
    assert last.kind is Kind.PROTOCOL
    assert last.usage is not None
    assert last.usage.total == 8
    (only,) = chunks()
    assert isinstance(only, Outcome)
    assert only.kind is Kind.PROTOCOL


def test_a_stream_of_nothing_but_a_finish_reason_is_empty() -> None:
    *_, last = chunks(reply("", finish="STOP"))
    assert isinstance(last, Outcome)
    assert last.kind is Kind.BLOCKED


def test_a_blocked_prompt_ends_a_stream_at_once() -> None:
    (only,) = chunks({"promptFeedback": {"blockReason": "SAFETY"}})
    assert isinstance(only, Outcome)
    assert only.kind is Kind.BLOCKED


def test_text_after_the_finish_reason_still_counts() -> None:
    got = chunks(reply("one", finish="STOP"), reply("two", finish=None))
    assert [item.text for item in got if isinstance(item, Chunk)] == ["one", "two"]
    assert len(got) == 2


@pytest.mark.parametrize("junk", [b"not json", b"<html>", b"[]", b"7"])
def test_an_event_that_is_no_json_ends_the_stream_with_a_protocol_fault(junk: bytes) -> None:
    *_, last = chunks(reply("one", finish=None), junk)
    assert isinstance(last, Outcome)
    assert last.kind is Kind.PROTOCOL


def test_the_events_are_closed_when_the_reader_leaves() -> None:
    closed = []

    async def events() -> AsyncGenerator[Event]:
        try:
            while True:
                yield Event(json.dumps(reply("more", finish=None)).encode())
        finally:
            closed.append(True)

    async def leave() -> None:
        reading = PROVIDER.chunks(events())
        await anext(reading)
        await reading.aclose()

    asyncio.run(leave())
    assert closed == [True]


def test_an_event_of_ours_is_framed_as_the_api_frames_it() -> None:
    (got,) = SseDecoder().feed(event(reply("x")))
    assert json.loads(got.data) == reply("x")
