"""A content service to test: in process, in virtual time, over a model that answers from a script."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from tests.gateway import Client, Got
from tests.support import key

from headgate.content import Outside, app, load_content
from headgate.content.application import ContentApp
from headgate.content.prompts import EXPECTED_SUBTOPICS
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock

ENVIRON = {"GEMINI_API_KEYS": f"{key(0)}|k0|alpha", "REDIS_ENABLED": "false"}
CALLER_KEY = "CANARY-caller-key-of-ann-0123456789"
ADMIN_KEY = "CANARY-admin-key-0123456789abcdef"
SUBTOPICS = [f"{name} of the subject" for name in (
    "Origins", "Vocabulary", "First steps", "Tools", "Methods", "Materials", "Patterns", "Mistakes",
    "Measurement", "Safety", "Variations", "History", "Future", "Masters", "Practice",
)]  # fmt: skip
assert len(SUBTOPICS) == EXPECTED_SUBTOPICS

Model = Callable[[Mapping[str, Any]], Answer | Broken]


def explanation_of(prompt: str) -> dict[str, str]:
    subtopic = prompt.rpartition("Subtopic: ")[2]
    return {
        "explanation": f"{subtopic} is a part of the subject that rewards patience and some practice. "
        "Learners meet it early, come back to it often, and see more of its use each time they do.",
        "real_world_application": "Teachers use it in every lesson.",
        "youtube_search_query": f"{subtopic} explained",
    }


def answered(
    text: str, *, tokens: int = 1500, delay: float = 0.0, blobs: tuple[bytes, ...] = ()
) -> Answer:
    """An answer of the API whose usage is `tokens` in all."""
    parts: list[dict[str, Any]] = [{"text": text}] if text else []
    for blob in blobs:
        data = base64.b64encode(blob).decode()
        parts.append({"inlineData": {"mimeType": "image/png", "data": data}})
    body = {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 100,
            "candidatesTokenCount": tokens - 100,
            "totalTokenCount": tokens,
        },
        "modelVersion": "gemini-3.8-flash",
    }
    return Answer(body=json.dumps(body).encode(), delay=delay)


def refused(status: int = 429, *, quota: str = "") -> Answer:
    """A refusal of the API."""
    words = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 400: "INVALID_ARGUMENT"}
    error: dict[str, Any] = {"code": status, "message": "refused", "status": words[status]}
    if quota:
        kind = "type.googleapis.com/google.rpc.QuotaFailure"
        error["details"] = [{"@type": kind, "violations": [{"quotaId": quota, "quotaValue": "5"}]}]
    return Answer(status, body=json.dumps({"error": error}).encode())


def prompt_of(body: Mapping[str, Any]) -> str:
    parts = body["contents"][-1]["parts"]
    text: str = next(part["text"] for part in parts if "text" in part)
    return text


def system_of(body: Mapping[str, Any]) -> str:
    text: str = body["systemInstruction"]["parts"][0]["text"]
    return text


def good_model(body: Mapping[str, Any], delay: float = 0.0, tokens: int = 1500) -> Answer:
    """Answers everything as it should."""
    prompt = prompt_of(body)
    if "responseModalities" in body.get("generationConfig", {}):
        return answered("", tokens=1390, delay=delay, blobs=(picture("PNG"),))
    if "Subtopic: " in prompt:
        return answered(json.dumps(explanation_of(prompt)), tokens=tokens, delay=delay)
    if prompt.startswith("Topic: "):
        return answered(json.dumps(SUBTOPICS), tokens=tokens, delay=delay)
    return answered(json.dumps({"topic": "Lighthouses"}), tokens=tokens, delay=delay)


def picture(kind: str, size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    """The bytes of a picture."""
    from PIL import Image

    out = BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(out, kind, **options)
    return out.getvalue()


def form(data: bytes, name: str = "a.png", field: str = "image") -> tuple[bytes, dict[str, str]]:
    """A form with one file, and its headers."""
    mark = "----headgate-test"
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={mark}"}


class Content:
    """A service and its model."""

    def __init__(
        self,
        clock: VirtualClock,
        model: Model = good_model,
        *,
        environ: Mapping[str, str] | None = None,
        **outside: Any,
    ) -> None:
        self.transport = ScriptedTransport(lambda sent: model(body_of(sent)), clock)
        given = {**ENVIRON, **(environ or {})}
        self.settings = load_content(environ=given)
        self.app: ContentApp = app(
            self.settings, Outside(clock=clock, environ=given, transport=self.transport, **outside)
        )

    async def ask(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Got:
        return await Client(self.app, method, path, body, headers).run()  # type: ignore[arg-type] # an ASGI app

    async def post(self, path: str, body: Any, **headers: str) -> Got:
        return await self.ask("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    async def get(self, path: str, **headers: str) -> Got:
        return await self.ask("GET", path, b"", {k.replace("_", "-"): v for k, v in headers.items()})

    async def stats(self) -> Any:
        return (await self.get("/api/quota/stats")).json

    @property
    def sent(self) -> list[Mapping[str, Any]]:
        return [body_of(sent) for sent in self.transport.sent]


def body_of(sent: Sent) -> Mapping[str, Any]:
    body: Mapping[str, Any] = json.loads(sent.request.body)
    return body


def ordered(
    topic: str = "Python Programming", focus: list[str] | None = None, **more: Any
) -> dict[str, Any]:
    """The accepted example of a presentation."""
    return {
        "topic": topic,
        "educationLevel": "Intermediate",
        "levelOfDetail": "Detailed",
        "focus": focus or ["Variables", "Functions", "Classes"],
        **more,
    }
