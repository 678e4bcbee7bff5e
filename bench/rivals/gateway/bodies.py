"""What is sent and answered: of the size and shape of real calls, in words of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "GEMINI_MODEL",
    "GEMINI_REQUEST",
    "LARGE_REQUEST",
    "OPENAI_REQUEST",
    "streamed",
    "write_answers",
]

GEMINI_MODEL = "gemini-3.5-flash-lite"
_WORDS = "The quota of a project is shared by its keys, so a second key adds nothing to it. "


def _text(size: int) -> str:
    return (_WORDS * (size // len(_WORDS) + 1))[:size]


def _gemini(turns: int, size: int) -> bytes:
    roles = ("user", "model")
    return json.dumps({
        "systemInstruction": {"parts": [{"text": "Answer in one sentence."}]},
        "contents": [
            {"role": roles[turn % 2], "parts": [{"text": _text(size if turn else 90)}]}
            for turn in range(turns)
        ],
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}],
        "generationConfig": {
            "temperature": 0.4,
            "topP": 0.9,
            "topK": 40,
            "maxOutputTokens": 512,
            "candidateCount": 1,
            "stopSequences": ["END"],
            "responseSchema": {
                "type": "OBJECT",
                "properties": {"answer": {"type": "STRING"}, "sure": {"type": "BOOLEAN"}},
            },
            "thinkingConfig": {"thinkingBudget": 0},
        },
    }).encode()  # fmt: skip


GEMINI_REQUEST = _gemini(3, 130)
"""About 1 KB: three turns."""

LARGE_REQUEST = _gemini(145, 640)
"""About 100 KB: many turns."""

OPENAI_REQUEST = json.dumps({
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": _text(270)},
        {"role": "assistant", "content": _text(210)},
        {"role": "user", "content": _text(200)},
    ],
    "temperature": 0.4,
    "top_p": 0.9,
    "max_tokens": 512,
    "presence_penalty": 0.1,
}).encode()  # fmt: skip

_USAGE = {"promptTokenCount": 170, "candidatesTokenCount": 96, "totalTokenCount": 266}
_GEMINI_ANSWER = {
    "candidates": [{
        "content": {"role": "model", "parts": [{"text": _text(480)}]},
        "finishReason": "STOP",
        "index": 0,
        "safetyRatings": [
            {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"},
            {"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "NEGLIGIBLE"},
        ],
        "avgLogprobs": -0.0123,
    }],
    "usageMetadata": {**_USAGE, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 170}]},
    "modelVersion": GEMINI_MODEL,
    "responseId": "Zm9vYmFyYmF6",
}  # fmt: skip
_OPENAI_ANSWER = {
    "id": "chatcmpl-0123456789",
    "object": "chat.completion",
    "created": 1795262400,
    "model": "gpt-4o-mini",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": _text(480)}, "finish_reason": "stop"}
    ],
    "usage": {
        "prompt_tokens": 170,
        "completion_tokens": 96,
        "total_tokens": 266,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
_GEMINI_EVENT = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": " keys"}]}, "index": 0}],
    "usageMetadata": _USAGE,
    "modelVersion": GEMINI_MODEL,
}
_OPENAI_EVENT = {
    "id": "chatcmpl-0123456789",
    "object": "chat.completion.chunk",
    "created": 1795262400,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "delta": {"content": " keys"}, "finish_reason": None}],
}


def streamed(request: bytes) -> bytes:
    """An OpenAI request that asks for a stream."""
    return json.dumps({**json.loads(request), "stream": True}, separators=(",", ":")).encode()


def write_answers(folder: Path) -> None:
    """The files that `upstream.c` reads."""
    (folder / "gemini.json").write_bytes(json.dumps(_GEMINI_ANSWER).encode())
    (folder / "openai.json").write_bytes(json.dumps(_OPENAI_ANSWER).encode())
    (folder / "gemini.event").write_bytes(_event(_GEMINI_EVENT, "\r\n\r\n"))
    (folder / "openai.event").write_bytes(_event(_OPENAI_EVENT, "\n\n"))
    (folder / "gemini.final").write_bytes(
        _event(_ended(_GEMINI_EVENT, finishReason="STOP"), "\r\n\r\n")
    )
    (folder / "openai.final").write_bytes(_event(_ended(_OPENAI_EVENT, finish_reason="stop"), "\n\n"))


def _event(data: Mapping[str, object], end: str) -> bytes:
    return f"data: {json.dumps(data)}{end}".encode()


def _ended(event: Mapping[str, Any], **reason: str) -> dict[str, object]:
    """The event that says why the stream stopped, without which it has broken off."""
    copy: dict[str, Any] = json.loads(json.dumps(event))
    copy["candidates" if "candidates" in copy else "choices"][0].update(reason)
    return copy
