"""Unmodified SDKs through the gateway to the emulator: what they see is what they would see directly.

Servers are real, on free ports; nothing here waits for a wall clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from google import genai
from google.genai import errors, types
from tests.gateway import (
    CALLER_KEY,
    CALLERS,
    CLAUDE_KEYS,
    GEMINI_KEYS,
    GatewayInThread,
    listed,
)
from tests.support import Ear

from headgate.emulator import Emulator, EmulatorConfig, InThread, Limits, Organisation, Project
from headgate.wiring.gateway_settings import GatewaySettings

MODEL = "gemini-3.5-flash"
PROMPT = "How does a headgate share irrigation water?"
ASK: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 400,
    "messages": [{"role": "user", "content": PROMPT}],
}
CONFIG = EmulatorConfig(
    projects=[
        Project("alpha", {"g1": GEMINI_KEYS[0]}, {"gemini-3.8-flash": Limits(rpm=2)}),
        Project("beta", {"g2": GEMINI_KEYS[1]}, {"gemini-3.8-flash": Limits(rpm=2)}),
    ],
    organisations=[
        Organisation(f"org{number}", {f"c{number}": key}, retry_after_share=0.0)
        for number, key in enumerate(CLAUDE_KEYS)
    ],
)
ENVIRON = {
    "GEMINI_API_KEYS": f"{GEMINI_KEYS[0]}|g1|alpha,{GEMINI_KEYS[1]}|g2|beta",
    "ANTHROPIC_API_KEYS": listed(CLAUDE_KEYS),
    "HEADGATE_MAX_WAIT_SECONDS": "0",
}
SETTINGS = GatewaySettings(callers=CALLERS, linger_seconds=0.0, drain_seconds=5.0)

# google-genai subclasses aiohttp.ClientSession, which aiohttp discourages: theirs to settle.
THEIRS = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    with Emulator(CONFIG).in_thread() as emulator:
        yield emulator


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def gateway(upstream: InThread, ear: Ear) -> Iterator[GatewayInThread]:
    upstream.reset()
    served = GatewayInThread(upstream.base_url, settings=SETTINGS, environ=ENVIRON, observers=[ear])
    with served:
        yield served


def google(url: str, key: str = CALLER_KEY, version: str | None = None) -> genai.Client:
    options = types.HttpOptions(base_url=f"{url}/gemini", api_version=version)
    return genai.Client(api_key=key, http_options=options)


def say(client: genai.Client, *, streamed: bool) -> None:
    if streamed:
        list(client.models.generate_content_stream(model=MODEL, contents=PROMPT))
    else:
        client.models.generate_content(model=MODEL, contents=PROMPT)


@pytest.fixture
def gemini(gateway: GatewayInThread) -> Iterator[genai.Client]:
    made = google(gateway.base_url)
    yield made
    made.close()


@pytest.fixture
def claude(gateway: GatewayInThread) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        api_key=CALLER_KEY, base_url=f"{gateway.base_url}/anthropic", max_retries=0
    ) as made:
        yield made


# ── google-genai ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [None, "v1", "v1beta", "v1alpha"])
def test_google_text_stream_count_vectors_and_models(
    gateway: GatewayInThread, upstream: InThread, version: str | None
) -> None:
    client = google(gateway.base_url, version=version)
    whole = client.models.generate_content(model=MODEL, contents=PROMPT)
    assert whole.text
    assert "headgate" in whole.text
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=PROMPT))
    assert len(chunks) > 2
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    counted = client.models.count_tokens(model=MODEL, contents=PROMPT)
    assert counted.total_tokens == whole.usage_metadata.prompt_token_count
    vectors = client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
    assert len(vectors.embeddings) == 2
    names = [model.name for model in client.models.list(config={"page_size": 4})]
    assert f"models/{MODEL}" in names
    assert client.models.get(model=MODEL).name == f"models/{MODEL}"
    client.close()
    assert upstream.report().totals.refused == {}


def test_google_tools_schemas_and_signatures_survive_the_way(gemini: genai.Client) -> None:
    """Points 1, 2 and 21: what the SDK mixes into its body, and what must come back byte-exact."""
    asked: list[str] = []

    def get_level(canal: str) -> int:
        """The level of a canal.

        Args:
            canal: its name.
        """
        asked.append(canal)
        return 3

    chat = gemini.chats.create(model=MODEL, config=types.GenerateContentConfig(tools=[get_level]))
    assert chat.send_message(f"[[call:get_level]] {PROMPT}").text
    assert len(asked) == 1
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    config = types.GenerateContentConfig(
        response_mime_type="application/json", response_json_schema=schema
    )
    assert gemini.models.generate_content(model=MODEL, contents=PROMPT, config=config).parsed["name"]  # type: ignore[index, call-overload]


def test_google_makes_a_picture(gemini: genai.Client) -> None:
    config = types.GenerateContentConfig(response_modalities=["TEXT", "IMAGE"])
    reply = gemini.models.generate_content(
        model="gemini-3.1-flash-image", contents=PROMPT, config=config
    )
    assert reply.candidates[0].content.parts[1].inline_data.data.startswith(b"\x89PNG")


def test_google_quota_of_one_project_is_made_up_by_the_other(
    gemini: genai.Client, upstream: InThread
) -> None:
    for _ in range(4):
        assert gemini.models.generate_content(model="gemini-3.8-flash", contents=PROMPT).text
    with pytest.raises(errors.ClientError) as caught:
        gemini.models.generate_content(model="gemini-3.8-flash", contents=PROMPT)
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert caught.value.details["error"]["details"][1]["retryDelay"]
    totals = upstream.report().totals
    assert totals.answered == 4


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("400-location", 400, "FAILED_PRECONDITION"),
        ("503-overloaded", 503, "UNAVAILABLE"),
        ("500-internal", 500, "INTERNAL"),
        ("504-deadline", 504, "DEADLINE_EXCEEDED"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_google_errors_are_raised_with_code_and_status(
    upstream: InThread, kind: str, status: int, name: str, streamed: bool
) -> None:
    upstream.reset()
    environ = {**ENVIRON, "GEMINI_API_KEY_ROTATION_MAX_RETRIES": "0"}
    with GatewayInThread(upstream.base_url, settings=SETTINGS, environ=environ) as served:
        client = google(served.base_url)
        upstream.script(kind, times=3)
        with pytest.raises(errors.APIError) as caught:
            say(client, streamed=streamed)
        client.close()
    assert (caught.value.code, caught.value.status) == (status, name)


def test_google_refuses_an_unknown_field_and_model_in_its_own_words(gemini: genai.Client) -> None:
    with pytest.raises(errors.ClientError, match="is not found for API version v1"):
        gemini.models.generate_content(model="gemini-3.6-flahs", contents=PROMPT)
    extra = types.HttpOptions(extra_body={"zeta": 1})
    config = types.GenerateContentConfig(http_options=extra)
    with pytest.raises(errors.ClientError, match="Cannot find field"):
        gemini.models.generate_content(model=MODEL, contents=PROMPT, config=config)


@pytest.mark.parametrize(
    "kind",
    ["raw_error", "prefixed_error", "late_error_key", "silent_eof", "half_event", "malformed_sse",
     "reset_mid"],
)  # fmt: skip
def test_google_raises_for_every_stream_that_breaks_off(
    gemini: genai.Client, upstream: InThread, kind: str
) -> None:
    """Point 5: directly, the SDK takes a silent end and a late `error` for success."""
    upstream.script(kind, after=2)
    said: list[str | None] = []
    with pytest.raises(errors.ServerError):
        said.extend(c.text for c in gemini.models.generate_content_stream(model=MODEL, contents=PROMPT))
    assert len(said) == 2


@pytest.mark.parametrize("kind", ["empty_stream", "raw_error", "prefixed_error"])
def test_google_never_sees_a_stream_that_failed_before_its_first_event(
    gemini: genai.Client, upstream: InThread, kind: str
) -> None:
    upstream.script(kind, after=0)
    assert len(list(gemini.models.generate_content_stream(model=MODEL, contents=PROMPT))) > 2


def test_google_sees_a_blocked_prompt_and_a_safety_stop_as_they_are(
    gemini: genai.Client, upstream: InThread
) -> None:
    """Point 14: a 200, neither retried nor turned into an error."""
    upstream.script("blocked")
    reply = gemini.models.generate_content(model=MODEL, contents=PROMPT)
    assert reply.prompt_feedback.block_reason is types.BlockedReason.PROHIBITED_CONTENT
    for kind in ("safety", "safety_no_content", "safety_no_parts"):
        upstream.script(kind)
        reply = gemini.models.generate_content(model=MODEL, contents=PROMPT)
        assert reply.candidates[0].finish_reason is types.FinishReason.SAFETY
    assert upstream.report().totals.requests == 4


def test_google_is_refused_without_a_key_of_the_gateways(gateway: GatewayInThread) -> None:
    stranger = google(gateway.base_url, GEMINI_KEYS[0])
    with pytest.raises(errors.ClientError) as caught:
        stranger.models.generate_content(model=MODEL, contents=PROMPT)
    stranger.close()
    assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")


@THEIRS
def test_google_asynchronously_and_a_reader_that_walks_away(
    gateway: GatewayInThread, upstream: InThread, ear: Ear
) -> None:
    async def main() -> None:
        client = google(gateway.base_url)
        whole = await client.aio.models.generate_content(model=MODEL, contents=PROMPT)
        stream = await client.aio.models.generate_content_stream(model=MODEL, contents=PROMPT)
        assert "".join([chunk.text or "" async for chunk in stream]) == whole.text
        vectors = await client.aio.models.embed_content(model="gemini-embedding-001", contents=["a"])
        assert len(vectors.embeddings) == 1
        upstream.script("stall_mid", after=1)
        stream = await client.aio.models.generate_content_stream(model=MODEL, contents=PROMPT)
        await anext(aiter(stream))
        task = asyncio.ensure_future(anext(aiter(stream)))
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done, "the upstream stalls"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aio.aclose()
        client.close()

    asyncio.run(main())
    until(lambda: ear.calls[-1].error == "cancelled")
    until(lambda: len(gateway.gateway.visits) == 0)


# ── anthropic ───────────────────────────────────────────────────────────────────────────────────


def test_anthropic_message_stream_count_and_models(claude: anthropic.Anthropic) -> None:
    """Point 23: the SDK sends its key as Bearer and the newest version."""
    whole = claude.messages.create(**ASK)
    with claude.messages.stream(**ASK) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == whole.content[0].text  # type: ignore[union-attr]
    assert final.usage == whole.usage
    counted = claude.messages.count_tokens(model=ASK["model"], messages=ASK["messages"])
    assert counted.input_tokens == whole.usage.input_tokens
    assert ASK["model"] in [model.id for model in claude.models.list(limit=4)]
    assert claude.models.retrieve(ASK["model"]).type == "model"


def test_anthropic_beta_and_old_credential(gateway: GatewayInThread) -> None:
    old = {"anthropic-version": "2023-06-01", "x-api-key": CALLER_KEY, "Authorization": anthropic.omit}
    with anthropic.Anthropic(
        api_key=CALLER_KEY, base_url=f"{gateway.base_url}/anthropic", default_headers=old, max_retries=0
    ) as made:
        assert made.messages.create(**ASK, extra_body={"temperature": 0.5}).content
        assert made.beta.messages.create(**ASK).content


def test_anthropic_takes_no_sampling_in_its_newest_version(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="temperature") as caught:
        claude.messages.create(**ASK, extra_body={"temperature": 0.5})
    assert caught.value.body["request_id"] == caught.value.request_id  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "expected", "status"),
    [
        ("claude-400-invalid", anthropic.BadRequestError, 400),
        ("claude-404-model", anthropic.NotFoundError, 404),
        ("claude-413-too-large", anthropic.APIStatusError, 413),
        ("internal", anthropic.InternalServerError, 500),
        ("deadline", anthropic.APIStatusError, 504),
        ("overload", anthropic.APIStatusError, 529),
    ],
)
def test_anthropic_errors_are_raised_with_status_and_id(
    upstream: InThread, kind: str, expected: type[anthropic.APIStatusError], status: int
) -> None:
    """What is left of an upstream's failures is told once: `x-should-retry` ends the SDK's retries."""
    upstream.reset()
    environ = {**ENVIRON, "HEADGATE_ANTHROPIC_MAX_RETRIES": "0"}
    with (
        GatewayInThread(upstream.base_url, settings=SETTINGS, environ=environ) as served,
        anthropic.Anthropic(api_key=CALLER_KEY, base_url=f"{served.base_url}/anthropic") as client,
    ):
        upstream.script(kind, times=9)
        with pytest.raises(expected) as caught:
            client.messages.create(**ASK)
    assert caught.value.status_code == status
    assert caught.value.request_id
    assert upstream.report().totals.requests == 1


def test_anthropic_raises_for_a_stream_that_breaks_off(
    claude: anthropic.Anthropic, upstream: InThread
) -> None:
    for kind in ("prefixed_error", "silent_eof", "reset_mid"):
        upstream.script(kind, after=5)
        said: list[str] = []
        with pytest.raises(anthropic.APIStatusError), claude.messages.stream(**ASK) as stream:
            said.extend(stream.text_stream)
        assert said, kind


def test_anthropic_asynchronously(gateway: GatewayInThread) -> None:
    async def main() -> None:
        async with anthropic.AsyncAnthropic(
            api_key=CALLER_KEY, base_url=f"{gateway.base_url}/anthropic"
        ) as client:
            whole = await client.messages.create(**ASK)
            async with client.messages.stream(**ASK) as stream:
                text = "".join([piece async for piece in stream.text_stream])
        assert text == whole.content[0].text  # type: ignore[union-attr]

    asyncio.run(main())


def until(done: Any) -> None:
    """Another thread gets there: looked at again and again, for ten seconds at the most."""
    import time

    for _ in range(1000):
        if done():
            return
        time.sleep(0.01)  # noqa: TID251 - a real server in another thread has no virtual clock
    raise AssertionError("it did not happen")
