"""S3-02c, d, S3-07a, j, S3-08, S3-09, S3-10, S3-23: requests and answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.executing import PLAIN, TINY, Backend, said_in
from tests.support import MODEL, event, failure, key, reply, said, stream

from headgate.backend.structures import (
    FunctionResult,
    GeminiError,
    GeminiRequest,
    GeminiResponse,
    PreprocessConfig,
    SafetyRating,
    StreamingChunk,
    TokenUsage,
)
from headgate.emulator import Emulator, EmulatorConfig, Project
from headgate.testing import Answer, VirtualClock
from headgate.wiring import media

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 40


# ── S3-08, S3-23 ────────────────────────────────────────────────────────────────────────────────


async def test_s3_08_every_field_reaches_the_wire(clock: VirtualClock) -> None:
    backend = Backend(clock, [said()])
    tools = [{"functionDeclarations": [{"name": "find"}]}]
    answer = await backend.ask(
        "What is shown?",
        temperature=0.7,
        max_output_tokens=200,
        top_k=3,
        top_p=0.9,
        stop_sequences=["END"],
        system_instruction="Be brief.",
        images=[("image/png", PNG)],
        files=[("a.pdf", "application/pdf", b"%PDF-1.7 x")],
        tools=tools,
        tool_config={"functionCallingConfig": {"mode": "NONE"}},
        preprocess_config=PreprocessConfig(enforce_token_limits=False),
    )
    body = backend.last
    assert body["generationConfig"] == {
        "temperature": 0.7,
        "maxOutputTokens": 200,
        "topK": 3,
        "topP": 0.9,
        "stopSequences": ["END"],
    }
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert body["tools"] == tools
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "NONE"}}
    kinds = [part.get("inlineData", {}).get("mimeType") for part in body["contents"][0]["parts"]]
    assert kinds == ["image/png", "application/pdf", None]
    assert isinstance(answer, GeminiResponse)
    assert (answer.cached, answer.from_fallback) == (False, False)
    assert answer.request_id == backend.ear.calls[0].request_id


async def test_s3_08_an_answer_says_what_it_took(clock: VirtualClock) -> None:
    body = reply()
    body["usageMetadata"] |= {"thoughtsTokenCount": 4, "cachedContentTokenCount": 2}
    body["candidates"][0]["safetyRatings"] = [
        {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"},
        {"category": None, "probability": "LOW", "blocked": True, "severity": 3},
    ]
    backend = Backend(clock, [Answer(body=json.dumps(body).encode())])
    answer = await backend.ask("Hello", MODEL)
    assert (answer.text, answer.model, answer.finish_reason) == ("fine", MODEL, "STOP")
    assert answer.usage == TokenUsage(5, 7, 12, 2, 4)
    assert answer.safety_ratings == (
        SafetyRating("HARM_CATEGORY_HARASSMENT", "NEGLIGIBLE"),
        SafetyRating("", "LOW", blocked=True),
    )
    price = backend.models.find(MODEL)
    assert price is not None
    assert answer.cost_estimate is not None
    assert 0 < answer.cost_estimate < 0.001


async def test_s3_08_a_model_without_a_price_costs_nobody_knows(clock: VirtualClock) -> None:
    assert (await Backend(clock, [said()]).ask("Hello")).cost_estimate is None


async def test_s3_08_media_of_an_answer_are_there(clock: VirtualClock) -> None:
    body = reply()
    body["candidates"][0]["content"]["parts"] = [
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    ]
    answer = await Backend(clock, [Answer(body=json.dumps(body).encode())]).ask("Draw")
    assert (answer.text, answer.media[0].mime_type) == ("", "image/png")


async def test_s3_02c_a_stream_gives_deltas_and_at_its_end_the_whole(clock: VirtualClock) -> None:
    body = reply("c", finish="STOP", tokens=9)
    body["candidates"][0]["safetyRatings"] = [{"category": "X", "probability": "LOW"}]
    pieces = (event(reply("a", finish=None)), event(reply("b", finish=None)), event(body))
    backend = Backend(clock, [Answer(pieces=pieces, piece_delay=1.0)])
    chunks = await backend.read("Hello", MODEL)
    assert [chunk.delta for chunk in chunks] == ["a", "b", "c", ""]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "STOP", None]
    assert chunks[2].safety_ratings == (SafetyRating("X", "LOW"),)
    final = chunks[-1].response
    assert final is not None
    assert (final.text, final.finish_reason, final.usage.completion_tokens) == ("abc", "STOP", 9)
    assert [chunk.response for chunk in chunks[:-1]] == [None] * 3
    assert "alt=sse" in backend.transport.sent[0].request.url  # type: ignore[union-attr]


async def test_s3_02c_a_stream_that_breaks_raises_a_typed_error(clock: VirtualClock) -> None:
    backend = Backend(clock, [stream("a", "b", finish=None)])
    request = GeminiRequest("Hello", MODEL, stream=True)
    pieces = cast("AsyncGenerator[StreamingChunk]", await backend.executor.execute(request))
    seen = [(await anext(pieces)).delta for _ in range(2)]
    with pytest.raises(GeminiError, match="broke off") as caught:
        await anext(pieces)
    assert seen == ["a", "b"]
    assert caught.value.error_type == "NetworkError"


async def test_s3_08_a_failed_call_says_its_type(clock: VirtualClock) -> None:
    backend = Backend(clock, [failure(404, "no such model", "NOT_FOUND")])
    with pytest.raises(GeminiError) as caught:
        await backend.ask("Hello", "gemini-nobody")
    assert caught.value.error_type in ("ModelNotFound", "InvalidRequest")
    assert caught.value.request_id


async def test_s3_08_a_retired_model_goes_to_its_successor_and_the_reply_says_which(
    clock: VirtualClock,
) -> None:
    backend = Backend(clock, [said()])
    await backend.ask("Hello", "gemini-2.0-flash-exp")
    assert "gemini-3.5-flash-lite" in backend.transport.sent[0].request.url  # type: ignore[union-attr]


async def test_s3_08_an_api_key_of_the_callers_own_is_used(clock: VirtualClock) -> None:
    backend = Backend(clock, [said()])
    await backend.executor.execute(GeminiRequest("Hello", TINY), api_key=key(7))
    await backend.executor.process("Hello", TINY, api_key=key(8))
    assert backend.keys == [key(7), key(8)]


async def test_s3_07j_nothing_said_is_in_a_repr(clock: VirtualClock) -> None:
    request = GeminiRequest("my secret", TINY, images=[("image/png", PNG)])
    assert "secret" not in repr(request)
    backend = Backend(clock, [said("the answer")])
    await backend.ask("my secret", session_id="s")
    assert "secret" not in repr(backend.ear.calls)


# ── S3-02d ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"images": [("image/png", JPEG)]}, "first bytes say image/jpeg"),
        ({"images": [("image/gif", b"GIF89a")]}, "image/gif"),
        ({"images": [("text/plain", b"hello")]}, "text/plain"),
        ({"images": [("png", PNG)]}, "no media type"),
        ({"images": [("image/png", b"")]}, "is empty"),
        ({"images": [("image/png", "no bytes")]}, "bytes"),
        ({"images": "image.png"}, "list"),
        ({"files": [("", "text/plain", b"x")]}, "name"),
        ({"files": [("a.pdf", "application/pdf", PNG)]}, "first bytes say image/png"),
        ({"files": [("a.txt", "text/plain", PNG)]}, "first bytes say image/png"),
        ({"files": [("a.txt", b"x")]}, "media type"),
    ],
)
async def test_s3_02d_media_are_checked(
    clock: VirtualClock, fields: dict[str, Any], named: str
) -> None:
    backend = Backend(clock, [said()])
    with pytest.raises(GeminiError, match=named):
        await backend.ask("What is shown?", **fields)
    assert backend.sent == []


async def test_s3_02d_above_the_apis_limit_the_limit_is_named(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "INLINE_LIMIT", 60)
    monkeypatch.setattr("headgate.backend.files.INLINE_LIMIT", 60)
    backend = Backend(clock, [said()])
    inside: dict[str, Any] = {"upload": False}
    with pytest.raises(GeminiError, match=r"images\[0\].*68 bytes.*1 to 60") as caught:
        await backend.ask("?", MODEL, images=[("image/png", PNG + b"\0" * 20)], **inside)
    assert caught.value.kind == "too_large"
    both = [("image/png", PNG), ("image/jpg", JPEG + b"0000")]
    with pytest.raises(GeminiError, match="96 bytes together; a call takes 60"):
        await backend.ask("?", MODEL, images=both, **inside)
    assert (await backend.ask("?", MODEL, images=[("image/jpg", JPEG)])).text == "fine"


# ── S3-09, S3-10 ────────────────────────────────────────────────────────────────────────────────


async def test_s3_09_fixed_parameters_as_the_model_takes_them(clock: VirtualClock) -> None:
    backend = Backend(clock, [said(), said(), said(), stream("a", "b")])
    await backend.executor.process("Hello", "gemini-2.5-flash-preview")
    assert backend.last["generationConfig"] == {
        "temperature": 0.7,
        "maxOutputTokens": 8192,
        "topK": 10,
        "topP": 0.95,
    }
    answer = await backend.executor.process("Hello", MODEL)  # its card takes no sampling
    assert backend.last["generationConfig"] == {"maxOutputTokens": 8192}
    assert cast("GeminiResponse", answer).warnings == ()
    await backend.executor.process("Hello", TINY, session_id="s")
    assert backend.last["generationConfig"]["maxOutputTokens"] == 1000
    pieces = cast(
        "AsyncGenerator[StreamingChunk]",
        await backend.executor.process("More", TINY, session_id="s", stream=True),
    )
    assert [piece.delta async for piece in pieces] == ["a", "b", ""]
    assert len(backend.last["contents"]) == 3


async def test_s3_10_the_path_is_reported_and_nothing_of_it_is_sent(
    clock: VirtualClock, tmp_path: Path
) -> None:
    (tmp_path / "secret.py").write_text("key = 1")
    backend = Backend(clock, [said()])
    answer = await backend.executor.code(
        "Explain", TINY, str(tmp_path), 0.2, 100, 5, 0.5, ["END"], "Be brief."
    )
    assert answer.cwd == str(tmp_path)
    sent = json.dumps(backend.last)
    assert str(tmp_path) not in sent
    assert "secret" not in sent
    assert backend.last["generationConfig"]["topK"] == 5


@pytest.mark.parametrize(
    ("prompt", "model", "path"),
    [("", TINY, "."), ("x", " ", "."), ("x", TINY, ""), ("x", TINY, "/no/place"), ("x", TINY, "a\0")],
)
async def test_s3_10_what_is_empty_or_missing_is_refused(
    clock: VirtualClock, prompt: str, model: str, path: str
) -> None:
    backend = Backend(clock, [said()])
    with pytest.raises(GeminiError):
        await backend.executor.code(prompt, model, path)
    assert backend.sent == []


async def test_s3_10_takes_two_minutes_at_the_most(clock: VirtualClock) -> None:
    backend = Backend(clock, [Answer(body=b"{}", delay=500.0)])
    began = clock.monotonic()
    with pytest.raises(GeminiError) as caught:
        await backend.executor.code("x", TINY, ".")
    assert caught.value.error_type == "RequestTimeout"
    assert clock.monotonic() - began == pytest.approx(120.0, abs=1.0)


# ── against the emulator ────────────────────────────────────────────────────────────────────────


def emulated() -> EmulatorConfig:
    return EmulatorConfig(projects=[Project("alpha", {"k0": key(0)})])


async def test_s3_27b_a_conversation_with_images_and_structure_against_the_emulator(
    clock: VirtualClock,
) -> None:
    async with Emulator(emulated(), clock=clock) as emulator:
        backend = Backend(clock, base_url=emulator.base_url)
        restore = PreprocessConfig(restore_redacted=True, validate_json_schema=True)
        schema = {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "tags": {"type": "array", "maxItems": 3}},
        }
        first = await backend.ask(
            "What is shown?", MODEL, session_id="s", images=[("image/png", PNG)],
            system_instruction="Be brief.",
        )  # fmt: skip
        second = await backend.ask(
            "As JSON", MODEL, session_id="s", response_schema=schema, preprocess_config=restore
        )
        chunks = await backend.read("Now mail ada@example.org", MODEL, session_id="s")
        assert first.usage.prompt_tokens < second.usage.prompt_tokens
        assert set(second.parsed) <= {"name", "tags"}
        final = chunks[-1].response
        assert final is not None
        assert final.text == "".join(chunk.delta for chunk in chunks)
        assert final.redactions == {"EMAIL": 1}
        assert emulator.report().unknown.requests == 0
        await backend.engine.aclose()


async def test_s3_27b_functions_against_the_emulator_that_checks_signatures(
    clock: VirtualClock,
) -> None:
    async with Emulator(emulated(), clock=clock) as emulator:
        backend = Backend(clock, base_url=emulator.base_url)
        tools = [
            {
                "functionDeclarations": [
                    {
                        "name": "depth",
                        "parameters": {"type": "OBJECT", "properties": {"river": {"type": "STRING"}}},
                    }
                ]
            }
        ]
        config = {"functionCallingConfig": {"mode": "ANY"}}
        asked = await backend.ask("How deep?", MODEL, session_id="s", tools=tools, tool_config=config)
        (call,) = asked.function_calls
        assert call.name == "depth"
        answer = await backend.ask(
            "", MODEL, session_id="s", tools=tools,
            function_results=[FunctionResult("depth", {"metres": 4}, call.id)],
        )  # fmt: skip
        assert answer.text
        await backend.engine.aclose()


async def test_s3_07a_a_large_prompt_does_not_hold_up_the_loop(clock: VirtualClock) -> None:
    """Half a megabyte is looked through in a thread: other tasks run meanwhile."""
    backend = Backend(clock, [said()])
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes

    beside = asyncio.ensure_future(others())
    answer = await backend.ask("Mail ada@example.org of tides. " * 16_000, MODEL)
    beside.cancel()
    assert answer.redactions == {"EMAIL": 16_000}
    assert turns > 100


async def test_a_plain_model_is_asked_without_what_it_lacks(clock: VirtualClock) -> None:
    backend = Backend(clock, [said()])
    await backend.ask("Hello", PLAIN)
    assert said_in(backend.last) == [("user", "Hello")]
