"""What the emulator says: texts, values that fit a schema, pictures, vectors, token counts."""

from __future__ import annotations

import base64
import math
import re
import zlib
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from headgate.emulator import media, prose, structure, tokens
from headgate.emulator.chance import seeded
from headgate.emulator.config import Model
from headgate.emulator.replies import Question, compose, signature_is_ours

TEXT = Model(id="some-text-model")


def question(text: str = "How does a headgate share irrigation water?", **rest: Any) -> Question:
    body = {"contents": [{"parts": [{"text": text}], "role": "user"}], **rest}
    return Question(body, TEXT, 1, tokens.of_request(body, 258))


@settings(deadline=None)
@given(st.text(max_size=300), st.integers(0, 50))
def test_an_answer_has_20_to_120_words_and_mentions_the_prompt(text: str, seed: int) -> None:
    said = prose.answer(text, seeded(seed))
    assert 15 <= len(said.split()) <= 200
    words = prose.key_words(text)
    assert not words or any(word in said for word in words)


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 5))
def test_the_words_marker_decides_the_length_exactly(count: int, seed: int) -> None:
    assert len(prose.answer(f"Canals [[words:{count}]]", seeded(seed)).split()) == count


def test_the_same_request_gets_the_same_answer_and_another_seed_another_one() -> None:
    first, again = compose(question()), compose(question())
    assert first.whole() == again.whole()
    other = Question(question().body, TEXT, 2, question().prompt)
    assert compose(other).whole()["candidates"] != first.whole()["candidates"]


@pytest.mark.parametrize("generation", [2, 3, 4])
@pytest.mark.parametrize("include", [True, False])
def test_chunks_say_the_same_as_the_whole_and_end_with_the_same_usage(
    generation: int, include: bool
) -> None:
    model = Model(id="m", generation=generation)
    settings = {"thinkingConfig": {"includeThoughts": include}, "candidateCount": 2}
    body = {**question().body, "generationConfig": settings}
    answer = compose(Question(body, model, 1, {"TEXT": 9}))
    whole, chunks = answer.whole(), answer.chunks()
    for index, candidate in enumerate(whole["candidates"]):
        parts = [p for c in chunks for p in _parts(c, index)]
        for thought in (True, False):
            assert _said(parts, thought) == _said(candidate["content"]["parts"], thought)
    assert chunks[-1]["usageMetadata"] == whole["usageMetadata"]
    totals = [c["usageMetadata"]["totalTokenCount"] for c in chunks]
    assert totals == sorted(totals)
    assert len({c["responseId"] for c in chunks}) == 1


def _said(parts: list[dict[str, Any]], thought: bool) -> str:
    return "".join(p.get("text", "") for p in parts if bool(p.get("thought")) is thought)


def _parts(chunk: dict[str, Any], index: int) -> list[dict[str, Any]]:
    return [p for c in chunk["candidates"] if c["index"] == index for p in c["content"]["parts"]]


def test_usage_adds_up_and_leaves_zeros_out() -> None:
    usage = compose(question()).whole()["usageMetadata"]
    parts = usage["promptTokenCount"] + usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
    assert usage["totalTokenCount"] == parts
    silent = compose(question(generationConfig={"thinkingConfig": {"thinkingBudget": 0}})).whole()
    assert "thoughtsTokenCount" not in silent["usageMetadata"]


def test_max_output_tokens_cuts_at_that_many_tokens() -> None:
    answer = compose(question(generationConfig={"maxOutputTokens": 7})).whole()
    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert 0 < answer["usageMetadata"]["candidatesTokenCount"] <= 7


def test_a_stop_sequence_ends_the_text_before_it() -> None:
    full = compose(question()).whole()["candidates"][0]["content"]["parts"][0]["text"]
    stop = full.split()[4]
    cut = compose(question(generationConfig={"stopSequences": [stop]})).whole()["candidates"][0]
    assert stop not in cut["content"]["parts"][0]["text"]
    assert cut["finishReason"] == "STOP"


def test_a_signature_is_recognised_byte_for_byte_only() -> None:
    answer = compose(question()).whole()
    signature = answer["candidates"][0]["content"]["parts"][-1]["thoughtSignature"]
    assert signature_is_ours(signature, 1)
    assert signature_is_ours(signature.replace("+", "-").replace("/", "_"), 1)
    assert not signature_is_ours(signature, 2)
    changed = ("A" if signature[40] != "A" else "B").join((signature[:40], signature[41:]))
    assert not signature_is_ours(changed, 1)
    assert not signature_is_ours("not base64!", 1)


# ── tokens ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("Hello, world!", 4),
        ("2026", 4),
        ("international", 3),
        ("水門", 2),
        ("  \n ", 0),
        ("a_b", 3),
    ],
)
def test_the_documented_token_rule(text: str, expected: int) -> None:
    assert tokens.of_text(text) == expected


