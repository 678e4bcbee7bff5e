"""How many tokens a text is here.

The rule, the same for countTokens, usageMetadata and the TPM quota:

- a run of letters is one token for every six begun (a letter beyond U+2E7F is a token itself);
- a digit, or any other visible character, is one token; blanks cost nothing;
- a picture costs what the model's data says, any other file 258;
- function calls, their results, tool declarations and schemas cost what their compact JSON would;
- each message costs one more.

No real tokenizer is like this, and no client's estimate should agree with it exactly: that is the
point of an estimate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["Tally", "details", "of_content", "of_request", "of_text"]

_PIECES = re.compile(r"[^\W\d_]+|\S")
_FILE_TOKENS = 258
_LETTERS_A_TOKEN = 6
_IDEOGRAPHS = "\u2e80"

Tally: TypeAlias = dict[str, int]
"""Modality (`TEXT`, `IMAGE`, …) to tokens."""


def of_text(text: str) -> int:
    """Tokens of a text."""
    total = 0
    for match in _PIECES.finditer(text):
        piece = match[0]
        dense = piece >= _IDEOGRAPHS
        total += len(piece) if dense else -(-len(piece) // _LETTERS_A_TOKEN)
    return total


def of_request(body: Mapping[str, Any], image_tokens: int) -> Tally:
    """Tokens of a generateContent request (fields in lowerCamel): messages, instruction, tools."""
    tally: Tally = {}
    for content in body.get("contents", []):
        _add(tally, of_content(content, image_tokens))
    if "systemInstruction" in body:
        _add(tally, of_content(body["systemInstruction"], image_tokens))
    if body.get("tools"):
        _add(tally, {"TEXT": of_text(_compact(body["tools"]))})
    return tally


def of_content(content: Mapping[str, Any], image_tokens: int) -> Tally:
    """Tokens of one message."""
    tally: Tally = {"TEXT": 1}
    for part in content.get("parts", []):
        _add(tally, _of_part(part, image_tokens))
    return tally


def details(tally: Tally) -> list[dict[str, Any]]:
    """The tally as `promptTokensDetails`."""
    return [{"modality": name, "tokenCount": tokens} for name, tokens in tally.items() if tokens]


def _of_part(part: Mapping[str, Any], image_tokens: int) -> Tally:
    if "text" in part:
        return {"TEXT": of_text(part["text"])}
    for name in ("inlineData", "fileData"):
        if name in part:
            modality = _modality(part[name].get("mimeType", ""))
            return {modality: image_tokens if modality == "IMAGE" else _FILE_TOKENS}
    rest = {name: value for name, value in part.items() if name != "thoughtSignature"}
    return {"TEXT": of_text(_compact(rest))} if rest else {}


def _modality(mime: str) -> str:
    family = mime.split("/", 1)[0]
    if mime == "application/pdf":
        return "DOCUMENT"
    return {"image": "IMAGE", "audio": "AUDIO", "video": "VIDEO"}.get(family, "TEXT")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _add(tally: Tally, more: Tally) -> None:
    for modality, tokens in more.items():
        tally[modality] = tally.get(modality, 0) + tokens
