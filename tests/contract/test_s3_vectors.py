"""S3-03b: embeddings are remembered text by text, under the bounds and lifetimes of replies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support import failure, key, keys

from headgate.backend import BackendConfig, Embedding, GeminiBackend, GeminiError
from headgate.testing import Answer, ScriptedTransport, Sent, VirtualClock

VECTORS, OTHERS = "gemini-embedding-001", "gemini-embedding-2"


def texts_of(sent: Sent) -> list[str]:
    body = json.loads(sent.request.body)
    return [item["content"]["parts"][0]["text"] for item in body.get("requests", [body])]


def lengths() -> Callable[[Sent], Answer]:
    """Embeds every text as its length."""

    def answer(sent: Sent) -> Answer:
        found = [{"values": [float(len(text))]} for text in texts_of(sent)]
        several = "batchEmbedContents" in sent.request.url
        body: dict[str, Any] = {"embeddings": found} if several else {"embedding": found[0]}
        return Answer(body=json.dumps(body).encode())

    return answer


class World:
    """A backend, and the texts it asked for."""

    def __init__(self, clock: VirtualClock, script: Any = None, **config: Any) -> None:
        self.transport = ScriptedTransport(script or lengths(), clock)
        self.backend = GeminiBackend(
            BackendConfig(model_discovery=False, **config),
            keys=keys(1), transport=self.transport, clock=clock, environ={},
        )  # fmt: skip

    async def embed(self, *texts: str, model: str = VECTORS, **options: Any) -> list[Any]:
        made = await self.backend.embed_gemini(texts, model, **options)
        return [one.vector[0] if isinstance(one, Embedding) else one for one in made]

    @property
    def asked(self) -> list[list[str]]:
        return [texts_of(sent) for sent in self.transport.sent]


async def test_s3_03b_a_text_is_embedded_once(clock: VirtualClock) -> None:
    w = World(clock)
    assert await w.embed("tide") == [4.0]
    assert await w.embed("tide") == [4.0]
    assert w.asked == [["tide"]]
    stats = await w.backend.get_gemini_cache_stats()
    assert (stats.entries, stats.total_hits) == (1, 1)


async def test_s3_03b_of_a_batch_only_what_is_new_is_asked_for(clock: VirtualClock) -> None:
    w = World(clock, batch_size=10)
    await w.embed("tide", "wind")
    assert await w.embed("tide", "rain!", "wind") == [4.0, 5.0, 4.0]
    assert w.asked == [["tide", "wind"], ["rain!"]]


@pytest.mark.parametrize(
    "other",
    [
        {"model": OTHERS},
        {"task_type": "CLUSTERING"},
        {"title": "t", "task_type": "RETRIEVAL_DOCUMENT"},
        {"output_dimensionality": 64},
        {"caller": "ann"},
        {"api_key": key(7)},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_s3_03b_another_question_or_another_caller_finds_nothing(
    clock: VirtualClock, other: dict[str, Any]
) -> None:
    w = World(clock)
    await w.embed("tide")
    await w.embed("tide", **other)
    await w.embed("tide", **other)
    assert len(w.asked) == 2


async def test_s3_03b_use_cache_false_neither_reads_nor_writes(clock: VirtualClock) -> None:
    w = World(clock)
    await w.embed("tide", use_cache=False)
    await w.embed("tide")
    await w.embed("tide", use_cache=False)
    assert len(w.asked) == 3


@pytest.mark.parametrize("config", [{"cache_ttl_seconds": 0}, {"cache_max_entries": 0}])
async def test_s3_03c_without_room_or_time_nothing_is_remembered(
    clock: VirtualClock, config: dict[str, Any]
) -> None:
    w = World(clock, **config)
    await w.embed("tide")
    await w.embed("tide")
    assert len(w.asked) == 2


async def test_s3_03c_a_vector_is_forgotten_with_its_time_and_with_the_cache(
    clock: VirtualClock,
) -> None:
    w = World(clock, cache_ttl_seconds=60)
    await w.embed("tide")
    await clock.sleep(61)
    await w.embed("tide")
    assert await w.backend.clear_gemini_cache() == 1
    await w.embed("tide")
    assert len(w.asked) == 3


async def test_s3_02h_what_is_remembered_holds_no_personal_data(clock: VirtualClock) -> None:
    """Two addresses leave as one text; each who asks hears what was taken out of theirs."""
    w = World(clock)
    for address in ("ann@example.org", "bob@example.org"):
        (made,) = await w.backend.embed_gemini([f"write to {address}"], VECTORS)
        assert isinstance(made, Embedding)
        assert made.redactions == {"EMAIL": 1}
    assert w.asked == [["write to [EMAIL]"]]


async def test_s3_03b_a_failure_is_not_remembered(clock: VirtualClock) -> None:
    answers = iter([failure(400, "Too odd.", "INVALID_ARGUMENT")])

    def answer(sent: Sent) -> Answer:
        return next(answers, None) or lengths()(sent)

    w = World(clock, answer)
    (refused,) = await w.embed("tide")
    assert isinstance(refused, GeminiError)
    assert await w.embed("tide") == [4.0]


async def test_s3_03b_a_text_that_cannot_be_written_down_fails_alone(clock: VirtualClock) -> None:
    w = World(clock)
    good, bad = await w.embed("tide", "\ud800")
    assert good == 4.0
    assert isinstance(bad, GeminiError)
