"""Answers of the OpenAI surface: what is said, what it cost, whole or as the chunks of a stream."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headgate.emulator import media, prose, structure, tokens
from headgate.emulator.chance import Chance, seeded
from headgate.emulator.openai_catalogue import OpenAIModel

__all__ = ["Question", "chunks", "compose", "embedded", "identity"]

_WORDS_A_PIECE = 7
_CHARACTERS_A_PIECE = 12
_SPLIT = re.compile(r"\s*\S+")
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789"


@dataclass(frozen=True)
class Question:
    """A request that is in order, as the composer needs it."""

    body: Mapping[str, Any]
    model: OpenAIModel
    seed: int
    prompt: int  # tokens of it
    serial: int  # of the request: what is said depends on the request only, its ids do not
    now: float

    @property
    def text(self) -> str:
        """The text of the last message of the user that has any."""
        for message in reversed(self.body["messages"]):
            content = message.get("content")
            texts = [content] if isinstance(content, str) else _texts(content or ())
            if any(texts) and message.get("role") == "user":
                return "\n".join(texts)
        return ""

    def chance(self, *labels: str) -> Chance:
        """Chance that depends on the seed, the model and the request, so that it can be repeated."""
        unsaid = ("stream", "stream_options")
        said = {name: value for name, value in self.body.items() if name not in unsaid}
        return seeded(self.seed, self.model.id, json.dumps(said, sort_keys=True), *labels)


def identity(prefix: str, seed: int, serial: int) -> str:
    """An id such as `chatcmpl-…`, another for every serial."""
    chance = seeded(seed, prefix, str(serial))
    return prefix + "".join(chance.choice(_LETTERS) for _ in range(28))


def compose(question: Question) -> dict[str, Any]:
    """The whole completion."""
    count = int(question.body.get("n") or 1)
    drafts = [_draft(question, question.chance("draft", str(index))) for index in range(count)]
    spent = sum(cost for _, _, cost in drafts)
    thoughts = 0
    if question.model.reasons and question.body.get("reasoning_effort") != "none":
        most = question.body.get("max_completion_tokens") or question.model.output_tokens
        thoughts = 8 + int(spent * question.chance("thoughts").uniform(0.5, 4.0))
        thoughts = min(thoughts, max(0, most * count - spent))  # the bound is of both together
    return {
        "id": identity("chatcmpl-", question.seed, question.serial),
        "object": "chat.completion",
        "created": int(question.now),
        "model": question.model.id,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
            for index, (message, finish, _) in enumerate(drafts)
        ],
        "usage": {
            "prompt_tokens": question.prompt,
            "completion_tokens": spent + thoughts,
            "total_tokens": question.prompt + spent + thoughts,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": thoughts,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": f"fp_{question.chance('fingerprint').getrandbits(40):010x}",
    }


def chunks(completion: Mapping[str, Any], *, usage: bool) -> list[dict[str, Any]]:
    """The same completion as the chunks of a stream.

    Args:
        usage: whether the last one, without choices, tells what was used.
    """
    unshared = ("choices", "usage", "object")
    shared = {name: value for name, value in completion.items() if name not in unshared}
    shared["object"] = "chat.completion.chunk"
    none = {"usage": None} if usage else {}
    made: list[dict[str, Any]] = []
    for choice in completion["choices"]:
        for delta in _deltas(choice["message"]):
            piece = {"index": choice["index"], "delta": delta, "logprobs": None, "finish_reason": None}
            made.append({**shared, "choices": [piece], **none})
        end = {
            "index": choice["index"], "delta": {}, "logprobs": None,
            "finish_reason": choice["finish_reason"],
        }  # fmt: skip
        made.append({**shared, "choices": [end], **none})
    if usage:
        made.append({**shared, "choices": [], "usage": completion["usage"]})
    return made


def embedded(
    texts: list[str], model: OpenAIModel, dimensions: int, *, numbers: bool
) -> tuple[dict[str, Any], int]:
    """The whole answer to an embedding request, and the tokens it took."""
    data = []
    for index, text in enumerate(texts):
        values = media.vector(text, model.id, dimensions)
        packed = struct.pack(f"<{len(values)}f", *values)
        written = values if numbers else base64.b64encode(packed).decode()
        data.append({"object": "embedding", "index": index, "embedding": written})
    spent = sum(map(tokens.of_text, texts))
    usage = {"prompt_tokens": spent, "total_tokens": spent}
    return {"object": "list", "data": data, "model": model.id, "usage": usage}, spent


# ── what is said ─────────────────────────────────────────────────────────────


def _draft(question: Question, chance: Chance) -> tuple[dict[str, Any], str, int]:
    """A message, why it ends, and its tokens."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    function = _function(question, chance)
    if function is not None:
        call = _call(question, function, chance)
        cost = tokens.of_text(json.dumps(call["function"]))
        return {**message, "tool_calls": [call]}, "tool_calls", cost
    text, finish = _ended(question, _said(question, chance))
    return {**message, "content": text}, finish, max(1, tokens.of_text(text))


