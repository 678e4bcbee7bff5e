"""A streamed message, event by event: text as it comes, blocks as they are complete.

    message_start → (content_block_start → content_block_delta* → content_block_stop)*
    → message_delta → message_stop          ping, error and what is not known here: anywhere

Nothing is handed on before the model has said something: an error until then may be tried elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from headgate.core.call import Chunk, Usage
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Event
from headgate.providers import anthropic_errors
from headgate.providers.anthropic_usage import WireUsage, as_usage, merged

__all__ = ["Reading", "no_answer", "refusal"]


class _Start(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: WireUsage | None = None


class _WireEvent(msgspec.Struct):
    type: str | None = None
    index: int | None = None
    message: _Start | None = None
    content_block: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None
    usage: WireUsage | None = None
    error: msgspec.Raw | None = None


_DECODE_EVENT = msgspec.json.Decoder(_WireEvent, strict=False)

# Where the pieces of a delta go: delta type → (its field, the block's field).
_TEXTS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
}


class Reading:
    """What has been read of one stream.

    Attributes:
        stopped: whether the upstream said that it was done.
        usage: tokens used so far, as far as is known.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.usage = Usage()
        self._wire = WireUsage()
        self._model = ""
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}

    def take(self, event: Event) -> Iterator[Chunk | Outcome]:
        """What follows from an event; an outcome is the last there is."""
        if event.is_filler or event.data == b"[DONE]" or self.stopped:
            return  # not Anthropic's, but proxies add it after the end
        try:
            read = _DECODE_EVENT.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield self._broken(event.data)
            return
        if read.type == "error" or read.error or not event.framed:
            yield self._broken(event.data)
            return
        yield from self._event(read)

    def _event(self, event: _WireEvent) -> Iterator[Chunk | Outcome]:
        match event.type:
            case "message_start":
                start = event.message or _Start()
                self._model = start.model or ""
                self._count(start.usage)
            case "content_block_start":
                yield from self._begin(event)
            case "content_block_delta":
                yield from self._grow(event)
            case "content_block_stop":
                yield from self._complete(event)
            case "message_delta":
                yield from self._end(event)
            case "message_stop":
                self.stopped = True

    def _begin(self, event: _WireEvent) -> Iterator[Chunk]:
        block = event.content_block or {}
        self._blocks[event.index or 0] = block
        if block.get("type") == "text" and isinstance(text := block.get("text"), str) and text:
            yield self._chunk(text)

    def _grow(self, event: _WireEvent) -> Iterator[Chunk]:
        block, delta = self._blocks.get(event.index or 0), event.delta or {}
        kind = delta.get("type")
        if block is not None:
            if kind in _TEXTS:
                source, target = _TEXTS[kind]
                block[target] = f"{block.get(target) or ''}{delta.get(source) or ''}"
            elif kind == "input_json_delta":
                pieces = self._inputs.setdefault(event.index or 0, [])
                pieces.append(str(delta.get("partial_json") or ""))
            elif kind == "citations_delta":
                block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
        if kind == "text_delta" and isinstance(text := delta.get("text"), str) and text:
            yield self._chunk(text)

    def _complete(self, event: _WireEvent) -> Iterator[Chunk | Outcome]:
        number = event.index or 0
        block, pieces = self._blocks.pop(number, None), self._inputs.pop(number, None)
        if block is None:
            return
        if pieces is not None and (text := "".join(pieces)):
            try:
                block["input"] = json.loads(text)
            except ValueError:  # cut at max_tokens: what there is of it is kept as text
                block["input"] = text
        yield self._chunk(content=(block,))

    def _end(self, event: _WireEvent) -> Iterator[Chunk | Outcome]:
        self._count(event.usage)
        delta = event.delta or {}
        stop = delta.get("stop_reason")
        refused = refusal(stop, delta.get("stop_details"), self.usage)
        yield refused or self._chunk(finish=stop if isinstance(stop, str) else None)

    def _chunk(
        self, text: str = "", *, content: tuple[dict[str, Any], ...] = (), finish: str | None = None
    ) -> Chunk:
        return Chunk(text, (), finish, self.usage, self._model, content)

    def _count(self, usage: WireUsage | None) -> None:
        self._wire = merged(self._wire, usage)
        self.usage = as_usage(self._wire)

    def _broken(self, data: bytes) -> Outcome:
        return msgspec.structs.replace(no_answer(data), usage=self.usage)


def refusal(stop_reason: object, details: object, usage: Usage) -> Outcome | None:
    """A model's refusal is no answer, whatever stands before it."""
    if stop_reason != "refusal":
        return None
    found = details if isinstance(details, dict) else {}
    why = "; ".join(str(found[name]) for name in ("category", "explanation") if found.get(name))
    said = f"The model refused to answer{f' ({why})' if why else ''}."
    return Outcome(Kind.BLOCKED, said, 200, usage=usage)


def no_answer(body: bytes) -> Outcome:
    """What a 200 means that holds no answer: an error in disguise, or nothing of this API."""
    if (failed := anthropic_errors.classify_body(body)) is not None:
        return failed
    start = " ".join(body[:120].decode("utf-8", "replace").split())
    return Outcome(Kind.PROTOCOL, f"It begins: {start or '(nothing)'}.", 200)
