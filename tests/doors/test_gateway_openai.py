"""The openai SDK, unmodified, through the gateway to the emulator.

Servers are real, on free ports; nothing here waits for a wall clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.gateway import CALLER_KEY, CALLERS, OPENAI_KEYS, GatewayInThread
from tests.support import Ear

from headgate.emulator import Emulator, EmulatorConfig, InThread, OpenAIOrganisation
from headgate.wiring.gateway_settings import GatewaySettings

LISTS_KEY = "sk-CANARY-lists-0123456789"
MODEL, EMBEDDER = "gpt-4.1", "text-embedding-3-small"
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "How does a headgate share irrigation water?"}],
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_level", "parameters": {"type": "object", "properties": {}}},
}
CONFIG = EmulatorConfig(
    openai=[
        OpenAIOrganisation("alpha", {"o1": OPENAI_KEYS[0]}),
        OpenAIOrganisation("lists", {"o2": LISTS_KEY}, deviations=["list_errors", "no_done"]),
    ]
)
SETTINGS = GatewaySettings(callers=CALLERS, linger_seconds=0.0, drain_seconds=5.0)


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    with Emulator(CONFIG).in_thread() as emulator:
        yield emulator


def served(upstream: InThread, key: str = OPENAI_KEYS[0], **options: Any) -> GatewayInThread:
    upstream.reset()
    environ = {"OPENAI_API_KEYS": f"{key}|o|a", "HEADGATE_OPENAI_MAX_RETRIES": "1"}
    return GatewayInThread(upstream.base_url, settings=SETTINGS, environ=environ, **options)


@pytest.fixture
def client(upstream: InThread) -> Iterator[openai.OpenAI]:
    with served(upstream) as gateway, connect(gateway) as made:
        yield made


def connect(gateway: GatewayInThread, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        api_key=CALLER_KEY, base_url=f"{gateway.base_url}/openai/v1", max_retries=0, **options
    )


def test_openai_completion_stream_tools_vectors_and_models(
    client: openai.OpenAI, upstream: InThread
) -> None:
    """Point 24: the usage chunk without choices, and vectors in both encodings."""
    whole = client.chat.completions.create(**ASK)
    text = whole.choices[0].message.content
    assert text
    assert "headgate" in text
    stream = client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == text
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens  # type: ignore[union-attr]
    messages: Any = [{"role": "user", "content": "[[call:get_level]] Which level?"}]
    called = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    assert called.choices[0].finish_reason == "tool_calls"
    packed = client.embeddings.create(model=EMBEDDER, input=["a", "b"])
    plain = client.embeddings.create(model=EMBEDDER, input=["a", "b"], encoding_format="float")
    assert len(packed.data) == 2
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    assert upstream.report().totals.refused == {}


def test_openai_refusals_are_raised_with_their_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-none"):
        client.chat.completions.create(**{**ASK, "model": "gpt-none"})
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**ASK, extra_body={"temperature": 9})


def test_openai_shows_the_message_of_an_upstream_that_puts_errors_into_lists(
    upstream: InThread,
) -> None:
    with served(upstream, LISTS_KEY) as gateway, connect(gateway) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(**{**ASK, "model": "gpt-none"})
        assert "gpt-none" in caught.value.message
        assert isinstance(caught.value.body, dict)
        said = list(client.chat.completions.create(**ASK, stream=True))
        assert len(said) > 2, "a stream that ends without [DONE] is whole all the same"


def test_openai_is_told_not_to_repeat_what_was_repeated(upstream: InThread) -> None:
    """trust.md 1.8: with the SDK's own two retries on, the upstream sees the engine's tries only."""
    with served(upstream) as gateway, connect(gateway).with_options(max_retries=2) as client:
        upstream.script("overload", times=20)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**ASK)
        assert caught.value.response.headers["x-should-retry"] == "false"
    assert upstream.report().totals.requests == 2


@pytest.mark.parametrize("kind", ["prefixed_error", "silent_eof", "reset_mid"])
def test_openai_raises_for_a_stream_that_breaks_off(
    client: openai.OpenAI, upstream: InThread, kind: str
) -> None:
    upstream.script(kind, after=3)
    said: list[Any] = []
    with pytest.raises(openai.APIError):
        said.extend(client.chat.completions.create(**ASK, stream=True))
    assert said


def test_openai_asynchronously_and_a_stranger(upstream: InThread) -> None:
    ear = Ear()

    async def main(url: str) -> None:
        async with openai.AsyncOpenAI(api_key=CALLER_KEY, base_url=f"{url}/openai/v1") as client:
            whole = await client.chat.completions.create(**ASK)
            stream = await client.chat.completions.create(**ASK, stream=True)
            said = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            assert "".join(said) == whole.choices[0].message.content
            stranger = client.with_options(api_key=OPENAI_KEYS[0], max_retries=0)
            with pytest.raises(openai.AuthenticationError) as caught:
                await stranger.chat.completions.create(**ASK)
            assert caught.value.code == "invalid_api_key"

    with served(upstream, observers=[ear]) as gateway:
        asyncio.run(main(gateway.base_url))
    assert [record.caller for record in ear.calls] == ["ann", "ann"]
    assert ear.calls[0].usage.total, "of a stream it is told only where the client asks for it"
