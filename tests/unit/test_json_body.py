"""What has no JSON form is refused by name before anything is sent."""

from __future__ import annotations

import json
import math

import pytest

from headgate.core.errors import InvalidCallError
from headgate.providers.json_body import json_body


def test_a_body_is_written_compactly_and_none_stays_null() -> None:
    assert json.loads(json_body({"a": None, "b": [1.5, {"c": "null"}]})) == {
        "a": None,
        "b": [1.5, {"c": "null"}],
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("place", "nested"),
    [
        ("temperature", lambda n: {"temperature": n}),
        ("generationConfig.topP", lambda n: {"generationConfig": {"topP": n}}),
        ("tools[1].limits[0]", lambda n: {"tools": [{}, {"limits": (n, 1)}]}),
    ],
)
def test_a_number_that_is_none_is_refused_with_its_place(number: float, place: str, nested) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidCallError) as caught:
        json_body(nested(number))
    assert caught.value.message == f"{place} is not a finite number; JSON has no form for it."


@pytest.mark.parametrize("value", [object(), "\ud800", {1: object()}])
def test_what_cannot_be_written_is_said(value: object) -> None:
    with pytest.raises(InvalidCallError, match="cannot be written as JSON"):
        json_body({"x": value})
