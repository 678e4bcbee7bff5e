"""Whatever JSON arrives, the emulator answers with a status of the API, never with a crash."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.emulator import Emulator, EmulatorConfig, Project
from headgate.emulator import schema as request_schema
from headgate.emulator.wording import camel, snake
from headgate.testing import VirtualClock

KEY = "AIzaCANARY-alpha-1"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/b"}}},
    "required": ["a"],
    "$defs": {"b": {"anyOf": [{"type": "integer", "minimum": 3}, {"enum": ["x"]}]}},
}
BODY: dict[str, Any] = {
    "contents": [
        {"role": "user", "parts": [{"text": "[[call:f]] Where does the water go?"}]},
        {
            "role": "model",
            "parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "AAAA"}],
        },
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"x": 1}}}]},
        {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
    ],
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "tools": [
        {"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": SCHEMA}]}
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["f"]}},
    "generationConfig": {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
        "stopSequences": ["never"],
        "maxOutputTokens": 50,
        "candidateCount": 1,
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 30},
        "responseModalities": ["TEXT"],
    },
    "serviceTier": "standard",
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
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for name, item in items for place in places(item, (*path, name)))]


def changed(path: tuple[Any, ...], new: Any) -> Any:
    body = json.loads(json.dumps(BODY))
    if not path:
        return new
    inner = body
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return body


bodies = st.builds(changed, st.sampled_from(places(BODY)), anything)


@settings(max_examples=60, deadline=None)
@given(st.lists(bodies, min_size=8, max_size=8), st.booleans())
def test_any_body_gets_an_answer_of_the_api(sent: list[Any], strict: bool) -> None:
    async def statuses() -> set[int]:
        config = EmulatorConfig(projects=[Project("alpha", {"alpha-1": KEY})], strict_fields=strict)
        seen = set()
        async with Emulator(config, clock=clock) as emulator, aiohttp.ClientSession() as session:
            for index, body in enumerate(sent):
                method = ("generateContent", "streamGenerateContent", "countTokens", "embedContent")[
                    index % 4
                ]
                model = "gemini-embedding-2" if method == "embedContent" else "gemini-3.5-flash"
                url = f"{emulator.base_url}/v1beta/models/{model}:{method}"
                raw = json.dumps(body).encode()
                async with session.post(url, data=raw, headers={"x-goog-api-key": KEY}) as reply:
                    await reply.read()
                    seen.add(reply.status)
            assert emulator.report().totals.open == 0
        return seen

    clock = VirtualClock()
    assert clock.run(statuses()) <= {200, 400, 403}


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_bytes_that_are_no_json_are_a_400(raw: bytes) -> None:
    async def status() -> int:
        config = EmulatorConfig(projects=[Project("alpha", {"alpha-1": KEY})])
        async with Emulator(config, clock=clock) as emulator, aiohttp.ClientSession() as session:
            url = f"{emulator.base_url}/v1beta/models/gemini-3.5-flash:generateContent"
            async with session.post(url, data=raw, headers={"x-goog-api-key": KEY}) as reply:
                return reply.status

    clock = VirtualClock()
    assert clock.run(status()) == 400


def names(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [n for name, item in value.items() for n in (name, *names(item))]
    return [n for item in value for n in names(item)] if isinstance(value, list) else []


@settings(deadline=None)
@given(st.sets(st.sampled_from(sorted({snake(name) for name in names(BODY)}))))
def test_any_mix_of_spellings_reads_as_the_same_request(snaked: set[str]) -> None:
    def spelled(value: Any, free: bool = False) -> Any:
        if isinstance(value, list):
            return [spelled(item, free) for item in value]
        if not isinstance(value, dict):
            return value
        inside = {"responseJsonSchema", "parametersJsonSchema", "args", "response"}
        return {
            snake(name) if snake(name) in snaked and not free else name: spelled(
                item, free or name in inside
            )
            for name, item in value.items()
        }

    expected, none = request_schema.read(BODY, "GenerateContentRequest")
    read, violations = request_schema.read(spelled(BODY), "GenerateContentRequest")
    assert none == violations == []
    assert read == expected == BODY


@settings(deadline=None)
@given(st.from_regex(r"[a-z]{1,6}(_[a-z]{1,6}){0,3}", fullmatch=True))
def test_camel_and_snake_are_each_others_inverse(name: str) -> None:
    assert snake(camel(name)) == name
