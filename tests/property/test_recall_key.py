"""X-19: whatever changes the answer changes the key, and nothing else does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from headgate.core.call import (
    Blob,
    Call,
    Keeping,
    Operation,
    Preparation,
    Priority,
    Raw,
    Role,
    Turn,
    Upload,
)
from headgate.core.fallback import FailFast
from headgate.policy.recall_key import recall_key

ANSWER = {
    "operation",
    "parts",
    "options",
    "messages",
    "turns",
    "preparation",
    "keeping",
    "raw",
    "inputs",
    "domain",
}
"""Fields of a call that the key knows; of `preparation` the schema, of `keeping` whose answer it is."""

NO_ANSWER = {
    "model",  # its resolved name is given apart
    "request_id", "deadline", "max_wait", "priority", "caller", "fallbacks", "earmark",
}  # fmt: skip
"""Fields that say how it is asked. The caller is in the partition, where it is to count."""

words = st.text(alphabet="ab\x00[]{}:,\"'é", max_size=6)
plain = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), words)
tables = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
)
blobs = st.builds(Blob, words, st.binary(max_size=4))
parts = st.lists(st.one_of(words, blobs), max_size=3).map(tuple)
pieces = st.dictionaries(words, plain, max_size=2)
turns = st.builds(
    Turn,
    st.sampled_from(list(Role)),
    st.lists(st.one_of(words, blobs, pieces), max_size=2).map(tuple),
)
calls = st.builds(
    Call,
    operation=st.sampled_from([Operation.GENERATE, Operation.STREAM, Operation.EMBED]),
    model=st.just("m"),
    parts=parts,
    options=st.dictionaries(words, tables, max_size=3),
    messages=st.lists(pieces, max_size=2).map(tuple),
    turns=st.lists(turns, max_size=2).map(tuple),
    inputs=st.lists(parts, max_size=2).map(tuple),
    keeping=st.builds(Keeping, partition=words, namespace=words),
)


def key(call: Call, **more: Any) -> str | None:
    more = {"model": "m-1", "origin": "gemini https://host", "headers": {"a": "b"}, **more}
    return recall_key(call, **more)


def told_apart(value: object) -> object:
    """A value as JSON tells it apart: 1, 1.0 and true are three, a tuple is a list."""
    if isinstance(value, Mapping):
        return {name: told_apart(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [told_apart(each) for each in value]
    return (type(value).__name__, str(value))


def asks(call: Call) -> object:
    """What a call asks, by another way than the key's."""
    flat = {
        "embeds": call.operation is Operation.EMBED,
        "parts": call.parts,
        "options": call.options,
        "messages": call.messages,
        "turns": [(turn.role, turn.parts) for turn in call.turns],
        "inputs": call.inputs,
        "keeping": (call.keeping and (call.keeping.partition, call.keeping.namespace)),
    }
    return told_apart(_blobs_apart(flat))


