"""Answers to generateContent: what is said, what it cost, whole or in chunks."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.emulator import media, prose, structure, tokens
from headgate.emulator.chance import Chance, fingerprint, seeded
from headgate.emulator.config import Model

__all__ = ["Answer", "Draft", "Question", "compose", "response_schema", "signature_is_ours"]

_SIGNATURE_MARK = b"\x12headgate-emulator"
_WORDS_A_CHUNK = 9
_SPLIT = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class Question:
    """A request as the composer needs it: fields in lowerCamel, the model resolved."""

    body: Mapping[str, Any]
    model: Model
    seed: int
    prompt: tokens.Tally
    serial: int = 0  # of the request: what is said depends on the request only, its id does not

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its generationConfig."""
        config: Mapping[str, Any] = self.body.get("generationConfig", {})
        return config

    @property
    def text(self) -> str:
        """The text of the last message that has any."""
        for content in reversed(self.body.get("contents", [])):
            texts = [part["text"] for part in content.get("parts", []) if "text" in part]
            if texts and content.get("role", "user") != "model":
                return "\n".join(texts)
        return ""

    def chance(self, *labels: str) -> Chance:
        """Chance that depends on the seed, the model and the request, so that it can be repeated."""
        raw = json.dumps(self.body, sort_keys=True, default=str)
        return seeded(self.seed, self.model.id, raw, *labels)


@dataclass
class Draft:
    """One candidate: parts without signature or split, and how it ends."""

    parts: list[dict[str, Any]]
    finish: str = "STOP"
    message: str | None = None
    cost: tokens.Tally = field(default_factory=dict)


