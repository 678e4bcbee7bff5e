"""The model list and its entries."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from headgate.emulator.config import Model
from headgate.emulator.errors import Refused, bad_request

__all__ = ["described", "page"]

_METHODS = {
    "text": ["generateContent", "countTokens", "createCachedContent", "batchGenerateContent"],
    "image": ["generateContent", "countTokens", "batchGenerateContent"],
    "embedding": ["embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent"],
}
_PAGE = 50
_LARGEST_PAGE = 1000


def page(models: Sequence[tuple[str, Model]], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of the list, `{}` if there is nothing on it. Raises `Refused`."""
    try:
        size = min(int(query.get("pageSize") or query.get("page_size") or _PAGE), _LARGEST_PAGE)
        token = query.get("pageToken") or query.get("page_token") or ""
        start = int(base64.b64decode(token.encode(), altchars=b"-_", validate=True)) if token else 0
    except ValueError:
        raise Refused(bad_request("Invalid page size or page token.")) from None
    size = size if size > 0 else _PAGE
    shown = [described(name, model) for name, model in models[start : start + size]]
    listed: dict[str, Any] = {"models": shown} if shown else {}
    if start + size < len(models):
        listed["nextPageToken"] = base64.urlsafe_b64encode(str(start + size).encode()).decode()
    return listed


def described(name: str, model: Model) -> dict[str, Any]:
    """A model as list and get show it, under the name it was asked by."""
    shown = model.display_name or model.id
    entry: dict[str, Any] = {
        "name": f"models/{name}",
        "version": "001",
        "displayName": shown if name == model.id else f"{shown} (latest)",
        "description": f"Emulated: answers in the shape of {shown}, without its knowledge.",
        "inputTokenLimit": model.input_tokens,
        "outputTokenLimit": model.output_tokens,
        "supportedGenerationMethods": _METHODS[model.kind],
    }
    if model.kind != "embedding":
        entry |= {"temperature": 1, "topP": 0.95, "topK": 64, "maxTemperature": 2}
    if model.thinking:
        entry["thinking"] = True
    return entry
