"""What has no JSON form is refused by name before anything is sent."""

from __future__ import annotations

import json
import math
import random
from base64 import b64encode

import pytest

from headgate.core.errors import InvalidCallError
from headgate.providers.json_body import Media, json_body


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


@pytest.mark.parametrize("size", [0, 1, 2, 3, 196_607, 196_608, 196_609, 1_000_000])
def test_media_are_written_as_base64_whatever_their_size(size: int) -> None:
    data = random.Random(size).randbytes(size)  # noqa: TID251 - of a fixed seed
    written = json.loads(json_body({"a": "x", "b": [Media(data), {"c": Media(b"ok")}], "d": None}))
    assert written == {"a": "x", "b": [b64encode(data).decode(), {"c": "b2s="}], "d": None}


def test_a_prompt_cannot_take_the_place_of_media() -> None:
    """What holds media open in a body is a byte that no JSON string may hold."""
    prompt = '\0 "\0" \\u0000 data:'
    body = {prompt: prompt, "image": Media(b"image", 'data:image/"\0;base64,')}
    assert json.loads(json_body(body)) == {
        prompt: prompt,
        "image": 'data:image/"\0;base64,' + b64encode(b"image").decode(),
    }


def test_media_are_written_in_slices_between_which_other_threads_may_run() -> None:
    """One call of `b64encode` would hold the interpreter, and the event loop, as long as it takes."""
    longest = max(len(piece) for piece in Media(bytes(10_000_000)).written())
    assert longest <= 262_144
