"""The openai SDK 3.51.0, unmodified, talks to the emulator: what an app's own tests would do.

Only where time must pass is there a clock to move; nothing here waits for a wall clock.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params
from pydantic import BaseModel

from headgate.emulator import Emulator, EmulatorConfig, InThread, OpenAILimits, OpenAIOrganisation
from headgate.emulator.openai_schema import fields
from headgate.providers.openai import CHAT_OPTIONS, EMBEDDING_OPTIONS
from headgate.testing import VirtualClock

KEY, SMALL, LISTS = (f"sk-CANARY-{name}-0123456789" for name in ("alpha", "small", "lists"))
MODEL, EMBEDDER = "gpt-4.1", "text-embedding-3-small"
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "How does a headgate share irrigation water?"}],
}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_level",
        "description": "The level of a canal.",
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
        OpenAIOrganisation("small", {"small-1": SMALL}, {"*": OpenAILimits(rpm=2)}),
        OpenAIOrganisation("lists", {"lists-1": LISTS}, deviations=["list_errors", "no_done"]),
    ]
)


class Level(BaseModel):
    canal: str
    level: int


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    with Emulator(CONFIG).in_thread() as emulator:
        yield emulator


@pytest.fixture
def client(upstream: InThread) -> Iterator[openai.OpenAI]:
    upstream.reset()
    with openai.OpenAI(api_key=KEY, base_url=f"{upstream.base_url}/v1", max_retries=0) as made:
        yield made


@asynccontextmanager
async def asynchronous(
    clock: VirtualClock, key: str = KEY, max_retries: int = 2
) -> AsyncIterator[tuple[Emulator, openai.AsyncOpenAI]]:
    async with (
        Emulator(CONFIG, clock=clock) as emulator,
        openai.AsyncOpenAI(
            api_key=key, base_url=f"{emulator.base_url}/v1", max_retries=max_retries
        ) as made,
    ):
        yield emulator, made


def test_a_completion_comes_with_text_usage_and_reason(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(**ASK)
    (choice,) = made.choices
    assert choice.message.content is not None
    assert "headgate" in choice.message.content
    assert (choice.finish_reason, choice.message.role, made.model) == ("stop", "assistant", MODEL)
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


def test_a_stream_says_the_same_in_pieces(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK)
    stream = client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    with client.chat.completions.stream(**ASK) as events:
        assert events.get_final_completion().choices[0].message.content == text


def test_a_tool_is_called_and_its_result_taken(client: openai.OpenAI) -> None:
    turns: list[Any] = [{"role": "user", "content": "[[call:get_level]] Which level?"}]
    with client.chat.completions.stream(model=MODEL, messages=turns, tools=[TOOL]) as events:
        asked = events.get_final_completion().choices[0]
    assert asked.finish_reason == "tool_calls"
    (call,) = asked.message.tool_calls or ()
    assert set(json.loads(call.function.arguments)) == {"canal"}
    turns.append(asked.message.model_dump(include={"role", "content", "tool_calls"}))
    turns[-1]["tool_calls"] = [
        {"id": call.id, "type": "function",
         "function": {"name": call.function.name, "arguments": call.function.arguments}}
    ]  # fmt: skip
    turns.append({"role": "tool", "tool_call_id": call.id, "content": "3"})
    said = client.chat.completions.create(model=MODEL, messages=turns, tools=[TOOL])
    assert said.choices[0].message.content


def test_structured_output_is_parsed(client: openai.OpenAI) -> None:
    made = client.chat.completions.parse(**ASK, response_format=Level)
    assert isinstance(made.choices[0].message.parsed, Level)


def test_a_picture_as_a_data_url_is_taken(client: openai.OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content: Any = [{"type": "text", "text": "What is it?"}, image]
    made = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert made.usage is not None
    assert made.usage.prompt_tokens > 700


def test_vectors_are_the_same_in_both_encodings(client: openai.OpenAI) -> None:
    texts = ["one", "two"]
    packed = client.embeddings.create(model=EMBEDDER, input=texts)  # base64 is the SDK's own default
    numbers = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    assert [len(row.embedding) for row in packed.data] == [1536, 1536]
    for ours, theirs in zip(packed.data, numbers.data, strict=True):
        assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-6)
    short = client.embeddings.create(model=EMBEDDER, input="one", dimensions=8)
    assert len(short.data[0].embedding) == 8


def test_the_emulator_and_the_provider_know_every_parameter_of_the_sdk() -> None:
    known = set(completion_create_params.CompletionCreateParamsBase.__annotations__)
    assert known <= fields("chat") | {"messages", "model"}
    assert known - {"messages", "model"} == set(CHAT_OPTIONS)
    embeds = set(embedding_create_params.EmbeddingCreateParams.__annotations__)
    assert embeds == fields("embedding") == {"input", "model", *EMBEDDING_OPTIONS}


def test_models_are_listed_and_fetched(client: openai.OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert {MODEL, EMBEDDER} <= set(ids)
    assert client.models.retrieve(MODEL).owned_by == "system"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


@pytest.mark.parametrize(
    ("kind", "expected", "status", "code"),
    [
        ("openai-400-invalid", openai.BadRequestError, 400, None),
        ("openai-400-content", openai.BadRequestError, 400, "content_policy_violation"),
        ("spend_limit", openai.BadRequestError, 400, "billing_hard_limit_reached"),
        ("invalid_key", openai.AuthenticationError, 401, "invalid_api_key"),
        ("permission", openai.PermissionDeniedError, 403, "model_not_found"),
        ("location", openai.PermissionDeniedError, 403, "unsupported_country_region_territory"),
        ("openai-404-model", openai.NotFoundError, 404, "model_not_found"),
        ("openai-409-conflict", openai.ConflictError, 409, None),
        ("rate_limit", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("no_credit", openai.RateLimitError, 429, "insufficient_quota"),
        ("internal", openai.InternalServerError, 500, None),
        ("overload", openai.InternalServerError, 503, None),
    ],
)
def test_each_family_of_errors_is_raised_with_status_code_and_id(
    client: openai.OpenAI,
    upstream: InThread,
    kind: str,
    expected: type[openai.APIStatusError],
    status: int,
    code: str | None,
) -> None:
    upstream.script(kind)
    with pytest.raises(expected) as caught:
        client.chat.completions.create(**ASK)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert (caught.value.request_id or "").startswith("req_")


def test_an_error_in_mid_stream_is_raised_after_what_was_said(
    client: openai.OpenAI, upstream: InThread
) -> None:
    upstream.script("prefixed_error", after=3)
    said: list[str] = []
    stream = client.chat.completions.create(**ASK, stream=True)
    with pytest.raises(openai.APIError) as caught:
        said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "overloaded" in caught.value.message
    assert len(said) == 3


def test_a_stream_that_just_ends_looks_like_success_to_the_sdk(
    client: openai.OpenAI, upstream: InThread
) -> None:
    upstream.script("silent_eof", after=3)
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    assert upstream.report().totals.failed == 1


def test_errors_in_a_list_lose_their_message_in_the_sdk(upstream: InThread) -> None:
    """As those of Gemini's own compatible endpoint do: the reason to unwrap them."""
    with openai.OpenAI(api_key=LISTS, base_url=f"{upstream.base_url}/v1", max_retries=0) as made:
        with pytest.raises(openai.NotFoundError) as caught:
            made.chat.completions.create(**{**ASK, "model": "none"})
        assert caught.value.code is None
        assert list(made.chat.completions.create(**ASK, stream=True))  # without its last word


