"""What a caller may pass as a prompt and as options, made into the engine's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headgate.core.call import Blob, Part
from headgate.core.errors import InvalidCallError
from headgate.providers.anthropic import MESSAGE_OPTIONS
from headgate.wiring.calls import unknown_option

__all__ = ["Message", "Prompt", "conversation", "message_options"]

Message = Mapping[str, object]
"""A message as the API takes it: `role` and `content`."""

Prompt = str | Blob | Sequence[str | Blob] | Sequence[Message]
"""Text, text and media in order, or a conversation."""

_OWN_OPTIONS = ("betas", "extra_body")


def conversation(prompt: Prompt) -> tuple[tuple[Part, ...], tuple[Message, ...]]:
    """The parts of a prompt, or the messages of a conversation; the other is empty."""
    if isinstance(prompt, Mapping):
        raise TypeError("a single message is passed in a list: [{'role': …, 'content': …}]")
    pieces: list[object] = [prompt] if isinstance(prompt, str | Blob) else list(prompt)
    messages = tuple(piece for piece in pieces if isinstance(piece, Mapping))
    parts = tuple(piece for piece in pieces if isinstance(piece, str | Blob))
    if len(messages) + len(parts) != len(pieces) or (messages and parts):
        raise TypeError("a prompt takes text and Blobs, or else messages with role and content")
    for message in messages:
        if not {"role", "content"} <= set(message):
            raise InvalidCallError("Each message needs a role and a content.")
    return tuple(part for part in parts if part), messages


def message_options(given: Mapping[str, object], max_tokens: int) -> dict[str, object]:
    """The options of a call. Raises `TypeError` for one nobody knows."""
    options: dict[str, object] = {"max_tokens": max_tokens}
    for name, value in given.items():
        if name not in MESSAGE_OPTIONS and name not in _OWN_OPTIONS:
            raise unknown_option(name, (*MESSAGE_OPTIONS, *_OWN_OPTIONS))
        if name == "extra_body" and not isinstance(value, Mapping | None):
            raise TypeError(f"extra_body takes a mapping; got {type(value).__name__}")
        if value is not None:
            options[name] = value
    return options
