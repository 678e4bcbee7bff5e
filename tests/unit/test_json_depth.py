"""How deep a JSON text is nested, against a walk through what the standard library reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.policy.json_depth import is_deeper


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


TEXTS = st.text(st.sampled_from('[]{}"\\a\n'), max_size=6)
VALUES = st.recursive(
    TEXTS | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


@given(value=VALUES, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_finds_the_depth_that_a_parser_finds(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    depth = depth_of(value)
    assert not is_deeper(text, depth)
    if depth:
        assert is_deeper(text, depth - 1)


@pytest.mark.parametrize(
    ("text", "most", "deeper"),
    [
        (b"[" * 200_000, 200, True),  # F33
        (b'{"a":' * 200_000, 200, True),
        (b"[" * 200 + b"]" * 200, 200, False),
        (b"[" * 201 + b"]" * 201, 200, True),
        (b"[]," * 100_000, 1, False),
        (b'"' + b"[" * 100_000 + b'"', 1, False),
        (b'"\\"' + b"[" * 1000 + b'"', 1, False),
        (b"[" * 70_000 + b"]" * 70_000, 69_999, True),  # beyond the first piece that is looked at
        (b"[" * 70_000 + b"]" * 70_000, 70_000, False),
        (b'["' + b"a" * 70_000 + b'[[","' + b"[" * 70_000 + b'",[[]]]', 3, False),  # strings too
        (b'["' + b"a" * 65_532 + b'\\"[[[[","x"]', 2, False),  # an escape at the edge of a piece
        (b"[" * 190 + b"[]," * 200 + b"[[" + b"[[]]," * 200, 194, False),  # near the estimate
        (b"[" * 190 + b"[]," * 200 + b"[[" + b"[[]]," * 200, 193, True),
        (b"[" * 150 + b"]" * 100 + b"[" * 140, 190, False),
        (b"[" * 150 + b"]" * 100 + b"[" * 141, 190, True),
        (b"", 1, False),
    ],
)
def test_depths(text: bytes, most: int, deeper: bool) -> None:
    assert is_deeper(text, most) is deeper


def test_no_string_however_odd_takes_long() -> None:
    """X-30: each byte is looked at once; what is quadratic would not come back from this."""
    for text in (b'"' * 1_000_000, b'"\\' * 500_000, b'"a\\"' * 250_000, b'[{"' * 400_000):
        is_deeper(text, 0)
