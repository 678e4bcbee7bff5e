"""What Anthropic's limits count: models by class, prompts whole, cache reads not at all."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from headgate.core.call import Blob, Call, Operation, Usage
from headgate.core.quota import Counts
from headgate.policy.tariff import WholePrompt
from headgate.providers.anthropic_quota import AnthropicTariff, class_of

TARIFF = AnthropicTariff()
CATALOGUE = json.loads(
    files("headgate.emulator").joinpath("data/anthropic-models.json").read_text(encoding="utf-8")
)["models"]


def call(*parts: str | Blob, **options: object) -> Call:
    return Call(Operation.GENERATE, "m", parts, options)


@pytest.mark.parametrize("model", CATALOGUE, ids=lambda model: model["id"])
def test_every_model_of_the_emulator_falls_into_its_class(model: dict[str, object]) -> None:
    """The emulator has its classes as data: it judges the rule."""
    for name in (model["id"], model["model_class"], *model.get("aliases", [])):  # type: ignore[misc]
        assert class_of(str(name)) == model["model_class"]


@pytest.mark.parametrize(
    ("model", "counted"),
    [
        ("claude-opus-7-12-20280101", "claude-opus-7"),
        ("claude-sonnet-4-latest", "claude-sonnet-4"),
        ("claude-3-7-sonnet-20250219", "claude-3-7-sonnet"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("somebody/else", "somebody/else"),
        ("", ""),
    ],
)
def test_a_name_nobody_listed_is_classed_by_its_form(model: str, counted: str) -> None:
    assert class_of(model) == counted


def test_all_that_is_counted_as_input_is_estimated() -> None:
    turns: tuple[dict[str, object], ...] = (
        {"role": "user", "content": "one"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "two", "signature": "UNREAD"},
                {"type": "tool_use", "id": "UNREAD", "name": "three", "input": {"x": "four"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "UNREAD",
                    "content": [{"type": "text", "text": "five"}],
                },
                {"type": "document", "source": {"type": "text", "data": "six"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.test"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
                },
            ],
        },
    )
    options = {
        "system": [{"type": "text", "text": "seven"}],
        "tools": [{"name": "eight", "input_schema": {"type": "object"}}],
    }
    parts = TARIFF.prompt(Call(Operation.GENERATE, "m", (), options, messages=turns))
    said = " ".join(part for part in parts if isinstance(part, str))
    for word in ("one", "two", "three", "four", "five", "six", "seven", "eight"):
        assert word in said
    assert "UNREAD" not in said
    blobs = [part for part in parts if isinstance(part, Blob)]
    assert [(blob.mime_type, len(blob.data)) for blob in blobs] == [
        ("image/*", 0),
        ("application/pdf", 3),
    ]


def test_a_prompt_of_parts_is_counted_with_its_system_text() -> None:
    image = Blob("image/png", b"x")
    assert TARIFF.prompt(call("hi", image, system="Be brief.")) == ("hi", image, "Be brief.")


def test_what_cannot_be_written_is_left_to_whoever_writes_it() -> None:
    assert TARIFF.prompt(call("hi", tools=[{"x": object()}])) == ("hi", "")


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"cache_control": {"type": "ephemeral"}}, ()),
        ({"system": [{"type": "text", "text": "x", "cache_control": {}}]}, ()),
        ({"tools": [{"name": "x", "cache_control": {}}]}, ()),
        ({}, ({"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]},)),
    ],
)
def test_a_breakpoint_anywhere_means_that_a_cache_may_serve(
    options: dict[str, object], messages: tuple[dict[str, object], ...]
) -> None:
    assert TARIFF.cached(Call(Operation.GENERATE, "m", (), options, messages=messages))
    assert not TARIFF.cached(call("hi", system="x"))


def test_reads_from_a_cache_are_free_and_writes_are_not() -> None:
    usage = Usage(prompt=1000, output=50, thoughts=30, cached=700, cache_write=200)
    assert TARIFF.counted(usage) == {Counts.INPUT: 300, Counts.OUTPUT: 80, Counts.TOTAL: 380}
    assert WholePrompt().counted(usage)[Counts.INPUT] == 1000


@pytest.mark.parametrize(("given", "most"), [(5, 5), (0, None), (None, None), ("7", None)])
def test_the_longest_answer_is_what_the_call_says(given: object, most: int | None) -> None:
    assert TARIFF.most_output(call("hi", max_tokens=given)) == most
    assert WholePrompt().most_output(call("hi", max_output_tokens=given)) == most
