"""The anthropic SDK 2.11.0, unmodified, talks to the emulator: what an app's own tests would do.

Only where time must pass is there a clock to move; nothing here waits for a wall clock.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest

from headgate.emulator import Emulator, EmulatorConfig, InThread, Organisation, TokenLimits
from headgate.testing import VirtualClock

KEY, SMALL = "sk-ant-CANARY-alpha-0123456789", "sk-ant-CANARY-small-0123456789"
MODEL = "claude-opus-5-5"
ASK: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 400,
    "messages": [{"role": "user", "content": "How does a headgate share irrigation water?"}],
}
TOOL: Any = {
    "name": "get_level",
    "description": "The level of a canal.",
    "input_schema": {
        "type": "object",
        "properties": {"canal": {"type": "string"}},
        "required": ["canal"],
    },
}
CONFIG = EmulatorConfig(
    organisations=[
        Organisation("alpha", {"alpha-1": KEY}, retry_after_share=0.0),
        Organisation("small", {"small-1": SMALL}, {"*": TokenLimits(rpm=2)}, retry_after_share=0.0),
    ]
)


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    with Emulator(CONFIG).in_thread() as emulator:
        yield emulator


@pytest.fixture
def client(upstream: InThread) -> Iterator[anthropic.Anthropic]:
    upstream.reset()
    with anthropic.Anthropic(api_key=KEY, base_url=upstream.base_url, max_retries=0) as made:
        yield made


@asynccontextmanager
async def asynchronous(
    clock: VirtualClock, key: str = KEY, max_retries: int = 2
) -> AsyncIterator[tuple[Emulator, anthropic.AsyncAnthropic]]:
    async with (
        Emulator(CONFIG, clock=clock) as emulator,
        anthropic.AsyncAnthropic(
            api_key=key, base_url=emulator.base_url, max_retries=max_retries
        ) as made,
    ):
        yield emulator, made


def test_a_message_comes_with_text_usage_and_reason(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ASK)
    (block,) = message.content
    assert block.type == "text"
    assert "headgate" in block.text
    assert (message.role, message.model, message.stop_reason) == ("assistant", MODEL, "end_turn")
    assert message.usage.input_tokens > 5
    assert message.usage.cache_creation_input_tokens == message.usage.cache_read_input_tokens == 0


def test_a_stream_says_the_same_in_pieces(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ASK)
    with client.messages.stream(**ASK) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == whole.content[0].text  # type: ignore[union-attr]
    assert final.usage == whole.usage
    assert final.stop_reason == "end_turn"
    raw = [event.type for event in client.messages.create(**ASK, stream=True)]
    assert (raw[0], raw[-1]) == ("message_start", "message_stop")


def test_count_tokens_agrees_with_the_answer(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
    assert counted.input_tokens == client.messages.create(**ASK).usage.input_tokens


def test_a_tool_is_called_and_its_result_taken(client: anthropic.Anthropic) -> None:
    turns: list[Any] = [{"role": "user", "content": "[[call:get_level]] Which level?"}]
    with client.messages.stream(model=MODEL, max_tokens=200, messages=turns, tools=[TOOL]) as stream:
        asked = stream.get_final_message()
    (call,) = asked.content
    assert (call.type, asked.stop_reason) == ("tool_use", "tool_use")
    assert set(call.input) == {"canal"}  # type: ignore[union-attr, arg-type]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "3"}  # type: ignore[union-attr]
    turns += [{"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    said = client.messages.create(model=MODEL, max_tokens=200, messages=turns, tools=[TOOL])
    assert said.content[0].type == "text"


def test_thinking_comes_signed_before_the_text(client: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    with client.messages.stream(**{**ASK, "max_tokens": 4096}, thinking=thinking) as stream:
        thought, text = stream.get_final_message().content
    assert (thought.type, text.type) == ("thinking", "text")
    assert thought.signature  # type: ignore[union-attr]


def test_a_cached_prompt_is_written_and_read(client: anthropic.Anthropic) -> None:
    system: Any = [{"type": "text", "text": "canal " * 2_000, "cache_control": {"type": "ephemeral"}}]
    first, second = (client.messages.create(**ASK, system=system).usage for _ in range(2))
    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens) == (2_000, 0)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, 2_000)
    assert first.input_tokens == second.input_tokens < 100


def test_models_are_listed_and_fetched(client: anthropic.Anthropic) -> None:
    ids = [model.id for model in client.models.list(limit=4)]
    assert MODEL in ids
    assert len(ids) == len(set(ids)) > 10
    model = client.models.retrieve(MODEL)
    assert (model.lifecycle, model.type) == ("active", "model")


def test_an_old_client_with_the_other_credential_is_served_too(upstream: InThread) -> None:
    old = {"anthropic-version": "2023-06-01", "x-api-key": KEY, "Authorization": anthropic.omit}
    with anthropic.Anthropic(
        api_key=KEY, base_url=upstream.base_url, default_headers=old, max_retries=0
    ) as made:
        assert made.messages.create(**ASK, extra_body={"temperature": 0.5}).content


def test_the_version_of_the_sdk_takes_no_sampling(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(**ASK, extra_body={"temperature": 0.5})


@pytest.mark.parametrize(
    ("kind", "expected", "status"),
    [
        ("claude-400-invalid", anthropic.BadRequestError, 400),
        ("spend_limit", anthropic.BadRequestError, 400),
        ("invalid_key", anthropic.AuthenticationError, 401),
        ("unpaid", anthropic.APIStatusError, 402),
        ("permission", anthropic.PermissionDeniedError, 403),
        ("claude-404-model", anthropic.NotFoundError, 404),
        ("claude-409-conflict", anthropic.ConflictError, 409),
        ("claude-413-too-large", anthropic.APIStatusError, 413),
        ("rate_limit", anthropic.RateLimitError, 429),
        ("spend_cap", anthropic.RateLimitError, 429),
        ("internal", anthropic.InternalServerError, 500),
        ("deadline", anthropic.APIStatusError, 504),
        ("overload", anthropic.APIStatusError, 529),
    ],
)
def test_each_family_of_errors_is_raised_with_status_type_and_id(
    client: anthropic.Anthropic,
    upstream: InThread,
    kind: str,
    expected: type[anthropic.APIStatusError],
    status: int,
) -> None:
    upstream.script(kind)
    with pytest.raises(expected) as caught:
        client.messages.create(**ASK)
    error = caught.value
    assert error.status_code == status
    assert error.request_id
    assert error.body["request_id"] == error.request_id  # type: ignore[index]
    code = "enforced_spend_limit_reached" if kind == "spend_cap" else None
    assert error.error_code == code
    if status == 529:
        assert type(error).__name__ == "OverloadedError"


def test_an_error_in_mid_stream_is_raised_after_what_was_said(
    client: anthropic.Anthropic, upstream: InThread
) -> None:
    upstream.script("prefixed_error", after=5)
    said: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as caught, client.messages.stream(**ASK) as stream:
        said.extend(stream.text_stream)
    assert caught.value.status_code == 200
    assert caught.value.type == "overloaded_error"
    assert len(said) == 2


def test_a_stream_that_just_ends_looks_like_success_to_the_sdk(
    client: anthropic.Anthropic, upstream: InThread
) -> None:
    upstream.script("silent_eof", after=4)
    kinds = [event.type for event in client.messages.create(**ASK, stream=True)]
    assert "message_stop" not in kinds
    assert upstream.report().totals.failed == 1


async def test_a_minutes_refusal_is_slept_out_and_repeated(clock: VirtualClock) -> None:
    async with asynchronous(clock, SMALL) as (emulator, client):
        for _ in range(3):
            await client.messages.create(**ASK)
        totals = emulator.report().totals
    assert (totals.answered, totals.refused) == (3, {"rpm": 1})
    assert clock.monotonic() >= 30


async def test_a_spend_cap_and_an_overload_are_repeated_twice_and_raised(clock: VirtualClock) -> None:
    async with asynchronous(clock) as (emulator, client):
        for kind, error in (("overload", 529), ("spend_cap", 429)):
            emulator.script(kind, times=3)
            with pytest.raises(anthropic.APIStatusError) as caught:
                await client.messages.create(**ASK)
            assert caught.value.status_code == error
        assert emulator.report().totals.faults == {"overload": 3, "spend_cap": 3}


async def test_what_is_not_repeated_is_sent_once(clock: VirtualClock) -> None:
    async with asynchronous(clock) as (emulator, client):
        for kind in ("claude-400-invalid", "invalid_key", "permission", "claude-404-model"):
            emulator.script(kind)
            with pytest.raises(anthropic.APIStatusError):
                await client.messages.create(**ASK)
        assert emulator.report().totals.requests == 4


async def test_the_asynchronous_client_streams_too(clock: VirtualClock) -> None:
    async with asynchronous(clock) as (_, client):
        async with client.messages.stream(**ASK) as stream:
            text = "".join([piece async for piece in stream.text_stream])
        whole = await client.messages.with_raw_response.create(**ASK)
    assert json.loads(await whole.text())["content"][0]["text"] == text
    assert whole.headers["request-id"].startswith("req_")
