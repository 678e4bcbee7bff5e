"""The emulator's Anthropic bytes against recorded replies, and its token buckets against the clock.

What a reply must look like is read from `tests/data/anthropic`, never from the emulator.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from headgate.emulator import Emulator, EmulatorConfig, Fault, Organisation, Project, TokenLimits
from headgate.emulator.vocabulary import CLAUDE_ALIASES, CLAUDE_METHODS
from headgate.testing import VirtualClock

DATA = Path(__file__).parents[1] / "data" / "anthropic"
ROWS = [json.loads(line) for line in (DATA / "recorded.jsonl").read_text("utf-8").splitlines()]
KEY, SMALL, BROKE = (f"sk-ant-CANARY-{name}-0123456789" for name in ("alpha", "small", "broke"))
OLD, NEW = "2023-06-01", "2026-10-21"
MODEL = "claude-opus-5-5"
ASK: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 400,
    "messages": [{"role": "user", "content": "How is water shared?"}],
}
TOOL = {
    "name": "get_level",
    "input_schema": {
        "type": "object",
        "properties": {"canal": {"type": "string"}},
        "required": ["canal"],
    },
}
EVENT = re.compile(rb"event: (\w+)\ndata: (\{[^\r\n]*\})\n\n")
LIMITS = {"*": TokenLimits(rpm=2, itpm=6_000, otpm=500)}
CONFIG = EmulatorConfig(
    organisations=[
        Organisation("alpha", {"alpha-1": KEY}, retry_after_share=0.0),
        Organisation("small", {"small-1": SMALL}, LIMITS, retry_after_share=0.0),
        Organisation("broke", {"broke-1": BROKE}, spend="own_limit"),
    ],
    projects=[Project("alpha", {"alpha-1": KEY})],
)


class Wire:
    """Raw requests and raw answers."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator, self._session = emulator, session

    async def send(
        self,
        body: Any = None,
        path: str = "/v1/messages",
        *,
        key: str = KEY,
        method: str = "POST",
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"x-api-key": key, "anthropic-version": OLD}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        async with self._session.request(
            method,
            self.emulator.base_url + path,
            data=None if raw is None else io.BytesIO(raw),
            headers=sent,
        ) as reply:
            received = {name.lower(): value for name, value in reply.headers.items()}
            return reply.status, received, await reply.read()

    async def ask(self, key: str = KEY, **more: Any) -> dict[str, Any]:
        status, _, raw = await self.send({**ASK, **more}, key=key)
        assert status == 200, raw
        return json.loads(raw)

    async def refused(self, body: Any, **headers: str) -> tuple[int, str, str]:
        status, received, raw = await self.send(body, **headers)
        read = json.loads(raw)
        assert read["type"] == "error"
        assert read["request_id"] == received["request-id"]
        return status, read["error"]["type"], read["error"]["message"]

    async def stream(self, **more: Any) -> list[dict[str, Any]]:
        status, headers, raw = await self.send({**ASK, "stream": True, **more})
        assert status == 200, raw
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert b"".join(match[0] for match in EVENT.finditer(raw)) == raw
        events = [json.loads(match[2]) for match in EVENT.finditer(raw)]
        assert [match[1].decode() for match in EVENT.finditer(raw)] == [e["type"] for e in events]
        return events


@asynccontextmanager
async def wired(clock: VirtualClock, config: EmulatorConfig = CONFIG) -> AsyncIterator[Wire]:
    async with Emulator(config, clock=clock) as emulator, aiohttp.ClientSession() as session:
        yield Wire(emulator, session)


