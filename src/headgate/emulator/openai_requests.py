"""Reading and judging requests to the OpenAI surface, with the real API's kind of complaint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from headgate.emulator import structure, tokens
from headgate.emulator.errors import Refused
from headgate.emulator.openai_catalogue import OpenAIModel
from headgate.emulator.openai_errors import invalid, known
from headgate.emulator.openai_schema import check_types

__all__ = ["body", "bound", "check_chat", "check_embedding", "prompt_tokens", "texts"]

_LARGEST = 32 * 1024 * 1024
_IMAGE_TOKENS = 765
_FILE_TOKENS = 2_000
_MOST_TEXTS = 2_048
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")


async def body(request: web.BaseRequest) -> dict[str, Any]:
    """The request's JSON. Raises `Refused`."""
    raw = bytearray()
    async for piece in request.content.iter_any():
        raw += piece
        if len(raw) > _LARGEST:
            raise Refused(known("openai-413-too-large", {}, "payload_size"))
    try:
        given = msgspec.json.decode(bytes(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = "We could not parse the JSON body of your request."
        raise Refused(invalid(text, reason="invalid_json")) from None
    if not isinstance(given, dict):
        text = "We expect the body of your request to be a JSON object."
        raise Refused(invalid(text, reason="invalid_json"))
    return given


# ── chat ─────────────────────────────────────────────────────────────────────


def check_chat(request: Mapping[str, Any], model: OpenAIModel) -> None:
    """What chat completions refuse. Raises `Refused`."""
    check_types(request, "chat")
    if model.kind != "chat":
        raise Refused(invalid("This is not a chat model.", "model", "model_not_supported"))
    messages = request["messages"]
    if not messages:
        text = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise Refused(invalid(text, "messages", "empty_array"))
    for index, message in enumerate(messages):
        _check_message(message, f"messages.[{index}]")
    _check_results(messages)
    _check_bounds(request, model)
    _check_numbers(request)
    for index, tool in enumerate(request.get("tools") or ()):
        _check_tool(tool, f"tools[{index}]")
    _check_format(request.get("response_format"))
    if request.get("stream_options") is not None and not request.get("stream"):
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise Refused(invalid(text, "stream_options"))


def _check_message(message: Mapping[str, Any], where: str) -> None:
    role = message["role"]
    if role not in _ROLES:
        text = f"Invalid value: '{role}'. Supported values are: {', '.join(map(repr, _ROLES))}."
        raise Refused(invalid(text, f"{where}.role", "invalid_value"))
    content = message.get("content")
    if content is None and role != "assistant":
        text = f"Invalid value for 'content': expected a string, got null ({where})."
        raise Refused(invalid(text, f"{where}.content"))
    if isinstance(content, str | None):
        return
    for index, piece in enumerate(content):
        place = f"{where}.content.[{index}]"
        if piece["type"] == "text" and piece.get("text") is None:
            raise Refused(invalid("Missing required parameter: 'text'.", f"{place}.text"))
        if piece["type"] == "image_url":
            _check_image(piece.get("image_url") or {}, place)


def _check_image(image: Mapping[str, Any], where: str) -> None:
    if not image.get("url", "").startswith(("data:image/", "https://", "http://")):
        text = "Invalid image data: expected a URL or a data URL of an image."
        raise Refused(invalid(text, f"{where}.image_url.url", "invalid_image_url"))


def _check_results(messages: list[Any]) -> None:
    """Every result answers a call of the assistant's message before it."""
    asked: set[Any] = set()
    for message in messages:
        if message["role"] == "assistant":
            asked = {call["id"] for call in message.get("tool_calls") or ()}
        elif message["role"] == "tool" and message.get("tool_call_id") not in asked:
            text = (
                "Invalid parameter: messages with role 'tool' must be a response to a preceding "
                "message with 'tool_calls'."
            )
            raise Refused(invalid(text, "messages"))


def _check_bounds(request: Mapping[str, Any], model: OpenAIModel) -> None:
    if model.reasons and request.get("max_tokens") is not None:
        text = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead."
        )
        raise Refused(invalid(text, "max_tokens", "unsupported_parameter"))
    for name in ("max_tokens", "max_completion_tokens"):
        wanted = request.get(name)
        if wanted is None:
            continue
        if wanted < 1:
            text = f"Invalid '{name}': integer below minimum value. Expected a value >= 1."
            raise Refused(invalid(text, name, "integer_below_min_value"))
        if wanted > model.output_tokens:
            text = (
                f"{name} is too large: {wanted}. This model supports at most {model.output_tokens} "
                "completion tokens."
            )
            raise Refused(invalid(text, name))


def _check_numbers(request: Mapping[str, Any]) -> None:
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("n", 1, 128)):
        value = request.get(name)
        if value is None:
            continue
        if not low <= value <= high:
            text = f"Invalid '{name}': expected a value between {low} and {high}."
            raise Refused(invalid(text, name, "invalid_value"))


