"""The emulator's bytes against the published schema, recorded replies and recorded errors.

What a reply must look like is read from `tests/data/gemini`, never from the emulator.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from headgate.emulator import Emulator, EmulatorConfig, Limits, Project
from headgate.emulator import requests as emulated
from headgate.emulator import schema as request_schema
from headgate.testing import VirtualClock
from headgate.wiring.media import INLINE_LIMIT

DATA = Path(__file__).parents[1] / "data" / "gemini"
SCHEMA = json.loads((DATA / "schema-rev20260816.json").read_text("utf-8"))["v1beta"]
ERRORS = {entry["id"]: entry for entry in json.loads((DATA / "errors.json").read_text("utf-8"))}
RECORDED = [json.loads(line) for line in (DATA / "recorded.jsonl").read_text("utf-8").splitlines()]
KEY = "AIzaCANARY-alpha-1"
MODEL = "gemini-3.5-flash"
PROMPT: dict[str, Any] = {"contents": [{"parts": [{"text": "How is water shared?"}], "role": "user"}]}
FUNCTION = {
    "name": "get_level",
    "description": "The level of a canal.",
    "parameters": {
        "type": "OBJECT",
        "properties": {"canal": {"type": "STRING"}},
        "required": ["canal"],
    },
}
CALLING = {
    **PROMPT,
    "tools": [{"functionDeclarations": [FUNCTION]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
}
EVENT = re.compile(rb'data: (\{"[^\r\n]*\})\r\n\r\n')


class Wire:
    """Raw requests and raw answers."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator, self._session = emulator, session

    async def send(
        self,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        method: str = "POST",
    ) -> tuple[int, dict[str, str], bytes]:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        data = None if raw is None else io.BytesIO(raw)
        sent = {"x-goog-api-key": KEY} if headers is None else headers
        url = self.emulator.base_url + path
        async with self._session.request(method, url, data=data, headers=sent) as reply:
            received = {name.lower(): value for name, value in reply.headers.items()}
            return reply.status, received, await reply.read()

    async def generate(self, body: Any, model: str = MODEL, version: str = "v1beta") -> dict[str, Any]:
        status, _, raw = await self.send(f"/{version}/models/{model}:generateContent", body)
        assert status == 200, raw
        return json.loads(raw)

    async def stream(self, body: Any, model: str = MODEL) -> bytes:
        status, _, raw = await self.send(f"/v1beta/models/{model}:streamGenerateContent?alt=sse", body)
        assert status == 200, raw
        return raw


@asynccontextmanager
async def wire(clock: VirtualClock, **config: Any) -> AsyncIterator[Wire]:
    config.setdefault("projects", [Project("alpha", {"alpha-1": KEY})])
    async with (
        Emulator(EmulatorConfig(**config), clock=clock) as emulator,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(keepalive_timeout=1e7)) as session,
    ):
        yield Wire(emulator, session)


def misfits(value: Any, kind: Any, path: str = "$") -> Iterator[str]:
    """What the published schema has against a reply: unknown fields, enum values, wrong types."""
    if isinstance(kind, list):
        for index, item in enumerate(value if isinstance(value, list) else [f"no list: {value!r}"]):
            yield from misfits(item, kind[0], f"{path}[{index}]")
    elif isinstance(kind, dict):
        for name, item in value.items():
            yield from misfits(item, kind["*"], f"{path}.{name}")
    elif "enum" in SCHEMA.get(kind, {}):
        if value not in SCHEMA[kind]["enum"]:
            yield f"{path}: {value!r} is no {kind}"
    elif kind in SCHEMA:
        for name, item in value.items():
            if name not in SCHEMA[kind]["fields"]:
                yield f"{path}.{name}: unknown"
            else:
                yield from misfits(item, SCHEMA[kind]["fields"][name], f"{path}.{name}")
    else:
        types = {
            "string": str,
            "bool": bool,
            "int32": int,
            "float": (int, float),
            "double": (int, float),
        }
        if kind in types and not isinstance(value, types[kind]):
            yield f"{path}: {value!r} is no {kind}"


def recorded(suffix: str, status: int = 200) -> list[dict[str, Any]]:
    return [
        r
        for r in RECORDED
        if r["request"]["path"].endswith(suffix) and r["response"]["status"] == status
    ]


