"""Answers to messages: what is said, what it cost, whole or as the events of a stream."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headgate.emulator import prose, structure, tokens
from headgate.emulator.anthropic_catalogue import ClaudeModel
from headgate.emulator.anthropic_prompt import Spent
from headgate.emulator.chance import Chance, fingerprint, seeded

__all__ = ["Question", "compose", "events", "identity"]

_WORDS_A_PIECE = 7
_CHARACTERS_A_PIECE = 12
_SPLIT = re.compile(r"\s*\S+")
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789"


@dataclass(frozen=True)
class Question:
    """A request that is in order, as the composer needs it."""

    body: Mapping[str, Any]
    model: ClaudeModel
    seed: int
    spent: Spent
    serial: int  # of the request: what is said depends on the request only, its ids do not

    @property
    def text(self) -> str:
        """The text of the last message of the user that has any."""
        for message in reversed(self.body["messages"]):
            content = message.get("content")
            texts = [content] if isinstance(content, str) else _texts(content or ())
            if texts and message.get("role") == "user":
                return "\n".join(texts)
        return ""

    def chance(self, *labels: str) -> Chance:
        """Chance that depends on the seed, the model and the request, so that it can be repeated."""
        said = {name: value for name, value in self.body.items() if name != "stream"}
        return seeded(self.seed, self.model.id, json.dumps(said, sort_keys=True), *labels)


def identity(prefix: str, seed: int, serial: int) -> str:
    """An id such as `msg_01…`, another for every serial."""
    chance = seeded(seed, prefix, str(serial))
    return f"{prefix}_01{''.join(chance.choice(_LETTERS) for _ in range(22))}"


def compose(question: Question) -> dict[str, Any]:
    """The whole message."""
    chance = question.chance("answer")
    content: list[dict[str, Any]] = []
    tool = _tool(question, chance)
    stop, sequence = ("tool_use", None) if tool else ("end_turn", None)
    if tool is not None:
        content.append(_call(question, tool, chance))
    else:
        text, stop, sequence = _ended(question, _said(question, chance))
        content.append({"type": "text", "text": text, "citations": None})
    visible = sum(_cost(block) for block in content)
    thinking = _thoughts(question, chance, visible)
    if thinking is not None:
        content.insert(0, thinking[0])
    usage = {
        **question.spent.usage(),
        "output_tokens": visible + (thinking[1] if thinking else 0),
        "output_tokens_details": {"thinking_tokens": thinking[1] if thinking else 0},
        "service_tier": "standard",
        "inference_geo": "global",
    }
    return {
        "model": question.model.id,
        "id": identity("msg", question.seed, question.serial),
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": sequence,
        "usage": usage,
    }


def events(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same message as the events of a stream."""
    first = {name: value for name, value in message["usage"].items() if "details" not in name}
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    made: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**start, "usage": {**first, "output_tokens": 1}}}
    ]
    for index, block in enumerate(message["content"]):
        made.append({"type": "content_block_start", "index": index, "content_block": _emptied(block)})
        if index == 0:
            made.append({"type": "ping"})
        made += [
            {"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(block)
        ]
        made.append({"type": "content_block_stop", "index": index})
    delta = {
        name: message[name]
        for name in ("stop_reason", "stop_sequence", "stop_details")
        if name in message
    }
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    last = {name: message["usage"][name] for name in (*names, "output_tokens_details")}
    made.append({"type": "message_delta", "delta": delta, "usage": last})
    return [*made, {"type": "message_stop"}]


# ── what is said ─────────────────────────────────────────────────────────────


def _said(question: Question, chance: Chance) -> str:
    wanted = (question.body.get("output_config") or {}).get("format") or {}
    if wanted.get("type") == "json_schema" and isinstance(wanted.get("schema"), Mapping):
        value = structure.value_for(wanted["schema"], prose.key_words(question.text), chance)
        return json.dumps(value, ensure_ascii=False)
    return prose.answer(question.text, chance)


def _ended(question: Question, text: str) -> tuple[str, str, str | None]:
    """The text as far as it goes, why it stops there, at which sequence."""
    reason, sequence = "end_turn", None
    for stop in question.body.get("stop_sequences") or ():
        if stop in text:
            text, reason, sequence = text[: text.index(stop)], "stop_sequence", stop
    left, kept = int(question.body["max_tokens"]), ""
    for piece in _SPLIT.findall(text):
        left -= tokens.of_text(piece)
        if left < 0:
            return kept, "max_tokens", None
        kept += piece
    return text, reason, sequence


def _tool(question: Question, chance: Chance) -> Mapping[str, Any] | None:
    """The tool to call, if this turn is to be a call."""
    tools = [t for t in question.body.get("tools") or () if t.get("type", "custom") == "custom"]
    choice = question.body.get("tool_choice") or {}
    wanted = choice.get("name") or prose.markers(question.text).call
    named: Mapping[str, Any] | None = next((t for t in tools if t["name"] == wanted), None)
    if not tools or choice.get("type") == "none":
        return None
    if choice.get("type") == "any":
        return named if named is not None else dict(chance.choice(tools))
    content = question.body["messages"][-1].get("content")
    answered = isinstance(content, list) and any(b["type"] == "tool_result" for b in content)
    return None if answered and choice.get("type") != "tool" else named


def _call(question: Question, tool: Mapping[str, Any], chance: Chance) -> dict[str, Any]:
    words = prose.key_words(question.text)
    return {
        "type": "tool_use",
        "id": identity("toolu", question.seed, question.serial),
        "name": tool["name"],
        "input": structure.value_for(tool["input_schema"], words, chance),
    }


def _thoughts(question: Question, chance: Chance, visible: int) -> tuple[dict[str, Any], int] | None:
    thinking = question.body.get("thinking") or {}
    if thinking.get("type") not in ("enabled", "adaptive"):
        return None
    text = prose.thoughts(question.text, chance)
    count = tokens.of_text(text) + int(visible * chance.uniform(0.5, 4.0))
    proof = fingerprint(question.model.id, text, str(question.serial)) * 3
    signature = base64.b64encode(proof).decode()
    block = {"type": "thinking", "thinking": text, "signature": signature}
    left = max(0, question.body["max_tokens"] - visible)  # it bounds thoughts and answer together
    return block, min(count, thinking.get("budget_tokens") or count, left)


def _texts(content: Any) -> list[str]:
    return [block["text"] for block in content if block.get("type") == "text"]


def _cost(block: Mapping[str, Any]) -> int:
    if block["type"] == "text":
        return max(1, tokens.of_text(block["text"]))
    return tokens.of_text(block["name"]) + tokens.of_text(json.dumps(block["input"]))


# ── pieces ───────────────────────────────────────────────────────────────────


def _emptied(block: Mapping[str, Any]) -> dict[str, Any]:
    match block["type"]:
        case "text":
            return {"type": "text", "text": ""}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
    return {**block, "input": {}}


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    match block["type"]:
        case "text":
            for piece in _pieces(block["text"]):
                yield {"type": "text_delta", "text": piece}
        case "thinking":
            for piece in _pieces(block["thinking"]):
                yield {"type": "thinking_delta", "thinking": piece}
            yield {"type": "signature_delta", "signature": block["signature"]}
        case _:
            text = json.dumps(block["input"])
            yield {"type": "input_json_delta", "partial_json": ""}
            for at in range(0, len(text), _CHARACTERS_A_PIECE):
                piece = text[at : at + _CHARACTERS_A_PIECE]
                yield {"type": "input_json_delta", "partial_json": piece}


def _pieces(text: str) -> list[str]:
    words = _SPLIT.findall(text)
    if words:
        words[-1] += text[sum(map(len, words)) :]  # blanks at the end belong to it
    size = _WORDS_A_PIECE
    return ["".join(words[at : at + size]) for at in range(0, len(words), size)]