async def test_a_minutes_refusal_is_slept_out_and_repeated(clock: VirtualClock) -> None:
    async with asynchronous(clock, SMALL) as (emulator, client):
        for _ in range(3):
            await client.chat.completions.create(**ASK)
        totals = emulator.report().totals
    assert (totals.answered, totals.refused) == (3, {"rpm": 1})
    assert clock.monotonic() >= 29


async def test_an_empty_account_is_told_once_and_an_overload_repeated(clock: VirtualClock) -> None:
    async with asynchronous(clock) as (emulator, client):
        emulator.script("no_credit")
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(**ASK)
        emulator.script("overload", times=3)
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(**ASK)
        assert emulator.report().totals.faults == {"no_credit": 1, "overload": 3}


async def test_the_asynchronous_client_streams_and_may_leave(clock: VirtualClock) -> None:
    async with asynchronous(clock) as (emulator, client):
        stream = await client.chat.completions.create(**ASK, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert "headgate" in text
        emulator.script("stall_mid", after=2)
        left = await client.chat.completions.create(**ASK, stream=True)
        await anext(aiter(left))
        await left.close()
        waiting = asyncio.create_task(client.chat.completions.create(**ASK))  # noqa: TID251 - cancelled below
        await clock.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await clock.sleep(1)
        totals = emulator.report().totals
    assert totals.open == 0
    assert totals.answered == 1