def chunks_of(raw: bytes) -> list[dict[str, Any]]:
    found = EVENT.findall(raw)
    assert b"".join(b"data: " + one + b"\r\n\r\n" for one in found) == raw, "something is no event"
    return [json.loads(one) for one in found]


def text_of(reply: dict[str, Any]) -> str:
    parts = reply["candidates"][0]["content"]["parts"]
    return "".join(part.get("text", "") for part in parts)


# ── the yardstick itself ─────────────────────────────────────────────────────


def test_the_yardstick_accepts_every_recorded_reply_and_sees_what_does_not_fit() -> None:
    for entry in recorded(":generateContent"):
        assert list(misfits(entry["response"]["json"], "GenerateContentResponse")) == []
    wrong = {"candidates": [{"finishReason": "TIRED", "mood": 1}], "modelVersion": 3}
    assert len(list(misfits(wrong, "GenerateContentResponse"))) == 3


def test_every_recorded_request_is_in_order_for_the_emulator() -> None:
    kinds = {"generateContent": "Generate", "streamGenerateContent": "Generate", "countTokens": "Count"}
    for entry in RECORDED:
        message = kinds.get(entry["request"]["path"].rsplit(":", 1)[1])
        if message is None or "json" not in entry["request"]:
            continue
        name = "GenerateContentRequest" if message == "Generate" else "CountTokensRequest"
        _, violations = request_schema.read(entry["request"]["json"], name)
        assert [text for _, text in violations if "[cut:" not in text] == [], entry["id"]


# ── replies ──────────────────────────────────────────────────────────────────

