"""Answers to embedContent and batchEmbedContents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headgate.emulator import media, tokens
from headgate.emulator.config import Model
from headgate.emulator.requests import dimensions

__all__ = ["reply", "tally"]

_PICTURE_TOKENS = 258


def tally(items: Sequence[Mapping[str, Any]]) -> tokens.Tally:
    """Tokens of all texts; an embedding request has no message overhead."""
    total: tokens.Tally = {}
    for item in items:
        for modality, amount in tokens.of_content(item.get("content", {}), _PICTURE_TOKENS).items():
            extra = 1 if modality == "TEXT" else 0
            total[modality] = total.get(modality, 0) + amount - extra
    return total


def reply(
    items: Sequence[Mapping[str, Any]], model: Model, prompt: tokens.Tally, *, batch: bool
) -> bytes:
    """The pretty-printed body: one unit vector per item, all parts of an item in one vector."""
    vectors = [_values(item, model) for item in items]
    usage = {"promptTokenCount": sum(prompt.values()), "promptTokenDetails": tokens.details(prompt)}
    tail = json.dumps(usage, indent=2).replace("\n", "\n  ")
    if batch:
        listed = ",\n".join(
            f'    {{\n      "values": [\n{_lines(v, 8)}\n      ]\n    }}' for v in vectors
        )
        head = f'"embeddings": [\n{listed}\n  ]'
    else:
        head = f'"embedding": {{\n    "values": [\n{_lines(vectors[0], 6)}\n    ]\n  }}'
    # Built by hand: indented json.dumps takes half a second for a hundred vectors.
    return f'{{\n  {head},\n  "usageMetadata": {tail}\n}}\n'.encode()


def _values(item: Mapping[str, Any], model: Model) -> list[float]:
    parts = item.get("content", {}).get("parts", [])
    text = "\n".join(
        part["text"] if "text" in part else json.dumps(part, sort_keys=True) for part in parts
    )
    return media.vector(text, model.id, dimensions(item) or model.dimensions)


def _lines(values: list[float], indent: int) -> str:
    return ",\n".join(" " * indent + repr(value) for value in values)
