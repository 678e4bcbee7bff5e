"""Streams with all they carry, and settings read from elsewhere than the process environment."""

from __future__ import annotations

import json

import pytest

from headgate.gemini import (
    GeminiAPICallError,
    GeminiKeyManager,
    NoValidKeysError,
    ResilientGeminiClient,
)
from headgate.testing import Answer, ScriptedTransport, VirtualClock

KEYS = "AIzaCANARY-stream|one"


def event(parts: list[dict[str, object]] | None, finish: str | None = None, output: int = 0) -> bytes:
    candidate: dict[str, object] = {"content": {"parts": parts, "role": "model"}}
    if finish:
        candidate["finishReason"] = finish
    body = {
        "candidates": [candidate],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": output},
    }
    return b"data: " + json.dumps(body).encode() + b"\r\n\r\n"


def client(clock: VirtualClock, *pieces: bytes) -> ResilientGeminiClient:
    transport = ScriptedTransport([Answer(pieces=pieces)], clock)
    return ResilientGeminiClient(keys=KEYS, transport=transport, clock=clock)


async def test_s1_29a_a_stream_can_be_read_with_media_and_usage(clock: VirtualClock) -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    streaming = client(clock, event([{"text": "see "}], output=1), event([picture], "STOP", output=9))
    chunks = [chunk async for chunk in streaming.generate_reply_stream("draw")]
    assert [chunk.text for chunk in chunks] == ["see ", ""]
    assert chunks[1].blobs[0].data == b"hi"
    assert chunks[1].finish_reason == "STOP"
    assert chunks[1].usage is not None
    assert chunks[1].usage.output == 9


async def test_a_done_marker_of_a_proxy_does_not_spoil_a_whole_answer(clock: VirtualClock) -> None:
    streaming = client(clock, event([{"text": "all"}], "STOP"), b"data: [DONE]\n\n")
    assert [text async for text in streaming.generate_content_stream("x")] == ["all"]


async def test_nulls_of_a_proxy_are_read_as_left_out(clock: VirtualClock) -> None:
    body = {
        "candidates": [
            {
                "content": {"parts": [{"text": "hi", "thought": None}]},
                "finishReason": "STOP",
                "finishMessage": None,
            }
        ],
        "usageMetadata": {"promptTokenCount": 3, "thoughtsTokenCount": None},
        "promptFeedback": None,
        "modelVersion": None,
    }
    transport = ScriptedTransport([Answer(body=json.dumps(body).encode())], clock)
    answering = ResilientGeminiClient(keys=KEYS, transport=transport, clock=clock)
    assert await answering.generate_content("x") == "hi"


async def test_an_empty_stream_that_ended_well_says_so_and_not_that_it_broke(
    clock: VirtualClock,
) -> None:
    streaming = client(clock, event(None, "STOP"))
    with pytest.raises(GeminiAPICallError, match=r"^The answer is empty\. Change") as caught:
        [text async for text in streaming.generate_content_stream("x")]
    assert caught.value.kind == "blocked"


def test_settings_can_come_from_a_mapping_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEYS", "AIzaCANARY-of-the-process")
    with pytest.raises(NoValidKeysError):
        ResilientGeminiClient(environ={})
    built = ResilientGeminiClient(environ={"GEMINI_API_KEY": "AIzaCANARY-given"})
    assert [key.name for key in built.key_manager.keys] == ["primary"]


def test_s1_36_someone_elses_exception_is_told_by_its_words() -> None:
    manager = GeminiKeyManager(KEYS)
    (key,) = manager.keys
    manager.track_metrics(key, RuntimeError("429 Too Many Requests"))
    manager.track_metrics(key, RuntimeError("the quota page is down"))
    assert key.metrics.quota_errors == 1
    assert key.metrics.other_errors == 1