def test_pictures_files_tools_and_messages_cost_what_the_rule_says() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    pdf = {"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.com/a.pdf"}}
    body = {"contents": [{"parts": [image, pdf, {"text": "look"}]}], "tools": [{"googleSearch": {}}]}
    tally = tokens.of_request(body, image_tokens=1120)
    tool = tokens.of_text('[{"googleSearch":{}}]')
    assert tally == {"TEXT": 1 + 1 + tool, "IMAGE": 1120, "DOCUMENT": 258}


# ── structure ────────────────────────────────────────────────────────────────


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    label: str = Field(min_length=3, max_length=12)
    share: float = Field(ge=0, le=1)
    colour: Colour


class Tree(BaseModel):
    name: str
    size: int = Field(gt=3, lt=6)
    step: int = Field(multiple_of=5, ge=11, le=40)
    kind: Literal["oak", "elm"]
    leaf: Leaf | None
    leaves: list[Leaf] = Field(min_length=2, max_length=4)
    tags: set[Colour]
    pair: tuple[int, str]
    counts: dict[str, int]
    either: int | bool
    children: list[Tree] = []
    code: str = Field(pattern=r"^[A-Z]{3}-\d{3}$")


@settings(deadline=None)
@given(st.integers(0, 200))
def test_a_value_for_a_json_schema_validates_in_pydantic(seed: int) -> None:
    value = structure.value_for(Tree.model_json_schema(), ["gate", "canal"], seeded(seed))
    Tree.model_validate(value)


GOOGLE = {
    "type": "OBJECT",
    "properties": {
        "b": {"type": "INTEGER", "minimum": 5, "maximum": 6},
        "a": {"type": "STRING", "nullable": True, "enum": ["x", "y"]},
        "c": {"type": "ARRAY", "items": {"type": "NUMBER"}, "minItems": "2", "maxItems": "2"},
        "d": {"anyOf": [{"type": "STRING", "format": "date-time"}, {"type": "NULL"}]},
    },
    "required": ["a", "b", "c", "d"],
    "propertyOrdering": ["c", "a"],
}


@settings(deadline=None)
@given(st.integers(0, 100))
def test_a_value_for_googles_schema_fits_and_keeps_the_property_order(seed: int) -> None:
    value = structure.value_for(GOOGLE, [], seeded(seed))
    assert list(value) == ["c", "a", "b", "d"]
    assert value["a"] in ("x", "y")
    assert value["b"] in (5, 6)
    assert len(value["c"]) == 2
    assert all(isinstance(n, float) for n in value["c"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*", value["d"])


def test_a_schema_that_refers_to_itself_ends() -> None:
    endless: dict[str, Any] = {"$ref": "#"}
    structure.value_for(endless, [], seeded(1))
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": []}
    structure.value_for(node, [], seeded(1))


def test_all_of_is_merged() -> None:
    parts = [{"type": "object", "properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]
    assert structure.value_for({"allOf": parts}, [], seeded(1)) == {"a": 1, "b": 2}


def test_a_function_call_has_arguments_that_fit_its_declaration() -> None:
    schema = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}
    declared = [{"functionDeclarations": [{"name": "weather", "parameters": schema}]}]
    mode = {"functionCallingConfig": {"mode": "ANY"}}
    part = compose(question(tools=declared, toolConfig=mode)).whole()["candidates"][0]["content"][
        "parts"
    ][0]
    assert part["functionCall"]["name"] == "weather"
    assert isinstance(part["functionCall"]["args"]["city"], str)
    assert part["thoughtSignature"]


# ── media ────────────────────────────────────────────────────────────────────


def test_a_picture_is_a_whole_png_and_depends_on_its_labels() -> None:
    raw = base64.b64decode(media.picture("a"))
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    assert media.picture("a") != media.picture("b")
    place, kinds = 8, []
    while place < len(raw):
        length = int.from_bytes(raw[place : place + 4], "big")
        kind, data = raw[place + 4 : place + 8], raw[place + 8 : place + 8 + length]
        assert int.from_bytes(raw[place + 8 + length : place + 12 + length], "big") == zlib.crc32(
            kind + data
        )
        if kind == b"IDAT":
            assert len(zlib.decompress(data)) == 16 * (1 + 3 * 16)
        kinds.append(kind)
        place += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


@settings(deadline=None)
@given(st.text(max_size=50), st.sampled_from([1, 2, 768, 3072]))
def test_a_vector_is_a_unit_vector_that_depends_on_the_text_only(text: str, dimensions: int) -> None:
    vector = media.vector(text, "m", dimensions)
    assert len(vector) == dimensions
    assert math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-6)
    assert vector == media.vector(text, "m", dimensions)
    if dimensions > 1:
        assert vector != media.vector(text + "x", "m", dimensions)