def shape(value: Any) -> Any:
    """Names and kinds, whatever the values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return type(value).__name__


# ── recorded ─────────────────────────────────────────────────────────────────


def recorded(kind: str) -> list[dict[str, Any]]:
    found = [row["response"]["json"] for row in ROWS if "content" in row["response"].get("json", {})]
    return [m for m in found if any(block["type"] == kind for block in m["content"])]


@pytest.mark.parametrize("kind", ["text", "tool_use", "thinking"])
async def test_a_message_has_the_members_of_recorded_ones(kind: str, clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}
        asked = {
            "text": {},
            "thinking": thinking,
            "tool_use": {"tools": [TOOL], "tool_choice": {"type": "any"}},
        }
        made = await wire.ask(**asked[kind])
    names = {name for m in recorded(kind) for name in m}
    assert set(made) <= names | {"stop_details"}
    assert {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"} <= set(
        made
    )
    seen = {
        frozenset(b) | {"citations"} for m in recorded(kind) for b in m["content"] if b["type"] == kind
    }
    (block,) = [b for b in made["content"] if b["type"] == kind]
    assert any(set(block) <= members | {"caller"} for members in seen)
    usages = {name for m in recorded(kind) for name in m["usage"]} | {"output_tokens_details"}
    assert set(made["usage"]) <= usages


async def test_a_stream_has_the_order_and_members_of_recorded_ones(clock: VirtualClock) -> None:
    text = next(r["response"]["text"] for r in ROWS if r["id"].startswith("test_request_stream"))
    real = [json.loads(match[2]) for match in EVENT.finditer(text.encode())]
    async with wired(clock) as wire:
        made = await wire.stream()

    def order(events: list[dict[str, Any]]) -> list[str]:
        kinds = [event["type"] for event in events]
        return [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]

    assert order(made) == order(real)
    for kind in ("content_block_start", "content_block_delta", "content_block_stop", "message_stop"):
        ours, theirs = (next(e for e in events if e["type"] == kind) for events in (made, real))
        assert shape(ours) == shape(theirs)
    start, theirs = made[0]["message"], real[0]["message"]
    assert shape(start) == shape({**theirs, "usage": {**theirs["usage"]}})
    assert set(real[-2]["usage"]) <= set(made[-2]["usage"])


async def test_events_are_padded_and_a_ping_is_written_as_recorded(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        _, _, raw = await wire.send({**ASK, "stream": True})
    assert b'event: ping\ndata: {"type": "ping"}\n\n' in raw
    assert re.search(rb" +\}\n\n", raw)


async def test_the_recorded_404_comes_byte_for_byte(clock: VirtualClock) -> None:
    (real,) = [r["response"]["json"] for r in ROWS if r["response"]["status"] == 404]
    async with wired(clock) as wire:
        body = {**ASK, "model": "claude-does-not-exist"}
        _, _, raw = await wire.send(body, path="/v1/messages/count_tokens")
    assert {**json.loads(raw), "request_id": 0} == {**real, "request_id": 0}


# ── who asks, and how ────────────────────────────────────────────────────────


async def test_both_credentials_open_the_door(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        assert (await wire.send(ASK, Authorization=f"Bearer {KEY}", x_api_key=""))[0] == 200
        assert (await wire.send(ASK))[0] == 200
        no_key = await wire.refused(ASK, key="")
        stranger = await wire.refused(ASK, key="sk-ant-CANARY-stranger")
        report = wire.emulator.report()
    assert [no_key[:2], stranger[:2]] == [(401, "authentication_error")] * 2
    assert report.unknown.refused == {"no_key": 1, "invalid_key": 1}
    assert report.organisations["alpha"].totals.answered == 2
    assert report.projects["alpha"].totals.requests == 0


async def test_the_version_is_asked_for(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        assert (await wire.refused(ASK, anthropic_version=""))[
            2
        ] == "anthropic-version: header is required"
        assert (await wire.refused(ASK, anthropic_version="2020-01-01"))[0] == 400


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
async def test_sampling_is_refused_by_the_new_version_only(name: str, clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        await wire.ask(**{name: 1})
        status, kind, message = await wire.refused({**ASK, name: 1}, anthropic_version=NEW)
    assert (status, kind) == (400, "invalid_request_error")
    assert name in message


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": [{"type": "document", "source": {"type": "url", "url": "u"}}]},
        {"role": "user", "content": [{"type": "text", "text": "a", "citations": [{"type": "x"}]}]},
        {"role": "user", "content": [{"type": "search_result", "citations": [{"type": "x"}]}]},
    ],
)
async def test_the_new_version_refuses_what_the_old_one_took(
    message: dict[str, Any], clock: VirtualClock
) -> None:
    body = {**ASK, "messages": [{"role": "user", "content": "a"}, message]}
    async with wired(clock) as wire:
        assert (await wire.send(body))[0] == 200
        assert (await wire.refused(body, anthropic_version=NEW))[0] == 400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": [{"role": "system", "content": "a"}]}, 'Unexpected role "system"'),
        ({"messages": [{"role": "user", "content": ""}]}, "must have non-empty content"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "type: Field required"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]},
         "unexpected `tool_use_id`"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"max_tokens": 10**6}, "maximum allowed number of output tokens"),
        ({"temperature": 2}, "range: 0..1"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"model": None}, "model: Field required"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "greater than or equal to 1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "must be greater than"),
        ({"tools": [{"name": "x"}]}, "input_schema"),
        ({"tools": [{"input_schema": {}}]}, "name: Field required"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_request_is_said(
    change: dict[str, Any], words: str, clock: VirtualClock
) -> None:
    async with wired(clock) as wire:
        status, kind, message = await wire.refused({**ASK, **change})
    assert (status, kind) == (400, "invalid_request_error")
    assert words in message


async def test_other_paths_and_broken_json_are_errors_too(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        assert (await wire.refused(b"{"))[0] == 400
        assert (await wire.refused(b"[]"))[0] == 400
        assert (await wire.refused(ASK, path="/v1/messages/batches"))[:2] == (404, "not_found_error")
        assert (await wire.refused({**ASK, "model": "claude-2.1"}))[2] == "model: claude-2.1"
        assert (await wire.refused({**ASK, "model": "claude-3-opus-20240229"}))[0] == 404


# ── buckets ──────────────────────────────────────────────────────────────────


def limit(headers: dict[str, str], name: str) -> tuple[str, ...]:
    return tuple(
        headers[f"anthropic-ratelimit-{name}-{part}"] for part in ("limit", "remaining", "reset")
    )


async def test_every_answer_shows_the_buckets(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        _, first, raw = await wire.send(ASK, key=SMALL)
        await wire.send(ASK, key=SMALL)
        status, refused, _ = await wire.send(ASK, key=SMALL)
    assert json.loads(raw)["usage"]["input_tokens"] < 50
    assert limit(first, "requests") == ("2", "1", "2026-11-21T12:00:30Z")
    assert limit(first, "input-tokens")[:2] == ("6000", "6000")  # rounded to thousands
    assert limit(first, "tokens")[0] == "6500"
    assert status == 429
    assert limit(refused, "requests") == ("2", "0", "2026-11-21T12:01:00Z")
    assert refused["retry-after"] == "30"
    assert refused["request-id"].startswith("req_")


async def test_a_bucket_refills_steadily(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        statuses = []
        for _ in range(12):
            statuses.append((await wire.send(ASK, key=SMALL))[0])
            await clock.sleep(10)
        quota = wire.emulator.report().organisations["small"].models["claude-opus-5"].quotas["rpm"]
    assert statuses == [200, 200, 429, 200, 429, 429, 200, 429, 429, 200, 429, 429]
    assert (quota.admitted, quota.refused, quota.mechanism) == (5, 7, "token_bucket")


async def test_a_class_shares_a_bucket_and_another_has_its_own(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        for model in (MODEL, "claude-opus-5"):
            await wire.ask(SMALL, model=model)
        assert (await wire.send(ASK, key=SMALL))[0] == 429
        await wire.ask(SMALL, model="claude-haiku-5-5")
        await wire.ask(KEY)


async def test_what_comes_out_is_charged_when_it_has(clock: VirtualClock) -> None:
    config = EmulatorConfig(
        organisations=[Organisation("o", {"k": KEY}, {"claude-opus*": TokenLimits(otpm=60)})]
    )
    async with wired(clock, config) as wire:
        said = await wire.ask(messages=[{"role": "user", "content": "[[words:80]] water"}])
        assert said["usage"]["output_tokens"] > 60
        status, headers, raw = await wire.send(ASK)
        assert status == 429
        assert "60 output tokens per minute" in json.loads(raw)["error"]["message"]
        await clock.sleep(int(headers["retry-after"]))
        await wire.ask()
        assert wire.emulator.report().totals.refused == {"otpm": 1}


async def test_what_is_read_from_the_cache_is_free(clock: VirtualClock) -> None:
    """Disjoint counts: written once, then read; the part beyond the breakpoint is input."""
    long = {"type": "text", "text": "canal " * 3_000, "cache_control": {"type": "ephemeral"}}
    async with wired(clock) as wire:
        first = (await wire.ask(SMALL, system=[long]))["usage"]
        second = (await wire.ask(SMALL, system=[long], max_tokens=50))["usage"]
        quotas = wire.emulator.report().organisations["small"].models["claude-opus-5"].quotas
        await clock.sleep(301)
        third = (await wire.ask(SMALL, system=[long]))["usage"]
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    rest = first["input_tokens"]
    assert [first[n] for n in names] == [rest, 3_000, 0]
    assert [second[n] for n in names] == [rest, 0, 3_000]
    assert [third[n] for n in names] == [rest, 3_000, 0]
    assert quotas["itpm"].admitted == 3_000 + 2 * rest


async def test_an_hour_is_told_apart_and_short_prefixes_are_not_cached(clock: VirtualClock) -> None:
    control = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    long = [{"type": "text", "text": "canal " * 2_000, **control}]
    async with wired(clock) as wire:
        usage = (await wire.ask(system=long))["usage"]
        await clock.sleep(3_000)
        again = (await wire.ask(system=long))["usage"]
        short = (await wire.ask(**control))["usage"]
    assert usage["cache_creation"] == {
        "ephemeral_5m_input_tokens": 0,
        "ephemeral_1h_input_tokens": 2_000,
    }
    assert again["cache_read_input_tokens"] == 2_000
    assert short["cache_creation_input_tokens"] == short["cache_read_input_tokens"] == 0


async def test_a_retry_after_comes_now_and_then_with_a_good_answer(clock: VirtualClock) -> None:
    config = EmulatorConfig(organisations=[Organisation("o", {"k": KEY}, retry_after_share=0.3)])
    async with wired(clock, config) as wire:
        answers = [await wire.send({**ASK, "max_tokens": 5}) for _ in range(60)]
    hints = [int(headers["retry-after"]) for _, headers, _ in answers if "retry-after" in headers]
    assert {status for status, _, _ in answers} == {200}
    assert 8 <= len(hints) <= 30
    assert all(1 <= hint <= 59 for hint in hints)


# ── answers ──────────────────────────────────────────────────────────────────


async def test_the_same_question_gets_the_same_answer_streamed_or_not(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        one, two = await wire.ask(), await wire.ask()
        events = await wire.stream()
    said = "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")
    assert one["content"][0]["text"] == two["content"][0]["text"] == said
    assert one["id"] != two["id"]
    assert events[-2]["usage"]["output_tokens"] == one["usage"]["output_tokens"]
    assert events[0]["message"]["usage"]["input_tokens"] == one["usage"]["input_tokens"]


async def test_stops_tools_schemas_and_counts(clock: VirtualClock) -> None:
    wanted = {"type": "json_schema", "schema": TOOL["input_schema"]}
    async with wired(clock) as wire:
        cut = await wire.ask(max_tokens=3)
        stopped = await wire.ask(stop_sequences=["water"])
        called = await wire.ask(
            messages=[{"role": "user", "content": "[[call:get_level]] now"}], tools=[TOOL]
        )
        formed = await wire.ask(output_config={"format": wanted})
        _, _, raw = await wire.send(
            {name: ASK[name] for name in ("model", "messages")}, path="/v1/messages/count_tokens"
        )
        result = {"type": "tool_result", "tool_use_id": called["content"][0]["id"], "content": "3"}
        turn = [
            {"role": "user", "content": "[[call:get_level]] now"},
            {"role": "assistant", "content": called["content"]},
            {"role": "user", "content": [result]},
        ]
        after = await wire.ask(messages=turn, tools=[TOOL])
    assert (cut["stop_reason"], cut["usage"]["output_tokens"] <= 3) == ("max_tokens", True)
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "water")
    assert (called["stop_reason"], set(called["content"][0]["input"])) == ("tool_use", {"canal"})
    assert set(json.loads(formed["content"][0]["text"])) == {"canal"}
    assert json.loads(raw) == {"input_tokens": cut["usage"]["input_tokens"]}
    assert (after["stop_reason"], after["content"][0]["type"]) == ("end_turn", "text")


async def test_models_are_listed_page_by_page(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        path, ids = "/v1/models?limit=5", []
        while True:
            status, _, raw = await wire.send(path=path, method="GET")
            assert status == 200
            page = json.loads(raw)
            ids += [model["id"] for model in page["data"]]
            assert (page["first_id"], page["last_id"]) == (
                page["data"][0]["id"],
                page["data"][-1]["id"],
            )
            if not page["has_more"]:
                break
            path = f"/v1/models?limit=5&after_id={page['last_id']}"
        _, _, raw = await wire.send(path=f"/v1/models/{MODEL}", method="GET")
        assert (await wire.refused(None, path="/v1/models?limit=0", method="GET"))[0] == 400
        assert (await wire.refused(None, path="/v1/models/none", method="GET"))[0] == 404
    assert json.loads(raw)["id"] == MODEL
    assert len(ids) == len(set(ids)) > 10
    assert "claude-3-opus-20240229" not in ids


# ── refusals and faults ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spend", "status", "kind", "words"),
    [
        ("tier_cap", 429, "rate_limit_error", "spend limit"),
        ("own_limit", 400, "invalid_request_error", "regain access on 2026-12-01 at 00:00 UTC."),
        ("unpaid", 402, "billing_error", "payment"),
        ("no_credit", 400, "invalid_request_error", "credit balance is too low"),
    ],
)
async def test_money_is_refused_without_a_hint(
    spend: Any, status: int, kind: str, words: str, clock: VirtualClock
) -> None:
    config = EmulatorConfig(organisations=[Organisation("o", {"k": KEY}, spend=spend)])
    async with wired(clock, config) as wire:
        got, headers, raw = await wire.send(ASK)
        assert wire.emulator.report().totals.refused == {"spend": 1}
    error = json.loads(raw)["error"]
    assert (got, error["type"]) == (status, kind)
    assert words in error["message"]
    assert "retry-after" not in headers
    assert ("details" in error) == (spend == "tier_cap")


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("overload", 529, "overloaded_error"),
        ("internal", 500, "api_error"),
        ("deadline", 504, "timeout_error"),
        ("rate_limit", 429, "rate_limit_error"),
        ("invalid_key", 401, "authentication_error"),
        ("permission", 403, "permission_error"),
        ("claude-409-conflict", 409, "conflict_error"),
        ("claude-413-too-large", 413, "request_too_large"),
    ],
)
async def test_each_family_can_be_scripted(
    kind: str, status: int, error: str, clock: VirtualClock
) -> None:
    async with wired(clock) as wire:
        wire.emulator.script(kind)
        assert (await wire.refused(ASK))[:2] == (status, error)
        await wire.ask()
        assert wire.emulator.report().organisations["alpha"].totals.faults == {kind: 1}


async def test_faults_of_the_other_wire_pass_by(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        wire.emulator.script("503-overloaded")
        wire.emulator.script("sse_done")
        await wire.ask()
        await wire.stream()
        wire.emulator.script("overload", method="generateContent")
        await wire.ask()


async def test_an_error_in_mid_stream_is_an_event(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        wire.emulator.script("prefixed_error", after=4)
        events = await wire.stream()
        totals = wire.emulator.report().totals
    assert len(events) == 5
    assert (events[-1]["type"], events[-1]["error"]["type"]) == ("error", "overloaded_error")
    assert events[-1]["request_id"].startswith("req_")
    assert (totals.failed, totals.answered) == (1, 0)


@pytest.mark.parametrize("kind", ["silent_eof", "empty_stream", "half_event", "malformed_sse"])
async def test_a_stream_can_be_cut(kind: str, clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        wire.emulator.script(kind, after=3)
        _, _, raw = await wire.send({**ASK, "stream": True})
    assert b"message_stop" not in raw


async def test_a_refusal_is_a_200_with_its_reason(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        wire.emulator.script("blocked", reason="bio", times=2)
        whole, events = await wire.ask(), await wire.stream()
    assert (whole["stop_reason"], whole["content"]) == ("refusal", [])
    assert events[-2]["delta"]["stop_details"]["category"] == "bio"


async def test_keys_and_models_can_be_denied(clock: VirtualClock) -> None:
    config = EmulatorConfig(
        organisations=[
            Organisation("o", {"k": KEY, "bad": SMALL, "no": BROKE},
                         key_states={"bad": "invalid", "no": "forbidden"}, denied={"k": [MODEL]}),
        ],
        faults=[Fault("slow", project="o", seconds=2.0)],
    )  # fmt: skip
    async with wired(clock, config) as wire:
        assert (await wire.refused(ASK))[0] == 403
        assert (await wire.refused(ASK, key=SMALL))[0] == 401
        assert (await wire.refused(ASK, key=BROKE))[0] == 403
        listing = {"path": "/v1/models", "method": "GET"}
        assert (await wire.refused(None, key=SMALL, **listing))[0] == 401  # nothing is shown to it
        assert (await wire.refused(None, key=BROKE, **listing))[0] == 403
        await wire.ask(model="claude-haiku-5-5")
    assert clock.monotonic() == 2.0


async def test_both_surfaces_share_one_port_and_one_report(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        await wire.ask()
        status, _, _ = await wire.send(
            {"contents": [{"parts": [{"text": "hi"}]}]},
            path="/v1beta/models/gemini-3.5-flash:generateContent",
            x_api_key="",
            anthropic_version="",
            x_goog_api_key=KEY,
        )
        report = wire.emulator.report()
        wire.emulator.reset()
        assert wire.emulator.report().totals.requests == 0
    assert status == 200
    assert (report.totals.answered, report.unknown.requests) == (2, 0)
    assert report.organisations["alpha"].keys["alpha-1"].models[MODEL].answered == 1
    assert report.projects["alpha"].totals.answered == 1
    assert "CANARY" not in json.dumps(report.to_dict())


@pytest.mark.parametrize(
    "name",
    [
        *(field.name for kind in (Organisation, TokenLimits) for field in msgspec.structs.fields(kind)),
        *CLAUDE_ALIASES,
        *CLAUDE_ALIASES.values(),
        *CLAUDE_METHODS,
    ],
)
def test_the_reference_has_every_field_and_every_kind_of_fault(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "emulator.md"
    assert f"`{name}`" in page.read_text("utf-8")
