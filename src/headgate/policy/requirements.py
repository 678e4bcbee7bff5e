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
    media = [part for part in call.parts if isinstance(part, Blob)]
    media += [part for turn in call.turns for part in turn.parts if isinstance(part, Blob)]
    asked = call.options
    wanted = {
        "text": True,
        "image": any(blob.mime_type.startswith("image/") for blob in media),
        "function_calling": any("functionDeclarations" in tool for tool in _tools(asked)),
        "json_mode": asked.get("response_mime_type") == "application/json",
        "system_instructions": "system_instruction" in asked,
    }
    return [word for word, wants in wanted.items() if wants]


def _tools(options: Mapping[str, object]) -> list[Mapping[str, object]]:
    tools = options.get("tools")
    found: Sequence[object] = tools if isinstance(tools, list | tuple) else ()
    return [tool for tool in found if isinstance(tool, Mapping)]