BODIES: dict[str, Any] = {
    "text": PROMPT,
    "two candidates": {**PROMPT, "generationConfig": {"candidateCount": 2}},
    "thoughts": {**PROMPT, "generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
    "json": {**PROMPT, "generationConfig": {"responseMimeType": "application/json"}},
    "function call": CALLING,
    "cut": {**PROMPT, "generationConfig": {"maxOutputTokens": 3}},
}


async def test_thoughts_count_against_the_bound_of_the_answer(clock: VirtualClock) -> None:
    """Whoever budgets by that bound is right."""
    async with wire(clock) as upstream:
        for bound in (3, 20, 60):
            body = {**PROMPT, "generationConfig": {"maxOutputTokens": bound}}
            used = (await upstream.generate(body, "gemini-3.8-flash"))["usageMetadata"]
            assert used["totalTokenCount"] - used["promptTokenCount"] <= bound


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("model", [MODEL, "gemini-2.5-flash-lite", "gemini-3.1-flash-image"])
async def test_replies_and_chunks_fit_the_published_schema(
    clock: VirtualClock, name: str, model: str
) -> None:
    async with wire(clock) as upstream:
        whole = await upstream.generate(BODIES[name], model)
        chunks = chunks_of(await upstream.stream(BODIES[name], model))
    for body in (whole, *chunks):
        assert list(misfits(body, "GenerateContentResponse")) == []


async def test_a_reply_has_no_member_a_recorded_one_never_had(clock: VirtualClock) -> None:
    real = [r["response"]["json"] for r in recorded(":generateContent")]
    async with wire(clock) as upstream:
        made = [await upstream.generate(body) for body in BODIES.values()]
    assert {m for b in made for m in b} <= {m for b in real for m in b}
    for part in ("usageMetadata",):
        assert {m for b in made for m in b[part]} <= {m for b in real for m in b[part]}
    candidates = {m for b in real for c in b["candidates"] for m in c}
    assert {m for b in made for c in b["candidates"] for m in c} <= candidates


async def test_usage_adds_up_like_the_recorded_ones(clock: VirtualClock) -> None:
    counts = (
        "promptTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "toolUsePromptTokenCount",
    )
    async with wire(clock) as upstream:
        made = [await upstream.generate(body) for body in BODIES.values()]
    for body in (*made, *(r["response"]["json"] for r in recorded(":generateContent"))):
        usage = body["usageMetadata"]
        assert usage["totalTokenCount"] == sum(usage.get(name, 0) for name in counts)
        assert 0 not in usage.values()


async def test_headers_are_the_recorded_ones_and_none_tells_a_limit(
    clock: VirtualClock,
) -> None:
    real = recorded(":generateContent")[0]["response"]["headers"]
    async with wire(
        clock, projects=[Project("alpha", {"alpha-1": KEY}, {"*": Limits(rpm=1)})]
    ) as upstream:
        path = f"/v1beta/models/{MODEL}:generateContent"
        replies = [await upstream.send(path, PROMPT) for _ in range(2)]
    assert [status for status, _, _ in replies] == [200, 429]
    for _, headers, raw in replies:
        assert set(real) <= set(headers)
        for name in ("content-type", "vary", "transfer-encoding"):
            assert headers[name] == real[name]
        assert re.fullmatch(r"gfet4t7; dur=\d+", headers["server-timing"])
        assert headers["x-gemini-service-tier"] == "standard"
        assert "aiohttp" not in str(headers).lower()
        assert not [name for name in headers if "limit" in name or "retry" in name]
        assert raw.startswith(b'{\n  "')
        assert raw.endswith(b"}\n")


# ── streams ──────────────────────────────────────────────────────────────────


def test_recorded_streams_have_the_framing_the_emulator_is_held_to() -> None:
    for entry in recorded(":streamGenerateContent"):
        raw = entry["response"]["text"].encode()
        assert chunks_of(raw)
        assert raw == b"".join(_recorded_line(chunk) for chunk in chunks_of(raw))


def _recorded_line(chunk: dict[str, Any]) -> bytes:
    line = json.dumps(chunk, separators=(",", ": "), ensure_ascii=False)
    return b"data: " + line.encode() + b"\r\n\r\n"


async def test_a_stream_is_framed_byte_for_byte_like_the_recorded_ones(clock: VirtualClock) -> None:
    real = recorded(":streamGenerateContent")[0]["response"]["headers"]
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
        _, headers, raw = await upstream.send(path, PROMPT)
    assert raw == b"".join(_recorded_line(chunk) for chunk in chunks_of(raw))
    assert b"[DONE]" not in raw
    for name in ("content-type", "content-disposition", "transfer-encoding", "vary"):
        assert headers[name] == real[name]


async def test_usage_grows_from_chunk_to_chunk_and_the_last_is_empty(
    clock: VirtualClock,
) -> None:
    async with wire(clock) as upstream:
        chunks = chunks_of(await upstream.stream(PROMPT))
        again = chunks_of(await upstream.stream(PROMPT))
    totals = [chunk["usageMetadata"]["totalTokenCount"] for chunk in chunks]
    assert totals == sorted(totals)
    assert len(chunks) > 3
    last = chunks[-1]["candidates"][0]
    assert last["content"]["parts"][0]["text"] == ""
    assert last["content"]["parts"][0]["thoughtSignature"]
    assert [c["candidates"][0].get("finishReason") for c in chunks] == [None] * (len(chunks) - 1) + [
        "STOP"
    ]
    assert len({c["responseId"] for c in chunks}) == 1
    assert chunks[0]["responseId"] != again[0]["responseId"]
    assert {c["modelVersion"] for c in chunks} == {MODEL}


async def test_a_function_call_comes_whole_in_a_chunk_without_finish_reason(
    clock: VirtualClock,
) -> None:
    async with wire(clock) as upstream:
        chunks = chunks_of(await upstream.stream(CALLING))
    part = chunks[0]["candidates"][0]["content"]["parts"][0]
    assert part["functionCall"]["name"] == "get_level"
    assert part["thoughtSignature"]
    assert "finishReason" not in chunks[0]["candidates"][0]
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"


async def test_without_alt_sse_a_stream_is_one_json_array(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:streamGenerateContent"
        status, headers, raw = await upstream.send(path, PROMPT)
    assert status == 200
    assert headers["content-type"] == "application/json; charset=UTF-8"
    assert raw.startswith(b"[{\n")
    assert b"}\r\n,{" in raw
    assert json.loads(raw)[-1]["candidates"][0]["finishReason"] == "STOP"


async def test_errors_are_list_wrapped_on_streams_without_alt_sse_only(
    clock: VirtualClock,
) -> None:
    async with wire(clock) as upstream:
        upstream.emulator.script("overload", times=2)
        path = f"/v1beta/models/{MODEL}:streamGenerateContent"
        bare = await upstream.send(path, PROMPT)
        events = await upstream.send(f"{path}?alt=sse", PROMPT)
    assert json.loads(bare[2]) == [ERRORS["503-overloaded"]["body"]]
    assert json.loads(events[2]) == ERRORS["503-overloaded"]["body"]
    assert bare[0] == events[0] == 503


# ── mid-stream faults ────────────────────────────────────────────────────────


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize(
    "kind",
    ["raw_error", "prefixed_error", "late_error_key", "silent_eof", "half_event", "malformed_sse"],
)
async def test_a_stream_breaks_after_the_chunks_it_is_told_to(
    clock: VirtualClock, kind: str, after: int
) -> None:
    async with wire(clock) as upstream:
        whole = await upstream.stream(PROMPT)
        upstream.emulator.script(kind, after=after)
        raw = await upstream.stream(PROMPT)
        failed = upstream.emulator.report().totals.failed
    sent = EVENT.findall(whole)[:after]
    texts = [json.loads(one)["candidates"][0]["content"] for one in sent]
    good, rest = raw.split(b"\r\n\r\n")[:after], b"\r\n\r\n".join(raw.split(b"\r\n\r\n")[after:])
    assert [json.loads(one[6:])["candidates"][0]["content"] for one in good] == texts
    assert failed == 1
    error = ERRORS["503-high-demand"]["body"]
    if kind == "silent_eof":
        assert rest == b""
    elif kind == "raw_error":
        assert rest.startswith(b"{\n")
        assert json.loads(rest) == error
    elif kind == "prefixed_error":
        assert rest == _recorded_line(error)
    elif kind == "late_error_key":
        assert list(json.loads(rest[6:])) == ["candidates", "error"]
    else:
        assert rest.startswith(b'data: {"candidates"')
        with pytest.raises(json.JSONDecodeError):
            json.loads(rest[6:])
        assert rest.endswith(b"\r\n\r\n") == (kind == "malformed_sse")


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("sse_no_space", rb'data:\{"'),
        ("sse_comment", rb": ping\r\n\r\ndata: "),
        ("sse_event_line", rb"event: message\r\ndata: "),
        ("sse_done", rb"data: \{.*\r\n\r\ndata: \[DONE\]\r\n\r\n$"),
    ],
)
async def test_unusual_framing_is_sent_as_named(clock: VirtualClock, kind: str, pattern: bytes) -> None:
    async with wire(clock) as upstream:
        upstream.emulator.script(kind)
        assert re.search(pattern, await upstream.stream(PROMPT), re.DOTALL)