def _said(question: Question, chance: Chance) -> str:
    form = question.body.get("response_format") or {}
    words = prose.key_words(question.text)
    if form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema") or {"type": "object"}
        return json.dumps(structure.value_for(schema, words, chance), ensure_ascii=False)
    if form.get("type") == "json_object":
        return json.dumps({"answer": prose.answer(question.text, chance)}, ensure_ascii=False)
    return prose.answer(question.text, chance)


def _ended(question: Question, text: str) -> tuple[str, str]:
    """The text as far as it goes, and why it stops there."""
    stops = question.body.get("stop") or ()
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop, 1)[0] if stop else text
    body = question.body
    left = body.get("max_completion_tokens") or body.get("max_tokens") or question.model.output_tokens
    kept = ""
    for piece in _SPLIT.findall(text):
        left -= tokens.of_text(piece)
        if left < 0:
            return kept, "length"
        kept += piece
    return text, "stop"


def _function(question: Question, chance: Chance) -> Mapping[str, Any] | None:
    """The function to call, if this turn is to be a call."""
    declared = [tool["function"] for tool in question.body.get("tools") or () if tool.get("function")]
    choice = question.body.get("tool_choice") or "auto"
    forced = choice["function"]["name"] if isinstance(choice, Mapping) else None
    wanted = forced or prose.markers(question.text).call
    named: Mapping[str, Any] | None = next((f for f in declared if f["name"] == wanted), None)
    if not declared or choice == "none":
        return None
    if choice == "required":
        return named if named is not None else dict(chance.choice(declared))
    answered = question.body["messages"][-1].get("role") == "tool"
    return None if answered and not forced else named


def _call(question: Question, function: Mapping[str, Any], chance: Chance) -> dict[str, Any]:
    schema = function.get("parameters") or {"type": "object"}
    arguments = structure.value_for(schema, prose.key_words(question.text), chance)
    return {
        "id": identity("call_", question.seed, question.serial),
        "type": "function",
        "function": {"name": function["name"], "arguments": json.dumps(arguments, ensure_ascii=False)},
    }


def _texts(content: Any) -> list[str]:
    return [piece["text"] for piece in content if piece.get("type") == "text"]


# ── pieces ───────────────────────────────────────────────────────────────────


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    calls = message.get("tool_calls")
    first: dict[str, Any] = {"role": "assistant", "content": None if calls else "", "refusal": None}
    yield first
    for index, call in enumerate(calls or ()):
        name, text = call["function"]["name"], call["function"]["arguments"]
        head = {**call, "function": {"name": name, "arguments": ""}}
        yield {"tool_calls": [{"index": index, **head}]}
        for at in range(0, len(text), _CHARACTERS_A_PIECE):
            piece = {"arguments": text[at : at + _CHARACTERS_A_PIECE]}
            yield {"tool_calls": [{"index": index, "function": piece}]}
    for text in _pieces(message.get("content") or ""):
        yield {"content": text}
    if message.get("refusal"):
        yield {"refusal": message["refusal"]}


def _pieces(text: str) -> list[str]:
    words = _SPLIT.findall(text)
    if words:
        words[-1] += text[sum(map(len, words)) :]  # blanks at the end belong to it
    size = _WORDS_A_PIECE
    return ["".join(words[at : at + size]) for at in range(0, len(words), size)]
