"""Whatever JSON the OpenAI surface is sent, it answers with a status of the API, never with a crash."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.emulator import Emulator, EmulatorConfig, OpenAIOrganisation
from headgate.testing import VirtualClock

KEY = "sk-CANARY-alpha-0123456789"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/b"}}},
    "required": ["a"],
    "$defs": {"b": {"anyOf": [{"type": "integer", "minimum": 3}, {"enum": ["x"]}]}},
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT: dict[str, Any] = {
    "model": "gpt-4.1",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "[[call:f]] Where does the water go?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "out"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        },
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    "stop": ["never"],
    "max_completion_tokens": 50,
    "temperature": 0.5,
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "reasoning_effort": "low",
}
EMBED: dict[str, Any] = {
    "model": "text-embedding-3-small",
    "input": ["one", "two"],
    "encoding_format": "base64",
    "dimensions": 8,
}
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = list(enumerate(value)) if isinstance(value, list) else []
    return [path, *(place for name, item in items for place in places(item, (*path, name)))]


def changed(whole: dict[str, Any], path: tuple[Any, ...], new: Any) -> Any:
    body = json.loads(json.dumps(whole))
    if not path:
        return new
    inner = body
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return body


def bodies(whole: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda path, new: changed(whole, path, new), st.sampled_from(places(whole)), anything
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(bodies(CHAT), min_size=8, max_size=8), st.lists(bodies(EMBED), min_size=3, max_size=3))
def test_any_body_gets_an_answer_of_the_api(chats: list[Any], embeds: list[Any]) -> None:
    async def statuses() -> set[int]:
        config = EmulatorConfig(openai=[OpenAIOrganisation("alpha", {"alpha-1": KEY})])
        seen = set()
        async with Emulator(config, clock=clock) as emulator, aiohttp.ClientSession() as session:
            for path, sent in (("chat/completions", chats), ("embeddings", embeds)):
                for body in sent:
                    async with session.post(
                        f"{emulator.base_url}/v1/{path}",
                        data=json.dumps(body).encode(),
                        headers={"Authorization": f"Bearer {KEY}"},
                    ) as reply:
                        await reply.read()
                        seen.add(reply.status)
            assert emulator.report().totals.open == 0
        return seen

    clock = VirtualClock()
    assert clock.run(statuses()) <= {200, 400, 404}


def test_the_bodies_that_are_changed_are_in_order_themselves() -> None:
    async def statuses() -> list[int]:
        config = EmulatorConfig(openai=[OpenAIOrganisation("alpha", {"alpha-1": KEY})])
        async with Emulator(config, clock=clock) as emulator, aiohttp.ClientSession() as session:
            seen = []
            for path, body in (("chat/completions", CHAT), ("embeddings", EMBED)):
                url = f"{emulator.base_url}/v1/{path}"
                headers = {"Authorization": f"Bearer {KEY}"}
                async with session.post(url, data=json.dumps(body), headers=headers) as reply:
                    await reply.read()
                    seen.append(reply.status)
            return seen

    clock = VirtualClock()
    assert clock.run(statuses()) == [200, 200]
