"""S1: generating, embedding and streaming, asynchronously and not."""

# ruff: noqa: PERF401, PT012 - these tests look at what came before a stream broke

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

import pytest
from tests.support import (
    MODEL,
    Ear,
    event,
    key,
    key_books,
    quota,
    reply,
    said,
    scripted,
    settle,
    stream,
    vector,
)

from headgate.gemini import GeminiAPICallError
from headgate.testing import Answer, VirtualClock


def body(transport: Any, number: int = -1) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(transport.sent[number].request.body)
    return written


# ── generate ────────────────────────────────────────────────────────────────────────────────────


async def test_s1_29_generate_content_answers_with_text(clock: VirtualClock) -> None:
    client, transport = scripted([said("Rayleigh.")], clock)
    answer = await client.generate_content("Why is the sky blue?", MODEL)
    assert answer == "Rayleigh."
    assert type(answer) is str
    (sent,) = transport.sent
    assert sent.request.url == (
        f"https://generativelanguage.googleapis.com/v1beta/models/{MODEL}:generateContent"
    )
    assert body(transport) == {
        "contents": [{"role": "user", "parts": [{"text": "Why is the sky blue?"}]}]
    }


async def test_s1_29_the_key_travels_in_a_header_and_nowhere_else(clock: VirtualClock) -> None:
    client, transport = scripted([said(), vector(), stream("a")], clock)
    await client.generate_content("hi")
    await client.embed_content("hi")
    assert [piece async for piece in client.generate_content_stream("hi")] == ["a"]
    for sent in transport.sent:
        assert sent.credential == {"x-goog-api-key": key(0)}
        assert "CANARY" not in sent.request.url + str(sent.request.headers) + repr(sent.request)
        assert b"CANARY" not in sent.request.body


OPTIONS: dict[str, tuple[object, str]] = {
    "temperature": (0.5, "temperature"),
    "max_output_tokens": (100, "maxOutputTokens"),
    "top_p": (0.9, "topP"),
    "top_k": (40, "topK"),
    "stop_sequences": (["END"], "stopSequences"),
    "response_mime_type": ("application/json", "responseMimeType"),
}


@pytest.mark.parametrize("inside", [None, "generation_config", "config"])
async def test_s1_29_options_are_taken_by_keyword_and_inside_a_config(
    inside: str | None, clock: VirtualClock
) -> None:
    given = {name: value for name, (value, _) in OPTIONS.items()}
    given["system_instruction"] = "Be brief."
    client, transport = scripted([said()], clock)
    await client.generate_content("hi", MODEL, **({inside: given} if inside else given))
    written = body(transport)
    assert written["generationConfig"] == {wire: value for value, wire in OPTIONS.values()}
    assert written["systemInstruction"] == {"parts": [{"text": "Be brief."}]}


async def test_s1_29_a_schema_asks_for_json(clock: VirtualClock) -> None:
    client, transport = scripted([said("{}")], clock)
    await client.generate_content("hi", MODEL, response_schema={"type": "OBJECT"})
    assert body(transport)["generationConfig"] == {
        "responseSchema": {"type": "OBJECT"},
        "responseMimeType": "application/json",
    }


@pytest.mark.parametrize(
    ("unknown", "near"),
    [("temprature", "temperature"), ("max_tokens", "max_output_tokens"), ("topP", "top_p")],
)
@pytest.mark.parametrize("inside", [None, "config", "generation_config"])
async def test_s1_29_an_unknown_option_is_a_type_error_with_the_nearest_name(
    unknown: str, near: str, inside: str | None, clock: VirtualClock
) -> None:
    client, transport = scripted([said()], clock)
    given: dict[str, Any] = {inside: {unknown: 1}} if inside else {unknown: 1}
    with pytest.raises(TypeError, match=near) as caught:
        await client.generate_content("hi", **given)
    assert unknown in str(caught.value)
    with pytest.raises(TypeError, match=near):
        client.generate_content_stream("hi", **given)
    assert transport.sent == []


@pytest.mark.parametrize(
    "answer",
    [
        {"promptFeedback": {"blockReason": "SAFETY"}},
        {"candidates": [{"finishReason": "SAFETY"}]},
        {"candidates": [{"content": {}, "finishReason": "SAFETY"}]},
        {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]},
        reply(""),
    ],
)
async def test_s1_29_a_blocked_or_empty_reply_raises(answer: Any, clock: VirtualClock) -> None:
    """The pitfall: returning `""` for a blocked reply."""
    client, _ = scripted([Answer(body=json.dumps(answer).encode())], clock)
    with pytest.raises(GeminiAPICallError) as caught:
        await client.generate_content("hi")
    assert caught.value.kind == "blocked"
    assert caught.value.key_name == "k0"