def _check_tool(tool: Mapping[str, Any], where: str) -> None:
    function = tool.get("function")
    if function is None:
        raise Refused(invalid(f"Missing required parameter: '{where}.function'.", where))
    schema = function.get("parameters")
    if schema is not None and not structure.is_usable(schema):
        text = f"Invalid schema for function '{function['name']}': it cannot be met."
        raise Refused(invalid(text, f"{where}.function.parameters", "invalid_function_parameters"))


def _check_format(form: Mapping[str, Any] | None) -> None:
    if form is None:
        return
    kind = form["type"]
    if kind not in ("text", "json_object", "json_schema"):
        text = (
            f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        )
        raise Refused(invalid(text, "response_format.type", "invalid_value"))
    if kind == "json_schema":
        wanted = form.get("json_schema") or {}
        if not wanted.get("name") or not structure.is_usable(wanted.get("schema") or {}):
            text = "Invalid schema for response_format."
            raise Refused(invalid(text, "response_format", "invalid_json_schema"))


# ── embeddings ───────────────────────────────────────────────────────────────


def check_embedding(request: Mapping[str, Any], model: OpenAIModel) -> None:
    """What embeddings refuse. Raises `Refused`."""
    check_types(request, "embedding")
    if model.kind != "embedding":
        text = f"{model.id} makes no embeddings."
        raise Refused(invalid(text, "model", "model_not_supported"))
    given = texts(request)
    if not given or len(given) > _MOST_TEXTS or not all(given):
        raise Refused(invalid("'$.input' is invalid. Please check the API reference.", "input"))
    form = request.get("encoding_format")
    if form not in (None, "float", "base64"):
        text = f"'{form}' is not one of ['float', 'base64'] - 'encoding_format'"
        raise Refused(invalid(text, "encoding_format"))
    wanted = request.get("dimensions")
    if wanted is not None and not 1 <= wanted <= model.dimensions:
        raise Refused(invalid(f"Invalid value for 'dimensions' = {wanted}.", "dimensions"))
    longest = max(map(tokens.of_text, given))
    if longest > model.context:
        values = {"context": str(model.context), "tokens": str(longest)}
        raise Refused(known("openai-400-context", values, "too_many_tokens"))


def texts(request: Mapping[str, Any]) -> list[str]:
    """The texts to embed; arrays of tokens stand for a text each."""
    given = request["input"]
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]
    return [item if isinstance(item, str) else _of_tokens(item) for item in given]


def _of_tokens(item: int | list[int]) -> str:
    return " ".join(map(str, item)) if isinstance(item, list) else str(item)


# ── sizes ────────────────────────────────────────────────────────────────────


def bound(request: Mapping[str, Any]) -> int | None:
    """The longest answer a request asks for, all its choices together."""
    given = request.get("max_completion_tokens") or request.get("max_tokens")
    return None if given is None else int(given) * int(request.get("n") or 1)


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """Tokens of a chat request: every message, its tools, and the schema of its answer."""
    total = 0
    for message in request.get("messages") or ():
        total += 1 + _of_content(message.get("content"))
        rest = {n: v for n, v in message.items() if n not in ("role", "content") and v is not None}
        total += tokens.of_text(_compact(rest)) if rest else 0
    for name in ("tools", "functions", "response_format"):
        if value := request.get(name):
            total += tokens.of_text(_compact(value))
    return total


def _of_content(content: Any) -> int:
    if isinstance(content, str):
        return tokens.of_text(content)
    total = 0
    for piece in content or ():
        match piece.get("type"):
            case "text":
                total += tokens.of_text(str(piece.get("text", "")))
            case "image_url":
                total += _IMAGE_TOKENS
            case "input_audio" | "file":
                total += _FILE_TOKENS
            case _:
                total += tokens.of_text(_compact(piece))
    return total


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
