"""The types of requests to the OpenAI surface, as far as it looks at them; what is wrong is named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from headgate.emulator.errors import Refused
from headgate.emulator.openai_errors import invalid

__all__ = ["check_types", "fields"]

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<place>[^`]*)`)?$", re.DOTALL)
_Object = dict[str, Any]


class _Declared(Struct):
    name: str
    description: str | None = None
    parameters: _Object | None = None
    strict: bool | None = None


class _Tool(Struct):
    type: str
    function: _Declared | None = None


class _Named(Struct):
    name: str


class _ToolChoice(Struct):
    type: str
    function: _Named


class _JsonSchema(Struct):
    name: str | None = None
    schema: _Object | None = None
    strict: bool | None = None


class _Format(Struct):
    type: str
    json_schema: _JsonSchema | None = None


class _Image(Struct):
    url: str
    detail: str | None = None


class _Piece(Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _Image | None = None
    input_audio: _Object | None = None
    file: _Object | None = None


class _Called(Struct):
    name: str
    arguments: str


class _Call(Struct):
    id: str
    type: str = "function"
    function: _Called | None = None


class _Message(Struct):
    role: str
    content: str | list[_Piece] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: _Object | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Chat(Struct):
    messages: list[_Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    seed: int | None = None
    modalities: list[str] | None = None
    audio: _Object | None = None
    prediction: _Object | None = None
    web_search_options: _Object | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: _Object | None = None
    moderation: _Object | None = None
    safety_identifier: str | None = None
    user: str | None = None
    functions: list[_Declared] | None = None
    function_call: str | _Object | None = None


class _Embedding(Struct):
    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None


_TYPES: Mapping[str, type[Struct]] = {"chat": _Chat, "embedding": _Embedding}


def fields(kind: str) -> frozenset[str]:
    """The names that a request may have."""
    return frozenset(_TYPES[kind].__struct_fields__)


def check_types(request: Mapping[str, Any], kind: str) -> None:
    """Raise `Refused` for an unknown field and for a value of a wrong type, with its place.

    Args:
        kind: `chat` or `embedding`.
    """
    for name in request:
        if name not in fields(kind):
            text = f"Unrecognized request argument supplied: {name}"
            raise Refused(invalid(text, code="unknown_parameter"))
    try:
        msgspec.convert(request, _TYPES[kind])
    except msgspec.ValidationError as error:
        found = _PLACE.match(str(error))
        what, place = (found["what"], found["place"]) if found else (str(error), None)
        text = f"Invalid type for '{place or 'body'}': {what}."
        raise Refused(invalid(text, place or None, "invalid_type")) from None
