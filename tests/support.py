"""Answers, keys and clients that many tests need. Every key holds the canary the conftest looks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from headgate.core.records import AttemptRecord, CallRecord, WaitRecord
from headgate.gemini import ResilientGeminiClient
from headgate.testing import Answer, Broken, ScriptedTransport, Sent, VirtualClock

MODEL = "gemini-3.8-flash"
"""A model that is neither retired nor retiring, so that no warning interferes."""

DATA = Path(__file__).parent / "data" / "gemini"

KEY_VARIABLES = ("GEMINI_API_KEYS", "GEMINI_API_KEY", "GOOGLE_API_KEY")


def key(number: int) -> str:
    """The value of key `number`, counted from 0."""
    return f"AIzaCANARY-{number:03d}-{'x' * 20}"


def keys(count: int, project: str = "") -> str:
    """`count` keys named k0, k1, …; all of one project where one is given."""
    return ",".join(f"{key(number)}|k{number}|{project}" for number in range(count))


def number_of(sent: Sent) -> int:
    """Which of the keys of `keys` a request was sent with."""
    return int(sent.credential["x-goog-api-key"].split("-")[1])


# ── answers ─────────────────────────────────────────────────────────────────────────────────────


def reply(text: str = "fine", *, finish: str | None = "STOP", tokens: int = 3) -> dict[str, Any]:
    """A generate reply."""
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 5, "candidatesTokenCount": tokens, "totalTokenCount": 5 + tokens}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL}


def said(text: str = "fine", *, finish: str | None = "STOP", delay: float = 0.0) -> Answer:
    """A whole answer."""
    return Answer(body=json.dumps(reply(text, finish=finish)).encode(), delay=delay)


def vector(*values: float) -> Answer:
    """The answer to an embedding."""
    return Answer(body=json.dumps({"embedding": {"values": values or (0.1, 0.2, 0.3)}}).encode())


def event(value: object) -> bytes:
    """One server-sent event as the API frames it."""
    return b"data: " + json.dumps(value).encode() + b"\r\n\r\n"


def stream(*texts: str, finish: str | None = "STOP", piece_delay: float = 0.0) -> Answer:
    """A streamed answer, a piece for each text, the last with the finish reason."""
    last = len(texts) - 1
    pieces = (
        event(reply(text, finish=finish if number == last else None))
        for number, text in enumerate(texts)
    )
    return Answer(pieces=tuple(pieces), piece_delay=piece_delay)


def failure(
    status: int,
    message: str,
    code: str = "",
    details: Sequence[Mapping[str, object]] = (),
    *,
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Answer:
    """An error of the API."""
    error: dict[str, object] = {"code": status, "message": message, "status": code}
    if details:
        error["details"] = list(details)
    body = json.dumps({"error": error}).encode()
    return Answer(status, body, headers=headers or {}, delay=delay)


def quota(
    per: str = "Minute", hint: str | None = None, *, delay: float = 0.0, value: str = "10"
) -> Answer:
    """A typed quota refusal, per `Minute` or `Day`, with the hint as the API writes it: `22s`."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": f"GenerateRequestsPer{per}PerProjectPerModel-FreeTier",
        "quotaDimensions": {"model": MODEL, "location": "global"},
        "quotaValue": value,
    }
    details: list[dict[str, object]] = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}
    ]
    if hint is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": hint})
    return failure(429, "You exceeded your current quota.", "RESOURCE_EXHAUSTED", details, delay=delay)


def bad_key(status: int = 400, *, echo: str = "") -> Answer:
    """The upstream refuses the key itself, and may repeat it."""
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    message = f"API key not valid. Please pass a valid API key. {echo}".strip()
    return failure(status, message, "INVALID_ARGUMENT", [reason])


def overloaded() -> Answer:
    """The model is overloaded."""
    return failure(503, "The model is overloaded. Please try again later.", "UNAVAILABLE")


def broken_inside(delay: float = 0.0) -> Answer:
    """A fault of the upstream."""
    return failure(500, "Internal error encountered.", "INTERNAL", delay=delay)


def recorded_errors() -> list[dict[str, Any]]:
    """The table of error bodies, a row for each form that was seen."""
    content = json.loads((DATA / "errors.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = content
    return rows


# ── clients ─────────────────────────────────────────────────────────────────────────────────────

Script = Iterable[Answer | Broken] | Callable[[Sent], Answer | Broken]


class Ear:
    """An observer that remembers everything."""

    def __init__(self) -> None:
        self.attempts: list[AttemptRecord] = []
        self.waits: list[WaitRecord] = []
        self.calls: list[CallRecord] = []

    def attempt(self, record: AttemptRecord) -> None:
        self.attempts.append(record)

    def waiting(self, record: WaitRecord) -> None:
        self.waits.append(record)

    def call(self, record: CallRecord) -> None:
        self.calls.append(record)


def scripted(
    script: Script, clock: VirtualClock, count: int = 1, **arguments: Any
) -> tuple[ResilientGeminiClient, ScriptedTransport]:
    """A client over `count` keys and the transport it talks to."""
    transport = ScriptedTransport(script, clock)
    arguments.setdefault("keys", keys(count))
    client = ResilientGeminiClient(transport=transport, clock=clock, **arguments)
    return client, transport


def key_books(client: ResilientGeminiClient) -> list[tuple[int, int, int, int]]:
    """Per key: all requests, successes, failures, quota errors."""
    fields = ("total_requests", "successful_requests", "failed_requests", "quota_errors")
    shown = client.get_key_metrics()["keys"]
    return [tuple(entry["metrics"][name] for name in fields) for entry in shown]  # type: ignore[misc]


async def settle(client: ResilientGeminiClient, transport: ScriptedTransport) -> None:
    """Let whatever a call left behind come to rest, then check that nothing is left."""
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, no time passes
    assert transport.open_exchanges == 0, "an exchange stayed open"
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"
    shown = client.get_key_metrics()
    assert shown["total_keys"] == len(shown["keys"])


def environment(monkeypatch: pytest.MonkeyPatch, directory: Path, **variables: str) -> None:
    """Let exactly these of our variables be set, in a directory without a `headgate.toml`."""
    import os

    for name in list(os.environ):  # noqa: TID251 - a test arranges what settings will read
        if name.startswith(("GEMINI_", "HEADGATE_")) or name == "GOOGLE_API_KEY":
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(directory)