async def test_s1_29_a_truncated_reply_is_returned_with_a_warning(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([said("half", finish="MAX_TOKENS")], clock)
    with caplog.at_level(logging.WARNING, logger="headgate.gemini"):
        assert await client.generate_content("hi", MODEL) == "half"
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "token limit" in warning.getMessage()


async def test_s1_29_thoughts_are_not_part_of_the_text(clock: VirtualClock) -> None:
    answer = reply("the answer")
    answer["candidates"][0]["content"]["parts"].insert(0, {"text": "hm", "thought": True})
    client, _ = scripted([Answer(body=json.dumps(answer).encode())], clock)
    assert await client.generate_content("hi") == "the answer"


def test_s1_29_no_vendor_sdk_is_on_the_path() -> None:
    import subprocess
    import sys

    code = (
        "import sys, headgate.gemini\n"
        "bad = [m for m in sys.modules if m.startswith(('google.genai', 'google.generativeai'))]\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_s1_29_a_reply_tells_what_it_took(clock: VirtualClock) -> None:
    client, _ = scripted([quota("Minute", "50s"), said("yes", delay=2)], clock, 2)
    got = await client.generate_reply("hi", MODEL)
    assert (got.text, got.key_name, got.attempts, got.rotations, got.retries) == ("yes", "k1", 2, 1, 0)
    assert got.usage.total == 8
    assert got.elapsed == pytest.approx(2)
    assert got.model == MODEL


# ── embed ───────────────────────────────────────────────────────────────────────────────────────


async def test_s1_30_embed_content_answers_with_a_list_of_floats(clock: VirtualClock) -> None:
    client, transport = scripted([vector(1, 2.5, -3)], clock)
    got = await client.embed_content("Some text")
    assert got == [1.0, 2.5, -3.0]
    assert len(got) == 3
    assert [type(value) for value in got] == [float] * 3
    assert body(transport) == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "Some text"}]},
    }


async def test_s1_30_embed_options_are_written_and_unknown_ones_refused(clock: VirtualClock) -> None:
    client, transport = scripted([vector()], clock)
    await client.embed_content(
        "text", "gemini-embedding-2", task_type="RETRIEVAL_DOCUMENT", title="T", output_dimensionality=8
    )
    written = body(transport)
    assert written["taskType"] == "RETRIEVAL_DOCUMENT"
    assert written["title"] == "T"
    assert written["outputDimensionality"] == 8
    assert written["model"] == "models/gemini-embedding-2"
    with pytest.raises(TypeError, match="output_dimensionality"):
        await client.embed_content("text", output_dimension=8)


# ── streams ─────────────────────────────────────────────────────────────────────────────────────


async def test_s1_29a_a_stream_yields_text_as_it_comes(clock: VirtualClock) -> None:
    client, transport = scripted([stream("one ", "two ", "three", piece_delay=1)], clock)
    seen = []
    async for piece in client.generate_content_stream("hi", MODEL):
        seen.append((piece, clock.monotonic()))
    assert [piece for piece, _ in seen] == ["one ", "two ", "three"]
    assert [at for _, at in seen] == pytest.approx([1, 2, 3])
    assert transport.sent[0].request.url.endswith(":streamGenerateContent?alt=sse")
    assert key_books(client) == [(1, 1, 0, 0)]
    await settle(client, transport)


async def test_s1_29a_before_the_first_piece_a_stream_rotates_and_retries(clock: VirtualClock) -> None:
    client, transport = scripted([quota("Minute", "50s"), Answer(500), stream("fine")], clock, 2)
    assert [piece async for piece in client.generate_content_stream("hi")] == ["fine"]
    assert len(transport.sent) == 3
    assert key_books(client) == [(1, 0, 1, 1), (2, 1, 1, 0)]


async def test_s1_29a_after_the_first_piece_nothing_is_repeated(clock: VirtualClock) -> None:
    pieces = stream("one", "two", finish=None).pieces
    client, transport = scripted([Answer(pieces=pieces, broken=True), stream("again")], clock, 2)
    seen = []
    with pytest.raises(GeminiAPICallError) as caught:
        async for piece in client.generate_content_stream("hi"):
            seen.append(piece)
    assert seen == ["one", "two"]
    assert caught.value.kind == "network"
    assert len(transport.sent) == 1
    assert key_books(client)[0] == (1, 0, 1, 0)
    await settle(client, transport)


async def test_s1_29a_a_reader_who_leaves_early_gives_everything_back(clock: VirtualClock) -> None:
    ear = Ear()
    client, transport = scripted([stream("one", "two", "three")], clock, observers=[ear])
    pieces = client.generate_content_stream("hi")
    assert await anext(pieces) == "one"
    await pieces.aclose()
    await settle(client, transport)
    assert [call.error for call in ear.calls] == ["cancelled"]
    assert key_books(client) == [(0, 0, 0, 0)]


