"""One member of a JSON text is replaced, and every other byte stays as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.providers.json_splice import with_member

MODEL = (("model",),)


@pytest.mark.parametrize(
    ("body", "paths", "expected"),
    [
        (b'{"model":"a","x":1}', MODEL, b'{"model":"B","x":1}'),
        (b'{ "x" : [1,\n2] ,\t"model"\n:  "a" }', MODEL, b'{ "x" : [1,\n2] ,\t"model"\n:  "B" }'),
        (b'{"m\\u006fdel":"a"}', MODEL, b'{"m\\u006fdel":"B"}'),
        (b'{"model":"a","model":"b"}', MODEL, b'{"model":"B","model":"B"}'),
        (b'{"in":{"model":"a"},"list":["model",{"model":"a"}]}', MODEL,
         b'{"in":{"model":"a"},"list":["model",{"model":"a"}]}'),
        (b'{"text":"\\"model\\":\\"a\\"","model":"a"}', MODEL,
         b'{"text":"\\"model\\":\\"a\\"","model":"B"}'),
        (b'{"in":{"model":"a"}}', (("in", "model"),), b'{"in":{"model":"B"}}'),
        (b'{"r":[{"model":"a"},{"y":{"model":"a"},"model":"c"}]}', (("r", "*", "model"),),
         b'{"r":[{"model":"B"},{"y":{"model":"a"},"model":"B"}]}'),
        (b'{"model":null}', MODEL, b'{"model":null}'),
        (b"[]", MODEL, b"[]"),
    ],
)  # fmt: skip
def test_only_the_member_at_the_path_is_replaced(
    body: bytes, paths: tuple[tuple[str, ...], ...], expected: bytes
) -> None:
    assert with_member(body, paths, "B") == expected


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["model", "a", '"', "\\", "é", ""]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=20,
)


def replaced(value: Any, path: tuple[str, ...]) -> Any:
    """What the text must mean afterwards, by way of parsing."""
    if not path:
        return "new/ü" if isinstance(value, str) else value
    if isinstance(value, dict):
        if path[0] not in value:
            return value
        return {**value, path[0]: replaced(value[path[0]], path[1:])}
    if isinstance(value, list) and path[0] == "*":
        return [replaced(inner, path[1:]) for inner in value]
    return value


@given(
    value=st.dictionaries(st.sampled_from(["model", "requests", "x"]), JSON, max_size=4),
    path=st.sampled_from([("model",), ("requests", "*", "model"), ("x", "model")]),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_what_the_text_means_changes_there_and_nowhere_else(
    value: dict[str, Any], path: tuple[str, ...], ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    spliced = with_member(body, (path,), "new/ü")
    assert json.loads(spliced.decode("utf-8", "surrogatepass")) == replaced(value, path)
    if json.loads(body.decode("utf-8", "surrogatepass")) == replaced(value, path):
        assert spliced == body or b"new/" in spliced
