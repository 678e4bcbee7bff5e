"""The emulator's OpenAI bytes against recorded replies, and its buckets against the clock.

What a reply must look like is read from `tests/data/openai`, never from the emulator.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from headgate.core.errors import ConfigurationError
from headgate.emulator import (
    Emulator,
    EmulatorConfig,
    Fault,
    OpenAILimits,
    OpenAIOrganisation,
    Organisation,
    Project,
)
from headgate.emulator.openai_errors import Short, go_duration, too_many
from headgate.emulator.vocabulary import OPENAI_ALIASES, OPENAI_ERROR_IDS, OPENAI_METHODS
from headgate.testing import VirtualClock

DATA = Path(__file__).parents[1] / "data" / "openai"
ROWS = [json.loads(line) for line in (DATA / "recorded.jsonl").read_text("utf-8").splitlines()]
SEEN = json.loads((DATA / "errors.json").read_text("utf-8"))
PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "emulator.md").read_text("utf-8")
KEY, SMALL, BROKE, ODD, DAILY = (
    f"sk-CANARY-{name}-0123456789" for name in ("alpha", "small", "broke", "odd", "daily")
)
MODEL, VERSION, THINKER = "gpt-4.1", "gpt-4.1-2025-04-14", "gpt-5.4"
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "How is water shared?"}],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_level",
        "parameters": {
            "type": "object",
            "properties": {"canal": {"type": "string"}},
            "required": ["canal"],
        },
    },
}
CONFIG = EmulatorConfig(
    openai=[
        OpenAIOrganisation("alpha", {"alpha-1": KEY}),
        OpenAIOrganisation("small", {"small-1": SMALL}, {"*": OpenAILimits(rpm=2, tpm=600)}),
        OpenAIOrganisation("broke", {"broke-1": BROKE}, credit="used_up"),
        OpenAIOrganisation(
            "odd",
            {"odd-1": ODD},
            deviations=["string_errors", "no_usage", "no_done", "no_limit_headers", "float_vectors"],
            models=["vendor/model-1:free"],
        ),
        OpenAIOrganisation("daily", {"daily-1": DAILY}, {"*": OpenAILimits(rpd=200)}),
    ],
    organisations=[Organisation("alpha", {"alpha-1": KEY})],
    projects=[Project("alpha", {"alpha-1": KEY})],
)


class Wire:
    """Raw requests and raw answers."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator, self._session = emulator, session

    async def send(
        self,
        body: Any = None,
        path: str = "/v1/chat/completions",
        *,
        key: str = KEY,
        method: str = "POST",
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {key}" if key else "", **headers}
        sent = {name.replace("_", "-"): value for name, value in sent.items() if value}
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

    async def refused(self, body: Any, **more: Any) -> tuple[int, str | None, str]:
        status, headers, raw = await self.send(body, **more)
        assert headers["x-request-id"].startswith("req_")
        error = json.loads(raw)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return status, error["code"] or error["type"], error["message"]

    async def stream(self, key: str = KEY, **more: Any) -> tuple[list[dict[str, Any]], bytes]:
        status, headers, raw = await self.send({**ASK, "stream": True, **more}, key=key)
        assert status == 200, raw
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        datas = re.findall(rb"data: ([^\r\n]*)\n\n", raw)
        assert b"".join(b"data: " + data + b"\n\n" for data in datas) == raw
        done = datas[-1] == b"[DONE]"
        return [json.loads(data) for data in (datas[:-1] if done else datas)], raw


@asynccontextmanager
async def wired(clock: VirtualClock, config: EmulatorConfig = CONFIG) -> AsyncIterator[Wire]:
    async with Emulator(config, clock=clock) as emulator, aiohttp.ClientSession() as session:
        yield Wire(emulator, session)


# ── answers ──────────────────────────────────────────────────────────────────


async def test_a_completion_has_every_member_that_all_recorded_ones_have(clock: VirtualClock) -> None:
    recorded = [row["response"]["json"] for row in ROWS if "json" in row["response"]]
    async with wired(clock) as wire:
        made = await wire.ask()
    always = set.intersection(*(set(reply) for reply in recorded)) - {"provider"}  # OpenRouter's own
    assert always <= set(made)
    choices = [reply["choices"][0] for reply in recorded]
    shared = set.intersection(*(set(choice) for choice in choices)) - {"native_finish_reason"}
    assert shared <= set(made["choices"][0])
    messages = set.intersection(*(set(choice["message"]) for choice in choices)) - {"reasoning"}
    assert messages <= set(made["choices"][0]["message"])
    usage = made["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (made["object"], made["model"]) == ("chat.completion", MODEL)


async def test_a_stream_is_the_completion_in_pieces(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        whole = await wire.ask()
        chunks, raw = await wire.stream(stream_options={"include_usage": True})
        bare, _ = await wire.stream()
    assert raw.endswith(b"data: [DONE]\n\n")
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert all("usage" not in chunk and chunk["choices"] for chunk in bare)
    assert [c["choices"][0]["finish_reason"] for c in bare][-1] == "stop"


async def test_a_tool_is_called_whole_and_in_pieces(clock: VirtualClock) -> None:
    asked = {"messages": [{"role": "user", "content": "[[call:get_level]] now"}], "tools": [TOOL]}
    async with wired(clock) as wire:
        choice = (await wire.ask(**asked))["choices"][0]
        chunks, _ = await wire.stream(**asked)
        (call,) = choice["message"]["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "3"}
        turns = [*asked["messages"], choice["message"], result]
        said = await wire.ask(messages=turns, tools=[TOOL])
        forced = await wire.ask(tools=[TOOL], tool_choice="required")
        silent = await wire.ask(**asked, tool_choice="none")
    assert choice["finish_reason"] == "tool_calls"
    assert set(json.loads(call["function"]["arguments"])) == {"canal"}
    pieces = [c["choices"][0]["delta"].get("tool_calls") for c in chunks]
    heads, *rest = [piece[0] for piece in pieces if piece]
    assert heads["function"] == {"name": "get_level", "arguments": ""}
    assert heads["index"] == 0
    streamed = "".join(piece["function"]["arguments"] for piece in rest)
    assert json.loads(streamed) == json.loads(call["function"]["arguments"])
    assert said["choices"][0]["message"]["content"]
    assert forced["choices"][0]["finish_reason"] == "tool_calls"
    assert silent["choices"][0]["finish_reason"] == "stop"


async def test_structured_output_fits_its_schema(clock: VirtualClock) -> None:
    schema = {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    async with wired(clock) as wire:
        made = (await wire.ask(response_format=form))["choices"][0]["message"]["content"]
        free = (await wire.ask(response_format={"type": "json_object"}))["choices"][0]["message"]
    assert isinstance(json.loads(made)["level"], int)
    assert isinstance(json.loads(free["content"]), dict)


async def test_bounds_stops_and_choices_do_what_they_say(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        cut = (await wire.ask(max_tokens=5))["choices"][0]
        several = await wire.ask(n=3)
        whole = (await wire.ask())["choices"][0]["message"]["content"]
        word = whole.split()[3]
        stopped = (await wire.ask(stop=[word]))["choices"][0]["message"]["content"]
        thought = (await wire.ask(model=THINKER))["usage"]
        bounded = (await wire.ask(model=THINKER, max_completion_tokens=9))["usage"]
    assert cut["finish_reason"] == "length"
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2]
    assert word not in stopped
    assert bounded["completion_tokens"] <= 9
    assert thought["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_a_picture_costs_tokens(clock: VirtualClock) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "What is it?"}, image]
    async with wired(clock) as wire:
        made = await wire.ask(messages=[{"role": "user", "content": content}])
    assert made["usage"]["prompt_tokens"] > 700


async def test_embeddings_come_in_both_forms(clock: VirtualClock) -> None:
    body = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 8}
    async with wired(clock) as wire:
        _, _, raw = await wire.send(body, "/v1/embeddings")
        _, _, packed = await wire.send({**body, "encoding_format": "base64"}, "/v1/embeddings")
        _, _, odd = await wire.send({**body, "encoding_format": "base64"}, "/v1/embeddings", key=ODD)
    numbers, texts = json.loads(raw), json.loads(packed)
    assert [row["index"] for row in numbers["data"]] == [0, 1]
    for row, text in zip(numbers["data"], texts["data"], strict=True):
        assert struct.unpack("<8f", b64decode(text["embedding"])) == pytest.approx(row["embedding"])
    assert numbers["data"][0]["embedding"] != numbers["data"][1]["embedding"]
    assert numbers["usage"]["total_tokens"] == numbers["usage"]["prompt_tokens"] > 0
    assert isinstance(json.loads(odd)["data"][0]["embedding"], list)
    assert "usage" not in json.loads(odd)


async def test_models_are_listed_and_fetched_by_the_credential_that_is_openais(
    clock: VirtualClock,
) -> None:
    async with wired(clock) as wire:
        _, _, listed = await wire.send(path="/v1/models", method="GET")
        _, _, one = await wire.send(path=f"/v1/models/{MODEL}", method="GET")
        missing = await wire.refused(None, path="/v1/models/none", method="GET")
        _, _, geminis = await wire.send(path="/v1/models", method="GET", key="", x_goog_api_key=KEY)
        version = {"anthropic_version": "2023-06-01"}
        _, _, claudes = await wire.send(path="/v1/models", method="GET", **version)
    assert {row["id"] for row in json.loads(listed)["data"]} >= {MODEL, VERSION, THINKER}
    assert json.loads(one)["object"] == "model"
    assert missing[:2] == (404, "model_not_found")
    assert "models" in json.loads(geminis)
    assert "has_more" in json.loads(claudes)


async def test_geminis_own_compatible_path_wraps_its_errors_in_a_list(clock: VirtualClock) -> None:
    path = "/v1beta/openai/chat/completions"
    async with wired(clock) as wire:
        status, _, _ = await wire.send(ASK, path)
        failed, _, raw = await wire.send({**ASK, "model": "none"}, path)
    assert (status, failed) == (200, 404)
    ((only,),) = ([entry["error"] for entry in json.loads(raw)],)
    assert (only["code"], only["status"]) == (404, "NOT_FOUND")


async def test_an_organisation_may_have_models_of_other_names(clock: VirtualClock) -> None:
    name = "vendor/model-1:free"
    async with wired(clock) as wire:
        assert (await wire.ask(ODD, model=name))["model"] == name
        _, _, one = await wire.send(path=f"/v1/models/{name}", method="GET", key=ODD)
        assert (await wire.send({**ASK, "model": name}))[0] == 404
    assert json.loads(one)["id"] == name


async def test_what_compatible_upstreams_leave_out(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        assert (await wire.ask(ODD))["usage"] is None
        chunks, raw = await wire.stream(ODD, stream_options={"include_usage": True})
        _, headers, error = await wire.send({**ASK, "model": "none"}, key=ODD)
    assert b"[DONE]" not in raw
    assert all(chunk["choices"] for chunk in chunks)
    assert isinstance(json.loads(error)["error"], str)
    assert not any(name.startswith("x-ratelimit") for name in headers)


# ── quotas ───────────────────────────────────────────────────────────────────


async def test_requests_run_out_and_come_back_evenly(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        _, headers, _ = await wire.send(ASK, key=SMALL)
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == "1"
        assert headers["x-ratelimit-reset-requests"] == "30s"
        await wire.ask(SMALL, model=VERSION)  # counted with its model
        status, headers, raw = await wire.send(ASK, key=SMALL)
        error = json.loads(raw)["error"]
        assert (status, error["type"], error["code"]) == (429, "requests", "rate_limit_exceeded")
        assert re.search(
            r"reached for gpt-4\.1 in organization org-small on requests per min \(RPM\): Limit 2, "
            r"Used 2, Requested 1\. Please try again in 30s\.",
            error["message"],
        )
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("30", "30000")
        await clock.sleep(30)
        await wire.ask(SMALL)


async def test_tokens_count_the_bound_that_a_call_sets(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        prompt = (await wire.ask(SMALL, max_tokens=400))["usage"]["prompt_tokens"]
        status, code, message = await wire.refused({**ASK, "max_tokens": 400}, key=SMALL)
        assert (status, code) == (429, "rate_limit_exceeded")
        assert f"tokens per min (TPM): Limit 600, Used {400 + prompt}, Requested" in message
        status, _, message = await wire.refused({**ASK, "max_tokens": 9_000}, key=SMALL)
        assert message.startswith("Request too large for gpt-4.1 in organization org-small on tokens")
        report = wire.emulator.report()
    assert report.openai["small"].totals.refused == {"tpm": 2}
    assert report.openai["small"].models["gpt-4.1"].quotas["tpm"].admitted == 400 + prompt


async def test_what_came_out_is_counted_instead_where_an_upstream_does_so(clock: VirtualClock) -> None:
    used = OpenAIOrganisation("used", {"u": KEY}, {"*": OpenAILimits(tpm=9_000)}, counting="used")
    async with wired(clock, EmulatorConfig(openai=[used])) as wire:
        usage = (await wire.ask(max_tokens=4_000))["usage"]
        assert (
            wire.emulator.report().openai["used"].models[MODEL].quotas["tpm"].admitted
            == (usage["total_tokens"])
        )


async def test_a_day_is_a_bucket_that_shows_in_the_headers(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        for number in range(200):
            await wire.ask(DAILY, messages=[{"role": "user", "content": str(number)}])
        _, headers, raw = await wire.send(ASK, key=DAILY)
    assert "per day (RPD): Limit 200, Used 200" in json.loads(raw)["error"]["message"]
    assert "try again in 7m12s." in json.loads(raw)["error"]["message"]
    assert headers["x-ratelimit-reset-requests"] == "24h0m0s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"), (0.0004, "1ms"), (0.12, "120ms"), (1.0, "1s"), (8.64, "8.64s"), (59.9994, "1m0s"),
        (360.0, "6m0s"), (432.0, "7m12s"), (86_400.0, "24h0m0s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@pytest.mark.parametrize(
    ("seen", "short", "model"),
    [
        ("requests-a-day", Short("rpd", 200, 200, 1, 432.0), "o4-mini"),
        ("requests-a-day-many", Short("rpd", 10_000, 10_000, 1, 8.64), "gpt-3.5-turbo"),
        ("too-large", Short("tpm", 30_000, 0, 30_601, math.inf), "gpt-4o"),
        ("too-large-version", Short("tpm", 30_000, 0, 37_313, math.inf),
         "gpt-4.1-2025-04-14 (for limit gpt-4.1)"),
    ],
)  # fmt: skip
def test_refusals_are_worded_like_those_seen_in_public(seen: str, short: Short, model: str) -> None:
    (row,) = (row for row in SEEN if row["id"] == seen)
    made = too_many(short, model, "x" * 17)
    assert row["body"]["error"]["message"].startswith(made.error["message"])
    assert {name: made.error[name] for name in ("type", "code")} == {
        name: row["body"]["error"][name] for name in ("type", "code")
    }


# ── errors ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request_error"),
        (b"[]", 400, "invalid_request_error"),
        ({"messages": ASK["messages"]}, 400, "invalid_request_error"),
        ({**ASK, "model": "gpt-0"}, 404, "model_not_found"),
        ({**ASK, "model": "text-embedding-3-small"}, 400, "model_not_supported"),
        ({**ASK, "colour": "red"}, 400, "unknown_parameter"),
        ({**ASK, "messages": []}, 400, "empty_array"),
        ({**ASK, "messages": [{"role": "judge", "content": "x"}]}, 400, "invalid_value"),
        ({**ASK, "messages": [{"role": "user", "content": None}]}, 400, "invalid_request_error"),
        ({**ASK, "messages": [{"role": "user", "content": 7}]}, 400, "invalid_type"),
        ({**ASK, "messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400,
         "invalid_request_error"),
        ({**ASK, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
         400, "invalid_type"),
        ({**ASK, "messages": [{"role": "user",
                               "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
         400, "invalid_image_url"),
        ({**ASK, "messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, 400,
         "invalid_request_error"),
        ({**ASK, "max_tokens": 0}, 400, "integer_below_min_value"),
        ({**ASK, "max_tokens": 10**7}, 400, "invalid_request_error"),
        ({**ASK, "model": THINKER, "max_tokens": 5}, 400, "unsupported_parameter"),
        ({**ASK, "temperature": 3}, 400, "invalid_value"),
        ({**ASK, "tools": [{}]}, 400, "invalid_type"),
        ({**ASK, "tools": [{"type": "function"}]}, 400, "invalid_request_error"),
        ({**ASK, "tool_choice": {}}, 400, "invalid_type"),
        ({"model": MODEL}, 400, "invalid_type"),
        ({**ASK, "response_format": {"type": "xml"}}, 400, "invalid_value"),
        ({**ASK, "response_format": {"type": "json_schema", "json_schema": {}}}, 400,
         "invalid_json_schema"),
        ({**ASK, "stream_options": {"include_usage": True}}, 400, "invalid_request_error"),
        ({**ASK, "model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 130_000}]}, 400,
         "context_length_exceeded"),
    ],
)  # fmt: skip
async def test_what_the_api_refuses_is_refused(
    body: Any, status: int, code: str, clock: VirtualClock
) -> None:
    async with wired(clock) as wire:
        assert (await wire.refused(body))[:2] == (status, code)


@pytest.mark.parametrize(
    "body",
    [
        {"input": "x", "model": MODEL},
        {"input": "", "model": "text-embedding-3-small"},
        {"input": [], "model": "text-embedding-3-small"},
        {"input": "x", "model": "text-embedding-3-small", "encoding_format": "hex"},
        {"input": "x", "model": "text-embedding-3-small", "dimensions": 9_999},
        {"input": "x", "model": "text-embedding-3-small", "task": "x"},
    ],
)
async def test_what_embeddings_refuse(body: dict[str, Any], clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        assert (await wire.refused(body, path="/v1/embeddings"))[0] == 400


async def test_keys_credit_and_access(clock: VirtualClock) -> None:
    config = EmulatorConfig(
        openai=[
            OpenAIOrganisation("a", {"dead": KEY}, key_states={"dead": "deactivated"}),
            OpenAIOrganisation("b", {"wrong": SMALL}, key_states={"wrong": "invalid"}),
            OpenAIOrganisation("c", {"shut": ODD}, denied={"shut": [MODEL]}),
            OpenAIOrganisation("d", {"broke": BROKE}, credit="used_up"),
            OpenAIOrganisation("e", {"capped": DAILY}, credit="hard_limit"),
        ]
    )
    async with wired(clock, config) as wire:
        codes = [(await wire.refused(ASK, key=key))[:2] for key in (KEY, SMALL, ODD, BROKE, DAILY)]
        nobody = await wire.refused(ASK, key="sk-CANARY-nobody-0123456789")
        none = await wire.refused(ASK, key="")
        lost = await wire.refused(ASK, path="/v1/chat/else")
        refused = wire.emulator.report().totals.refused
    assert codes == [
        (401, "account_deactivated"),
        (401, "invalid_api_key"),
        (403, "model_not_found"),
        (429, "insufficient_quota"),
        (400, "billing_hard_limit_reached"),
    ]
    assert nobody[:2] == (401, "invalid_api_key")
    assert "CANARY-nobody" not in nobody[2]
    assert (none[0], lost[0]) == (401, 404)
    assert refused == {
        "deactivated_key": 1, "invalid_key": 2, "permission": 1, "spend": 2, "no_key": 1,
        "unknown_path": 1,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [*OPENAI_ALIASES, *OPENAI_ERROR_IDS])
async def test_every_error_can_be_scripted(kind: str, clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        wire.emulator.script(kind)
        status, _, raw = await wire.send(ASK)
        assert status >= 400
        assert "{" not in json.loads(raw)["error"]["message"].replace("{context}", "").replace(
            "{tokens}", ""
        )
        assert (await wire.send(ASK))[0] == 200
        assert wire.emulator.report().totals.faults == {kind: 1}


async def test_faults_spoil_answers_and_streams(clock: VirtualClock) -> None:
    async with wired(clock) as wire:
        wire.emulator.script("blocked")
        assert (await wire.ask())["choices"][0]["finish_reason"] == "content_filter"
        wire.emulator.script("safety")
        assert (await wire.ask())["choices"][0]["message"]["refusal"]
        wire.emulator.script("finish", reason="length")
        assert (await wire.ask())["choices"][0]["finish_reason"] == "length"
        wire.emulator.script("prefixed_error", after=2)
        chunks, _ = await wire.stream()
        assert "error" in chunks[-1]
        wire.emulator.script("silent_eof", after=2)
        chunks, raw = await wire.stream()
        assert (len(chunks), b"[DONE]" in raw) == (2, False)
        wire.emulator.script("late_error_key")  # Gemini's alone: never happens here
        assert (await wire.stream())[0]
    assert wire.emulator.report().totals.failed == 2


async def test_a_fault_may_be_aimed_at_a_method_and_an_organisation(clock: VirtualClock) -> None:
    faults = [Fault("overload", project="alpha", method="chat.completions_stream")]
    config = EmulatorConfig(openai=[OpenAIOrganisation("alpha", {"a": KEY})], faults=faults)
    async with wired(clock, config) as wire:
        await wire.ask()
        assert (await wire.send({**ASK, "stream": True}))[0] == 503


# ── configuration ────────────────────────────────────────────────────────────


def test_the_configuration_names_what_is_allowed() -> None:
    for raw, words in (
        ({"openai": [{"name": "a", "keys": {}, "limits": {"*": {"rpm": 0}}}]}, "1 or more"),
        ({"openai": [{"name": "a", "keys": {}, "credit": "none"}]}, "used_up"),
        ({"openai": [{"name": "a", "keys": {}, "key_states": {"x": "ok"}}]}, "key_states"),
        ({"openai": [{"name": "a", "keys": {}}] * 2}, "repeat"),
        ({"faults": [{"kind": "overload", "method": "chat"}]}, "chat.completions"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            EmulatorConfig.from_dict(raw)
    assert "CANARY" not in repr(CONFIG)


@pytest.mark.parametrize(
    "name",
    [
        *(field for field in OpenAIOrganisation.__struct_fields__ if field not in ("name", "keys")),
        *OpenAILimits.__struct_fields__,
        *("list_errors", "string_errors", "no_usage", "no_done", "no_limit_headers", "float_vectors"),
        *OPENAI_METHODS,
        *OPENAI_ALIASES.values(),
    ],
)
def test_the_reference_has_every_field_method_and_error(name: str) -> None:
    assert f"`{name}`" in PAGE