@dataclass
class Answer:
    """Everything an answer holds, before it is written as one object or as chunks."""

    response_id: str
    model: Model
    tier: str
    prompt: tokens.Tally
    thought_tokens: int = 0
    drafts: list[Draft] = field(default_factory=list)
    block: str | None = None  # the blockReason of a blocked prompt
    safety: str | None = None  # the kind of a SAFETY stop

    def whole(self) -> dict[str, Any]:
        """The body of generateContent."""
        if self.block:
            return self._blocked()
        if self.safety:
            return self._framed([self._unsafe()], {})
        spent: tokens.Tally = {}
        for draft in self.drafts:
            for modality, amount in draft.cost.items():
                spent[modality] = spent.get(modality, 0) + amount
        candidates = [self._candidate(d.parts, i, d) for i, d in enumerate(self.drafts)]
        return self._framed(candidates, spent)

    def chunks(self, before_stop: int = 1) -> list[dict[str, Any]]:
        """The bodies of streamGenerateContent, in order; usage grows from one to the next.

        A SAFETY stop comes after `before_stop` chunks.
        """
        if self.block:
            return [self._blocked()]
        spent: tokens.Tally = {}
        made: list[dict[str, Any]] = []
        for index, draft in enumerate(self.drafts):
            for parts, cost, last in _pieces(draft, empty_last=self.model.generation >= 3):
                for modality, amount in cost.items():
                    spent[modality] = spent.get(modality, 0) + amount
                candidate = self._candidate(parts, index, draft if last else None)
                made.append(self._framed([candidate], spent))
        if self.safety:
            made = [*made[:before_stop], self._framed([self._unsafe()], {})]
        return made

    def _candidate(self, parts: list[dict[str, Any]], index: int, end: Draft | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
        if end is not None:
            candidate["finishReason"] = end.finish
        candidate["index"] = index
        if end is not None and end.message:
            candidate["finishMessage"] = end.message
        return candidate

    def _unsafe(self) -> dict[str, Any]:
        rating = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
        content: dict[str, Any] = {"role": "model"} if self.safety == "safety_no_parts" else {}
        candidate: dict[str, Any] = {"content": content, "finishReason": "SAFETY", "index": 0}
        if self.safety == "safety_no_content":
            del candidate["content"]
        return {**candidate, "safetyRatings": [rating]}

    def _blocked(self) -> dict[str, Any]:
        return {
            "promptFeedback": {"blockReason": self.block},
            "usageMetadata": self.usage({}, thoughts=0),
            "modelVersion": self.model.id,
            "responseId": self.response_id,
        }

    def _framed(self, candidates: list[dict[str, Any]], spent: tokens.Tally) -> dict[str, Any]:
        return {
            "candidates": candidates,
            "usageMetadata": self.usage(spent, thoughts=self.thought_tokens),
            "modelVersion": self.model.id,
            "responseId": self.response_id,
        }

    def usage(self, spent: tokens.Tally, *, thoughts: int) -> dict[str, Any]:
        """usageMetadata; what is zero is not there."""
        prompt, out = sum(self.prompt.values()), sum(spent.values())
        usage: dict[str, Any] = {"promptTokenCount": prompt}
        if out:
            usage["candidatesTokenCount"] = out
        usage["totalTokenCount"] = prompt + out + thoughts
        usage["promptTokensDetails"] = tokens.details(self.prompt)
        if "IMAGE" in spent:
            usage["candidatesTokensDetails"] = tokens.details({"IMAGE": spent["IMAGE"]})
        if thoughts:
            usage["thoughtsTokenCount"] = thoughts
        return {**usage, "serviceTier": self.tier}


def compose(question: Question) -> Answer:
    """The answer to a request that is in order."""
    chance = question.chance("answer")
    unique = seeded(question.seed, "response", str(question.serial)).randbytes(17)
    identity = base64.urlsafe_b64encode(unique).decode().rstrip("=")
    tier = question.body.get("serviceTier", "standard")
    answer = Answer(
        identity, question.model, "standard" if tier == "unspecified" else tier, question.prompt
    )
    count = max(1, min(8, question.settings.get("candidateCount", 1)))
    answer.drafts = [_draft(question, question.chance("draft", str(i))) for i in range(count)]
    _think(question, answer, chance)
    return answer


def _draft(question: Question, chance: Chance) -> Draft:
    function = _function(question, chance)
    if function is not None:
        return _call(question, function, chance)
    modalities = question.settings.get("responseModalities", [])
    if question.model.kind == "image" and ("IMAGE" in modalities or not modalities):
        return _picture(question, chance, with_text="TEXT" in modalities or not modalities)
    text = _structured(question, chance)
    return _text(question, prose.answer(question.text, chance) if text is None else text)


def _text(question: Question, text: str) -> Draft:
    finish = "STOP"
    stops = [text.find(stop) for stop in question.settings.get("stopSequences", []) if stop in text]
    if stops:
        text = text[: min(stops)]
    limit = min(question.settings.get("maxOutputTokens") or math.inf, question.model.output_tokens)
    if tokens.of_text(text) > limit:
        text, finish = _cut(text, int(limit)), "MAX_TOKENS"
    return Draft([{"text": text}], finish, cost={"TEXT": tokens.of_text(text)})


def _cut(text: str, limit: int) -> str:
    kept: list[str] = []
    for piece in _SPLIT.findall(text):
        limit -= tokens.of_text(piece)
        if limit < 0:
            break
        kept.append(piece)
    return "".join(kept)


def response_schema(settings: Mapping[str, Any]) -> Any:
    """The schema of a generationConfig, in whichever of its places it stands."""
    return (
        settings.get("responseSchema")
        or settings.get("responseJsonSchema")
        or settings.get("_responseJsonSchema")
        or settings.get("responseFormat", {}).get("text", {}).get("schema")
    )


def _structured(question: Question, chance: Chance) -> str | None:
    """The JSON text a response schema asks for; None if none is asked for."""
    settings = question.settings
    form = settings.get("responseFormat", {}).get("text", {})
    mime = settings.get("responseMimeType", "")
    schema = response_schema(settings)
    if mime not in ("application/json", "text/x.enum") and form.get("mimeType") != "APPLICATION_JSON":
        return None
    words = prose.key_words(question.text)
    if not isinstance(schema, Mapping):
        return json.dumps({"answer": prose.answer(question.text, chance)}, indent=2, ensure_ascii=False)
    value = structure.value_for(schema, words, chance)
    if mime == "text/x.enum":
        return str(value)
    return json.dumps(value, indent=2, ensure_ascii=False)


def _picture(question: Question, chance: Chance, *, with_text: bool) -> Draft:
    image = {
        "mimeType": "image/png",
        "data": media.picture(question.model.id, question.text, str(chance.random())),
    }
    cost = {"IMAGE": question.model.image_tokens}
    if not with_text:
        return Draft([{"inlineData": image}], cost=cost)
    text = f"Here is a picture of {' and '.join(prose.key_words(question.text)[:2]) or 'water'}."
    return Draft([{"text": text}, {"inlineData": image}], cost={"TEXT": tokens.of_text(text), **cost})


def _function(question: Question, chance: Chance) -> Mapping[str, Any] | None:
    """The declared function to call, if this turn is to be a call."""
    tools = question.body.get("tools", [])
    declared = [d for tool in tools for d in tool.get("functionDeclarations", []) if d.get("name")]
    calling = question.body.get("toolConfig", {}).get("functionCallingConfig", {})
    mode = calling.get("mode", "AUTO")
    allowed = calling.get("allowedFunctionNames") or [d.get("name") for d in declared]
    usable = [d for d in declared if d.get("name") in allowed]
    if not usable or mode == "NONE":
        return None
    wanted = prose.markers(question.text).call
    named: Mapping[str, Any] | None = next((d for d in usable if d.get("name") == wanted), None)
    if mode == "ANY":
        return named if named is not None else dict(chance.choice(usable))
    answered = any(
        "functionResponse" in part for part in question.body["contents"][-1].get("parts", [])
    )
    return None if answered else named


def _call(question: Question, function: Mapping[str, Any], chance: Chance) -> Draft:
    schema = function.get("parametersJsonSchema") or function.get("parameters") or {"type": "object"}
    args = structure.value_for(schema, prose.key_words(question.text), chance)
    call: dict[str, Any] = {"name": function["name"], "args": args}
    message = None
    if question.model.generation >= 3:
        call["id"] = "".join(chance.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(8))
        message = "Model generated function call(s)."
    cost = tokens.of_text(function["name"]) + tokens.of_text(json.dumps(args, ensure_ascii=False))
    return Draft([{"functionCall": call}], message=message, cost={"TEXT": cost})


def _think(question: Question, answer: Answer, chance: Chance) -> None:
    """Count thoughts, show them if asked for, sign what they led to. The bound of what a candidate may
    write holds for its thoughts too (googleapis/python-genai, issues 811 and 2062)."""
    thinking = question.settings.get("thinkingConfig", {})
    budget = thinking.get("thinkingBudget", -1)
    if not question.model.thinking or budget == 0:
        return
    visible = sum(sum(draft.cost.values()) for draft in answer.drafts)
    most = question.settings.get("maxOutputTokens") or question.model.output_tokens
    left = max(0, most * len(answer.drafts) - visible)
    count = min(left, 8 + int(visible * chance.uniform(0.5, 4.0)))
    answer.thought_tokens = min(count, budget) if budget > 0 else count
    for index, draft in enumerate(answer.drafts):
        signed = draft.parts[-1]
        if question.model.generation >= 3 or "functionCall" in signed:
            signed["thoughtSignature"] = _signature(question, answer.response_id, index)
        if thinking.get("includeThoughts"):
            draft.parts.insert(0, {"text": prose.thoughts(question.text, chance), "thought": True})


def _signature(question: Question, response_id: str, index: int) -> str:
    payload = fingerprint(response_id, str(index)) * 2
    proof = fingerprint("signature", str(question.seed), payload.hex())
    return base64.b64encode(_SIGNATURE_MARK + payload + proof).decode()


def signature_is_ours(signature: str, seed: int) -> bool:
    """Whether a thoughtSignature is, byte for byte, one that an emulator of this seed gave out."""
    plain = signature.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return False
    payload, proof = raw[len(_SIGNATURE_MARK) : -32], raw[-32:]
    return raw.startswith(_SIGNATURE_MARK) and proof == fingerprint(
        "signature", str(seed), payload.hex()
    )


def _pieces(
    draft: Draft, *, empty_last: bool
) -> Iterator[tuple[list[dict[str, Any]], tokens.Tally, bool]]:
    """(parts, cost, whether it is the last) of each chunk of a draft."""
    pieces: list[tuple[list[dict[str, Any]], tokens.Tally]] = []
    end: dict[str, Any] = {"text": ""}
    for part in draft.parts:
        if part.get("thought"):
            pieces.append(([part], {}))
        elif "text" in part:
            pieces += [([{"text": t}], {"TEXT": tokens.of_text(t)}) for t in _split(part["text"])]
            if "thoughtSignature" in part:
                end["thoughtSignature"] = part["thoughtSignature"]
        else:
            modality = "IMAGE" if "inlineData" in part else "TEXT"
            pieces.append(([part], {modality: draft.cost.get(modality, 0)}))
    if empty_last or not pieces or "thoughtSignature" in end:
        pieces.append(([end], {}))
    for index, (parts, cost) in enumerate(pieces):
        yield parts, cost, index == len(pieces) - 1


def _split(text: str) -> list[str]:
    words = _SPLIT.findall(text)
    if not words:
        return [text] if text else []
    words[-1] += text[sum(map(len, words)) :]  # blanks at the end belong to it
    return ["".join(words[i : i + _WORDS_A_CHUNK]) for i in range(0, len(words), _WORDS_A_CHUNK)]
