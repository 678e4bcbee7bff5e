"""What a call needs of a model, in the accepted words of capabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headgate.core.call import Blob, Call

__all__ = ["SWITCHED", "needs"]

SWITCHED: Mapping[str, str] = {
    "temperature": "supports_temperature",
    "top_k": "supports_top_k",
    "top_p": "supports_top_p",
    "stop_sequences": "supports_stop_sequences",
}
"""Options that are sent only to models whose card does not deny them."""


def needs(call: Call) -> list[str]:
    """The words of `CAPABILITY_WORDS` that a model must have to answer a call."""
    asked = call.options
    words = ["text"]
    for parts in (call.parts, *[turn.parts for turn in call.turns]):
        if any(isinstance(part, Blob) and part.mime_type.startswith("image/") for part in parts):
            words.append("image")
            break
    if "tools" in asked and any("functionDeclarations" in tool for tool in _tools(asked)):
        words.append("function_calling")
    if asked.get("response_mime_type") == "application/json":
        words.append("json_mode")
    if "system_instruction" in asked:
        words.append("system_instructions")
    return words


def _tools(options: Mapping[str, object]) -> list[Mapping[str, object]]:
    tools = options.get("tools")
    found: Sequence[object] = tools if isinstance(tools, list | tuple) else ()
    return [tool for tool in found if isinstance(tool, Mapping)]
