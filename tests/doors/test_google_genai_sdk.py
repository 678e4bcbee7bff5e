"""The google-genai SDK, unmodified, talks to the emulator: what an app's own tests would do.

The synchronous client runs against an emulator in a thread, the asynchronous one on the same loop
in virtual time. Nothing here waits for a wall clock.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel, Field

from headgate.emulator import Emulator, EmulatorConfig, InThread, Limits, Project
from headgate.testing import VirtualClock

KEY, SMALL = "AIzaCANARY-alpha-1", "AIzaCANARY-small-1"
MODEL = "gemini-3.5-flash"
PROMPT = "How does a headgate share irrigation water?"
CONFIG = EmulatorConfig(
    projects=[
        Project("alpha", {"alpha-1": KEY}),
        Project("small", {"small-1": SMALL}, {"*": Limits(rpm=1), "gemini-3.8-flash": Limits(rpd=1)}),
    ]
)


class Colour(Enum):
    GREEN = "green"
    BROWN = "brown"


class Gate(BaseModel):
    name: str
    width: float = Field(ge=1, le=4)
    colour: Colour


class Canal(BaseModel):
    title: str
    gates: list[Gate] = Field(min_length=2, max_length=3)
    depth: int | None


@pytest.fixture(scope="module")
def upstream() -> Iterator[InThread]:
    with Emulator(CONFIG).in_thread() as emulator:
        yield emulator


def connect(base_url: str, key: str = KEY, version: str | None = None) -> genai.Client:
    return genai.Client(
        api_key=key, http_options=types.HttpOptions(base_url=base_url, api_version=version)
    )


@pytest.fixture
def client(upstream: InThread) -> Iterator[genai.Client]:
    upstream.reset()
    made = connect(upstream.base_url)
    yield made
    made.close()


def say(client: genai.Client, *, streamed: bool) -> None:
    if streamed:
        list(client.models.generate_content_stream(model=MODEL, contents=PROMPT))
    else:
        client.models.generate_content(model=MODEL, contents=PROMPT)


@asynccontextmanager
async def asynchronous(clock: VirtualClock) -> AsyncIterator[tuple[Emulator, Any]]:
    async with Emulator(CONFIG, clock=clock) as emulator:
        made = connect(emulator.base_url)
        try:
            yield emulator, made.aio
        finally:
            await made.aio.aclose()
            made.close()


# ── synchronous ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [None, "v1", "v1beta", "v1alpha"])
def test_text_comes_with_usage_and_finish_reason(upstream: InThread, version: str | None) -> None:
    client = connect(upstream.base_url, version=version)
    reply = client.models.generate_content(model=MODEL, contents=PROMPT)
    client.close()
    assert reply.text
    assert "headgate" in reply.text
    assert reply.candidates[0].finish_reason is types.FinishReason.STOP
    usage = reply.usage_metadata
    parts = usage.prompt_token_count + usage.candidates_token_count + usage.thoughts_token_count
    assert usage.total_token_count == parts
    assert reply.model_version == MODEL


def test_a_stream_says_the_same_in_pieces(client: genai.Client) -> None:
    whole = client.models.generate_content(model=MODEL, contents=PROMPT)
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=PROMPT))
    assert len(chunks) > 2
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    assert chunks[-1].usage_metadata == whole.usage_metadata
    assert len({chunk.response_id for chunk in chunks}) == 1


def test_thoughts_are_shown_when_asked_for(client: genai.Client) -> None:
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))
    reply = client.models.generate_content(model=MODEL, contents=PROMPT, config=config)
    thought, said = reply.candidates[0].content.parts
    assert (thought.thought, said.thought) == (True, None)
    assert said.thought_signature


def test_several_texts_get_several_vectors(client: genai.Client, upstream: InThread) -> None:
    texts = ["water", "gate", "water"]
    config = types.EmbedContentConfig(output_dimensionality=768, task_type="RETRIEVAL_QUERY")
    reply = client.models.embed_content(model="gemini-embedding-001", contents=texts, config=config)
    first, second, third = (embedding.values for embedding in reply.embeddings)
    assert first == third != second
    assert len(first) == 768
    assert upstream.report().projects["alpha"].totals.charged_requests == 3


def test_one_text_gets_one_vector_of_full_length(client: genai.Client) -> None:
    reply = client.models.embed_content(model="gemini-embedding-2", contents="water")
    (embedding,) = reply.embeddings
    assert sum(x * x for x in embedding.values) == pytest.approx(1.0, abs=1e-6)
    assert len(embedding.values) == 3072


def test_count_tokens_agrees_with_the_prompt_count_of_the_answer(client: genai.Client) -> None:
    counted = client.models.count_tokens(model=MODEL, contents=PROMPT).total_tokens
    reply = client.models.generate_content(model=MODEL, contents=PROMPT)
    assert counted == reply.usage_metadata.prompt_token_count


def test_models_are_listed_over_several_pages_and_fetched_one_by_one(client: genai.Client) -> None:
    names = [model.name for model in client.models.list(config={"page_size": 4})]
    assert f"models/{MODEL}" in names
    assert len(names) == len(set(names)) > 10
    model = client.models.get(model=MODEL)
    assert (model.name, model.input_token_limit) == (f"models/{MODEL}", 1_048_576)
    assert "generateContent" in model.supported_actions


def test_a_pydantic_schema_comes_back_parsed(client: genai.Client) -> None:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Canal)
    reply = client.models.generate_content(model=MODEL, contents=PROMPT, config=config)
    assert isinstance(reply.parsed, Canal)
    assert 2 <= len(reply.parsed.gates) <= 3


def test_a_list_and_an_enum_schema_come_back_parsed(client: genai.Client) -> None:
    config = types.GenerateContentConfig(
        response_mime_type="application/json", response_schema=list[Gate]
    )
    gates = client.models.generate_content(model=MODEL, contents=PROMPT, config=config).parsed
    assert all(isinstance(gate, Gate) for gate in gates)
    config = types.GenerateContentConfig(response_mime_type="text/x.enum", response_schema=Colour)
    assert client.models.generate_content(model=MODEL, contents=PROMPT, config=config).parsed in Colour


def test_a_json_schema_with_references_is_honoured(client: genai.Client) -> None:
    config = types.GenerateContentConfig(
        response_mime_type="application/json", response_json_schema=Canal.model_json_schema()
    )
    reply = client.models.generate_content(model=MODEL, contents=PROMPT, config=config)
    Canal.model_validate(json.loads(reply.text))


def test_an_image_model_makes_a_picture(client: genai.Client) -> None:
    config = types.GenerateContentConfig(response_modalities=["TEXT", "IMAGE"])
    reply = client.models.generate_content(
        model="gemini-3.1-flash-image", contents=PROMPT, config=config
    )
    text, picture = reply.candidates[0].content.parts
    assert text.text
    assert picture.inline_data.mime_type == "image/png"
    assert picture.inline_data.data.startswith(b"\x89PNG")


def test_a_chat_calls_a_function_and_goes_on_with_its_result(client: genai.Client) -> None:
    asked: list[str] = []

    def get_level(canal: str) -> int:
        """The level of a canal.

        Args:
            canal: its name.
        """
        asked.append(canal)
        return 3

    chat = client.chats.create(model=MODEL, config=types.GenerateContentConfig(tools=[get_level]))
    reply = chat.send_message(f"[[call:get_level]] {PROMPT}")
    assert len(asked) == 1
    assert reply.text


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("400-location", 400, "FAILED_PRECONDITION"),
        ("401-token-type", 401, "UNAUTHENTICATED"),
        ("403-suspended", 403, "PERMISSION_DENIED"),
        ("404-closed-to-new-projects", 404, "NOT_FOUND"),
        ("429-bare", 429, "RESOURCE_EXHAUSTED"),
        ("500-internal", 500, "INTERNAL"),
        ("503-overloaded", 503, "UNAVAILABLE"),
        ("504-deadline", 504, "DEADLINE_EXCEEDED"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_each_family_of_errors_is_raised_with_code_and_status(
    client: genai.Client, upstream: InThread, kind: str, status: int, name: str, streamed: bool
) -> None:
    upstream.script(kind)
    expected = errors.ServerError if status >= 500 else errors.ClientError
    with pytest.raises(expected) as caught:
        say(client, streamed=streamed)
    assert (caught.value.code, caught.value.status) == (status, name)


def test_an_invalid_key_and_an_unknown_model_are_raised(
    upstream: InThread, client: genai.Client
) -> None:
    stranger = connect(upstream.base_url, "AIzaCANARY-stranger")
    with pytest.raises(errors.ClientError) as caught:
        stranger.models.generate_content(model=MODEL, contents=PROMPT)
    stranger.close()
    assert caught.value.code == 400
    assert caught.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    with pytest.raises(errors.ClientError, match="is not found for API version v1"):
        client.models.generate_content(model="gemini-3.6-flahs", contents=PROMPT)


@pytest.mark.parametrize(("model", "span"), [(MODEL, "PerMinute"), ("gemini-3.8-flash", "PerDay")])
def test_an_exhausted_quota_is_raised_with_its_details(
    upstream: InThread, model: str, span: str
) -> None:
    upstream.reset()
    small = connect(upstream.base_url, SMALL)
    small.models.generate_content(model=model, contents=PROMPT)
    with pytest.raises(errors.ClientError) as caught:
        small.models.generate_content(model=model, contents=PROMPT)
    small.close()
    assert caught.value.code == 429
    details = caught.value.details["error"]["details"]
    kinds = {detail["@type"].rsplit(".", 1)[1]: detail for detail in details}
    violation = kinds["QuotaFailure"]["violations"][0]
    assert span in violation["quotaId"]
    assert (violation["quotaValue"], violation["quotaDimensions"]["model"]) == ("1", model)
    assert kinds["RetryInfo"]["retryDelay"].endswith("s")


@pytest.mark.parametrize("kind", ["raw_error", "prefixed_error"])
def test_an_error_in_mid_stream_is_raised_after_what_was_said(
    client: genai.Client, upstream: InThread, kind: str
) -> None:
    upstream.script(kind, after=2)
    said: list[str | None] = []
    with pytest.raises(errors.ServerError) as caught:
        said.extend(c.text for c in client.models.generate_content_stream(model=MODEL, contents=PROMPT))
    assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")
    assert len(said) == 2


@pytest.mark.parametrize(
    "kind", ["half_event", "malformed_sse", "sse_comment", "sse_done", "sse_no_space"]
)
def test_framing_the_sdk_cannot_read_is_raised(
    client: genai.Client, upstream: InThread, kind: str
) -> None:
    upstream.script(kind)
    with pytest.raises(errors.UnknownApiResponseError):
        list(client.models.generate_content_stream(model=MODEL, contents=PROMPT))


@pytest.mark.parametrize(("kind", "chunks"), [("silent_eof", 1), ("empty_stream", 0)])
def test_a_stream_that_just_ends_looks_like_success_to_the_sdk(
    client: genai.Client, upstream: InThread, kind: str, chunks: int
) -> None:
    upstream.script(kind)
    assert len(list(client.models.generate_content_stream(model=MODEL, contents=PROMPT))) == chunks
    assert upstream.report().totals.failed == 1


def test_blocked_prompts_and_safety_stops_have_no_text(
    client: genai.Client, upstream: InThread
) -> None:
    upstream.script("blocked")
    reply = client.models.generate_content(model=MODEL, contents=PROMPT)
    assert reply.prompt_feedback.block_reason is types.BlockedReason.PROHIBITED_CONTENT
    assert reply.candidates is None
    for kind in ("safety", "safety_no_content", "safety_no_parts"):
        upstream.script(kind)
        reply = client.models.generate_content(model=MODEL, contents=PROMPT)
        assert reply.candidates[0].finish_reason is types.FinishReason.SAFETY
        assert reply.text is None


def test_a_proxys_html_page_is_a_server_error(client: genai.Client, upstream: InThread) -> None:
    upstream.script("html", status=502)
    with pytest.raises(errors.ServerError) as caught:
        client.models.generate_content(model=MODEL, contents=PROMPT)
    assert caught.value.code == 502


# ── asynchronous ─────────────────────────────────────────────────────────────


# google-genai subclasses aiohttp.ClientSession, which aiohttp discourages: theirs to settle.
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
async def test_the_asynchronous_client_does_all_of_it_on_the_same_loop(clock: VirtualClock) -> None:
    async with asynchronous(clock) as (emulator, client):
        whole = await client.models.generate_content(model=MODEL, contents=PROMPT)
        stream = await client.models.generate_content_stream(model=MODEL, contents=PROMPT)
        assert "".join([chunk.text or "" async for chunk in stream]) == whole.text
        counted = await client.models.count_tokens(model=MODEL, contents=PROMPT)
        assert counted.total_tokens == whole.usage_metadata.prompt_token_count
        vectors = await client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
        assert len(vectors.embeddings) == 2
        names = [model.name async for model in await client.models.list()]
        assert f"models/{MODEL}" in names
        config = types.GenerateContentConfig(
            response_mime_type="application/json", response_schema=Canal
        )
        parsed = await client.models.generate_content(model=MODEL, contents=PROMPT, config=config)
        assert isinstance(parsed.parsed, Canal)
        assert emulator.report().totals.refused == {}


# google-genai subclasses aiohttp.ClientSession, which aiohttp discourages: theirs to settle.
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
async def test_the_asynchronous_client_raises_errors_before_and_in_a_stream(
    clock: VirtualClock,
) -> None:
    async with asynchronous(clock) as (emulator, client):
        emulator.script("overload")
        with pytest.raises(errors.ServerError, match="overloaded"):
            await client.models.generate_content(model=MODEL, contents=PROMPT)
        emulator.script("prefixed_error")
        stream = await client.models.generate_content_stream(model=MODEL, contents=PROMPT)
        with pytest.raises(errors.ServerError, match="high demand"):
            [chunk async for chunk in stream]


def test_files_are_uploaded_listed_used_and_deleted(client: genai.Client) -> None:
    """Nine megabytes, in the SDK's pieces of eight; another project's key does not see them."""
    content = bytes(range(250)) * 40_000
    config = types.UploadFileConfig(mime_type="video/mp4", display_name="tides", name="tides-1")
    file = client.files.upload(file=io.BytesIO(content), config=config)
    assert (file.name, file.state) == ("files/tides-1", types.FileState.ACTIVE)
    assert file.size_bytes == len(content)
    reply = client.models.generate_content(model=MODEL, contents=["What is it?", file])
    assert reply.text
    assert [one.display_name for one in client.files.list()] == ["tides"]
    other = connect(client._api_client._http_options.base_url or "", SMALL)
    with pytest.raises(errors.ClientError, match="permission to access the File tides-1"):
        other.models.generate_content(model=MODEL, contents=["What is it?", file])
    other.close()
    with pytest.raises(errors.ClientError, match="already exists"):
        client.files.upload(file=io.BytesIO(b"x"), config=config)
    client.files.delete(name="files/tides-1")
    with pytest.raises(errors.ClientError, match="may not exist"):
        client.files.get(name="files/tides-1")
