"""Embeddings on Gemini's wire, one and several; and what quotas count of several."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate.core.call import Call, Operation, Raw, Reply, Weight
from headgate.core.errors import InvalidCallError
from headgate.core.outcome import Kind, Outcome
from headgate.policy.tally import Tally
from headgate.policy.tariff import WholePrompt
from headgate.providers.gemini import GeminiProvider
from headgate.providers.gemini_embeddings import MOST_IN_A_BATCH

MODEL = "gemini-embedding-001"
PROVIDER = GeminiProvider("https://gemini.test")
WALL = 1_795_262_400.0


def asked(*texts: str, **options: object) -> Call:
    return Call(Operation.EMBED, MODEL, (), options, inputs=tuple((text,) for text in texts))


def read(call: Call, value: object) -> Reply | Outcome:
    return PROVIDER.read(call, json.dumps(value).encode())


def test_several_texts_go_by_the_batch_method_and_each_names_the_model() -> None:
    request = PROVIDER.write(asked("a", "b", output_dimensionality=8), MODEL)
    assert request.url == f"https://gemini.test/v1beta/models/{MODEL}:batchEmbedContents"
    one = {"model": f"models/{MODEL}", "outputDimensionality": 8}
    assert json.loads(request.body) == {
        "requests": [{**one, "content": {"parts": [{"text": text}]}} for text in "ab"]
    }
    assert not request.streaming


def test_one_text_goes_as_it_always_did() -> None:
    request = PROVIDER.write(Call(Operation.EMBED, MODEL, ("a",), {"title": "t"}), MODEL)
    assert request.url.endswith(":embedContent")
    assert json.loads(request.body) == {
        "model": f"models/{MODEL}",
        "content": {"parts": [{"text": "a"}]},
        "title": "t",
    }


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (asked(*["x"] * (MOST_IN_A_BATCH + 1)), "101 texts"),
        (asked("a", ""), "Text 1 is empty"),
        (asked(), "prompt is empty"),
    ],
)
def test_what_the_api_would_refuse_as_a_whole_is_not_sent(call: Call, named: str) -> None:
    with pytest.raises(InvalidCallError, match=named):
        PROVIDER.write(call, MODEL)


def test_vectors_come_back_in_order_with_the_usage_of_all() -> None:
    value = {
        "embeddings": [{"values": [0.1, 0.2]}, {"values": [0.3]}],
        "usageMetadata": {"promptTokenCount": 7},
    }
    got = read(asked("a", "b"), value)
    assert isinstance(got, Reply)
    assert got.vectors == ((0.1, 0.2), (0.3,))
    assert (got.vector, got.usage.prompt, got.model) == ((), 7, MODEL)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"embeddings": None},
        {"embeddings": [{"values": [0.1]}]},
        {"embeddings": [{"values": [0.1]}, {"values": []}]},
        {"embeddings": [{"values": [0.1]}] * 3},
        {"embedding": {"values": [0.1]}},
        {"embeddings": "none"},
    ],
)
def test_an_answer_without_a_vector_for_each_text_is_none(value: dict[str, Any]) -> None:
    got = read(asked("a", "b"), value)
    assert isinstance(got, Outcome)
    assert got.kind is Kind.PROTOCOL


def test_an_error_in_the_place_of_vectors_is_one() -> None:
    error = {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}
    got = read(asked("a", "b"), {"error": error})
    assert isinstance(got, Outcome)
    assert got.kind is Kind.OVERLOAD


# ── what quotas count ───────────────────────────────────────────────────────────────────────────


def test_each_text_is_a_request_and_all_of_them_are_input() -> None:
    call = asked("one", "two", "three")
    assert call.requests == 3
    assert WholePrompt().prompt(call) == ("one", "two", "three")
    assert Call(Operation.EMBED, MODEL, ("a",)).requests == 1
    raw = Raw("POST", "/x", MODEL, weight=Weight(requests=9))
    assert Call(Operation.EMBED, MODEL, (), raw=raw).requests == 9


def test_the_tally_counts_the_requests_of_a_batch() -> None:
    tally = Tally()
    tally.sent(0, "m", 1.0, WALL, 5)
    tally.sent(0, "m", 1.0, WALL, 3)
    tally.served(0, "m", 1.0, 70, 5)
    use = tally.used(0, "m", 2.0, WALL)
    assert (use.requests, use.served, use.tokens, use.day_requests) == (8, 5, 70, 8)
    tally.taken_back(0, "m", 1.0, 3)
    use = tally.used(0, "m", 2.0, WALL)
    assert (use.requests, use.served, use.day_requests) == (5, 5, 5)
    tally.taken_back(0, "m", 1.0, 3)
    assert tally.used(0, "m", 2.0, WALL).requests == 5, "what was served is not taken back"
