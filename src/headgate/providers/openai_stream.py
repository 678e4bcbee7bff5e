"""A streamed chat completion, event by event: text as it comes, each message whole when it is complete.

    (delta of a choice)* → finish_reason of each choice → usage, with no choices → [DONE]

Usage comes where it was asked for, [DONE] from most upstreams: a stream that said why it stopped is
whole without either. Nothing is handed on before the model has said something: an error until then may
be tried elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from headgate.core.call import Chunk, Usage
from headgate.core.outcome import Outcome
from headgate.core.ports import Event
from headgate.providers.openai_replies import is_given, no_answer, withheld
from headgate.providers.openai_usage import read_usage

__all__ = ["DONE", "Reading"]

DONE = b"[DONE]"
"""The data of the last event."""


class _Choice(Struct):
    index: int | None = None
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None


class _Piece(Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_DECODE = msgspec.json.Decoder(_Piece, strict=False)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Reading:
    """What has been read of one stream.

    Attributes:
        usage: tokens used so far, as far as they are known; None where none was named.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._done = False
        self._model = ""
        self._messages: dict[int, _Message] = {}

    @property
    def stopped(self) -> bool:
        """Whether the upstream said that it was done: by its last word, or for each choice."""
        messages = self._messages.values()
        return self._done or (bool(messages) and all(message.finished for message in messages))

    def take(self, event: Event) -> Iterator[Chunk | Outcome]:
        """What follows from an event; an outcome is the last there is."""
        data = event.data.strip()
        if self._done or not data:
            return
        if data == DONE:
            self._done = True
            return
        try:
            piece = _DECODE.decode(data)
        except _UNREADABLE:
            yield self._broken(data)
            return
        if is_given(piece.error) or not event.framed:
            yield self._broken(data)
            return
        self._model = piece.model or self._model
        used = read_usage(piece.usage)
        self.usage = used or self.usage
        said = False
        for choice in piece.choices or ():
            for item in self._choice(choice):
                said = True
                yield item
        if used is not None and not said and self.stopped:
            yield self._chunk()

    def _choice(self, choice: _Choice) -> Iterator[Chunk | Outcome]:
        index = choice.index or 0
        message = self._messages.setdefault(index, _Message())
        if choice.delta:
            text = message.add(choice.delta)
            if text and not index:
                yield self._chunk(text)
        if choice.finish_reason and not message.finished:
            message.finished = True
            whole = message.whole()
            refused = withheld(choice.finish_reason, whole, self.usage or Usage())
            finish = None if index else choice.finish_reason
            yield refused or self._chunk(content=(whole,), finish=finish)

    def _chunk(
        self, text: str = "", *, content: tuple[dict[str, Any], ...] = (), finish: str | None = None
    ) -> Chunk:
        return Chunk(text, (), finish, self.usage, self._model, content)

    def _broken(self, data: bytes) -> Outcome:
        return structs.replace(no_answer(data), usage=self.usage)


class _Message:
    """One message out of its deltas: texts and calls of tools grow, the rest is set."""

    def __init__(self) -> None:
        self.finished = False
        self._texts: dict[str, list[str]] = {}
        self._rest: dict[str, Any] = {}
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, delta: Mapping[str, Any]) -> str:
        """Take a delta; the visible text in it."""
        for name, value in delta.items():
            if name == "tool_calls":
                self._add_calls(value)
            elif name == "function_call" and isinstance(value, Mapping):
                self._rest[name] = _grown(self._rest.get(name, {}), value)
            elif isinstance(value, str) and name != "role":
                self._texts.setdefault(name, []).append(value)
            elif value is not None:
                self._rest[name] = value
        text = delta.get("content")
        return text if isinstance(text, str) else ""

    def _add_calls(self, pieces: object) -> None:
        if not isinstance(pieces, list):
            return
        for position, piece in enumerate(pieces):
            if isinstance(piece, Mapping):
                number = piece.get("index")
                # Gemini's compatible endpoint leaves the index out, and sends each call whole.
                at = number if isinstance(number, int) else len(self._calls) + position
                self._calls[at] = _grown(self._calls.get(at, {}), piece)

    def whole(self) -> dict[str, Any]:
        """The message, as a whole answer would hold it."""
        made: dict[str, Any] = {"role": "assistant", **self._rest, "content": None}
        made |= {name: "".join(texts) for name, texts in self._texts.items()}
        if self._calls:
            calls = [self._calls[index] for index in sorted(self._calls)]
            made["tool_calls"] = [{n: v for n, v in c.items() if n != "index"} for c in calls]
        return made


def _grown(held: Mapping[str, Any], piece: Mapping[str, Any]) -> dict[str, Any]:
    """A call of a tool with one piece more: its arguments grow, names and ids come once."""
    made = dict(held)
    for name, value in piece.items():
        if isinstance(value, Mapping):
            inner = made.get(name)
            made[name] = _grown(inner if isinstance(inner, Mapping) else {}, value)
        elif name == "arguments" and isinstance(value, str):
            made[name] = f"{made.get(name) or ''}{value}"
        elif value is not None and (value or name not in made):
            made[name] = value
    return made
