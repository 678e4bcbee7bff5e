"""A prompt as the Anthropic surface counts it, and the cache of prompts it keeps.

Tools, system and messages make one row of blocks. A `cache_control` ends a prefix: the longest prefix
that was written before is read, what follows it up to the last breakpoint is written, the rest is
input. The three are disjoint. A prefix under 1,024 tokens is not cached, and nothing says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headgate.emulator import tokens
from headgate.emulator.chance import fingerprint

__all__ = ["Prefix", "Prompt", "PromptCache", "Spent", "read_prompt"]

_IMAGE_TOKENS = 1_600
_DOCUMENT_TOKENS = 3_000
_SHORTEST_PREFIX = 1_024
_LIFETIMES = {"5m": 300.0, "1h": 3_600.0}


@dataclass(frozen=True)
class Prefix:
    """What a breakpoint ends: its fingerprint, its tokens, how long it is to be kept."""

    mark: str
    tokens: int
    ttl: str


@dataclass(frozen=True)
class Prompt:
    """Tokens of a prompt, and its prefixes in order."""

    tokens: int
    prefixes: tuple[Prefix, ...] = ()


@dataclass(frozen=True)
class Spent:
    """A prompt's tokens in three disjoint parts; `written_1h` is a part of `written`."""

    input: int
    written: int = 0
    read: int = 0
    written_1h: int = 0

    def usage(self) -> dict[str, Any]:
        """As `usage` shows it."""
        return {
            "input_tokens": self.input,
            "cache_creation_input_tokens": self.written,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.written - self.written_1h,
                "ephemeral_1h_input_tokens": self.written_1h,
            },
        }


class PromptCache:
    """Remembers prefixes, each for its organisation and its time; a read renews it."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def clear(self) -> None:
        """Forget all."""
        self._until.clear()

    def look(self, owner: str, prompt: Prompt, now: float) -> Spent:
        """What of a prompt would be read, written, or neither. Changes nothing."""
        usable = [p for p in prompt.prefixes if p.tokens >= _SHORTEST_PREFIX]
        if not usable:
            return Spent(prompt.tokens)
        kept = [p.tokens for p in usable if self._until.get((owner, p.mark), 0.0) > now]
        read, last = max(kept, default=0), usable[-1]
        written = last.tokens - read
        return Spent(prompt.tokens - last.tokens, written, read, written if last.ttl == "1h" else 0)

    def keep(self, owner: str, prompt: Prompt, now: float) -> None:
        """Write a prompt's prefixes, or renew them."""
        for prefix in prompt.prefixes:
            if prefix.tokens >= _SHORTEST_PREFIX:
                self._until[owner, prefix.mark] = now + _LIFETIMES.get(prefix.ttl, 300.0)


def read_prompt(body: Mapping[str, Any]) -> Prompt:
    """Tokens and prefixes of a request."""
    total, mark = 0, fingerprint(str(body.get("model"))).hex()
    prefixes: list[Prefix] = []
    for block in _blocks(body):
        control = block.get("cache_control")
        bare = {name: value for name, value in block.items() if name != "cache_control"}
        total += _tokens(bare)
        mark = fingerprint(mark, json.dumps(bare, sort_keys=True)).hex()
        if isinstance(control, Mapping):
            prefixes.append(Prefix(mark, total, str(control.get("ttl") or "5m")))
    whole = body.get("cache_control")
    if isinstance(whole, Mapping):  # set for the whole request: the last block ends the prefix
        prefixes.append(Prefix(mark, total, str(whole.get("ttl") or "5m")))
    return Prompt(total, tuple(prefixes))


def _blocks(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for tool in body.get("tools") or ():
        yield {"tool": tool, "cache_control": tool.get("cache_control")}
    yield from _listed(body.get("system"))
    for message in body.get("messages") or ():
        yield {"role": message.get("role")}
        yield from _listed(message.get("content"))


def _listed(content: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    else:
        yield from (block for block in content or () if isinstance(block, Mapping))


def _tokens(block: Mapping[str, Any]) -> int:
    match block.get("type"):
        case "text":
            return tokens.of_text(str(block.get("text", "")))
        case "image":
            return _IMAGE_TOKENS
        case "document" if block.get("source", {}).get("type") != "text":
            return _DOCUMENT_TOKENS
        case None if "role" in block:
            return 1
    return tokens.of_text(json.dumps(block, separators=(",", ":"), ensure_ascii=False))