async def test_an_empty_stream_is_a_200_with_no_byte(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        upstream.emulator.script("empty_stream")
        assert await upstream.stream(PROMPT) == b""


async def test_a_body_can_be_html_or_broken_json(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:generateContent"
        upstream.emulator.script("html", status=502)
        status, headers, raw = await upstream.send(path, PROMPT)
        assert (status, headers["content-type"]) == (502, "text/html; charset=UTF-8")
        assert raw.startswith(b"<!DOCTYPE html>")
        upstream.emulator.script("broken_json")
        status, _, raw = await upstream.send(path, PROMPT)
        assert (status, raw[:1]) == (200, b"{")
        with pytest.raises(json.JSONDecodeError):
            json.loads(raw)


# ── refused answers with status 200 ──────────────────────────────────────────


async def test_a_blocked_prompt_has_no_candidates_but_usage(clock: VirtualClock) -> None:
    real = ERRORS["200-blocked-prompt"]["body"]
    async with wire(clock) as upstream:
        upstream.emulator.script("blocked")
        whole = await upstream.generate(PROMPT)
        upstream.emulator.script("blocked", reason="SAFETY")
        chunks = chunks_of(await upstream.stream(PROMPT))
    assert set(real) <= set(whole)
    assert "candidates" not in whole
    assert whole["promptFeedback"] == real["promptFeedback"]
    assert set(real["usageMetadata"]) <= set(whole["usageMetadata"])
    assert [c["promptFeedback"]["blockReason"] for c in chunks] == ["SAFETY"]
    assert list(misfits(whole, "GenerateContentResponse")) == []


async def test_a_safety_stop_comes_in_three_shapes(clock: VirtualClock) -> None:
    real = ERRORS["200-safety-stop"]["body"]["candidates"][0]
    shapes: dict[str, Any] = {
        "safety": {},
        "safety_no_content": None,
        "safety_no_parts": {"role": "model"},
    }
    async with wire(clock) as upstream:
        for kind, content in shapes.items():
            upstream.emulator.script(kind)
            candidate = (await upstream.generate(PROMPT))["candidates"][0]
            assert candidate.get("content") == content
            assert (candidate["finishReason"], candidate["safetyRatings"]) == (
                "SAFETY",
                real["safetyRatings"],
            )
        upstream.emulator.script("safety", after=2)
        chunks = chunks_of(await upstream.stream(PROMPT))
    assert [c["candidates"][0].get("finishReason") for c in chunks] == [None, None, "SAFETY"]


async def test_any_finish_reason_can_be_scripted(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        upstream.emulator.script("finish", reason="MALFORMED_FUNCTION_CALL")
        reply = await upstream.generate(PROMPT)
    assert reply["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"


# ── errors ───────────────────────────────────────────────────────────────────


def same_but_for_names(made: Any, real: Any) -> bool:
    """Equal, where a model, method, version or key of the request may stand for the recorded one."""
    own = {
        "AIzaEXAMPLE-NOT-A-KEY": KEY,
        "INVALID_KEY_BLAH": KEY,
        "StreamGenerateContent": "GenerateContent",
    }
    text = json.dumps(real, sort_keys=True)
    for theirs, ours in own.items():
        text = text.replace(theirs, ours)
    text = re.sub(r"gemini-(?!api)[\w.-]*\w", MODEL, text)
    return json.dumps(made, sort_keys=True) == text


@pytest.mark.parametrize("name", [name for name, entry in ERRORS.items() if entry["http"] != 200])
async def test_every_recorded_error_can_be_scripted_and_equals_the_recorded_body(
    clock: VirtualClock, name: str
) -> None:
    async with wire(clock) as upstream:
        upstream.emulator.script(name)
        status, headers, raw = await upstream.send(f"/v1beta/models/{MODEL}:generateContent", PROMPT)
    assert status == ERRORS[name]["http"]
    assert same_but_for_names(json.loads(raw), ERRORS[name]["body"])
    assert headers["content-type"] == "application/json; charset=UTF-8"
    assert raw == json.dumps(json.loads(raw), indent=2, ensure_ascii=False).encode() + b"\n"


async def test_recorded_404s_are_answered_the_same(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        for suffix in (":generateContent", ":countTokens"):
            for entry in recorded(suffix, status=404):
                status, _, raw = await upstream.send(entry["request"]["path"], entry["request"]["json"])
                expected = entry["response"]["json"]
                message = expected["error"]["message"].replace(
                    "Call ListModels", "Call ModelService.ListModels"
                )
                assert (status, json.loads(raw)["error"]["message"]) == (404, message)


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", "403-no-key"),
        ({"Authorization": f"Bearer {KEY}"}, "", "401-token-type"),
        ({"x-goog-api-key": KEY}, f"?key={KEY}", "400-two-credentials"),
        ({"x-goog-api-key": KEY, "Authorization": "Bearer x"}, "", "400-two-credentials"),
        ({"x-goog-api-key": "AIzaCANARY-unknown"}, "", "400-key-invalid"),
        ({}, "?key=AQ.CANARY.unknown", "400-key-invalid"),
    ],
)
async def test_credentials_are_judged_like_the_real_ones(
    clock: VirtualClock, headers: dict[str, str], query: str, expected: str
) -> None:
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:generateContent{query}"
        status, _, raw = await upstream.send(path, PROMPT, headers=headers)
    assert status == ERRORS[expected]["http"]
    assert same_but_for_names(json.loads(raw), ERRORS[expected]["body"])


async def test_a_key_may_come_as_query_parameter(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:generateContent?key={KEY}"
        status, _, _ = await upstream.send(path, PROMPT, headers={})
    assert status == 200


async def test_unknown_fields_are_named_one_line_and_one_violation_each(clock: VirtualClock) -> None:
    real = ERRORS["400-unknown-field"]["body"]
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:generateContent"
        _, _, one = await upstream.send(path, {**PROMPT, "google": {}})
        nested = {
            **PROMPT,
            "tools": [{"functionDeclarations": [{"name": "f", "const": 1}], "extra": 2}],
        }
        status, _, raw = await upstream.send(path, nested)
    assert json.loads(one) == real
    error = json.loads(raw)["error"]
    violations = error["details"][0]["fieldViolations"]
    assert status == 400
    assert [v["field"] for v in violations] == ["tools[0].function_declarations[0]", "tools[0]"]
    assert error["message"].split("\n") == [v["description"] for v in violations]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "Invalid JSON payload received."),
        (b'{"contents": "\xff"}', "Invalid JSON payload received."),
        (b"[" * 100_000, "Invalid JSON payload received."),
        (b"[]", "Root element must be a message"),
        ({"contents": []}, "contents is not specified"),
        ({"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, "valid role: user, model"),
        (
            {**PROMPT, "generationConfig": {"topK": "many"}},
            "Invalid value at 'generation_config.top_k'",
        ),
        (
            {**PROMPT, "generationConfig": {"responseModalities": ["AUDIO"]}},
            "response modalities (AUDIO)",
        ),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "?"}}]}]}, "Base64"),
    ],
)
async def test_a_wrong_request_is_a_400_that_says_why(
    clock: VirtualClock, body: Any, part: str
) -> None:
    async with wire(clock) as upstream:
        status, _, raw = await upstream.send(f"/v1beta/models/{MODEL}:generateContent", body)
        assert upstream.emulator.report().totals.charged_requests == 0
    error = json.loads(raw)["error"]
    assert (status, error["status"]) == (400, "INVALID_ARGUMENT")
    assert part in error["message"]