async def test_s1_29a_a_stream_cut_at_the_token_limit_warns(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = scripted([stream("half", finish="MAX_TOKENS")], clock)
    with caplog.at_level(logging.WARNING, logger="headgate.gemini"):
        assert [piece async for piece in client.generate_content_stream("hi", MODEL)] == ["half"]
    assert "token limit" in caplog.text


# ── synchronous twins ───────────────────────────────────────────────────────────────────────────


def test_s1_29a_the_twins_work_without_a_loop(clock: VirtualClock) -> None:
    client, transport = scripted([said("text"), vector(1.0), stream("a", "b")], clock, 2)
    with client:
        assert client.generate_content_sync("hi") == "text"
        assert client.embed_content_sync("hi") == [1.0]
        assert list(client.generate_content_stream_sync("hi")) == ["a", "b"]
    assert transport.open_exchanges == 0


async def test_s1_29a_the_twins_work_inside_a_running_loop(clock: VirtualClock) -> None:
    client, _ = scripted([said("text")], clock)
    assert client.generate_content_sync("hi") == "text"
    assert await client.generate_content("hi") == "text"
    client.close()


def test_s1_29a_the_twins_raise_what_the_calls_raise(clock: VirtualClock) -> None:
    client, _ = scripted([Answer(body=b'{"promptFeedback":{"blockReason":"SAFETY"}}')], clock)
    with client:
        with pytest.raises(GeminiAPICallError) as caught:
            client.generate_content_sync("hi")
        assert caught.value.kind == "blocked"
        with pytest.raises(TypeError, match="temperature"):
            client.generate_content_sync("hi", temprature=1)


# ── concurrency ─────────────────────────────────────────────────────────────────────────────────


def test_s1_11_threads_and_loops_share_one_client(clock: VirtualClock) -> None:
    """The pitfall: an asyncio lock, bound to one loop, and no lock for threads."""
    client, transport = scripted([said()], clock, 3)
    failures: list[BaseException] = []

    def own_loop() -> None:
        async def many() -> None:
            await asyncio.gather(*(client.generate_content("hi", MODEL) for _ in range(20)))

        try:
            asyncio.run(many())
            for _ in range(5):
                client.generate_content_sync("hi", MODEL)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=own_loop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert failures == []
    assert len(transport.sent) == 200
    books = key_books(client)
    assert sum(total for total, *_ in books) == 200
    assert max(total for total, *_ in books) - min(total for total, *_ in books) <= 1


async def test_s1_11_two_clients_share_nothing(clock: VirtualClock) -> None:
    """The pitfall: an SDK whose key is global state."""
    one, first = scripted([said("one")], clock, keys="CANARY-of-one|a")
    two, second = scripted([said("two")], clock, keys="CANARY-of-two|b")
    answers = await asyncio.gather(one.generate_content("hi"), two.generate_content("hi"))
    assert answers == ["one", "two"]
    assert {sent.credential["x-goog-api-key"] for sent in first.sent} == {"CANARY-of-one"}
    assert {sent.credential["x-goog-api-key"] for sent in second.sent} == {"CANARY-of-two"}
    assert two.get_key_metrics()["keys"][0]["metrics"]["total_requests"] == 1


async def test_s1_12_concurrent_calls_each_take_a_lease_of_their_own(clock: VirtualClock) -> None:
    client, transport = scripted([said(delay=5)], clock, 4)
    await asyncio.gather(*(client.generate_content("hi") for _ in range(8)))
    used = [sent.credential["x-goog-api-key"] for sent in transport.sent]
    assert [used.count(key(number)) for number in range(4)] == [2, 2, 2, 2]
    assert clock.monotonic() == pytest.approx(5), "they ran at the same time"


def test_s1_12_closing_is_never_required(clock: VirtualClock) -> None:
    client, _ = scripted([said()], clock)

    async def once() -> str:
        async with client:
            return await client.generate_content("hi")

    assert [asyncio.run(once()), asyncio.run(once())] == ["fine", "fine"]
    assert asyncio.run(client.generate_content("hi")) == "fine"


async def test_s1_29_text_of_an_answer_that_only_calls_functions_is_an_error(
    clock: VirtualClock,
) -> None:
    body = reply()
    call = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    body["candidates"][0]["content"]["parts"] = [call]
    whole = Answer(body=json.dumps(body).encode())
    client, _ = scripted(
        [whole, whole, Answer(pieces=(event(body),)), Answer(pieces=(event(body),))], clock
    )
    assert (await client.generate_reply("hi", MODEL)).content == (call,)
    with pytest.raises(GeminiAPICallError, match="generate_reply") as caught:
        await client.generate_content("hi", MODEL)
    assert caught.value.kind == "blocked"
    pieces = [piece async for piece in client.generate_reply_stream("hi", MODEL)]
    assert [piece.content for piece in pieces] == [(call,)]
    with pytest.raises(GeminiAPICallError, match="generate_reply_stream"):
        _ = [text async for text in client.generate_content_stream("hi", MODEL)]