def _blobs_apart(value: object) -> object:
    if isinstance(value, Blob):
        return ["a blob", value.mime_type, value.data]
    if isinstance(value, Mapping):
        return {name: _blobs_apart(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_blobs_apart(each) for each in value]
    return value


@given(calls, calls)
def test_two_calls_have_one_key_where_they_ask_the_same(first: Call, second: Call) -> None:
    """No two questions are written alike, however their pieces are cut."""
    assert (key(first) == key(second)) == (asks(first) == asks(second))


@given(calls, st.randoms(use_true_random=False))
def test_the_order_of_a_table_does_not_matter(call: Call, chance: Any) -> None:
    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            names = list(value)
            chance.shuffle(names)
            return {name: shuffled(value[name]) for name in names}
        return [shuffled(each) for each in value] if isinstance(value, list) else value

    other = structs.replace(call, options=shuffled(dict(call.options)))
    assert key(call) == key(other)


BASE = Call(
    Operation.GENERATE,
    "m",
    ("What is this?", Blob("image/png", b"\x89PNG")),
    {"temperature": 0.7, "top_p": 0.9, "system_instruction": "Be brief."},
    turns=(Turn(Role.USER, ("Hello",)),),
    preparation=Preparation(schema={"type": "object"}),
    keeping=Keeping(partition="p", namespace="n"),
)

CHANGES: list[dict[str, Any]] = [
    {"parts": ("What is that?", Blob("image/png", b"\x89PNG"))},
    {"parts": ("What is this?", Blob("image/png", b"\x89PNh"))},
    {"parts": ("What is this?", Blob("image/gif", b"\x89PNG"))},
    {"parts": ("What is ", "this?", Blob("image/png", b"\x89PNG"))},
    {"parts": ("What is this?",)},
    {"options": {**BASE.options, "temperature": 0.8}},
    {"options": {**BASE.options, "top_p": 0.8}},
    {"options": {**BASE.options, "top_k": 3}},
    {"options": {**BASE.options, "system_instruction": "Be long."}},
    {"options": {**BASE.options, "response_schema": {"type": "object"}}},
    {"options": {"temperature": 0.7, "top_p": 0.9}},
    {"turns": ()},
    {"turns": (Turn(Role.MODEL, ("Hello",)),)},
    {"turns": (Turn(Role.USER, ("Hello", "Hello")),)},
    {"messages": ({"role": "user"},)},
    {"inputs": (("a",),)},
    {"operation": Operation.EMBED},
    {"preparation": Preparation(schema={"type": "array"})},
    {"preparation": None},
    {"keeping": Keeping(partition="q", namespace="n")},
    {"keeping": Keeping(partition="p", namespace="o")},
    {"keeping": Keeping(partition="pn", namespace="")},
    {"raw": Raw("POST", "/v1/x", "m", body=b"{}")},
    {"domain": "alpha"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_what_changes_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert key(structs.replace(BASE, **change)) != key(BASE)


@pytest.mark.parametrize(
    "more",
    [{"model": "m-2"}, {"origin": "gemini https://other"}, {"headers": {"a": "c"}}, {"headers": {}}],
    ids=str,
)
def test_so_does_where_and_what_is_asked(more: dict[str, Any]) -> None:
    assert key(BASE, **more) != key(BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"operation": Operation.STREAM},
        {"request_id": "r"},
        {"deadline": 7.0},
        {"max_wait": 7.0},
        {"priority": Priority.LOW},
        {"caller": "somebody"},
        {"fallbacks": (FailFast(),)},
        {"keeping": Keeping(partition="p", namespace="n", ttl=1.0, rescue=2.0, reads=False)},
        {"options": MappingProxyType(dict(reversed(BASE.options.items())))},
    ],
    ids=str,
)
def test_how_it_is_asked_does_not(change: dict[str, Any]) -> None:
    assert key(structs.replace(BASE, **change)) == key(BASE)


def test_every_field_of_a_call_is_on_one_of_the_lists() -> None:
    """Whoever adds one decides whether it changes the answer."""
    assert {field.name for field in structs.fields(Call)} == ANSWER | NO_ANSWER
    known = {"partition", "namespace", "ttl", "revalidate", "rescue", "reads"}
    assert {field.name for field in structs.fields(Keeping)} == known
    assert {field.name for field in dataclasses.fields(Turn)} == {"role", "parts"}
    assert {field.name for field in dataclasses.fields(Blob)} == {"mime_type", "data", "upload"}


def test_media_count_by_content_however_large_and_wherever_they_are() -> None:
    """Large ones by a digest; uploaded ones by theirs, at whichever address they are kept."""

    def of(*blobs: Blob) -> str | None:
        return key(Call(Operation.GENERATE, "m", blobs, keeping=Keeping()))

    small, large = b"a" * 65_535, b"a" * 65_536
    digest = sha256(large).digest()
    one, other = Upload("d1", 5, "https://x/files/1"), Upload("d2", 5, "https://x/files/1")
    different = [
        of(Blob("video/mp4", small)),
        of(Blob("video/mp4", large)),
        of(Blob("video/webm", large)),
        of(Blob("video/mp4", large[:-1] + b"b")),
        of(Blob("video/mp4", digest)),
        of(Blob("video/mp4", large, one)),
        of(Blob("video/mp4", large, other)),
        of(Blob("video/mp4", b"")),
    ]
    assert len(set(different)) == len(different)
    elsewhere = Upload("d1", 5, "https://x/files/9")
    assert of(Blob("video/mp4", b"", elsewhere)) == of(Blob("video/mp4", large, one))


def test_a_raw_call_counts_byte_by_byte_and_by_its_form() -> None:
    def of(operation: Operation = Operation.GENERATE, **more: Any) -> str | None:
        raw = structs.replace(Raw("POST", "/v1/x", "m", {"a": "b"}, b"{}"), **more)
        return key(Call(operation, "m", (), raw=raw, keeping=Keeping()))

    keys = {
        of(),
        of(Operation.STREAM),
        of(method="GET"),
        of(path="/v1/y"),
        of(headers={"a": "c"}),
        of(body=b"{ }"),
    }
    assert len(keys) == 6


def test_a_key_says_nothing_of_the_prompt() -> None:
    made = key(BASE)
    assert made is not None
    assert len(made) == 64
    assert set(made) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "options",
    [{"x": 2**80}, {"x": "\ud800"}, {"x": object()}, {"x": {1j: 2}}],
    ids=["huge", "half", "object", "key"],
)
def test_what_cannot_be_written_has_no_key(options: dict[str, object]) -> None:
    assert key(Call(Operation.GENERATE, "m", ("a",), options, keeping=Keeping())) is None


def test_nor_has_what_is_nested_without_end() -> None:
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert key(Call(Operation.GENERATE, "m", ("a",), {"x": deep}, keeping=Keeping())) is None
