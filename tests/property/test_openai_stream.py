"""Streams of the OpenAI wire, however they are made and cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.call import Call, Chunk, Operation, Reply
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Outcome
from headgate.core.ports import Event
from headgate.providers.openai import OpenAIProvider
from headgate.providers.openai_raw import survey
from headgate.transport.sse import SseDecoder

PROVIDER = OpenAIProvider("https://example.test/v1")

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=6)
ENDS = st.sampled_from(["\n\n", "\r\n\r\n"])


def read(pieces: list[bytes], *, raw: bool = False) -> list[Chunk | Outcome]:
    async def events() -> AsyncGenerator[Event]:
        decoder = SseDecoder()
        for piece in pieces:
            for event in decoder.feed(piece):
                yield event
        for event in decoder.end():
            yield event

    async def all_of_it() -> list[Chunk | Outcome]:
        return [item async for item in PROVIDER.chunks(events(), raw=raw)]

    return asyncio.run(all_of_it())


def body(texts: list[str], end: str, *, comments: bool) -> bytes:
    events: list[Any] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
    events += [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    gap = f": still here{end}" if comments else ""
    framed = "".join(f"{gap}data: {json.dumps(event, ensure_ascii=False)}{end}" for event in events)
    return f"{framed}data: [DONE]{end}".encode()


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges)]


@given(TEXTS, ENDS, st.booleans(), st.lists(st.integers(0, 10_000), max_size=12))
@settings(max_examples=60)
def test_however_a_stream_is_cut_it_says_the_same(
    texts: list[str], end: str, comments: bool, places: list[int]
) -> None:
    raw = body(texts, end, comments=comments)
    whole, pieces = read([raw]), read(cut(raw, places))
    assert whole == pieces
    chunks = [item for item in pieces if isinstance(item, Chunk)]
    assert len(chunks) == len(pieces)
    assert "".join(chunk.text for chunk in chunks) == "".join(texts)
    handed_on = [item for item in read(cut(raw, places), raw=True) if isinstance(item, Chunk)]
    assert b"".join(chunk.raw for chunk in handed_on) == raw


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "message", "content", "refusal", "tool_calls", "function", "index",
                 "arguments", "finish_reason", "usage", "prompt_tokens", "error", "model", "data",
                 "embedding", "completion_tokens_details", "reasoning_tokens"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    st.lists(st.one_of(VALUES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=20)))
)
@settings(max_examples=150)
def test_nothing_in_a_stream_raises(datas: list[bytes]) -> None:
    raw = b"".join(b"data: " + data + b"\n\n" for data in datas)
    for as_raw in (False, True):
        items = read([raw], raw=as_raw)
        assert all(isinstance(item, Chunk | Outcome) for item in items)
        assert sum(isinstance(item, Outcome) for item in items) <= 1


@given(st.one_of(VALUES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40)))
@settings(max_examples=200)
def test_nothing_in_a_body_raises(raw: bytes) -> None:
    for operation in (Operation.GENERATE, Operation.EMBED):
        assert isinstance(PROVIDER.read(Call(operation, "m", ("x",)), raw), Reply | Outcome)
    with suppress(InvalidCallError):
        assert survey(raw).weight.tokens >= 1
