"""The pure parts of preparing a call: fitting texts, planning conversations, checking schemas."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.call import Blob, Call, Operation, Preparation, Role, Turn
from headgate.policy.conversation import Action, Plan, as_summary, plan, transcript
from headgate.policy.estimate import count_pieces, prefix_within
from headgate.policy.json_schema import MOST_PROBLEMS, malformed, problems
from headgate.policy.preparing import prepared
from headgate.policy.truncation import border, fit_texts, turns_to_drop

WORDS = st.lists(
    st.sampled_from(
        ["tide ", "Gezeiten ", "潮汐", "👩\u200d🔬", "🇩🇪", "e\u0301", "12 ", "\r\n", "…", "a" * 40]
    )
).map("".join)


@given(WORDS, st.integers(0, 60))
def test_a_prefix_counts_as_no_more_than_it_may(text: str, tokens: int) -> None:
    at = prefix_within(text, tokens)
    assert 0 <= at <= len(text)
    assert count_pieces(text[:at]) <= tokens
    if count_pieces(text) <= tokens:
        assert at == len(text)


@given(st.lists(WORDS, max_size=4), st.integers(0, 80))
def test_what_is_fitted_fits_and_is_the_beginning_of_what_was(texts: list[str], budget: int) -> None:
    fitted = fit_texts(texts, budget)
    assert sum(map(count_pieces, fitted.texts)) <= budget
    assert all(whole.startswith(part) for whole, part in zip(texts, fitted.texts, strict=True))
    assert fitted.cut == sum(map(len, texts)) - sum(map(len, fitted.texts))
    if sum(map(count_pieces, texts)) <= budget:
        assert fitted.texts == texts


def test_short_texts_stay_whole_and_long_ones_share_the_rest() -> None:
    fitted = fit_texts(["tide " * 100, "one two", "tide " * 100], 42)
    assert fitted.texts[1] == "one two"
    assert [count_pieces(text) for text in fitted.texts] == [20, 2, 20]


@pytest.mark.parametrize(
    ("text", "at", "where"),
    [
        ("ab", 1, 1),
        ("e\u0301x", 1, 0),
        ("\r\n", 1, 0),
        ("👩\u200d🔬", 1, 0),
        ("👩\u200d🔬", 2, 0),
        ("👍🏽", 1, 0),
        ("🇩🇪🇫🇷", 1, 0),
        ("🇩🇪🇫🇷", 2, 2),
        ("🇩🇪🇫🇷", 3, 2),
        ("क्षि", 3, 2),
        ("각", 1, 1),
        ("x" + "\u0301" * 500, 400, 336),  # nobody reads that: the search for its beginning is bounded
    ],
)
def test_no_character_is_cut_in_two(text: str, at: int, where: int) -> None:
    assert border(text, at) == where


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(0, 300))
def test_turns_go_in_pairs_from_the_oldest(sizes: list[int], budget: int) -> None:
    dropped = turns_to_drop(sizes, budget)
    assert sum(sizes[dropped:]) <= budget
    assert dropped % 2 == 0 or dropped == len(sizes)
    if dropped:
        assert sum(sizes[dropped - 2 + dropped % 2 :]) > budget, "no more than needed"


@pytest.mark.parametrize(
    ("sizes", "fixed", "window", "overflow", "wanted"),
    [
        ([50, 50], 10, None, Action.DROP, Plan(Action.KEEP)),
        ([], 999, 100, Action.REFUSE, Plan(Action.KEEP)),
        ([40, 40], 10, 100, Action.DROP, Plan(Action.KEEP)),
        ([40, 41], 10, 100, Action.DROP, Plan(Action.DROP, 2)),
        ([40, 41], 10, 100, Action.REFUSE, Plan(Action.REFUSE)),
        ([20, 20, 20, 20, 10, 10], 10, 100, Action.DROP, Plan(Action.DROP, 2)),
        ([20, 20, 20, 20, 10, 10], 10, 100, Action.SUMMARISE, Plan(Action.SUMMARISE, 4)),
    ],
)
def test_what_becomes_of_a_conversation(
    sizes: list[int], fixed: int, window: int | None, overflow: Action, wanted: Plan
) -> None:
    assert plan(sizes, fixed, window, overflow) == wanted


def test_a_transcript_names_media_and_a_summary_begins_with_the_user() -> None:
    turns = [
        Turn(Role.USER, ("See", Blob("image/png", b"x"))),
        Turn(Role.MODEL, ({"functionCall": {"name": "f"}},)),
    ]
    assert transcript(turns) == "user: See [image/png]\n\nmodel: [function call]"
    assert [turn.role for turn in as_summary("…")] == ["user", "model"]


# ── looking through a call ──────────────────────────────────────────────────────────────────────


def test_every_place_of_a_call_is_looked_through_once_and_in_order() -> None:
    call = Call(
        Operation.GENERATE,
        "m",
        ("to c@example.org", Blob("text/plain", b"d@example.org"), Blob("image/png", b"e@example.org")),
        {"system_instruction": "for a@example.org", "temperature": 1},
        turns=(
            Turn(Role.USER, ("b@example.org\u200b",)),
            Turn(
                Role.MODEL,
                (
                    {
                        "functionCall": {"name": "x", "args": {"to": ["a@example.org"], "n": 1}},
                        "thoughtSignature": "z@example.org",
                    },
                ),
            ),
        ),
    )
    done = prepared(call, Preparation(restore=True))
    assert done.call.options == {"system_instruction": "for [EMAIL_1]", "temperature": 1}
    assert done.call.turns[0].parts == ("[EMAIL_2]",)
    assert done.call.turns[1].parts[0] == {
        "functionCall": {"name": "x", "args": {"to": ["[EMAIL_1]"], "n": 1}},
        "thoughtSignature": "z@example.org",
    }
    assert done.call.parts[0] == "to [EMAIL_3]"
    assert done.call.parts[1] == Blob("text/plain", b"[EMAIL_4]")
    assert done.call.parts[2] is call.parts[2]
    assert done.hidden == 1
    assert done.redaction is not None
    assert done.redaction.restore(str(done.call.parts[0])) == "to c@example.org"


def test_without_wishes_a_call_stays_what_it_is() -> None:
    call = Call(Operation.GENERATE, "m", ("a@example.org\u200b",))
    assert prepared(call, Preparation(sanitize=False, redact=False)).call is call


# ── schemas ─────────────────────────────────────────────────────────────────────────────────────

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        ({"name": "a", "children": [{"name": "b"}]}, TREE, []),
        ({"name": "a", "children": [{}]}, TREE, ["$.children[0] has no 'name'"]),
        (
            {"name": "", "x": 1},
            TREE,
            ["$.name has 0 characters, fewer than 1", "$.x must not be there"],
        ),
        (1.0, {"type": "integer"}, []),
        (1.5, {"type": "integer"}, ["$ is number, not integer"]),
        (True, {"type": "integer"}, ["$ is boolean, not integer"]),
        (None, {"type": "STRING", "nullable": True}, []),
        (None, {"type": ["string", "null"]}, []),
        (None, {"type": "string"}, ["$ is null, not string"]),
        ("b", {"enum": ["a"]}, ["$ is none of the values that are allowed"]),
        (1, {"const": True}, ["$ is not the one value that is allowed"]),
        (7, {"minimum": 7, "exclusiveMaximum": 7}, ["$ is not below 7"]),
        (0.3, {"multipleOf": 0.1}, []),
        (7, {"multipleOf": 2}, ["$ is no multiple of 2"]),
        ("ab", {"pattern": "^b"}, ["$ does not match '^b'"]),
        (
            [1, 1],
            {"uniqueItems": True, "maxItems": "1"},
            ["$ has 2 items, more than 1", "$ has items twice"],
        ),
        ([1, "a"], {"prefixItems": [{"type": "string"}], "items": False}, None),
        ({"a": 1}, {"additionalProperties": {"type": "string"}}, ["$.a is integer, not string"]),
        (1, {"anyOf": [{"type": "string"}, {"minimum": 2}]}, ["$ fits none of anyOf"]),
        (1, {"oneOf": [{"type": "integer"}, {"minimum": 0}]}, ["$ fits 2 of oneOf, not one"]),
        (
            1,
            {"allOf": [{"minimum": 2}], "not": {"type": "integer"}},
            ["$ is below 2", "$ fits what it must not"],
        ),
        ({"a": 1}, {"minProperties": 2}, ["$ has 1 members, fewer than 2"]),
        ("x", True, []),
        (1, {"unknown": "keyword"}, []),
    ],
)
def test_problems_are_named_with_their_place(value: Any, schema: Any, wrong: list[str] | None) -> None:
    found = problems(value, schema)
    if wrong is None:
        assert found == ["$[0] is integer, not string", "$[1] must not be there"]
    else:
        assert found == wrong


def test_a_schema_that_refers_to_itself_ends_and_problems_are_bounded() -> None:
    endless = {"$ref": "#"}
    assert problems(1, endless) == []
    assert len(problems([1] * 100, {"items": {"type": "string"}})) == MOST_PROBLEMS


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (TREE, None),
        (True, None),
        ([], "is no object"),
        ({"type": "text"}, "$.type"),
        ({"properties": []}, "$.properties"),
        ({"properties": {"a": {"items": 3}}}, "$.properties.a.items"),
        ({"anyOf": {}}, "$.anyOf"),
        ({"oneOf": [{"pattern": "("}]}, "$.oneOf[0].pattern"),
        ({"required": "a"}, "$.required"),
    ],
)
def test_what_is_no_schema_is_told(schema: Any, why: str | None) -> None:
    found = malformed(schema)
    if why is None:
        assert found is None
    else:
        assert found is not None
        assert why in found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


WORDS_OF_SCHEMAS = (
    "type", "enum", "const", "required", "properties", "additionalProperties", "items", "prefixItems",
    "minItems", "maxItems", "minLength", "pattern", "minimum", "multipleOf", "uniqueItems", "anyOf",
    "oneOf", "allOf", "not", "$ref", "nullable",
)  # fmt: skip
SCHEMA = st.recursive(
    JSON | st.sampled_from(["string", "OBJECT", "integer", "#", "#/properties", "["]),
    lambda inner: (
        st.dictionaries(st.sampled_from(WORDS_OF_SCHEMAS), inner, max_size=4)
        | st.lists(inner, max_size=2)
    ),
    max_leaves=12,
)


@given(JSON, SCHEMA)
def test_no_value_and_no_schema_makes_it_fail(value: Any, schema: Any) -> None:
    if isinstance(schema, dict) and malformed(schema) is None:
        problems(value, schema)