async def test_media_are_taken_up_to_the_size_a_client_sends(clock: VirtualClock) -> None:
    assert emulated._LARGEST["GenerateContentRequest"] > 4 * INLINE_LIMIT / 3
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(21 * 2**20)).decode()
    part = {"inlineData": {"mimeType": "image/png", "data": data}}
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:generateContent"
        status, _, _ = await upstream.send(path, {"contents": [{"parts": [part, {"text": "?"}]}]})
    assert status == 200


async def test_sizes_are_limited_like_the_real_ones(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        item = {"model": "models/gemini-embedding-2", "content": {"parts": [{"text": "x"}]}}
        path = "/v1beta/models/gemini-embedding-2:batchEmbedContents"
        _, _, many = await upstream.send(path, {"requests": [item] * 101})
        _, _, large = await upstream.send(path, b" " * 4_194_305)
        text = "1" * 1_048_577
        _, _, long = await upstream.send(
            f"/v1beta/models/{MODEL}:generateContent", {"contents": [{"parts": [{"text": text}]}]}
        )
    assert json.loads(many) == ERRORS["400-batch-embed-size"]["body"]
    assert "4194304 bytes" in json.loads(large)["error"]["message"]
    assert "(1048578) exceeds the maximum number of tokens allowed (1048576)" in long.decode()


async def test_files_and_caches_of_others_are_403_never_404(clock: VirtualClock) -> None:
    file = {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc123"}}
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:generateContent"
        _, _, other = await upstream.send(path, {"contents": [{"parts": [file]}]})
        _, _, cache = await upstream.send(path, {**PROMPT, "cachedContent": "cachedContents/x"})
    assert json.loads(other) == ERRORS["403-file"]["body"]
    assert json.loads(cache) == ERRORS["403-cached-content"]["body"]


async def test_unknown_paths_are_404(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        for method, path in (("POST", "/v1beta/batches"), ("GET", "/"), ("DELETE", "/v1/models/x")):
            status, _, raw = await upstream.send(path, PROMPT, method=method)
            assert (status, json.loads(raw)) == (404, ERRORS["404-entity"]["body"])
        status, _, raw = await upstream.send(f"/v1beta/models/{MODEL}:predict", PROMPT)
        assert f"models/{MODEL} is not found for API version v1beta" in raw.decode()


# ── versions and spellings ───────────────────────────────────────────────────


async def test_versions_are_alike_except_that_v1_knows_no_alias(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        said = [await upstream.generate(PROMPT, version=v) for v in ("v1", "v1beta", "v1alpha")]
        assert len({text_of(reply) for reply in said}) == 1
        assert await upstream.generate(PROMPT, "gemini-flash-latest")
        status, _, raw = await upstream.send("/v1/models/gemini-flash-latest:generateContent", PROMPT)
        assert (status, "API version v1," in raw.decode()) == (404, True)


async def test_camel_snake_and_mixed_spellings_mean_the_same(clock: VirtualClock) -> None:
    schema = {
        "type": "OBJECT",
        "properties": {"max_level": {"type": "INTEGER"}},
        "required": ["max_level"],
    }
    camel = {
        **PROMPT,
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"responseMimeType": "application/json", "responseSchema": schema},
    }
    snake = {
        **PROMPT,
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "generation_config": {"response_mime_type": "application/json", "responseSchema": schema},
    }
    async with wire(clock) as upstream:
        first, second = await upstream.generate(camel), await upstream.generate(snake)
    del (
        first["responseId"],
        second["responseId"],
        first["candidates"][0]["content"]["parts"][0]["thoughtSignature"],
    )
    del second["candidates"][0]["content"]["parts"][0]["thoughtSignature"]
    assert first == second
    assert list(json.loads(first["candidates"][0]["content"]["parts"][0]["text"])) == ["max_level"]


# ── thoughts, tools, structure, pictures ─────────────────────────────────────


async def two_turns(upstream: Wire, change: Any) -> tuple[int, str]:
    reply = await upstream.generate(CALLING)
    content = reply["candidates"][0]["content"]
    call = content["parts"][0]["functionCall"]
    change(content["parts"][0])
    result = {"functionResponse": {"name": call["name"], "id": call["id"], "response": {"level": 3}}}
    contents = [*PROMPT["contents"], content, {"role": "user", "parts": [result]}]
    body = {"contents": contents, "tools": CALLING["tools"]}
    status, _, raw = await upstream.send(f"/v1beta/models/{MODEL}:generateContent", body)
    return status, json.loads(raw).get("error", {}).get("message", "")


async def test_a_function_call_must_bring_its_signature_back(clock: VirtualClock) -> None:
    def lose(part: dict[str, Any]) -> None:
        del part["thoughtSignature"]

    def dummy(part: dict[str, Any]) -> None:
        part["thoughtSignature"] = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="

    def bend(part: dict[str, Any]) -> None:
        part["thoughtSignature"] = "AAAA" + part["thoughtSignature"][4:]

    def keep(_: dict[str, Any]) -> None:
        pass

    expected = ERRORS["400-thought-signature"]["body"]["error"]["message"]
    expected = expected.replace("default_api:X", "default_api:get_level")
    async with wire(clock) as upstream:
        assert await two_turns(upstream, keep) == (200, "")
        assert await two_turns(upstream, dummy) == (200, "")
        assert await two_turns(upstream, bend) == (200, "")
        assert await two_turns(upstream, lose) == (400, expected)
    async with wire(clock, thought_signatures="verified") as upstream:
        assert await two_turns(upstream, keep) == (200, "")
        assert await two_turns(upstream, dummy) == (200, "")
        assert (await two_turns(upstream, bend))[0] == 400
    async with wire(clock, thought_signatures="off") as upstream:
        assert await two_turns(upstream, lose) == (200, "")


async def test_a_marker_calls_a_function_and_its_result_gets_a_text(
    clock: VirtualClock,
) -> None:
    body = {"contents": [{"parts": [{"text": "[[call:get_level]] please"}]}], "tools": CALLING["tools"]}
    async with wire(clock) as upstream:
        part = (await upstream.generate(body))["candidates"][0]["content"]["parts"][0]
        assert part["functionCall"]["name"] == "get_level"
        none = {**body, "toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}
        assert "text" in (await upstream.generate(none))["candidates"][0]["content"]["parts"][0]
        result = {"functionResponse": {"name": "get_level", "response": {}}}
        history = [*body["contents"], {"role": "model", "parts": [part]}, {"parts": [result]}]
        after = await upstream.generate({**body, "contents": history})
        assert "text" in after["candidates"][0]["content"]["parts"][0]


@pytest.mark.parametrize("field", ["responseSchema", "responseJsonSchema", "_responseJsonSchema"])
async def test_structured_output_is_json_that_fits_the_schema(clock: VirtualClock, field: str) -> None:
    schema = {
        "type": "object",
        "properties": {"gates": {"type": "array", "minItems": 2, "items": {"type": "string"}}},
        "required": ["gates"],
    }
    settings = {"responseMimeType": "application/json", field: schema}
    async with wire(clock) as upstream:
        raw = await upstream.stream({**PROMPT, "generationConfig": settings})
    text = "".join(c["candidates"][0]["content"]["parts"][0].get("text", "") for c in chunks_of(raw))
    gates = json.loads(text)["gates"]
    assert len(gates) >= 2
    assert all(isinstance(gate, str) for gate in gates)


async def test_an_enum_schema_answers_with_one_of_its_words(clock: VirtualClock) -> None:
    settings = {
        "responseMimeType": "text/x.enum",
        "responseSchema": {"type": "STRING", "enum": ["up", "down"]},
    }
    async with wire(clock) as upstream:
        reply = await upstream.generate({**PROMPT, "generationConfig": settings})
    assert reply["candidates"][0]["content"]["parts"][0]["text"] in ("up", "down")


async def test_pictures_come_from_image_models_only_and_are_counted(
    clock: VirtualClock,
) -> None:
    wanted = {**PROMPT, "generationConfig": {"responseModalities": ["IMAGE"]}}
    async with wire(clock) as upstream:
        reply = await upstream.generate(wanted, "gemini-3-pro-image")
        status, _, _ = await upstream.send(f"/v1beta/models/{MODEL}:generateContent", wanted)
    (part,) = reply["candidates"][0]["content"]["parts"]
    assert part["inlineData"]["mimeType"] == "image/png"
    assert part["inlineData"]["data"].startswith("iVBORw0KGgo")
    assert reply["usageMetadata"]["candidatesTokensDetails"] == [
        {"modality": "IMAGE", "tokenCount": 1120}
    ]
    assert status == 400


# ── counting, embedding, listing ─────────────────────────────────────────────


async def test_count_tokens_has_the_recorded_shape_and_takes_either_form(clock: VirtualClock) -> None:
    entry = next(e for e in recorded(":countTokens") if "json" in e["request"])
    real, sent = entry["response"]["json"], entry["request"]["json"]
    async with wire(clock) as upstream:
        path = f"/v1beta/models/{MODEL}:countTokens"
        plain = json.loads((await upstream.send(path, sent))[2])
        nested = {"generateContentRequest": {"model": f"models/{MODEL}", **sent}}
        assert json.loads((await upstream.send(path, nested))[2]) == plain
        assert (await upstream.send(path, {**sent, **nested}))[0] == 400
    assert set(plain) == set(real)
    assert list(misfits(plain, "CountTokensResponse")) == []


async def test_embeddings_have_the_recorded_shape_and_unit_length(clock: VirtualClock) -> None:
    entry = recorded(":batchEmbedContents")[0]
    items = [
        {"model": "models/gemini-embedding-2", "content": {"parts": [{"text": text}]}}
        for text in ("water", "gate", "water")
    ]
    async with wire(clock) as upstream:
        path = "/v1beta/models/gemini-embedding-2"
        raw = (await upstream.send(f"{path}:batchEmbedContents", {"requests": items}))[2]
        short = {"content": items[0]["content"], "outputDimensionality": 768}
        single = json.loads((await upstream.send(f"{path}:embedContent", short))[2])
    made, real = json.loads(raw), entry["response"]["json"]
    assert list(misfits(made, "BatchEmbedContentsResponse")) == []
    assert list(misfits(single, "EmbedContentResponse")) == []
    assert set(real) <= set(made)
    vectors = [e["values"] for e in made["embeddings"]]
    assert [len(v) for v in vectors] == [3072] * 3
    assert vectors[0] == vectors[2] != vectors[1]
    assert len(single["embedding"]["values"]) == 768
    for vector in (*vectors, single["embedding"]["values"]):
        assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-6)
    assert raw == json.dumps(made, indent=2).encode() + b"\n"


async def test_the_model_list_is_paged_and_fits_the_schema(clock: VirtualClock) -> None:
    async with wire(clock) as upstream:
        names: list[str] = []
        token = ""
        while True:
            path = f"/v1beta/models?pageSize=7&pageToken={token}"
            page = json.loads((await upstream.send(path, method="GET"))[2])
            assert list(misfits(page, "ListModelsResponse")) == []
            assert len(page["models"]) <= 7
            names += [model["name"] for model in page["models"]]
            token = page.get("nextPageToken", "")
            if not token:
                break
        one = json.loads((await upstream.send(f"/v1beta/{names[0]}", method="GET"))[2])
        assert one["name"] == names[0]
        beyond = "/v1beta/models?pageToken=OTk5"
        assert (await upstream.send(beyond, method="GET"))[2] == b"{}\n"
        bad = "/v1beta/models?pageToken=%21"
        assert (await upstream.send(bad, method="GET"))[0] == 400
    assert len(names) == len(set(names)) > 15
    assert "models/gemini-flash-latest" in names
