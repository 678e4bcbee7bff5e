"""Reading and judging requests to the Anthropic surface, with the real API's kind of complaint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from headgate.emulator import structure
from headgate.emulator.anthropic_catalogue import ClaudeModel
from headgate.emulator.anthropic_errors import invalid, known
from headgate.emulator.errors import Refused

__all__ = ["VERSIONS", "body", "check_message", "check_version"]

OLD, NEW = VERSIONS = ("2023-06-01", "2026-10-21")

_LARGEST = 32 * 1024 * 1024
_SAMPLING = ("temperature", "top_p", "top_k")
_FIELDS = frozenset(
    (
        "model", "messages", "max_tokens", "system", "tools", "tool_choice", "stop_sequences", "stream",
        "thinking", "output_config", "metadata", "cache_control", "container", "context_management",
        "mcp_servers", "service_tier", "inference_geo", "speed", "diagnostics", "fallbacks",
        *_SAMPLING,
    )
)  # fmt: skip
_CITED = ("text", "search_result")


async def body(request: web.BaseRequest) -> dict[str, Any]:
    """The request's JSON. Raises `Refused`."""
    raw = bytearray()
    async for piece in request.content.iter_any():
        raw += piece
        if len(raw) > _LARGEST:
            raise Refused(known("claude-413-too-large", {}, "payload_size"))
    try:
        given = msgspec.json.decode(bytes(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"The request body is not valid JSON: {error}"
        raise Refused(invalid(text, "invalid_json")) from None
    if not isinstance(given, dict):
        raise Refused(invalid("The request body is not a JSON object", "invalid_json"))
    return given


def check_version(headers: Mapping[str, str]) -> str:
    """The version a request asks for. Raises `Refused`."""
    version = headers.get("anthropic-version", "")
    if not version:
        raise Refused(invalid("anthropic-version: header is required", "version"))
    if version not in VERSIONS:
        raise Refused(invalid(f'anthropic-version: "{version}" is not a valid version', "version"))
    return version


def check_message(
    request: Mapping[str, Any], model: ClaudeModel, version: str, *, counts: bool
) -> None:
    """What messages and count_tokens refuse. Raises `Refused`.

    Args:
        counts: whether it is only to be counted.
    """
    for name in request:
        if name not in _FIELDS:
            raise Refused(invalid(f"{name}: Extra inputs are not permitted"))
    if not counts:
        _check_length(request, model)
        _check_thinking(request)
    _check_sampling(request, version)
    messages = request.get("messages")
    if not isinstance(messages, list):
        raise Refused(invalid("messages: Field required"))
    if not messages:
        raise Refused(invalid("messages: at least one message is required"))
    for index, message in enumerate(messages):
        _check_turn(message, f"messages.{index}", version, last=index == len(messages) - 1)
    _check_results(messages)
    for index, tool in enumerate(request.get("tools") or ()):
        _check_tool(tool, f"tools.{index}")


def _check_length(request: Mapping[str, Any], model: ClaudeModel) -> None:
    wanted = request.get("max_tokens")
    if wanted is None:
        raise Refused(invalid("max_tokens: Field required"))
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise Refused(invalid("max_tokens: Input should be greater than or equal to 1"))
    if wanted > model.output_tokens:
        most = f"the maximum allowed number of output tokens for {model.id}"
        raise Refused(invalid(f"max_tokens: {wanted} > {model.output_tokens}, which is {most}"))


def _check_thinking(request: Mapping[str, Any]) -> None:
    thinking = request.get("thinking") or {}
    if thinking.get("type") != "enabled":
        return
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < 1024:
        where = "thinking.enabled.budget_tokens"
        raise Refused(invalid(f"{where}: Input should be greater than or equal to 1024"))
    if budget >= request["max_tokens"]:
        raise Refused(invalid("`max_tokens` must be greater than `thinking.budget_tokens`."))


def _check_sampling(request: Mapping[str, Any], version: str) -> None:
    given = [name for name in _SAMPLING if name in request]
    if given and version == NEW:
        raise Refused(invalid(f"{given[0]}: not supported by anthropic-version {NEW}", "sampling"))
    temperature = request.get("temperature")
    if isinstance(temperature, int | float) and not 0 <= temperature <= 1:
        raise Refused(invalid("temperature: range: 0..1"))


def _check_turn(message: Any, where: str, version: str, *, last: bool) -> None:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in ("user", "assistant"):
        text = f'{where}.role: Unexpected role "{role}". Allowed roles are "user" or "assistant".'
        raise Refused(invalid(text))
    content = message.get("content")
    if not content and not (last and role == "assistant"):
        text = (
            "all messages must have non-empty content except for the optional final assistant message"
        )
        raise Refused(invalid(f"{where}: {text}"))
    if isinstance(content, str):
        return
    for index, block in enumerate(content or ()):
        place = f"{where}.content.{index}"
        if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
            raise Refused(invalid(f"{place}.type: Field required"))
        if block["type"] == "text" and not block.get("text"):
            raise Refused(invalid("messages: text content blocks must be non-empty"))
        if version == NEW:
            _check_new_rules(block, role, place)


def _check_new_rules(block: Mapping[str, Any], role: str, place: str) -> None:
    if role == "assistant" and block["type"] == "document":
        raise Refused(invalid(f"{place}: document blocks are not permitted in assistant messages"))
    if role == "user" and block["type"] in _CITED and block.get("citations"):
        raise Refused(invalid(f"{place}.citations: must be empty on {block['type']} blocks"))


def _check_results(messages: list[Mapping[str, Any]]) -> None:
    """Every tool_result answers a tool_use of the message before it."""
    asked: set[str] = set()
    for index, message in enumerate(messages):
        blocks = message.get("content") if isinstance(message.get("content"), list) else []
        for place, block in enumerate(blocks or ()):
            if block["type"] == "tool_result" and block.get("tool_use_id") not in asked:
                text = (
                    f"messages.{index}.content.{place}: unexpected `tool_use_id` found in "
                    f"`tool_result` blocks: {block.get('tool_use_id')}. Each `tool_result` block must "
                    "have a corresponding `tool_use` block in the previous message."
                )
                raise Refused(invalid(text))
        asked = {block.get("id", "") for block in blocks or () if block["type"] == "tool_use"}


def _check_tool(tool: Any, where: str) -> None:
    if not isinstance(tool, Mapping):
        raise Refused(invalid(f"{where}: Input should be a valid dictionary"))
    if tool.get("type", "custom") != "custom":
        return  # of the server's side: accepted, never called
    if not tool.get("name"):
        raise Refused(invalid(f"{where}.custom.name: Field required"))
    if not structure.is_usable(tool.get("input_schema")):
        raise Refused(invalid(f"{where}.custom.input_schema: JSON schema is invalid"))
